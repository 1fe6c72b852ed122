//! Incoming gossip: the verdict for each topic's messages, and the way of consensus messages.

pub(super) mod attendance;
pub(super) mod early;
pub(super) mod relay;

use std::sync::Arc;

use ledger::codec;
use ledger::signature::PublicKey;
use ledger::units::{Height, Round};
use ledger::validators::ValidatorSet;

use super::headers::Told;
use super::{Effect, Machine, Phase, Topic, Verdict};
use crate::budget::Cost;
use crate::ids::{PeerId, Ticket};
use crate::live::bodies::transactions_max;
use crate::message::{
    Attempt, CONSENSUS_BYTES_MAX, CertifiedHeader, CompactBlock, ConsensusMessage,
    HEADER_MESSAGE_BYTES_MAX, SignedProposal,
};
use crate::planted::{self, Fault};

impl Machine {
    pub(super) fn on_gossip(&mut self, topic: Topic, from: PeerId, ticket: Ticket, bytes: &[u8]) {
        let verdict = match topic {
            Topic::Consensus => {
                match codec::decode::<Attempt<ConsensusMessage>>(bytes, CONSENSUS_BYTES_MAX) {
                    Ok(attempt) => {
                        return self.on_consensus_gossip(
                            from,
                            ticket,
                            attempt.message,
                            bytes.len(),
                        );
                    }
                    Err(_) => Verdict::Reject,
                }
            }
            Topic::Headers => {
                match codec::decode::<Attempt<CertifiedHeader>>(bytes, HEADER_MESSAGE_BYTES_MAX) {
                    Ok(attempt) => self.on_header(from, &attempt.message, Told::Gossip),
                    Err(_) => Verdict::Reject,
                }
            }
            // Decoded and verified outside, in parallel, and given as `Input::Transactions`.
            Topic::Transactions => Verdict::Ignore,
        };
        self.effects.push(Effect::Judge(ticket, verdict));
    }

    /// Judged before it is used: others should not wait for what this node makes of it.
    fn on_consensus_gossip(
        &mut self,
        from: PeerId,
        ticket: Ticket,
        message: ConsensusMessage,
        bytes: usize,
    ) {
        let hearing = self.hear(&message);
        if matches!(hearing, Hearing::News) && self.heard.was_passed(&message) {
            self.cost = self.cost.and(Cost::relay(bytes));
        }
        self.effects.push(Effect::Judge(ticket, hearing.verdict()));
        match hearing {
            Hearing::Forged | Hearing::Useless => {}
            // Validators work at a height far ahead, so this node missed something.
            Hearing::Far => self.ask_status(from),
            Hearing::News | Hearing::List => {
                let height = message.height();
                self.heard.note(&message, self.now.elapsed);
                let is_ours =
                    self.key.as_ref().is_some_and(|key| message.signer() == Some(key.public()));
                let is_signed_here = self.phase == Phase::Deciding && self.consensus_signs();
                if is_ours && !is_signed_here && !self.signing.accounts_for(height) {
                    self.signing.on_signed_elsewhere(height, self.now);
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
        self.cost = self.cost.and(Cost::signatures(signatures as u64));
        self.consensus.verify(message, validators)
    }

    /// Judges a message, cheapest checks first: a repeated message costs a look-up, not a signature
    /// or a Merkle root.
    fn hear(&mut self, message: &ConsensusMessage) -> Hearing {
        self.cost = self.cost.and(Cost::look_ups(1, 0));
        let (height, tip) = (message.height(), self.chain.tip().height);
        if height <= tip {
            return Hearing::Useless;
        }
        let validators = Arc::clone(self.chain.chain().validators(height));
        if !self.is_near(height) {
            // If the height before is proved already, there is nothing new to ask about.
            let is_known = self.catchup.known().next() >= height;
            return match is_known || self.verify(message, &validators) {
                true if is_known => Hearing::Useless,
                true => Hearing::Far,
                false => Hearing::Forged,
            };
        }
        let is_deciding = self.consensus.height() == height
            && matches!(self.phase, Phase::Deciding | Phase::Fetching | Phase::CatchingUp);
        let round = if is_deciding { self.consensus.round() } else { Round(0) };
        let may_pass = self.heard.may_pass(message, round, self.now.elapsed)
            || planted::is(Fault::GossipUnbounded);
        // A copy of the proposal without the list may have come first.
        if !may_pass && !self.heard.lacks_list(message, round) {
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
        if count <= transactions_max(&self.chain) {
            self.cost = self.cost.and(Cost::hashes(count as u64));
        }
        self.bodies.check_list(&self.chain, signed.proposal.block, list).is_ok()
    }
}

/// What a consensus message is to this node.
enum Hearing {
    /// Used and passed on.
    News,
    /// Known, passed on lately, or of a height or round that does not matter.
    Useless,
    /// A proposal that was passed on lately without its list, and now comes with the list. Used and
    /// passed on.
    List,
    /// Genuine, and of a height far ahead.
    Far,
    /// Not signed by its signer, or beside the list of another block.
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

impl ConsensusMessage {
    /// The validator that signed it; none for certificates, which have several signers.
    #[must_use]
    pub const fn signer(&self) -> Option<PublicKey> {
        match self {
            Self::Vote(vote) => Some(vote.vote.validator),
            Self::Proposal(proposal, _) => Some(proposal.proposal.proposer),
            Self::Round(_) | Self::Polka(_) => None,
        }
    }

    /// The height of its votes or proposal.
    #[must_use]
    pub const fn height(&self) -> Height {
        match self {
            Self::Vote(vote) => vote.vote.height,
            Self::Proposal(proposal, _) => proposal.proposal.height,
            Self::Round(certificate) => certificate.height,
            Self::Polka(polka) => polka.height,
        }
    }
}
