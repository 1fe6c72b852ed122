//! Tests of requests and responses.

use super::*;
use crate::eras::{Announcement, Era, EraRanges};
use crate::message::REQUESTED_TRANSACTIONS_MAX;
use crate::search::{FloodMessage, Hops, QueryId, Wanted};

/// A valid block of `transfers` transfers, all of one sender, and their hashes.
fn block_of(transfers: u64) -> (ValidBlock, Vec<TxHash>) {
    let chain = chain();
    let alice = template_key("alice").unwrap();
    let transfer = |nonce| {
        Body::Transfer(Transfer {
            sender: alice.public(),
            nonce: Nonce(nonce),
            outputs: vec![Output { account: alice.public(), amount: Amount(1) }],
            fee: Amount(10_000),
            expires_at: Timestamp(START + 3_600_000),
            memo: Vec::new(),
        })
        .sign(chain.id(), &alice)
    };
    let verified = verify_transactions(chain.id(), (0..transfers).map(transfer).collect());
    let verified: Vec<_> = verified.into_iter().map(Option::unwrap).collect();
    let proposer = chain.validators(Height(1)).proposer(Height(1), Round(0)).key;
    let parent = Certificate::genesis(chain.id());
    let state = ChainState::genesis(chain);
    let block = state.propose(proposer, Timestamp(START + 5_000), parent, verified.clone());
    assert_eq!(block.block().transactions.len(), verified.len());
    (block, verified.iter().map(|transaction| transaction.hash()).collect())
}

fn node_with_block(transfers: u64) -> (Node, Vec<TxHash>) {
    let (block, hashes) = block_of(transfers);
    let mut node = Node::fresh(None);
    node.machine.bodies.insert(block);
    (node, hashes)
}

fn ask(node: &mut Node, hashes: Vec<TxHash>) -> Vec<Effect> {
    node.give(Input::Request(PEER, Ticket(1), codec::encode(&Request::Transactions(hashes))))
}

fn unknown(count: usize) -> Vec<TxHash> {
    let hash =
        |number: usize| TxHash(Hash::of(ledger::hash::Domain::Chunk, &[&number.to_le_bytes()]));
    (0..count).map(hash).collect()
}

#[test]
fn transactions_of_a_proposed_block_are_given_and_more_than_the_limit_is_an_offence() {
    let (mut node, hashes) = node_with_block(3);
    let asked = [&unknown(2)[..], &hashes[1..]].concat();
    let effects = ask(&mut node, asked);
    let answer = effects.iter().find_map(|effect| match effect {
        Effect::Respond(_, bytes) => codec::decode::<Response>(bytes, 1 << 20).ok(),
        _ => None,
    });
    let Some(Response::Transactions(found)) = answer else { panic!("an answer of its kind") };
    assert_eq!(found.len(), 2);
    assert_eq!(bans(&ask(&mut node, unknown(REQUESTED_TRANSACTIONS_MAX))), 0);
    assert_eq!(bans(&ask(&mut node, unknown(REQUESTED_TRANSACTIONS_MAX + 1))), 1);
}

#[test]
fn transactions_of_blocks_that_come_later_are_found_too() {
    let (mut node, hashes) = node_with_block(2);
    assert_eq!(bans(&ask(&mut node, unknown(1))), 0);
    let found = |node: &mut Node, hash: &TxHash| node.machine.bodies.transaction(hash).is_some();
    assert!(hashes.iter().all(|hash| found(&mut node, hash)));
    let (block, more) = block_of(3);
    assert!(!found(&mut node, &more[2]));
    node.machine.bodies.insert(block);
    assert!(more.iter().all(|hash| found(&mut node, hash)));
    node.machine.bodies.next_height();
    assert!(!more.iter().any(|hash| found(&mut node, hash)));
}

