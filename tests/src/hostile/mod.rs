//! Hostile peers and clients: attacks by outsiders on a network of real processes.
//!
//! Each attack has a file. It runs against a [`Field`] of nodes until its time is over, and returns
//! the rate that it reached. Peers that keep to the wire format are built on the node's own network
//! code (`peer`, `requests`). Peers that break it use libp2p directly (`raw`). The bench measures
//! what each attack costs honest nodes (`bench attack`). Tests run each attack for a moment, except
//! those on a node that syncs.
//!
//! Liars about files are no crowd: `holders` and `index` are for tests that fetch a file beside
//! them.

mod peer;
mod raw;

mod censor;
pub mod chunks;
mod file_requests;
mod frames;
mod garbage_proposals;
mod half_requests;
mod handshakes;
mod headers;
pub mod holders;
mod idle_rpc;
pub mod index;
mod queries;
mod records;
mod replay_votes;
mod requests;
mod silent_rpc;
mod slots;
mod slow_readers;
mod unknown_transactions;

use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use ledger::genesis::Genesis;
use ledger::hash::{ChainId, FileId};
use ledger::signature::SigningKey;
use node::network::Multiaddr;
use tokio::time::Instant;

/// A node that is attacked.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its address for peers.
    pub p2p: SocketAddrV4,
    /// Its identity.
    pub peer: String,
    /// Its address for RPC.
    pub rpc: SocketAddr,
}

/// `P2P/PEER/RPC`, such as `127.0.0.1:7700/12D3Koo.../127.0.0.1:7701`.
impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut parts = text.split('/');
        let mut next = || parts.next().context("expected P2P/PEER/RPC");
        Ok(Self { p2p: next()?.parse()?, peer: next()?.to_owned(), rpc: next()?.parse()? })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.p2p, self.peer, self.rpc)
    }
}

impl Target {
    /// Its address for peers, with its identity.
    ///
    /// # Errors
    /// When the identity is not a peer id.
    pub fn address(&self) -> anyhow::Result<Multiaddr> {
        let (ip, port) = (self.p2p.ip(), self.p2p.port());
        Ok(format!("/ip4/{ip}/tcp/{port}/p2p/{}", self.peer).parse()?)
    }
}

/// The network under attack, and the attacker's means.
#[derive(Clone)]
pub struct Field {
    /// The genesis of the chain.
    pub genesis: Genesis,
    /// The nodes to attack: validators first, the full node last.
    pub targets: Vec<Target>,
    /// A home with a copy of the chain, for attacks that show history.
    pub home: Option<PathBuf>,
    /// The key of an account with money, for the attack that pays.
    pub key: Option<SigningKey>,
    /// A file that the nodes share, for the attacks on files.
    pub file: Option<FileId>,
    /// How many identities the attack `slots` has, and how they come.
    pub crowd: Crowd,
}

/// How the identities of the attack `slots` come.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// The number of identities. With the default, the attack reaches its intended rate.
    pub identities: usize,
    /// Longest time that an identity waits for the one before it to be connected to all targets. A
    /// node accepts two handshakes of one host at a time, so impatient identities of one host are
    /// refused.
    pub patience: Duration,
}

impl Default for Crowd {
    fn default() -> Self {
        Self { identities: 200, patience: Duration::from_millis(20) }
    }
}

impl Field {
    /// The chain that is attacked.
    #[must_use]
    pub fn chain(&self) -> ChainId {
        self.genesis.chain_id()
    }

    fn full_node(&self) -> anyhow::Result<&Target> {
        self.targets.last().context("there is nobody to attack")
    }
}

/// One attack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attack {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its description, in a line.
    pub does: &'static str,
    /// Its intended rate. The unit depends on the attack: see [`ATTACKS`].
    pub rate: f64,
    /// Whether the full node has no chain at the start, so that it syncs while it is attacked.
    pub is_at_sync: bool,
}

const fn attack(name: &'static str, rate: f64, does: &'static str) -> Attack {
    Attack { name, does, rate, is_at_sync: false }
}

