//! Tests of when a validator may sign: never where another run with its key may have signed.

use super::*;

fn reasons(effects: &[Effect]) -> Vec<String> {
    let reason = |effect: &Effect| match effect {
        Effect::Notice(Notice::NotSigning(reason)) => Some(reason.clone()),
        _ => None,
    };
    effects.iter().filter_map(reason).collect()
}

#[test]
fn a_log_that_was_never_written_to_is_lost_beside_a_chain_that_has_blocks() {
    let mut later = ChainState::genesis(chain());
    later.advance(&blocks(1, 0)[0].0);
    let unwritten = || Log::Intact(Height(1), Vec::new());
    assert!(!votes_within(later.clone(), unwritten(), 60_000), "at open");
    assert!(
        votes_within(later, Log::Intact(Height(2), Vec::new()), 4_000),
        "cut for the next height it is whole"
    );
    let chain_of = blocks(5, 0);
    let mut node = Node::fresh(Some(1));
    node.give(Input::Connected(PEER));
    let mut effects = node.gossip(Topic::Headers, header(&chain_of[4]));
    effects = answer(&mut node, &effects, &response(&chain_of));
    assert_eq!(node.tip(), 5);
    for _ in 0..400 {
        effects.extend(node.elapse(Duration::from_millis(50)));
    }
    assert_eq!(votes(&effects).len(), 0, "in the run that caught up");
    let reasons = reasons(&effects);
    assert!(
        matches!(&reasons[..], [reason] if reason.contains("--sign-without-log")),
        "{reasons:?}"
    );
}

#[test]
fn a_block_certified_later_makes_a_log_that_was_never_written_to_harmless() {
    let chain_of = blocks(5, 3_000);
    let mut node = Node::fresh(Some(1));
    node.give(Input::Connected(PEER));
    node.elapse(Duration::from_millis(3_000));
    let mut effects = node.gossip(Topic::Headers, header(&chain_of[4]));
    effects = answer(&mut node, &effects, &response(&chain_of));
    assert_eq!(node.tip(), 5);
    for _ in 0..200 {
        effects.extend(node.elapse(Duration::from_millis(50)));
    }
    assert!(!votes(&effects).is_empty());
}

#[test]
fn a_validator_whose_key_signs_elsewhere_listens_again_before_it_signs_a_later_height() {
    let chain_of = blocks(2, 0);
    let mut later = ChainState::genesis(chain());
    later.advance(&chain_of[0].0);
    let mut node = Node::start(later, Some(1), written());
    node.give(Input::Connected(PEER));
    node.elapse(Duration::from_millis(1_900));
    node.gossip(Topic::Consensus, nil(1, 2));
    let effects = node.gossip(Topic::Headers, header(&chain_of[1]));
    let mut said = votes(&answer(&mut node, &effects, &response(&chain_of[1..])));
    assert_eq!(node.tip(), 2);
    for seed in [2, 3] {
        said.extend(votes(&node.gossip(Topic::Consensus, nil(seed, 3))));
    }
    // It listens for twice the drift of one second, from when it heard its own key at 1.9 s.
    while node.elapsed < Duration::from_millis(3_850) {
        said.extend(votes(&node.elapse(Duration::from_millis(50))));
    }
    assert_eq!(said, []);
    while node.elapsed < Duration::from_millis(8_000) {
        said.extend(votes(&node.elapse(Duration::from_millis(50))));
    }
    assert!(!said.is_empty());
}

/// A log of height 1 with an entry.
fn written() -> Log {
    Log::Intact(Height(1), vec![LogEntry::Timeout(0, Round(0))])
}

/// Whether a validator with this log votes within `limit` milliseconds of its first peer.
fn votes_within(state: ChainState, log: Log, limit: u64) -> bool {
    let mut node = Node::start(state, Some(1), log);
    node.give(Input::Connected(PEER));
    (0..limit / 50).any(|_| !votes(&node.elapse(Duration::from_millis(50))).is_empty())
}

#[test]
fn a_validator_signs_at_its_logs_height_at_once_and_elsewhere_after_listening() {
    let fresh = || ChainState::genesis(chain());
    let mut later = fresh();
    later.advance(&blocks(1, 0)[0].0);
    // The limit is 1.9 s, since the first height begins at 0.3 s. If another validator proposes,
    // this one votes nil after the propose timeout of 1 s.
    assert!(votes_within(fresh(), Log::Intact(Height(1), Vec::new()), 1_900));
    assert!(!votes_within(later.clone(), written(), 1_900));
    assert!(votes_within(later, written(), 4_000));
    assert!(!votes_within(fresh(), Log::Lost, 60_000));
}

#[test]
fn a_validator_whose_key_signs_elsewhere_does_not_sign_that_height() {
    let chain = chain();
    let mut later = ChainState::genesis(Arc::clone(&chain));
    later.advance(&blocks(1, 0)[0].0);
    for signer in [1, 2] {
        let mut node = Node::start(later.clone(), Some(1), written());
        node.give(Input::Connected(PEER));
        let vote = Vote {
            kind: VoteKind::Prevote,
            height: Height(2),
            round: Round(0),
            block: None,
            validator: key(signer).public(),
        };
        let signed = SignedVote { signature: key(signer).sign(&vote.message(chain.id())), vote };
        node.gossip(Topic::Consensus, ConsensusMessage::Vote(signed));
        let votes = (0..400).any(|_| !votes(&node.elapse(Duration::from_millis(50))).is_empty());
        assert_eq!(votes, signer != 1);
    }
}
