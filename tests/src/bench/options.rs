//! What can be asked of the bench.

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::hostile::chunks::Kind;
use crate::hostile::{Crowd, Target};

/// Measures real nodes on links of known rates
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
pub struct Bench {
    #[command(subcommand)]
    pub(super) task: Task,
}

#[derive(Debug, Subcommand)]
pub(super) enum Task {
    /// Some nodes have a chain and others want it: how long until all have it, against the least
    /// that is possible
    ///
    /// Progress is on stderr. Needs root and iproute2, unless --loopback is given.
    Swarm(Swarm),
    /// Validators make blocks while one of them uploads history as fast as its link allows: how
    /// much later are transfers final?
    ///
    /// Transfers are submitted to the one that uploads and asked of it. Times without and with
    /// upload are taken in turn. Progress is on stderr. Needs root and iproute2.
    Finality(Finality),
    /// Attacks validators and a full node while transfers go on: how much later are they final, and
    /// what does it cost?
    ///
    /// `attack list` names all attacks. Everything runs on this machine's loopback. Each run has 10
    /// quiet seconds and 20 under attack; of several runs the median by the longest transfer is
    /// told. Progress is on stderr. Needs chrt (util-linux).
    Attack(Attack),
    /// Attackers hold all public places: is a validator that restarts kept out, or a newcomer?
    ///
    /// Fails when a bound of the result is broken. Progress is on stderr. Needs root and iproute2.
    Places(Places),
    /// The attackers of one attack, in one process
    #[command(hide = true)]
    Attacker(Attacker),
    /// Pays by way of one node at a steady rate
    #[command(hide = true)]
    Pay(Pay),
    /// A plain copy over one shaped link: what the links themselves cost
    #[command(hide = true)]
    Calibrate(Calibrate),
    /// One end of that copy
    #[command(hide = true)]
    Copy(Copy),
    /// Asks one node again and again
    #[command(hide = true)]
    Probe(Probe),
    /// Tells BitTorrent clients of each other
    #[command(hide = true)]
    Tracker(Tracker),
    /// A seed that lies or keeps silent
    #[command(hide = true)]
    Hostile(Hostile),
}

/// Another program to do the same work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Tool {
    Aria2,
}

/// What has no part in what is measured.
#[derive(Clone, Debug, Args)]
pub(super) struct Common {
    /// Print the result as one JSON object on the last line of stdout
    #[arg(long)]
    pub(super) json: bool,
    /// This `cairn-node`, instead of the one beside this program
    #[arg(long, value_name = "FILE")]
    pub(super) node: Option<PathBuf>,
    /// What the nodes log
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(super) node_log: String,
    /// Keep homes and logs. Those of a run that failed are kept anyway
    #[arg(long)]
    pub(super) keep: bool,
}

#[derive(Clone, Debug, Args, Serialize)]
pub(super) struct Swarm {
    /// Nodes that have the chain
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) seeds: u16,
    /// Nodes that start with nothing
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=128))]
    pub(super) leechers: u16,
    /// Upload rate of each seed, Mbit/s
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) seed_up: u32,
    /// Upload rate of each leecher, Mbit/s
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) leech_up: u32,
    /// Download rate of each node, Mbit/s
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) down: u32,
    /// Size of the chain, MiB; it ends with the segment that brings it there
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(super) mib: u32,
    /// Accounts that are paid, in turn
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(64..=10_000_000))]
    pub(super) accounts: u32,
    /// Size of a chunk, KiB
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(16..=1_024))]
    pub(super) chunk_kib: u32,
    /// Size of a segment, MiB; at most that of the chain
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) segment_mib: u32,
    /// Further leechers, which start when the others are half done
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=64))]
    pub(super) late: u16,
    /// Further seeds that send wrong bytes
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=64))]
    pub(super) poison: u16,
    /// Further seeds that say what they have and send nothing of it
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=64))]
    pub(super) stall: u16,
    /// Kill -9 each leecher that is not done this many seconds after its start, and start it again
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub(super) kill_every: Option<f64>,
    /// Kill the seeds once they have sent this many copies
    #[arg(long, value_name = "COPIES", value_parser = positive, conflicts_with = "loopback")]
    pub(super) seed_leaves_after: Option<f64>,
    /// Do the same with another program, run by run in turn
    #[arg(long, value_name = "TOOL", conflicts_with_all = ["loopback", "late", "poison", "stall", "kill_every", "seed_leaves_after"])]
    pub(super) vs: Option<Tool>,
    /// How often; the median run is the one told, and all are listed
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(super) runs: u16,
    /// No namespaces and no shaping: all on this machine's loopback
    #[arg(long)]
    pub(super) loopback: bool,
    /// Every packet at most 1,500 bytes inside of this machine too: costs processor time
    #[arg(long)]
    pub(super) no_offload: bool,
    /// Give up after this many seconds; by default after twelve times the least possible and two
    /// minutes
    #[arg(long, value_name = "SECONDS")]
    pub(super) timeout: Option<u64>,
    #[command(flatten)]
    #[serde(skip)]
    pub(super) common: Common,
}

