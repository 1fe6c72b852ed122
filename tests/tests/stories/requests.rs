//! Requests that no honest caller sends.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use ledger::api::code;
use ledger::codec;
use ledger::hash::{ChainId, Hash};
use tests::story::{Failure, Network, Payer, Rpc};

use super::{SOON, json_of};

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

    bodies_that_are_no_calls_are_answered(&rpc);

    // Many clients send far too long bodies at once. Others send bytes that are neither HTTP nor
    // the protocol between peers.
    let p2p = network.node(1).p2p.split('/').nth(4).unwrap().parse().unwrap();
    let http = rpc.url().rsplit_once(':').unwrap().1.parse().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let body = vec![b' '; 64 << 20];
                // The body is refused with an answer, or cut off while the rest is still on its
                // way.
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

fn bodies_that_are_no_calls_are_answered(rpc: &Rpc) {
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
}

/// Sends bytes without meaning, and waits until the other side hangs up or is silent for a second.
fn throw_garbage(port: u16, number: u8) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let bytes: Vec<u8> = (0..20_000u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8 ^ number)
        .collect();
    // The other side may hang up at any moment.
    let _ = stream.write_all(&bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    let _ = stream.read_to_end(&mut Vec::new());
}

fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}
