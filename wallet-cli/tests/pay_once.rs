//! One command makes one payment, whatever nodes withhold and however many commands run at once.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod fake_node;
mod program;

use fake_node::Lie;
use program::{Setup, run_with, setup};

impl Setup {
    /// Number of transfers in blocks.
    fn paid(&self) -> usize {
        self.node.lock().blocks.iter().map(|(block, _)| block.block().transactions.len()).sum()
    }
}

#[test]
fn commands_at_once_wait_for_each_other() {
    let setup = setup();
    setup.run(&["list"]).expect(0, "");
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..8).map(|_| scope.spawn(|| setup.send(&[]))).collect();
        for sent in started {
            sent.join().unwrap().expect(0, "submitted");
        }
    });
    assert_eq!(setup.paid(), 8);
}

#[test]
fn a_nonce_that_another_wallet_takes_is_no_error() {
    let (setup, other) = (setup(), setup());
    // Another wallet with the same keys, for the same chain.
    std::fs::copy(setup.home.path().join("genesis.json"), other.home.path().join("genesis.json"))
        .unwrap();
    setup.run(&["list"]).expect(0, "");
    other.run(&["list"]).expect(0, "");
    std::thread::scope(|scope| {
        let args = ["send", "--from", "alice", "--to", "bob", "--amount", "1 CRN", "--yes"];
        let started: Vec<_> = [&setup, &other, &setup, &other, &setup, &other]
            .map(|wallet| {
                let url = &setup.node.url;
                scope.spawn(move || run_with(wallet.home.path(), url, "", &args))
            })
            .into_iter()
            .collect();
        for sent in started {
            sent.join().unwrap().expect(0, "submitted");
        }
    });
    assert_eq!(setup.paid(), 6);
}

#[test]
fn a_payment_that_a_node_keeps_back_is_resumed_and_not_made_twice() {
    let setup = setup();
    setup.node.lie(Lie::Stalls);
    let id = setup.send(&["--timeout", "0s"]).expect(5, "the same command again").line().to_owned();
    // The transfer waits in the node's mempool, so the node's pending nonce is one higher.
    let again = setup.send(&["--timeout", "0s"]).expect(5, "it is resumed, not sent a second time");
    assert_eq!(again.line(), id);
    assert_eq!(setup.node.lock().waiting.len(), 1);
    // Another payment gets the next nonce.
    let args = [
        "send",
        "--from",
        "alice",
        "--to",
        "carol",
        "--amount",
        "1 CRN",
        "--yes",
        "--timeout",
        "0s",
    ];
    let other = setup.run(&args).expect(5, "may still become final").line().to_owned();
    assert_eq!(setup.node.lock().waiting.len(), 2);
    setup.node.lie(Lie::None);
    setup.node.lock().commit_waiting();
    let last = setup.send(&[]).expect(0, "it is not sent again");
    assert_eq!(last.line(), id);
    assert_eq!(setup.paid(), 2);
    // Once the user has seen that a payment is final, the same payment is a new one. It is enough
    // to have seen it by `tx`.
    setup.run(&["tx", &other]).expect(0, "");
    let new = setup.send(&[]).expect(0, "");
    assert!(new.line() != id && setup.paid() == 3, "{new:?}");
    assert_eq!(
        std::fs::read_to_string(setup.home.path().join("unfinished.json")).unwrap().trim(),
        "[]"
    );
}

#[test]
fn a_payment_is_not_made_again_while_its_fate_is_hidden() {
    let setup = setup();
    setup.node.lie(Lie::Withholds);
    let id = setup.send(&["--timeout", "0s"]).expect(5, "not proved final").line().to_owned();
    for timeout in ["0s", "1s"] {
        setup.send(&["--timeout", timeout]).expect(5, "ask another node");
        assert_eq!(setup.paid(), 1);
    }
    // Other payments can still be made.
    setup.node.lie(Lie::None);
    let args = ["send", "--from", "alice", "--to", "carol", "--amount", "1 CRN", "--yes"];
    setup.run(&args).expect(0, &format!("the earlier transfer {id} is final at height 1"));
    assert_eq!(setup.paid(), 2);
    setup.send(&[]).expect(0, "");
    assert_eq!(setup.paid(), 3);
}

