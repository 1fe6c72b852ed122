//! How soon a fresh node joins a long chain: until its tip is the chain's, and until it proves a
//! balance. Three seeds have the chain. No validator runs, so the chain stands still.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ledger::api::{
    ACCOUNT_PROOF, AccountProofInfo, CHAIN_STATUS, HistoryPhase, NET_PEERS, PeerInfo, Status,
};
use ledger::chain::Chain;
use ledger::light::FinalHeader;
use ledger::signature::PublicKey;
use ledger::units::Height;
use serde::Serialize;
use serde_json::json;

use super::chain::MadeChain;
use super::folder::{folder, in_folder, take_turn};
use super::measure::{Link, bound, rate};
use super::nodes::{Node, Place, Programs, Role, addresses};
use super::options::Join;
use super::probe::Probe;
use super::topology::{self, Rates, Topology};
use super::transfers::{Recipe, TRANSFER_BYTES};
use super::{print_line, say, stop};
use crate::story::{Rpc, now_ms};

/// Nodes that have the chain.
const SEEDS: usize = 3;
/// Interval between two polls. A longer one makes the times less exact, and a shorter one costs the
/// newcomer processor time, which is measured.
const TICK: Duration = Duration::from_millis(100);
/// How long seeds may take to answer, and the newcomer beyond its work.
const PATIENCE: Duration = Duration::from_secs(120);

/// The result. Scripts read the names of its fields. Seconds are from the start of the newcomer's
/// process. What has no meaning without a snapshot is null.
#[derive(Debug, Serialize)]
struct Report {
    /// Until its tip was the chain's.
    live_seconds: f64,
    /// Until it had answered with an account at the chain's tip, proved under a certificate of the
    /// genesis' validators.
    proved_balance_seconds: f64,
    backfilled_seconds: Option<f64>,
    audited_seconds: Option<f64>,
    /// Processor time of the newcomer, user and system, until it was live.
    cpu_seconds: f64,
    /// Transfers of the chain, divided by `cpu_seconds`.
    tx_per_cpu_second: f64,
    /// Peak memory of the newcomer until it was live.
    peak_rss_mib: f64,
    /// Bytes that the newcomer received from its peers, before decryption.
    bytes: u64,
    snapshot_height: Option<u64>,
    blocks_after_snapshot: Option<u64>,
}

/// Runs the command `join`.
pub(super) fn execute(options: &Join) -> anyhow::Result<()> {
    if rates(options).is_some() {
        topology::check()?;
    }
    let recipe = Recipe::new(options.transfers, options.accounts)?;
    let programs = Programs::find(options.common.node.as_deref())?;
    let folder = folder(&programs.bench)?;
    let turn = take_turn(&folder)?;
    let chain = recipe.obtain(&folder)?;
    drop(turn);
    let report = in_folder(&folder, options.common.keep, |home| {
        let turn = take_turn(&folder)?;
        let session = Session::new(options, &chain, &programs, home)?;
        drop(turn);
        session.run(&recipe.last_account())
    })?;
    if options.common.json {
        return print_line(&report);
    }
    println!("{}", report.text());
    Ok(())
}

/// The rates of each host's link; `None` on loopback.
fn rates(options: &Join) -> Option<Rates> {
    options.up.zip(options.down).map(|(up, down)| Rates { up, down })
}

/// Longest time that the newcomer may take: a thousand transfers a second, and twelve times the
/// least time that the links allow.
fn patience(options: &Join) -> Duration {
    let transfers = f64::from(options.transfers);
    let least = rates(options).map_or(0.0, |Rates { up, down }| {
        let link = Link { start: 0.0, up: rate(up), down: rate(down) };
        bound(transfers * TRANSFER_BYTES as f64, rate(up) * SEEDS as f64, None, &[link])
    });
    PATIENCE + Duration::from_secs_f64(transfers / 1_000.0 + 12.0 * least)
}

/// Everything of one run. The fields are dropped in this order: processes before links.
struct Session<'a> {
    options: &'a Join,
    chain: &'a MadeChain,
    programs: &'a Programs,
    seeds: Vec<Node>,
    newcomer: Node,
    topology: Topology,
}

