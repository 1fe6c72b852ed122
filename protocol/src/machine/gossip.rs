//! Gossip in: what becomes of each topic's messages, and consensus messages from there on.

use std::sync::Arc;

use ledger::codec;
use ledger::signature::PublicKey;
use ledger::units::Height;

use super::headers::Told;
use super::{Effect, Machine, Phase, Topic, Verdict};
use crate::ids::{PeerId, Ticket};
use crate::message::{Attempt, CONSENSUS_BYTES_MAX, CertifiedHeader, ConsensusMessage, HEADER_MESSAGE_BYTES_MAX};

impl Machine {
    pub(super) fn on_gossip(&mut self, topic: Topic, from: PeerId, ticket: Ticket, bytes: &[u8]) {
        let verdict = match topic {
            Topic::Consensus => match codec::decode::<Attempt<ConsensusMessage>>(bytes, CONSENSUS_BYTES_MAX) {
                Ok(attempt) => return self.on_consensus_gossip(from, ticket, attempt.message),
                Err(_) => Verdict::Reject,
            },
            Topic::Headers => match codec::decode::<Attempt<CertifiedHeader>>(bytes, HEADER_MESSAGE_BYTES_MAX) {
                Ok(attempt) => self.on_header(from, &attempt.message, Told::Gossip),
                Err(_) => Verdict::Reject,
            },
            // These are decoded and verified outside, in parallel.
            Topic::Transactions => Verdict::Ignore,
        };
        self.effects.push(Effect::Judge(ticket, verdict));
    }

    /// Judged before it is used: others should not wait for what this node makes of it.
    fn on_consensus_gossip(&mut self, from: PeerId, ticket: Ticket, message: ConsensusMessage) {
        let height = message.height();
        let tip = self.chain.tip().height;
        let verdict = if height < tip || height == Height(0) {
            Verdict::Ignore
        } else {
            let validators = Arc::clone(self.chain.chain().validators(height));
            match self.consensus.verify(&message, &validators) {
                true if height == tip || self.is_near(height) => Verdict::Accept,
                true => Verdict::Ignore,
                false => Verdict::Reject,
            }
        };
        self.effects.push(Effect::Judge(ticket, verdict));
        if verdict == Verdict::Reject || height <= tip {
            return;
        }
        if verdict == Verdict::Accept {
            let is_ours = self.key.as_ref().is_some_and(|key| message.signer() == Some(key.public()));
            let is_signed_here = self.phase == Phase::Deciding && self.consensus_signs();
            if is_ours && !is_signed_here && !self.signing.accounts_for(height) {
                self.signing.on_signed_elsewhere(height);
                self.report_signing();
            }
            self.on_consensus(from, message);
        } else {
            // Validators are at work far ahead: this node missed something.
            self.ask_status(from);
        }
    }
}

impl ConsensusMessage {
    /// Who signed it, where it is one validator's.
    #[must_use]
    pub const fn signer(&self) -> Option<PublicKey> {
        match self {
            Self::Vote(vote) => Some(vote.vote.validator),
            Self::Proposal(proposal, _) => Some(proposal.proposal.proposer),
            Self::Round(_) | Self::Polka(_) => None,
        }
    }

    /// The height it is about.
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
