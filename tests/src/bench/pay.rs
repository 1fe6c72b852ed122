//! Pays through one node, from within its namespace, and reports how long each transfer took to be
//! final there. A process of its own pays, and prints a line for each transfer.

use std::io::{BufRead, BufReader, Write, stdin};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use ledger::hash::ChainId;
use serde::{Deserialize, Serialize};

use super::chain::{SENDERS, sender_key};
use super::options;
use super::topology::Host;
use crate::story::{Payer, Rpc, now_ms};

/// How long the node is asked to wait until a transfer is final. A node waits at most 30 s.
const WAIT: Duration = Duration::from_secs(60);

/// A transfer that is final.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Paid {
    /// When it was due, milliseconds since 1970.
    pub(super) at: u64,
    /// Milliseconds from then until the node reported it final.
    pub(super) took: f64,
}

/// Runs the inner process: it pays until its stdin ends. Each transfer is submitted when it is due,
/// also while earlier ones are not final yet. Otherwise a slow network would get fewer transfers,
/// and the time that transfers wait here would count as the network's. The process ends at once
/// when a transfer fails.
pub(super) fn execute(options: &options::Pay) -> anyhow::Result<()> {
    let clock = Clock { start: Instant::now(), start_ms: now_ms() };
    thread::scope(|scope| {
        let mut until = Vec::new();
        for number in 0..SENDERS {
            let (sender, over) = mpsc::channel();
            until.push(sender);
            let (submitted, to_await) = mpsc::channel();
            scope.spawn(move || {
                or_exit(submit_when_due(options, clock, number, &over, &submitted));
            });
            scope.spawn(move || or_exit(await_each(options, clock, &to_await)));
        }
        stdin().lines().for_each(drop);
        drop(until);
    });
    Ok(())
}

/// The start of the inner process by both clocks. Times of transfers count from it.
#[derive(Clone, Copy)]
struct Clock {
    start: Instant,
    start_ms: u64,
}

/// A submitted transfer.
struct Submitted {
    id: String,
    /// When it was due, since the start.
    due: Duration,
}

fn or_exit(result: anyhow::Result<()>) {
    if let Err(error) = result {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
}

/// Submits the transfers of one account until `over` has lost its sender. The accounts take turns.
fn submit_when_due(
    options: &options::Pay,
    clock: Clock,
    number: u64,
    over: &Receiver<()>,
    submitted: &Sender<Submitted>,
) -> anyhow::Result<()> {
    let rpc = Rpc::new(&options.rpc);
    let to = sender_key((number + 1) % SENDERS).public();
    let mut payer = Payer::with_key(sender_key(number), to, options.chain);
    payer.catch_up(&rpc).map_err(|failure| anyhow!("{failure:?}"))?;
    for turn in (number..).step_by(SENDERS as usize) {
        let due = Duration::from_secs_f64(turn as f64 / f64::from(options.rate));
        let early = due.saturating_sub(clock.start.elapsed());
        // A late transfer is still paid: it was due before the end.
        if !early.is_zero() && over.recv_timeout(early) == Err(RecvTimeoutError::Disconnected) {
            break;
        }
        let id = rpc
            .submit(&payer.transfer(""))
            .map_err(|failure| anyhow!("a transfer is refused: {failure:?}"))?;
        submitted.send(Submitted { id, due })?;
    }
    Ok(())
}

/// Waits for the transfers of one account, and prints each once it is final. They become final in
/// the order of their nonces, so none waits here for another.
fn await_each(
    options: &options::Pay,
    clock: Clock,
    submitted: &Receiver<Submitted>,
) -> anyhow::Result<()> {
    let rpc = Rpc::new(&options.rpc);
    for Submitted { id, due } in submitted {
        match rpc.is_final(&id, WAIT) {
            Ok(true) => {}
            other => bail!("a transfer is not final after {WAIT:?}: {other:?}"),
        }
        let took = clock.start.elapsed().saturating_sub(due).as_secs_f64() * 1_000.0;
        let at = clock.start_ms + u64::try_from(due.as_millis())?;
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{}", serde_json::to_string(&Paid { at, took })?)?;
        stdout.flush()?;
    }
    Ok(())
}

/// The outer side: starts the inner process and keeps its output. When dropped, ends the process.
pub(super) struct Payers {
    process: Child,
    /// Held open while the process shall pay.
    stdin: Option<ChildStdin>,
    paid: Receiver<Paid>,
}

impl Payers {
    pub(super) fn start(
        program: &Path,
        host: &Host,
        chain: ChainId,
        rate: u32,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args([
            "pay",
            "--rpc",
            &format!("http://{}", host.rpc),
            "--chain",
            &chain.to_string(),
        ]);
        command.args(["--rate", &rate.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = host.inside(|| command.spawn())?.context("the payers do not start")?;
        let (stdin, stdout) =
            (process.stdin.take(), process.stdout.take().context("stdout is a pipe")?);
        let (sender, paid) = mpsc::channel();
        let payers = Self { process, stdin, paid };
        thread::Builder::new().name("paid".to_owned()).spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let paid = lines.filter_map(|line| serde_json::from_str(&line).ok());
            // An error means that the receiver of the channel is gone.
            let _ = { paid }.try_for_each(|one| sender.send(one));
        })?;
        Ok(payers)
    }

    /// Fails if the process has ended; its stderr says why.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        let status = self.process.try_wait()?;
        status.map_or(Ok(()), |status| bail!("the payers have ended with {status}"))
    }

    /// The next final transfer, if there is one yet.
    pub(super) fn next(&self) -> Option<Paid> {
        self.paid.try_recv().ok()
    }

    /// Kills the process at once. Returns the final transfers that [`Self::next`] has not returned.
    pub(super) fn stop(mut self) -> Vec<Paid> {
        // An error means that the process is already gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let (_, nothing) = mpsc::channel();
        let paid = std::mem::replace(&mut self.paid, nothing);
        paid.iter().collect()
    }

    /// Stops paying, and waits until the submitted transfers are final. Returns the final transfers
    /// that [`Self::next`] has not returned.
    pub(super) fn finish(mut self) -> anyhow::Result<Vec<Paid>> {
        self.stdin = None;
        let status = self.process.wait()?;
        ensure!(status.success(), "the payers have ended with {status}");
        Ok(self.paid.iter().collect())
    }
}

impl Drop for Payers {
    fn drop(&mut self) {
        // An error means that the process is already gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
