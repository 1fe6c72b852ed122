//! Are honest nodes kept out when attackers hold every place that a node has for strangers?
//!
//! Four validators name each other. Thirteen hostile addresses have eight identities each: 104
//! identities, while a node has 96 places for strangers. Each address is public and has a network
//! namespace of its own, because limits by groups of addresses hold for public addresses only.
//!
//! One validator is killed and started again. It must sign at most 5 s after its first connection.
//! Then a full node starts that no validator names. It must get a place within 30 s and follow the
//! chain. A listener on a host of its own is a peer of the validator and hears its votes. All else
//! is read over RPC, from within the namespaces.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use ledger::api::{BlockInfo, PeerInfo, Status};
use ledger::genesis::{Genesis, Limits};
use ledger::units::Height;
use node::config::P2pAddress;
use node::network;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::chain::{genesis, validator_key};
use super::folder::{folder, in_folder};
use super::nodes::{Node, Place, Programs, Role, addresses};
use super::options;
use super::topology::{self, Topology};
use super::votes::{Listener, Wanted};
use super::{print_line, say, stop};
use crate::hostile::Target;
use crate::story::{Process, Rpc};

const VALIDATORS: usize = 4;
/// The validator that restarts, the last.
const RESTARTED: usize = VALIDATORS - 1;
/// The place of the full node after the validators.
const NEWCOMER: usize = VALIDATORS;
/// The host after the nodes, from which the votes of the restarted validator are heard.
const LISTENER: usize = NEWCOMER + 1;
/// Hostile addresses, and identities of each. A node takes at most eight of one group of addresses.
/// All identities together are 104, and a node has 96 places for strangers.
const ADDRESSES: usize = 13;
const IDENTITIES: usize = 8;
/// Longest wait of an identity for the identity before it, in milliseconds. The node lets in two
/// handshakes of one address at a time.
const COMING_MS: u64 = 2_500;
/// Most seconds from the restarted validator's first connection to its first vote. At first it only
/// listens, for 2 s: twice the clock drift.
const SIGNS_WITHIN: f64 = 5.0;
/// Most seconds from the start of the full node until it has a place and follows.
const PLACE_WITHIN: f64 = 30.0;
/// Blocks that the others make without the killed validator. Its log is then older than the
/// network, so it must listen before it signs.
const MISSED_BLOCKS: u64 = 3;
/// Blocks that the full node must follow after it got its place.
const FOLLOWED_BLOCKS: u64 = 3;
/// Places that may be changing hands when attackers hold all others. There are more identities than
/// places, so those that have none come again and take the places of others.
const CHANGING: usize = 3;
/// How long each step may take that has no bound of its own. Attackers get only the processor time
/// that the nodes leave, so on a slow machine it takes minutes until they hold all places.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long attackers attack if nobody ends them.
const ATTACK_SECONDS: u64 = 900;
/// Pauses between two questions to a node: where a time is measured, and elsewhere. Each question
/// takes processor time from the nodes.
const OFTEN: Duration = Duration::from_millis(50);
const SELDOM: Duration = Duration::from_millis(500);

/// The result. Scripts read the names of its fields.
#[derive(Debug, Serialize)]
struct Report {
    /// How many places attackers held, at least, at each validator that is not restarted: just
    /// before the other validator was killed, and just before the newcomer started.
    held_at_restart: usize,
    held_at_newcomer: usize,
    /// Places that a validator has for strangers.
    places: usize,
    /// From the second start of the killed validator to its first connection.
    connected_seconds: f64,
    /// From its first connection to its first vote that a peer has heard.
    signed_seconds: f64,
    /// From its first connection until another validator has its vote in a certificate, or a block
    /// that it proposed.
    counted_seconds: f64,
    /// From the start of the full node until a validator has it among its peers and it has
    /// followed some blocks.
    newcomer_seconds: f64,
}

/// The times of the restarted validator, in seconds: see [`Report`].
struct Restart {
    connected: f64,
    signed: f64,
    counted: f64,
}

/// Runs the command `places`.
pub(super) fn execute(options: &options::Places) -> anyhow::Result<()> {
    topology::check()?;
    let programs = Programs::find(options.common.node.as_deref())?;
    let folder = folder(&programs.bench)?;
    std::fs::create_dir_all(&folder)?;
    let report = in_folder(&folder, options.common.keep, |home| {
        Session::new(&programs, &options.common.node_log, home)?.run()
    })?;
    match options.common.json {
        true => print_line(&report)?,
        false => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    let Report { signed_seconds, newcomer_seconds, .. } = report;
    ensure!(
        signed_seconds <= SIGNS_WITHIN,
        "the restarted validator signed {signed_seconds:.1} s after its first connection, expected \
         {SIGNS_WITHIN} s"
    );
    ensure!(
        newcomer_seconds <= PLACE_WITHIN,
        "the newcomer got a place after {newcomer_seconds:.1} s, expected {PLACE_WITHIN} s"
    );
    Ok(())
}

/// The genesis of a chain whose empty blocks come often enough to see when somebody votes.
fn quick_genesis() -> Genesis {
    let limits =
        Limits { clock_drift_ms: 1_000, empty_block_interval_ms: 1_000, ..Limits::default() };
    genesis(VALIDATORS as u16, limits)
}

/// Everything of one run. The fields are dropped in this order: processes before links.
struct Session<'a> {
    programs: &'a Programs,
    node_log: &'a str,
    folder: &'a Path,
    /// The attackers that run, one process for each address.
    attackers: Vec<Process>,
    /// The validators, then the newcomer.
    nodes: Vec<Node>,
    rpcs: Vec<Rpc>,
    /// Where the nodes are reached.
    addresses: Vec<P2pAddress>,
    genesis: Genesis,
    /// The nodes' hosts, then the listener's and the attackers'.
    topology: Topology,
}

