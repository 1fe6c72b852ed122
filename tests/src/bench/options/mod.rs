//! The command line of the bench.

mod file;

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use node::config::SyncMode;
use serde::Serialize;

use crate::hostile::chunks::Kind;
use crate::hostile::{Crowd, Target};
pub(super) use file::File;

/// Measures real nodes on links with known rates
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
pub struct Bench {
    #[command(subcommand)]
    pub(super) task: Task,
}

#[derive(Debug, Subcommand)]
pub(super) enum Task {
    /// Measures how long new nodes take to fetch a chain from others, compared with the least time
    /// that the links allow
    ///
    /// Progress is on stderr. Needs root and iproute2, unless --loopback is given.
    Swarm(Swarm),
    /// Measures how soon a fresh node joins a long chain: until its tip is the chain's, and until
    /// it proves a balance to a light client
    ///
    /// Three seeds have the chain, which is made once and kept. No validator runs, so the chain
    /// stands still. Progress is on stderr. --up and --down need root and iproute2.
    Join(Join),
    /// Measures how evenly nodes with budgets share history, and how soon they make up for two that
    /// are gone
    ///
    /// All nodes begin with the whole chain, which stands still, and each is connected to all
    /// others. Then each gets a budget. Once they have dropped what exceeds it, two are killed. At
    /// the end a newcomer replays the chain. Progress is on stderr.
    Archive(Archive),
    /// Measures how the history on a node's disk follows its budget, from everything down to a part
    /// and back
    ///
    /// Three other nodes keep everything. The chain stands still. Progress is on stderr.
    Budget(Budget),
    /// Measures how fast nodes fetch a file by `share` and `get`, compared with the least time that
    /// the links allow
    ///
    /// Progress is on stderr. Needs root and iproute2, unless --loopback is given.
    File(File),
    /// Measures how much later transfers are final while one of the validators uploads history as
    /// fast as its link allows
    ///
    /// Transfers are submitted to the uploading validator, which also says when they are final.
    /// Quiet phases and phases with an upload alternate. Progress is on stderr. Needs root and
    /// iproute2.
    Finality(Finality),
    /// Attacks validators and a full node, and measures how much later transfers are final and what
    /// the attack costs the nodes
    ///
    /// `attack list` names all attacks. Everything runs on this machine's loopback. Each run has 10
    /// quiet seconds and then the attack. Of several runs the result is the one whose slowest
    /// transfer is the median of all slowest ones. Progress is on stderr. Needs chrt (util-linux).
    Attack(Attack),
    /// Measures how soon a restarted validator signs and a new node gets a connection, while
    /// attackers hold every place that a node has for strangers
    ///
    /// Fails if one of them takes longer than its limit. Progress is on stderr. Needs root and
    /// iproute2.
    Places(Places),
    /// Compares two ways to search: a query that all nodes pass on, and a look-up in the index
    ///
    /// Both search for the same objects in the same simulated network. With --real, flood queries
    /// of real nodes are counted too. The table is on stdout.
    Search(Search),
    /// Runs the attackers of one attack, in one process
    #[command(hide = true)]
    Attacker(Attacker),
    /// Submits transfers to one node at a steady rate
    #[command(hide = true)]
    Pay(Pay),
    /// Measures a plain copy over one shaped link, to know what the link itself costs
    #[command(hide = true)]
    Calibrate(Calibrate),
    /// Runs one end of the copy of `calibrate`
    #[command(hide = true)]
    Copy(Copy),
    /// Polls one node
    #[command(hide = true)]
    Probe(Probe),
    /// Runs a BitTorrent tracker
    #[command(hide = true)]
    Tracker(Tracker),
    /// Runs a seed that sends wrong chunks or none
    #[command(hide = true)]
    Hostile(Hostile),
}

/// Another program to do the same work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Tool {
    Aria2,
}

