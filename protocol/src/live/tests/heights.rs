//! Tests of when a height begins and a block is built, and of proposals that are repeated.

use super::*;

#[test]
fn votes_of_a_third_begin_the_height_and_a_forged_one_is_rejected() {
    let vote = nil_prevote;
    let mut node = Node::fresh(Some(1));
    let mut forged = vote(2, 1);
    forged.signature.0[0] ^= 1;
    assert_eq!(
        verdict(&node.gossip(Topic::Consensus, ConsensusMessage::Vote(forged))),
        Verdict::Reject
    );
    assert_eq!(
        verdict(&node.gossip(Topic::Consensus, ConsensusMessage::Vote(vote(9, 1)))),
        Verdict::Reject
    );
    assert!(matches!(node.machine.phase, Phase::Waiting));
    assert_eq!(
        verdict(&node.gossip(Topic::Consensus, ConsensusMessage::Vote(vote(2, 1)))),
        Verdict::Accept
    );
    assert!(matches!(node.machine.phase, Phase::Waiting), "one validator must not set the pace");
    assert_eq!(
        verdict(&node.gossip(Topic::Consensus, ConsensusMessage::Vote(vote(3, 1)))),
        Verdict::Accept
    );
    assert!(node.machine.phase.is_deciding());
    assert_eq!(
        verdict(&node.gossip(Topic::Consensus, ConsensusMessage::Vote(vote(2, 9)))),
        Verdict::Ignore
    );
    let garbage = node.give(Input::Gossip(Topic::Consensus, PEER, Ticket(1), vec![9; 100]));
    assert_eq!(verdict(&garbage), Verdict::Reject);
}

#[test]
fn an_idle_machine_never_asks_for_a_time_that_has_passed() {
    for seed in [None, Some(1)] {
        let mut node = Node::fresh(seed);
        for _ in 0..400 {
            node.elapse(Duration::from_millis(50));
            assert!(node.machine.deadline() > node.elapsed, "a driver would spin");
        }
    }
    let mut behind = Node::fresh(None);
    behind.give(Input::Connected(PEER));
    behind.gossip(Topic::Headers, header(&blocks(5, 0)[4]));
    for _ in 0..400 {
        behind.elapse(Duration::from_millis(50));
        assert!(behind.machine.is_syncing());
        assert!(
            behind.machine.deadline() > behind.elapsed,
            "a driver would spin while nobody answers"
        );
    }
}

#[test]
fn a_proposal_that_comes_a_height_early_is_voted_for_when_its_height_begins() {
    let ours = follower(1..=2);
    let (block, signed) = first(100);
    let mut state = ChainState::genesis(chain());
    let certificate = certify(&chain(), &block, 1..=3);
    state.commit(block.clone(), certificate.clone());
    let second =
        state.propose(key(proposer(2, 0)).public(), Timestamp(START + 200), certificate, []);
    let early =
        ConsensusMessage::Proposal(propose(proposer(2, 0), 0, &second), Some(list(&second)));
    let mut node = Node::fresh(Some(ours));
    node.elapse(Duration::from_millis(300));
    assert_eq!(node.hear(early), Verdict::Accept);
    let mut effects = decide(&mut node, &others(ours), &block, &signed);
    // The proposal would be repeated only later than this.
    for _ in 0..4 {
        effects.extend(node.elapse(Duration::from_millis(25)));
    }
    assert!(
        votes(&effects).iter().any(|vote| vote.block == Some(second.hash())),
        "no vote for the early proposal"
    );
}

#[test]
fn votes_that_come_while_a_node_catches_up_count_when_it_is_there() {
    let ours = follower(1..=1);
    let chain_of = blocks(5, 0);
    let mut node = Node::fresh(Some(ours));
    node.give(Input::Connected(PEER));
    let effects = node.gossip(Topic::Headers, header(&chain_of[4]));
    assert!(node.machine.is_syncing());
    for seed in others(ours) {
        assert_eq!(node.hear(nil(seed, 6)), Verdict::Accept);
    }
    answer(&mut node, &effects, &response(&chain_of));
    assert_eq!(
        (node.tip(), node.machine.phase.is_deciding()),
        (5, true),
        "votes of a third of the power begin the height"
    );
}

#[test]
fn a_proposal_is_repeated_without_its_list_and_only_if_nobody_else_does() {
    let ours = follower(1..=1);
    let (block, signed) = first(100);
    for is_said_by_others in [false, true] {
        let mut node = Node::fresh(Some(ours));
        node.elapse(Duration::from_millis(300));
        let message = ConsensusMessage::Proposal(signed.clone(), Some(list(&block)));
        node.gossip(Topic::Consensus, message);
        let mut repeated = Vec::new();
        for step in 1..=100 {
            repeated.extend(proposals(&node.elapse(Duration::from_millis(50))));
            if is_said_by_others && step % 12 == 0 {
                assert_eq!(
                    node.hear(ConsensusMessage::Proposal(signed.clone(), None)),
                    Verdict::Accept
                );
            }
        }
        assert!(repeated.iter().all(|(_, list)| list.is_none()), "the list is asked for");
        let expected = if is_said_by_others { 0..=0 } else { 3..=5 };
        assert!(expected.contains(&repeated.len()), "{} times", repeated.len());
    }
}

#[test]
fn one_validator_does_not_set_the_pace_of_an_idle_network() {
    let ours = proposer(2, 0);
    let (block, signed) = first(100);
    let mut node = Node::fresh(Some(ours));
    node.elapse(Duration::from_millis(300));
    decide(&mut node, &others(ours), &block, &signed);
    let byzantine = others(ours)[0];
    assert_eq!(node.hear(nil(byzantine, 2)), Verdict::Accept);
    let mut said = proposals(&node.elapse(Duration::from_millis(100)));
    for round in 1..=9 {
        node.hear(vote(byzantine, VoteKind::Prevote, 2, round, None));
        said.extend(proposals(&node.elapse(Duration::from_millis(450))));
    }
    assert_eq!(said, [], "a block before the interval of empty ones");
    said.extend(proposals(&node.elapse(Duration::from_millis(1_000))));
    assert_eq!(said.len(), 1);
}

#[test]
fn a_proposer_does_not_build_before_the_least_interval_whoever_begins_the_height() {
    let ours = proposer(2, 0);
    let (block, signed) = first(100);
    let mut node = Node::fresh(Some(ours));
    node.elapse(Duration::from_millis(300));
    decide(&mut node, &others(ours), &block, &signed);
    let mut effects = Vec::new();
    for seed in others(ours) {
        effects.extend(node.gossip(Topic::Consensus, nil(seed, 2)));
    }
    assert!(
        node.machine.phase.is_deciding(),
        "votes of more than a third of the power begin the height"
    );
    assert_eq!(proposals(&effects), []);
    let interval = Limits::default().block_interval_ms;
    effects.extend(node.elapse(Duration::from_millis(interval - 1)));
    assert_eq!(proposals(&effects), []);
    effects.extend(node.elapse(Duration::from_millis(1)));
    assert_eq!(proposals(&effects).len(), 1);
}
