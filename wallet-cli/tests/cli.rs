//! The program as scripts see it, by stdout, stderr and exit codes, with an honest node and with
//! lying ones.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod fake_node;
mod program;

#[cfg(target_os = "linux")]
use std::process::Stdio;

use fake_node::{FakeNode, Lie, genesis, now};
use ledger::genesis::template_key;
#[cfg(target_os = "linux")]
use program::run_into;
use program::{run_with, setup, setup_on};
use serde_json::Value;

#[test]
fn send_prints_the_id_alone_and_the_money_arrives() {
    let setup = setup();
    let (alice, bob) =
        (template_key("alice").unwrap().public(), template_key("bob").unwrap().public());
    // The first round is before the first block, the second after it.
    for round in 1..=2 {
        let sent = setup.send(&["--memo", "for\u{7}you"]).expect(0, "amount  1.5 CRN");
        assert!(sent.stderr.contains("memo    \"for\\u{7}you\""), "{sent:?}");
        assert_eq!(sent.line().len(), 64, "{sent:?}");
        assert!(sent.line().bytes().all(|byte| byte.is_ascii_hexdigit()));
        let last =
            setup.node.lock().blocks.last().unwrap().0.block().transactions[0].id().to_string();
        assert_eq!(sent.line(), last);
        assert_eq!(setup.node.lock().balance(&bob), 1_000_000_000_000 + round * 1_500_000_000);
    }
    let shown = setup.run(&["balance", "bob"]).expect(0, "");
    assert_eq!(shown.stdout, "1003 CRN\n");
    let address = setup.node.lock().address(&alice);
    let balance = setup.node.lock().balance(&alice).to_string();
    for name in ["alice", &address] {
        let json = setup.run(&["balance", name, "--json"]).json();
        assert_eq!(
            json,
            serde_json::json!({ "address": address, "balance": balance, "nonce": "2" })
        );
    }
    assert_eq!(setup.run(&["balance"]).expect(0, "").stdout.lines().count(), 4);
    assert_eq!(setup.run(&["--json", "balance"]).json().as_array().unwrap().len(), 4);
    let sent = setup.send(&["--json", "--timeout", "60s"]).json();
    assert_eq!((sent["height"].as_str(), sent["status"].as_str()), (Some("3"), Some("final")));
    assert_eq!(sent.as_object().unwrap().len(), 3);
}

#[test]
fn a_new_recipient_costs_more_and_is_paid() {
    let setup = setup();
    let address = setup.run(&["new", "eve"]).expect(0, "").line().to_owned();
    for (to, new) in [("eve", true), (address.as_str(), false)] {
        let args = ["send", "--from", "alice", "--to", to, "--amount", "7 pebbles", "--yes"];
        let sent = setup.run(&args).expect(0, &address);
        assert_eq!(sent.stderr.contains("because the recipient is new"), new, "{sent:?}");
    }
    assert_eq!(setup.run(&["balance", "eve", "--json"]).json()["balance"], "14");
}

#[test]
fn finality_is_proved_through_whatever_else_happens_to_the_sender() {
    let setup = setup();
    setup.node.lock().busy = true;
    // The four validators propose in turn, and one of them has its fees paid to the sender.
    for _ in 0..4 {
        let sent = setup.send(&["--json"]).json();
        assert_eq!(sent["status"], "final");
    }
    assert_eq!(setup.node.lock().blocks.len(), 12);
    assert_eq!(setup.run(&["balance", "alice", "--json"]).json()["nonce"], "4");
}

#[test]
fn no_lie_is_believed() {
    let setup = setup();
    setup.send(&[]).expect(0, "");
    setup.send(&[]).expect(0, "");
    for (lie, said) in [
        (Lie::FewSignatures, "is not certified: voting power 2, expected at least 3"),
        (Lie::ForeignSignatures, "is not certified: signature of validator"),
        (Lie::OtherHeader, "is not certified"),
        (Lie::TamperedProof, "does not hold"),
        (Lie::StaleProof, "does not hold"),
        (Lie::Version, "header version 9"),
        (Lie::OtherChain, "is on another chain: network \"elsewhere\""),
        (Lie::Html, "not JSON-RPC"),
        (
            Lie::Forbids,
            "HTTP 403 Forbidden, not JSON-RPC 2.0: host [2Jis not allowed; start the node with it",
        ),
        (Lie::Long, "longer than 1048576 bytes"),
    ] {
        setup.node.lie(lie);
        let before = setup.node.lock().blocks.len();
        let shown = setup.run(&["balance", "alice"]).expect(1, said);
        assert_eq!(shown.stdout, "", "{lie:?}");
        let sent = setup.send(&[]).expect(1, said);
        assert_eq!(sent.stdout, "", "{lie:?}");
        assert_eq!(setup.node.lock().blocks.len(), before, "{lie:?}: nothing is signed for a liar");
    }
    setup.node.lie(Lie::None);
    setup.send(&[]).expect(0, "");
}

