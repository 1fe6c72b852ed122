//! Tests of the lists of proposed blocks: a copy of a proposal without its list does not keep the
//! list from spreading.

use super::*;
use crate::budget::SIGNATURE;
use crate::live::bodies::Progress;

fn proposed(signed: &SignedProposal, list: Option<CompactBlock>) -> ConsensusMessage {
    ConsensusMessage::Proposal(signed.clone(), list)
}

#[test]
fn a_list_is_passed_on_once_after_copies_without_it() {
    // The messages come before the height begins, or after.
    for begun in [0, 300] {
        let (block, signed) = first(100);
        let mut node = Node::fresh(Some(follower(1..=1)));
        node.elapse(Duration::from_millis(begun));
        let mut forged = signed.clone();
        forged.signature.0[0] ^= 1;
        for (message, expected) in [
            (proposed(&signed, None), Verdict::Accept),
            (proposed(&signed, None), Verdict::Ignore),
            (proposed(&forged, Some(list(&block))), Verdict::Reject),
        ] {
            assert_eq!(node.hear(message), expected);
        }
        let mut effects = node.gossip(Topic::Consensus, proposed(&signed, Some(list(&block))));
        assert_eq!(verdict(&effects), Verdict::Accept, "begun at {begun} ms");
        assert_eq!(node.hear(proposed(&signed, Some(list(&block)))), Verdict::Ignore, "once");
        assert_eq!(node.hear(proposed(&signed, None)), Verdict::Ignore);
        effects.extend(node.elapse(Duration::from_millis(300)));
        assert_eq!(
            votes(&effects).first().and_then(|vote| vote.block),
            Some(block.hash()),
            "it is used as well"
        );
    }
}

#[test]
fn a_list_of_another_block_is_rejected_and_paid_for_also_soon_after_the_proposal() {
    let (block, signed) = first(100);
    let mut node = Node::fresh(Some(follower(1..=1)));
    node.elapse(Duration::from_millis(300));
    assert_eq!(node.hear(proposed(&signed, None)), Verdict::Accept);
    let most = transactions_max(node.machine.chain());
    for (count, hashing) in [(most, most.div_ceil(4)), (most + 1, 0)] {
        let garbage = CompactBlock { transactions: hashes(count), ..list(&block) };
        assert_eq!(node.hear(proposed(&signed, Some(garbage))), Verdict::Reject);
        assert_eq!(node.machine.cost().verify, SIGNATURE + hashing as u64, "{count} hashes");
    }
    assert_eq!(node.hear(proposed(&signed, Some(list(&block)))), Verdict::Accept);
}

#[test]
fn who_was_silent_is_asked_last_and_who_gave_something_first() {
    let (chain, mempool) = (ChainState::genesis(chain()), Mempool::new(MempoolLimits::default()));
    let peers = [1, 2, 3].map(PeerId);
    let mut bodies = Bodies::default();
    let mut asked = 0;
    let mut ask = |bodies: &mut Bodies, block: BlockHash| {
        asked += 1;
        let now = Duration::from_secs(asked);
        let Progress::Ask(peer, _) =
            bodies.advance(block, &chain, &mempool, &peers, now, Timestamp(START))
        else {
            panic!("a peer to ask");
        };
        bodies.asked(&block, RequestId(asked), peer, now);
        peer.0
    };
    let ((block, signed), (other, other_signed)) = (first(100), first(200));
    bodies.want(signed);
    assert_eq!([ask(&mut bodies, block.hash()), ask(&mut bodies, block.hash())], [1, 2]);
    // The second peer gives the list, and the first one was silent.
    assert_eq!(bodies.answered(RequestId(2)), Some(block.hash()));
    bodies.on_gave(&block.hash(), PeerId(2));
    let missing = CompactBlock { transactions: hashes(1), ..list(&block) };
    bodies.on_list(&block.hash(), missing, PeerId(2), &mempool);
    let order: Vec<_> = (0..3).map(|_| ask(&mut bodies, block.hash())).collect();
    assert_eq!(order, [2, 3, 1]);
    // If the list came by gossip, its sender is asked first, unless it was silent.
    for (sender, expected) in [(3, 3), (1, 2)] {
        let mut bodies = Bodies::default();
        bodies.want(first(100).1);
        assert_eq!(ask(&mut bodies, block.hash()), 1);
        let missing = CompactBlock { transactions: hashes(1), ..list(&block) };
        bodies.on_list(&block.hash(), missing, PeerId(sender), &mempool);
        assert_eq!(ask(&mut bodies, block.hash()), expected);
    }
    // For another block, a peer that gave something when it was last asked is asked first.
    bodies.on_gave(&block.hash(), PeerId(3));
    bodies.want(other_signed);
    assert_eq!(ask(&mut bodies, other.hash()), 3);
    bodies.on_gave(&other.hash(), PeerId(2));
    bodies.on_disconnected(PeerId(2));
    assert_eq!(ask(&mut bodies, other.hash()), 1, "who is gone is forgotten");
}

#[test]
fn a_list_beside_a_proposal_that_is_not_its_blocks_is_rejected() {
    let (block, signed) = first(100);
    let mut node = Node::fresh(Some(follower(1..=1)));
    let most = transactions_max(node.machine.chain());
    for transactions in [hashes(1), hashes(most), hashes(most + 1)] {
        let garbage = CompactBlock { transactions, ..list(&block) };
        assert_eq!(
            node.hear(ConsensusMessage::Proposal(signed.clone(), Some(garbage))),
            Verdict::Reject
        );
    }
    let (other, _) = first(200);
    assert_eq!(
        node.hear(ConsensusMessage::Proposal(signed.clone(), Some(list(&other)))),
        Verdict::Reject
    );
    assert_eq!(
        node.hear(ConsensusMessage::Proposal(signed.clone(), Some(list(&block)))),
        Verdict::Accept
    );
    node.elapse(Duration::from_millis(500));
    let garbage = CompactBlock { transactions: hashes(1), ..list(&block) };
    let judged = node.hear(ConsensusMessage::Proposal(signed, Some(garbage)));
    assert_eq!(judged, Verdict::Reject, "also when the block is known");
}

#[test]
fn a_copy_without_its_list_does_not_keep_the_list_out() {
    let (block, signed) = first(100);
    let mut node = Node::fresh(Some(follower(1..=1)));
    node.elapse(Duration::from_millis(300));
    node.hear(ConsensusMessage::Proposal(signed.clone(), None));
    let effects =
        node.gossip(Topic::Consensus, ConsensusMessage::Proposal(signed, Some(list(&block))));
    assert_eq!(verdict(&effects), Verdict::Accept, "others beyond this node lack the list as well");
    assert_eq!(
        votes(&effects).first().and_then(|vote| vote.block),
        Some(block.hash()),
        "and of use"
    );
}
