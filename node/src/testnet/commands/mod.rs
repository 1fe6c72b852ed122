//! Commands to a running network, from another terminal or in a script.

mod faucet;
mod load;
mod logs;
mod script;
mod wait;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::action::Action;
use super::list::List;
use super::values::{Between, Groups, between, groups, latency};
use crate::control::{Client, ControlError, code};
use crate::home::stop;
use crate::output::{print, print_json};

pub(super) use wait::all_final;

/// Longest time until the network has answered a question: far more than it needs, as machines are
/// busy.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Longest time until the network has performed an action: the slowest one stops a node and starts
/// it again.
const ACT_MAX: Duration = Duration::from_secs(240);
/// Longest time until a stopped network is gone. Its nodes are killed earlier, 90 s after they were
/// asked to stop.
const GONE_MAX: Duration = Duration::from_secs(120);

/// A command to a running network.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the nodes and the faults of their links
    Ls,
    /// Wait for an event at all running nodes
    Wait(wait::Wait),
    /// Show the log of a node, or of all nodes
    Logs(logs::Logs),
    /// Cut all links between groups of nodes; a node in no group keeps all its links
    #[command(after_help = "Example: partition node1,node2/node3,node4")]
    Partition {
        /// Names with commas between them, groups with slashes between them
        #[arg(value_name = "GROUPS", value_parser = groups)]
        groups: Groups,
    },
    /// Cut all links of a node
    Isolate {
        /// Name of the node
        node: String,
    },
    /// Take away all cuts and all latency
    Heal,
    /// Delay all messages between two nodes, each way; 0ms ends it
    #[command(after_help = "Examples: latency node1-node2 100ms; latency all 50ms")]
    Latency {
        /// Two names with a hyphen between them, or all
        #[arg(value_name = "A-B|all", value_parser = between)]
        between: Between,
        /// The delay, such as 100ms or 1.5s
        #[arg(value_name = "DELAY", value_parser = latency)]
        ms: u32,
    },
    /// End a node at once, as a crash would
    Kill {
        /// Name of the node
        node: String,
    },
    /// Start a node again; one that runs is stopped first
    Restart {
        /// Name of the node
        node: String,
        /// Run this program, such as another version, until the next restart
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
    },
    /// Add a full node, which fetches the chain from the others
    Add,
    Load(load::Load),
    Faucet(faucet::Faucet),
    Script(script::Script),
    /// Stop the network, and wait until all its processes have ended
    Stop,
}

/// A line of a script.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
pub(crate) struct Line {
    /// Print the result as JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// A failure of a command whose exit code is not 1.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The command makes no sense.
    #[error("{0}")]
    Usage(String),
    /// No network runs in the directory.
    #[error(
        "no network runs in {}: start one with `cairn-node testnet`, or give another --dir",
        dir.display()
    )]
    Absent {
        /// The directory.
        dir: PathBuf,
    },
    /// The awaited event did not come.
    #[error("{0}")]
    NotInTime(String),
}

impl CommandError {
    /// The exit code of the program.
    pub(crate) fn exit_code(&self) -> u8 {
        let code = match self {
            Self::Usage(_) => code::USAGE,
            Self::Absent { .. } => code::ABSENT,
            Self::NotInTime(_) => code::NOT_IN_TIME,
        };
        u8::try_from(code).unwrap_or(1)
    }
}

/// The network that a command is for, and the form of its answer.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The network's directory, as an absolute path.
    pub(super) dir: PathBuf,
    /// Whether results are printed as JSON.
    pub(super) json: bool,
    /// If set, a script keeps the results of a line here, and they are not printed.
    kept: Option<Kept>,
}

/// A result that a script keeps.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Value>>);

