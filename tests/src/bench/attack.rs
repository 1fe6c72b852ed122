//! What attacks cost honest nodes. Four validators and a full node run on loopback. Transfers are
//! submitted to the last validator and awaited there, for ten quiet seconds and then during an
//! attack.
//!
//! The figures of the nodes come from their RPC and from the operating system. Log lines are for
//! people. The attackers are one process that runs only while the nodes leave a processor idle, so
//! it slows them no more than a process on another machine would.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use ledger::genesis::Genesis;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::chain::{MadeChain, Recipe, SENDERS, sender_key};
use super::folder::{folder, in_folder, take_turn};
use super::nodes::{Node, Place, Programs, Role, addresses};
use super::options::{self, Attacker};
use super::pay::{Paid, Payers};
use super::topology::Topology;
use super::{Unfit, print_line, say, stop};
use crate::hostile::{ATTACKS, Attack, Field, Target};
use crate::story::{Rpc, now_ms};

const VALIDATORS: u16 = 4;
/// Transfers submitted per second.
const RATE: u32 = 100;
/// Quiet time before each attack.
const QUIET: Duration = Duration::from_secs(10);
/// How long transfers may take after the end of the attack.
const AFTER: Duration = Duration::from_secs(10);
/// Time from the first final transfer to the first transfer that counts.
const SETTLE: Duration = Duration::from_secs(2);
/// Transfers that take longer than this, in milliseconds, are reported on stderr.
const SLOW_MS: f64 = 1_000.0;
/// If the 99th percentile before the attack is above this, in milliseconds, stderr says that the
/// run measures this machine more than the attack. On two cores that keep up it is 70 to 110 ms.
const QUIET_P99_MS_MAX: f64 = 200.0;
const TICK: Duration = Duration::from_millis(50);
/// How long to wait for the nodes to answer, for a first final transfer, and for the attackers to
/// end.
const PATIENCE: Duration = Duration::from_secs(120);
/// Size of the chain, in MiB. At [`SYNC_RATE`] a full node needs 64 s for it, which is longer than
/// an attack of the default length.
const MIB: u32 = 64;
/// The full node's download limit in attacks on sync, in bytes a second.
const SYNC_RATE: u64 = 1 << 20;

/// The result of one run. Scripts read the names of its fields.
#[derive(Clone, Debug, Serialize)]
struct Run {
    attack: &'static str,
    /// The intended rate of the attack, in its own unit, and the rate that the attack reached.
    rate: f64,
    reached: f64,
    quiet_p99_ms: f64,
    attacked_p99_ms: f64,
    attacked_max_ms: f64,
    /// Transfers that were not final ten seconds after the end of the attack.
    not_final: u64,
    /// The largest peak memory of the five nodes.
    peak_rss_mib: f64,
    /// Bytes per second between honest nodes: the rate under attack, divided by the rate before.
    bytes_ratio: f64,
    attackers_banned: u64,
    honest_banned: u64,
}

/// The last line of the attackers' stdout.
#[derive(Debug, Serialize, Deserialize)]
struct Reached {
    reached: f64,
}

/// Runs the command `attack`.
pub(super) fn execute(options: &options::Attack) -> anyhow::Result<()> {
    if options.name == "list" {
        for attack in ATTACKS {
            println!("{:21} {}", attack.name, attack.does);
        }
        return Ok(());
    }
    let attack = Attack::find(&options.name);
    let attack = attack.with_context(|| {
        format!("no attack is named {:?}: `attack list` names all", options.name)
    })?;
    if Command::new("chrt").arg("-V").stdout(Stdio::null()).status().is_err() {
        return Err(Unfit("`chrt` does not run, it is part of util-linux".to_owned()).into());
    }
    let programs = Programs::find(options.common.node.as_deref())?;
    let folder = folder(&programs.bench)?;
    let mut runs = Vec::new();
    for number in 1..=options.runs {
        let run = in_folder(&folder, options.common.keep, |home| {
            let turn = take_turn(&folder)?;
            let chain = MadeChain::obtain(&folder, &Recipe::to_go_on(VALIDATORS, MIB))?;
            let session = Session::new(attack, options, &chain, &programs, home)?;
            drop(turn);
            session.run()
        })?;
        let Run { reached, quiet_p99_ms, attacked_max_ms, not_final, peak_rss_mib, .. } = run;
        say!(
            "run {number}: reached {reached:.0}, at most {attacked_max_ms:.0} ms, {not_final} not \
             final, {peak_rss_mib:.0} MiB"
        );
        if quiet_p99_ms > QUIET_P99_MS_MAX {
            say!(
                "run {number}: already before the attack the 99th percentile was {quiet_p99_ms:.0} \
                 ms, expected at most {QUIET_P99_MS_MAX} ms: this run measures the machine more \
                 than the attack"
            );
        }
        runs.push(run);
    }
    runs.sort_by(|a, b| a.attacked_max_ms.total_cmp(&b.attacked_max_ms));
    let median = &runs[runs.len() / 2];
    if options.common.json {
        return print_line(median);
    }
    println!("{}", serde_json::to_string_pretty(median)?);
    Ok(())
}

