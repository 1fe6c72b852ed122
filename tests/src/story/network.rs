//! Nodes that the story starts, kills and restarts by itself.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use ledger::api::{BlockInfo, Status};
use ledger::hash::ChainId;
use testkit::process::{Finished, finish, show_tail};
use testkit::wait::until;
use testkit::{Description, NodeInfo, Rpc};

use super::folder::{Folder, free_ports};
use super::process::Process;
use super::programs::{node_program, wallet_program};
use super::testnet::Testnet;

/// Nodes, each a process of its own, numbered from 1. `testnet` made the homes of the first ones.
/// `init` made those of the nodes that [`Self::add`] added.
pub struct Network {
    // Fields are dropped in this order, so the processes end before their folder is removed.
    nodes: Vec<Node>,
    description: Description,
    folder: Folder,
}

/// One node, running or not.
pub struct Node {
    /// Name.
    pub name: String,
    /// Its home.
    pub home: PathBuf,
    /// Its RPC.
    pub rpc: Rpc,
    /// Its P2P address. It includes the peer id, except for a node of [`Network::add`].
    pub p2p: String,
    /// Its arguments, beyond its home.
    arguments: Vec<String>,
    process: Option<Process>,
}

impl Node {
    /// Starts the node.
    ///
    /// # Panics
    /// When it runs already.
    pub fn start(&mut self) {
        let mut command = node_program();
        self.start_as(&mut command);
    }

    /// Starts the node under another program, such as strace.
    ///
    /// # Panics
    /// When it runs already.
    pub fn start_under(&mut self, program: &mut Command) {
        program.arg(node_program().get_program());
        self.start_as(program);
    }

    fn start_as(&mut self, command: &mut Command) {
        assert!(self.process.is_none(), "{} runs", self.name);
        command
            .arg("run")
            .arg("--home")
            .arg(&self.home)
            .arg("--exit-with-parent")
            .args(&self.arguments);
        self.process = Some(Process::spawn(command, &self.log()));
    }

    /// Its process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// Whether it was started and not stopped.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Kill -9, and waits until it is gone.
    pub fn crash(&mut self) {
        self.process().kill();
        self.process().wait();
        self.process = None;
    }

    /// Stops the node by ending its stdin, as when its parent ends, and waits until it is gone.
    ///
    /// # Panics
    /// When it does not report success.
    pub fn stop(&mut self) {
        self.process().end_stdin();
        let status = self.process().wait();
        assert!(status.success(), "{} ended with {status}", self.name);
        self.process = None;
    }

    /// Its status, once it answers.
    ///
    /// # Panics
    /// When it has ended by itself, or never answers.
    pub fn status(&mut self) -> Status {
        until(&format!("{} answers", self.name), || {
            let ended = self.process().ended();
            assert!(ended.is_none(), "{} has ended: {ended:?}", self.name);
            self.rpc.status().ok()
        })
    }

    /// Waits until it has reached a height, and returns its status.
    pub fn await_height(&mut self, height: u64) -> Status {
        until(&format!("{} reaches height {height}", self.name), || {
            Some(self.status()).filter(|status| status.height >= height)
        })
    }

    /// Path of its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.home.join("node.log")
    }

    /// Its log so far.
    ///
    /// # Panics
    /// When that cannot be read.
    #[must_use]
    pub fn log_text(&self) -> String {
        fs::read_to_string(self.log()).expect("a log of our own")
    }

    /// Verifies everything that the node has stored. The node must not run.
    ///
    /// # Panics
    /// When it finds an error.
    pub fn verify(&self) {
        let done =
            finish(node_program().args(["db", "verify", "--json", "--home"]).arg(&self.home));
        assert!(
            done.code == Some(0) && done.stdout.contains("\"clean\":true"),
            "{}: {done:?}",
            self.name
        );
    }
}

impl Network {
    /// Running validators, with a short interval of empty blocks.
    #[must_use]
    pub fn start(validators: usize) -> Self {
        let mut network = Self::make(validators);
        network.nodes.iter_mut().for_each(Node::start);
        network.nodes.iter_mut().for_each(|node| drop(node.status()));
        network
    }

    /// A network as [`Self::start`] makes it, with none of its nodes running.
    ///
    /// # Panics
    /// When a test network cannot be made.
    #[must_use]
    pub fn make(validators: usize) -> Self {
        let folder = Folder::new();
        let testnet = Testnet::start_quick(&folder, validators, 0);
        let description = testnet.description.clone();
        assert_eq!(testnet.stop(), Some(0), "a test network that is told to stop ends well");
        let node = |info: &NodeInfo| Node {
            name: info.name.clone(),
            home: info.home.clone(),
            rpc: Rpc::new(&info.rpc),
            p2p: info.p2p.clone(),
            arguments: Vec::new(),
            process: None,
        };
        Self { nodes: description.nodes.iter().map(node).collect(), description, folder }
    }

