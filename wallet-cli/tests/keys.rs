//! Keys, passwords and the files of a wallet, as its program handles them.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod fake_node;
mod program;

use std::path::Path;

use fake_node::{FakeNode, genesis, validator};
use ledger::genesis::template_key;
use program::{Outcome, private_dir, run_with, setup};
use serde_json::Value;

#[test]
fn a_password_of_ones_own_is_slow_to_guess_on_every_network() {
    let setup = setup();
    setup.run(&["list"]).expect(0, "");
    let work = |home: &Path| {
        let text = std::fs::read_to_string(home.join("keystore.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["argon2id"].clone()
    };
    let dir = tempfile::tempdir().unwrap();
    let (own, password) = (dir.path().join("own"), dir.path().join("password"));
    std::fs::write(&password, "secret\n").unwrap();
    let args = ["new", "main", "--password-file", password.to_str().unwrap()];
    run_with(&own, &setup.node.url, "", &args).expect(0, "now for the network \"local\"");
    assert_eq!(work(&own), serde_json::json!(wallet::keystore::KdfParams::DEFAULT));
    assert_eq!(work(setup.home.path()), serde_json::json!(wallet::keystore::KdfParams::LOCAL));
}

#[test]
fn wallets_of_a_local_network_that_start_at_once_agree() {
    for _ in 0..3 {
        let setup = setup();
        let listed: Vec<String> = std::thread::scope(|scope| {
            let start = |_| scope.spawn(|| setup.run(&["list"]).expect(0, "").stdout);
            let started: Vec<_> = (0..6).map(start).collect();
            started.into_iter().map(|wallet| wallet.join().unwrap()).collect()
        });
        let expected: String = ["alice", "bob  ", "carol", "dave "]
            .map(|name| {
                let key = template_key(name.trim()).unwrap().public();
                format!("{name}  {}\n", setup.node.lock().address(&key))
            })
            .concat();
        assert!(listed.iter().all(|list| *list == expected), "{listed:?}");
    }
}

#[test]
fn the_public_password_is_for_local_networks_only() {
    let node = FakeNode::start(genesis("main"));
    let home = private_dir();
    for (name, text) in
        [("password", "local\n"), ("template-accounts.json", r#"{"accounts":["alice"]}"#)]
    {
        std::fs::write(home.path().join(name), text).unwrap();
    }
    let listed =
        run_with(home.path(), &node.url, "", &["list", "--json"]).expect(0, "network \"main\"");
    assert_eq!(listed.line(), "[]");
    assert!(!home.path().join("keystore.json").exists());
}

/// The homes of several wallets, which share a password file and a genesis file.
struct Homes {
    dir: tempfile::TempDir,
    password: String,
    genesis: String,
}

impl Homes {
    fn new(node: &FakeNode) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let (password, genesis) = (path("pw"), path("genesis"));
        std::fs::write(&password, "secret\n").unwrap();
        let homes = Self { dir, password, genesis };
        homes.offer(node);
        homes
    }

    /// Puts the genesis of this node into the genesis file.
    fn offer(&self, node: &FakeNode) {
        std::fs::write(&self.genesis, node.lock().chain.genesis().to_json()).unwrap();
    }

    fn with(&self, home: &str, url: &str, stdin: &str, args: &[&str]) -> Outcome {
        let args = [args, &["--password-file", &self.password]].concat();
        run_with(&self.dir.path().join(home), url, stdin, &args)
    }
}

/// A URL where no node listens.
const OFFLINE: &str = "http://127.0.0.1:1";

#[test]
fn keys_are_made_kept_and_brought_back() {
    let node = FakeNode::start(genesis("local"));
    let homes = Homes::new(&node);
    let file = &*homes.genesis;

    // Without a node, the wallet learns its chain only from a genesis file.
    homes.with("a", OFFLINE, "", &["new", "main"]).expect(3, "no answer");
    let main = homes
        .with("a", OFFLINE, "", &["new", "main", "--genesis", file])
        .expect(0, "`cairn-wallet phrase`");
    homes.with("a", OFFLINE, "", &["new", "--show-phrase", "second"]).expect(0, "");
    let listed = homes.with("a", OFFLINE, "", &["list", "--json"]).json();
    assert_eq!(listed[0]["address"], main.line());
    assert_eq!(
        (listed[1]["name"].as_str(), listed[1]["account"].as_u64()),
        (Some("second"), Some(1))
    );
    assert_eq!(
        homes.with("a", OFFLINE, "", &["address", "main"]).expect(0, "").stdout,
        main.stdout
    );
    let phrase = homes.with("a", OFFLINE, "", &["phrase"]).expect(0, "");
    assert_eq!(phrase.line().split(' ').count(), 24);
    assert!(!main.stderr.contains(phrase.line()) && !main.stdout.contains(phrase.line()));

    // A network that does not exist yet needs an address for its genesis.
    let drawn = run_with(Path::new("/dev/null"), OFFLINE, "", &["generate", "--json"]).json();
    let brought = homes.with(
        "f",
        OFFLINE,
        drawn["phrase"].as_str().unwrap(),
        &["import", "first", "--genesis", file],
    );
    assert_eq!(brought.expect(0, "").line(), drawn["address"].as_str().unwrap());
    let plain =
        homes.with("f", OFFLINE, "", &["generate", "--address-prefix", "abc"]).expect(0, "").stdout;
    let (address, words) = plain.trim_end().split_once('\n').unwrap();
    assert!(
        address.starts_with("abc1") && words.split(' ').count() == 24 && words != drawn["phrase"]
    );
    homes
        .with("f", OFFLINE, "", &["generate", "--address-prefix", "A-"])
        .expect(2, "expected 1 to 16 of a-z, 0-9");

    // The words bring the keys back, in order. The genesis here comes from the node.
    let back = homes
        .with("b", &node.url, phrase.line(), &["import", "main"])
        .expect(0, "this wallet is now for the network");
    assert_eq!(back.stdout, main.stdout);
    let second = homes.with("b", OFFLINE, "", &["new", "other"]).expect(0, "");
    assert_eq!(second.line(), listed[1]["address"].as_str().unwrap());
    assert_eq!(homes.with("b", OFFLINE, "", &["phrase"]).stdout, phrase.stdout);
    homes
        .with("b", OFFLINE, phrase.line(), &["import", "again"])
        .expect(1, "already there, named main");

    // A raw seed.
    let seed = hex::encode([77; 32]);
    let raw = homes
        .with("b", OFFLINE, &format!("{seed}\n"), &["import", "raw", "--json"])
        .expect(0, "do not bring this key back");
    assert_eq!(
        raw.json()["address"].as_str(),
        Some(node.lock().address(&validator(77).public()).as_str())
    );
    homes
        .with("c", OFFLINE, &seed, &["import", "raw", "--genesis", file])
        .expect(0, "do not bring this key back");
    for (bad, code) in [("", 2), ("abc", 2), ("abandon abandon", 1), (&seed[1..], 2)] {
        homes.with("b", OFFLINE, bad, &["import", "bad"]).expect(code, "error");
    }
    homes.with("b", OFFLINE, "", &["new", "Bad Name"]).expect(2, "1 to 32 characters");
}

#[test]
fn a_wallet_is_for_one_chain() {
    let node = FakeNode::start(genesis("local"));
    let homes = Homes::new(&node);
    let file = &*homes.genesis;
    homes.with("b", &node.url, "", &["new", "main"]).expect(0, "for the network");
    let other = FakeNode::start(genesis("main"));
    homes.offer(&other);
    homes
        .with("b", OFFLINE, "", &["new", "x", "--genesis", file])
        .expect(1, "for the network \"local\"");
    homes
        .with("b", &other.url, "", &["balance", "main"])
        .expect(1, "is on another chain: network \"main\"");
    std::fs::write(file, "{}").unwrap();
    homes.with("d", OFFLINE, "", &["new", "x", "--genesis", file]).expect(1, "network: is missing");
    homes.with("e", &node.url, "", &["balance"]).expect(1, "no keys in");
}

#[cfg(unix)]
#[test]
fn what_the_wallet_writes_is_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let setup = setup();
    std::fs::set_permissions(setup.home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    setup.send(&[]).expect(0, "");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(setup.home.path()), 0o700);
    for name in ["keystore.json", "head.json"] {
        assert_eq!(mode(&setup.home.path().join(name)), 0o600, "{name}");
    }
    let home = tempfile::tempdir().unwrap();
    let new = home.path().join("x/y");
    run_with(&new, &setup.node.url, "", &["list"]).expect(0, "now for the network");
    assert_eq!((mode(&new), mode(&new.join("genesis.json"))), (0o700, 0o600));
}
