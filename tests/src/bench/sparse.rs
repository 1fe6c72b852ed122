//! What a sparse file of any length takes: one node shares it, and another one fetches its first
//! and its last GB, also while that node is killed again and again.
//!
//! Each end of the file has random bytes and holes in turn, so that both are hashed, sent and
//! stored. Between the ends is one hole.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde_json::Value;

use super::chain::{MadeChain, Recipe};
use super::folder::{folder, in_folder, take_turn};
use super::nodes::{Node, Place, Programs, Role, addresses, await_links};
use super::options;
use super::topology::Topology;
use super::{print_line, say, stop};
use crate::story::Process;

const TICK: Duration = Duration::from_millis(20);
/// How long the fetch may take, unless an option says so.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// Bytes of each end that is fetched. Of a file that is shorter than twice this, its halves.
const END_BYTES: u64 = 1_000_000_000;
/// Bytes of each run of random bytes, and of each hole between two of them. It is no multiple of a
/// chunk, so that some chunks have both.
const RUN_BYTES: u64 = 10_000_000;
const BLOCK_BYTES: usize = 1 << 20;

/// The result. Scripts read the names of the fields.
#[derive(Debug, Serialize)]
struct Report {
    /// Until `share` had printed the link.
    share_seconds: f64,
    /// From the first `get` until both ends were there, verified and on disk.
    seconds: f64,
    /// The most memory of any process of the node that shares, and of the one that fetches.
    peak_rss_mib: [f64; 2],
    /// Bytes of chunks that the holder read for the other node. Those that were on their way when
    /// it was killed count, whether they arrived or not.
    fetched_bytes: u64,
    /// Bytes of the whole segments that hold the two ends.
    wanted_bytes: u64,
    /// What was fetched beyond that, as a share of it.
    fetched_twice_share: f64,
    kills: u32,
    /// Length of the file.
    bytes: u64,
}

/// Runs the command `file --sparse`.
pub(super) fn execute(options: &options::File) -> anyhow::Result<()> {
    let programs = Programs::find(options.common.node.as_deref())?;
    let folder = folder(&programs.bench)?;
    in_folder(&folder, options.common.keep, |home| {
        let turn = take_turn(&folder)?;
        let chain = MadeChain::obtain(&folder, &Recipe::of_eras(1))?;
        let mut session = Session::new(options, &programs, &chain, home)?;
        drop(turn);
        let report = session.run()?;
        if options.common.json {
            return print_line(&report);
        }
        let Report { share_seconds, seconds, peak_rss_mib: [holder, other], kills, .. } = report;
        println!(
            "shared in {share_seconds:.1} s, fetched in {seconds:.1} s with {kills} kills, {:.2}% \
             of it twice; {holder:.0} and {other:.0} MiB of memory",
            report.fetched_twice_share * 100.0,
        );
        Ok(())
    })
}

/// The file that is shared.
struct Payload {
    path: PathBuf,
    bytes: u64,
    /// The first and the last byte of each end.
    ends: [(u64, u64); 2],
}

impl Payload {
    fn make(path: PathBuf, bytes: u64) -> anyhow::Result<Self> {
        let end = END_BYTES.min(bytes / 2);
        let ends = [(0, end - 1), (bytes - end, bytes - 1)];
        let file = File::create(&path)?;
        file.set_len(bytes)?;
        let mut random = ChaCha8Rng::seed_from_u64(bytes);
        let mut block = vec![0; BLOCK_BYTES];
        for (first, last) in ends {
            for start in (first..=last).step_by(2 * RUN_BYTES as usize) {
                for (offset, length) in blocks(start, (start + RUN_BYTES - 1).min(last)) {
                    random.fill_bytes(&mut block[..length]);
                    file.write_all_at(&block[..length], offset)?;
                }
            }
        }
        Ok(Self { path, bytes, ends })
    }

    /// Checks that a node's copy has the same ends, and takes no more of the disk than they do.
    fn check_copy(&self, copy: &Path) -> anyhow::Result<()> {
        let [ours, theirs] = [&self.path, &copy.to_owned()].map(File::open);
        let (ours, theirs) = (ours?, theirs?);
        let [mut here, mut there] = [(); 2].map(|()| vec![0; BLOCK_BYTES]);
        for (first, last) in self.ends {
            for (offset, length) in blocks(first, last) {
                ours.read_exact_at(&mut here[..length], offset)?;
                theirs.read_exact_at(&mut there[..length], offset)?;
                ensure!(here[..length] == there[..length], "another byte after {offset}");
            }
        }
        let metadata = theirs.metadata()?;
        ensure!(metadata.len() == self.bytes, "the copy has {} bytes", metadata.len());
        let (taken, limit) = (metadata.blocks() * 512, 2 * ours.metadata()?.blocks() * 512);
        ensure!(taken <= limit, "the copy takes {taken} bytes of the disk, more than {limit}");
        Ok(())
    }
}

/// The blocks of a range, with their offsets and lengths.
fn blocks(first: u64, last: u64) -> impl Iterator<Item = (u64, usize)> {
    let starts = (first..=last).step_by(BLOCK_BYTES);
    starts.map(move |start| (start, (last - start + 1).min(BLOCK_BYTES as u64) as usize))
}

