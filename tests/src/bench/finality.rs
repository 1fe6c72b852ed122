//! What uploading costs a validator: the time until transfers are final while it uploads nothing,
//! and while it uploads history as fast as its link allows.
//!
//! Only the link and the validator's own work are to be measured. So the nodes that fetch have
//! their homes in memory and a lower priority. Packets are no larger than on a wire, since votes
//! would wait behind larger ones.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ledger::chain::Chain;
use serde::Serialize;
use tempfile::TempDir;

use super::chain::{MadeChain, Recipe};
use super::folder::{folder, in_folder, take_turn};
use super::nodes::{Node, Place, Programs, Role, addresses};
use super::options::Finality;
use super::pay::{Paid, Payers};
use super::topology::{self, Rates, Topology};
use super::{print_line, say, stop};
use crate::story::now_ms;

/// A file system in memory (`tmpfs(5)`).
const MEMORY: &str = "/dev/shm";
/// Interval between two polls.
const TICK: Duration = Duration::from_millis(20);
/// Time between the first final transfer and the first one that counts.
const SETTLE: Duration = Duration::from_secs(2);
/// How long the validators may take until the first transfer is final. A node that fetches may take
/// this time plus twelve times the least possible time.
const PATIENCE: Duration = Duration::from_secs(120);

/// Times until transfers were final, in milliseconds.
#[derive(Debug, Serialize)]
struct Times {
    transfers: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    quiet: Times,
    uploading: Times,
    /// 99th percentile while uploading, divided by the 99th percentile while quiet.
    p99_ratio: f64,
    /// Share of the link's capacity that the validator's interface used while uploading.
    link_used: f64,
    parameters: &'a Finality,
}

/// Runs the command `finality`.
pub(super) fn execute(options: &Finality) -> anyhow::Result<()> {
    topology::check()?;
    let programs = Programs::find(options.common.node.as_deref())?;
    let folder = folder(&programs.bench)?;
    let turn = take_turn(&folder)?;
    let chain = MadeChain::obtain(&folder, &Recipe::to_go_on(options.validators, options.mib))?;
    drop(turn);
    let report = in_folder(&folder, options.common.keep, |home| {
        Session::new(options, &chain, &programs, home)?.run()
    })?;
    if options.common.json {
        return print_line(&report);
    }
    let Report { quiet, uploading, .. } = &report;
    for (name, times) in [("quiet", quiet), ("uploading", uploading)] {
        let Times { transfers, p50_ms, p99_ms, max_ms } = times;
        println!(
            "{name:9} {transfers:5} transfers final after {p50_ms:.0} ms (half), {p99_ms:.0} \
             (99%), {max_ms:.0} (all)"
        );
    }
    println!(
        "ratio {:.3} at 99%; the link was used to {:.0}%",
        report.p99_ratio,
        report.link_used * 100.0
    );
    Ok(())
}

/// Everything of one run. The fields are dropped in this order: processes before links before
/// files.
struct Session<'a> {
    options: &'a Finality,
    chain: &'a MadeChain,
    programs: &'a Programs,
    /// The validators; the first of them uploads.
    validators: Vec<Node>,
    /// The nodes that fetch, one after the other.
    guests: Vec<Node>,
    topology: Topology,
    /// The folder of the guests' homes. It is in memory, so that they do not use the validators'
    /// disk.
    _memory: TempDir,
}

impl<'a> Session<'a> {
    fn new(
        options: &'a Finality,
        chain: &'a MadeChain,
        programs: &'a Programs,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let rates = Rates { up: options.up, down: options.down };
        let topology = Topology::shaped(
            &vec![rates; usize::from(options.validators + options.rounds)],
            false,
        )?;
        let validators = (0..options.validators)
            .map(|number| (format!("validator{}", number + 1), Role::Validator(number)));
        let guests = (1..=options.rounds).map(|number| (format!("guest{number}"), Role::Guest));
        let mut places: Vec<Place> = validators
            .chain(guests)
            .map(|(name, role)| Place::new(name, role))
            .collect::<Result<_, _>>()?;
        places.iter_mut().for_each(|place| {
            place.upload_rate = options.upload_limit.map(|mbit| u64::from(mbit) * 125_000)
        });
        let addresses = addresses(&places, &topology.hosts)?;
        let memory = tempfile::Builder::new()
            .prefix("cairn-bench-")
            .tempdir_in(MEMORY)
            .context("cannot make homes in memory")?;
        let mut nodes = Vec::new();
        for (index, (place, host)) in places.iter().zip(&topology.hosts).enumerate() {
            let (folder, known) = match place.role {
                Role::Guest => (memory.path(), 1),
                _ => (folder, options.validators.into()),
            };
            let peers =
                addresses.iter().enumerate().take(known).filter(|(other, _)| *other != index);
            let home = place.furnish(
                folder,
                host,
                peers.map(|(_, address)| address.clone()).collect(),
                chain,
            )?;
            nodes.push(Node::new(place, index, home));
            stop::check()?;
        }
        let guests = nodes.split_off(options.validators.into());
        Ok(Self { options, chain, programs, validators: nodes, guests, topology, _memory: memory })
    }

