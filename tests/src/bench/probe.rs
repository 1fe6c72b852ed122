//! Polls a node from within its namespace, so that requests never cross the measured links. A
//! process of its own polls, and prints each answer as one line.

use std::io::{BufRead, BufReader, Write, stdin};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use super::options;
use super::topology::Host;
use crate::story::{Failure, Rpc, now_ms};

/// Timeout of an answer to an immediate request.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Runs the inner process: it polls until its stdin ends. A line on stdin makes it poll at once.
pub(super) fn execute(options: &options::Probe) -> anyhow::Result<()> {
    let rpc = Rpc::new(&options.rpc);
    let (sender, lines) = sync_channel(16);
    thread::spawn(move || {
        for line in stdin().lines() {
            if line.is_err() || sender.send(()).is_err() {
                break;
            }
        }
    });
    loop {
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{}", ask(&rpc))?;
        stdout.flush()?;
        drop(stdout);
        if lines.recv_timeout(Duration::from_millis(options.every))
            == Err(RecvTimeoutError::Disconnected)
        {
            return Ok(());
        }
    }
}

/// The node's sync status, or its chain status if it lacks that method; null when it does not
/// answer.
fn ask(rpc: &Rpc) -> Value {
    let asked = now_ms();
    let none = json!({});
    let (sync, chain) = match rpc.call::<Value>("sync_status", &none) {
        Ok(sync) => (sync, Value::Null),
        Err(Failure::Silent(_)) => (Value::Null, Value::Null),
        Err(_) => (Value::Null, rpc.call("chain_status", &none).unwrap_or(Value::Null)),
    };
    json!({"asked": asked, "answered": now_ms(), "sync": sync, "chain": chain})
}

/// A node's answer. Fetched, duplicate and served bytes, and bans, are counted from the start of
/// the node's process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    /// When the request was sent and when the answer came, milliseconds since 1970.
    pub(super) asked: u64,
    pub(super) answered: u64,
    /// Height of the last block it has applied.
    pub(super) height: u64,
    /// Whether it reports chunks. If not, the numbers below are 0 and the times are `None`.
    pub(super) tells: bool,
    /// Number of known segments.
    pub(super) segments_total: u64,
    /// Number of chunks of the segments to fetch, and how many of them are stored or applied. Both
    /// count chunks that an earlier run stored.
    pub(super) chunks_total: u64,
    pub(super) chunks_verified: u64,
    /// Bytes of the same chunks.
    pub(super) bytes_total: u64,
    pub(super) bytes_verified: u64,
    pub(super) fetched_bytes: u64,
    pub(super) duplicate_bytes: u64,
    pub(super) served_bytes: u64,
    pub(super) bans: u64,
    /// Number of peers with a link.
    pub(super) links: u64,
    /// By the node's clock: when the last chunk was verified and the last block applied.
    pub(super) verified_at: Option<u64>,
    pub(super) applied_at: Option<u64>,
}

impl Sample {
    /// Reads one line; `None` when the node did not answer.
    fn read(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let (sync, chain) = (&value["sync"], &value["chain"]);
        let height = number(&chain["height"]).or_else(|| number(&sync["applied_height"]))?;
        let count = |name: &str| number(&sync[name]).unwrap_or(0);
        Some(Self {
            asked: number(&value["asked"])?,
            answered: number(&value["answered"])?,
            height,
            tells: sync.is_object(),
            segments_total: count("segments_total"),
            chunks_total: count("chunks_total"),
            chunks_verified: count("chunks_verified"),
            bytes_total: count("bytes_total"),
            bytes_verified: count("bytes_verified"),
            fetched_bytes: count("fetched_bytes"),
            duplicate_bytes: count("duplicate_bytes"),
            served_bytes: count("served_bytes"),
            bans: count("bans"),
            links: sync["peers"].as_array().map_or(0, Vec::len) as u64,
            verified_at: number(&sync["verified_at_ms"]),
            applied_at: number(&sync["applied_at_ms"]),
        })
    }
}

