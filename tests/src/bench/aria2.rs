//! Sends the same bytes over the same links with aria2, a BitTorrent client, for comparison.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, bail};

use super::links::{bound_of, patience, rates};
use super::measure::{OtherRun, PerNode};
use super::nodes::Programs;
use super::options::Swarm;
use super::topology::{HUB, Topology};
use super::torrent::torrent;
use super::{Unfit, say, stop};
use crate::story::{Process, now_ms};

const TICK: Duration = Duration::from_millis(100);
const TRACKER_PORT: u16 = 6_969;
const NAME: &str = "payload";
/// File that the hook creates when a download is complete.
const DONE: &str = "done";
/// Longest time until the tracker listens, and then until the seeds have announced themselves to
/// it.
const SEEDS_READY: Duration = Duration::from_secs(30);

/// Options of each client. Upload limits and queues stay at their defaults. Files are neither
/// preallocated nor checked again. Peers are found only through the tracker, which knows all of
/// them.
const OPTIONS: &str = "--seed-ratio=0.0 --file-allocation=none --check-integrity=false \
                       --enable-dht=false --enable-dht6=false --bt-enable-lpd=false \
                       --disable-ipv6=true --allow-overwrite=true --auto-file-renaming=false \
                       --bt-max-peers=0 --summary-interval=0 --console-log-level=notice \
                       --follow-torrent=true --no-conf=true";

/// Checks that aria2 can run.
pub(super) fn check() -> anyhow::Result<()> {
    let version = Command::new("aria2c")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if version.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(Unfit("`aria2c` does not run: it is in Debian's package aria2".to_owned()).into())
}

/// The file that is sent.
pub(super) struct Payload {
    pub(super) file: PathBuf,
    pub(super) bytes: u64,
    /// Bytes of a piece.
    pub(super) piece_bytes: usize,
}

struct Client {
    name: String,
    folder: PathBuf,
    process: Process,
    started: u64,
    peak_rss_kib: u64,
}

impl Client {
    /// When its download was complete, in milliseconds since 1970.
    fn done(&self) -> Option<u64> {
        let time =
            fs::metadata(self.folder.join(DONE)).and_then(|metadata| metadata.modified()).ok()?;
        u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
    }
}

/// Runs aria2 once, on links of its own.
pub(super) fn run(
    options: &Swarm,
    payload: &Payload,
    programs: &Programs,
    folder: &Path,
) -> anyhow::Result<OtherRun> {
    let topology = Topology::shaped(&rates(options), !options.no_offload)?;
    let mut tracker = Command::new(&programs.bench);
    tracker.args(["tracker", "--listen", &format!("{HUB}:{TRACKER_PORT}")]);
    for host in &topology.hosts {
        tracker.args(["--peer", &host.address.to_string()]);
    }
    let announces = folder.join("tracker.log");
    let tracker = topology.inside_hub(|| Process::spawn(&mut tracker, &announces))?;
    await_lines(&announces, 1, "the tracker does not listen")?;

    let offer = Offer::new(options, payload, folder)?;
    let start = |index| offer.start(&topology, index);
    let seeds = offer.seeds;
    let mut seeding = (0..seeds).map(start).collect::<Result<Vec<_>, _>>()?;
    await_lines(&announces, 1 + seeds, "the seeds do not announce themselves")?;
    let sent = || topology.sent_by(0..seeds);
    let before = sent()?;
    let began = now_ms();
    let mut clients = (seeds..topology.hosts.len()).map(start).collect::<Result<Vec<_>, _>>()?;
    let deadline = Instant::now() + patience(options, payload.bytes);
    await_all(&mut seeding, &mut clients, deadline)?;
    let bytes = payload.bytes;
    let copies =
        sent()?.zip(before).map_or(0.0, |(now, before)| (now - before) as f64 / bytes as f64);
    let per_node: Vec<PerNode> = clients.iter().map(result).collect();
    drop((seeding, clients, tracker));
    let last =
        per_node.iter().map(|node| node.verified_at_ms).max().context("there are leechers")?;
    let seconds = last.saturating_sub(began) as f64 / 1_000.0;
    Ok(OtherRun {
        seconds,
        ratio: bound_of(options, bytes, &[]).map(|bound| seconds / bound),
        seed_copies: copies,
        peak_rss_mib: per_node.iter().map(|node| node.peak_rss_mib).fold(0.0, f64::max),
        per_node,
    })
}

