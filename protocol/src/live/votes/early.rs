//! Consensus messages of heights that have not begun here.
//!
//! The next proposer is often a few milliseconds ahead. A node that catches up hears messages of
//! the current heights meanwhile. Such messages are kept, within bounds, and taken in when their
//! height begins. Otherwise the node would miss the first round of that height.

use std::collections::{BTreeMap, VecDeque};

use ledger::signature::PublicKey;
use ledger::units::{Height, Round};
use ledger::validators::ValidatorSet;

use crate::ids::PeerId;
use crate::message::ConsensusMessage;

/// Most messages kept per signer and height. Beyond that the oldest leave. An honest signer sends
/// six in two rounds.
const PER_SIGNER_MAX: usize = 8;
/// Most block lists kept beside proposals, for all heights together, since each has up to 380 KB.
/// Other lists are asked for later.
const LISTS_MAX: usize = 4;

/// Messages of one height by signer. Certificates are under `None`.
type OfHeight = BTreeMap<Option<PublicKey>, VecDeque<(PeerId, ConsensusMessage)>>;

/// Verified messages of later heights.
#[derive(Debug, Default)]
pub(crate) struct Early {
    heights: BTreeMap<Height, OfHeight>,
    /// Messages changed since the last [`Early::is_begun`].
    is_new: bool,
}

impl Early {
    /// Keeps a verified message.
    pub(crate) fn keep(&mut self, from: PeerId, message: ConsensusMessage) {
        let message = match message {
            ConsensusMessage::Proposal(signed, Some(_)) if self.lists() >= LISTS_MAX => {
                ConsensusMessage::Proposal(signed, None)
            }
            message => message,
        };
        let of_height = self.heights.entry(message.height()).or_default();
        let of_signer = of_height.entry(message.signer()).or_default();
        if let ConsensusMessage::Proposal(signed, Some(_)) = &message {
            // This copy replaces the one that came without the list.
            let lacks_list = |known: &ConsensusMessage| match known {
                ConsensusMessage::Proposal(known, None) => known == signed,
                _ => false,
            };
            if let Some(known) = of_signer.iter_mut().find(|(_, known)| lacks_list(known)) {
                *known = (from, message);
                self.is_new = true;
                return;
            }
        }
        if of_signer.iter().any(|(_, known)| *known == message) {
            return;
        }
        if of_signer.len() >= PER_SIGNER_MAX {
            of_signer.pop_front();
        }
        of_signer.push_back((from, message));
        self.is_new = true;
    }

    fn lists(&self) -> usize {
        let all = self.heights.values().flat_map(BTreeMap::values).flatten();
        all.filter(|(_, message)| matches!(message, ConsensusMessage::Proposal(_, Some(_)))).count()
    }

    /// The messages of a height that has begun: one signer after the other, each in order of
    /// arrival.
    pub(crate) fn take(&mut self, height: Height) -> Vec<(PeerId, ConsensusMessage)> {
        self.heights.remove(&height).unwrap_or_default().into_values().flatten().collect()
    }

    /// Forgets heights that are no longer near.
    pub(crate) fn keep_heights(&mut self, is_near: impl Fn(Height) -> bool) {
        self.heights.retain(|height, _| is_near(*height));
        self.is_new = true;
    }

    /// Whether the height has begun elsewhere: the proposal of its round 0, a certificate, or votes
    /// of more than a third of the power are here. False if no message came since the last call.
    ///
    /// A vote of one validator is not enough. Otherwise each validator could begin heights for all,
    /// and set the pace of an idle network.
    pub(crate) fn is_begun(&mut self, height: Height, set: &ValidatorSet) -> bool {
        if !std::mem::take(&mut self.is_new) {
            return false;
        }
        let Some(of_height) = self.heights.get(&height) else { return false };
        let mut power = 0u64;
        for (signer, messages) in of_height {
            let mut has_voted = false;
            for (_, message) in messages {
                match message {
                    ConsensusMessage::Proposal(signed, _) if signed.proposal.round == Round(0) => {
                        return true;
                    }
                    ConsensusMessage::Proposal(..) => {}
                    ConsensusMessage::Vote(_) => has_voted = true,
                    ConsensusMessage::Round(_) | ConsensusMessage::Polka(_) => return true,
                }
            }
            let voter = signer.filter(|_| has_voted).and_then(|signer| set.find(&signer));
            power = power.saturating_add(voter.map_or(0, |(_, validator)| validator.power.0));
        }
        power > set.total_power().0 / 3
    }
}