fn response_of(effects: &[Effect]) -> Response {
    let bytes = effects.iter().find_map(|effect| match effect {
        Effect::Respond(_, bytes) => Some(bytes),
        _ => None,
    });
    codec::decode(bytes.unwrap(), 4 << 20).unwrap()
}

#[test]
fn the_genesis_is_given_in_pieces_that_hash_to_the_chain() {
    let account = |seed: u32| GenesisAccount {
        name: format!("{seed:0>64}"),
        account: SigningKey::from_seed(
            &Hash::of(ledger::hash::Domain::Chunk, &[&seed.to_le_bytes()]).0,
        )
        .public(),
        balance: Amount(1),
    };
    let genesis =
        Genesis { accounts: (0..15_000).map(account).collect(), ..chain().genesis().clone() };
    let chain = Chain::new(genesis);
    let mut node = Node::start(
        ChainState::genesis(Arc::clone(&chain)),
        None,
        Log::Intact(Height(1), Vec::new()),
    );
    let mut piece = |number: u32| {
        let request = codec::encode(&Request::Genesis(number));
        match response_of(&node.give(Input::Request(PEER, Ticket(1), request))) {
            Response::Genesis(piece) => piece,
            other => panic!("{other:?}"),
        }
    };
    let pieces = [piece(0).unwrap(), piece(1).unwrap()];
    assert_eq!(pieces[0].len(), 1 << 20);
    assert_eq!((piece(2), piece(u32::MAX)), (None, None));
    let genesis: Genesis = codec::decode(&pieces.concat(), codec::VALUE_BYTES_MAX).unwrap();
    assert_eq!(genesis.chain_id(), chain.id());
}

/// What a node keeps is not for this machine to know, so the driver answers.
#[test]
fn a_question_for_eras_is_handed_on() {
    let mut node = Node::fresh(None);
    let said = Announcement { is_archive: true, eras: EraRanges::of([Era(3), Era(4)]) };
    let request = codec::encode(&Request::Eras(said.clone()));
    let effects = node.give(Input::Request(PEER, Ticket(1), request));
    let asked = |effect: &Effect| {
        matches!(effect, Effect::RespondEras { ticket: Ticket(1), from: PEER, said: heard }
            if *heard == said)
    };
    assert!(effects.iter().any(asked), "{effects:?}");
    // Ranges that touch each other.
    let request = codec::encode(&(5u32, true, vec![(3u64, 3u64), (4, 4)]));
    let effects = node.give(Input::Request(PEER, Ticket(2), request));
    assert_eq!(bans(&effects), 1, "{effects:?}");
}

/// Who has what is not for this machine to know, so the driver answers.
#[test]
fn a_message_of_the_flood_query_is_handed_on() {
    let mut node = Node::fresh(None);
    let message =
        FloodMessage::Query { id: QueryId([7; 16]), wanted: Wanted::Era(Era(3)), left: Hops::MOST };
    let request = codec::encode(&Request::Flood(message.clone()));
    let effects = node.give(Input::Request(PEER, Ticket(1), request.clone()));
    let asked = |effect: &Effect| {
        matches!(effect, Effect::RespondFlood { ticket: Ticket(1), from: PEER, message: heard }
            if *heard == message)
    };
    assert!(effects.iter().any(asked), "{effects:?}");
    // The last byte is the number of hops: none, or too many.
    for hops in [0, 8] {
        let mut request = request.clone();
        *request.last_mut().unwrap() = hops;
        let effects = node.give(Input::Request(PEER, Ticket(2), request));
        assert_eq!(bans(&effects), 1, "{effects:?}");
    }
}