/// Options that do not change the measurement.
#[derive(Clone, Debug, Args)]
pub(super) struct Common {
    /// Print the result as one JSON object on the last line of stdout
    #[arg(long)]
    pub(super) json: bool,
    /// Use this `cairn-node` instead of the one beside this program
    #[arg(long, value_name = "FILE")]
    pub(super) node: Option<PathBuf>,
    /// Log level of the nodes
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(super) node_log: String,
    /// Keep the nodes' homes and logs; after a run that failed they are kept anyway, unless it was
    /// interrupted
    #[arg(long)]
    pub(super) keep: bool,
}

#[derive(Clone, Debug, Args, Serialize)]
pub(super) struct Swarm {
    /// Nodes that have the chain at the start
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
    /// Size of the chain, MiB, rounded up to a whole segment
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(super) mib: u32,
    /// Accounts that the chain's transfers pay, in turn
    #[arg(
        long,
        default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(64..=10_000_000)
    )]
    pub(super) accounts: u32,
    /// Size of a chunk, KiB
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(16..=1_024))]
    pub(super) chunk_kib: u32,
    /// Size of a segment, MiB; at most the size of the chain
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) segment_mib: u32,
    /// Additional leechers, which start when the others are half done
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=64))]
    pub(super) late: u16,
    /// Additional seeds that send wrong chunks
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=64))]
    pub(super) poison: u16,
    /// Additional seeds that announce chunks and never send them
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=64))]
    pub(super) stall: u16,
    /// Kill (-9) and restart each leecher this many seconds after each of its starts, or as soon
    /// after that as it has fetched something, until it has all chunks
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub(super) kill_every: Option<f64>,
    /// Kill the seeds once they have sent this many copies of the chain in total
    #[arg(long, value_name = "COPIES", value_parser = positive, conflicts_with = "loopback")]
    pub(super) seed_leaves_after: Option<f64>,
    /// Measure another program too, alternating run by run
    #[arg(
        long,
        value_name = "TOOL",
        conflicts_with_all =
            ["loopback", "late", "poison", "stall", "kill_every", "seed_leaves_after"]
    )]
    pub(super) vs: Option<Tool>,
    /// Number of runs; the result is the median run, and all runs are listed
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(super) runs: u16,
    /// Run everything on loopback, without namespaces and without limits on the links' rates
    #[arg(long)]
    pub(super) loopback: bool,
    /// Limit packets to 1,500 bytes inside this machine too, as real links do; costs processor time
    #[arg(long)]
    pub(super) no_offload: bool,
    /// Give up after this many seconds [default: twelve times the least possible time, plus two
    /// minutes]
    #[arg(long, value_name = "SECONDS")]
    pub(super) timeout: Option<u64>,
    #[command(flatten)]
    #[serde(skip)]
    pub(super) common: Common,
}

/// How a fresh node gets the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// It loads a snapshot of the state, then fetches older blocks and checks them
    Snapshot,
    /// It fetches and applies all blocks
    Full,
}

