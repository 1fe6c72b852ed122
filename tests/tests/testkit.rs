//! The crate `cairn-testkit`: networks that a test starts, breaks and pays on, and that leave no
//! process and no port behind, however the test ends.
#![allow(clippy::unwrap_used)]

use std::env;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::ledger::genesis::Genesis;
use testkit::ledger::signature::SigningKey;
use testkit::{Error, State, Testnet, template};
use tests::story::{Folder, Process, has_ended, node_program, rounds, until};

/// How long the tests watch for a transfer that must not become final.
const A_WHILE: Duration = Duration::from_secs(3);
/// How long a command may take before it is killed: the default of `Builder::patience`.
const PATIENCE: Duration = Duration::from_secs(60);
const COIN: u64 = 1_000_000_000;

fn start(validators: usize) -> Testnet {
    let builder = Testnet::builder().program(node_program().get_program());
    builder.validators(validators).start().unwrap()
}

#[test]
fn accounts_pay_and_prove_while_links_are_cut_and_nodes_killed() {
    let _turn = Folder::new();
    let net = start(4);
    let (alice, bob) = (net.account("alice").unwrap(), net.account("bob").unwrap());
    let before = bob.balance().unwrap().amount;
    let payment = alice.pay(&bob.address(), "1.5 CRN").unwrap();
    let after = bob.balance().unwrap();
    assert_eq!(after.amount.0, before.0 + COIN * 3 / 2);
    assert!(payment.height >= 1 && after.height >= payment.height);

    // A new account, seen from another node: its balance is no older than the payment.
    let key = SigningKey::from_seed(&[7; 32]);
    let shop = net.account_with(key, "node3").unwrap();
    assert_eq!((shop.balance().unwrap().amount.0, shop.balance().unwrap().nonce), (0, 0));
    alice.pay(&shop.address(), "2 CRN").unwrap();
    assert_eq!(shop.balance().unwrap().amount.0, 2 * COIN);
    shop.pay(&bob.address(), "1 CRN").unwrap();
    assert_eq!(shop.balance().unwrap().nonce, 1);
    let paid = net.faucet(&shop.address(), "3 CRN").unwrap();
    assert!(paid.height > payment.height);

    net.partition(&[&["node1", "node2"], &["node3", "node4"]]).unwrap();
    assert_eq!(net.list().unwrap().cut.len(), 4);
    let stuck = alice.submit(&bob.address(), "1 CRN").unwrap();
    assert!(!alice.is_final(&stuck, A_WHILE).unwrap(), "half of the network made it final");
    net.heal().unwrap();
    assert!(net.list().unwrap().cut.is_empty());
    alice.prove(&stuck).unwrap();

    net.kill("node4").unwrap().await_blocks(2).unwrap();
    assert_eq!(net.list().unwrap().node("node4").unwrap().state, State::Killed);
    net.restart("node4").unwrap();
    let added = net.add().unwrap();
    assert_eq!(added, "node5");
    let height = alice.pay(&bob.address(), "1 CRN").unwrap().height;
    net.await_height_of("node4", height).unwrap().await_height_of(&added, height).unwrap();
    assert!(net.agree().unwrap() >= height);
    net.await_final(Duration::from_secs(30)).unwrap();
    assert!(net.stop().unwrap().success());
}

/// The example of `docs/ci.md`, word for word.
#[test]
fn the_example_of_the_documents_works() -> Result<(), Error> {
    let lines =
        include_str!("../../docs/ci.md").split("```").find_map(|it| it.strip_prefix("rust\n"));
    let missing = lines.unwrap().lines().find(|line| !include_str!("testkit.rs").contains(line));
    assert_eq!(missing, None, "a line of the example is not run here");
    let _turn = Folder::new();
    // Builds the program beside this test.
    drop(node_program());
    let net = testkit::Testnet::start(4)?;
    let (alice, bob) = (net.account("alice")?, net.account("bob")?);
    alice.pay(&bob.address(), "1.5 CRN")?;
    // The others go on without node3, which catches up once its links are back.
    net.isolate("node3")?;
    let height = alice.pay(&bob.address(), "1 CRN")?.height;
    net.heal()?.await_height(height)?.agree()?;
    Ok(())
}

#[test]
fn a_seed_makes_the_same_chain() {
    let _turn = Folder::new();
    let chain = || {
        let builder = Testnet::builder().program(node_program().get_program());
        builder.validators(1).seed(7).start().unwrap().chain().id()
    };
    assert_eq!(chain(), chain());
}

