//! Validators that are killed and come back.

use std::fs;
use std::time::Duration;

use tests::story::{
    Failure, Network, Payer, Reported, Rpc, Trace, at_once, pause_up_to, rounds, throughout, until,
};

use super::{SOON, pay};

#[test]
fn one_of_four_is_killed_and_comes_back() {
    let mut network = Network::start(4);
    network.await_blocks(3);
    let key = network.node(2).status().validator.unwrap();
    network.crash(2).await_blocks(5);
    let missed = network.height();
    network.restart(2).await_height(missed);
    let from = network.height() + 1;

    // It signs again. Not every certificate needs its vote, but some have it, and it proposes
    // blocks.
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
    // A block that was decided at the moment of the kill may still become final. It does not have
    // this transfer.
    let id = network.node(2).rpc.submit(&payer.transfer("")).unwrap();
    // This is longer than the timeouts of the first two rounds together, which are 5 s.
    throughout(Duration::from_secs(8), || {
        let is_final = |number| network.node(number).rpc.is_final(&id, Duration::ZERO);
        let seen = [2, 4].map(is_final);
        assert!(seen[0] == Ok(false) && seen[1] != Ok(true), "no quorum: {seen:?}");
    });

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
fn a_killed_validator_never_contradicts_itself() {
    let mut network = Network::start(4);
    // Without the fourth validator nothing is final unless all others sign. So they wait for what
    // the killed one signs next.
    network.await_blocks(1).crash(4);
    for crash in 0..4 * rounds(3) {
        let victim = 1 + crash % 3;
        let log = network.node(victim).home.join("consensus.log");
        let length = || fs::metadata(&log).unwrap().len();
        let before = length();
        at_once("it writes down what it is about to say", || (length() > before).then_some(()));
        // About as long as it takes to send the message, and to hear from the others what makes a
        // block final.
        pause_up_to(Duration::from_millis(8));
        network.crash(victim).restart(victim).await_blocks(1).assert_no_equivocation();
    }
    network.restart(4).await_blocks(2).assert_one_history();
    let caught = |log: String| log.contains("signed two different messages");
    assert!(!network.nodes().iter().any(|node| caught(node.log_text())));
}

#[test]
fn what_was_called_final_survives_any_kill() {
    let rounds = rounds(3);
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
            // The stores are verified as the kill left them, before any node has opened them again.
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
        // A node that has not heard of the previous transfer would name its nonce as the next one.
        if let Some((before, _)) = sent.last() {
            assert_eq!(rpc.is_final(before, SOON), Ok(true));
        }
        payer.catch_up(rpc).unwrap();
        // A memo may be cut in two where a page of history ends. One of its halves is whole then.
        let half = format!("the memo of transfer {number}");
        let id = rpc.submit(&payer.transfer(&format!("{half}, {half}"))).unwrap();
        assert_eq!(rpc.is_final(&id, SOON), Ok(true));
        sent.push((id, half));
    }
    let heights = network.await_blocks(2).height();
    network.nodes().iter_mut().for_each(|node| node.stop());
    for (path, (id, memo)) in traces.iter().zip(&sent) {
        let trace = Trace::read(path);
        // Votes are encrypted when they leave, and another thread sends them. But the thread that
        // logged them does nothing before they are on the disk, so it cannot have handed them on
        // earlier.
        let (bad, good) = trace.writes_not_followed_by_sync("/consensus.log");
        println!("{good} writes to the consensus log in {heights} heights, each synced");
        assert!(bad == 0 && good as u64 >= heights, "{bad} {good}");
        // The last bytes of history are in the database until they fill a page of a file.
        let said = [id, r#"\"final\""#];
        trace
            .is_durable_before("/db/db", memo, &said)
            .or_else(|_| trace.is_durable_before(".blocks", memo, &said))
            .unwrap();
    }
}
