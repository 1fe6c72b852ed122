//! How fast nodes fetch a file from those that share it, by the commands `share` and `get`.
//!
//! All nodes have the same short chain, which stands still, so nothing but the file moves. They are
//! connected before the first `get` begins: the time is that from the first holder found. How long
//! it takes to find one is measured afterwards, by a newcomer that knows one address: that of a
//! guide, which is connected to all others and has no files.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde_json::{Value, json};

use super::aria2::{self, Payload};
use super::chain::{MadeChain, Recipe};
use super::folder::{folder, in_folder, take_turn};
use super::links::{bound_of, patience, rates};
use super::measure::OtherRun;
use super::nodes::{Node, Place, Programs, Role, addresses, await_links};
use super::options::{self, Swarm, Tool};
use super::topology::{self, Rates, Topology};
use super::{print_line, say, stop};
use crate::story::{Process, call_operator};

const TICK: Duration = Duration::from_millis(20);
/// How long a newcomer may take to find a holder.
const PATIENCE: Duration = Duration::from_secs(120);
/// Names of the nodes that neither share nor fetch the file.
const GUIDE: &str = "guide";
const NEWCOMER: &str = "newcomer";
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
    #[serde(flatten)]
    look_up: LookUp,
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

/// How soon a holder is found. No part of the time of the fetches.
#[derive(Clone, Copy, Debug, Serialize)]
struct LookUp {
    /// From the `get` of a newcomer, which was told only of a node without files, until the first
    /// holder has told it the length of the file. On a small network it connects to all nodes.
    lookup_seconds: f64,
    /// A look-up in the index alone.
    index_seconds: f64,
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
         {mib_per_cpu_second:.0} MiB per processor second, {peak_rss_mib:.0} MiB of memory; a \
         newcomer found a holder after {:.2} s",
        run.look_up.lookup_seconds
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
    /// The seeds, the leechers, and the guide.
    nodes: Vec<Node>,
    newcomer: Node,
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
        let mut rates = rates(swarm);
        rates.extend([Rates { up: swarm.leech_up, down: swarm.down }; 2]);
        let topology = match options.loopback {
            true => Topology::loopback(rates.len()),
            false => Topology::shaped(&rates, !options.no_offload),
        }?;
        let seeds = (1..=options.seeds).map(|number| format!("seed{number}"));
        let leechers = (1..=options.leechers).map(|number| format!("leecher{number}"));
        let names = seeds.chain(leechers).chain([GUIDE, NEWCOMER].map(str::to_owned));
        let mut places: Vec<Place> =
            names.map(|name| Place::new(name, Role::Seed)).collect::<Result<_, _>>()?;
        places.iter_mut().for_each(|place| place.shares_files = place.name != GUIDE);
        let addresses = addresses(&places, &topology.hosts)?;
        let knows = |place: &Place, other: &Place| match &*place.name {
            NEWCOMER => other.name == GUIDE,
            name => other.name != name && other.name != NEWCOMER,
        };
        let mut nodes = Vec::new();
        for (index, (place, host)) in places.iter().zip(&topology.hosts).enumerate() {
            let others = places.iter().zip(&addresses).filter(|(other, _)| knows(place, other));
            let peers = others.map(|(_, address)| address.clone()).collect();
            let home = place.furnish(folder, host, peers, chain)?;
            nodes.push(Node::new(place, index, home));
            stop::check()?;
        }
        let (height, newcomer) = (chain.facts.height, nodes.pop().context("the last one")?);
        Ok(Self { options, swarm, payload, programs, height, nodes, newcomer, topology })
    }

    fn run(mut self) -> anyhow::Result<Run> {
        let (programs, hosts) = (self.programs, &self.topology.hosts);
        for node in &mut self.nodes {
            node.watch(programs, &hosts[node.host])?;
            node.start(programs, &hosts[node.host], &self.options.common.node_log)?;
        }
        await_links(&mut self.nodes, self.height)?;
        let seeds = usize::from(self.options.seeds);
        let mut link = String::new();
        for index in 0..seeds {
            let file = self.payload.file.to_string_lossy();
            let shared = self.nodes[index].answer(programs, &["share", "--json", &file])?;
            link = shared["link"].as_str().context("`share` prints a link")?.to_owned();
        }
        let sent = |session: &Self| session.topology.sent_by(0..seeds);
        let before = sent(&self)?;
        self.nodes.iter_mut().for_each(Node::observe);
        let cpu_before = self.cpu_seconds();
        let deadline = Instant::now() + patience(self.swarm, self.payload.bytes);
        let mut fetches = Vec::new();
        let leechers = seeds..seeds + usize::from(self.options.leechers);
        for index in leechers {
            let log = self.nodes[index].home.join("get.log");
            let mut command = self.nodes[index].command(programs, &["get", &link, "--json"]);
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
        let cpu = self.cpu_seconds() - cpu_before;
        let look_up = self.look_up(&link)?;
        self.judge(&answers, copies, cpu, look_up)
    }

    /// How long a look-up in the index takes once it knows a holder, and how long a newcomer then
    /// takes to find one.
    fn look_up(&mut self, link: &str) -> anyhow::Result<LookUp> {
        let start = Instant::now();
        let wait = |start: Instant| match start.elapsed() < PATIENCE {
            true => stop::pause(TICK),
            false => bail!("no holder of the file was found"),
        };
        let guide = self.nodes.last().context("the guide is the last one")?;
        let find = ["find", "--file", link.trim_start_matches("cairn:"), "--json"];
        let index_seconds = loop {
            let found = guide.answer(self.programs, &find)?;
            if !found["holders"].as_array().is_none_or(Vec::is_empty) {
                break found["ms"].as_f64().context("`find` tells its time")? / 1_000.0;
            }
            wait(start)?;
        };
        let (newcomer, host) = (&mut self.newcomer, &self.topology.hosts[self.nodes.len()]);
        newcomer.start(self.programs, host, &self.options.common.node_log)?;
        while !newcomer.has_files(self.programs) {
            newcomer.check()?;
            wait(start)?;
        }
        let mut get = newcomer.command(self.programs, &["get", link, "--json"]);
        let (start, log) = (Instant::now(), newcomer.home.join("get.log"));
        let _get = host.inside(|| Process::spawn(&mut get, &log))?;
        while call_operator(&newcomer.home, "files_list", json!({}))["result"][0]["bytes"].is_null()
        {
            newcomer.check()?;
            wait(start)?;
        }
        let lookup_seconds = start.elapsed().as_secs_f64();
        newcomer.kill();
        Ok(LookUp { lookup_seconds, index_seconds })
    }

    fn cpu_seconds(&self) -> f64 {
        self.nodes.iter().map(Node::cpu_seconds).sum()
    }

    /// Compares what the leechers have with what was shared.
    fn check_files(&self, link: &str) -> anyhow::Result<()> {
        let id = link.trim_start_matches("cairn:");
        let leechers = self.nodes.iter().skip(self.options.seeds.into());
        for node in leechers.take(self.options.leechers.into()) {
            let status = Command::new("cmp")
                .arg(&self.payload.file)
                .arg(node.home.join("files").join(id))
                .status()
                .context("`cmp` does not run")?;
            ensure!(status.success(), "{} has other bytes than the shared file", node.name);
        }
        Ok(())
    }

    fn judge(
        &self,
        answers: &[Value],
        sent: Option<u64>,
        cpu: f64,
        look_up: LookUp,
    ) -> anyhow::Result<Run> {
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
            look_up,
            seed_copies: sent.map(|sent| sent as f64 / bytes),
            mib_per_second: moved / seconds,
            mib_per_cpu_second: moved / cpu.max(0.01),
            peak_rss_mib: peak as f64 / 1_024.0,
            peers: (least as u64, most as u64),
        })
    }
}
