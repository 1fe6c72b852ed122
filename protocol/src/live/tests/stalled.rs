//! Tests of a height that takes many rounds: memory and log stay bounded, and nothing is lost that
//! can still matter.

use super::*;

const ROUNDS: u32 = 50;
/// Two bodies of each of three rounds, the last one built here, the locked one and the valid one.
const HELD_MAX: usize = 9;

/// A validator, and its log as a disk would have it.
struct Validator {
    node: Node,
    seed: u8,
    log: Vec<LogEntry>,
}

impl Validator {
    fn start(seed: u8, log: Vec<LogEntry>) -> Self {
        let node = Node::start(
            ChainState::genesis(chain()),
            Some(seed),
            Log::Intact(Height(1), log.clone()),
        );
        let mut validator = Self { node, seed, log };
        validator.node.give(Input::Connected(PEER));
        let effects = validator.node.elapse(Duration::from_millis(300));
        validator.write(&effects);
        validator
    }

    fn write(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::CutLog(_) => self.log.clear(),
                Effect::Log(entry) => self.log.push(entry.clone()),
                Effect::ShortenLog(kept) => self.log.retain(|entry| match entry {
                    LogEntry::Body(block) => kept.contains(&block.header.hash()),
                    _ => true,
                }),
                _ => {}
            }
        }
        // Each logged body counts as a block of the largest size.
        let full = self.node.machine.chain().chain().limits().block_bytes_max;
        self.node.machine.validator.log.bodies.values_mut().for_each(|bytes| *bytes = full);
    }

    fn hear(&mut self, message: ConsensusMessage) -> Vec<Effect> {
        let effects = self.node.gossip(Topic::Consensus, message);
        self.write(&effects);
        effects
    }

    /// Votes of more than a third of the power lead into a round.
    fn enter(&mut self, round: u32) -> Vec<Effect> {
        let voters = others(self.seed);
        let votes =
            voters.iter().take(2).map(|seed| vote(*seed, VoteKind::Prevote, 1, round, None));
        votes.flat_map(|vote| self.hear(vote)).collect()
    }

    /// Goes through rounds, in each of which the proposer proposes two blocks.
    fn endure(&mut self, rounds: std::ops::RangeInclusive<u32>) {
        for round in rounds {
            self.enter(round);
            let seed = proposer(1, round);
            for time in [100, 101] {
                if seed == self.seed {
                    continue;
                }
                let (block, _) = first(time + 2 * u64::from(round));
                self.hear(ConsensusMessage::Proposal(
                    propose(seed, round, &block),
                    Some(list(&block)),
                ));
            }
            let held = self.node.machine.bodies_held();
            assert!(held <= HELD_MAX, "round {round}: {held} bodies in memory");
            // The log also has at most three dropped bodies before it is shortened, and two of the
            // round.
            let logged = self.bodies();
            assert!(logged <= HELD_MAX + 3 + 2, "round {round}: {logged} bodies in the log");
        }
    }

    fn bodies(&self) -> usize {
        self.log.iter().filter(|entry| matches!(entry, LogEntry::Body(_))).count()
    }

    fn holds(&self, block: &ValidBlock) -> bool {
        matches!(
            self.node.machine.bodies.verdict(&block.hash()),
            Some(crate::live::bodies::Verdict::Valid(_))
        )
    }

    /// Gives the list of a block to the request for it among the effects.
    fn give_list(&mut self, effects: &[Effect], block: &ValidBlock) -> Vec<Effect> {
        let asked = requests(effects, |request| matches!(request, Request::Proposed(..)));
        let [(id, peer)] = asked[..] else { panic!("{} requests for the block", asked.len()) };
        let answer = codec::encode(&Response::Proposed(Some(list(block))));
        let effects = self.node.give(Input::Response(id, peer, Some(answer)));
        self.write(&effects);
        effects
    }

    /// The votes of all others for a block in a round.
    fn hear_votes(&mut self, kind: VoteKind, round: u32, block: &ValidBlock) -> Vec<Effect> {
        let votes = others(self.seed)
            .into_iter()
            .map(|seed| vote(seed, kind, 1, round, Some(block.hash())));
        votes.collect::<Vec<_>>().into_iter().flat_map(|vote| self.hear(vote)).collect()
    }
}