impl<'a> Session<'a> {
    fn new(programs: &'a Programs, node_log: &'a str, folder: &'a Path) -> anyhow::Result<Self> {
        let topology = Topology::public(LISTENER + 1 + ADDRESSES)?;
        let founders = (0..VALIDATORS)
            .map(|number| (format!("validator{}", number + 1), Role::Founder(number as u16)));
        let newcomer = ("newcomer".to_owned(), Role::Follower);
        let places: Vec<Place> = founders
            .chain([newcomer])
            .map(|(name, role)| Place::new(name, role))
            .collect::<Result<_, _>>()?;
        let addresses = addresses(&places, &topology.hosts)?;
        let (genesis, mut nodes) = (quick_genesis(), Vec::new());
        for (index, (place, host)) in places.iter().zip(&topology.hosts).enumerate() {
            // Validators name each other. The newcomer names the first of them, and nobody names
            // it.
            let known = if index == NEWCOMER { 1 } else { VALIDATORS };
            let peers =
                addresses.iter().take(known).enumerate().filter(|(other, _)| *other != index);
            let home = place.found(
                folder,
                host,
                peers.map(|(_, address)| address.clone()).collect(),
                &genesis,
            )?;
            nodes.push(Node::new(place, index, home.root().to_owned()));
        }
        let rpcs = topology
            .hosts
            .iter()
            .take(nodes.len())
            .map(|host| Rpc::new(&format!("http://{}", host.rpc)));
        let rpcs = rpcs.collect();
        Ok(Self {
            programs,
            node_log,
            folder,
            attackers: Vec::new(),
            nodes,
            rpcs,
            addresses,
            genesis,
            topology,
        })
    }

    fn run(mut self) -> anyhow::Result<Report> {
        (0..VALIDATORS).try_for_each(|node| self.start(node))?;
        self.wait("all validators have blocks", SELDOM, |it| {
            (0..VALIDATORS).all(|node| it.height(node) >= MISSED_BLOCKS).then_some(())
        })?;
        self.start_attackers()?;
        let places = network::Limits::default().inbound as usize;
        let start = Instant::now();
        let full = |it: &Self| Some(it.held()).filter(|held| held + CHANGING >= places);
        let held_at_restart = self.wait("attackers hold all places", SELDOM, full)?;
        say!(
            "attackers hold {held_at_restart} places of each validator after {:.1} s",
            start.elapsed().as_secs_f64()
        );

        self.nodes[RESTARTED].kill();
        let height = self.height(0) + MISSED_BLOCKS;
        self.wait("the others go on", OFTEN, |it| (it.height(0) >= height).then_some(()))?;
        let Restart { connected, signed, counted } = self.restart()?;
        say!(
            "connected {connected:.1} s after its start, signed {signed:.1} s later, counted \
             {counted:.1} s later"
        );

        let held_at_newcomer = self.wait("attackers hold all places again", SELDOM, full)?;
        let newcomer_seconds = self.newcomer()?;
        say!("the newcomer has a place after {newcomer_seconds:.1} s");
        Ok(Report {
            held_at_restart,
            held_at_newcomer,
            places,
            connected_seconds: connected,
            signed_seconds: signed,
            counted_seconds: counted,
            newcomer_seconds,
        })
    }

