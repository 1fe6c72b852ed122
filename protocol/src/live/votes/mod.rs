//! Votes, and all other messages of consensus: each is judged, then used, kept until its height
//! begins, or dropped.

pub(super) mod attendance;
mod early;
mod evidence;
pub(super) mod relay;

use std::sync::Arc;

use ledger::units::{Height, Round};
use ledger::validators::ValidatorSet;

use super::{Effect, Machine, Verdict};
use crate::budget::Cost;
use crate::ids::{PeerId, Ticket};
use crate::live::bodies::transactions_max;
use crate::message::{CompactBlock, ConsensusMessage, SignedProposal};
use crate::planted::{self, Fault};
use attendance::Attendance;
use early::Early;
use evidence::Offenders;
use relay::Relay;

/// What this node knows of the validators' messages. Proposals of the height being decided are in
/// `Phase`.
pub(super) struct Votes {
    /// Messages that were passed on lately.
    pub(super) relay: Relay,
    /// Messages that came before their height began.
    pub(super) early: Early,
    /// Validators that are heard.
    pub(super) attendance: Attendance,
    /// Validators that signed twice.
    pub(super) offenders: Offenders,
}

impl Votes {
    pub(super) fn new() -> Self {
        Self {
            relay: Relay::default(),
            early: Early::default(),
            attendance: Attendance::new(),
            offenders: Offenders::default(),
        }
    }
}

impl Machine {
    /// Judges a message before it is used: others should not wait until this node has used it.
    pub(super) fn on_consensus_gossip(
        &mut self,
        from: PeerId,
        ticket: Ticket,
        message: ConsensusMessage,
        bytes: usize,
    ) {
        let hearing = self.hear(&message);
        if matches!(hearing, Hearing::News) && self.votes.relay.was_passed(&message) {
            self.turn.charge(Cost::relay(bytes));
        }
        self.turn.push(Effect::Judge(ticket, hearing.verdict()));
        match hearing {
            Hearing::Forged | Hearing::Useless => {}
            // Validators work at a height far ahead, so this node missed something.
            Hearing::Far => self.ask_tip(from),
            Hearing::News | Hearing::List => {
                let height = message.height();
                self.votes.relay.note(&message, self.turn.now.elapsed);
                let is_ours = self
                    .validator
                    .key
                    .as_ref()
                    .is_some_and(|key| message.signer() == Some(key.public()));
                let is_signed_here = self.phase.is_deciding() && self.consensus_signs();
                if is_ours && !is_signed_here && !self.validator.signing.accounts_for(height) {
                    self.validator.signing.on_signed_elsewhere(height, self.turn.now);
                    self.report_signing();
                }
                self.on_consensus(from, message);
            }
        }
    }

    fn verify(&mut self, message: &ConsensusMessage, validators: &ValidatorSet) -> bool {
        let signatures = match message {
            ConsensusMessage::Vote(_) | ConsensusMessage::Proposal(..) => 1,
            ConsensusMessage::Round(certificate) => certificate.votes.len(),
            ConsensusMessage::Polka(polka) => polka.signatures.len(),
        };
        self.turn.charge(Cost::signatures(signatures as u64));
        self.consensus.verify(message, validators)
    }

    /// Judges a message, cheapest checks first: a repeated message costs a look-up, not a signature
    /// or a Merkle root.
    fn hear(&mut self, message: &ConsensusMessage) -> Hearing {
        self.turn.charge(Cost::look_ups(1, 0));
        let (height, tip) = (message.height(), self.chain.height());
        if height <= tip {
            return Hearing::Useless;
        }
        let validators = Arc::clone(self.chain.state.chain().validators(height));
        if !self.is_near(height) {
            // If the height before is proved already, a peer's tip would tell nothing new.
            let is_known = self.catchup.known().next() >= height;
            return match is_known || self.verify(message, &validators) {
                true if is_known => Hearing::Useless,
                true => Hearing::Far,
                false => Hearing::Forged,
            };
        }
        let has_begun = height == tip.next() && self.phase.has_begun();
        let round = if has_begun { self.consensus.round() } else { Round(0) };
        let may_pass = self.votes.relay.may_pass(message, round, self.turn.now.elapsed)
            || planted::is(Fault::GossipUnbounded);
        // A copy of the proposal without the list may have been passed on lately.
        if !may_pass && !self.votes.relay.lacks_list(message, round) {
            return Hearing::Useless;
        }
        // An earlier copy without the list was verified, but this copy may have a forged signature.
        if !self.verify(message, &validators) {
            return Hearing::Forged;
        }
        if let ConsensusMessage::Proposal(signed, Some(list)) = message
            && !self.is_list_of(signed, list)
            && !planted::is(Fault::GossipUnbounded)
        {
            return Hearing::Forged;
        }
        if may_pass { Hearing::News } else { Hearing::List }
    }

