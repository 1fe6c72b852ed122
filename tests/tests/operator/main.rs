//! What an operator meets: signals, output that nobody reads, odd files, variables and folders.
#![allow(clippy::unwrap_used)]

mod files;
mod homes;
mod processes;
mod socket;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tests::story::{finish, node_program, until};

/// The genesis template of local networks.
const GENESIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../genesis.json");

/// The user `nobody`.
const NOBODY: u32 = 65_534;

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("cairn-operator-").tempdir().unwrap()
}

/// A command of `cairn-node` from words that are divided by spaces, with a home.
fn node(words: &str, home: &Path) -> Command {
    let mut command = node_program();
    command.args(words.split_whitespace()).arg("--home").arg(home);
    command
}

fn init(home: &Path) -> Command {
    let mut command = node("init", home);
    command.args(["--genesis", GENESIS]);
    command
}

/// A new home in a folder.
fn new_home(folder: &TempDir) -> PathBuf {
    let home = folder.path().join("home");
    let made = finish(&mut init(&home));
    assert_eq!(made.code, Some(0), "{made:?}");
    home
}

/// The command `run`, at ports that the system chooses.
fn run(home: &Path) -> Command {
    let mut command = node("run --p2p-listen 127.0.0.1:0 --rpc-listen 127.0.0.1:0", home);
    command.stdin(Stdio::null());
    command
}

/// A child that is killed at the end of a test.
struct Running(Child);

impl Running {
    fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Starts a node that writes to a log, and waits until it is up.
    fn node(command: &mut Command, log: &Path) -> Self {
        let file = File::create(log).unwrap();
        let running = Self::spawn(command.stdout(Stdio::null()).stderr(file));
        until("the node is up", || {
            fs::read_to_string(log).unwrap().contains("node of chain").then_some(())
        });
        running
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        until("a process ends", || self.0.try_wait().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The end of a pipe that nobody reads any more.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}