/// A validator that was proposed a block in round 0 and then went through rounds of other blocks.
fn after_rounds() -> (Validator, ValidBlock) {
    let mut validator = Validator::start(follower(1..=1), Vec::new());
    let (block, signed) = first(50);
    validator.hear(ConsensusMessage::Proposal(signed, Some(list(&block))));
    assert!(validator.holds(&block));
    validator.endure(1..=9);
    assert!(!validator.holds(&block), "nothing refers to it");
    (validator, block)
}

#[test]
fn a_height_without_a_decision_holds_and_logs_few_bodies() {
    let mut validator = Validator::start(follower(1..=1), Vec::new());
    validator.endure(1..=ROUNDS);
    assert_eq!(validator.node.machine.round(), Round(ROUNDS));
    assert!(validator.node.machine.work().executed >= u64::from(ROUNDS), "many blocks were judged");
    let restarted = Validator::start(validator.seed, validator.log.clone());
    assert_eq!(restarted.node.machine.round(), Round(ROUNDS));
    assert!(restarted.node.machine.bodies_held() <= HELD_MAX);
}

#[test]
fn a_decided_block_whose_body_was_dropped_is_fetched_and_committed() {
    let (mut validator, block) = after_rounds();
    let effects = validator.hear_votes(VoteKind::Precommit, 0, &block);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Halt(_) | Effect::Commit(_))));
    for _ in 0..40 {
        assert!(validator.node.machine.deadline() > validator.node.elapsed, "a driver would spin");
        validator.node.elapse(Duration::from_millis(10));
    }
    let effects = validator.node.elapse(Duration::from_millis(400));
    validator.give_list(&effects, &block);
    assert_eq!(
        (validator.node.tip(), validator.node.machine.chain().tip().hash),
        (1, block.hash())
    );
}

#[test]
fn a_block_that_was_dropped_gets_a_vote_only_when_its_body_is_here_again() {
    let (mut validator, block) = after_rounds();
    let round = (10..20).find(|round| proposer(1, *round) != validator.seed).unwrap();
    validator.enter(round);
    let message = ConsensusMessage::Proposal(propose(proposer(1, round), round, &block), None);
    let effects = validator.hear(message);
    assert_eq!(votes(&effects), [], "others could not get the body from this validator");
    let effects = validator.give_list(&effects, &block);
    assert_eq!(votes(&effects).first().and_then(|vote| vote.block), Some(block.hash()));
}

#[test]
fn a_locked_block_survives_many_rounds_and_a_restart() {
    let mut validator = Validator::start(follower(1..=1), Vec::new());
    let (block, signed) = first(50);
    validator.hear(ConsensusMessage::Proposal(signed, Some(list(&block))));
    let effects = validator.hear_votes(VoteKind::Prevote, 0, &block);
    assert!(
        votes(&effects)
            .iter()
            .any(|vote| vote.kind == VoteKind::Precommit && vote.block == Some(block.hash()))
    );
    validator.endure(1..=ROUNDS);
    assert!(validator.holds(&block));
    let mut validator = Validator::start(validator.seed, validator.log);
    assert!(validator.holds(&block));
    let round = (ROUNDS + 1..).find(|round| proposer(1, *round) != validator.seed).unwrap();
    validator.enter(round);
    let mut signed = propose(proposer(1, round), round, &block);
    signed.proposal.valid_round = Some(Round(0));
    signed.signature = key(proposer(1, round)).sign(&signed.proposal.message(chain().id()));
    let effects = validator.hear(ConsensusMessage::Proposal(signed, None));
    assert_eq!(votes(&effects).first().and_then(|vote| vote.block), Some(block.hash()));
    validator.hear_votes(VoteKind::Prevote, round, &block);
    validator.hear_votes(VoteKind::Precommit, round, &block);
    assert_eq!(validator.node.machine.chain().tip().hash, block.hash());
}

