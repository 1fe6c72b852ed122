//! Tests of which messages are passed on: each once in a while, however often it is repeated.

use super::*;
use crate::live::votes::relay::Relay;
use crate::message::PolkaCertificate;

#[test]
fn copies_of_a_vote_are_passed_on_once_in_half_a_second() {
    let mut node = Node::fresh(Some(1));
    let message = nil(2, 1);
    let mut passed_on = 0;
    for attempt in 0..1_000 {
        passed_on += usize::from(verdict(&node.copy(attempt, &message)) == Verdict::Accept);
    }
    assert_eq!(passed_on, 1);
    node.elapse(Duration::from_millis(500));
    assert_eq!(
        node.hear(message.clone()),
        Verdict::Accept,
        "said again after a loss, it reaches everybody"
    );
    assert_eq!(node.hear(message), Verdict::Ignore);
}

#[test]
fn passing_on_is_charged_for_what_was_passed_on_before_and_for_nothing_else() {
    let (block, signed) = first(100);
    let mut node = Node::fresh(Some(follower(1..=1)));
    let proposal = ConsensusMessage::Proposal(signed, Some(list(&block)));
    for message in [nil(2, 1), vote(2, VoteKind::Prevote, 1, 0, Some(block.hash())), proposal] {
        for (again, expected) in
            [(false, Verdict::Accept), (false, Verdict::Ignore), (true, Verdict::Accept)]
        {
            if again {
                node.elapse(Duration::from_millis(500));
            }
            assert_eq!(node.hear(message.clone()), expected);
            assert_eq!(node.machine.cost().relay, u64::from(again), "{message:?}");
        }
    }
}

#[test]
fn of_one_validator_round_and_kind_two_different_votes_are_passed_on() {
    let mut node = Node::fresh(Some(1));
    for (number, expected) in
        [(1, Verdict::Accept), (2, Verdict::Accept), (3, Verdict::Ignore), (4, Verdict::Ignore)]
    {
        let block = BlockHash(Hash::of(Domain::Chunk, &[&[number]]));
        for kind in [VoteKind::Prevote, VoteKind::Precommit] {
            assert_eq!(node.hear(vote(2, kind, 1, 0, Some(block))), expected, "{number}");
        }
    }
    for (round, expected) in
        [(10, Verdict::Accept), (11, Verdict::Ignore), (u32::MAX, Verdict::Ignore)]
    {
        assert_eq!(
            node.hear(vote(2, VoteKind::Prevote, 1, round, None)),
            expected,
            "round {round}"
        );
    }
}

#[test]
fn nothing_is_passed_on_of_a_height_that_is_final_here() {
    let blocks = blocks(1, 0);
    let mut node = Node::fresh(None);
    node.give(Input::Connected(PEER));
    let effects = node.gossip(Topic::Headers, header(&blocks[0]));
    answer(&mut node, &effects, &response(&blocks));
    assert_eq!(node.tip(), 1);
    assert_eq!(
        node.hear(vote(2, VoteKind::Precommit, 1, 0, Some(blocks[0].0.hash()))),
        Verdict::Ignore
    );
    assert_eq!(node.hear(nil(2, 2)), Verdict::Accept);
}

#[test]
fn certificates_of_a_kind_are_passed_on_once_a_second_and_stale_ones_do_not_take_their_place() {
    let polka = |round| {
        let block = BlockHash(Hash::of(Domain::Chunk, &[b"block"]));
        ConsensusMessage::Polka(PolkaCertificate {
            height: Height(1),
            round: Round(round),
            block,
            signatures: Vec::new(),
        })
    };
    let mut heard = Relay::default();
    let mut passes = |round, at| {
        let (message, now) = (polka(round), Duration::from_millis(at));
        let passes = heard.may_pass(&message, Round(3), now);
        if passes {
            heard.note(&message, now);
        }
        passes
    };
    let rows = [
        (2, 0, true),
        (2, 999, false),
        (2, 1_000, true),
        (3, 1_001, true),
        (2, 1_999, false),
        (1, 2_000, true),
        (2, 2_001, false),
        (3, 2_001, true),
        (2, 3_000, true),
    ];
    for (round, at, expected) in rows {
        assert_eq!(passes(round, at), expected, "round {round} at {at} ms");
    }
}
