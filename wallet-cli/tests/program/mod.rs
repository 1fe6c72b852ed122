//! Runs the program with a home and a node, as scripts would.
// Each test file uses only a part of this module, so the compiler would warn of dead code.
#![allow(dead_code)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use ledger::genesis::Genesis;
use serde_json::Value;
use tempfile::TempDir;

use super::fake_node::{FakeNode, genesis};

#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    #[track_caller]
    pub fn expect(self, code: i32, in_stderr: &str) -> Self {
        assert!(
            self.code == code && self.stderr.contains(in_stderr),
            "expected {code}, {in_stderr:?}: {self:#?}"
        );
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        assert_eq!(self.stdout.matches('\n').count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap()
    }

    pub fn line(&self) -> &str {
        self.stdout.strip_suffix('\n').unwrap()
    }
}

pub struct Setup {
    pub node: FakeNode,
    pub home: TempDir,
}

#[cfg(unix)]
pub fn private_dir() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}

#[cfg(not(unix))]
pub fn private_dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A local network's wallet, as `testnet` makes it, and its node.
pub fn setup() -> Setup {
    setup_on(genesis("local"))
}

/// As [`setup`], with another genesis.
pub fn setup_on(genesis: Genesis) -> Setup {
    let node = FakeNode::start(genesis);
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
    write("genesis.json", &node.lock().chain.genesis().to_json());
    write("password", "local\n");
    write("template-accounts.json", r#"{"accounts":["alice","bob","carol","dave"]}"#);
    Setup { node, home }
}

pub fn run_with(home: &Path, url: &str, stdin: &str, args: &[&str]) -> Outcome {
    run_into(home, url, stdin, args, Stdio::piped())
}

/// As [`run_with`], with another stdout, which the outcome does not include.
pub fn run_into(home: &Path, url: &str, stdin: &str, args: &[&str], stdout: Stdio) -> Outcome {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cairn-wallet"))
        .env_clear()
        // A proxy for the web, which must not be used.
        .env("http_proxy", "http://127.0.0.1:9")
        .env("CAIRN_WALLET_HOME", home)
        .env("CAIRN_WALLET_RPC", url)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read stdin may have ended already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome {
        code: output.status.code().unwrap(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

impl Setup {
    pub fn run(&self, args: &[&str]) -> Outcome {
        run_with(self.home.path(), &self.node.url, "", args)
    }

    pub fn send(&self, more: &[&str]) -> Outcome {
        let args = ["send", "--from", "alice", "--to", "bob", "--amount", "1.5 CRN", "--yes"];
        self.run(&[&args, more].concat())
    }
}