#[test]
fn a_proposer_of_many_rounds_proposes_one_block_until_a_better_one_is_possible() {
    let chain = chain();
    let alice = template_key("alice").unwrap();
    let transfer = |nonce, expires_at| {
        let body = Body::Transfer(Transfer {
            sender: alice.public(),
            nonce: Nonce(nonce),
            outputs: vec![Output { account: key(1).public(), amount: Amount(1) }],
            fee: Amount(1_100_000),
            expires_at: Timestamp(START + expires_at),
            memo: Vec::new(),
        });
        verify_transactions(chain.id(), vec![body.sign(chain.id(), &alice)]).remove(0).unwrap()
    };
    let mut validator = Validator::start(follower(1..=1), Vec::new());
    let mut blocks = BTreeSet::new();
    let mut rounds = |validator: &mut Validator, rounds: std::ops::RangeInclusive<u32>| {
        for round in rounds {
            validator.node.elapsed += Duration::from_millis(1);
            let said = proposals(&validator.enter(round));
            blocks.extend(said.into_iter().map(|(signed, _)| signed.proposal.block));
        }
        (blocks.len(), validator.bodies())
    };
    assert_eq!(rounds(&mut validator, 1..=ROUNDS), (1, 1));
    let effects = validator.node.give(Input::Submit(Ticket(1), transfer(0, 60_000)));
    validator.write(&effects);
    assert_eq!(rounds(&mut validator, ROUNDS + 1..=ROUNDS + 10), (2, 2), "a transaction waits");
    let effects = validator.node.give(Input::Submit(Ticket(2), transfer(1, 3_600_000)));
    validator.write(&effects);
    assert_eq!(
        rounds(&mut validator, ROUNDS + 11..=ROUNDS + 20),
        (2, 2),
        "it goes into the next height"
    );
    validator.node.elapsed += Duration::from_secs(60);
    assert_eq!(
        rounds(&mut validator, ROUNDS + 21..=ROUNDS + 30),
        (3, 3),
        "the first one has expired"
    );
    assert_eq!(validator.node.machine.work().executed, 3);
}

/// A block was decided here after its body was dropped, and another block of the height is
/// certified. The two certificates come in either order.
#[test]
fn a_second_certificate_for_a_decided_block_halts_the_node() {
    for decided_first in [true, false] {
        let (mut validator, block) = after_rounds();
        let other = first(60).0;
        let other = header(&(other.clone(), certify(&chain(), &other, 1..=4)));
        let mut effects = Vec::new();
        if decided_first {
            effects.extend(validator.hear_votes(VoteKind::Precommit, 0, &block));
        }
        effects.extend(validator.node.gossip(Topic::Headers, other));
        if !decided_first {
            effects.extend(validator.hear_votes(VoteKind::Precommit, 0, &block));
        }
        let is_proof = |effect: &Effect| {
            matches!(effect, Effect::Evidence(Evidence::Fork(known, other))
                if *known == block.hash() && other.header.hash() != block.hash())
        };
        assert!(effects.iter().any(is_proof), "decided first: {decided_first}");
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Halt(_))));
    }
}

#[test]
fn of_many_proposals_of_a_missing_block_the_newest_are_kept() {
    let mut bodies = Bodies::default();
    let block = first(50).0;
    for round in 0..=9 {
        bodies.want(propose(proposer(1, round), round, &block));
    }
    bodies.on_round(Round(10), &BTreeSet::new());
    assert_eq!(bodies.held(), 1, "the block is still being fetched for round 9");
}