impl<'a> Session<'a> {
    fn new(
        options: &'a Join,
        chain: &'a MadeChain,
        programs: &'a Programs,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let topology = match rates(options) {
            Some(rates) => Topology::shaped(&[rates; SEEDS + 1], true),
            None => Topology::loopback(SEEDS + 1),
        }?;
        let seeds = (1..=SEEDS).map(|number| Place::new(format!("seed{number}"), Role::Seed));
        let mut places: Vec<Place> = seeds.collect::<Result<_, _>>()?;
        let mut newcomer = Place::new("newcomer".to_owned(), Role::Leecher)?;
        newcomer.sync = options.mode.into();
        places.push(newcomer);
        let addresses = addresses(&places, &topology.hosts)?;
        let mut nodes = Vec::new();
        for (index, (place, host)) in places.iter().zip(&topology.hosts).enumerate() {
            let seeds = addresses.iter().enumerate().take(SEEDS);
            let peers = seeds.filter(|(other, _)| *other != index);
            let peers = peers.map(|(_, address)| address.clone()).collect();
            let home = place.furnish(folder, host, peers, chain)?;
            nodes.push(Node::new(place, index, home));
            stop::check()?;
        }
        let newcomer = nodes.pop().context("the newcomer has a place")?;
        Ok(Self { options, chain, programs, seeds: nodes, newcomer, topology })
    }

    fn run(mut self, account: &PublicKey) -> anyhow::Result<Report> {
        let (programs, hosts) = (self.programs, &self.topology.hosts);
        let log = &self.options.common.node_log;
        let facts = &self.chain.facts;
        let start = Instant::now();
        for seed in &mut self.seeds {
            seed.watch(programs, &hosts[seed.host])?;
            seed.start(programs, &hosts[seed.host], log)?;
        }
        for seed in &mut self.seeds {
            await_tip(seed, self.chain, start + PATIENCE)?;
            // Polling would cost processor time.
            seed.probe = None;
        }
        let (newcomer, host) = (&mut self.newcomer, &hosts[SEEDS]);
        say!("the newcomer starts, mode {:?}: {} blocks", self.options.mode, facts.height);
        newcomer.watch(programs, host)?;
        newcomer.start(programs, host, log)?;
        let started = newcomer.restarted;
        let live = await_tip(newcomer, self.chain, Instant::now() + patience(self.options))?;
        newcomer.observe();

        let rpc = Rpc::new(&format!("http://{}", host.rpc));
        host.inside(|| prove(&rpc, self.chain, account))??;
        let proved = now_ms();
        let peers = host.inside(|| rpc.call::<Vec<PeerInfo>>(NET_PEERS, &json!({})))??;
        let cpu_seconds = newcomer.cpu_seconds();
        let snapshot_height = loaded_snapshot(&newcomer.home)?;
        let mut await_phase = |phase: HistoryPhase| -> anyhow::Result<Option<u64>> {
            if snapshot_height.is_none() {
                return Ok(None);
            }
            let deadline = Instant::now() + patience(self.options);
            loop {
                newcomer.check()?;
                let status = host.inside(|| rpc.call::<Status>(CHAIN_STATUS, &json!({})))??;
                if status.history.phase >= phase {
                    return Ok(Some(now_ms()));
                }
                ensure!(Instant::now() < deadline, "{phase:?} is not over in time: {status:?}");
                stop::pause(TICK)?;
            }
        };
        let backfilled = await_phase(HistoryPhase::Audit)?;
        let audited = await_phase(HistoryPhase::Done)?;
        self.seeds.iter_mut().try_for_each(Node::check)?;
        let seconds = |at: u64| at.saturating_sub(started) as f64 / 1_000.0;
        Ok(Report {
            live_seconds: seconds(live),
            proved_balance_seconds: seconds(proved),
            backfilled_seconds: backfilled.map(seconds),
            audited_seconds: audited.map(seconds),
            cpu_seconds,
            tx_per_cpu_second: f64::from(self.options.transfers) / cpu_seconds,
            peak_rss_mib: newcomer.peak_rss_kib as f64 / 1_024.0,
            bytes: peers.iter().map(|peer| peer.received_bytes).sum(),
            snapshot_height,
            blocks_after_snapshot: snapshot_height.map(|height| facts.height - height),
        })
    }
}

