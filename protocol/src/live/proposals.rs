//! How proposals are remembered, given to consensus when their round is near, and repeated if
//! nobody else does so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ledger::hash::BlockHash;
use ledger::units::Round;

use super::votes::relay::{ROUNDS_AHEAD, ROUNDS_BEFORE};
use super::{Machine, Topic};
use crate::ids::PeerId;
use crate::live::bodies::Verdict;
use crate::message::{CompactBlock, ConsensusMessage, Evidence, SignedProposal};

/// If the proposal of the current round is not heard for this time, it is repeated. A peer may have
/// missed it, and its proposer may be gone.
const REPEAT: Duration = Duration::from_secs(1);
/// Validators repeat a proposal in turn, this far apart. A validator that hears another one repeat
/// the proposal does not repeat it.
const REPEAT_STEP: Duration = Duration::from_millis(50);
/// Number of different turns. If there are more validators, several of them share a turn.
const REPEAT_STEPS: u64 = 10;
/// Most proposals of one round remembered from peers. Two are enough to prove double signing.
const PER_ROUND_MAX: usize = 2;

/// Proposals of the height that is being decided.
#[derive(Debug)]
pub(super) struct Proposals {
    /// The first proposals of each round.
    of_round: BTreeMap<Round, Vec<SignedProposal>>,
    /// The round of the last proposal that was heard or sent while its round was current, and when.
    said: Option<(Round, Duration)>,
    repeat_at: Duration,
    /// A round in which this validator proposes, and when it may build the block.
    pub(super) to_build: Option<(Round, Duration)>,
    /// A round began since its proposals were last looked at.
    is_new_round: bool,
    /// The highest round that was near so far. Proposals of later rounds are only remembered.
    near: Round,
    /// Verdicts that consensus was told, by round and block. It logs each, so none is told twice.
    told: BTreeSet<(Round, BlockHash)>,
}

impl Proposals {
    /// A height begins.
    pub(super) const fn new(now: Duration) -> Self {
        Self {
            of_round: BTreeMap::new(),
            said: None,
            repeat_at: now.saturating_add(REPEAT),
            to_build: None,
            is_new_round: true,
            near: Round(1),
            told: BTreeSet::new(),
        }
    }

    /// The height begins again. Its proposals stay known, but consensus has been told nothing yet.
    pub(super) fn again(self, now: Duration) -> Self {
        Self { of_round: self.of_round, said: self.said, ..Self::new(now) }
    }

    /// A round begins.
    pub(super) const fn on_round(&mut self) {
        self.is_new_round = true;
    }

    pub(super) fn deadline(&self) -> Duration {
        self.to_build.map_or(self.repeat_at, |(_, at)| at.min(self.repeat_at))
    }

    /// All remembered proposals.
    pub(super) fn all(&self) -> Vec<SignedProposal> {
        self.of_round.values().flatten().cloned().collect()
    }

    /// Notes that consensus is told the verdict on a block that was proposed in a round. Returns
    /// whether consensus was not told it before.
    pub(super) fn tell(&mut self, round: Round, block: BlockHash) -> bool {
        self.told.insert((round, block))
    }

    /// The rounds up to `last` are near now. Returns the remembered proposals of the rounds that
    /// were not near before. Consensus was not given these when they came. Forgets the rounds
    /// before `first`.
    fn on_near(&mut self, first: Round, last: Round) -> Vec<SignedProposal> {
        self.of_round.retain(|round, _| *round >= first);
        self.told.retain(|(round, _)| *round >= first);
        let near = self.near;
        self.near = near.max(last);
        let is_new = |(round, _): &(&Round, _)| **round > near && **round <= last;
        self.of_round.iter().filter(is_new).flat_map(|(_, all)| all).cloned().collect()
    }

    /// Proofs that a proposer of a later round signed two proposals of that round. Consensus, which
    /// is in round `current`, was not given them, so it cannot report them.
    pub(super) fn conflicts(&self, current: Round) -> Vec<Evidence> {
        let last = self.near.max(Round(current.0.saturating_add(1)));
        let later = self.of_round.iter().filter(|(round, _)| **round > last);
        let conflict = |(_, of_round): (&Round, &Vec<SignedProposal>)| match of_round.as_slice() {
            [one, other, ..] if one.proposal != other.proposal => {
                Some(Evidence::Proposals(one.clone(), other.clone()))
            }
            _ => None,
        };
        later.filter_map(conflict).collect()
    }

    fn remember(&mut self, signed: &SignedProposal) {
        let of_round = self.of_round.entry(signed.proposal.round).or_default();
        // The same proposal with another signature is not another proposal.
        let is_known = of_round.iter().any(|known| known.proposal == signed.proposal);
        if of_round.len() < PER_ROUND_MAX && !is_known {
            of_round.push(signed.clone());
        }
    }
}

impl Machine {
    /// Sends a message of consensus. Adds the block without its transactions to an own proposal.
    pub(super) fn gossip_consensus(&mut self, message: ConsensusMessage) {
        let message = match message {
            ConsensusMessage::Proposal(signed, _) => {
                let compact = self.bodies.compact(&signed.proposal.block);
                let round = signed.proposal.round;
                if let Some(proposals) = self.phase.proposals() {
                    proposals.said = Some((round, self.turn.now.elapsed));
                    // It goes first, since the first proposal of a round is the one that is
                    // repeated.
                    proposals.of_round.entry(round).or_default().insert(0, signed.clone());
                }
                ConsensusMessage::Proposal(signed, compact)
            }
            ConsensusMessage::Vote(vote) => {
                self.votes.attendance.on_vote(vote.vote.validator, self.turn.now.elapsed);
                ConsensusMessage::Vote(vote)
            }
            other => other,
        };
        self.say(message);
    }

