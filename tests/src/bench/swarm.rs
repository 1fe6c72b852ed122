//! One run: seeds start first, then all leechers at once. The run ends when each leecher has
//! verified and applied everything.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::aria2::{self, Payload};
use super::chain::{Facts, MadeChain, Recipe};
use super::fairness::{jain, largest_share};
use super::folder::{folder, in_folder, take_turn};
use super::links::{bound_of, patience, rates};
use super::measure::{Bans, OtherRun, PerNode, Report, Run};
use super::nodes::{Node, Place, Programs, Role, addresses};
use super::options::Swarm;
use super::topology::{self, Topology};
use super::{print_line, say, stop};
use crate::hostile::chunks::{self, Kind};
use crate::story::now_ms;

/// Interval between two polls.
const TICK: Duration = Duration::from_millis(20);
/// Ticks between observations that cost processor time, and between lines on stderr.
const LOOK_TICKS: u32 = 10;
const SAY_TICKS: u32 = 100;
/// How long seeds may take to answer.
const SEEDS_READY: Duration = Duration::from_secs(60);

/// Runs the command `swarm`.
pub(super) fn execute(options: &Swarm) -> anyhow::Result<()> {
    if !options.loopback {
        topology::check()?;
    }
    if options.vs.is_some() {
        aria2::check()?;
    }
    let programs = Programs::find(options.common.node.as_deref())?;
    let folder = folder(&programs.bench)?;
    let turn = take_turn(&folder)?;
    let chain = MadeChain::obtain(&folder, &Recipe::of(options))?;
    if options.vs.is_some() {
        chain.payload()?;
    }
    drop(turn);
    let Facts { bytes, segments, chunks, height, .. } = chain.facts;
    say!("{bytes} bytes in {segments} segments and {chunks} chunks, {height} blocks");
    let (mut ours, mut others): (Vec<Run>, Vec<OtherRun>) = (Vec::new(), Vec::new());
    for number in 1..=options.runs {
        let run = in_folder(&folder, options.common.keep, |home| {
            let turn = take_turn(&folder)?;
            let session = Session::new(options, &chain, &programs, home)?;
            drop(turn);
            session.run()
        })?;
        say!("run {number} of {}: {:.2} s, ratio {}", options.runs, run.seconds, show(run.ratio));
        ours.push(run);
        if options.vs.is_some() {
            let run = in_folder(&folder, options.common.keep, |folder| {
                let (file, bytes) = (chain.payload()?, chain.facts.bytes);
                let piece_bytes = usize::try_from(chain.genesis.limits.chunk_bytes)?;
                let payload = Payload { file, bytes, piece_bytes };
                aria2::run(options, &payload, &programs, folder)
            })?;
            say!("aria2: {:.2} s, ratio {}", run.seconds, show(run.ratio));
            others.push(run);
        }
    }
    let report =
        Report::new(options, chain.facts, &ours, &others).context("no runs were asked for")?;
    if options.common.json {
        return print_line(&report);
    }
    println!("{}", report.text());
    Ok(())
}

fn show(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "unknown".to_owned(), |ratio| format!("{ratio:.3}"))
}

/// Everything of one run. The fields are dropped in this order: processes before links.
struct Session<'a> {
    options: &'a Swarm,
    facts: Facts,
    programs: &'a Programs,
    nodes: Vec<Node>,
    topology: Topology,
    /// Bytes that the seeds' interfaces had sent when the leechers started.
    sent_before: Option<u64>,
    ticks: u32,
}