/// Runs the attackers, in a process of their own.
pub(super) fn attack(options: &Attacker) -> anyhow::Result<()> {
    let attack = Attack::find(&options.name).context("no attack has this name")?;
    let field = Field {
        genesis: Genesis::from_json(&std::fs::read(&options.genesis)?)?,
        targets: options.targets.clone(),
        home: options.home.clone(),
        key: Some(sender_key(SENDERS)),
        file: None,
        crowd: options.crowd(),
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let reached = runtime.block_on(attack.run(&field, Duration::from_secs(options.seconds)))?;
    print_line(&Reached { reached })?;
    // Tasks of the attack may still run. They are not waited for.
    runtime.shutdown_background();
    Ok(())
}

/// The state of one run. The fields are dropped in this order: processes before the ports that are
/// reserved for them.
struct Session<'a> {
    attack: Attack,
    options: &'a options::Attack,
    chain: &'a MadeChain,
    programs: &'a Programs,
    /// Validators first.
    nodes: Vec<Node>,
    topology: Topology,
    /// A home with the chain, for attackers that show history.
    attacker_home: PathBuf,
}

impl<'a> Session<'a> {
    fn new(
        attack: Attack,
        options: &'a options::Attack,
        chain: &'a MadeChain,
        programs: &'a Programs,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let topology = Topology::loopback(usize::from(VALIDATORS) + 2)?;
        let validators = (0..VALIDATORS)
            .map(|number| (format!("validator{}", number + 1), Role::Validator(number)));
        let full = if attack.is_at_sync { Role::Leecher } else { Role::Seed };
        let others = [("full".to_owned(), full), ("attacker".to_owned(), Role::Seed)];
        let mut places: Vec<Place> = validators
            .chain(others)
            .map(|(name, role)| Place::new(name, role))
            .collect::<Result<_, _>>()?;
        let full_node = usize::from(VALIDATORS);
        if attack.is_at_sync {
            places[full_node].download_rate = Some(SYNC_RATE);
        }
        let addresses = addresses(&places, &topology.hosts)?;
        let mut nodes = Vec::new();
        for (index, (place, host)) in places.iter().zip(&topology.hosts).enumerate() {
            // No node names the attackers.
            let peers = addresses
                .iter()
                .take(full_node + 1)
                .enumerate()
                .filter(|(other, _)| *other != index);
            let home = place.furnish(
                folder,
                host,
                peers.map(|(_, address)| address.clone()).collect(),
                chain,
            )?;
            nodes.push(Node::new(place, index, home));
            stop::check()?;
        }
        let attacker_home = nodes.pop().context("the attackers have a home")?.home;
        Ok(Self { attack, options, chain, programs, nodes, topology, attacker_home })
    }