impl From<Mode> for SyncMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Snapshot => Self::Snapshot,
            Mode::Full => Self::Full,
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(super) struct Join {
    /// Transfers in the chain, of one output each, 1,000 in a block
    #[arg(
        long,
        default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u32).range(1..=100_000_000)
    )]
    pub(super) transfers: u32,
    /// Accounts after the last block; each but the first is created by one of the transfers
    #[arg(
        long,
        default_value_t = 100_000,
        value_parser = clap::value_parser!(u32).range(3..=10_000_000)
    )]
    pub(super) accounts: u32,
    /// How the fresh node gets the chain
    #[arg(long)]
    pub(super) mode: Mode,
    /// Upload rate of each node, Mbit/s [default: loopback, without limits]
    #[arg(
        long,
        requires = "down",
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub(super) up: Option<u32>,
    /// Download rate of each node, Mbit/s [default: loopback, without limits]
    #[arg(
        long,
        requires = "up",
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub(super) down: Option<u32>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Archive {
    /// Nodes that share history
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(5..=48))]
    pub(super) nodes: u16,
    /// Budget of each node, as a part of the chain's eras
    #[arg(long, default_value_t = 0.34, value_parser = share)]
    pub(super) keep_share: f64,
    /// Eras of the chain, of 1 MiB each
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    pub(super) eras: u16,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Budget {
    /// The lower budget, as a part of the chain's eras
    #[arg(long, default_value_t = 1.0 / 3.0, value_parser = share)]
    pub(super) keep_share: f64,
    /// Eras of the chain, of 1 MiB each
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    pub(super) eras: u16,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Search {
    /// Numbers of nodes of the simulated networks
    #[arg(
        long,
        value_delimiter = ',',
        default_values_t = [10, 50, 1_000, 10_000, 100_000],
        value_parser = clap::value_parser!(u32).range(2..=1_000_000),
    )]
    pub(super) nodes: Vec<u32>,
    /// Numbers of nodes of networks of real nodes
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(3..=64))]
    pub(super) real: Vec<u16>,
    /// Searches in each network
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(super) searches: u16,
    /// Nodes that have what is searched
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=8))]
    pub(super) holders: u16,
    /// From which all random choices follow
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Path of the real nodes' program [default: cairn-node beside this program]
    #[arg(long, value_name = "PATH")]
    pub(super) node: Option<PathBuf>,
    /// Write a plot as SVG
    #[arg(long, value_name = "FILE")]
    pub(super) plot: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
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
    /// Limit on the history that a validator sends, Mbit/s (`upload_rate` of its configuration)
    /// [default: unlimited]
    #[arg(long, value_name = "MBIT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) upload_limit: Option<u32>,
    /// Size of the chain that is uploaded, MiB
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(super) mib: u32,
    /// Number of uploads, each to a node without a chain
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
    /// Name of the attack, or `list`
    pub(super) name: String,
    /// Number of runs
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
    pub(super) runs: u16,
    /// Length of each attack, seconds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=600))]
    pub(super) seconds: u64,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Attacker {
    /// Name of the attack
    pub(super) name: String,
    /// The genesis file of the chain
    #[arg(long)]
    pub(super) genesis: PathBuf,
    /// A node as P2P/PEER/RPC: its address for peers, its peer id, its RPC address; the full node
    /// last
    #[arg(long = "target", required = true)]
    pub(super) targets: Vec<Target>,
    /// A home with the chain
    #[arg(long)]
    pub(super) home: Option<PathBuf>,
    /// Length of the attack, seconds
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
    /// RPC address of the node
    #[arg(long)]
    pub(super) rpc: String,
    /// Id of its chain
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
    /// Size of the copy, MiB
    #[arg(long, default_value_t = 64)]
    pub(super) mib: u32,
    /// Limit packets to 1,500 bytes inside this machine too, as real links do
    #[arg(long)]
    pub(super) no_offload: bool,
}

#[derive(Debug, Args)]
pub(super) struct Copy {
    /// Receive on this address
    #[arg(long, conflicts_with = "connect", required_unless_present = "connect")]
    pub(super) listen: Option<SocketAddrV4>,
    /// Send to this address
    #[arg(long)]
    pub(super) connect: Option<SocketAddrV4>,
    /// Size of the copy, MiB
    #[arg(long, default_value_t = 64)]
    pub(super) mib: u32,
}

#[derive(Debug, Args)]
pub(super) struct Probe {
    /// RPC address of the node
    #[arg(long)]
    pub(super) rpc: String,
    /// Milliseconds between two polls; a node's answers have the times at which it had verified and
    /// applied everything, so rare polls do not change these times
    #[arg(long, default_value_t = 500)]
    pub(super) every: u64,
}

#[derive(Debug, Args)]
pub(super) struct Tracker {
    /// Listen on this address
    #[arg(long)]
    pub(super) listen: SocketAddrV4,
    /// A BitTorrent client to announce; may be repeated
    #[arg(long = "peer")]
    pub(super) peers: Vec<SocketAddrV4>,
}

#[derive(Debug, Args)]
pub(super) struct Hostile {
    /// How the seed misbehaves
    #[arg(long)]
    pub(super) kind: Kind,
    /// Home of the seed, with the chain
    #[arg(long)]
    pub(super) home: PathBuf,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 1.0 => Ok(number),
        _ => Err("expected a number above 0 and at most 1".to_owned()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("expected a number above zero".to_owned()),
    }
}