impl<'a> Session<'a> {
    fn new(
        options: &'a Swarm,
        chain: &MadeChain,
        programs: &'a Programs,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let rates = rates(options);
        let topology = if options.loopback {
            Topology::loopback(rates.len())
        } else {
            Topology::shaped(&rates, !options.no_offload)
        }?;
        let kinds = [
            ("seed", Role::Seed, options.seeds),
            ("leecher", Role::Leecher, options.leechers),
            ("late", Role::Late, options.late),
            ("poisoner", Role::Hostile(Kind::Poison), options.poison),
            ("staller", Role::Hostile(Kind::Stall), options.stall),
        ];
        let named = kinds
            .into_iter()
            .flat_map(|(name, role, count)| (1..=count).map(move |n| (format!("{name}{n}"), role)));
        let places: Vec<Place> =
            named.map(|(name, role)| Place::new(name, role)).collect::<Result<_, _>>()?;
        let addresses = addresses(&places, &topology.hosts)?;
        let mut nodes = Vec::new();
        for (index, (place, host)) in places.iter().zip(&topology.hosts).enumerate() {
            // A node is told only of peers that start no later than it does. Dialing a peer that is
            // not there yet would be in vain.
            let known = |other: &Place| match place.role {
                Role::Leecher => other.role != Role::Late,
                Role::Late => true,
                _ => other.role.has_chain(),
            };
            let peers = places
                .iter()
                .zip(&addresses)
                .filter(|(other, _)| other.name != place.name && known(other));
            let home = place.furnish(
                folder,
                host,
                peers.map(|(_, address)| address.clone()).collect(),
                chain,
            )?;
            nodes.push(Node::new(place, index, home));
            stop::check()?;
        }
        let mut facts = chain.facts;
        if options.seed_leaves_after.is_some() {
            // The blocks after the last segment may be lost with the seeds, so nobody waits for
            // them.
            facts.height = facts.sealed;
        }
        Ok(Self { options, facts, programs, nodes, topology, sent_before: None, ticks: 0 })
    }

    fn run(mut self) -> anyhow::Result<Run> {
        let (programs, hosts) = (self.programs, &self.topology.hosts);
        self.nodes.iter_mut().try_for_each(|node| node.watch(programs, &hosts[node.host]))?;
        for role in [Role::Seed, Role::Hostile(Kind::Poison), Role::Hostile(Kind::Stall)] {
            self.start(role)?;
        }
        self.await_seeds()?;
        if !self.options.loopback {
            // The seeds' interfaces count what they send, and polling would cost processor time.
            self.nodes
                .iter_mut()
                .filter(|node| node.role.has_chain())
                .for_each(|node| node.probe = None);
        }
        self.sent_before = self.seeds_sent()?;
        let started = now_ms();
        self.start(Role::Leecher)?;
        let deadline = Instant::now() + patience(self.options, self.facts.bytes);
        while !self.is_over() {
            stop::pause(TICK)?;
            self.tick()?;
            if Instant::now() > deadline {
                self.say_progress();
                bail!("the leechers are not done in time");
            }
        }
        self.nodes.iter_mut().for_each(Node::observe);
        self.judge(started)
    }

    fn start(&mut self, role: Role) -> anyhow::Result<()> {
        let (programs, log, hosts) =
            (self.programs, &self.options.common.node_log, &self.topology.hosts);
        let mut nodes = self.nodes.iter_mut().filter(|node| node.role == role);
        nodes.try_for_each(|node| node.start(programs, &hosts[node.host], log))
    }

