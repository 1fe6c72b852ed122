//! Tests of the work that proposed blocks can cause: all of it is bounded.

use super::*;

fn bodies_logged(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Log(LogEntry::Body(_)))).count()
}

#[test]
fn of_one_round_two_blocks_are_executed_and_logged_at_most() {
    let mut node = Node::fresh(Some(follower(1..=1)));
    let mut logged = 0;
    for time in 0..200 {
        let (block, signed) = first(100 + time);
        logged += bodies_logged(
            &node.gossip(Topic::Consensus, ConsensusMessage::Proposal(signed, Some(list(&block)))),
        );
    }
    assert!((1..=2).contains(&logged), "{logged} blocks logged");
    let work = node.machine.work();
    assert!(work.executed <= 2 && work.logged <= 2, "{work:?}");
}

#[test]
fn of_one_round_two_blocks_are_looked_for_at_most() {
    let mut bodies = Bodies::default();
    for time in 0..5 {
        bodies.want(first(100 + time).1);
    }
    assert_eq!(bodies.due(Duration::ZERO).len(), 2);
}

/// A node that fetches a block of `count` transactions that no peer has.
fn looking_for(count: usize) -> (Node, BlockHash) {
    let (block, _) = first(100);
    let transactions = hashes(count);
    let mut header = block.header().clone();
    header.transactions_root = ledger::block::transactions_root(&transactions);
    let (seed, hash) = (proposer(1, 0), header.hash());
    let proposal = Proposal {
        height: Height(1),
        round: Round(0),
        block: hash,
        valid_round: None,
        proposer: key(seed).public(),
    };
    let signed =
        SignedProposal { signature: key(seed).sign(&proposal.message(chain().id())), proposal };
    let mut node = Node::fresh(Some(follower(1..=1)));
    node.give(Input::Connected(PEER));
    node.elapse(Duration::from_millis(300));
    let effects = node.gossip(Topic::Consensus, ConsensusMessage::Proposal(signed, None));
    let id = effects.iter().find_map(|effect| match effect {
        Effect::Request(id, _, bytes) => {
            matches!(codec::decode(bytes, 1 << 16), Ok(Request::Proposed(..))).then_some(*id)
        }
        _ => None,
    });
    let list = CompactBlock {
        header,
        parent_certificate: Certificate::genesis(chain().id()),
        transactions,
    };
    let answer = codec::encode(&Response::Proposed(Some(list)));
    let effects = node.give(Input::Response(id.unwrap(), PEER, Some(answer)));
    let most = transactions_max(node.machine.chain());
    assert_eq!(
        bans(&effects),
        usize::from(count > most),
        "who names more transactions than fit in a block is banned"
    );
    (node, hash)
}

#[test]
fn a_block_that_is_looked_for_is_not_assembled_at_every_input() {
    let (mut node, _) = looking_for(2_000);
    let before = node.machine.work();
    assert!(before.look_ups <= 2_000, "{before:?}");
    for _ in 0..100 {
        node.give(Input::Time);
        node.elapse(Duration::from_millis(1));
    }
    assert_eq!(node.machine.work(), before);
}

#[test]
fn a_list_longer_than_a_block_costs_no_look_up() {
    let (node, _) = looking_for(100_000);
    assert_eq!(node.machine.work().look_ups, 0);
}

#[test]
fn a_block_with_missing_transactions_is_complete_when_the_last_one_comes() {
    let chain = chain();
    let verified = super::transactions::transfers(0..3, 0);
    let verified: Vec<_> = verified.into_iter().map(Option::unwrap).collect();
    let seed = proposer(1, 0);
    let state = ChainState::genesis(Arc::clone(&chain));
    let parent = Certificate::genesis(chain.id());
    let block = state.propose(key(seed).public(), Timestamp(START + 100), parent, verified.clone());
    assert_eq!(block.block().transactions.len(), 3);
    let mut node = Node::fresh(Some(follower(1..=1)));
    node.give(Input::Submit(Ticket(1), Arc::clone(&verified[1])));
    node.elapse(Duration::from_millis(300));
    let message = ConsensusMessage::Proposal(propose(seed, 0, &block), Some(list(&block)));
    assert_eq!(votes(&node.gossip(Topic::Consensus, message)).len(), 0);
    assert_eq!(votes(&node.give(Input::Submit(Ticket(2), Arc::clone(&verified[0])))).len(), 0);
    let effects = node.give(Input::Transactions(Ticket(3), vec![Some(Arc::clone(&verified[2]))]));
    assert_eq!(votes(&effects).first().and_then(|vote| vote.block), Some(block.hash()));
}

#[test]
fn no_transaction_is_smaller_than_lists_are_bounded_by() {
    let alice = template_key("alice").unwrap();
    let least = Body::Transfer(Transfer {
        sender: alice.public(),
        nonce: Nonce(0),
        outputs: vec![Output { account: alice.public(), amount: Amount(0) }],
        fee: Amount(0),
        expires_at: Timestamp(0),
        memo: Vec::new(),
    });
    let bytes = codec::encode(&least.sign(chain().id(), &alice));
    assert_eq!(bytes.len() as u64, crate::live::bodies::TRANSACTION_BYTES_MIN);
}
