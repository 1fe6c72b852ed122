//! What happens to real processes, story by story.
//!
//! `CAIRN_STORY_ROUNDS=20` lengthens the stories that kill at random moments.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use ledger::api::{TxStatus, code};
use ledger::codec;
use ledger::genesis::Genesis;
use ledger::hash::{ChainId, Hash};
use ledger::units::Timestamp;
use serde_json::{Value, json};
use tests::story::{
    Failure, Folder, Network, Payer, Reported, Rpc, Testnet, Trace, at_once, finish, has_ended,
    node_program, pause_up_to, throughout, until, wallet_program,
};

/// How long a story watches for an event that must not happen.
const A_WHILE: Duration = Duration::from_secs(5);
/// How long a node may take to call something final that is not what a story is about.
const SOON: Duration = Duration::from_secs(30);

/// A transfer by way of one node, final there. All transfers of this payer before are final.
fn pay(network: &mut Network, payer: &mut Payer, number: usize) -> String {
    let rpc = &network.node(number).rpc;
    let next = payer.nonce();
    until("the node knows what is final elsewhere", || {
        payer.catch_up(rpc).unwrap();
        (payer.nonce() >= next).then_some(())
    });
    let id = rpc.submit(&payer.transfer("")).unwrap();
    assert_eq!(rpc.is_final(&id, SOON), Ok(true), "{id}");
    id
}

