//! Nodes that share the history of a chain that stands still: on loopback, each connected to all
//! others. Those that have the chain begin with all of it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use ledger::api::{HistoryPhase, Status};
use ledger::chain::Chain;
use ledger::store::Store;

use super::chain::MadeChain;
use super::nodes::{Node, Place, Programs, addresses};
use super::options::Common;
use super::topology::Topology;
use super::{say, stop};
use crate::story::Rpc;

/// Interval between two looks at all nodes.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// Looks between two lines on stderr.
const SAY_TICKS: u32 = 40;
/// How long each step may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);

/// Bytes of the files of history.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Those of whole eras.
    pub(super) eras: u64,
    /// Those of the segments after them, which every node keeps.
    rest: u64,
}

impl Sizes {
    /// The sizes of a chain with this many whole eras. Only one process at a time can measure them.
    pub(super) fn of(chain: &MadeChain, eras: u16) -> anyhow::Result<Self> {
        let db = chain.directory.join("db");
        let store = Store::open(&db, &Chain::new(chain.genesis.clone()))?.store;
        let each = (0..u64::from(eras)).map(|era| store.era_bytes(era));
        let whole = each.sum::<Result<u64, _>>()?;
        Ok(Self { eras: whole, rest: bytes_below(&db.join("history")).saturating_sub(whole) })
    }

    /// A part of the whole eras, in bytes.
    pub(super) fn part(&self, share: f64) -> u64 {
        (self.eras as f64 * share) as u64
    }
}

/// Lengths of all files below a folder. Files may come and go meanwhile.
fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

/// What all running nodes said in one look.
pub(super) struct Look {
    pub(super) at: Instant,
    /// `None` if a node did not answer.
    statuses: Vec<Option<Status>>,
}

impl Look {
    /// The answers, if all have answered.
    pub(super) fn all(&self) -> Option<Vec<&Status>> {
        self.statuses.iter().map(Option::as_ref).collect()
    }

    /// The eras that each node has, if all have answered and none is fetching any.
    pub(super) fn at_rest(&self) -> Option<Vec<&[[u64; 2]]>> {
        let all = self.all()?;
        let is_fetching = |one: &&Status| one.history.phase == HistoryPhase::Backfill;
        (!all.iter().any(is_fetching))
            .then(|| all.iter().map(|one| &one.history.eras[..]).collect())
    }

    /// Number of copies of each era on nodes that answered.
    pub(super) fn copies(&self, eras: u16) -> Vec<u64> {
        let nodes = || self.statuses.iter().flatten().map(|status| &status.history.eras);
        let copies = |era: u64| {
            let has = |of: &&Vec<[u64; 2]>| of.iter().any(|[a, b]| (*a..=*b).contains(&era));
            nodes().filter(has).count() as u64
        };
        (0..u64::from(eras)).map(copies).collect()
    }

    pub(super) fn fewest(&self, eras: u16) -> u64 {
        self.copies(eras).into_iter().min().unwrap_or(0)
    }
}

/// The nodes. The fields are dropped in this order: processes before ports.
pub(super) struct Sharing<'a> {
    eras: u16,
    pub(super) sizes: Sizes,
    programs: &'a Programs,
    log: &'a str,
    /// The nodes that run.
    pub(super) nodes: Vec<Node>,
    topology: Topology,
    /// The fewest copies of any era at any look so far at which all nodes answered.
    pub(super) fewest: u64,
    ticks: u32,
}

impl<'a> Sharing<'a> {
    /// Makes the homes of these nodes. Each is told of all others that have the chain.
    pub(super) fn new(
        places: &[Place],
        (chain, eras): (&MadeChain, u16),
        common: &'a Common,
        programs: &'a Programs,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let sizes = Sizes::of(chain, eras)?;
        let topology = Topology::loopback(places.len())?;
        let addresses = addresses(places, &topology.hosts)?;
        let mut nodes = Vec::new();
        for (index, (place, host)) in places.iter().zip(&topology.hosts).enumerate() {
            let others = places.iter().zip(&addresses);
            let others = others.filter(|(it, _)| it.name != place.name && it.role.has_chain());
            let peers = others.map(|(_, address)| address.clone()).collect();
            let home = place.furnish(folder, host, peers, chain)?;
            nodes.push(Node::new(place, index, home));
            stop::check()?;
        }
        let (log, fewest, ticks) = (&common.node_log, u64::MAX, 0);
        Ok(Self { eras, sizes, programs, log, nodes, topology, fewest, ticks })
    }

    /// Starts all nodes that do not run, and waits until each is connected to all.
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        for node in self.nodes.iter_mut().filter(|node| !node.is_running()) {
            node.start(self.programs, &self.topology.hosts[node.host], self.log)?;
        }
        let others = self.nodes.len() - 1;
        self.until("each is connected to all", |_, look| {
            look.all().is_some_and(|all| all.iter().all(|one| one.peers as usize >= others))
        })?;
        Ok(())
    }

    /// Kills a node. Its next start has this budget.
    pub(super) fn kill_to_keep(&mut self, number: usize, keep: &str) {
        let node = &mut self.nodes[number];
        node.kill();
        node.options.insert("--keep", keep.to_owned());
    }

    /// Asks all nodes.
    pub(super) fn look(&mut self) -> anyhow::Result<Look> {
        let mut look = Look { at: Instant::now(), statuses: Vec::new() };
        for node in &mut self.nodes {
            node.check()?;
            let rpc = self.topology.hosts[node.host].rpc;
            look.statuses.push(Rpc::new(&format!("http://{rpc}")).status().ok());
        }
        if look.all().is_some() {
            self.fewest = self.fewest.min(look.fewest(self.eras));
        }
        self.ticks += 1;
        if self.ticks.is_multiple_of(SAY_TICKS) {
            let copies = look.copies(self.eras);
            let with = |count| copies.iter().filter(|copies| **copies == count).count();
            let counts: Vec<String> = (0..=self.nodes.len() as u64)
                .filter(|count| with(*count) > 0)
                .map(|count| format!("{} with {count}", with(count)))
                .collect();
            say!("eras by their copies: {}", counts.join(", "));
        }
        Ok(look)
    }

    /// Waits until a look satisfies the condition.
    pub(super) fn until(
        &mut self,
        what: &str,
        mut is_done: impl FnMut(&Self, &Look) -> bool,
    ) -> anyhow::Result<Look> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let look = self.look()?;
            if is_done(self, &look) {
                return Ok(look);
            }
            ensure!(Instant::now() < deadline, "not in time: {what}; bytes: {:?}", self.kept());
            stop::pause(TICK)?;
        }
    }

    /// Bytes of whole eras on the disk of each node.
    pub(super) fn kept(&self) -> Vec<u64> {
        let bytes = |node: &Node| bytes_below(&node.home.join("db").join("history"));
        let nodes = self.nodes.iter();
        nodes.map(|node| bytes(node).saturating_sub(self.sizes.rest)).collect()
    }
}
