//! Nodes that join a network, and nodes that are refused.

use std::fs;

use ledger::genesis::Genesis;
use ledger::units::Timestamp;
use serde_json::json;
use tests::story::{Network, Payer, finish, node_program, throughout, until};

use super::{A_WHILE, json_of, pay};

#[test]
fn a_full_node_joins_late_and_serves_others() {
    let mut network = Network::start(4);
    network.await_blocks(10);
    let (genesis, peers) = (network.genesis().clone(), vec![network.node(1).p2p.clone()]);
    network.add(&genesis, &peers).start();
    let status = network.await_blocks(2).node(5).status();
    assert!(status.validator.is_none() && status.peers > 0 && !status.syncing, "{status:?}");
    network.assert_one_history();
    let mut payer = Payer::new("alice", "bob", network.chain());
    pay(&mut network, &mut payer, 5);

    // The next node has no other peer to fetch from.
    let height = network.node(5).status().height;
    for number in 1..=4 {
        network.crash(number);
    }
    let peers = vec![network.node(5).p2p.clone()];
    network.add(&genesis, &peers).start();
    network.node(6).await_height(height);
    network.assert_one_history();
}

#[test]
fn a_wrong_genesis_is_refused() {
    let mut network = Network::start(1);
    let right = network.genesis().clone();
    let broken = network.path("broken.json");
    let home = network.path("none");
    // Mistakes that make a genesis unreadable, and mistakes that break a rule. All mistakes of a
    // kind are named at once.
    let unreadable = [
        ("/accounts/1/balance", json!("a lot"), "accounts[1].balance"),
        ("/validators/0/key", json!("abc"), "validators[0].key"),
        ("/start_time", json!(7), "start_time"),
        ("/limits", json!({}), "limits.block_bytes_max"),
    ];
    let forbidden = [
        ("/limits/block_bytes_max", json!("1"), "limits.block_bytes_max"),
        ("/accounts/1/name", json!("alice"), "accounts[1].name"),
        ("/validators/0/power", json!("0"), "validators[0].power"),
        ("/network", json!("Örtlich"), "network"),
    ];
    for mistakes in [unreadable, forbidden] {
        let mut genesis = json_of(&fs::read_to_string(&right).unwrap());
        for (at, value, _) in &mistakes {
            *genesis.pointer_mut(at).unwrap() = value.clone();
        }
        fs::write(&broken, genesis.to_string()).unwrap();
        let (mut check, mut init) = (node_program(), node_program());
        check.args(["genesis", "check"]).arg(&broken);
        init.args(["init", "--home"]).arg(&home).arg("--genesis").arg(&broken);
        for command in [&mut check, &mut init] {
            let done = finish(command);
            assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{done:?}");
            let named = |path: &str| {
                done.stderr.lines().any(|line| line.trim().starts_with(&format!("{path}: ")))
            };
            let missing: Vec<_> = mistakes.iter().filter(|(.., path)| !named(path)).collect();
            assert!(missing.is_empty(), "{missing:?} not named in:\n{}", done.stderr);
        }
        assert!(!home.exists(), "nothing is left of a refused home");
        let done = finish(node_program().args(["genesis", "check", "--json"]).arg(&broken));
        let answer = json_of(&done.stdout);
        assert_eq!((done.code, answer["valid"].as_bool()), (Some(1), Some(false)), "{done:?}");
        assert!(answer["problems"].as_array().unwrap().len() >= mistakes.len());
    }

    // A valid genesis of another chain. Its node finds nobody to talk to, while a node of this
    // chain finds a peer at once.
    let mut other = Genesis::from_json(&fs::read(&right).unwrap()).unwrap();
    other.start_time = Timestamp(other.start_time.0 + 1);
    let wrong = network.path("other.json");
    fs::write(&wrong, other.to_json()).unwrap();
    let peers = vec![network.node(1).p2p.clone()];
    network.add(&wrong, &peers).start();
    network.add(&right, &peers).start();
    network.node(2).status();
    until("a node of the same chain has a peer", || {
        Some(network.node(3).status().peers).filter(|peers| *peers > 0)
    });
    throughout(A_WHILE, || {
        let stranger = network.node(2).status();
        assert_eq!((stranger.peers, stranger.height), (0, 0), "{stranger:?}");
        assert_eq!(network.node(1).status().peers, 1);
    });
    network.node(2).stop();
    network.await_blocks(2);
}

#[test]
fn two_nodes_on_one_home_are_refused() {
    let mut network = Network::start(1);
    let home = network.node(1).home.clone();
    let pid = network.node(1).process().id();
    for words in [&["run"][..], &["db", "verify"], &["db", "export", "--to", "nowhere"]] {
        let done = finish(node_program().args(words).arg("--home").arg(&home));
        let expected = format!("{} is in use by process {pid}", home.display());
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.stderr.contains(&expected) && done.stderr.lines().count() == 1, "{done:?}");
    }
    network.await_blocks(2);
}