#[test]
fn final_is_not_believed_without_proof() {
    for (lie, said) in [
        (Lie::FinalAtOnce, "it has no proof that a block holds the transaction"),
        (Lie::FinalInEmpty, "it has no proof that a block holds the transaction"),
        (Lie::FinalInForged, "the proof of inclusion does not hold"),
        (Lie::NoProof, "it has no proof that a block holds the transaction"),
    ] {
        let setup = setup();
        setup.send(&[]).expect(0, "");
        setup.node.lie(lie);
        // The transfer was submitted, so it may be final on another node. Exit code 1 would look as
        // if nothing had happened.
        let sent = setup.send(&[]).expect(5, said);
        assert!(
            sent.stderr.contains("It may still become final") && sent.stderr.contains(sent.line()),
            "{lie:?}: {sent:?}"
        );
        let id = setup.node.lock().blocks[0].0.block().transactions[0].id().to_string();
        setup.run(&["tx", &id]).expect(0, "");
    }
}

#[test]
fn a_node_that_goes_back_is_caught() {
    let setup = setup();
    for _ in 0..3 {
        setup.send(&[]).expect(0, "");
    }
    setup.node.lie(Lie::Old(1));
    let shown = setup.run(&["balance", "alice"]).expect(1, "is at height 1, expected at least 3");
    assert_eq!(shown.stdout, "");
    // The node may catch up while the wallet waits.
    let node = setup.node.clone();
    let later = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        node.lie(Lie::None);
    });
    setup.run(&["balance", "alice"]).expect(0, "");
    later.join().unwrap();
}

#[test]
fn a_fork_is_loud_and_its_proof_is_kept() {
    let setup = setup();
    setup.node.lock().commit(Vec::new());
    setup.run(&["balance", "alice"]).expect(0, "");
    setup.node.lock().fork();
    setup.run(&["balance", "alice"]).expect(1, "THE CHAIN HAS FORKED");
    let proof = std::fs::read_to_string(setup.home.path().join("fork-1.json")).unwrap();
    let proof: Value = serde_json::from_str(&proof).unwrap();
    assert_ne!(proof["first"]["header"], proof["second"]["header"]);
}

#[test]
fn a_damaged_head_is_named() {
    let setup = setup();
    setup.node.lock().commit(Vec::new());
    setup.run(&["balance", "alice"]).expect(0, "");
    let path = setup.home.path().join("head.json");
    let text = std::fs::read_to_string(&path).unwrap().replacen("0100", "0101", 1);
    std::fs::write(&path, text).unwrap();
    setup.run(&["balance", "alice"]).expect(1, "head.json is damaged");
}

#[test]
fn an_old_head_is_told() {
    let mut old = genesis("local");
    old.start_time = ledger::units::Timestamp(now() - 600_000);
    let node = FakeNode::start(old);
    let home = tempfile::tempdir().unwrap();
    let address = node.lock().address(&template_key("bob").unwrap().public());
    run_with(home.path(), &node.url, "", &["balance", &address])
        .expect(0, "height 0, is 10 min old by this machine's clock");
    node.lock().commit(Vec::new());
    let shown = run_with(home.path(), &node.url, "", &["balance", &address]).expect(0, "");
    assert_eq!((shown.stdout.as_str(), shown.stderr.as_str()), ("1000 CRN\n", ""));
}