#[derive(Clone, Debug, Args, Serialize)]
pub(super) struct Finality {
    /// Validators, of equal power
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub(super) validators: u16,
    /// Upload rate of each node, Mbit/s
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) up: u32,
    /// Download rate of each node, Mbit/s
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) down: u32,
    /// Most history that a validator sends, Mbit/s (`upload_rate` of its configuration); as much as
    /// its link takes without
    #[arg(long, value_name = "MBIT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) upload_limit: Option<u32>,
    /// Size of the chain that is uploaded, MiB
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(super) mib: u32,
    /// How often it is uploaded, each time to a node that has nothing
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) rounds: u16,
    /// Transfers a second
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) rate: u32,
    #[command(flatten)]
    #[serde(skip)]
    pub(super) common: Common,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Attack {
    /// Which attack, or `list`
    pub(super) name: String,
    /// How often
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
    pub(super) runs: u16,
    /// Seconds of each attack
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=600))]
    pub(super) seconds: u64,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Attacker {
    /// Which attack
    pub(super) name: String,
    /// The genesis of the chain
    #[arg(long)]
    pub(super) genesis: PathBuf,
    /// P2P/PEER/RPC of each node, the full node last
    #[arg(long = "target", required = true)]
    pub(super) targets: Vec<Target>,
    /// A home with the chain
    #[arg(long)]
    pub(super) home: Option<PathBuf>,
    /// How long
    #[arg(long)]
    pub(super) seconds: u64,
    /// Number of identities of `slots`
    #[arg(long)]
    pub(super) identities: Option<usize>,
    /// Longest wait of an identity of `slots` for the one before it, milliseconds
    #[arg(long)]
    pub(super) patience_ms: Option<u64>,
}

impl Attacker {
    pub(super) fn crowd(&self) -> Crowd {
        let usual = Crowd::default();
        Crowd {
            identities: self.identities.unwrap_or(usual.identities),
            patience: self.patience_ms.map_or(usual.patience, Duration::from_millis),
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(super) struct Places {
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Pay {
    /// The node
    #[arg(long)]
    pub(super) rpc: String,
    /// Its chain
    #[arg(long)]
    pub(super) chain: ledger::hash::ChainId,
    /// Transfers a second
    #[arg(long)]
    pub(super) rate: u32,
}

#[derive(Debug, Args)]
pub(super) struct Calibrate {
    /// Upload rate of the sender, Mbit/s
    #[arg(long, default_value_t = 40)]
    pub(super) up: u32,
    /// Download rate of the receiver, Mbit/s
    #[arg(long, default_value_t = 200)]
    pub(super) down: u32,
    /// What is copied, MiB
    #[arg(long, default_value_t = 64)]
    pub(super) mib: u32,
    /// Every packet at most 1,500 bytes inside of this machine too
    #[arg(long)]
    pub(super) no_offload: bool,
}

#[derive(Debug, Args)]
pub(super) struct Copy {
    /// Receive here
    #[arg(long, conflicts_with = "connect", required_unless_present = "connect")]
    pub(super) listen: Option<SocketAddrV4>,
    /// Send there
    #[arg(long)]
    pub(super) connect: Option<SocketAddrV4>,
    /// How much, MiB
    #[arg(long, default_value_t = 64)]
    pub(super) mib: u32,
}

#[derive(Debug, Args)]
pub(super) struct Probe {
    /// The node
    #[arg(long)]
    pub(super) rpc: String,
    /// Milliseconds between two questions: nodes tell when things happened, so that they need not
    /// be asked often
    #[arg(long, default_value_t = 500)]
    pub(super) every: u64,
}

#[derive(Debug, Args)]
pub(super) struct Tracker {
    /// Answer here
    #[arg(long)]
    pub(super) listen: SocketAddrV4,
    /// Who takes part
    #[arg(long = "peer")]
    pub(super) peers: Vec<SocketAddrV4>,
}

#[derive(Debug, Args)]
pub(super) struct Hostile {
    /// What it does
    #[arg(long)]
    pub(super) kind: Kind,
    /// Its home, with the chain
    #[arg(long)]
    pub(super) home: PathBuf,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("expected a number above zero".to_owned()),
    }
}