    /// Whether the list beside a proposal is that of its block. The cost of the message includes
    /// the Merkle root of the list.
    fn is_list_of(&mut self, signed: &SignedProposal, list: &CompactBlock) -> bool {
        if list.header.height != signed.proposal.height {
            return false;
        }
        let count = list.transactions.len();
        if count <= transactions_max(&self.chain.state) {
            self.turn.charge(Cost::hashes(count as u64));
        }
        self.bodies.check_list(&self.chain.state, signed.proposal.block, list).is_ok()
    }

    /// Takes in a verified message of a height that is near, or keeps it until its height begins.
    fn on_consensus(&mut self, from: PeerId, message: ConsensusMessage) {
        let (height, next) = (message.height(), self.chain.next_height());
        if height == next {
            if let ConsensusMessage::Vote(signed) = &message {
                self.votes.attendance.on_vote(signed.vote.validator, self.turn.now.elapsed);
            }
            if self.phase.is_deciding() {
                return self.take_in(from, message);
            }
        }
        let is_forgotten = planted::is(Fault::EarlyProposalForgotten) && height > next;
        if is_forgotten && matches!(message, ConsensusMessage::Proposal(..)) {
            return;
        }
        self.votes.early.keep(from, message);
    }

    /// Takes in messages that came before the height began.
    pub(super) fn take_in_early(&mut self) {
        for (from, message) in self.votes.early.take(self.chain.next_height()) {
            if self.phase.is_deciding() {
                self.take_in(from, message);
            }
        }
    }

    /// Takes in a message of the height being decided.
    pub(super) fn take_in(&mut self, from: PeerId, message: ConsensusMessage) {
        match message {
            ConsensusMessage::Proposal(signed, list) => self.on_proposal(from, &signed, list),
            message => {
                let outputs = self.consensus.on_message(&message, self.turn.now.elapsed);
                self.perform(outputs);
            }
        }
    }

    /// Whether messages of a height can be verified and used soon: the two heights after the tip,
    /// and the two after the highest proved height.
    fn is_near(&self, height: Height) -> bool {
        is_near(self.chain.height(), self.catchup.known(), height)
    }

    /// Forgets messages of heights that are no longer near.
    pub(super) fn forget_heights(&mut self) {
        let (tip, best) = (self.chain.height(), self.catchup.known());
        self.votes.early.keep_heights(|height| is_near(tip, best, height));
        self.votes.relay.keep_heights(|height| is_near(tip, best, height));
    }
}

/// How this node judges a consensus message.
enum Hearing {
    /// Used and passed on.
    News,
    /// Known, passed on lately, or of a height or round that does not matter.
    Useless,
    /// A proposal that was passed on lately without its list, and now comes with the list. Used and
    /// passed on.
    List,
    /// Genuine, but of a height far ahead.
    Far,
    /// Not signed by a validator that may send it, or with the list of another block.
    Forged,
}

impl Hearing {
    const fn verdict(&self) -> Verdict {
        match self {
            Self::News | Self::List => Verdict::Accept,
            Self::Useless | Self::Far => Verdict::Ignore,
            Self::Forged => Verdict::Reject,
        }
    }
}

fn is_near(tip: Height, best: Height, height: Height) -> bool {
    [tip, best].iter().any(|of| *of < height && height <= of.next().next()) && height > tip
}
