//! A local network that is started with options of its own, and commands to it.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::story::{Finished, Folder, Process, finish, node_program, until, with_default_signals};

use super::json_of;

/// A running network. Ends when it is dropped.
pub(super) struct Started {
    pub(super) dir: PathBuf,
    process: Process,
}

impl Started {
    /// Starts a network in a directory of the folder, and waits until its blocks become final.
    pub(super) fn new(folder: &Folder, name: &str, options: &[&str]) -> Self {
        let (dir, log) = (folder.join(name), folder.join(&format!("{name}.log")));
        let mut command = node_program();
        command.args(["testnet", "--plain", "--exit-with-parent", "--base-port", "auto", "--dir"]);
        command.arg(&dir).args(options);
        let mut process = Process::spawn(&mut with_default_signals(&command), &log);
        until("the network is final", || {
            let ended = process.ended();
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(ended.is_none(), "the network has ended: {}", said());
            let waited = run(&dir, &["wait", "--final", "--timeout", "60s"]);
            (waited.code == Some(0)).then_some(())
        });
        Self { dir, process }
    }

    /// Runs a command to the network.
    pub(super) fn run(&self, words: &[&str]) -> Finished {
        run(&self.dir, words)
    }

    /// Runs a command that must succeed, and returns its JSON.
    pub(super) fn json(&self, words: &[&str]) -> Value {
        let done = self.run(&[words, &["--json"]].concat());
        assert_eq!(done.code, Some(0), "{words:?}: {done:?}");
        json_of(&done.stdout)
    }

    /// The content of `network.json`.
    pub(super) fn description(&self) -> Value {
        json_of(&std::fs::read_to_string(self.dir.join("network.json")).unwrap())
    }

    /// The URLs of all nodes.
    pub(super) fn rpc(&self) -> Vec<String> {
        let nodes = self.json(&["ls"])["nodes"].as_array().unwrap().clone();
        nodes.iter().map(|node| node["rpc"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.process.ended().is_none() {
            // The parent waits for its nodes. Killed, it would leave them to end on their own.
            self.process.terminate();
            self.process.wait();
        }
    }
}

/// Runs a command to the network of a directory.
pub(super) fn run(dir: &Path, words: &[&str]) -> Finished {
    finish(node_program().args(["testnet", "--dir"]).arg(dir).args(words))
}