    fn run(mut self) -> anyhow::Result<Run> {
        let hosts = &self.topology.hosts;
        for node in &mut self.nodes {
            node.start(self.programs, &hosts[node.host], &self.options.common.node_log)?;
        }
        self.await_nodes()?;
        let chain = self.chain.genesis.chain_id();
        let last = usize::from(VALIDATORS) - 1;
        let mut payers =
            Payers::start(&self.programs.bench, &self.topology.hosts[last], chain, RATE)?;
        let start = Instant::now();
        while payers.next().is_none() {
            self.look(&mut payers)?;
            ensure!(start.elapsed() < PATIENCE, "no transfer is final after {PATIENCE:?}");
        }
        self.wait(SETTLE, &mut payers)?;

        let quiet = self.window(&mut payers, QUIET)?;
        let mut attackers = self.start_attackers()?;
        let attacked = self.window(&mut payers, Duration::from_secs(self.options.seconds))?;
        let reached = self.await_attackers(&mut attackers)?;
        let after = Instant::now();
        while after.elapsed() < AFTER {
            // Payers may give up when transfers do not become final. That is a result here, not an
            // error.
            stop::pause(TICK)?;
            self.nodes.iter_mut().try_for_each(Node::check)?;
        }
        let paid = payers.stop();
        self.nodes.iter_mut().for_each(Node::observe);
        let (attackers_banned, honest_banned) = self.bans();
        let (times, late) = (quiet.times(&paid), attacked.times(&paid));
        attacked.tell_slow(&paid);
        ensure!(
            !times.is_empty(),
            "no transfer that was due in the quiet time is final: \
             this machine or build does not reach {RATE} transfers a second"
        );
        let due = (attacked.end - attacked.start) * u64::from(RATE) / 1_000;
        let not_final = due.saturating_sub(late.len() as u64);
        let run = Run {
            attack: self.attack.name,
            rate: self.attack.rate,
            reached,
            quiet_p99_ms: rank(&times, 99),
            attacked_p99_ms: rank(&late, 99),
            attacked_max_ms: rank(&late, 100),
            // A transfer that is due at the edge of the window may count outside of it. So a single
            // missing transfer is ignored.
            not_final: if not_final <= 1 { 0 } else { not_final },
            peak_rss_mib: self.nodes.iter().map(|node| node.peak_rss_kib).max().unwrap_or(0) as f64
                / 1_024.0,
            bytes_ratio: attacked.bytes_a_second() / quiet.bytes_a_second(),
            attackers_banned,
            honest_banned,
        };
        ensure!(
            reached * 2.0 >= self.attack.rate,
            "no attack: it reached {reached:.1}, expected at least half of {:.0}",
            self.attack.rate
        );
        Ok(run)
    }

    fn await_nodes(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        for index in 0..self.nodes.len() {
            while self.rpc(index).status().is_err() {
                stop::pause(TICK)?;
                self.nodes.iter_mut().try_for_each(Node::check)?;
                ensure!(
                    start.elapsed() < PATIENCE,
                    "{} does not answer after {PATIENCE:?}",
                    self.nodes[index].name
                );
            }
        }
        Ok(())
    }

    fn look(&mut self, payers: &mut Payers) -> anyhow::Result<()> {
        stop::pause(TICK)?;
        payers.check()?;
        self.nodes.iter_mut().try_for_each(Node::check)
    }

    fn wait(&mut self, time: Duration, payers: &mut Payers) -> anyhow::Result<()> {
        let start = Instant::now();
        while start.elapsed() < time {
            self.look(payers)?;
        }
        Ok(())
    }

    /// Waits for this time, and measures the bytes that the nodes send to each other during it.
    fn window(&mut self, payers: &mut Payers, time: Duration) -> anyhow::Result<Window> {
        let (before, start, clock) = (self.bytes_sent(), now_ms(), Instant::now());
        self.wait(time, payers)?;
        let bytes = self.bytes_sent().saturating_sub(before);
        Ok(Window { start, end: now_ms(), bytes, seconds: clock.elapsed().as_secs_f64() })
    }

    /// Encrypted bytes that honest nodes have sent to each other over connections that are open
    /// now.
    fn bytes_sent(&self) -> u64 {
        let honest = |id: &Value| self.nodes.iter().any(|node| *id == node.id);
        let peers = (0..self.nodes.len()).filter_map(|node| self.ask(node, "net_peers"));
        let lists: Vec<Vec<Value>> = peers.filter_map(|peers| peers.as_array().cloned()).collect();
        let sent = lists
            .iter()
            .flatten()
            .filter(|peer| honest(&peer["id"]))
            .map(|peer| &peer["sent_bytes"]);
        sent.filter_map(|bytes| bytes.as_str()?.parse::<u64>().ok()).sum()
    }

