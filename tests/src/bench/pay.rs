//! Pays by way of one node, from within its namespace, and tells how long each transfer took to be final there: a process of this
//! program that prints a line for each.

use std::io::{BufRead, BufReader, Write, stdin};
use std::path::Path;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use ledger::hash::ChainId;
use serde::{Deserialize, Serialize};

use super::chain::{SENDERS, sender_key};
use super::options;
use super::topology::Host;
use crate::story::{Payer, Rpc, now_ms};

/// Longest that a transfer may take.
const WAIT: Duration = Duration::from_secs(60);

/// A transfer that is final.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Paid {
    /// When it was submitted, milliseconds since 1970.
    pub(super) at: u64,
    /// Milliseconds from then until the node said that it is final.
    pub(super) took: f64,
}

/// The process within: pays until its stdin ends. Each account waits for its transfer to be final before the next.
pub(super) fn execute(options: &options::Pay) -> anyhow::Result<()> {
    let every = Duration::from_secs(1) / options.rate;
    let start = Instant::now();
    let pay = |number: u64| {
        let rpc = Rpc::new(&options.rpc);
        let to = sender_key((number + 1) % SENDERS).public();
        let mut payer = Payer::with_key(sender_key(number), to, options.chain);
        payer.catch_up(&rpc).map_err(|failure| anyhow!("{failure:?}"))?;
        // The accounts take turns.
        let mut turn = u32::try_from(number)?;
        loop {
            let due = every.saturating_mul(turn);
            let late = start.elapsed();
            thread::sleep(due.saturating_sub(late));
            // Turns that passed while the last transfer was waited for are left out.
            while every.saturating_mul(turn) < late {
                turn += SENDERS as u32;
            }
            turn += SENDERS as u32;
            let paid = pay_once(&rpc, &mut payer)?;
            let mut stdout = std::io::stdout().lock();
            writeln!(stdout, "{}", serde_json::to_string(&paid)?)?;
            stdout.flush()?;
        }
    };
    thread::spawn(|| {
        stdin().lines().for_each(drop);
        std::process::exit(0);
    });
    thread::scope(|scope| {
        let payers: Vec<_> =
            (0..SENDERS).map(|number| scope.spawn(move || -> anyhow::Result<()> { pay(number) })).collect();
        payers.into_iter().try_for_each(|payer| payer.join().unwrap_or_else(|_| bail!("a payer panicked")))
    })
}

fn pay_once(rpc: &Rpc, payer: &mut Payer) -> anyhow::Result<Paid> {
    let transfer = payer.transfer("");
    let (at, start) = (now_ms(), Instant::now());
    let id = rpc.submit(&transfer).map_err(|failure| anyhow!("a transfer is refused: {failure:?}"))?;
    match rpc.is_final(&id, WAIT) {
        Ok(true) => Ok(Paid { at, took: start.elapsed().as_secs_f64() * 1_000.0 }),
        other => bail!("a transfer is not final after {WAIT:?}: {other:?}"),
    }
}

/// The other end: starts the process and keeps what it prints. Ended when dropped.
pub(super) struct Payers {
    process: Child,
    /// Open for as long as it shall pay.
    _stdin: Option<ChildStdin>,
    paid: Arc<Mutex<Vec<Paid>>>,
}

impl Payers {
    pub(super) fn start(program: &Path, host: &Host, chain: ChainId, rate: u32) -> anyhow::Result<Self> {
        let mut command = host.command(program);
        command.args(["pay", "--rpc", &format!("http://{}", host.rpc), "--chain", &chain.to_string()]);
        command.args(["--rate", &rate.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().context("no payers start")?;
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take().context("stdout is a pipe")?);
        let paid = Arc::new(Mutex::new(Vec::new()));
        let payers = Self { process, _stdin: stdin, paid: Arc::clone(&paid) };
        thread::Builder::new().name("paid".to_owned()).spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.filter_map(|line| serde_json::from_str(&line).ok()).for_each(|one| lock(&paid).push(one));
        })?;
        Ok(payers)
    }

    /// How the process ended, if it has: what went wrong is on stderr.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// All so far.
    pub(super) fn paid(&self) -> Vec<Paid> {
        lock(&self.paid).clone()
    }
}

impl Drop for Payers {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn lock(paid: &Mutex<Vec<Paid>>) -> MutexGuard<'_, Vec<Paid>> {
    paid.lock().unwrap_or_else(PoisonError::into_inner)
}
