//! How nodes with budgets share history: how many copies there are of each era, how evenly the
//! nodes are used, and how soon others make up for two that are gone. No validator runs, so the
//! chain stands still.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ledger::api::{HistoryPhase, Status};
use ledger::chain::Chain;
use ledger::store::Store;
use node::config::P2pAddress;
use serde::Serialize;

use super::chain::{MadeChain, Recipe};
use super::fairness::jain;
use super::folder::{folder, in_folder, take_turn};
use super::nodes::{Node, Place, Programs, Role};
use super::options::Archive;
use super::topology::Topology;
use super::{Unfit, print_line, say, stop};
use crate::story::Rpc;

/// Copies of an era that a network needs.
const COPIES: u64 = protocol::archive::COPIES as u64;
/// Nodes that are killed at once.
const KILLED: usize = 2;
/// For how long a node counts after its connection ended.
const GONE_COUNTS: Duration = Duration::from_secs(10);
/// Interval between two looks at all nodes.
const TICK: Duration = Duration::from_millis(250);
/// Looks between two lines on stderr.
const SAY_TICKS: u32 = 40;
/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// The nodes are done with dropping and fetching once nothing has changed for so long. Nodes try
/// again after at most 30 s what was in vain.
const STILL: Duration = Duration::from_secs(35);

/// The result. Scripts read the names of its fields.
#[derive(Debug, Serialize)]
struct Report {
    /// The fewest copies of any era on running nodes, at any look, besides the time from the end of
    /// the two nodes until the others have made up for them.
    copies_min: u64,
    /// The median of all eras, once the nodes have dropped what exceeds their budgets. Of an even
    /// number, it is the lower of the two middle ones.
    copies_median: u64,
    /// Jain's index of the bytes of history on the disk of each node, in proportion to its budget,
    /// at the same time.
    jain_kept: f64,
    /// Whether a node that began with nothing has replayed all of history, with two nodes gone.
    newcomer_ok: bool,
    /// From the moment from which the two do not count any more until each era has three copies on
    /// running nodes again.
    repaired_seconds: f64,
}

/// Runs the command `archive`.
pub(super) fn execute(options: &Archive) -> anyhow::Result<()> {
    if !can_hold(options) {
        let Archive { nodes, keep_share, eras, .. } = options;
        let text = format!(
            "{nodes} nodes that keep {keep_share} of {eras} eras do not hold {COPIES} copies of \
             each when {KILLED} are gone"
        );
        return Err(Unfit(text).into());
    }
    let programs = Programs::find(options.common.node.as_deref())?;
    let folder = folder(&programs.bench)?;
    let turn = take_turn(&folder)?;
    let chain = MadeChain::obtain(&folder, &Recipe::of_eras(options.eras))?;
    let sizes = Sizes::of(&chain, options.eras)?;
    drop(turn);
    let report = in_folder(&folder, options.common.keep, |home| {
        let turn = take_turn(&folder)?;
        let session = Session::new(options, &chain, sizes, &programs, home)?;
        drop(turn);
        session.run()
    })?;
    if options.common.json {
        return print_line(&report);
    }
    println!("{}", report.text());
    Ok(())
}

/// Whether the nodes that are left can keep enough copies within their budgets.
fn can_hold(options: &Archive) -> bool {
    let each = (f64::from(options.eras) * options.keep_share) as u64;
    let left = u64::from(options.nodes).saturating_sub(KILLED as u64);
    left * each >= COPIES * u64::from(options.eras)
}

/// Bytes of the files of history.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Those of whole eras.
    eras: u64,
    /// Those of the segments after them, which every node keeps.
    rest: u64,
}

impl Sizes {
    fn of(chain: &MadeChain, eras: u16) -> anyhow::Result<Self> {
        let db = chain.directory.join("db");
        let store = Store::open(&db, &Chain::new(chain.genesis.clone()))?.store;
        let each = (0..u64::from(eras)).map(|era| store.era_bytes(era));
        let whole = each.sum::<Result<u64, _>>()?;
        Ok(Self { eras: whole, rest: bytes_below(&db.join("history"))? - whole })
    }
}

/// Lengths of all files below a folder. A file may go meanwhile.
fn bytes_below(folder: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        sum += match entry.file_type() {
            Ok(kind) if kind.is_dir() => bytes_below(&entry.path())?,
            _ => entry.metadata().map_or(0, |metadata| metadata.len()),
        };
    }
    Ok(sum)
}

/// What all running nodes said in one look, those that answered.
struct Look {
    at: Instant,
    /// For each node the eras that it has. `None` if it did not answer.
    eras: Vec<Option<Vec<[u64; 2]>>>,
    is_fetching: bool,
    /// Connected peers of the node with the fewest.
    peers: u32,
}