/// Everything of the run. The fields are dropped in this order: processes before ports.
struct Session<'a> {
    options: &'a options::File,
    programs: &'a Programs,
    payload: Payload,
    height: u64,
    /// The holder, and the node that fetches.
    nodes: [Node; 2],
    topology: Topology,
}

impl<'a> Session<'a> {
    fn new(
        options: &'a options::File,
        programs: &'a Programs,
        chain: &MadeChain,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let bytes = options.sparse.context("a sparse file has a length")?;
        let payload = Payload::make(folder.join("payload"), bytes)?;
        let topology = Topology::loopback(2)?;
        let mut places = ["holder", "fetcher"].map(str::to_owned).into_iter();
        let mut place = || Place::new(places.next().context("two names")?, Role::Seed);
        let mut places = [place()?, place()?];
        places.iter_mut().for_each(|place| place.shares_files = true);
        let addresses = addresses(&places, &topology.hosts)?;
        let make = |index: usize| {
            let peers = vec![addresses[1 - index].clone()];
            let home = places[index].furnish(folder, &topology.hosts[index], peers, chain)?;
            Ok::<_, anyhow::Error>(Node::new(&places[index], index, home))
        };
        let nodes = [make(0)?, make(1)?];
        Ok(Self { options, programs, payload, height: chain.facts.height, nodes, topology })
    }

    fn run(&mut self) -> anyhow::Result<Report> {
        for index in 0..2 {
            self.nodes[index].watch(self.programs, &self.topology.hosts[index])?;
            self.start(index)?;
        }
        await_links(&mut self.nodes, self.height)?;
        let start = Instant::now();
        let file = self.payload.path.to_string_lossy();
        let shared = self.nodes[0].answer(self.programs, &["share", "--json", &file])?;
        let share_seconds = start.elapsed().as_secs_f64();
        say!("shared after {share_seconds:.1} s");
        let link = shared["link"].as_str().context("`share` prints a link")?.to_owned();
        let start = Instant::now();
        self.fetch(&link)?;
        let seconds = start.elapsed().as_secs_f64();
        self.nodes.iter_mut().for_each(Node::observe);
        let wanted_bytes = self.count(1, "have_bytes")?;
        let fetched_bytes = self.count(0, "served_bytes")?;
        let id = link.trim_start_matches("cairn:");
        self.payload.check_copy(&self.nodes[1].home.join("files").join(id))?;
        let twice = fetched_bytes.saturating_sub(wanted_bytes) as f64;
        Ok(Report {
            share_seconds,
            seconds,
            peak_rss_mib: [0, 1]
                .map(|index: usize| self.nodes[index].peak_rss_kib as f64 / 1_024.0),
            fetched_bytes,
            wanted_bytes,
            fetched_twice_share: twice / wanted_bytes.max(1) as f64,
            kills: self.nodes[1].kills,
            bytes: self.payload.bytes,
        })
    }

    fn start(&mut self, index: usize) -> anyhow::Result<()> {
        let log = &self.options.common.node_log;
        self.nodes[index].start(self.programs, &self.topology.hosts[index], log)
    }

    /// Fetches both ends. Kills the node and starts it again meanwhile, if that is wanted.
    fn fetch(&mut self, link: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.options.timeout.map_or(PATIENCE, Duration::from_secs);
        let life = self.options.kill_every.map(Duration::from_secs_f64);
        let mut before = 0;
        loop {
            let (started, mut get) = (Instant::now(), self.get(link)?);
            let status = loop {
                stop::pause(TICK)?;
                self.nodes.iter_mut().try_for_each(Node::check)?;
                ensure!(Instant::now() < deadline, "the fetch is not done in time");
                if let Some(status) = get.ended() {
                    break Some(status);
                }
                if life.is_some_and(|life| started.elapsed() >= life) {
                    let have = self.count(1, "have_bytes")?;
                    if have > std::mem::replace(&mut before, have) {
                        break None;
                    }
                }
            };
            if let Some(status) = status {
                let log = self.nodes[1].home.join("get.log");
                ensure!(status.success(), "`get` says {}", std::fs::read_to_string(log)?);
                return Ok(());
            }
            drop(get);
            self.nodes[1].kill();
            say!("killed with {before} bytes");
            self.start(1)?;
            while !self.nodes[1].has_files(self.programs) {
                stop::pause(TICK)?;
                self.nodes.iter_mut().try_for_each(Node::check)?;
            }
        }
    }

    /// Asks for both ends.
    fn get(&self, link: &str) -> anyhow::Result<Process> {
        let [first, last] = self.payload.ends.map(|(first, last)| format!("{first}-{last}"));
        let words = ["get", link, "--range", &first, "--range", &last, "--json"];
        let mut command = self.nodes[1].command(self.programs, &words);
        Ok(Process::spawn(&mut command, &self.nodes[1].home.join("get.log")))
    }

    /// A number that `files` says of the only file of a node.
    fn count(&self, index: usize, name: &str) -> anyhow::Result<u64> {
        let files: Value = self.nodes[index].answer(self.programs, &["files", "--json"])?;
        files[0][name].as_u64().with_context(|| format!("`files` tells no {name}"))
    }
}
