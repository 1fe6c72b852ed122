//! Tests of the log: no message leaves before the log has it, and nothing is logged twice.

use super::*;

#[test]
fn saying_a_proposal_again_does_not_make_the_log_grow() {
    let chain = chain();
    let state = ChainState::genesis(Arc::clone(&chain));
    let proposer = (1..=4).find(|seed| {
        key(*seed).public() == chain.validators(Height(1)).proposer(Height(1), Round(0)).key
    });
    let proposer = key(proposer.unwrap());
    let block = state.propose(
        proposer.public(),
        Timestamp(START + 1),
        Certificate::genesis(chain.id()),
        [],
    );
    let proposal = crate::message::Proposal {
        height: Height(1),
        round: Round(0),
        block: block.hash(),
        valid_round: None,
        proposer: proposer.public(),
    };
    let signed =
        SignedProposal { signature: proposer.sign(&proposal.message(chain.id())), proposal };
    let compact = crate::message::CompactBlock {
        header: block.header().clone(),
        parent_certificate: Certificate::genesis(chain.id()),
        transactions: Vec::new(),
    };
    let other = (1..=4).find(|seed| key(*seed).public() != proposer.public());
    let mut node = Node::fresh(other);
    let logged = |effects: &[Effect]| {
        effects.iter().filter(|effect| matches!(effect, Effect::Log(_))).count()
    };
    let message = ConsensusMessage::Proposal(signed, Some(compact));
    assert!(
        logged(&node.gossip(Topic::Consensus, message.clone())) >= 3,
        "proposal, block and vote are logged"
    );
    for _ in 0..20 {
        assert_eq!(logged(&node.gossip(Topic::Consensus, message.clone())), 0);
    }
}

#[test]
fn nothing_is_said_before_the_log_has_it() {
    let mut node = Node::fresh(Some(1));
    let (mut unsynced, mut said) = (false, 0);
    for _ in 0..200 {
        for effect in node.elapse(Duration::from_millis(50)) {
            match effect {
                Effect::Log(_) | Effect::CutLog(_) => unsynced = true,
                Effect::SyncLog => unsynced = false,
                Effect::Gossip(Topic::Consensus, _) | Effect::Commit(_) => {
                    assert!(!unsynced, "durable before audible");
                    said += 1;
                }
                _ => {}
            }
        }
    }
    assert!(said > 0);
}
