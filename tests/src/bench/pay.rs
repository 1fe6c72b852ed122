//! Pays through one node, from within its namespace, and reports how long each transfer took to be
//! final there. A process of its own pays, and prints a line for each transfer.

use std::io::{BufRead, BufReader, Write, stdin};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use ledger::hash::ChainId;
use serde::{Deserialize, Serialize};

use super::chain::{SENDERS, sender_key};
use super::options;
use super::topology::Host;
use crate::story::{Payer, Rpc, now_ms};

/// Longest time that a transfer may take.
const WAIT: Duration = Duration::from_secs(60);

/// A transfer that is final.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Paid {
    /// When it was due, milliseconds since 1970.
    pub(super) at: u64,
    /// Milliseconds from then until the node reported it final.
    pub(super) took: f64,
}

/// Runs the inner process: it pays until its stdin ends. Each account waits until its transfer is
/// final before it sends the next one. If that delays a transfer, its time still counts from when
/// it was due. The process ends at once when a transfer fails.
pub(super) fn execute(options: &options::Pay) -> anyhow::Result<()> {
    let (start, start_ms) = (Instant::now(), now_ms());
    let pay = |number: u64, over: &Receiver<()>| -> anyhow::Result<()> {
        let rpc = Rpc::new(&options.rpc);
        let to = sender_key((number + 1) % SENDERS).public();
        let mut payer = Payer::with_key(sender_key(number), to, options.chain);
        payer.catch_up(&rpc).map_err(|failure| anyhow!("{failure:?}"))?;
        // The accounts take turns.
        for turn in (number..).step_by(SENDERS as usize) {
            let due = Duration::from_secs_f64(turn as f64 / f64::from(options.rate));
            let early = due.saturating_sub(start.elapsed());
            // A late transfer is still paid: it was due before the end.
            if !early.is_zero() && over.recv_timeout(early) == Err(RecvTimeoutError::Disconnected) {
                break;
            }
            pay_once(&rpc, &mut payer)?;
            let took = start.elapsed().saturating_sub(due).as_secs_f64() * 1_000.0;
            let at = start_ms + u64::try_from(due.as_millis())?;
            let mut stdout = std::io::stdout().lock();
            writeln!(stdout, "{}", serde_json::to_string(&Paid { at, took })?)?;
            stdout.flush()?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let mut until = Vec::new();
        for number in 0..SENDERS {
            let (sender, over) = mpsc::channel();
            until.push(sender);
            scope.spawn(move || {
                if let Err(error) = pay(number, &over) {
                    eprintln!("error: {error:#}");
                    std::process::exit(1);
                }
            });
        }
        stdin().lines().for_each(drop);
        drop(until);
    });
    Ok(())
}

fn pay_once(rpc: &Rpc, payer: &mut Payer) -> anyhow::Result<()> {
    let transfer = payer.transfer("");
    let id =
        rpc.submit(&transfer).map_err(|failure| anyhow!("a transfer is refused: {failure:?}"))?;
    match rpc.is_final(&id, WAIT) {
        Ok(true) => Ok(()),
        other => bail!("a transfer is not final after {WAIT:?}: {other:?}"),
    }
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

    /// Kills the process at once. Returns the final transfers not fetched yet.
    pub(super) fn stop(mut self) -> Vec<Paid> {
        // An error means that the process is already gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let (_, nothing) = mpsc::channel();
        let paid = std::mem::replace(&mut self.paid, nothing);
        paid.iter().collect()
    }

    /// Stops the process. Returns the final transfers not fetched yet.
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