/// The node says that it does not keep the block. So the wallet neither stops nor pays again.
#[test]
fn a_payment_in_a_block_that_the_node_does_not_keep_is_not_made_again() {
    let setup = setup();
    setup.node.lie(Lie::KeepsNoBlock);
    let id = setup.send(&["--timeout", "0s"]).expect(5, "not proved final").line().to_owned();
    for timeout in ["0s", "1s"] {
        setup.send(&["--timeout", timeout]).expect(5, "ask another node");
        assert_eq!(setup.paid(), 1);
    }
    setup.run(&["tx", &id]).expect(1, "not in the part of the chain that this node keeps");
    setup.node.lie(Lie::None);
    assert_eq!(setup.send(&[]).expect(0, "").line(), id);
    assert_eq!(setup.paid(), 1);
}

#[test]
fn a_submission_that_got_lost_is_made_again_with_the_same_id() {
    let setup = setup();
    setup.node.lie(Lie::Drops);
    let id = setup.send(&["--timeout", "0s"]).expect(5, "it may have arrived").line().to_owned();
    setup.node.lie(Lie::None);
    let sent = setup.send(&[]).expect(0, "it is resumed");
    assert_eq!((sent.line(), setup.paid()), (id.as_str(), 1));
}

#[test]
fn what_a_node_says_it_refused_may_still_land_and_is_not_paid_twice() {
    let setup = setup();
    setup.node.lie(Lie::Rejects);
    setup.send(&[]).expect(4, "like it (why)");
    setup.node.lie(Lie::Stalls);
    let first = setup.send(&["--timeout", "0s"]).expect(5, "").line().to_owned();
    setup.node.lie(Lie::Rejects);
    setup.send(&[]).expect(5, "It may still become final");
    setup.node.lie(Lie::None);
    setup.node.lock().commit_waiting();
    assert_eq!(setup.send(&[]).expect(0, "").line(), first);
    assert_eq!(setup.paid(), 1);
}

#[test]
fn a_payment_whose_nonce_another_transfer_took_is_made_anew() {
    let setup = setup();
    setup.node.lie(Lie::Stalls);
    let first = setup.send(&["--timeout", "0s"]).expect(5, "").line().to_owned();
    {
        let mut node = setup.node.lock();
        node.lie = Lie::None;
        node.waiting.clear();
        let other = node.transfer("alice", "dave", 0);
        node.commit(vec![other]);
        // Some of these blocks touch the sender too: the fees of the first validator are paid to
        // it.
        for nonce in 0..5 {
            let more = node.transfer("dave", "carol", nonce);
            node.commit(vec![more]);
        }
    }
    // With no time to look, nothing is sent, and no block is requested.
    setup.send(&["--timeout", "0s"]).expect(5, "ask another node");
    assert_eq!(setup.node.lock().blocks_asked, 0);
    let sent = setup.send(&[]).expect(0, &format!("{first} is proved to have never become final"));
    assert_ne!(sent.line(), first);
    assert_eq!(setup.paid(), 7);
}

#[test]
fn finality_needs_no_block() {
    let setup = setup();
    setup.node.lock().busy = true;
    setup.send(&[]).expect(0, "");
    assert_eq!(setup.node.lock().blocks_asked, 0);
}

#[test]
fn a_damaged_list_of_unfinished_transfers_stops_payments() {
    let setup = setup();
    std::fs::write(setup.home.path().join("unfinished.json"), "[{}]").unwrap();
    setup.send(&[]).expect(1, "unfinished.json is damaged");
    assert_eq!(setup.paid(), 0);
}