    fn say(&mut self, message: ConsensusMessage) {
        self.turn.gossip(Topic::Consensus, message);
    }

    /// Repeats the proposal of the current round, if it was not heard for a while. The list of
    /// transactions is left out, since it is large. Peers that lack the list ask for it.
    pub(super) fn repeat_proposals(&mut self) {
        let (now, round) = (self.turn.now.elapsed, self.consensus.round());
        if self.phase.proposals().is_none_or(|proposals| proposals.repeat_at > now) {
            return;
        }
        let (signs, turn) = (self.consensus.is_signing(), self.repeat_turn());
        let Some(proposals) = self.phase.proposals() else { return };
        let said = proposals.said.filter(|(of, _)| *of == round).map(|(_, at)| at);
        let due = said.map(|at| at.saturating_add(REPEAT).saturating_add(turn));
        if let Some(due) = due.filter(|due| *due > now) {
            proposals.repeat_at = due;
            return;
        }
        proposals.repeat_at = now.saturating_add(REPEAT);
        let first = proposals.of_round.get(&round).and_then(|of_round| of_round.first());
        if let Some(signed) = first.filter(|_| signs).cloned() {
            proposals.said = Some((round, now));
            self.say(ConsensusMessage::Proposal(signed, None));
        }
    }

    /// How much later than the validators of the first turn this one repeats a proposal.
    fn repeat_turn(&self) -> Duration {
        let validators = self.chain.state.chain().validators(self.chain.next_height());
        let place = self
            .validator
            .key
            .as_ref()
            .and_then(|key| validators.find(&key.public()))
            .map_or(0, |(place, _)| place);
        let turn = u32::try_from(place as u64 % REPEAT_STEPS).unwrap_or(0);
        REPEAT_STEP.saturating_mul(turn)
    }

    /// Takes in a proposal of the height being decided. Consensus gets the proposal once its round
    /// is near.
    pub(super) fn on_proposal(
        &mut self,
        from: PeerId,
        signed: &SignedProposal,
        list: Option<CompactBlock>,
    ) {
        let current = self.consensus.round();
        let round = signed.proposal.round;
        if round.0 > current.0.saturating_add(ROUNDS_AHEAD) {
            return;
        }
        let Some(proposals) = self.phase.proposals() else { return };
        if round == current {
            proposals.said = Some((round, self.turn.now.elapsed));
        }
        proposals.remember(signed);
        if round.0 > current.0.saturating_add(1) {
            return;
        }
        self.give(signed);
        if !self.phase.is_deciding() {
            return;
        }
        self.look_for(signed);
        if let Some(list) = list {
            self.bodies.on_list(&signed.proposal.block, list, from, &self.transactions.mempool);
        }
    }

    /// Gives a proposal to consensus. The exception is a proposal of the current or a later round
    /// for a valid block whose body was dropped. Consensus would vote for this block at once, but a
    /// validator votes only for a block that it can give to others. So consensus gets this proposal
    /// when the body is here again.
    pub(super) fn give(&mut self, signed: &SignedProposal) {
        let (block, round) = (signed.proposal.block, signed.proposal.round);
        let is_dropped =
            self.bodies.verdict(&block).is_none() && self.consensus.verdict(&block) == Some(true);
        if !is_dropped || round < self.consensus.round() {
            let message = ConsensusMessage::Proposal(signed.clone(), None);
            let outputs = self.consensus.on_message(&message, self.turn.now.elapsed);
            self.perform(outputs);
        }
    }

    /// Tells consensus the verdict on a proposed block. If there is none, fetches the block,
    /// provided its round is at most one away from the current round. Blocks of later rounds are
    /// fetched when their round is near.
    fn look_for(&mut self, signed: &SignedProposal) {
        let (block, round, current) =
            (signed.proposal.block, signed.proposal.round, self.consensus.round());
        let verdict =
            self.bodies.verdict(&block).map(|verdict| matches!(verdict, Verdict::Valid(_)));
        if verdict.is_some() {
            self.bodies.on_proposed(block, round);
        }
        match verdict {
            Some(valid) if self.phase.proposals().is_some_and(|all| all.tell(round, block)) => {
                let outputs = self.consensus.on_block(signed, valid, self.turn.now.elapsed);
                self.perform(outputs);
            }
            // Consensus needs no body to vote against a block.
            None if self.consensus.verdict(&block) == Some(false) => {}
            None if round.0 <= current.0.saturating_add(1)
                && round.0 >= current.0.saturating_sub(1) =>
            {
                self.bodies.want(signed.clone());
            }
            Some(_) | None => {}
        }
    }

    /// If a round began, drops data of rounds that are no longer near. Then gives consensus the
    /// proposals that came early for this round and the next, and fetches their blocks.
    pub(super) fn look_at_round(&mut self) {
        let is_new = |proposals: &mut Proposals| std::mem::take(&mut proposals.is_new_round);
        if !self.phase.proposals().is_some_and(is_new) {
            return;
        }
        let round = self.consensus.round();
        self.bodies.on_round(round, &self.consensus.pinned());
        self.shorten_log();
        self.votes.relay.on_round(self.consensus.height(), round);
        let first = Round(round.0.saturating_sub(ROUNDS_BEFORE));
        let Some(proposals) = self.phase.proposals() else { return };
        for signed in proposals.on_near(first, Round(round.0.saturating_add(1))) {
            self.give(&signed);
            if self.phase.is_deciding() && signed.proposal.round >= round {
                self.look_for(&signed);
            }
            if !self.phase.is_deciding() {
                return;
            }
        }
    }
}

/// Stands for this node as a sender. The shell numbers peers from 0 up, so no peer has this number.
pub(super) const OWN: PeerId = PeerId(u64::MAX);