impl Kept {
    /// The result; null if there was none.
    fn take(&self) -> Value {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Target {
    pub(super) fn new(dir: &Path, json: bool) -> anyhow::Result<Self> {
        let dir = std::path::absolute(dir).with_context(|| dir.display().to_string())?;
        Ok(Self { dir, json, kept: None })
    }

    /// The same network, whose results are kept and not printed.
    fn keeping(&self) -> (Self, Kept) {
        let kept = Kept::default();
        (Self { kept: Some(kept.clone()), ..self.clone() }, kept)
    }

    /// Calls a method of the network's socket.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        params: Value,
    ) -> anyhow::Result<T> {
        self.call_within(ANSWER_MAX, method, params).await
    }

    async fn call_within<T: DeserializeOwned>(
        &self,
        time: Duration,
        method: &str,
        params: Value,
    ) -> anyhow::Result<T> {
        let answer = async {
            let mut client = Client::connect(&self.dir).await?;
            client.call(method, params).await
        };
        let slow = || ControlError::Slow { root: self.dir.clone(), what: "does not answer", time };
        let answer = timeout(time, answer).await.unwrap_or_else(|_| Err(slow()));
        answer.map_err(|error| self.explain(error))
    }

    fn explain(&self, error: ControlError) -> anyhow::Error {
        match error {
            ControlError::Absent { .. } => CommandError::Absent { dir: self.dir.clone() }.into(),
            error => error.into(),
        }
    }

    /// Has an action performed, and returns its answer.
    pub(super) async fn act(&self, action: &Action) -> anyhow::Result<Value> {
        let (method, params) = action.to_call()?;
        self.call_within(ACT_MAX, &method, params).await
    }

    /// The nodes and faults of the network.
    pub(super) async fn list(&self) -> anyhow::Result<List> {
        self.list_within(ANSWER_MAX).await
    }

    async fn list_within(&self, time: Duration) -> anyhow::Result<List> {
        self.call_within(time, "testnet_ls", json!({})).await
    }

    /// Prints a result.
    pub(super) fn print(&self, value: &Value, text: &str) -> anyhow::Result<()> {
        if let Some(kept) = &self.kept {
            *kept.0.lock().unwrap_or_else(PoisonError::into_inner) = value.clone();
            return Ok(());
        }
        match self.json {
            true => print_json(value),
            false if text.is_empty() => Ok(()),
            false => Ok(print(text)?),
        }
    }
}

impl Command {
    pub(super) async fn execute(self, target: &Target) -> anyhow::Result<()> {
        let action = match self {
            Self::Ls => {
                let list = target.list().await?;
                return target.print(&serde_json::to_value(&list)?, &list.text());
            }
            Self::Wait(wait) => return wait.execute(target).await,
            Self::Logs(logs) => return logs.execute(target).await,
            Self::Load(load) => return load.execute(target).await,
            Self::Faucet(faucet) => return faucet.execute(target).await,
            Self::Script(script) => return script.execute(target).await,
            Self::Stop => {
                let stopped = stop(&target.dir, "testnet_stop", GONE_MAX).await;
                stopped.map_err(|error| target.explain(error))?;
                return target.print(&Value::Null, "stopped");
            }
            Self::Partition { groups: Groups(groups) } => Action::Partition { groups },
            Self::Isolate { node } => Action::Isolate { node },
            Self::Heal => Action::Heal,
            Self::Latency { between: Between(between), ms } => Action::Latency { between, ms },
            Self::Kill { node } => Action::Kill { node },
            Self::Restart { node, binary } => {
                // The process of the network may have another current directory, so the path is
                // made absolute.
                let binary = binary.map(std::path::absolute).transpose()?;
                Action::Restart { node, binary }
            }
            Self::Add => Action::Add,
        };
        let answer = target.act(&action).await?;
        let mut text = told(&action, &answer);
        if let Action::Partition { groups } = &action {
            text += &unnamed(groups, &target.list().await?);
        }
        target.print(&answer, &text)
    }
}

/// What a person wants to know after an action.
fn told(action: &Action, answer: &Value) -> String {
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    let count = |name: &str| answer[name].as_array().map_or(0, Vec::len);
    match action {
        Action::Partition { .. } | Action::Isolate { .. } | Action::Heal => {
            format!("{} links are cut", count("cut"))
        }
        Action::Latency { .. } => format!("{} links have latency", count("latency_ms")),
        Action::Add | Action::Restart { .. } => {
            format!("{} runs, RPC {}", text("node"), text("rpc"))
        }
        _ => String::new(),
    }
}

/// A warning of the nodes that are in no group. One between two groups passes their messages on, so
/// it undoes the cut.
fn unnamed(groups: &[Vec<String>], list: &List) -> String {
    let names = list.nodes.iter().map(|node| &node.name);
    let rest: Vec<&str> = names
        .filter(|name| !groups.iter().flatten().any(|named| named == *name))
        .map(String::as_str)
        .collect();
    match rest.as_slice() {
        [] => String::new(),
        [one] => format!("; {one} is in no group and keeps all its links"),
        more => format!("; {} are in no group and keep all their links", more.join(", ")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::control::Listener;

    /// The paused clock jumps ahead whenever all tasks wait.
    #[tokio::test(start_paused = true)]
    async fn a_network_that_does_not_answer_is_not_waited_for_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::new(folder.path(), false).unwrap();
        let _silent = Listener::bind(&target.dir).unwrap();
        for (words, longest) in [
            ("ls", ANSWER_MAX),
            ("wait --timeout 5s", Duration::from_secs(10)),
            ("wait --timeout 3m", Duration::from_secs(185)),
            ("load 0/s", ACT_MAX),
            ("heal", ACT_MAX),
            ("stop", ANSWER_MAX),
        ] {
            let line = Line::try_parse_from(words.split_whitespace()).unwrap();
            let start = Instant::now();
            let error = line.command.execute(&target).await.unwrap_err();
            assert!(error.to_string().contains("does not answer"), "{words}: {error}");
            let slow: &ControlError = error.downcast_ref().unwrap();
            assert_eq!(slow.exit_code(), 5, "{words}");
            let took = start.elapsed();
            assert!(took <= longest + Duration::from_secs(1), "{words}: {took:?}");
        }
    }

    #[test]
    fn a_partition_names_the_nodes_that_it_leaves_out() {
        let node = |name: &str| {
            json!({
                "name": name, "validator": true, "state": "running", "height": 1, "time": 1,
                "peers": 4, "pid": 1, "rpc": "", "home": "",
            })
        };
        let nodes = ["a", "b", "c", "d"].map(node);
        let list = json!({ "nodes": nodes, "cut": [], "latency_ms": [] });
        let list: List = serde_json::from_value(list).unwrap();
        let warning = |groups: &[&[&str]]| {
            let named = |group: &&[&str]| group.iter().map(ToString::to_string).collect();
            unnamed(&groups.iter().map(named).collect::<Vec<_>>(), &list)
        };
        assert_eq!(warning(&[&["a", "b"], &["d", "c"]]), "");
        let one = warning(&[&["a", "b"], &["d"]]);
        assert!(one.ends_with("c is in no group and keeps all its links"), "{one}");
        let two = warning(&[&["a"], &["d"]]);
        assert!(two.ends_with("b, c are in no group and keep all their links"), "{two}");
    }
}