    /// Identity of the chain.
    #[must_use]
    pub fn chain(&self) -> ChainId {
        self.description.chain
    }

    /// File of the genesis.
    #[must_use]
    pub fn genesis(&self) -> &PathBuf {
        &self.description.genesis
    }

    /// A path in the story's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes the home of a further node from a genesis with `init`, and adds it. The node dials
    /// only these peers.
    ///
    /// # Panics
    /// When `init` refuses.
    pub fn add(&mut self, genesis: &PathBuf, peers: &[String]) -> &mut Node {
        let name = format!("node{}", self.nodes.len() + 1);
        let home = self.folder.join(&name);
        let made = finish(
            node_program().args(["init", "--home"]).arg(&home).arg("--genesis").arg(genesis),
        );
        assert_eq!(made.code, Some(0), "{made:?}");
        let port = free_ports();
        let (p2p, rpc) = (format!("/ip4/127.0.0.1/tcp/{port}"), format!("127.0.0.1:{}", port + 1));
        let listen = ["--p2p-listen", &p2p, "--rpc-listen", &rpc].map(str::to_owned);
        let peers = peers.iter().flat_map(|peer| ["--peer".to_owned(), peer.clone()]);
        let arguments = listen.into_iter().chain(peers).collect();
        self.nodes.push(Node {
            name,
            home,
            rpc: Rpc::new(&format!("http://{rpc}")),
            p2p,
            arguments,
            process: None,
        });
        self.nodes.last_mut().expect("one was added")
    }

    /// All nodes.
    pub fn nodes(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// One node.
    pub fn node(&mut self, number: usize) -> &mut Node {
        &mut self.nodes[number - 1]
    }

    /// Running nodes.
    pub fn running(&mut self) -> impl Iterator<Item = &mut Node> {
        self.nodes.iter_mut().filter(|node| node.is_running())
    }

    /// Kill -9 of one node.
    pub fn crash(&mut self, number: usize) -> &mut Self {
        self.node(number).crash();
        self
    }

    /// Kill -9 of all nodes, as close together as possible.
    pub fn crash_all(&mut self) -> &mut Self {
        self.running().for_each(|node| node.process().kill());
        self.running().for_each(Node::crash);
        self
    }

    /// Starts a stopped node.
    pub fn restart(&mut self, number: usize) -> &mut Self {
        self.node(number).start();
        self
    }

    /// Starts all stopped nodes.
    pub fn restart_all(&mut self) -> &mut Self {
        self.nodes.iter_mut().filter(|node| !node.is_running()).for_each(Node::start);
        self
    }

    /// Waits until each running node has reached a height.
    pub fn await_height(&mut self, height: u64) -> &mut Self {
        self.running().for_each(|node| drop(node.await_height(height)));
        self
    }

    /// Waits until each running node is this many blocks beyond the height of the highest one.
    pub fn await_blocks(&mut self, count: u64) -> &mut Self {
        let height = self.height() + count;
        self.await_height(height)
    }

    /// Height of the highest running node; 0 if none runs.
    pub fn height(&mut self) -> u64 {
        self.running().map(|node| node.status().height).max().unwrap_or(0)
    }

    /// Compares the blocks of all running nodes, up to the lowest of their heights.
    ///
    /// # Panics
    /// When two blocks of a height differ, or a block does not follow from the one before it.
    pub fn assert_one_history(&mut self) -> &mut Self {
        let height = self.running().map(|node| node.status().height).min().unwrap_or(0);
        let mut parent: Option<String> = None;
        for height in 1..=height {
            let block = |node: &mut Node| {
                node.rpc.block(height).unwrap_or_else(|error| panic!("{height}: {error:?}"))
            };
            let blocks: Vec<_> = self.running().map(block).collect();
            let first = &blocks[0];
            let same = |block: &BlockInfo| {
                block.summary == first.summary
                    && block.state_root == first.state_root
                    && block.parent == first.parent
            };
            assert!(blocks.iter().all(same), "a fork at height {height}: {blocks:#?}");
            assert!(
                parent.is_none_or(|parent| parent == first.parent),
                "block {height} does not follow"
            );
            parent = Some(first.summary.hash.clone());
        }
        self
    }

    /// Checks that no running node has caught a validator double signing.
    ///
    /// # Panics
    /// When one has.
    pub fn assert_no_equivocation(&mut self) -> &mut Self {
        self.running().for_each(|node| {
            assert_eq!(node.rpc.metric("cairn_equivocations_total"), 0.0, "{}", node.name)
        });
        self
    }

    /// Runs the wallet that holds the template's accounts, through a node.
    pub fn wallet(&mut self, number: usize, arguments: &[&str]) -> Finished {
        let home = self.description.wallet_home.clone();
        finish(
            wallet_program()
                .arg("--home")
                .arg(home)
                .arg("--rpc")
                .arg(self.node(number).rpc.url())
                .args(arguments),
        )
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.nodes.iter().for_each(|node| show_tail(&node.log()));
        }
    }
}