/// A number in JSON, or a JSON string that holds one.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// The outer side: starts the inner process and keeps its output. When dropped, ends the process.
pub(super) struct Probe {
    process: Child,
    stdin: Option<ChildStdin>,
    samples: Arc<Mutex<Samples>>,
}

#[derive(Default)]
pub(super) struct Samples {
    pub(super) latest: Option<Sample>,
    /// Times and numbers of verified chunks, a row for each change: bounded by the number of
    /// chunks.
    pub(super) progress: Vec<(u64, u64)>,
}

impl Samples {
    fn push(&mut self, sample: Sample) {
        if self.progress.last().is_none_or(|(_, chunks)| *chunks != sample.chunks_verified) {
            self.progress.push((sample.answered, sample.chunks_verified));
        }
        self.latest = Some(sample);
    }
}

impl Probe {
    pub(super) fn start(program: &Path, host: &Host) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(["probe", "--rpc", &format!("http://{}", host.rpc)]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = host.inside(|| command.spawn())?.context("the probe does not start")?;
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        let samples = Arc::new(Mutex::new(Samples::default()));
        let kept = Arc::clone(&samples);
        let probe = Self { process, stdin, samples };
        let stdout = stdout.context("a probe has a stdout")?;
        // The thread ends with the process.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(sample) = Sample::read(&line) {
                    lock(&kept).push(sample);
                }
            }
        });
        Ok(probe)
    }

    /// The exit status of the process, if it has ended.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// The node's latest answer.
    pub(super) fn latest(&self) -> Option<Sample> {
        self.samples().latest
    }

    pub(super) fn samples(&self) -> MutexGuard<'_, Samples> {
        lock(&self.samples)
    }

    /// Polls now. Returns the latest answer if no newer one comes in time.
    pub(super) fn now(&mut self) -> Option<Sample> {
        let start = Instant::now();
        let time = now_ms();
        if let Some(stdin) = &mut self.stdin {
            // An error means that the process is gone. Then there is no newer answer.
            let _ = stdin.write_all(b"\n").and_then(|()| stdin.flush());
        }
        while start.elapsed() < AT_ONCE && self.latest().is_none_or(|sample| sample.asked < time) {
            thread::sleep(Duration::from_millis(1));
        }
        self.latest()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // An error means that the process is already gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn lock(samples: &Mutex<Samples>) -> MutexGuard<'_, Samples> {
    samples.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whatever_they_leave_out() {
        let sample = |sync: Value, chain: Value| {
            Sample::read(
                &json!({"asked": 5, "answered": 6, "sync": sync, "chain": chain}).to_string(),
            )
        };
        assert_eq!(sample(Value::Null, Value::Null), None);
        assert_eq!(Sample::read("nothing"), None);
        let chain = sample(Value::Null, json!({"height": "7"})).unwrap();
        assert_eq!(chain, Sample { asked: 5, answered: 6, height: 7, ..Sample::default() });
        let sync = json!({
            "applied_height": "8", "chunks_total": "4", "chunks_verified": "3",
            "bytes_verified": "30", "fetched_bytes": "40", "duplicate_bytes": "10",
            "verified_at_ms": null, "applied_at_ms": "9", "bans": 2,
            "segments_total": "2", "bytes_total": "50", "served_bytes": "3", "peers": [{}, {}],
        });
        let expected = Sample {
            asked: 5,
            answered: 6,
            height: 8,
            tells: true,
            segments_total: 2,
            chunks_total: 4,
            chunks_verified: 3,
            bytes_total: 50,
            bytes_verified: 30,
            fetched_bytes: 40,
            duplicate_bytes: 10,
            served_bytes: 3,
            bans: 2,
            links: 2,
            verified_at: None,
            applied_at: Some(9),
        };
        assert_eq!(sample(sync, Value::Null), Some(expected));
    }
}