#[test]
fn exit_codes_say_what_happened() {
    let setup = setup();
    let send = |args: &[&str]| setup.run(&[&["send", "--from", "alice", "--yes"], args].concat());
    // Usage.
    setup.run(&[]).expect(2, "Usage");
    setup.run(&["send", "--from", "alice"]).expect(2, "--amount");
    send(&["--to", "bob", "--amount", "1.5"]).expect(2, "the unit is missing");
    send(&["--to", "bob", "--amount", "0 CRN"]).expect(2, "the amount is 0");
    let neither = send(&["--to", "zoe", "--amount", "1 CRN"])
        .expect(2, "as a key: this wallet has alice, bob, carol, dave");
    assert!(neither.stderr.contains("as an address: not an address"), "{neither:?}");
    let foreign = ledger::address::encode_address("tcrn", &template_key("bob").unwrap().public());
    send(&["--to", &foreign, "--amount", "1 CRN"]).expect(2, "address of another network");
    send(&["--to", "bob", "--amount", "1 CRN", "--timeout", "5"]).expect(2, "with its unit");
    send(&["--to", "bob", "--amount", "1 CRN", "--memo", &"x".repeat(257)])
        .expect(2, "memo of 257 bytes");
    setup
        .run(&["send", "--from", "zoe", "--to", "bob", "--amount", "1 CRN"])
        .expect(2, "no key is named \"zoe\"");
    setup
        .run(&["send", "--from", "alice", "--to", "bob", "--amount", "1 CRN"])
        .expect(2, "add --yes");
    setup.run(&["tx", "abc"]).expect(2, "64 hexadecimal digits");
    setup.run(&["--rpc", "https://node", "list"]).expect(2, "http://");
    // Unreachable.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = format!("http://{gone}");
    for args in [
        &["balance", "alice"][..],
        &["send", "--from", "alice", "--to", "bob", "--amount", "1 CRN", "--yes"],
    ] {
        let outcome =
            run_with(setup.home.path(), &gone, "", args).expect(3, "no answer from the node");
        assert_eq!(outcome.stdout, "");
    }
    // Rejected by the wallet, and by the node.
    let rejected = send(&["--to", "bob", "--amount", "2000 CRN"]).expect(4, "does not cover");
    assert_eq!(rejected.stdout, "");
    send(&["--to", "bob", "--amount", "18446744073 CRN", "--fee", "1 CRN"])
        .expect(4, "does not cover");
    send(&["--to", "bob", "--amount", "1 CRN", "--fee", "10 pebbles"])
        .expect(4, "expected at least 0.00000177 CRN");
    setup.node.lie(Lie::Rejects);
    let rejected = setup.send(&[]).expect(4, "I do not[2J like it (why)\nhint: do this");
    assert_eq!(rejected.stdout, "");
    setup.node.lie(Lie::None);
    // Bad password.
    let wrong = setup.home.path().join("wrong");
    std::fs::write(&wrong, "wrong\n").unwrap();
    let wrong = wrong.to_str().unwrap();
    let refused = setup.send(&["--password-file", wrong]).expect(6, "wrong password");
    assert_eq!(refused.stdout, "");
    setup.run(&["new", "more", "--password-file", wrong]).expect(6, "wrong password");
    setup.run(&["new", "alice"]).expect(1, "already a key named alice");
    setup.run(&["--help"]).expect(0, "");
    assert!(setup.run(&["completions", "bash"]).expect(0, "").stdout.contains("cairn-wallet"));
}

#[test]
fn at_a_timeout_the_id_is_told() {
    let setup = setup();
    setup.node.lie(Lie::Stalls);
    let plain = setup.send(&["--timeout", "300ms"]).expect(5, "It may still become final");
    assert_eq!(plain.line().len(), 64);
    let json = setup.send(&["--timeout", "0s", "--json"]).expect(5, "cairn-wallet tx ");
    let json: Value = serde_json::from_str(json.line()).unwrap();
    assert_eq!((json["status"].as_str(), json["height"].is_null()), (Some("pending"), true));
    let pending = setup.run(&["tx", plain.line(), "--json"]).json();
    assert_eq!(pending["status"], "pending");
}

#[test]
fn a_submission_without_an_answer_is_waited_for() {
    let setup = setup();
    setup.node.lie(Lie::HangsUp);
    let sent = setup.send(&["--json"]).expect(0, "it may have arrived");
    assert_eq!(sent.json()["height"], "1");
}

#[test]
fn a_node_that_vanishes_before_the_proof_leaves_it_open() {
    let setup = setup();
    setup.node.lie(Lie::Vanishes);
    let sent = setup.send(&[]).expect(5, "It may still become final");
    assert_eq!(sent.line(), setup.node.lock().blocks[0].0.block().transactions[0].id().to_string());
}

