//! Node processes on the hosts of a topology. Their homes are made as `init` makes them.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::ValueEnum;
use ledger::genesis::Genesis;
use node::config::{Config, P2pAddress, SyncMode};
use node::home::{Contents, Home};
use node::keys::Seed;
use serde_json::Value;

use super::chain::{MadeChain, validator_key};
use super::probe::Probe;
use super::topology::Host;
use super::{Unfit, say, stop};
use crate::hostile::chunks::Kind;
use crate::story::{Process, now_ms};

/// Largest number of nodes that counts as a small network, as in a local test network.
const SMALL_MAX: usize = 8;

/// Interval between two looks at the nodes.
const TICK: Duration = Duration::from_millis(20);
/// How long nodes may take until each is connected to all others.
const READY: Duration = Duration::from_secs(60);

/// The programs that the bench runs.
pub(super) struct Programs {
    /// This program.
    pub(super) bench: PathBuf,
    /// The measured node.
    pub(super) node: PathBuf,
}

impl Programs {
    /// Finds the given node, or the one beside this program. The latter is built if it is missing
    /// or older than this program, so that no stale node is measured.
    pub(super) fn find(node: Option<&Path>) -> anyhow::Result<Self> {
        let bench = env::current_exe().context("this program has no path")?;
        let node = match node {
            Some(node) if node.is_file() => std::path::absolute(node)?,
            Some(node) => return Err(Unfit(format!("there is no {}", node.display())).into()),
            None => {
                let beside = bench.with_file_name("cairn-node");
                if !is_newer(&beside, &bench) {
                    build(&bench)?;
                }
                beside
            }
        };
        Ok(Self { bench, node })
    }
}

fn is_newer(file: &Path, than: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    time(file).is_some_and(|time_of_file| time(than).is_some_and(|than| time_of_file >= than))
}

