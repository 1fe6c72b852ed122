//! Tests of requests and answers.

use std::time::Instant;

use ledger::hash::{Hash, TxHash};

use super::*;
use crate::message::REQUESTED_TRANSACTIONS_MAX;

/// A node that knows a valid block of so many transfers, each from the same sender.
fn node_with_block(transfers: u64) -> (Node, Vec<TxHash>) {
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
    let mut node = Node::fresh(None);
    let proposer = chain.validators(Height(1)).proposer(Height(1), Round(0)).key;
    let parent = Certificate::genesis(chain.id());
    let block = node.machine.chain.propose(proposer, Timestamp(START + 5_000), parent, verified.clone());
    assert_eq!(block.block().transactions.len(), verified.len());
    node.machine.bodies.insert(block);
    (node, verified.iter().map(|transaction| transaction.hash()).collect())
}

fn ask(node: &mut Node, hashes: Vec<TxHash>) -> Vec<Effect> {
    node.give(Input::Request(PEER, Ticket(1), codec::encode(&Request::Transactions(hashes))))
}

fn unknown(count: usize) -> Vec<TxHash> {
    let hash = |number: usize| TxHash(Hash::of(ledger::hash::Domain::Chunk, &[&number.to_le_bytes()]));
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

/// A ratio, as machines differ: with a walk through the block for each hash it is the ratio of the blocks' lengths.
#[test]
fn a_request_for_transactions_costs_no_more_with_a_full_block() {
    let mut times = [20, 4_000].map(|transfers| {
        let (mut node, _) = node_with_block(transfers);
        ask(&mut node, unknown(1));
        let start = Instant::now();
        for _ in 0..5 {
            ask(&mut node, unknown(REQUESTED_TRANSACTIONS_MAX));
        }
        start.elapsed()
    });
    times[0] = times[0].max(Duration::from_millis(1));
    assert!(times[1] < times[0] * 20, "{times:?}");
}