impl Look {
    /// Number of copies of each era.
    fn copies(&self, eras: u16) -> Vec<u64> {
        let has =
            |of: &[[u64; 2]], era| of.iter().any(|[first, last]| (*first..=*last).contains(&era));
        let copies = |era| self.eras.iter().flatten().filter(|of| has(of, era)).count() as u64;
        (0..u64::from(eras)).map(copies).collect()
    }

    fn fewest(&self, eras: u16) -> u64 {
        self.copies(eras).into_iter().min().unwrap_or(0)
    }
}

/// Everything of one run. The fields are dropped in this order: processes before ports.
struct Session<'a> {
    options: &'a Archive,
    chain: &'a MadeChain,
    sizes: Sizes,
    programs: &'a Programs,
    /// The nodes that run.
    nodes: Vec<Node>,
    /// Until it starts.
    newcomer: Option<Node>,
    topology: Topology,
    /// The fewest copies so far.
    fewest: u64,
    ticks: u32,
}

impl<'a> Session<'a> {
    fn new(
        options: &'a Archive,
        chain: &'a MadeChain,
        sizes: Sizes,
        programs: &'a Programs,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let count = usize::from(options.nodes);
        let topology = Topology::loopback(count + 1)?;
        let archives = (1..=count).map(|number| Place::new(format!("node{number}"), Role::Seed));
        let mut places: Vec<Place> = archives.collect::<Result<_, _>>()?;
        places.push(Place::new("newcomer".to_owned(), Role::Leecher)?);
        let addresses: Vec<P2pAddress> = places
            .iter()
            .zip(&topology.hosts)
            .map(|(place, host)| place.address(host))
            .collect::<Result<_, _>>()?;
        let mut nodes = Vec::new();
        for (index, (place, host)) in places.iter().zip(&topology.hosts).enumerate() {
            let others = addresses.iter().enumerate().take(count);
            let peers = others.filter(|(other, _)| *other != index);
            let peers = peers.map(|(_, address)| address.clone()).collect();
            let home = place.furnish(folder, host, peers, chain)?;
            let mut node = Node::new(place, index, home);
            node.options = vec!["--gone-counts".to_owned(), GONE_COUNTS.as_secs().to_string()];
            nodes.push(node);
            stop::check()?;
        }
        let newcomer = nodes.pop();
        let (fewest, ticks) = (u64::MAX, 0);
        Ok(Self { options, chain, sizes, programs, nodes, newcomer, topology, fewest, ticks })
    }

    fn run(mut self) -> anyhow::Result<Report> {
        let (count, eras) = (usize::from(self.options.nodes), self.options.eras);
        let budget = (self.sizes.eras as f64 * self.options.keep_share) as u64;
        self.start_all()?;
        self.until("each is connected to all", |look| look.peers as usize + 1 >= count)?;
        say!("budget of each node: {budget} of {} bytes", self.sizes.eras);
        for node in &mut self.nodes {
            node.kill();
            node.options.extend(["--keep".to_owned(), format!("{budget}B")]);
        }
        self.start_all()?;
        self.until("each is connected to all", |look| look.peers as usize + 1 >= count)?;
        let look = self.settle(budget)?;
        let mut copies = look.copies(eras);
        copies.sort_unstable();
        let copies_median = copies[(copies.len() - 1) / 2];
        let parts: Vec<f64> = self
            .nodes
            .iter()
            .map(|node| Ok(self.kept(node)? as f64 / budget as f64))
            .collect::<anyhow::Result<_>>()?;
        say!("parts of the budgets: {parts:.3?}");
        let jain_kept = jain(&parts).context("nothing is kept")?;

        let gone: Vec<Node> = self.nodes.drain(..KILLED).collect();
        let killed = Instant::now();
        drop(gone);
        let fewest = self.fewest;
        let look = self.until("each era has three copies again", |look| {
            look.at >= killed + GONE_COUNTS && look.fewest(eras) >= COPIES
        })?;
        let repaired = look.at.saturating_duration_since(killed + GONE_COUNTS);
        say!("repaired {:.1} s after the two do not count any more", repaired.as_secs_f64());
        self.fewest = fewest;

        let newcomer_ok = self.newcome()?;
        Ok(Report {
            copies_min: self.fewest,
            copies_median,
            jain_kept,
            newcomer_ok,
            repaired_seconds: repaired.as_secs_f64(),
        })
    }

    fn start_all(&mut self) -> anyhow::Result<()> {
        let (programs, log) = (self.programs, &self.options.common.node_log);
        let hosts = &self.topology.hosts;
        self.nodes.iter_mut().try_for_each(|node| node.start(programs, &hosts[node.host], log))
    }

