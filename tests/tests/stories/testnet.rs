//! A local network that one command makes.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use ledger::api::TxStatus;
use tests::story::{Folder, Rpc, Testnet, finish, has_ended, node_program, until, wallet_program};

use super::{SOON, json_of, was_killed};

#[test]
fn a_transfer_is_final_everywhere_within_a_second_and_an_idle_network_is_silent() {
    let folder = Folder::new();
    let testnet = Testnet::start(&folder, 4, 1);
    let description = &testnet.description;
    assert_eq!(
        description.nodes.iter().map(|node| node.validator).collect::<Vec<_>>(),
        [true, true, true, true, false]
    );
    let wallet = |node: usize, words: &[&str]| {
        let rpc = &description.nodes[node].rpc;
        let done = finish(
            wallet_program()
                .arg("--home")
                .arg(&description.wallet_home)
                .args(["--rpc", rpc])
                .args(words),
        );
        assert_eq!(done.code, Some(0), "{done:?}");
        done.stdout
    };
    let nodes: Vec<Rpc> = description.nodes.iter().map(|node| Rpc::new(&node.rpc)).collect();
    // The full node takes no transfer before the peers that it names have answered.
    let first_block = until("the first block on all nodes", || {
        let heights = nodes.iter().map(|node| Some(node.status().ok()?.height));
        heights.min().flatten().filter(|height| *height > 0)
    });

    // The command that the program proposes to paste, by way of a validator, and the same command
    // for scripts, by way of a full node.
    let pasted =
        testnet.output().lines().find(|line| line.contains("--amount")).unwrap().to_owned();
    assert!(pasted.contains("send --from alice --to bob --amount \"1.5 CRN\" --yes"), "{pasted}");
    let send = ["send", "--from", "alice", "--to", "bob", "--amount", "1.5 CRN", "--yes"];
    let plain = wallet(0, &send);
    let id = plain.trim_end();
    assert!(
        plain == format!("{id}\n") && id.len() == 64 && hex::decode(id).is_ok(),
        "the id alone: {plain:?}"
    );
    let json = json_of(&wallet(4, &[&send[..], &["--json", "--timeout", "20s"]].concat()));
    assert_eq!(json["status"], "final");
    let height: u64 = json["height"].as_str().unwrap().parse().unwrap();
    assert!(height > first_block);

    for (accepting, id) in [(0, id), (4, json["id"].as_str().unwrap())] {
        for (number, node) in nodes.iter().enumerate() {
            let info = node.transaction(id, SOON).unwrap();
            assert_eq!(info.status, TxStatus::Final);
            if number == accepting {
                let took = info.final_at.unwrap() - info.accepted_at.unwrap();
                println!("accepted to final: {took} ms by node{}", number + 1);
            }
        }
    }

    let later = until("every node has the block", || {
        nodes
            .iter()
            .all(|node| node.status().is_ok_and(|status| status.height >= height))
            .then_some(height)
    });
    let blocks: Vec<_> = nodes.iter().map(|node| node.block(later).unwrap()).collect();
    assert!(blocks.iter().all(
        |block| block.summary == blocks[0].summary && block.state_root == blocks[0].state_root
    ));
    for node in 0..nodes.len() {
        let bob = json_of(&wallet(node, &["balance", "bob", "--json"]));
        assert_eq!(
            (bob["balance"].as_str(), bob["nonce"].as_str()),
            (Some("1000003000000000"), Some("0"))
        );
    }

    is_silent(&testnet);
}

/// An idle network logs little at its start, and nothing for each block. A slow machine may make
/// nodes warn of slow rounds. So warnings do not count, and two blocks without a line are enough.
fn is_silent(testnet: &Testnet) {
    let nodes = &testnet.description.nodes;
    let lines = || -> Vec<usize> {
        let log = |home: &Path| fs::read_to_string(home.join("node.log")).unwrap();
        let count = |log: String| log.lines().filter(|line| !line.contains(" WARN ")).count();
        nodes.iter().map(|node| count(log(&node.home))).collect()
    };
    let first = Rpc::new(&nodes[0].rpc);
    let (mut height, mut logged) = (u64::MAX, Vec::new());
    until("two blocks for which nothing is logged", || {
        let (now, lines) = (first.status().ok()?.height, lines());
        if lines != logged {
            (height, logged) = (now, lines);
        }
        (now >= height.saturating_add(2)).then_some(())
    });
    assert!(logged.iter().all(|lines| *lines < 10), "{logged:?}");
}

#[test]
fn a_test_network_stops_resumes_and_ends_with_its_parent() {
    let folder = Folder::new();
    let testnet = Testnet::start_quick(&folder, 2, 1);
    let first = testnet.description.clone();
    let height_of =
        |node: usize| Rpc::new(&first.nodes[node].rpc).status().ok().map(|status| status.height);
    let height = until("four blocks", || height_of(2).filter(|height| *height >= 4));
    assert_eq!(testnet.stop(), Some(0));
    assert!(first.nodes.iter().all(|node| has_ended(node.pid)), "its nodes end before it does");
    assert!(!folder.join("network/network.json").exists(), "what ended is not told as running");
    let said = fs::read_to_string(folder.join("network.log")).unwrap();
    for node in &first.nodes {
        let is_whole = has_said_stopped(&node.home) || was_killed(&said, &node.name);
        assert!(is_whole, "{} ends by itself: {said}", node.name);
    }

    let resumed = Testnet::resume(&folder);
    assert_eq!(resumed.description.chain, first.chain);
    until("the network goes on", || height_of(2).filter(|found| *found > height));
    let second = resumed.description.clone();
    resumed.kill();
    until("nodes end with their parent", || {
        second.nodes.iter().all(|node| has_ended(node.pid)).then_some(())
    });
    // The parent is dead, so nothing has killed a node that was slow to stop.
    assert!(second.nodes.iter().all(|node| has_said_stopped(&node.home)), "they end in order");

    let again = Testnet::resume(&folder);
    assert_eq!(again.description.chain, first.chain);
    let height = height_of(0).unwrap();
    assert!(height > 4);
    until("the network goes on after the kill", || {
        height_of(0).filter(|found| *found >= height + 2)
    });
    assert_eq!(again.stop(), Some(0));
}

/// Whether the last line of a node's log is that of a node that ends in order.
fn has_said_stopped(home: &Path) -> bool {
    fs::read_to_string(home.join("node.log")).unwrap().trim_end().ends_with("stopped")
}

#[test]
fn a_test_network_refuses_taken_ports() {
    let folder = Folder::new();
    // Two of the six ports that three nodes would take.
    let taken: Vec<TcpListener> = until("two ports ten apart are free", || {
        let first = TcpListener::bind("127.0.0.1:0").ok()?;
        let port = first.local_addr().ok()?.port();
        let second = TcpListener::bind(("127.0.0.1", port.checked_add(10)?)).ok()?;
        Some(vec![first, second])
    });
    let ports: Vec<u16> =
        taken.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    let dir = folder.join("network");
    let mut command = node_program();
    command
        .args(["testnet", "--plain", "--nodes", "3", "--base-port", &ports[0].to_string(), "--dir"])
        .arg(&dir);
    let done = finish(&mut command);
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{done:?}");
    for expected in [ports[0].to_string(), ports[1].to_string(), "--base-port".to_owned()] {
        assert!(done.stderr.contains(&expected), "{expected} in {done:?}");
    }
    assert!(!dir.join("network.json").exists() && !dir.join("node1").exists());
}
