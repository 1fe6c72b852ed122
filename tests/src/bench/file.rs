//! How fast nodes fetch a file from those that share it, by the commands `share` and `get`.
//!
//! All nodes have the same short chain, which stands still, so nothing but the file moves. They are
//! connected before the first `get` begins, so the time has no search for holders in it.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde_json::Value;

use super::aria2::{self, Payload};
use super::chain::{MadeChain, Recipe};
use super::folder::{folder, in_folder, take_turn};
use super::links::{bound_of, patience, rates};
use super::measure::OtherRun;
use super::nodes::{Node, Place, Programs, Role, addresses};
use super::options::{self, Swarm, Tool};
use super::topology::{self, Topology};
use super::{print_line, say, stop};
use crate::story::Process;

const TICK: Duration = Duration::from_millis(20);
/// How long nodes may take until each is connected to all others.
const READY: Duration = Duration::from_secs(60);
/// Bytes of a chunk of a file, and of aria2's pieces.
const CHUNK_BYTES: usize = 128 << 10;
/// The file's name in the folder of the bench; its length is part of it.
const NAME: &str = "payload";

/// The result of one run. Scripts read the names of the fields.
#[derive(Clone, Debug, Serialize)]
struct Run {
    /// Until the last leecher had the whole file, verified and on its disk.
    seconds: f64,
    bound_seconds: Option<f64>,
    ratio: Option<f64>,
    /// Time to look for holders: none, since all nodes are connected before.
    lookup_seconds: f64,
    /// Bytes that the seeds sent, in copies of the file; `None` on loopback.
    seed_copies: Option<f64>,
    /// What all leechers together receive.
    mib_per_second: f64,
    /// What they receive in a second of processor time of all nodes.
    mib_per_cpu_second: f64,
    peak_rss_mib: f64,
    /// The fewest and the most peers that sent chunks to a leecher.
    peers: (u64, u64),
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    /// The median run by time.
    #[serde(flatten)]
    run: &'a Run,
    #[serde(skip_serializing_if = "Option::is_none")]
    vs: Option<Versus<'a>>,
    parameters: &'a options::File,
    runs: &'a [Run],
}

#[derive(Debug, Serialize)]
struct Versus<'a> {
    tool: Tool,
    #[serde(flatten)]
    run: &'a OtherRun,
    seconds_of_runs: Vec<f64>,
}

/// Runs the command `file`.
pub(super) fn execute(options: &options::File) -> anyhow::Result<()> {
    if !options.loopback {
        topology::check()?;
    }
    if options.vs.is_some() {
        aria2::check()?;
    }
    let programs = Programs::find(options.common.node.as_deref())?;
    let folder = folder(&programs.bench)?;
    let swarm = options.swarm();
    let turn = take_turn(&folder)?;
    let chain = MadeChain::obtain(&folder, &Recipe::of_eras(1))?;
    let payload = Payload {
        file: payload(&folder, options.bytes())?,
        bytes: options.bytes(),
        piece_bytes: CHUNK_BYTES,
    };
    drop(turn);
    let (mut ours, mut others): (Vec<Run>, Vec<OtherRun>) = (Vec::new(), Vec::new());
    for number in 1..=options.runs {
        let run = in_folder(&folder, options.common.keep, |home| {
            let turn = take_turn(&folder)?;
            let session = Session::new(options, &swarm, &chain, &payload, &programs, home)?;
            drop(turn);
            session.run()
        })?;
        say!("run {number} of {}: {:.2} s, ratio {:?}", options.runs, run.seconds, run.ratio);
        ours.push(run);
        if options.vs.is_some() {
            let run = in_folder(&folder, options.common.keep, |folder| {
                aria2::run(&swarm, &payload, &programs, folder)
            })?;
            say!("aria2: {:.2} s, ratio {:?}", run.seconds, run.ratio);
            others.push(run);
        }
    }
    report(options, &ours, &others)
}