/// What all clients share: the payload, the torrent and the hook.
struct Offer<'a> {
    folder: &'a Path,
    payload: &'a Path,
    torrent: PathBuf,
    /// Program that a client runs when its download is complete. It creates [`DONE`].
    hook: PathBuf,
    /// Number of seeds. The first clients are the seeds.
    seeds: usize,
}

impl<'a> Offer<'a> {
    fn new(options: &Swarm, payload: &'a Payload, folder: &'a Path) -> anyhow::Result<Self> {
        let Payload { file: payload, piece_bytes, .. } = payload;
        let tracker = format!("http://{HUB}:{TRACKER_PORT}/announce");
        let file = folder.join("payload.torrent");
        fs::write(&file, torrent(payload, NAME, *piece_bytes, &tracker)?)?;
        let hook = folder.join("hook");
        fs::write(&hook, format!("#!/bin/sh\n: > \"${{3%/*}}/{DONE}\"\n"))?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
        Ok(Self { folder, payload, torrent: file, hook, seeds: usize::from(options.seeds) })
    }

    /// Starts a client on the host of this number.
    fn start(&self, topology: &Topology, index: usize) -> anyhow::Result<Client> {
        let is_seed = index < self.seeds;
        let name = if is_seed {
            format!("seed{}", index + 1)
        } else {
            format!("leecher{}", index - self.seeds + 1)
        };
        let home = self.folder.join(&name);
        fs::create_dir(&home)?;
        let host = &topology.hosts[index];
        let mut command = Command::new("aria2c");
        command
            .args(OPTIONS.split_whitespace())
            .arg(format!("--listen-port={}", host.address.port()));
        command.arg(format!("--dir={}", home.display()));
        if is_seed {
            fs::copy(self.payload, home.join(NAME))?;
            command.arg("--bt-seed-unverified=true");
        } else {
            command.arg(format!("--on-bt-download-complete={}", self.hook.display()));
        }
        let (started, log) = (now_ms(), home.join("log"));
        let process = host.inside(|| Process::spawn(command.arg(&self.torrent), &log))?;
        Ok(Client { name, folder: home, process, started, peak_rss_kib: 0 })
    }
}

/// Waits until all clients have the payload, and notes how much memory each took.
fn await_all(
    seeding: &mut [Client],
    clients: &mut [Client],
    deadline: Instant,
) -> anyhow::Result<()> {
    while !clients.iter().all(|client| client.done().is_some()) {
        stop::pause(TICK)?;
        for client in seeding.iter_mut().chain(&mut *clients) {
            if let Some(status) = client.process.ended() {
                bail!("{} of aria2 has ended with {status}", client.name);
            }
            client.peak_rss_kib =
                client.peak_rss_kib.max(super::nodes::peak_rss_kib(client.process.id()));
        }
        if Instant::now() > deadline {
            let done = clients.iter().filter(|client| client.done().is_some()).count();
            say!("{done} of {} are done", clients.len());
            bail!("aria2 is not done in time");
        }
    }
    Ok(())
}

fn result(client: &Client) -> PerNode {
    let done = client.done().unwrap_or(client.started);
    PerNode {
        name: client.name.clone(),
        started_at_ms: client.started,
        verified_at_ms: done,
        applied_at_ms: done,
        seconds: done.saturating_sub(client.started) as f64 / 1_000.0,
        peak_rss_mib: client.peak_rss_kib as f64 / 1_024.0,
        ..PerNode::default()
    }
}

/// Waits until a log has this many lines.
fn await_lines(log: &Path, count: usize, failure: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    while fs::read_to_string(log).map_or(0, |text| text.lines().count()) < count {
        stop::pause(TICK)?;
        if start.elapsed() > SEEDS_READY {
            bail!("{failure}");
        }
    }
    Ok(())
}
