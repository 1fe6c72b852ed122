//! No node can make the wallet sign a transfer that would have to wait for transfers that do not
//! exist. Wallets that share a key can still send transfers one after the other.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod fake_node;
mod program;

use fake_node::{FakeNode, Lie, now};
use program::{Setup, setup};

/// The nonces of the transfers that wait, in order.
fn waiting(node: &FakeNode) -> Vec<u64> {
    node.lock().waiting.iter().map(|transaction| transaction.transfer().nonce.0).collect()
}

/// The transfers that the wallet has stored.
fn unfinished(setup: &Setup) -> String {
    std::fs::read_to_string(setup.home.path().join("unfinished.json")).unwrap_or_default()
}

#[test]
fn a_nonce_that_a_node_makes_up_is_not_signed() {
    let setup = setup();
    // The first round is before the first block, the second after it.
    for proved in 0..2 {
        setup.node.lie(Lie::NonceAhead);
        let claimed = proved + 3;
        let sent = setup.send(&["--timeout", "0s"]);
        let sent = sent.expect(1, &format!("is {claimed}, but it is {proved} by proof"));
        assert!(
            sent.stderr.contains(&format!(
                "shows no waiting transfer of nonce {proved}; nothing was sent"
            ))
        );
        assert_eq!(
            (sent.stdout.as_str(), unfinished(&setup).trim_end()),
            ("", if proved == 0 { "" } else { "[]" })
        );
        setup.node.lie(Lie::None);
        setup.send(&[]).expect(0, "");
    }
    // A nonce that is too low is not signed either.
    setup.node.lie(Lie::NonceBehind);
    setup.send(&[]).expect(0, "");
    assert_eq!(setup.node.lock().blocks[2].0.block().transactions[0].transfer().nonce.0, 2);
}

#[test]
fn transfers_that_a_node_forges_fill_no_nonce() {
    let setup = setup();
    setup.node.lie(Lie::ForgedPending);
    let other = setup.node.lock().transfer("alice", "dave", 0);
    setup.node.lock().waiting.push(other);
    setup.send(&["--timeout", "0s"]).expect(1, "shows no waiting transfer of nonce 0");
    assert_eq!(waiting(&setup.node), [0]);
}

#[test]
fn a_transfer_queues_behind_those_of_another_wallet_with_the_key() {
    let setup = setup();
    setup.node.lie(Lie::Stalls);
    for nonce in 0..3 {
        let other = setup.node.lock().transfer("alice", "dave", nonce);
        setup.node.lock().waiting.push(other);
    }
    setup.send(&["--timeout", "0s"]).expect(5, "It may still become final");
    assert_eq!(waiting(&setup.node), [0, 1, 2, 3]);
    setup.node.lock().commit_waiting();
    setup.send(&["--timeout", "0s"]).expect(0, "is not sent again");
}

#[test]
fn a_script_that_does_not_wait_sends_transfers_in_a_row() {
    let setup = setup();
    setup.node.lie(Lie::Stalls);
    for amount in 1..=10 {
        let amount = format!("{amount} CRN");
        let args = [
            "send",
            "--from",
            "alice",
            "--to",
            "bob",
            "--amount",
            &amount,
            "--yes",
            "--timeout",
            "0s",
        ];
        setup.run(&args).expect(5, "It may still become final");
    }
    assert_eq!(waiting(&setup.node), (0..10).collect::<Vec<_>>());
    // The wallet stored all these transfers itself, so it did not ask for the node's mempool.
    assert_eq!(setup.node.lock().lists_asked, 0);
}

#[test]
fn a_transfer_waits_until_transfers_that_are_not_shown_are_final() {
    let setup = setup();
    setup.node.lie(Lie::NoList);
    let other = setup.node.lock().transfer("alice", "dave", 0);
    setup.node.lock().waiting.push(other);
    let node = setup.node.clone();
    let later = std::thread::spawn(move || {
        node.wait_until(|node| node.lists_asked >= 2).commit_waiting();
    });
    setup.send(&[]).expect(0, "waiting until they are final");
    later.join().unwrap();
    let node = setup.node.lock();
    assert_eq!(node.blocks[1].0.block().transactions[0].transfer().nonce.0, 1);
}

#[test]
fn the_nonce_of_a_transfer_that_has_expired_is_free() {
    let setup = setup();
    let expired = setup.node.lock().transfer_until("alice", "dave", 0, now() - 1);
    setup.node.lock().waiting.push(expired);
    setup.send(&[]).expect(0, "");
    let node = setup.node.lock();
    assert_eq!(node.blocks[0].0.block().transactions[0].transfer().nonce.0, 0);
}
