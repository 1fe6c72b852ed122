//! Commands to a running network: `cairn-node testnet --dir DIR COMMAND --json`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Logs};
use crate::process::finish_within;
use crate::program;

/// Exit code of a command whose event did not come in time.
const NOT_IN_TIME: i32 = 5;

/// Where a network is, and the program that talks to it.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    pub(crate) program: PathBuf,
    /// The network's directory.
    pub(crate) dir: PathBuf,
    /// The log of the parent process.
    pub(crate) log: PathBuf,
}

/// What `ls` says of a network.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Listing {
    /// All nodes, in the order in which they were made.
    pub nodes: Vec<NodeState>,
    /// Pairs of nodes whose link is cut.
    pub cut: Vec<(String, String)>,
}

/// What `ls` says of one node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NodeState {
    /// Name, such as `node1`.
    pub name: String,
    /// Whether it runs.
    pub state: State,
    /// Height of its last final block; `None` while it does not answer.
    pub height: Option<u64>,
    /// Number of its peers; `None` while it does not answer.
    pub peers: Option<u32>,
    /// Its process id, while it runs.
    pub pid: Option<u32>,
    /// URL of its RPC.
    pub rpc: String,
    /// Its home directory.
    pub home: PathBuf,
}

/// Whether a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Started, and does not answer yet.
    Starting,
    /// Answers.
    Running,
    /// Killed by a command.
    Killed,
    /// Ended by itself.
    Ended,
}

impl State {
    /// Whether its process runs.
    #[must_use]
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Starting | Self::Running)
    }
}

impl Listing {
    /// The node with this name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeState> {
        self.nodes.iter().find(|node| node.name == name)
    }
}

/// What `load --for` measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct LoadReport {
    /// Transfers sent.
    pub sent: u64,
    /// Those that became final.
    #[serde(rename = "final")]
    pub finals: u64,
    /// Median of the time from sending to final, in milliseconds; `None` if none became final.
    pub p50_ms: Option<u64>,
    /// 99th percentile of the same times, in milliseconds.
    pub p99_ms: Option<u64>,
    /// Longest of the same times, in milliseconds.
    pub max_ms: Option<u64>,
    /// Transfers that were due and never sent, since too many waited.
    pub skipped: u64,
}

impl Control {
    /// Runs a command to its end, and returns the JSON that it prints; null if it prints nothing.
    /// A command that runs for longer than this time is killed.
    ///
    /// # Errors
    /// [`Error::NotInTime`] for a command that waited in vain, [`Error::Command`] for any other
    /// that failed.
    pub(crate) fn run(&self, words: &[&str], time: Duration) -> Result<Value, Error> {
        let mut command = program::command(&self.program);
        command.arg("testnet").arg("--dir").arg(&self.dir).args(words).arg("--json");
        let name = || format!("testnet {}", words.join(" "));
        let start = Instant::now();
        let done = finish_within(&mut command, time)
            .map_err(Error::system(self.program.display()))?
            .ok_or_else(|| self.not_in_time(&name(), time, "it did not end"))?;
        match done.code {
            Some(0) if done.stdout.trim().is_empty() => Ok(Value::Null),
            Some(0) => serde_json::from_str(&done.stdout).map_err(|error| Error::Command {
                command: name(),
                status: "exit code 0".to_owned(),
                message: format!("it printed no JSON: {error}: {}", done.stdout),
                logs: Logs::default(),
            }),
            // The command limits its wait itself, so the error names the time that it took.
            Some(NOT_IN_TIME) => {
                Err(self.not_in_time(&name(), start.elapsed(), done.stderr.trim()))
            }
            code => Err(Error::Command {
                command: name(),
                status: code.map_or_else(
                    || "ended by a signal".to_owned(),
                    |code| format!("exit code {code}"),
                ),
                message: done.stderr.trim().to_owned(),
                logs: self.logs(),
            }),
        }
    }

    /// Runs a command whose JSON has this shape.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(crate) fn read<T: serde::de::DeserializeOwned>(
        &self,
        words: &[&str],
        time: Duration,
    ) -> Result<T, Error> {
        let value = self.run(words, time)?;
        serde_json::from_value(value.clone()).map_err(|error| Error::Command {
            command: format!("testnet {}", words.join(" ")),
            status: "exit code 0".to_owned(),
            message: format!("it printed JSON of another shape: {error}: {value}"),
            logs: Logs::default(),
        })
    }

    /// The error for an event that did not come.
    pub(crate) fn not_in_time(&self, event: &str, within: Duration, last: &str) -> Error {
        Error::NotInTime {
            waited_for: event.to_owned(),
            within,
            last: if last.is_empty() { "nothing".to_owned() } else { last.to_owned() },
            logs: self.logs(),
        }
    }

    /// The ends of the logs of the parent and of each node.
    pub(crate) fn logs(&self) -> Logs {
        Logs::read(self.log_paths())
    }

    pub(crate) fn log_paths(&self) -> Vec<PathBuf> {
        let mut nodes: Vec<PathBuf> = std::fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("node.log"))
            .filter(|path| path.is_file())
            .collect();
        nodes.sort();
        std::iter::once(self.log.clone()).chain(nodes).collect()
    }

    /// Path of `network.json`.
    pub(crate) fn description(&self) -> PathBuf {
        self.dir.join("network.json")
    }
}

/// A path beside a network's directory, with an ending of its own.
pub(crate) fn beside(dir: &Path, ending: &str) -> PathBuf {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    dir.with_file_name(format!("{name}.{ending}"))
}