const fn at_sync(name: &'static str, rate: f64, does: &'static str) -> Attack {
    Attack { name, does, rate, is_at_sync: true }
}

/// All attacks. Each description says whether the rate counts messages a second, connections or
/// identities at a time, or another unit.
pub const ATTACKS: [Attack; 16] = [
    attack(
        "replay-votes",
        2_000.0,
        "every vote heard, again with new counters: 2,000/s from 4 identities",
    ),
    attack("garbage-proposals", 20.0, "every proposal heard, with 15,000 random hashes: 20/s"),
    attack(
        "unknown-transactions",
        200.0,
        "requests for 1,000 random hashes: 200/s from 4 identities",
    ),
    attack(
        "censor",
        1.0,
        "a queue of transactions behind a head that expires at once: a head a height",
    ),
    attack(
        "slots",
        200.0,
        "200 identities that connect, identify, stay, and come back when refused",
    ),
    attack("handshakes", 64.0, "64 TCP connections at a time that say nothing, renewed"),
    attack(
        "slow-readers",
        16.0,
        "16 identities with 96 requests for blocks each, a byte read in 19 s",
    ),
    attack(
        "half-requests",
        16.0,
        "16 identities with 192 streams of 60 KiB of a request that never ends",
    ),
    attack("silent-rpc", 40.0, "40 WebSockets with 4 large answers each, nothing read"),
    attack("idle-rpc", 600.0, "600 RPC connections that send a byte a minute"),
    at_sync("headers", 100.0, "old certified headers to a full node that syncs: 100/s"),
    attack("frames", 100.0, "forged, oversized and truncated frames on every protocol: 100/s"),
    attack("records", 1_000.0, "records in the index, half of them of others: 1,000/s"),
    attack("queries", 500.0, "flood queries for files that nobody has: 500/s from 4 identities"),
    attack(
        "file-requests",
        1_000.0,
        "requests for heads and chunks of files: 1,000/s from 4 identities",
    ),
    at_sync(
        "chunks",
        4.0,
        "4 seeds: one sends wrong chunks, one none, one wrong manifests, one wrong heads",
    ),
];

impl Attack {
    /// The attack with this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        ATTACKS.into_iter().find(|attack| attack.name == name)
    }

    /// Attacks until the time is over. Returns the rate that was reached.
    ///
    /// # Errors
    /// When the attack cannot begin, or fails on the attacker's side.
    pub async fn run(&self, field: &Field, time: Duration) -> anyhow::Result<f64> {
        let until = Instant::now() + time;
        match self.name {
            "replay-votes" => replay_votes::run(field, until).await,
            "garbage-proposals" => garbage_proposals::run(field, until).await,
            "unknown-transactions" => unknown_transactions::run(field, until).await,
            "censor" => censor::run(field, until).await,
            "slots" => slots::run(field, until).await,
            "handshakes" => handshakes::run(field, until).await,
            "slow-readers" => slow_readers::run(field, until).await,
            "half-requests" => half_requests::run(field, until).await,
            "silent-rpc" => silent_rpc::run(field, until).await,
            "idle-rpc" => idle_rpc::run(field, until).await,
            "headers" => headers::run(field, until).await,
            "frames" => frames::run(field, until).await,
            "records" => records::run(field, until).await,
            "queries" => queries::run(field, until).await,
            "file-requests" => file_requests::run(field, until).await,
            "chunks" => chunks::run(field, until).await,
            name => anyhow::bail!("no attack is named {name}"),
        }
    }
}

/// Counts events, and computes their number per second since the start.
struct Rate {
    start: Instant,
    count: u64,
}

impl Rate {
    fn start() -> Self {
        Self { start: Instant::now(), count: 0 }
    }

    fn per_second(&self) -> f64 {
        self.count as f64 / self.start.elapsed().as_secs_f64().max(0.001)
    }

    /// Waits until the next event of a steady rate is due, and counts it. There is no wait if the
    /// event is late.
    async fn due(&mut self, rate: f64) {
        tokio::time::sleep_until(self.start + Duration::from_secs_f64(self.count as f64 / rate))
            .await;
        self.count += 1;
    }
}
