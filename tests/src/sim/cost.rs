//! What other nodes can make a node spend: the messages that it passes on, the bodies that it
//! executes and logs, the transactions that it looks up, and the delay before it judges an early
//! proposal. Each life of a node has a [`Cost`] of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::certificate::VoteKind;
use ledger::codec;
use ledger::hash::BlockHash;
use ledger::signature::PublicKey;
use ledger::units::{Height, Round};
use protocol::message::ConsensusMessage;
use protocol::{Machine, Work};

use super::byzantine::TRANSACTION_BYTES_MIN;
use super::check::{Rule, Violation};

/// Different messages of one signer, height, round and kind that are worth passing on: two prove
/// double signing.
const DIFFERENT_MAX: usize = 2;
/// After this time the same message is worth passing on again, as a peer may have missed it.
const AGAIN: Duration = Duration::from_millis(500);
/// Bodies of one round that are worth executing: two that prove double signing, and one that has a
/// quorum of prevotes.
const BODIES_MAX: u32 = 3;
/// Bodies of a height that are worth keeping: two of each of the three rounds around the current
/// one, the last one built, the locked one and the valid one.
const HELD_MAX: usize = 9;
/// A proposal that is complete when its height begins gets its prevote within this time.
const PROMPT: Duration = Duration::from_millis(300);

/// Signer and kind of a message. A certificate has no signer, since anyone who has the votes can
/// make one: all certificates of a round count as one subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Proposal(PublicKey),
    Vote(PublicKey, VoteKind),
    Round(bool),
    Polka(BlockHash),
}

/// Encoded messages, each with the time when it was last passed on, and whether it was ever passed
/// on with a transaction list.
type Said = Vec<(Vec<u8>, Duration, bool)>;

/// What a node has spent in this life.
#[derive(Default)]
pub(crate) struct Cost {
    accepted: BTreeMap<(Height, Round, Subject), Said>,
    bodies: BTreeMap<(Height, Round), u32>,
    /// The machine's work up to the last input.
    work: Work,
    /// The height being decided, its highest round so far, and the bodies executed before that
    /// height.
    height: Height,
    round: Round,
    executed_before: u64,
    /// Blocks proposed for the first round of a later height, complete with their transactions.
    early: BTreeMap<Height, BlockHash>,
    /// When each height was first seen to have begun. It may have begun earlier.
    begun: BTreeMap<Height, Duration>,
    /// Whether it has prevoted in the first round of a height in this life. If not, it may begin to
    /// sign in the middle of a height, and a late vote is no fault.
    signs: bool,
}

impl Cost {
    /// A consensus message is passed on.
    ///
    /// A proposal that was passed on only without its list may follow with the list once, at any
    /// time: other nodes may get the list in no other way. The list must be that of the block.
    /// After that no copy of the proposal may follow within 500 ms, with or without the list.
    pub(crate) fn on_accepted(
        &mut self,
        now: Duration,
        message: &ConsensusMessage,
    ) -> Result<(), Violation> {
        let broken = |what: String| Err(Violation::new(Rule::NoAmplification, what));
        let (round, subject, said) = match message {
            ConsensusMessage::Vote(signed) => {
                let vote = &signed.vote;
                (vote.round, Subject::Vote(vote.validator, vote.kind), codec::encode(signed))
            }
            ConsensusMessage::Proposal(signed, compact) => {
                let proposal = &signed.proposal;
                if compact.as_ref().is_some_and(|compact| !compact.is(proposal.block)) {
                    return broken(format!(
                        "a list that {proposal:?} does not stand for is passed on"
                    ));
                }
                (proposal.round, Subject::Proposal(proposal.proposer), codec::encode(signed))
            }
            ConsensusMessage::Round(certificate) => {
                (certificate.round, Subject::Round(certificate.is_precommit), Vec::new())
            }
            ConsensusMessage::Polka(polka) => {
                (polka.round, Subject::Polka(polka.block), Vec::new())
            }
        };
        let has_list = matches!(message, ConsensusMessage::Proposal(_, Some(_)));
        let height = message.height();
        self.accepted.retain(|(of, _, _), _| of.0 + 2 >= height.0);
        let known = self.accepted.entry((height, round, subject)).or_default();
        if let Some((_, last, had_list)) = known.iter_mut().find(|(other, ..)| *other == said) {
            let pause = now.saturating_sub(*last);
            let is_upgrade = has_list && !*had_list;
            (*last, *had_list) = (now, *had_list || has_list);
            return match pause < AGAIN && !is_upgrade {
                true => broken(format!(
                    "height {height}, round {round}, {subject:?} again after {pause:?}"
                )),
                false => Ok(()),
            };
        }
        known.push((said, now, has_list));
        match known.len() > DIFFERENT_MAX {
            true => broken(format!(
                "height {height}, round {round}, {subject:?}: {} different ones",
                known.len()
            )),
            false => Ok(()),
        }
    }