#[test]
fn errors_say_what_was_wrong_and_show_logs() {
    let _turn = Folder::new();
    let builder = Testnet::builder().program(node_program().get_program());
    let error = builder.validators(0).start().err().unwrap();
    assert!(matches!(error, Error::Ended { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("--nodes") && text.contains("network.log"), "{text}");
    assert_eq!(format!("{error:?}"), text, "so that unwrap() shows it");

    let net = start(1);
    let said = |error: Option<Error>| error.unwrap().to_string();
    let alice = net.account("alice").unwrap();
    for (error, part) in [
        (net.account("mallory").err(), "alice, bob, carol, dave"),
        (net.rpc("node7").err(), "only node1"),
        (net.kill("node7").err(), "node7"),
        (alice.pay("crn1", "1 CRN").err(), "not an address"),
        (alice.pay(&alice.address(), "1").err(), "the unit is missing"),
    ] {
        let text = said(error);
        assert!(text.contains(part), "{part} in {text}");
    }
    let error = alice.pay(&alice.address(), "5000000 CRN").err().unwrap();
    assert!(matches!(error, Error::Call { .. }), "{error}");

    // The error says how long a command waited, and not after which time it would be killed.
    let waits = ["wait", "--height", "1000000", "--timeout", "100ms"];
    let error = net.command(&waits).err().unwrap();
    let is_true = matches!(error, Error::NotInTime { within, .. } if within < PATIENCE);
    assert!(is_true, "{error}");

    // A network that is gone is told at once, with its logs.
    net.kill_parent();
    let error = net.await_height_of("node1", 1_000_000).err().unwrap();
    assert!(matches!(error, Error::Ended { .. }) && error.to_string().contains("node1"), "{error}");
}

#[test]
fn the_template_is_that_of_the_program() {
    let text = include_bytes!("../../genesis.json");
    assert_eq!(template(), Genesis::from_json(text).unwrap());
}

/// Environment variable with the path of the file in which a child of this test tells what it has
/// started. Set only for a child.
const TOLD: &str = "TESTKIT_TOLD";
/// Environment variable that is set for a child that panics once it has written this file.
const PANICS: &str = "TESTKIT_PANICS";

/// Does nothing, unless the tests below run it in a process of its own: then it starts a network,
/// tells its processes and ports, and panics or goes on until it is killed.
#[test]
fn a_child_starts_a_network() {
    let Some(told) = env::var_os(TOLD).map(PathBuf::from) else { return };
    // The program is found by the environment.
    let net = Testnet::start(2).unwrap();
    let mut lines = vec![format!("pid {}", net.pid()), format!("dir {}", net.dir().display())];
    for node in &net.description().nodes {
        let rpc = node.rpc.rsplit(':').next().unwrap();
        let p2p = node.p2p.split('/').nth(4).unwrap();
        lines.extend([format!("pid {}", node.pid), format!("port {rpc}"), format!("port {p2p}")]);
    }
    let unfinished = told.with_extension("unfinished");
    fs::write(&unfinished, lines.join("\n")).unwrap();
    fs::rename(unfinished, told).unwrap();
    assert!(env::var_os(PANICS).is_none(), "this panic is the test");
    net.await_height(u64::MAX).unwrap();
}

/// What a child has started.
struct Told {
    dir: PathBuf,
    pids: Vec<u32>,
    ports: Vec<u16>,
}

impl Told {
    fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let values = |kind: &str| -> Vec<String> {
            let value = |line: &str| line.strip_prefix(kind)?.strip_prefix(' ').map(str::to_owned);
            text.lines().filter_map(value).collect()
        };
        Some(Self {
            dir: values("dir").remove(0).into(),
            pids: values("pid").iter().map(|pid| pid.parse().unwrap()).collect(),
            ports: values("port").iter().map(|port| port.parse().unwrap()).collect(),
        })
    }

    fn runs(&self) -> bool {
        self.pids.iter().all(|pid| !has_ended(*pid)) && self.ports.iter().all(|port| listens(*port))
    }

    fn is_over(&self) -> bool {
        self.pids.iter().all(|pid| has_ended(*pid)) && !self.ports.iter().any(|port| listens(*port))
    }
}

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// This test program, told to run only the child.
fn child(folder: &Folder) -> (Command, PathBuf) {
    let told = folder.join("told");
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "a_child_starts_a_network", "--nocapture"])
        .env(TOLD, &told)
        .env("CAIRN_NODE", node_program().get_program())
        .env("TMPDIR", folder.path());
    (command, told)
}

#[test]
fn a_panic_leaves_nothing() {
    let folder = Folder::new();
    let (mut command, told) = child(&folder);
    let log = folder.join("child.log");
    let mut process = Process::spawn(command.env(PANICS, "1"), &log);
    let status = process.wait();
    let text = fs::read_to_string(&log).unwrap();
    assert_eq!(status.code(), Some(101), "{text}");
    let told = Told::read(&told).unwrap();
    assert!(told.is_over(), "a process or port is left: {text}");
    assert!(!told.dir.exists(), "the folder is left");
    assert!(text.contains("this panic is the test") && text.contains("node1/node.log"), "{text}");
}

#[test]
fn a_killed_test_leaves_no_process_and_no_port() {
    for _ in 0..rounds(5) {
        let folder = Folder::new();
        let (mut command, path) = child(&folder);
        let mut process = Process::spawn(&mut command, &folder.join("child.log"));
        let told = until("the child has started a network", || {
            assert_eq!(process.ended(), None, "the child has ended");
            Told::read(&path)
        });
        assert!(told.runs());
        process.kill();
        process.wait();
        until("all processes end and all ports are free", || told.is_over().then_some(()));
    }
}
