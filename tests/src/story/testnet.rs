//! `cairn-node testnet`, run as a user runs it: a network of `testkit` in the story's folder.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use testkit::{Builder, Description};

use super::folder::{Folder, free_ports};
use super::process::{default_signals, signal};
use super::programs::node_program;

/// Longest time of a step: far more than it needs, as test machines are busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running local network: the parent process of its nodes. When dropped, it stops the parent and
/// the nodes.
pub struct Testnet {
    /// The content of `network.json`.
    pub description: Description,
    network: testkit::Testnet,
}

impl Testnet {
    /// Makes and starts a network from the genesis built into the program.
    #[must_use]
    pub fn start(folder: &Folder, validators: usize, full_nodes: usize) -> Self {
        let builder = builder(folder).default_genesis();
        Self::launch(builder.validators(validators).full_nodes(full_nodes).base_port(free_ports()))
    }

    /// Makes and starts a network with a short interval of empty blocks.
    #[must_use]
    pub fn start_quick(folder: &Folder, validators: usize, full_nodes: usize) -> Self {
        let builder = builder(folder).validators(validators).full_nodes(full_nodes);
        Self::launch(builder.base_port(free_ports()))
    }

    /// Starts the existing network in the folder.
    #[must_use]
    pub fn resume(folder: &Folder) -> Self {
        Self::launch(builder(folder).existing())
    }

    fn launch(builder: Builder) -> Self {
        let network = builder.start().unwrap_or_else(|error| panic!("{error}"));
        Self { description: network.description().clone(), network }
    }

    /// The network, for its commands.
    #[must_use]
    pub const fn network(&self) -> &testkit::Testnet {
        &self.network
    }

    /// Sends SIGTERM, waits until the parent has ended, and returns its exit code.
    pub fn stop(self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Sends a signal to the parent alone.
    pub fn signal(&self, sent: Signal) {
        signal(self.network.pid(), sent);
    }

    /// Waits until the parent has ended, and returns its exit code.
    ///
    /// # Panics
    /// When it does not end.
    pub fn wait(self) -> Option<i32> {
        self.network.await_end().unwrap_or_else(|error| panic!("{error}")).code()
    }

    /// Kill -9 of the parent alone.
    pub fn kill(self) {
        self.network.kill_parent();
    }

    /// Its output so far.
    ///
    /// # Panics
    /// When its log cannot be read.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read_to_string(self.network.log()).expect("a log of our own")
    }
}

fn builder(folder: &Folder) -> Builder {
    testkit::Testnet::builder()
        .program(node_program().get_program())
        .dir(folder.join("network"))
        .under(default_signals())
        .patience(PATIENCE)
}