/// Builds the node with the cargo that built this program, in its profile and target directory.
fn build(bench: &Path) -> anyhow::Result<()> {
    let folder = bench.parent().context("cargo puts programs in a folder")?;
    let target = folder.parent().context("cargo puts programs two levels deep")?;
    let profile =
        folder.file_name().and_then(|name| name.to_str()).context("profiles have plain names")?;
    say!("building cairn-node");
    let mut command = Command::new(env!("CARGO"));
    // With the variables that cargo set for this program's package, build scripts would run again.
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_"]
            .iter()
            .any(|prefix| name_text.starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    command
        .args(["build", "--package", "cairn-node", "--bin", "cairn-node", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .args(["--profile", if profile == "debug" { "dev" } else { profile }, "--target-dir"])
        .arg(target)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    if !command.status().context("cargo does not start")?.success() {
        bail!("cairn-node does not build, see above");
    }
    Ok(())
}

/// The role of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Has the chain.
    Seed,
    /// Fetches the chain.
    Leecher,
    /// Fetches the chain, with a later start.
    Late,
    /// Claims to have the chain.
    Hostile(Kind),
    /// Has the chain and signs with the key of this number.
    Validator(u16),
    /// Fetches the chain, from no other peers than those it was given.
    Guest,
    /// Signs with the key of this number from the first block on, on a public network.
    Founder(u16),
    /// Follows the chain on a public network.
    Follower,
}

impl Role {
    /// Whether it starts with the chain.
    pub(super) const fn has_chain(self) -> bool {
        matches!(self, Self::Seed | Self::Hostile(_) | Self::Validator(_))
    }
}

/// A home on a host, before its process runs.
pub(super) struct Place {
    pub(super) name: String,
    pub(super) role: Role,
    /// Upload limit for history, bytes a second; `None` means unlimited.
    pub(super) upload_rate: Option<u64>,
    /// Download limit for history, bytes a second; `None` means unlimited.
    pub(super) download_rate: Option<u64>,
    /// Whether it shares and fetches files.
    pub(super) shares_files: bool,
    /// How it joins the chain, if it begins without blocks.
    pub(super) sync: SyncMode,
    key: Seed,
}

/// The P2P addresses of these nodes, each on the host at the same index.
pub(super) fn addresses(places: &[Place], hosts: &[Host]) -> anyhow::Result<Vec<P2pAddress>> {
    places.iter().zip(hosts).map(|(place, host)| place.address(host)).collect()
}

impl Place {
    pub(super) fn new(name: String, role: Role) -> anyhow::Result<Self> {
        let (upload_rate, download_rate, sync) = (None, None, SyncMode::Full);
        let (shares_files, key) = (false, Seed::random()?);
        Ok(Self { name, role, upload_rate, download_rate, shares_files, sync, key })
    }

    /// Its P2P address.
    pub(super) fn address(&self, host: &Host) -> anyhow::Result<P2pAddress> {
        let listen = P2pAddress::from(std::net::SocketAddr::from(host.address));
        Ok(format!("{listen}/p2p/{}", self.id()).parse()?)
    }

    /// Its peer id.
    pub(super) fn id(&self) -> String {
        self.key.identity().public().to_peer_id().to_string()
    }

    /// Makes the home, with the chain if the role has it.
    pub(super) fn furnish(
        &self,
        folder: &Path,
        host: &Host,
        peers: Vec<P2pAddress>,
        chain: &MadeChain,
    ) -> anyhow::Result<PathBuf> {
        let home = self.found(folder, host, peers, &chain.genesis)?;
        if self.role.has_chain() {
            chain.copy_to(&home)?;
        }
        Ok(home.root().to_owned())
    }

    /// Makes the home, with a chain that has no blocks yet.
    pub(super) fn found(
        &self,
        folder: &Path,
        host: &Host,
        peers: Vec<P2pAddress>,
        genesis: &Genesis,
    ) -> anyhow::Result<Home> {
        let is_public = matches!(self.role, Role::Founder(_) | Role::Follower);
        let mut config = Config::default();
        config.p2p.listen = std::net::SocketAddr::from(host.address).into();
        config.p2p.small = peers.len() < SMALL_MAX && !is_public;
        config.p2p.peers = peers;
        // Only a node of a private network believes private addresses that peers report. A guest's
        // network is not private, so it keeps to the peers it was given.
        config.p2p.private = self.role != Role::Guest && !is_public;
        config.rpc.listen = host.rpc.into();
        config.sync.mode = self.sync;
        config.sync.upload_rate = self.upload_rate;
        config.sync.download_rate = self.download_rate;
        config.files.enabled = self.shares_files;
        // A file may be as long as the disk allows.
        (config.files.quota, config.files.reserve) = (1 << 44, 0);
        let validator_key = match self.role {
            Role::Validator(number) | Role::Founder(number) => Some(validator_key(number)),
            _ => None,
        };
        let validator_key = validator_key.as_ref();
        let contents = Contents { genesis, config: &config, node_key: &self.key, validator_key };
        Ok(Home::create(&folder.join(&self.name), &contents)?)
    }
}

/// A node and everything observed of it.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) role: Role,
    /// Index of its host in the topology.
    pub(super) host: usize,
    pub(super) home: PathBuf,
    /// Its peer id.
    pub(super) id: String,
    pub(super) probe: Option<Probe>,
    /// Further options of `run`, by their names.
    pub(super) options: BTreeMap<&'static str, String>,
    process: Option<Process>,
    /// When it first started, milliseconds since 1970.
    pub(super) started: Option<u64>,
    /// When its process last started, milliseconds since 1970.
    pub(super) restarted: u64,
    /// When it had verified everything, and when it had applied everything, milliseconds since
    /// 1970. These are the times that the node reports, or else the times of the observation.
    pub(super) verified_at: Option<u64>,
    pub(super) applied_at: Option<u64>,
    pub(super) kills: u32,
    /// Chunk bytes that earlier processes of it fetched.
    pub(super) fetched_before: u64,
    /// Bytes that earlier processes of it sent to peers.
    pub(super) uploaded_before: u64,
    /// Peak memory of all its processes so far, in KiB.
    pub(super) peak_rss_kib: u64,
    /// Processor seconds of its earlier processes, and of the current one.
    cpu_before: f64,
    cpu: f64,
}

impl Node {
    pub(super) fn new(place: &Place, host: usize, home: PathBuf) -> Self {
        Self {
            name: place.name.clone(),
            role: place.role,
            host,
            home,
            id: place.id(),
            probe: None,
            options: BTreeMap::new(),
            process: None,
            started: None,
            restarted: 0,
            verified_at: None,
            applied_at: None,
            kills: 0,
            fetched_before: 0,
            uploaded_before: 0,
            peak_rss_kib: 0,
            cpu_before: 0.0,
            cpu: 0.0,
        }
    }

    /// Starts its probe. This is best done before the node starts, so that it takes no processor
    /// time from the node's first moments. Hostile nodes have no probe.
    pub(super) fn watch(&mut self, programs: &Programs, host: &Host) -> anyhow::Result<()> {
        if !matches!(self.role, Role::Hostile(_)) {
            self.probe = Some(Probe::start(&programs.bench, host)?);
        }
        Ok(())
    }

    /// Starts its process.
    pub(super) fn start(
        &mut self,
        programs: &Programs,
        host: &Host,
        log: &str,
    ) -> anyhow::Result<()> {
        if let Role::Hostile(kind) = self.role {
            let kind = kind.to_possible_value().context("each kind has a name")?;
            let mut command = Command::new(&programs.bench);
            command.args(["hostile", "--kind", kind.get_name(), "--home"]).arg(&self.home);
            self.process = Some(host.inside(|| Process::spawn(&mut command, &self.log()))?);
            return Ok(());
        }
        let mut command = Command::new(&programs.node);
        if self.role == Role::Guest {
            // The node runs only while a processor is idle, as if it had a machine of its own.
            command = Command::new("chrt");
            command.args(["--idle", "0"]).arg(&programs.node);
        }
        for (name, _) in
            env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CAIRN_"))
        {
            command.env_remove(name);
        }
        command.args(["run", "--exit-with-parent", "--log", log, "--home"]).arg(&self.home);
        if matches!(self.role, Role::Validator(_)) {
            // It starts with a chain, but without a log of what its key signed.
            command.arg("--sign-without-log");
        }
        for (name, value) in &self.options {
            command.arg(name).arg(value);
        }
        self.restarted = now_ms();
        self.started.get_or_insert(self.restarted);
        self.process = Some(host.inside(|| Process::spawn(&mut command, &self.log()))?);
        Ok(())
    }

    /// A command of the operator to it.
    pub(super) fn command(&self, programs: &Programs, words: &[&str]) -> Command {
        let mut command = Command::new(&programs.node);
        command.args(words).arg("--home").arg(&self.home);
        command
    }

    /// Runs a command of the operator, and returns the JSON on its last line.
    pub(super) fn answer(&self, programs: &Programs, words: &[&str]) -> anyhow::Result<Value> {
        let mut command = self.command(programs, words);
        let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output()?;
        let [text, error] =
            [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        if !output.status.success() {
            bail!("{words:?} has ended with {}: {}", output.status, error.trim());
        }
        Ok(serde_json::from_str(text.lines().last().unwrap_or_default())?)
    }

    /// Whether it has started and takes commands for files.
    pub(super) fn has_files(&self, programs: &Programs) -> bool {
        self.answer(programs, &["files", "--json"]).is_ok()
    }

    pub(super) const fn is_running(&self) -> bool {
        self.process.is_some()
    }

    fn log(&self) -> PathBuf {
        self.home.join("node.log")
    }

    /// Its log so far.
    pub(super) fn log_text(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Kills its process (SIGKILL), after recording how much it had fetched and sent.
    pub(super) fn kill(&mut self) {
        self.observe();
        let sample = self.probe.as_mut().and_then(Probe::now);
        // Dropping the process kills it and waits until it is gone.
        self.process = None;
        if let Some(sample) = sample.filter(|sample| sample.asked >= self.restarted) {
            self.fetched_before += sample.fetched_bytes;
            self.uploaded_before += sample.served_bytes;
        }
        self.cpu_before += std::mem::take(&mut self.cpu);
        self.kills += 1;
    }

    /// Fails if the node or its probe has ended.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.probe.as_mut().and_then(Probe::ended) {
            bail!("the probe of {} has ended with {status}", self.name);
        }
        let Some(status) = self.process.as_mut().and_then(Process::ended) else { return Ok(()) };
        let log = self.log_text();
        let lines: Vec<&str> = log.lines().collect();
        bail!(
            "{} has ended with {status}:\n{}",
            self.name,
            lines[lines.len().saturating_sub(20)..].join("\n")
        );
    }

    /// Reads memory and processor time. Once at the end of each process is enough, as both only
    /// grow.
    pub(super) fn observe(&mut self) {
        let Some(process) = &self.process else { return };
        self.peak_rss_kib = self.peak_rss_kib.max(peak_rss_kib(process.id()));
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap_or_default();
        // The fields are counted after the program's name, which may contain anything. Fields 14
        // and 15 of proc(5) are user and system time.
        let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').skip(11).take(2));
        let ticks: f64 =
            fields.into_iter().flatten().filter_map(|field| field.parse::<f64>().ok()).sum();
        self.cpu = self.cpu.max(ticks / rustix::param::clock_ticks_per_second() as f64);
    }

    /// Processor seconds of all its processes.
    pub(super) fn cpu_seconds(&self) -> f64 {
        self.cpu_before + self.cpu
    }
}

/// Waits until each node has a chain of this height and links to all others, and ends their probes.
pub(super) fn await_links(nodes: &mut [Node], height: u64) -> anyhow::Result<()> {
    let (start, others) = (Instant::now(), nodes.len() as u64 - 1);
    let is_ready = |node: &Node| {
        node.sample().is_some_and(|sample| sample.height >= height && sample.links >= others)
    };
    while !nodes.iter().all(is_ready) {
        stop::pause(TICK)?;
        nodes.iter_mut().try_for_each(Node::check)?;
        if start.elapsed() > READY {
            bail!("the nodes are not all connected");
        }
    }
    nodes.iter_mut().for_each(|node| node.probe = None);
    Ok(())
}

/// Peak memory of a process, in KiB; 0 if the process is gone.
pub(super) fn peak_rss_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    peak.unwrap_or(0)
}