    /// A body of this round was written to the log.
    pub(crate) fn on_body(&mut self, height: Height, round: Round) -> Result<(), Violation> {
        self.bodies.retain(|(of, _), _| *of >= height);
        let count = self.bodies.entry((height, round)).or_default();
        *count += 1;
        match *count > BODIES_MAX {
            true => Err(Violation::new(
                Rule::NoUnpaidWork,
                format!("height {height}, round {round}: {count} bodies"),
            )),
            false => Ok(()),
        }
    }

    /// An input was handled.
    pub(crate) fn on_input(&mut self, machine: &Machine) -> Result<(), Violation> {
        let full_block = machine.chain().chain().limits().block_bytes_max / TRANSACTION_BYTES_MIN;
        let held = machine.bodies_held();
        if held > HELD_MAX {
            return Err(Violation::new(
                Rule::NoUnpaidWork,
                format!("{held} bodies of one height are in memory"),
            ));
        }
        self.on_work(
            machine.chain().tip().height.next(),
            machine.round(),
            machine.work(),
            full_block,
        )
    }

    /// Checks the machine's total work since its start. `full_block` is the number of transactions
    /// that fit a block.
    fn on_work(
        &mut self,
        height: Height,
        round: Round,
        work: Work,
        full_block: u64,
    ) -> Result<(), Violation> {
        let broken = |what: String| Err(Violation::new(Rule::NoUnpaidWork, what));
        let before = std::mem::replace(&mut self.work, work);
        let looked_up = work.look_ups - before.look_ups;
        if looked_up > 2 * full_block {
            return broken(format!(
                "{looked_up} look-ups for one input, a full block has {full_block} transactions"
            ));
        }
        if self.height != height {
            // Bodies executed by the input that began the height count for that height.
            (self.height, self.round, self.executed_before) = (height, round, before.executed);
        }
        self.round = self.round.max(round);
        // The machine does not report the round of an executed body. Bodies of the next round may
        // come before that round begins, so they are allowed too.
        let (executed, rounds) =
            (work.executed - self.executed_before, u64::from(self.round.0) + 2);
        match executed > rounds * u64::from(BODIES_MAX) {
            true => broken(format!("height {height}, round {round}: {executed} bodies executed")),
            false => Ok(()),
        }
    }

    /// A complete proposal of an honest validator has arrived for the first round of the height
    /// after the next. Its timestamp is no further in the future than the clock drift allows.
    pub(crate) fn on_early(&mut self, height: Height, block: BlockHash) {
        self.early.retain(|of, _| of.0 + 2 >= height.0);
        self.early.entry(height).or_insert(block);
    }

    /// The node was seen to decide this height.
    pub(crate) fn on_begun(&mut self, height: Height, now: Duration) {
        self.begun.retain(|of, _| *of >= height);
        self.begun.entry(height).or_insert(now);
    }

    /// The node starts to catch up: its consensus state may be lost.
    pub(crate) fn on_behind(&mut self) {
        self.early.clear();
        self.begun.clear();
    }

