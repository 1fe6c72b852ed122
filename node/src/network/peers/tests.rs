#![allow(clippy::unwrap_used)]

use super::*;
use crate::network::line::Line;

fn connection(number: usize) -> ConnectionId {
    ConnectionId::new_unchecked(number)
}

#[test]
fn only_admitted_peers_are_seen_and_missed() {
    let (mut peers, reader) = Peers::new();
    let (id, now) = (PeerId::random(), Instant::now());
    let address: Multiaddr = "/ip4/1.1.1.1/tcp/1".parse().unwrap();
    peers.on_connected(id, connection(1), address.clone(), true, None, now);
    assert!(reader.borrow().is_empty());
    assert!(!peers.on_closed(&id, connection(1)), "it was never announced");

    peers.on_connected(id, connection(2), address.clone(), true, None, now);
    peers.on_connected(id, connection(3), address, false, None, now);
    peers.on_identified(&id, "cairn\u{1b}[31m/1", false);
    assert!(peers.admit(&id));
    assert!(!peers.admit(&id));
    assert_eq!(reader.borrow()[0].agent, "cairn[31m/1");
    assert!(reader.borrow()[0].inbound);
    assert_eq!(peers.connection(&id), Some(connection(3)));
    assert!(!peers.on_closed(&id, connection(2)));
    assert!(!reader.borrow()[0].inbound, "the other connection is left");
    assert!(peers.on_closed(&id, connection(3)));
    assert!(reader.borrow().is_empty());
}

#[test]
fn claims_are_acted_on_once_a_minute() {
    let (mut peers, _reader) = Peers::new();
    let (id, start) = (PeerId::random(), Instant::now());
    let info = |number: u64| identify::Info {
        public_key: libp2p::identity::Keypair::generate_ed25519().public(),
        protocol_version: String::new(),
        agent_version: number.to_string(),
        listen_addrs: Vec::new(),
        protocols: Vec::new(),
        observed_addr: Multiaddr::empty(),
        signed_peer_record: None,
    };
    assert!(
        peers.on_claims(&id, connection(1), info(0), start).is_none(),
        "there is no connection"
    );
    peers.on_connected(id, connection(1), Multiaddr::empty(), true, None, start);
    let mut acted = Vec::new();
    for second in 0..180 {
        let now = start + Duration::from_secs(second);
        acted.extend(
            peers
                .on_claims(&id, connection(1), info(second), now)
                .map(|info| (second, info.agent_version)),
        );
    }
    assert_eq!(acted, [0, 60, 120].map(|second| (second, second.to_string())));
    // The last claims are not lost, and another connection has an interval of its own.
    peers.on_connected(id, connection(2), Multiaddr::empty(), true, None, start);
    assert!(peers.on_claims(&id, connection(2), info(0), start).is_some());
    assert!(peers.due_claims(start + Duration::from_secs(179)).is_empty());
    let due = peers.due_claims(start + Duration::from_secs(180));
    let due: Vec<&str> = due.iter().map(|(_, info)| info.agent_version.as_str()).collect();
    assert_eq!(due, ["179"]);
    assert!(peers.due_claims(start + Duration::from_secs(300)).is_empty());
}

#[test]
fn four_failed_pings_in_a_row_end_a_connection() {
    let (mut peers, _reader) = Peers::new();
    let id = PeerId::random();
    peers.on_connected(id, connection(1), Multiaddr::empty(), true, None, Instant::now());
    let mut failed = |result| peers.on_ping(&id, connection(1), result);
    let good = Some(Duration::from_millis(1));
    let given_up: Vec<bool> =
        [None, None, None, good, None, None, None, None].map(&mut failed).into();
    assert_eq!(given_up, [false, false, false, false, false, false, false, true]);
}

/// An orderly close waits until the peer has read everything, and a hostile peer does not read.
#[test]
fn a_connection_that_does_not_close_in_time_is_cut() {
    let (mut peers, _reader) = Peers::new();
    let (id, now) = (PeerId::random(), Instant::now());
    let lines: Vec<Hold> = (1..=2)
        .map(|number| {
            let hold = Hold { taken: watch::channel(0).1, line: Line::default() };
            peers.on_connected(
                id,
                connection(number),
                Multiaddr::empty(),
                true,
                Some(hold.clone()),
                now,
            );
            hold
        })
        .collect();
    let cut = |peers: &Peers, now: Instant| {
        peers.cut_stuck(now);
        let context = std::task::Context::from_waker(std::task::Waker::noop());
        lines.iter().map(|hold| hold.line.check(&context).is_err()).collect::<Vec<bool>>()
    };
    assert_eq!(cut(&peers, now + CLOSING_TIME), [false, false]);
    peers.on_closing(&id, Some(connection(1)), now);
    assert!(peers.is_open(&id));
    assert_eq!(cut(&peers, now + CLOSING_TIME - Duration::from_millis(1)), [false, false]);
    assert_eq!(cut(&peers, now + CLOSING_TIME), [true, false]);
    peers.on_closing(&id, None, now);
    assert!(!peers.is_open(&id));
    assert_eq!(cut(&peers, now + CLOSING_TIME), [true, true]);
}

#[test]
fn bytes_of_a_connection_that_is_gone_still_count() {
    let (mut peers, reader) = Peers::new();
    let (id, now) = (PeerId::random(), Instant::now());
    for (number, sent, received) in [(1, 100, 1_000), (2, 20, 300)] {
        let hold = Hold { taken: watch::channel(sent).1, line: Line::default() };
        hold.line.on_received(received);
        peers.on_connected(id, connection(number), Multiaddr::empty(), true, Some(hold), now);
    }
    peers.admit(&id);
    let counted = || {
        let traffic = reader.borrow()[0].traffic.clone();
        (traffic.sent_bytes(), traffic.received_bytes())
    };
    assert_eq!(counted(), (120, 1_300));
    assert!(!peers.on_closed(&id, connection(1)));
    assert_eq!(counted(), (120, 1_300));
}

#[test]
fn a_silent_peer_is_overdue() {
    let (mut peers, _reader) = Peers::new();
    let (silent, known, now) = (PeerId::random(), PeerId::random(), Instant::now());
    peers.on_connected(silent, connection(1), Multiaddr::empty(), true, None, now);
    peers.on_connected(known, connection(2), Multiaddr::empty(), true, None, now);
    peers.admit(&known);
    assert!(peers.unidentified(now + IDENTIFY_TIME - Duration::from_millis(1)).is_empty());
    assert_eq!(peers.unidentified(now + IDENTIFY_TIME), [silent]);
}
