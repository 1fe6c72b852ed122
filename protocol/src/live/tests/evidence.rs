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