/// Height of the snapshot that a node has loaded. The chain stands still, so the node has no other
/// one. `None` if it has none.
fn loaded_snapshot(home: &Path) -> anyhow::Result<Option<u64>> {
    let folder = home.join("snapshots");
    if !folder.exists() {
        return Ok(None);
    }
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        if let Some((height, _)) = name.split_once('-').filter(|_| name.ends_with(".snapshot")) {
            return Ok(Some(height.parse()?));
        }
    }
    Ok(None)
}

/// Waits until the node's tip is the chain's. Returns that time, in milliseconds since 1970.
fn await_tip(node: &mut Node, chain: &MadeChain, deadline: Instant) -> anyhow::Result<u64> {
    loop {
        node.check()?;
        node.probe.as_mut().and_then(Probe::now);
        node.look(&chain.facts);
        if let Some(at) = node.applied_at {
            return Ok(at);
        }
        let height = chain.facts.height;
        ensure!(Instant::now() < deadline, "{} is not at height {height} in time", node.name);
        stop::pause(TICK)?;
    }
}

/// Has a node prove an account at the chain's tip, and verifies the proof as a light client does.
/// A proof at a lower height would be of a balance of the past.
fn prove(rpc: &Rpc, made: &MadeChain, account: &PublicKey) -> anyhow::Result<()> {
    let chain = Chain::new(made.genesis.clone());
    let answer: AccountProofInfo =
        rpc.call(ACCOUNT_PROOF, &json!({"account": account.to_string()}))?;
    let [header, certificate, proof] =
        [&answer.head.header, &answer.head.certificate, &answer.proof].map(hex::decode);
    let header = FinalHeader::verify(&chain, &header?, &certificate?)?;
    let (got, expected) = (header.header().height, Height(made.facts.height));
    ensure!(got == expected, "the account is proved at height {got}, expected {expected}");
    header.account(account, &proof?)?.context("the account is not at the chain's tip")?;
    Ok(())
}

impl Report {
    /// The report as text for people.
    fn text(&self) -> String {
        let Self { live_seconds, proved_balance_seconds, cpu_seconds, .. } = self;
        let Self { tx_per_cpu_second, peak_rss_mib, bytes, .. } = self;
        format!(
            "live after {live_seconds:.2} s, a balance proved after {proved_balance_seconds:.2} s\n\
             {cpu_seconds:.2} s of processor time, {tx_per_cpu_second:.0} transfers in each second \
             of it; at most {peak_rss_mib:.0} MiB; {bytes} bytes received"
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::super::options::{Bench, Task};
    use super::*;

    #[test]
    fn links_are_shaped_if_both_rates_are_given() {
        let parse = |more: &[&str]| {
            let words = ["bench", "join", "--mode", "full"].iter().chain(more);
            let Task::Join(join) = Bench::try_parse_from(words).ok()?.task else { return None };
            Some((rates(&join).map(|rates| (rates.up, rates.down)), join.transfers, join.accounts))
        };
        assert_eq!(parse(&[]), Some((None, 1_000_000, 100_000)));
        assert_eq!(parse(&["--up", "20", "--down", "30"]).unwrap().0, Some((20, 30)));
        for wrong in [["--up", "20"], ["--down", "20"], ["--accounts", "2"], ["--transfers", "0"]] {
            assert_eq!(parse(&wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_full_replay_has_null_for_what_only_a_snapshot_has() {
        let report = Report {
            live_seconds: 2.0,
            proved_balance_seconds: 2.5,
            backfilled_seconds: None,
            audited_seconds: None,
            cpu_seconds: 4.0,
            tx_per_cpu_second: 5.0,
            peak_rss_mib: 6.0,
            bytes: 7,
            snapshot_height: None,
            blocks_after_snapshot: None,
        };
        let expected = json!({
            "live_seconds": 2.0, "proved_balance_seconds": 2.5, "backfilled_seconds": null,
            "audited_seconds": null, "cpu_seconds": 4.0, "tx_per_cpu_second": 5.0,
            "peak_rss_mib": 6.0, "bytes": 7, "snapshot_height": null,
            "blocks_after_snapshot": null,
        });
        assert_eq!(serde_json::to_value(report).unwrap(), expected);
    }
}
