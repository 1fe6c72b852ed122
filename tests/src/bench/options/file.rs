//! The options of `file`.

use clap::Args;
use serde::Serialize;

use super::{Common, Swarm, Tool, positive};

#[derive(Clone, Debug, Args, Serialize)]
pub(in crate::bench) struct File {
    /// Nodes that share the file
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(in crate::bench) seeds: u16,
    /// Nodes that fetch the file
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=128))]
    pub(in crate::bench) leechers: u16,
    /// Upload rate of each seed, Mbit/s
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(in crate::bench) seed_up: u32,
    /// Upload rate of each leecher, Mbit/s
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(in crate::bench) leech_up: u32,
    /// Download rate of each node, Mbit/s
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(in crate::bench) down: u32,
    /// Size of the file, MiB
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(in crate::bench) mib: u32,
    /// Measure another program too, alternating run by run
    #[arg(long, value_name = "TOOL", conflicts_with = "loopback")]
    pub(in crate::bench) vs: Option<Tool>,
    /// Number of runs; the result is the median run, and all runs are listed
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(in crate::bench) runs: u16,
    /// Run everything on loopback, without namespaces and without limits on the links' rates
    #[arg(long)]
    pub(in crate::bench) loopback: bool,
    /// Limit packets to 1,500 bytes inside this machine too, as real links do; costs processor time
    #[arg(long)]
    pub(in crate::bench) no_offload: bool,
    /// Give up after this many seconds [default: twelve times the least possible time, plus two
    /// minutes]
    #[arg(long, value_name = "SECONDS")]
    pub(in crate::bench) timeout: Option<u64>,
    /// Share a sparse file of this many bytes instead, and fetch its first and last GB, with two
    /// nodes on loopback
    #[arg(
        long,
        value_name = "BYTES",
        conflicts_with_all = ["vs", "mib", "seeds", "leechers", "runs"],
        value_parser = clap::value_parser!(u64).range(1_000_000..=1 << 44)
    )]
    pub(in crate::bench) sparse: Option<u64>,
    /// Kill (-9) and restart the node that fetches the sparse file this many seconds after each of
    /// its starts, or as soon after that as it has fetched something
    #[arg(long, value_name = "SECONDS", value_parser = positive, requires = "sparse")]
    pub(in crate::bench) kill_every: Option<f64>,
    #[command(flatten)]
    #[serde(skip)]
    pub(in crate::bench) common: Common,
}

impl File {
    /// Length of the file.
    pub(in crate::bench) fn bytes(&self) -> u64 {
        u64::from(self.mib) << 20
    }

    /// The swarm with the same links.
    pub(in crate::bench) fn swarm(&self) -> Swarm {
        let Self { seeds, leechers, seed_up, leech_up, down, mib, .. } = *self;
        let Self { vs, runs, loopback, no_offload, timeout, .. } = *self;
        Swarm {
            seeds,
            leechers,
            seed_up,
            leech_up,
            down,
            mib,
            accounts: 64,
            chunk_kib: 128,
            segment_mib: 16,
            late: 0,
            poison: 0,
            stall: 0,
            kill_every: None,
            seed_leaves_after: None,
            vs,
            runs,
            loopback,
            no_offload,
            timeout,
            common: self.common.clone(),
        }
    }
}