/// Number of kills in stories that kill at random moments.
fn rounds() -> usize {
    std::env::var("CAIRN_STORY_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap())
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

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
    let first_block =
        until("the first block", || nodes[0].status().ok().filter(|status| status.height > 0))
            .height;

    // What the program proposes to paste, and the same for scripts, by way of a validator and of a
    // full node.
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
                // A second on a machine of one's own; this one may do ten other things.
                assert!(took < 5_000, "{took} ms");
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

    let lines = || -> Vec<usize> {
        let log = |home: &Path| fs::read_to_string(home.join("node.log")).unwrap();
        description.nodes.iter().map(|node| log(&node.home).lines().count()).collect()
    };
    let before = lines();
    until("two blocks more", || nodes[0].status().ok().filter(|status| status.height >= later + 2));
    assert_eq!(lines(), before, "nothing is logged per block");
    assert!(before.iter().all(|lines| *lines < 10), "{before:?}");
}

#[test]
fn one_of_four_is_killed_and_comes_back() {
    let mut network = Network::start(4);
    network.await_blocks(3);
    let key = network.node(2).status().validator.unwrap();
    network.crash(2).await_blocks(5);
    let missed = network.height();
    network.restart(2).await_height(missed);
    let from = network.height() + 1;

    // It signs again: not each certificate needs it, but some have it, and blocks of its own.
    let (mut height, mut signed, mut proposed) = (from, false, false);
    until("the node that came back signs and proposes", || {
        while let Ok(block) = network.node(1).rpc.block(height) {
            signed |= block.signers.contains(&key);
            proposed |= block.summary.proposer == key;
            height += 1;
        }
        (signed && proposed).then_some(())
    });
    network.assert_no_equivocation().await_blocks(1).assert_one_history();
}

#[test]
fn two_of_four_are_killed_and_nothing_is_final_until_one_is_back() {
    let mut network = Network::start(4);
    network.await_blocks(3).crash(1).crash(3);
    let mut payer = Payer::new("alice", "bob", network.chain());
    let rpc = &network.node(2).rpc;
    payer.catch_up(rpc).unwrap();
    // A block decided at the moment of the kill may still become final.
    let mut height = network.height();
    throughout(Duration::from_secs(2), || height = network.height());
    let id = network.node(2).rpc.submit(&payer.transfer("")).unwrap();
    // As long as three rounds take to propose and vote when they can.
    throughout(Duration::from_secs(8), || {
        assert_eq!(network.height(), height, "two of four are no quorum")
    });
    assert_eq!(network.node(4).rpc.is_final(&id, Duration::ZERO), Ok(false));

    network.restart(3).await_blocks(3);
    assert_eq!(network.node(2).rpc.is_final(&id, SOON), Ok(true));
    network
        .assert_no_equivocation()
        .restart(1)
        .await_blocks(3)
        .assert_no_equivocation()
        .assert_one_history();
}

#[test]
fn all_four_are_killed_and_go_on() {
    let mut network = Network::start(4);
    let mut payer = Payer::new("carol", "dave", network.chain());
    let ids: Vec<String> = (1..=3).map(|number| pay(&mut network, &mut payer, number)).collect();
    let height = network.height();
    network.crash_all().restart_all().await_height(height).await_blocks(3);
    network.assert_no_equivocation().assert_one_history();
    for node in network.running() {
        assert!(
            ids.iter().all(|id| node.rpc.is_final(id, Duration::ZERO) == Ok(true)),
            "{}",
            node.name
        );
    }
    network.node(3).stop();
    network.node(3).verify();
    pay(&mut network, &mut payer, 1);
}

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
    // What cannot be read, and what can be read and breaks a rule: everything of it at once.
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

    // A valid genesis of another chain: its node finds nobody to talk to, while one of this chain
    // does at once.
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

#[test]
fn a_killed_validator_never_contradicts_itself() {
    let mut network = Network::start(4);
    // Without the fourth nothing is final unless all of the others sign, so they wait for what the
    // killed one says next.
    network.await_blocks(1).crash(4);
    for crash in 0..4 * rounds() {
        let victim = 1 + crash % 3;
        let log = network.node(victim).home.join("consensus.log");
        let length = || fs::metadata(&log).unwrap().len();
        let before = length();
        at_once("it writes down what it is about to say", || (length() > before).then_some(()));
        // About as long as it takes to say it, and to hear from the others what makes a block
        // final.
        pause_up_to(Duration::from_millis(8));
        network.crash(victim).restart(victim).await_blocks(1).assert_no_equivocation();
    }
    network.restart(4).await_blocks(2).assert_one_history();
    let caught = |log: String| log.contains("signed two different messages");
    assert!(!network.nodes().iter().any(|node| caught(node.log_text())));
}

#[test]
fn what_was_called_final_survives_any_kill() {
    let rounds = rounds();
    let mut network = Network::start(4);
    let pairs = [("alice", "bob"), ("bob", "carol"), ("carol", "dave"), ("dave", "alice")];
    let chain = network.chain();
    let mut payers = pairs.map(|(from, to)| Payer::new(from, to, chain));
    let reported = Reported::default();
    for round in 1..=rounds {
        let goal = reported.count() + 30;
        std::thread::scope(|scope| {
            for (payer, node) in payers.iter_mut().zip(network.nodes().iter()) {
                let rpc = Rpc::new(node.rpc.url());
                let reported = &reported;
                scope.spawn(move || {
                    let failure = payer.pay_until_silent(&rpc, reported);
                    assert!(matches!(failure, Failure::Silent(_)), "{failure:?}");
                });
            }
            until("transfers are final", || (reported.count() >= goal).then_some(()));
            pause_up_to(Duration::from_millis(700));
            network.crash_all();
        });
        println!("round {round} of {rounds}: {} transfers were called final", reported.count());
        if round == rounds {
            // As the kill left it, before any node has opened it again.
            network.nodes().iter().for_each(|node| node.verify());
        }
        network.restart_all().await_blocks(1);
        network.running().for_each(|node| reported.assert_final_at(&node.name, &node.rpc));
        network.assert_no_equivocation();
    }
    network.assert_one_history();
    network.nodes().iter_mut().for_each(|node| node.stop());
    network.nodes().iter().for_each(|node| node.verify());
}

#[test]
fn durable_before_audible() {
    let mut network = Network::make(4);
    let traces: Vec<_> = (1..=4).map(|number| network.path(&format!("trace{number}"))).collect();
    for (node, path) in network.nodes().iter_mut().zip(&traces) {
        let Some(mut strace) = Trace::command(path) else {
            println!("skipped: there is no strace here that may trace");
            return;
        };
        node.start_under(&mut strace);
    }
    let mut payer = Payer::new("alice", "bob", network.chain());
    let mut sent: Vec<(String, String)> = Vec::new();
    for number in 1..=4 {
        network.node(number).status();
        let rpc = &network.node(number).rpc;
        // A node that has not heard of the one before would give its nonce again.
        if let Some((before, _)) = sent.last() {
            assert_eq!(rpc.is_final(before, SOON), Ok(true));
        }
        payer.catch_up(rpc).unwrap();
        let memo = format!("the memo of transfer {number}");
        let id = rpc.submit(&payer.transfer(&memo)).unwrap();
        assert_eq!(rpc.is_final(&id, SOON), Ok(true));
        sent.push((id, memo));
    }
    let heights = network.await_blocks(2).height();
    network.nodes().iter_mut().for_each(|node| node.stop());
    for (path, (id, memo)) in traces.iter().zip(&sent) {
        let trace = Trace::read(path);
        // Votes are encrypted when they leave, and by another thread; but the thread that logged
        // them does nothing at all before they are on the disk, so it cannot have handed them on.
        let (bad, good) = trace.writes_not_followed_by_sync("/consensus.log");
        println!("{good} writes to the consensus log in {heights} heights, each synced");
        assert!(bad == 0 && good as u64 >= heights, "{bad} {good}");
        trace.is_durable_before("/db/db", memo, &[id, r#"\"final\""#]).unwrap();
    }
}

#[test]
fn hostile_requests_are_answered_and_harm_nobody() {
    let mut network = Network::start(1);
    let mut payer = Payer::new("alice", "bob", network.chain());
    let good = codec::encode(&payer.transfer("good"));
    let foreign = codec::encode(&Payer::new("alice", "bob", ChainId(Hash::ZERO)).transfer(""));
    let rpc = Rpc::new(network.node(1).rpc.url());

    let refused = |bytes: &[u8]| match rpc.submit_bytes(bytes) {
        Err(Failure::Refused(code, reason, message)) => {
            assert!(
                code == i64::from(code::REJECTED) && !message.is_empty(),
                "{code} {reason} {message}"
            );
            reason
        }
        other => panic!("{}: {other:?}", hex::encode(bytes)),
    };
    assert_eq!(refused(&foreign), "signature");
    assert_eq!(refused(&[&good[..], &[0]].concat()), "malformed");
    assert_eq!(refused(&vec![0; 10_000]), "malformed");
    assert_eq!(refused(&vec![0xff; 400_000]), "malformed");
    for length in (0..good.len()).step_by(7) {
        assert_eq!(refused(&good[..length]), "malformed");
    }
    for bit in (0..8 * good.len()).step_by(11) {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        refused(&flipped);
    }

    let post = |body: &[u8]| rpc.post("application/json", body);
    let code_of = |text: &str| json_of(text)["error"]["code"].as_i64().unwrap();
    for (body, code) in [
        (&b""[..], -32_700),
        (b"{", -32_700),
        (b"\xff\xfe\x00", -32_700),
        (b"[]", -32_600),
        (b"7", -32_600),
        (br#"{"jsonrpc":"2.0","id":1,"method":"nothing"}"#, -32_601),
        (
            br#"{"jsonrpc":"2.0","id":1,"method":"tx_submit","params":{"transaction":"xyz"}}"#,
            -32_602,
        ),
        (br#"{"jsonrpc":"2.0","id":1,"method":"tx_submit","params":{"transaction":7}}"#, -32_602),
        (br#"{"jsonrpc":"2.0","id":1,"method":"chain_block","params":{"height":"-1"}}"#, -32_602),
        (br#"{"jsonrpc":"2.0","id":1,"method":"tx_get","params":{"id":"zz"}}"#, -32_602),
    ] {
        let (_, text) = post(body).unwrap();
        assert_eq!(code_of(&text), code, "{:?}: {text}", String::from_utf8_lossy(body));
    }
    let deep = "[".repeat(500_000);
    assert!(matches!(code_of(&post(deep.as_bytes()).unwrap().1), -32_700 | -32_600));
    assert_eq!(rpc.post("text/plain", b"{}").map(|(status, _)| status), Ok(415));

    // Far too long bodies, from many at once; and bytes that are no HTTP, and none of our protocol
    // between peers.
    let p2p = network.node(1).p2p.split('/').nth(4).unwrap().parse().unwrap();
    let http = rpc.url().rsplit_once(':').unwrap().1.parse().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let body = vec![b' '; 64 << 20];
                // Refused with an answer, or cut off while the rest was still on its way.
                if let Ok((status, _)) = Rpc::new(rpc.url()).post("application/json", &body) {
                    assert_eq!(status, 413);
                }
            });
        }
        for port in [http, p2p] {
            scope.spawn(move || (0..20).for_each(|number| throw_garbage(port, number)));
        }
    });

    let pid = network.node(1).process().id();
    let rss = resident_bytes(pid);
    println!("resident memory after all that: {} MiB", rss >> 20);
    assert!(rss < 300 << 20, "{rss} bytes");
    assert_eq!(rpc.submit_bytes(&good).and_then(|id| rpc.is_final(&id, SOON)), Ok(true));
    network.await_blocks(2);
    assert!(!network.node(1).log_text().contains("panicked"));
}

/// Sends bytes without meaning and waits until the other side hangs up, or says no more.
fn throw_garbage(port: u16, number: u8) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let bytes: Vec<u8> = (0..20_000u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8 ^ number)
        .collect();
    // It may hang up at any moment.
    let _ = stream.write_all(&bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    let _ = stream.read_to_end(&mut Vec::new());
}

fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
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
    let stopped = |home: &Path| {
        fs::read_to_string(home.join("node.log")).unwrap().trim_end().ends_with("stopped")
    };
    assert!(first.nodes.iter().all(|node| stopped(&node.home)), "its nodes end by themselves");

    let resumed = Testnet::resume(&folder);
    assert_eq!(resumed.description.chain, first.chain);
    until("the network goes on", || height_of(2).filter(|found| *found > height));
    let second = resumed.description.clone();
    resumed.kill();
    until("nodes end with their parent", || {
        second.nodes.iter().all(|node| has_ended(node.pid)).then_some(())
    });

    let again = Testnet::resume(&folder);
    assert_eq!(again.description.chain, first.chain);
    let height = height_of(0).unwrap();
    assert!(height > 4);
    until("the network goes on after the kill", || {
        height_of(0).filter(|found| *found >= height + 2)
    });
    assert_eq!(again.stop(), Some(0));
}

#[test]
fn a_test_network_refuses_taken_ports() {
    let folder = Folder::new();
    // Two of the six that three nodes would take.
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