    fn run(mut self) -> anyhow::Result<Report<'a>> {
        let (options, hosts) = (self.options, &self.topology.hosts);
        let mut validators = self.validators.iter_mut();
        validators.try_for_each(|node| {
            node.watch(self.programs, &hosts[node.host])?;
            node.start(self.programs, &hosts[node.host], &options.common.node_log)
        })?;
        self.await_validators()?;
        // All validators have answered, so their probes end: polling would cost processor time.
        self.validators.iter_mut().for_each(|node| node.probe = None);
        let chain = Chain::new(self.chain.genesis.clone()).id();
        let mut payers =
            Payers::start(&self.programs.bench, &self.topology.hosts[0], chain, options.rate)?;
        self.await_first(&mut payers)?;
        let (mut quiet, mut uploading) = (Vec::new(), Vec::new());
        let (mut sent, mut seconds) = (0, 0.0);
        for round in 0..self.guests.len() {
            let before = self.sent()?;
            let window = self.upload(round, &mut payers)?;
            sent += self.sent()? - before;
            let long = (window.end - window.start) as f64 / 1_000.0;
            seconds += long;
            say!("round {} of {}: uploaded in {long:.1} s", round + 1, options.rounds);
            uploading.push(window);
            let start = now_ms();
            self.wait(Duration::from_secs_f64(long), &mut payers)?;
            quiet.push(start..now_ms());
        }
        let paid = payers.finish()?;
        let times =
            |windows: &[Range<u64>]| Times::of(&paid, windows).context("no transfers were final");
        let (quiet, uploading) = (times(&quiet)?, times(&uploading)?);
        let p99_ratio = uploading.p99_ms / quiet.p99_ms;
        let link_used = sent as f64 / (seconds * super::measure::rate(options.up));
        Ok(Report { quiet, uploading, p99_ratio, link_used, parameters: options })
    }

    fn await_validators(&mut self) -> anyhow::Result<()> {
        let (start, height) = (Instant::now(), self.chain.facts.height);
        let is_ready = |node: &Node| node.sample().is_some_and(|sample| sample.height >= height);
        while !self.validators.iter().all(is_ready) {
            self.look(start, "the validators do not answer")?;
        }
        Ok(())
    }

    fn await_first(&mut self, payers: &mut Payers) -> anyhow::Result<()> {
        let start = Instant::now();
        while payers.next().is_none() {
            self.look(start, "no transfer is final")?;
            payers.check()?;
        }
        // Transfers that came due before the first one was final are late, so they must not count.
        self.wait(SETTLE, payers)
    }

    /// Starts a guest, waits until it has fetched the whole history, kills it and removes its home.
    /// Returns the time span of the fetch, in milliseconds since 1970.
    fn upload(&mut self, round: usize, payers: &mut Payers) -> anyhow::Result<Range<u64>> {
        let least = self.chain.facts.bytes as f64 / super::measure::rate(self.options.up);
        let deadline = Instant::now() + PATIENCE + Duration::from_secs_f64(12.0 * least);
        let (facts, guest) = (self.chain.facts, &mut self.guests[round]);
        let host = &self.topology.hosts[guest.host];
        guest.watch(self.programs, host)?;
        guest.start(self.programs, host, &self.options.common.node_log)?;
        let start = now_ms();
        let end = loop {
            stop::pause(TICK)?;
            payers.check()?;
            self.validators
                .iter_mut()
                .chain([&mut self.guests[round]])
                .try_for_each(Node::check)?;
            let guest = &mut self.guests[round];
            guest.look(&facts);
            if let Some(end) = guest.verified_at {
                break end;
            }
            ensure!(Instant::now() < deadline, "{} does not have all chunks in time", guest.name);
        };
        self.guests[round].kill();
        fs::remove_dir_all(&self.guests[round].home)?;
        Ok(start..end)
    }

    fn wait(&mut self, time: Duration, payers: &mut Payers) -> anyhow::Result<()> {
        let start = Instant::now();
        while start.elapsed() < time {
            stop::pause(TICK)?;
            payers.check()?;
        }
        self.validators.iter_mut().try_for_each(Node::check)
    }

    fn look(&mut self, since: Instant, complaint: &str) -> anyhow::Result<()> {
        stop::pause(TICK)?;
        self.validators.iter_mut().try_for_each(Node::check)?;
        ensure!(since.elapsed() < PATIENCE, "{complaint} after {PATIENCE:?}");
        Ok(())
    }

    fn sent(&self) -> anyhow::Result<u64> {
        self.topology.sent_by([0])?.context("every host has an interface")
    }
}

impl Times {
    /// Times of the transfers that were due in one of these windows; `None` if there were none.
    fn of(paid: &[Paid], windows: &[Range<u64>]) -> Option<Self> {
        let counts = |one: &&Paid| windows.iter().any(|window| window.contains(&one.at));
        let mut times: Vec<f64> = paid.iter().filter(counts).map(|one| one.took).collect();
        times.sort_by(f64::total_cmp);
        // Nearest rank: the smallest time that at least this percentage of transfers do not exceed.
        let rank = |percent: usize| {
            times.get((times.len() * percent).div_ceil(100).checked_sub(1)?).copied()
        };
        Some(Self {
            transfers: times.len(),
            p50_ms: rank(50)?,
            p99_ms: rank(99)?,
            max_ms: rank(100)?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn of_a_hundred_transfers_the_last_but_one_is_p99() {
        let paid: Vec<Paid> = (0..300).map(|at| Paid { at, took: 300.0 - at as f64 }).collect();
        let times = Times::of(&paid, &[0..50, 250..300]).unwrap();
        assert_eq!(
            (times.transfers, times.p50_ms, times.p99_ms, times.max_ms),
            (100, 50.0, 299.0, 300.0)
        );
        assert!(Times::of(&paid, &[]).is_none());
    }
}
