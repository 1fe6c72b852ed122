//! Tests of the work that a validator, or a peer that repeats its messages, can cause: all of it is
//! bounded.

use ledger::hash::{Domain, Hash};

use super::*;
use crate::live::bodies::{Bodies, transactions_max};
use crate::message::{CompactBlock, PolkaCertificate, Proposal};

/// The seed of the proposer of a height and round.
pub(super) fn proposer(height: u64, round: u32) -> u8 {
    let chain = chain();
    let turn = chain.validators(Height(height)).proposer(Height(height), Round(round)).key;
    (1..=4).find(|seed| key(*seed).public() == turn).unwrap()
}

/// The seed of a validator that does not propose in the first round of these heights.
pub(super) fn follower(heights: std::ops::RangeInclusive<u64>) -> u8 {
    (1..=4).find(|seed| heights.clone().all(|height| proposer(height, 0) != *seed)).unwrap()
}

pub(super) fn vote(
    seed: u8,
    kind: VoteKind,
    height: u64,
    round: u32,
    block: Option<BlockHash>,
) -> ConsensusMessage {
    let vote = Vote {
        kind,
        height: Height(height),
        round: Round(round),
        block,
        validator: key(seed).public(),
    };
    ConsensusMessage::Vote(SignedVote {
        signature: key(seed).sign(&vote.message(chain().id())),
        vote,
    })
}

fn nil(seed: u8, height: u64) -> ConsensusMessage {
    vote(seed, VoteKind::Prevote, height, 0, None)
}

pub(super) fn propose(seed: u8, round: u32, block: &ValidBlock) -> SignedProposal {
    let proposal = Proposal {
        height: block.height(),
        round: Round(round),
        block: block.hash(),
        valid_round: None,
        proposer: key(seed).public(),
    };
    SignedProposal { signature: key(seed).sign(&proposal.message(chain().id())), proposal }
}

pub(super) fn list(block: &ValidBlock) -> CompactBlock {
    CompactBlock {
        header: block.header().clone(),
        parent_certificate: block.block().parent_certificate.clone(),
        transactions: block
            .block()
            .transactions
            .iter()
            .map(|transaction| transaction.hash())
            .collect(),
    }
}

/// A block of height 1 and its proposal in round 0.
pub(super) fn first(time: u64) -> (ValidBlock, SignedProposal) {
    let (seed, chain) = (proposer(1, 0), chain());
    let state = ChainState::genesis(Arc::clone(&chain));
    let block = state.propose(
        key(seed).public(),
        Timestamp(START + time),
        Certificate::genesis(chain.id()),
        [],
    );
    let signed = propose(seed, 0, &block);
    (block, signed)
}

pub(super) fn hashes(count: usize) -> Vec<TxHash> {
    (0..count).map(|number| TxHash(Hash::of(Domain::Chunk, &[&number.to_le_bytes()]))).collect()
}

impl Node {
    /// Gives a copy of a consensus message: its own counter makes it another gossip message.
    fn copy(&mut self, attempt: u64, message: &ConsensusMessage) -> Vec<Effect> {
        let bytes = codec::encode(&Attempt { attempt, message: message.clone() });
        self.give(Input::Gossip(Topic::Consensus, PEER, Ticket(attempt), bytes))
    }

    pub(super) fn hear(&mut self, message: ConsensusMessage) -> Verdict {
        verdict(&self.gossip(Topic::Consensus, message))
    }
}

pub(super) fn proposals(effects: &[Effect]) -> Vec<(SignedProposal, Option<CompactBlock>)> {
    let proposal = |effect: &Effect| match effect {
        Effect::Gossip(Topic::Consensus, bytes) => {
            match codec::decode::<Attempt<ConsensusMessage>>(bytes, 1 << 20).unwrap().message {
                ConsensusMessage::Proposal(signed, list) => Some((signed, list)),
                _ => None,
            }
        }
        _ => None,
    };
    effects.iter().filter_map(proposal).collect()
}

fn bodies_logged(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Log(LogEntry::Body(_)))).count()
}

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
    let mut heard = super::super::votes::relay::Relay::default();
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
    let alice = template_key("alice").unwrap();
    let transfer = |nonce| {
        Body::Transfer(Transfer {
            sender: alice.public(),
            nonce: Nonce(nonce),
            outputs: vec![Output { account: key(1).public(), amount: Amount(1) }],
            fee: Amount(1_100_000),
            expires_at: Timestamp(START + 3_600_000),
            memo: Vec::new(),
        })
        .sign(chain.id(), &alice)
    };
    let verified: Vec<_> = verify_transactions(chain.id(), (0..3).map(transfer).collect())
        .into_iter()
        .map(Option::unwrap)
        .collect();
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

/// Makes the other validators decide a block of height 1 at this node.
fn decide(
    node: &mut Node,
    seeds: &[u8],
    block: &ValidBlock,
    signed: &SignedProposal,
) -> Vec<Effect> {
    let mut effects = node
        .gossip(Topic::Consensus, ConsensusMessage::Proposal(signed.clone(), Some(list(block))));
    for kind in [VoteKind::Prevote, VoteKind::Precommit] {
        for seed in seeds {
            effects
                .extend(node.gossip(Topic::Consensus, vote(*seed, kind, 1, 0, Some(block.hash()))));
        }
    }
    assert_eq!(node.tip(), 1);
    effects
}

pub(super) fn others(seed: u8) -> Vec<u8> {
    (1..=4).filter(|other| *other != seed).collect()
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
    // Within the time of one round: the proposal must not need a repetition.
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

#[test]
fn a_missing_quorum_is_told_with_the_names_of_the_missing_and_so_is_its_return() {
    for seed in [None, Some(1)] {
        let mut node = Node::fresh(seed);
        let mut notices = Vec::new();
        let mut run = |node: &mut Node, seconds: u64| {
            for _ in 0..seconds * 20 {
                let effects = node.elapse(Duration::from_millis(50));
                notices.extend(effects.into_iter().filter_map(|effect| match effect {
                    Effect::Notice(notice @ (Notice::Quorum(_) | Notice::NoQuorum(..))) => {
                        Some(notice)
                    }
                    _ => None,
                }));
            }
        };
        run(&mut node, 10);
        assert!(node.machine.quorum().ok);
        run(&mut node, 2);
        let mut missing: Vec<PublicKey> =
            (1..=4).filter(|other| Some(*other) != seed).map(|s| key(s).public()).collect();
        missing.sort();
        let mut quorum = node.machine.quorum().clone();
        quorum.missing.sort();
        assert_eq!((quorum.ok, &quorum.missing), (false, &missing));
        assert_eq!(quorum.since_ms, Some(START + 300), "since the height began");
        for other in 2..=4 {
            node.hear(nil(other, 1));
        }
        run(&mut node, 2);
        assert!(node.machine.quorum().ok);
        assert!(
            matches!(&notices[..], [Notice::NoQuorum(Height(1), _), Notice::Quorum(Height(1))]),
            "{notices:?}"
        );
    }
}

#[test]
fn an_idle_pause_lacks_no_quorum() {
    let ours = follower(1..=1);
    let (block, signed) = first(100);
    let mut node = Node::fresh(Some(ours));
    node.elapse(Duration::from_millis(300));
    decide(&mut node, &others(ours), &block, &signed);
    for _ in 0..14 * 20 {
        node.elapse(Duration::from_millis(50));
        assert!(node.machine.quorum().ok);
    }
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