    fn of(&self, role: Role) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.role == role)
    }

    fn leechers(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| !node.role.has_chain())
    }

    fn await_seeds(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        let height = self.facts.height;
        let is_ready = |node: &Node| match node.role {
            Role::Hostile(_) => node.log_text().contains(chunks::READY),
            _ => node.sample().is_some_and(|sample| sample.height >= height),
        };
        while !self.nodes.iter().filter(|node| node.role.has_chain()).all(is_ready) {
            stop::pause(TICK)?;
            self.nodes.iter_mut().try_for_each(Node::check)?;
            if start.elapsed() > SEEDS_READY {
                bail!("the seeds do not answer at height {height}");
            }
        }
        Ok(())
    }

    fn tick(&mut self) -> anyhow::Result<()> {
        self.ticks += 1;
        self.nodes.iter_mut().try_for_each(Node::check)?;
        self.nodes.iter_mut().for_each(|node| node.look(&self.facts));
        if let Some(seconds) = self.options.kill_every {
            self.kill_due(seconds)?;
        }
        if !self.ticks.is_multiple_of(LOOK_TICKS) {
            return Ok(());
        }
        if self.ticks.is_multiple_of(SAY_TICKS) {
            self.say_progress();
        }
        if self.of(Role::Late).any(|node| node.started.is_none()) {
            let done: f64 = self.of(Role::Leecher).map(|node| node.share(&self.facts)).sum();
            if done >= f64::from(self.options.leechers) / 2.0 {
                say!("half done: the late ones start");
                self.start(Role::Late)?;
            }
        }
        if let Some(copies) = self.options.seed_leaves_after
            && self.of(Role::Seed).any(Node::is_running)
            && self.seeds_sent()?.zip(self.sent_before).is_some_and(|(now, before)| {
                (now - before) as f64 >= copies * self.facts.bytes as f64
            })
        {
            say!("the seeds leave");
            self.nodes.iter_mut().filter(|node| node.role == Role::Seed).for_each(Node::kill);
        }
        Ok(())
    }

    fn kill_due(&mut self, seconds: f64) -> anyhow::Result<()> {
        let now = now_ms();
        for node in self.nodes.iter_mut().filter(|node| !node.role.has_chain() && node.is_running())
        {
            let is_due = (now - node.restarted) as f64 >= seconds * 1_000.0;
            // Without this condition, a node that needs longer than `seconds` to start would never
            // fetch anything.
            let has_fetched = node.sample().is_some_and(|sample| sample.fetched_bytes > 0);
            if is_due && has_fetched && node.verified_at.is_none() {
                node.kill();
                node.start(
                    self.programs,
                    &self.topology.hosts[node.host],
                    &self.options.common.node_log,
                )?;
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.leechers().all(|node| node.verified_at.is_some() && node.applied_at.is_some())
    }

    fn seeds_sent(&self) -> anyhow::Result<Option<u64>> {
        self.topology.sent_by(self.of(Role::Seed).map(|node| node.host))
    }

    fn say_progress(&self) {
        let shares = self.leechers().map(|node| format!("{:.0}%", node.share(&self.facts) * 100.0));
        say!("{}", shares.collect::<Vec<_>>().join(" "));
    }

    /// Counts bans from the nodes' logs.
    fn bans(&self) -> Bans {
        let mut bans = Bans::default();
        for node in &self.nodes {
            let text = node.log_text();
            if node.role == Role::Hostile(Kind::Poison) {
                bans.poisoned += text.lines().filter(|line| line.starts_with(chunks::LIED)).count();
            }
            let lines: Vec<&str> = text.lines().filter(|line| line.contains("banned")).collect();
            for other in
                self.nodes.iter().filter(|other| lines.iter().any(|line| line.contains(&other.id)))
            {
                match other.role {
                    Role::Hostile(Kind::Poison) => bans.poisoners += 1,
                    // This includes silent seeds, which send nothing wrong.
                    _ => bans.honest += 1,
                }
            }
        }
        bans
    }

    fn judge(&self, started: u64) -> anyhow::Result<Run> {
        let facts = &self.facts;
        let bytes = facts.bytes as f64;
        let mut per_node = Vec::new();
        for node in self.leechers() {
            let received =
                self.topology.hosts[node.host].moved()?.map(|moved| moved.received as f64 / bytes);
            per_node.extend(
                node.result(facts).map(|result| PerNode { received_copies: received, ..result }),
            );
        }
        let since =
            |at: Option<u64>| at.unwrap_or(started).saturating_sub(started) as f64 / 1_000.0;
        let seconds = since(per_node.iter().map(|node| node.verified_at_ms).max());
        let late: Vec<f64> = self.of(Role::Late).map(|node| since(node.started)).collect();
        let bound_seconds = bound_of(self.options, facts.bytes, &late);
        let seeds_say =
            || self.of(Role::Seed).filter_map(Node::sample).map(|sample| sample.served_bytes).sum();
        let sent = self
            .seeds_sent()?
            .zip(self.sent_before)
            .map_or_else(seeds_say, |(now, before)| now - before);
        let vain: u64 = per_node.iter().map(|node| node.duplicate_bytes).sum();
        let uploaded: Vec<f64> = per_node.iter().map(|node| node.uploaded_bytes as f64).collect();
        let most = |value: fn(&PerNode) -> f64| per_node.iter().map(value).fold(0.0, f64::max);
        Ok(Run {
            seconds,
            bound_seconds,
            ratio: bound_seconds.map(|bound| seconds / bound),
            applied_seconds: since(per_node.iter().map(|node| node.applied_at_ms).max()),
            seed_copies: sent as f64 / bytes,
            waste: vain as f64 / bytes / per_node.len() as f64,
            refetched: most(|node| node.refetched_bytes as f64) / bytes,
            last_percent_share: per_node
                .iter()
                .filter_map(|node| node.last_percent_share)
                .reduce(f64::max),
            bans: self.bans(),
            jain_uploaded: jain(&uploaded),
            largest_share: largest_share(&uploaded),
            peak_rss_mib: most(|node| node.peak_rss_mib),
            cpu_seconds: self.nodes.iter().map(Node::cpu_seconds).sum(),
            per_node,
        })
    }
}