fn report(options: &options::File, ours: &[Run], others: &[OtherRun]) -> anyhow::Result<()> {
    let run = middle(ours, |run| run.seconds).context("no runs were asked for")?;
    let other = middle(others, |run| run.seconds).zip(options.vs);
    let vs = other.map(|(run, tool)| Versus {
        tool,
        run,
        seconds_of_runs: others.iter().map(|run| run.seconds).collect(),
    });
    let report = Report { run, vs, parameters: options, runs: ours };
    if options.common.json {
        return print_line(&report);
    }
    let Run { seconds, ratio, mib_per_second, mib_per_cpu_second, peak_rss_mib, .. } = run;
    println!(
        "{seconds:.2} s, {ratio:?} of the least time, {mib_per_second:.0} MiB/s, \
         {mib_per_cpu_second:.0} MiB per processor second, {peak_rss_mib:.0} MiB of memory"
    );
    if let Some(vs) = report.vs {
        println!("aria2: {:.2} s, {:?} of the least time", vs.run.seconds, vs.run.ratio);
    }
    Ok(())
}

/// The run in the middle by this value; the lower one of two.
fn middle<T>(runs: &[T], value: impl Fn(&T) -> f64) -> Option<&T> {
    let mut sorted: Vec<&T> = runs.iter().collect();
    sorted.sort_by(|a, b| value(a).total_cmp(&value(b)));
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

/// A file of random bytes, which is made once.
fn payload(folder: &Path, bytes: u64) -> anyhow::Result<PathBuf> {
    let path = folder.join(format!("{NAME}-{bytes}"));
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == bytes) {
        return Ok(path);
    }
    let mut file = BufWriter::new(fs::File::create(&path)?);
    let mut random = ChaCha8Rng::seed_from_u64(bytes);
    let mut part = vec![0; 1 << 20];
    for _ in 0..bytes >> 20 {
        random.fill_bytes(&mut part);
        file.write_all(&part)?;
    }
    file.flush()?;
    Ok(path)
}

/// Everything of one run. The fields are dropped in this order: processes before links.
struct Session<'a> {
    options: &'a options::File,
    swarm: &'a Swarm,
    payload: &'a Payload,
    programs: &'a Programs,
    height: u64,
    nodes: Vec<Node>,
    topology: Topology,
}

impl<'a> Session<'a> {
    fn new(
        options: &'a options::File,
        swarm: &'a Swarm,
        chain: &MadeChain,
        payload: &'a Payload,
        programs: &'a Programs,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let rates = rates(swarm);
        let topology = match options.loopback {
            true => Topology::loopback(rates.len()),
            false => Topology::shaped(&rates, !options.no_offload),
        }?;
        let seeds = (1..=options.seeds).map(|number| format!("seed{number}"));
        let leechers = (1..=options.leechers).map(|number| format!("leecher{number}"));
        let names = seeds.chain(leechers);
        let mut places: Vec<Place> =
            names.map(|name| Place::new(name, Role::Seed)).collect::<Result<_, _>>()?;
        places.iter_mut().for_each(|place| place.shares_files = true);
        let addresses = addresses(&places, &topology.hosts)?;
        let mut nodes = Vec::new();
        for (index, (place, host)) in places.iter().zip(&topology.hosts).enumerate() {
            let others = places.iter().zip(&addresses);
            let others = others.filter(|(other, _)| other.name != place.name);
            let peers = others.map(|(_, address)| address.clone()).collect();
            let home = place.furnish(folder, host, peers, chain)?;
            nodes.push(Node::new(place, index, home));
            stop::check()?;
        }
        let height = chain.facts.height;
        Ok(Self { options, swarm, payload, programs, height, nodes, topology })
    }

