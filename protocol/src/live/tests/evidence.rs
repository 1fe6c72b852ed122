//! Tests of evidence: forks and double signing.

use super::*;

#[test]
fn two_certificates_for_one_height_halt_the_node_with_the_proof_kept() {
    let (ours, theirs) = (blocks(3, 0), blocks(3, 50));
    let mut node = Node::fresh(None);
    node.give(Input::Connected(PEER));
    let effects = node.gossip(Topic::Headers, header(&ours[2]));
    answer(&mut node, &effects, &response(&ours));
    assert_eq!(node.tip(), 3);
    let effects = node.gossip(Topic::Headers, header(&theirs[2]));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Evidence(Evidence::Fork(..)))));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Halt(_))));
    assert!(node.elapse(Duration::from_secs(60)).is_empty(), "a halted node does nothing more");
}

#[test]
fn one_validator_does_not_fill_the_store_with_proofs_against_it() {
    let mut node = Node::fresh(None);
    let proof = |seed: u8, number: u8| {
        let word = |block| match vote(seed, VoteKind::Prevote, 1, u32::from(number), block) {
            ConsensusMessage::Vote(signed) => signed,
            _ => unreachable!(),
        };
        Evidence::Votes(word(None), word(Some(BlockHash(Hash::of(Domain::Chunk, &[&[number]])))))
    };
    for number in 0..20 {
        node.machine.on_evidence(vec![proof(2, number)]);
    }
    node.machine.on_evidence(vec![proof(3, 0), proof(2, 30), proof(3, 1)]);
    let effects = node.give(Input::Time);
    let kept = effects.iter().filter(|effect| matches!(effect, Effect::Evidence(_))).count();
    assert_eq!(kept, 4 + 2);
    assert_eq!(
        node.machine.troubles().1,
        20 + 2,
        "all are counted, and a validator once at a time"
    );
}

fn kept(effects: &[Effect]) -> Vec<&Evidence> {
    let kept = effects.iter().filter_map(|effect| match effect {
        Effect::Evidence(evidence) => Some(evidence),
        _ => None,
    });
    kept.collect()
}

/// It makes no difference whether the round comes near, nor whether the height is decided here.
#[test]
fn two_proposals_of_a_far_round_are_kept_as_evidence_once() {
    let ours = follower(1..=1);
    let (block, signed) = first(100);
    let far = (2..).find(|round| proposer(1, *round) != ours).unwrap();
    let twice = [200, 300].map(|time| propose(proposer(1, far), far, &first(time).0));
    for (comes_near, is_decided_here) in [(false, true), (false, false), (true, false)] {
        let mut node = Node::fresh(Some(ours));
        node.give(Input::Connected(PEER));
        let mut effects = node.elapse(Duration::from_millis(300));
        for signed in &twice {
            let message = ConsensusMessage::Proposal(signed.clone(), None);
            effects.extend(node.gossip(Topic::Consensus, message));
        }
        for seed in others(ours).into_iter().take(2).filter(|_| comes_near) {
            let vote = vote(seed, VoteKind::Prevote, 1, far, None);
            effects.extend(node.gossip(Topic::Consensus, vote));
        }
        assert_eq!(node.machine.round(), Round(if comes_near { far } else { 0 }));
        if is_decided_here {
            effects.extend(decide(&mut node, &others(ours), &block, &signed));
        } else {
            let blocks = blocks(1, 0);
            let heard = node.gossip(Topic::Headers, header(&blocks[0]));
            effects.extend(answer(&mut node, &heard, &response(&blocks)));
        }
        assert_eq!(node.tip(), 1);
        let proof = Evidence::Proposals(twice[0].clone(), twice[1].clone());
        assert_eq!(kept(&effects), [&proof], "{comes_near} {is_decided_here}");
        assert_eq!(node.machine.troubles().1, 1);
    }
}