    /// Numbers of bans of attackers and of honest nodes, as the nodes report them.
    fn bans(&self) -> (u64, u64) {
        let lists: Vec<Value> =
            (0..self.nodes.len()).filter_map(|node| self.ask(node, "net_bans")).collect();
        let bans: Vec<&Value> = lists.iter().filter_map(Value::as_array).flatten().collect();
        let honest =
            bans.iter().filter(|ban| self.nodes.iter().any(|node| ban["peer"] == node.id)).count();
        ((bans.len() - honest) as u64, honest as u64)
    }

    fn rpc(&self, node: usize) -> Rpc {
        Rpc::new(&format!("http://{}", self.topology.hosts[self.nodes[node].host].rpc))
    }

    fn ask(&self, node: usize, method: &str) -> Option<Value> {
        let name = &self.nodes[node].name;
        let answer = self.rpc(node).call::<Value>(method, &json!({}));
        answer.inspect_err(|failure| say!("{name} does not answer {method}: {failure:?}")).ok()
    }

    fn start_attackers(&self) -> anyhow::Result<Child> {
        let mut command = Command::new("chrt");
        command.args(["--idle", "0"]).arg(&self.programs.bench).args([
            "attacker",
            self.attack.name,
            "--genesis",
        ]);
        command.arg(self.attacker_home.join("genesis.json")).arg("--home").arg(&self.attacker_home);
        command.args(["--seconds", &self.options.seconds.to_string()]);
        // Transfers go to the last validator, the attack to all other nodes.
        let last = usize::from(VALIDATORS) - 1;
        for (index, node) in self.nodes.iter().enumerate().filter(|(index, _)| *index != last) {
            let host = &self.topology.hosts[self.nodes[index].host];
            let target = Target { p2p: host.address, peer: node.id.clone(), rpc: host.rpc.into() };
            command.args(["--target", &target.to_string()]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("the attackers do not start")
    }

    fn await_attackers(&mut self, attackers: &mut Child) -> anyhow::Result<f64> {
        let start = Instant::now();
        while attackers.try_wait()?.is_none() {
            stop::pause(TICK)?;
            self.nodes.iter_mut().try_for_each(Node::check)?;
            if start.elapsed() > PATIENCE {
                let _ = attackers.kill();
                bail!("the attackers do not end");
            }
        }
        let text = std::io::read_to_string(attackers.stdout.take().context("stdout is a pipe")?)?;
        let line = text.lines().last().context("the attackers have failed, see above")?;
        Ok(serde_json::from_str::<Reached>(line)?.reached)
    }
}

/// A stretch of time that is measured.
struct Window {
    /// Milliseconds since 1970.
    start: u64,
    end: u64,
    bytes: u64,
    seconds: f64,
}

impl Window {
    /// How long the transfers took that were due in this window, in milliseconds, sorted.
    fn times(&self, paid: &[Paid]) -> Vec<f64> {
        let due = paid.iter().filter(|one| (self.start..self.end).contains(&one.at));
        let mut times: Vec<f64> = due.map(|one| one.took).collect();
        times.sort_by(f64::total_cmp);
        times
    }

    /// Says on stderr how many transfers of this window took longer than [`SLOW_MS`], and when the
    /// first of them was due.
    fn tell_slow(&self, paid: &[Paid]) {
        let is_slow = |one: &&Paid| (self.start..self.end).contains(&one.at) && one.took > SLOW_MS;
        let slow: Vec<&Paid> = paid.iter().filter(is_slow).collect();
        if let Some(first) = slow.iter().min_by_key(|one| one.at) {
            let at = (first.at - self.start) as f64 / 1_000.0;
            say!(
                "{} transfers took longer than {SLOW_MS:.0} ms; the first, due {at:.1} s into the \
                 attack, took {:.0} ms",
                slow.len(),
                first.took
            );
        }
    }

    fn bytes_a_second(&self) -> f64 {
        self.bytes as f64 / self.seconds
    }
}

/// The given percentile of sorted values; 0 if there are none.
fn rank(sorted: &[f64], percent: usize) -> f64 {
    (sorted.len() * percent)
        .div_ceil(100)
        .checked_sub(1)
        .and_then(|place| sorted.get(place))
        .copied()
        .unwrap_or(0.0)
}