    fn run(mut self) -> anyhow::Result<Run> {
        let (programs, hosts) = (self.programs, &self.topology.hosts);
        for node in &mut self.nodes {
            node.watch(programs, &hosts[node.host])?;
            node.start(programs, &hosts[node.host], &self.options.common.node_log)?;
        }
        self.await_links()?;
        let seeds = usize::from(self.options.seeds);
        let mut link = String::new();
        for index in 0..seeds {
            let shared = self.share(index)?;
            link = shared["link"].as_str().context("`share` prints a link")?.to_owned();
        }
        let sent = |session: &Self| session.topology.sent_by(0..seeds);
        let before = sent(&self)?;
        self.nodes.iter_mut().for_each(Node::observe);
        let cpu_before = self.cpu_seconds();
        let deadline = Instant::now() + patience(self.swarm, self.payload.bytes);
        let mut fetches = Vec::new();
        for index in seeds..self.nodes.len() {
            let log = self.nodes[index].home.join("get.log");
            let mut command = self.command_of(&["get", &link, "--json"], index);
            let host = &self.topology.hosts[self.nodes[index].host];
            fetches.push((host.inside(|| Process::spawn(&mut command, &log))?, log));
        }
        let mut answers = Vec::new();
        for (mut fetch, log) in fetches {
            while fetch.ended().is_none() {
                stop::pause(TICK)?;
                self.nodes.iter_mut().try_for_each(Node::check)?;
                ensure!(Instant::now() < deadline, "the leechers are not done in time");
            }
            let text = fs::read_to_string(log)?;
            let last = text.lines().last().unwrap_or_default();
            let value: Value =
                serde_json::from_str(last).with_context(|| format!("`get` says {text}"))?;
            answers.push(value);
        }
        self.nodes.iter_mut().for_each(Node::observe);
        let copies = sent(&self)?.zip(before).map(|(now, before)| now - before);
        self.check_files(&link)?;
        self.judge(&answers, copies, self.cpu_seconds() - cpu_before)
    }

    /// Waits until each node has the chain and links to all others.
    fn await_links(&mut self) -> anyhow::Result<()> {
        let (start, others) = (Instant::now(), self.nodes.len() as u64 - 1);
        let height = self.height;
        let is_ready = |node: &Node| {
            node.sample().is_some_and(|sample| sample.height >= height && sample.links >= others)
        };
        while !self.nodes.iter().all(is_ready) {
            stop::pause(TICK)?;
            self.nodes.iter_mut().try_for_each(Node::check)?;
            if start.elapsed() > READY {
                bail!("the nodes are not all connected");
            }
        }
        self.nodes.iter_mut().for_each(|node| node.probe = None);
        Ok(())
    }

    fn command_of(&self, words: &[&str], index: usize) -> Command {
        let mut command = Command::new(&self.programs.node);
        command.args(words).arg("--home").arg(&self.nodes[index].home);
        command
    }

    /// Shares the file from a node. Returns what the command prints.
    fn share(&self, index: usize) -> anyhow::Result<Value> {
        let mut command = self.command_of(&["share", "--json"], index);
        command.arg(&self.payload.file).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "`share` ended with {}: {text}", output.status);
        Ok(serde_json::from_str(text.lines().last().unwrap_or_default())?)
    }

    fn cpu_seconds(&self) -> f64 {
        self.nodes.iter().map(Node::cpu_seconds).sum()
    }

    /// Compares what the leechers have with what was shared.
    fn check_files(&self, link: &str) -> anyhow::Result<()> {
        let id = link.trim_start_matches("cairn:");
        for node in &self.nodes[usize::from(self.options.seeds)..] {
            let status = Command::new("cmp")
                .arg(&self.payload.file)
                .arg(node.home.join("files").join(id))
                .status()
                .context("`cmp` does not run")?;
            ensure!(status.success(), "{} has other bytes than the shared file", node.name);
        }
        Ok(())
    }

    fn judge(&self, answers: &[Value], sent: Option<u64>, cpu: f64) -> anyhow::Result<Run> {
        let bytes = self.payload.bytes as f64;
        let of = |name: &str| -> Vec<f64> {
            answers.iter().filter_map(|answer| answer[name].as_f64()).collect()
        };
        let seconds = of("seconds").into_iter().reduce(f64::max).context("`get` tells seconds")?;
        let peers = of("peers");
        let least = peers.iter().copied().reduce(f64::min).unwrap_or(0.0);
        let most = peers.iter().copied().reduce(f64::max).unwrap_or(0.0);
        let moved = bytes * answers.len() as f64 / f64::from(1 << 20);
        let bound_seconds = bound_of(self.swarm, self.payload.bytes, &[]);
        let peak = self.nodes.iter().map(|node| node.peak_rss_kib).max().unwrap_or(0);
        Ok(Run {
            seconds,
            bound_seconds,
            ratio: bound_seconds.map(|bound| seconds / bound),
            lookup_seconds: 0.0,
            seed_copies: sent.map(|sent| sent as f64 / bytes),
            mib_per_second: moved / seconds,
            mib_per_cpu_second: moved / cpu.max(0.01),
            peak_rss_mib: peak as f64 / 1_024.0,
            peers: (least as u64, most as u64),
        })
    }
}
