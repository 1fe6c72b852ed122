//! `cairn-node testnet`, run as a user runs it.

use std::fs;
use std::path::PathBuf;

use ledger::hash::ChainId;
use rustix::process::Signal;
use serde_json::Value;

use super::folder::{Folder, free_ports, quick_genesis};
use super::process::{Process, has_ended, show_tail, with_default_signals};
use super::programs::node_program;
use super::wait::until;

/// A running local network: the parent process of its nodes. Stopped with them when dropped.
pub struct Testnet {
    /// The content of `network.json`.
    pub description: Description,
    process: Process,
    dir: PathBuf,
    log: PathBuf,
}

/// The content of `network.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Identity of the chain.
    pub chain: ChainId,
    /// Path of the genesis file.
    pub genesis: PathBuf,
    /// All nodes, validators first.
    pub nodes: Vec<NodeInfo>,
    /// Home of the wallet that holds the accounts' keys.
    pub wallet_home: PathBuf,
}

/// One node of `network.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Name.
    pub name: String,
    /// Its home directory.
    pub home: PathBuf,
    /// Its process id.
    pub pid: u32,
    /// URL of its RPC.
    pub rpc: String,
    /// Multiaddr with its peer id.
    pub p2p: String,
    /// Whether it is a validator.
    pub validator: bool,
}

impl Description {
    /// Reads `network.json`; `None` if there is none yet.
    fn read(path: &PathBuf) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let value: Value =
            serde_json::from_str(&text).expect("network.json is written at once and whole");
        let text = |value: &Value| value.as_str().expect("a text in network.json").to_owned();
        let node = |node: &Value| NodeInfo {
            name: text(&node["name"]),
            home: text(&node["home"]).into(),
            pid: node["pid"]
                .as_u64()
                .and_then(|pid| u32::try_from(pid).ok())
                .expect("a pid in network.json"),
            rpc: text(&node["rpc"]),
            p2p: text(&node["p2p"]),
            validator: node["validator"].as_bool().expect("a truth in network.json"),
        };
        Some(Self {
            chain: ChainId(text(&value["chain_id"]).parse().expect("a hash in network.json")),
            genesis: text(&value["genesis"]).into(),
            nodes: value["nodes"]
                .as_array()
                .expect("nodes in network.json")
                .iter()
                .map(node)
                .collect(),
            wallet_home: text(&value["wallet_home"]).into(),
        })
    }
}

impl Testnet {
    /// Makes and starts a network from the genesis built into the program.
    #[must_use]
    pub fn start(folder: &Folder, validators: usize, full_nodes: usize) -> Self {
        Self::launch(folder, &arguments(validators, full_nodes))
    }

    /// Makes and starts a network with a short interval of empty blocks.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_quick(folder: &Folder, validators: usize, full_nodes: usize) -> Self {
        let genesis = folder.join("template.json");
        fs::write(&genesis, quick_genesis().to_json()).expect("a folder of our own");
        let mut arguments = arguments(validators, full_nodes);
        arguments.extend(["--genesis".to_owned(), genesis.display().to_string()]);
        Self::launch(folder, &arguments)
    }

    /// Starts the existing network in the folder.
    #[must_use]
    pub fn resume(folder: &Folder) -> Self {
        Self::launch(folder, &[])
    }

    fn launch(folder: &Folder, arguments: &[String]) -> Self {
        let (dir, log) = (folder.join("network"), folder.join("testnet.log"));
        let mut command = node_program();
        command.arg("testnet").arg("--dir").arg(&dir).arg("--plain").args(arguments);
        let mut process = Process::spawn(&mut with_default_signals(&command), &log);
        let path = dir.join("network.json");
        // The file of an earlier run, which names other processes, is removed when this one starts.
        let description = until("a test network writes network.json", || {
            let ended = process.ended();
            if ended.is_some() {
                show_tail(&log);
            }
            assert!(ended.is_none(), "the test network has ended: {ended:?}");
            Description::read(&path)
                .filter(|found| found.nodes.iter().all(|node| !has_ended(node.pid)))
        });
        Self { description, process, dir, log }
    }

    /// Sends SIGTERM, waits until the parent has ended, and returns its exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.process.terminate();
        self.process.wait().code()
    }

    /// Sends a signal to the parent alone.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until the parent has ended, and returns its exit code.
    pub fn wait(mut self) -> Option<i32> {
        self.process.wait().code()
    }

    /// Kill -9 of the parent alone.
    pub fn kill(mut self) {
        self.process.kill();
        self.process.wait();
    }

    /// Its output so far.
    ///
    /// # Panics
    /// When its log cannot be read.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).expect("a log of our own")
    }
}

fn arguments(validators: usize, full_nodes: usize) -> Vec<String> {
    let pairs = [
        ("--nodes", validators.to_string()),
        ("--full-nodes", full_nodes.to_string()),
        ("--base-port", free_ports().to_string()),
    ];
    pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}

impl Drop for Testnet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show_tail(&self.log);
            self.description.nodes.iter().for_each(|node| show_tail(&node.home.join("node.log")));
        }
        if self.process.ended().is_none() && self.dir.exists() {
            // SIGTERM, so that the parent waits for its nodes. Killed, it would leave them to end
            // on their own.
            self.process.terminate();
            let _ = self.process.wait();
        }
    }
}