    /// The node prevotes in the first round of a height.
    pub(crate) fn on_prevote(&mut self, height: Height, now: Duration) -> Result<(), Violation> {
        let signed_before = std::mem::replace(&mut self.signs, true);
        let early = self.early.remove(&height).filter(|_| signed_before);
        let (Some(block), Some(begun)) = (early, self.begun.get(&height)) else { return Ok(()) };
        let waited = now.saturating_sub(*begun);
        match waited > PROMPT {
            true => {
                let what = format!(
                    "height {height}: block {block} was here, and the vote came {waited:?} late"
                );
                Err(Violation::new(Rule::NoIdling, what))
            }
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use ledger::certificate::{Certificate, Vote};
    use ledger::chain::{Chain, ChainState};
    use ledger::hash::Hash;
    use protocol::message::{CompactBlock, Proposal, RoundCertificate, SignedProposal, SignedVote};

    use super::super::plan::{Plan, validator_key};
    use super::*;

    const HEIGHT: Height = Height(1);

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn rule(result: &Result<(), Violation>) -> Option<Rule> {
        result.as_ref().err().map(|violation| violation.rule)
    }

    fn vote(by: usize, block: u8) -> ConsensusMessage {
        let chain = Chain::new(Plan::quiet(4).genesis());
        let (key, block) = (validator_key(by), Some(BlockHash(Hash([block; 32]))));
        let vote = Vote {
            kind: VoteKind::Prevote,
            height: HEIGHT,
            round: Round(0),
            block,
            validator: key.public(),
        };
        ConsensusMessage::Vote(SignedVote { signature: key.sign(&vote.message(chain.id())), vote })
    }

    #[test]
    fn amplification_is_seen() {
        let mut cost = Cost::default();
        let certificate = RoundCertificate {
            height: HEIGHT,
            round: Round(0),
            is_precommit: true,
            votes: Vec::new(),
        };
        let certificate = ConsensusMessage::Round(certificate);
        for (at, message, broken) in [
            (0, vote(0, 1), false),
            (499, vote(0, 1), true),
            (1_000, vote(0, 1), false),
            (1_000, vote(0, 2), false),
            (1_000, vote(1, 3), false),
            (9_000, vote(0, 3), true),
            (9_000, certificate.clone(), false),
            (9_400, certificate, true),
        ] {
            let result = cost.on_accepted(ms(at), &message);
            assert_eq!(
                rule(&result),
                broken.then_some(Rule::NoAmplification),
                "at {at} ms: {result:?}"
            );
        }
    }

    /// A proposal and the list of its block, which is empty.
    fn proposal() -> (SignedProposal, CompactBlock) {
        let chain = Chain::new(Plan::quiet(4).genesis());
        let state = ChainState::genesis(std::sync::Arc::clone(&chain));
        let (key, certificate) = (validator_key(0), Certificate::genesis(chain.id()));
        let valid = state.propose(key.public(), state.tip().time, certificate, Vec::new());
        let (block, round, proposer) = (valid.hash(), Round(0), key.public());
        let proposal = Proposal { height: HEIGHT, round, block, valid_round: None, proposer };
        let signed =
            SignedProposal { signature: key.sign(&proposal.message(chain.id())), proposal };
        let compact = CompactBlock {
            header: valid.header().clone(),
            parent_certificate: valid.block().parent_certificate.clone(),
            transactions: Vec::new(),
        };
        (signed, compact)
    }

    #[test]
    fn a_list_follows_a_proposal_without_it_once() {
        let (signed, compact) = proposal();
        let mut cost = Cost::default();
        for (at, list, broken) in [
            (0, None, false),
            (10, None, true),
            (20, Some(compact.clone()), false),
            (30, Some(compact.clone()), true),
            (40, None, true),
            (540, Some(compact.clone()), false),
            (550, Some(compact), true),
        ] {
            let result =
                cost.on_accepted(ms(at), &ConsensusMessage::Proposal(signed.clone(), list));
            assert_eq!(
                rule(&result),
                broken.then_some(Rule::NoAmplification),
                "at {at} ms: {result:?}"
            );
        }
    }

    #[test]
    fn a_list_that_nobody_signed_is_seen() {
        let (signed, mut compact) = proposal();
        let accepted = |compact: &CompactBlock| {
            let message = ConsensusMessage::Proposal(signed.clone(), Some(compact.clone()));
            rule(&Cost::default().on_accepted(ms(0), &message))
        };
        assert_eq!(accepted(&compact), None);
        compact.transactions.push(ledger::hash::TxHash(Hash([1; 32])));
        assert_eq!(accepted(&compact), Some(Rule::NoAmplification));
    }

    #[test]
    fn unpaid_work_is_seen() {
        let mut cost = Cost::default();
        for round in [0, 0, 0, 1, 1, 1] {
            assert_eq!(rule(&cost.on_body(HEIGHT, Round(round))), None);
        }
        assert_eq!(rule(&cost.on_body(HEIGHT, Round(0))), Some(Rule::NoUnpaidWork));
        // For each input: the round, and the look-ups and executed bodies since the start.
        for (round, look_ups, executed, broken) in [
            (0, 20, 1, false),
            (0, 41, 1, true),
            (0, 41, 6, false),
            (0, 41, 7, true),
            (1, 41, 9, false),
            (1, 41, 10, true),
        ] {
            let work = Work { look_ups, executed, logged: 0 };
            let result = cost.on_work(HEIGHT, Round(round), work, 10);
            assert_eq!(
                rule(&result),
                broken.then_some(Rule::NoUnpaidWork),
                "{round} {work:?}: {result:?}"
            );
        }
    }

    #[test]
    fn idling_is_seen() {
        // Whether the proposal came early, when its height began, and when the node voted on it.
        for (early, begun, voted, broken) in
            [(true, 1_000, 1_300, false), (true, 1_000, 1_301, true), (false, 1_000, 2_000, false)]
        {
            let mut cost = Cost::default();
            assert_eq!(rule(&cost.on_prevote(Height(1), ms(0))), None);
            if early {
                cost.on_early(Height(2), BlockHash::default());
            }
            cost.on_begun(Height(2), ms(begun));
            cost.on_begun(Height(2), ms(begun + 50));
            let result = cost.on_prevote(Height(2), ms(voted));
            assert_eq!(rule(&result), broken.then_some(Rule::NoIdling), "{early} {begun} {voted}");
        }
    }
}