    /// Asks all nodes.
    fn look(&mut self) -> anyhow::Result<Look> {
        let mut look =
            Look { at: Instant::now(), eras: Vec::new(), is_fetching: false, peers: u32::MAX };
        for node in &mut self.nodes {
            node.check()?;
            let status = status(&self.topology, node);
            look.peers = look.peers.min(status.as_ref().map_or(0, |status| status.peers));
            let is_fetching = status.as_ref().is_none_or(|status| is_fetching(status));
            look.is_fetching |= is_fetching;
            look.eras.push(status.map(|status| status.history.eras));
        }
        if look.eras.iter().all(Option::is_some) {
            self.fewest = self.fewest.min(look.fewest(self.options.eras));
        }
        self.ticks += 1;
        if self.ticks % SAY_TICKS == 0 {
            say!("copies of each era: {:?}", look.copies(self.options.eras));
        }
        Ok(look)
    }

    /// Waits until a look satisfies the condition.
    fn until(&mut self, what: &str, is_done: impl Fn(&Look) -> bool) -> anyhow::Result<Look> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let look = self.look()?;
            if look.eras.iter().all(Option::is_some) && is_done(&look) {
                return Ok(look);
            }
            ensure!(Instant::now() < deadline, "not in time: {what}");
            stop::pause(TICK)?;
        }
    }

    /// Waits until all nodes are within their budgets, and nothing changes.
    fn settle(&mut self, budget: u64) -> anyhow::Result<Look> {
        let start = Instant::now();
        let mut since = (Vec::new(), start);
        loop {
            let look = self.look()?;
            if since.0 != look.eras || look.is_fetching {
                since = (look.eras.clone(), look.at);
            }
            let kept: Vec<u64> =
                self.nodes.iter().map(|node| self.kept(node)).collect::<Result<_, _>>()?;
            let are_within = kept.iter().all(|bytes| *bytes <= budget);
            if are_within && look.at.duration_since(since.1) >= STILL {
                let seconds = since.1.duration_since(start).as_secs_f64();
                say!("all nodes are within their budgets and at rest after {seconds:.1} s");
                return Ok(look);
            }
            ensure!(start.elapsed() < PATIENCE, "not within the budget {budget} in time: {kept:?}");
            stop::pause(TICK)?;
        }
    }

    /// Bytes of whole eras on the disk of a node.
    fn kept(&self, node: &Node) -> anyhow::Result<u64> {
        Ok(bytes_below(&node.home.join("db").join("history"))?.saturating_sub(self.sizes.rest))
    }

    /// Starts the newcomer. Returns whether it has replayed the chain in time.
    fn newcome(&mut self) -> anyhow::Result<bool> {
        let (programs, log) = (self.programs, &self.options.common.node_log);
        let mut newcomer = self.newcomer.take().context("the newcomer starts once")?;
        newcomer.start(programs, &self.topology.hosts[newcomer.host], log)?;
        self.nodes.push(newcomer);
        let (start, facts) = (Instant::now(), self.chain.facts);
        let last = u64::from(self.options.eras) - 1;
        loop {
            self.look()?;
            let newcomer = self.nodes.last().context("the newcomer runs")?;
            if let Some(status) = status(&self.topology, newcomer)
                && status.height == facts.height
                && status.history.executed_to == facts.height
                && matches!(status.history.eras[..], [[0, end]] if end >= last)
            {
                say!("the newcomer has replayed all after {:.1} s", start.elapsed().as_secs_f64());
                return Ok(true);
            }
            if start.elapsed() > PATIENCE {
                return Ok(false);
            }
            stop::pause(TICK)?;
        }
    }
}

fn is_fetching(status: &Status) -> bool {
    status.history.phase == HistoryPhase::Backfill
}

/// What a node says. `None` if it does not answer.
fn status(topology: &Topology, node: &Node) -> Option<Status> {
    Rpc::new(&format!("http://{}", topology.hosts[node.host].rpc)).status().ok()
}

impl Report {
    /// The report as text for people.
    fn text(&self) -> String {
        let Self { copies_min, copies_median, jain_kept, newcomer_ok, repaired_seconds } = self;
        let newcomer = if *newcomer_ok { "has replayed" } else { "has NOT replayed" };
        format!(
            "at least {copies_min} copies of each era, {copies_median} in the median; Jain's index \
             of bytes kept {jain_kept:.3}\n\
             two nodes were made up for in {repaired_seconds:.1} s, and a newcomer {newcomer} all \
             of history"
        )
    }
}