/// A stdout that is full, and one whose reader is gone.
#[cfg(target_os = "linux")]
fn broken_outputs() -> [(&'static str, Stdio); 2] {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    [("full", full.into()), ("no reader", writer.into())]
}

#[cfg(target_os = "linux")]
#[test]
fn what_was_done_is_told_when_stdout_is_broken() {
    let setup = setup();
    let run =
        |args: &[&str], stdout| run_into(setup.home.path(), &setup.node.url, "", args, stdout);
    let send = ["send", "--from", "alice", "--to", "bob", "--amount", "1 CRN", "--yes"];
    for (number, (what, stdout)) in broken_outputs().into_iter().enumerate() {
        let sent = run(&send, stdout).expect(7, "cannot be written to stdout");
        let id = setup.node.lock().blocks[number].0.block().transactions[0].id().to_string();
        assert!(
            sent.stderr.contains(&format!("{id} is final at height {}", number + 1)),
            "{what}: {sent:?}"
        );
    }
    for ((_, stdout), name) in broken_outputs().into_iter().zip(["one", "two"]) {
        let made = run(&["new", name], stdout).expect(7, "is in the keystore");
        let address = setup.run(&["address", name]).expect(0, "").line().to_owned();
        assert!(made.stderr.contains(&address), "{made:?}");
    }
    setup.node.lie(Lie::Stalls);
    for (what, stdout) in broken_outputs() {
        let open = run(&[&send[..], &["--timeout", "0s"]].concat(), stdout)
            .expect(5, "It may still become final");
        assert!(open.stderr.contains("cairn-wallet tx "), "{what}: {open:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_reader_that_has_read_enough_is_no_error() {
    let setup = setup();
    setup.run(&["list"]).expect(0, "");
    for args in [
        &["list"][..],
        &["list", "--json"],
        &["balance"],
        &["address", "bob"],
        &["completions", "bash"],
    ] {
        let [(_, full), (_, gone)] = broken_outputs();
        let run = |stdout| run_into(setup.home.path(), &setup.node.url, "", args, stdout);
        assert_eq!(run(gone).expect(0, "").stderr, "", "{args:?}");
        run(full).expect(1, "cannot write the result");
    }
}

#[test]
fn a_wrong_clock_is_called_that() {
    const TWO_DAYS_MS: u64 = 2 * 24 * 3_600_000;
    let mut old = genesis("local");
    old.start_time = ledger::units::Timestamp(now() - 2 * TWO_DAYS_MS);
    let setup = setup_on(old);
    setup.node.lock().behind_ms = TWO_DAYS_MS;
    setup.node.lock().commit(Vec::new());
    let sent =
        setup.send(&[]).expect(4, "this machine's clock is 48 h 0 min ahead of the newest block");
    assert!(!sent.stderr.contains("sign again"), "{sent:?}");
}

#[test]
fn tx_tells_what_is_known() {
    let setup = setup();
    let id = setup.send(&["--memo", "hello"]).expect(0, "").line().to_owned();
    let shown = setup.run(&["tx", &id]).expect(0, "");
    assert_eq!(shown.stderr, "");
    let proved = "proved    yes, a certified block holds it";
    for line in ["status    final", proved, "height    1", "1.5 CRN", "memo      \"hello\""] {
        assert!(shown.stdout.contains(line), "{line}: {shown:?}");
    }
    let json = setup.run(&["tx", &id, "--json"]).json();
    assert_eq!((json["status"].as_str(), json["height"].as_str()), (Some("final"), Some("1")));
    assert_eq!(json["proved"], "transaction");
    // If the node has no proof, the output says what is proved beside the status.
    setup.node.lie(Lie::NoProof);
    let shown =
        setup.run(&["tx", &id]).expect(0, "note: it is proved that the sender has used this nonce");
    assert!(
        shown.stdout.contains("proved    only that the sender has used its nonce"),
        "{shown:?}"
    );
    assert_eq!(setup.run(&["tx", &id, "--json"]).json()["proved"], "nonce");
    setup.node.lie(Lie::None);
    let unknown = "ab".repeat(32);
    assert_eq!(
        setup.run(&["tx", &unknown]).expect(0, "").stdout,
        "status    unknown to this node\n"
    );
    assert_eq!(setup.run(&["tx", &unknown, "--json"]).json()["proved"], false);
    setup.node.lie(Lie::OtherDetails);
    let lied = setup.run(&["tx", &id]).expect(1, "the transaction's details do not have its id");
    assert_eq!(lied.stdout, "");
}