/// Answers the node's request for this peer's tip and clock. The peer's clock is `ahead` ms ahead
/// of the node's, and the round trip takes `trip` ms.
fn tell_clock(node: &mut Node, peer: u64, ahead: i64, trip: u64) -> Vec<Effect> {
    let effects = node.give(Input::Connected(PeerId(peer)));
    let id = effects.iter().find_map(|effect| match effect {
        Effect::Request(id, to, _) if to.0 == peer => Some(*id),
        _ => None,
    });
    node.elapse(Duration::from_millis(trip / 2));
    let now =
        (START + u64::try_from(node.elapsed.as_millis()).unwrap()).saturating_add_signed(ahead);
    node.elapse(Duration::from_millis(trip / 2));
    let answer = codec::encode(&Response::Tip { now, head: None });
    node.give(Input::Response(id.unwrap(), PeerId(peer), Some(answer)))
}

fn clock_notices(effects: &[Effect]) -> Vec<Notice> {
    let notices = effects.iter().filter_map(|effect| match effect {
        Effect::Notice(notice @ (Notice::ClockOff(_) | Notice::ClockRight(_))) => {
            Some(notice.clone())
        }
        _ => None,
    });
    notices.collect()
}

#[test]
fn a_clock_that_is_off_shows_once_three_peers_say_so() {
    // Each peer's clock ahead of ours and its round trip, then our offset, then the notices. All
    // times are in milliseconds. The tolerated drift is 1,000.
    type Row = (&'static [(i64, u64)], Option<i64>, Vec<Notice>);
    let rows: [Row; 7] = [
        (&[(9_000, 0), (9_000, 0)], None, vec![]),
        (&[(0, 0), (0, 100), (0, 400)], Some(0), vec![]),
        (
            &[(3_600_000, 0), (3_600_000, 80), (3_600_000, 20)],
            Some(-3_600_000),
            vec![Notice::ClockOff(-3_600_000)],
        ),
        (&[(-501, 0), (-501, 0), (-501, 0)], Some(501), vec![Notice::ClockOff(501)]),
        (&[(-500, 0), (-500, 0), (-500, 0)], Some(500), vec![]),
        (&[(9_000, 0), (1, 0), (-9_000, 0)], Some(-1), vec![]),
        // Of the four peers that count, two lie. The fifth answered too slowly to count.
        (&[(2, 0), (1, 0), (9_000, 0), (9_000, 0), (9_000, 2_100)], Some(-2), vec![]),
    ];
    for (peers, offset, expected) in rows {
        let mut node = Node::fresh(None);
        let mut notices = Vec::new();
        for (number, (ahead, trip)) in peers.iter().enumerate() {
            notices.extend(clock_notices(&tell_clock(&mut node, number as u64 + 1, *ahead, *trip)));
        }
        assert_eq!((node.machine.clock_offset_ms(), notices), (offset, expected), "{peers:?}");
        node.give(Input::Disconnected(PeerId(1)));
        node.give(Input::Disconnected(PeerId(2)));
        if peers.len() < 5 {
            assert_eq!(node.machine.clock_offset_ms(), None, "only connected peers count");
        }
    }
}

#[test]
fn each_peer_is_polled_in_turn() {
    let mut node = Node::fresh(None);
    let mut polled = Vec::new();
    for peer in [3, 5, 9] {
        for (id, peer) in asked_for_tip(&node.give(Input::Connected(PeerId(peer)))) {
            node.give(Input::Response(id, peer, None));
        }
    }
    // Gossip between the polls must not influence which peer is asked.
    let transfers = super::transactions::transfers(0..40, 0);
    let mut transfers = transfers.into_iter().flatten();
    for _ in 0..13 {
        for (id, peer) in asked_for_tip(&node.elapse(Duration::from_secs(2))) {
            polled.push(peer.0);
            let answer = codec::encode(&Response::Tip { now: START, head: None });
            node.give(Input::Response(id, peer, Some(answer)));
        }
        let few = transfers.by_ref().take(polled.len() % 3);
        few.for_each(|transfer| drop(node.give(Input::Submit(Ticket(1), transfer))));
    }
    for turn in polled.windows(3).skip(1) {
        let mut turn = turn.to_vec();
        turn.sort_unstable();
        assert_eq!(turn, [3, 5, 9], "{polled:?}");
    }
}