    /// Starts the validator again, and measures until its first connection, its first vote, and the
    /// first block in which it counts.
    fn restart(&mut self) -> anyhow::Result<Restart> {
        let key = validator_key(RESTARTED as u16).public();
        let above = Height(self.height(0));
        let start = Instant::now();
        self.start(RESTARTED)?;
        let wanted = Wanted {
            chain: self.genesis.chain_id(),
            key,
            address: self.addresses[RESTARTED].clone(),
            above,
        };
        let mut listener = Listener::start(&self.topology.hosts[LISTENER], wanted)?;
        // The last moment at which it surely had no connection: its start, or the last question
        // that it answered with no peer.
        let mut alone = start;
        self.wait("the restarted validator has a connection", OFTEN, |it| {
            let (asked, peers) = (Instant::now(), it.peers(RESTARTED)?);
            if peers.is_empty() {
                alone = asked;
            }
            (!peers.is_empty()).then_some(())
        })?;
        let signed = self.wait("the restarted validator votes", OFTEN, |_| listener.heard())??;
        drop(listener);
        // A certificate has the first votes that make a quorum, so this one may be missing in some
        // blocks.
        let (key, mut seen) = (key.to_string(), above.0);
        self.wait("a vote of the restarted validator counts", OFTEN, |it| {
            let blocks: Vec<BlockInfo> =
                (seen + 1..=it.height(0)).map_while(|height| it.block(0, height)).collect();
            seen += blocks.len() as u64;
            let counts =
                |block: &BlockInfo| block.summary.proposer == key || block.signers.contains(&key);
            blocks.iter().any(counts).then_some(())
        })?;
        let since = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64();
        let (connected, signed) = (since(start, alone), since(alone, signed));
        Ok(Restart { connected, signed, counted: since(alone, Instant::now()) })
    }

    /// Starts the full node. Returns seconds until it has a place and follows.
    fn newcomer(&mut self) -> anyhow::Result<f64> {
        let start = Instant::now();
        self.start(NEWCOMER)?;
        let id = self.nodes[NEWCOMER].id.clone();
        let height = self.wait("the newcomer gets a place", OFTEN, |it| {
            let peers = it.peers(0).into_iter().flatten();
            peers.into_iter().any(|peer| peer.id == id).then(|| it.height(0))
        })?;
        self.wait("the newcomer follows", OFTEN, |it| {
            (it.height(NEWCOMER) >= height + FOLLOWED_BLOCKS).then_some(())
        })?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn start(&mut self, node: usize) -> anyhow::Result<()> {
        let host = &self.topology.hosts[node];
        self.nodes[node].start(self.programs, host, self.node_log)
    }

    /// Starts a process on each hostile host. The processes run only while a processor is idle, so
    /// they slow the nodes no more than other machines would.
    fn start_attackers(&mut self) -> anyhow::Result<()> {
        let targets =
            self.nodes.iter().zip(&self.topology.hosts).take(VALIDATORS).map(|(node, host)| {
                Target { p2p: host.address, peer: node.id.clone(), rpc: host.rpc.into() }
            });
        let targets: Vec<String> = targets.map(|target| target.to_string()).collect();
        for (number, host) in self.topology.hosts.iter().skip(LISTENER + 1).enumerate() {
            let mut command = Command::new("chrt");
            command.args(["--idle", "0"]).arg(&self.programs.bench).args([
                "attacker",
                "slots",
                "--genesis",
            ]);
            command.arg(self.nodes[0].home.join("genesis.json"));
            command.args([
                "--seconds",
                &ATTACK_SECONDS.to_string(),
                "--identities",
                &IDENTITIES.to_string(),
            ]);
            command.args(["--patience-ms", &COMING_MS.to_string()]);
            command.args(targets.iter().flat_map(|target| ["--target", target]));
            let log = self.folder.join(format!("attacker{}.log", number + 1));
            self.attackers.push(host.inside(|| Process::spawn(&mut command, &log))?);
        }
        Ok(())
    }

    /// How many places strangers hold, at least, at each validator that is not restarted. The
    /// newcomer counts as a stranger.
    fn held(&self) -> usize {
        let validators: BTreeSet<&str> =
            self.nodes[..VALIDATORS].iter().map(|node| node.id.as_str()).collect();
        let is_stranger = |peer: &&PeerInfo| peer.inbound && !validators.contains(peer.id.as_str());
        let held =
            |node| self.peers(node).map_or(0, |peers| peers.iter().filter(is_stranger).count());
        (0..RESTARTED).map(held).min().unwrap_or(0)
    }

    fn height(&self, node: usize) -> u64 {
        self.ask::<Status>(node, "chain_status", &json!({})).map_or(0, |status| status.height)
    }

    fn block(&self, node: usize, height: u64) -> Option<BlockInfo> {
        self.ask(node, "chain_block", &json!({"height": height.to_string()}))
    }

    fn peers(&self, node: usize) -> Option<Vec<PeerInfo>> {
        self.ask(node, "net_peers", &json!({}))
    }

    /// `None` when the node does not answer.
    fn ask<T: DeserializeOwned + Send>(
        &self,
        node: usize,
        method: &str,
        params: &Value,
    ) -> Option<T> {
        self.topology.hosts[node].inside(|| self.rpcs[node].call(method, params).ok()).ok()?
    }

    /// Calls `look` again and again until it has a result.
    fn wait<T>(
        &mut self,
        what: &str,
        pause: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> anyhow::Result<T> {
        let start = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return Ok(found);
            }
            ensure!(start.elapsed() < PATIENCE, "not seen within {PATIENCE:?}: {what}");
            self.nodes.iter_mut().try_for_each(Node::check)?;
            let ended = self.attackers.iter_mut().find_map(Process::ended);
            ensure!(ended.is_none(), "attackers have ended: {ended:?}");
            stop::pause(pause)?;
        }
    }
}
