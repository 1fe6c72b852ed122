//! Which consensus messages were passed on lately: each is used and relayed once per interval,
//! however often it is repeated.
//!
//! Every gossip message carries a counter that nobody signs, so anybody can make any number of
//! copies of a signed message. Only this module bounds them: a vote or proposal is accepted once in
//! [`AGAIN`], and at most two different ones of one validator, height, round and kind. Two are
//! enough to prove double signing. Certificates are accepted once in [`CERTIFICATE_AGAIN`].
//! Retransmissions are at least a second apart, so after a loss they still reach everybody.
//!
//! Anybody can send a copy of a proposal without the list of its block. This copy is small, so it
//! overtakes the one with the list. So a copy with the list is accepted once, even if the proposal
//! was accepted lately without it: see [`Relay::lacks_list`].

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::certificate::VoteKind;
use ledger::hash::BlockHash;
use ledger::signature::PublicKey;
use ledger::units::{Height, Round};

use crate::message::ConsensusMessage;
use crate::planted::{self, Fault};

/// How long a repeated message is ignored after it was accepted. The time is shorter than any
/// retransmission interval (one second), and longer than a copy takes through the network.
const AGAIN: Duration = Duration::from_millis(500);
/// For how long certificates of a kind and height are ignored after one was accepted, whatever they
/// contain. A certificate of a later round is taken at once. Those of earlier rounds have such an
/// interval of their own. Any validator can make a certificate of the votes that it heard, so
/// copies differ.
const CERTIFICATE_AGAIN: Duration = Duration::from_secs(1);
/// Most different messages of one validator, height, round and kind.
const DIFFERENT_MAX: usize = 2;
/// Rounds before the current one whose messages are still taken: late precommits can decide a block
/// of an earlier round.
pub(crate) const ROUNDS_BEFORE: u32 = 16;
/// Rounds after the current one whose messages are taken. The consensus core drops messages of
/// later rounds. A round certificate leads a node to a later round.
pub(crate) const ROUNDS_AHEAD: u32 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Prevote,
    Precommit,
    Proposal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum CertificateKind {
    Skip,
    Precommit,
    Polka,
}

/// The content of a validator's message, without the signature: two signatures of the same content
/// are one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    block: Option<BlockHash>,
    valid_round: Option<Round>,
}

/// A word that was accepted.
#[derive(Clone, Copy, Debug)]
struct Known {
    word: Word,
    at: Duration,
    /// A copy with the list of the block was accepted.
    has_list: bool,
}

/// When certificates of one height and kind were accepted.
#[derive(Clone, Copy, Debug, Default)]
struct Certificates {
    /// The latest round, and when a certificate of it was accepted.
    newest: Option<(Round, Duration)>,
    /// When a certificate of any earlier round was accepted. It is noted apart, so that stale
    /// copies do not take the place of the newest certificate.
    older: Option<Duration>,
}

/// Key of a message in the records.
type Place = (Height, Round, Kind, PublicKey);

/// The accepted messages of heights that are near. For each round that is taken there are at most
/// [`DIFFERENT_MAX`] of each validator and kind.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    words: BTreeMap<Place, Vec<Known>>,
    certificates: BTreeMap<(Height, CertificateKind), Certificates>,
}

/// A message as this module records it.
enum Named {
    Word(Place, Word),
    Certificate((Height, CertificateKind), Round),
}

impl Relay {
    /// Whether a message should be verified, used and passed on. `round` is the current round of
    /// the message's height.
    pub(crate) fn may_pass(&self, message: &ConsensusMessage, round: Round, now: Duration) -> bool {
        match name(message) {
            Named::Word(place, word) => {
                if !is_taken(place.1, round) {
                    return false;
                }
                let Some(words) = self.words.get(&place) else { return true };
                match words.iter().find(|known| known.word == word) {
                    Some(known) => now >= known.at.saturating_add(AGAIN),
                    None => {
                        words.len() < DIFFERENT_MAX || planted::is(Fault::BlocksOfRoundUnbounded)
                    }
                }
            }
            Named::Certificate(place, of) => {
                let Some(known) = self.certificates.get(&place) else { return true };
                let is_over = |at: Duration| now >= at.saturating_add(CERTIFICATE_AGAIN);
                match known.newest {
                    Some((newest, at)) if of == newest => is_over(at),
                    Some((newest, _)) if of < newest => known.older.is_none_or(is_over),
                    _ => true,
                }
            }
        }
    }

    /// Whether everything that a message says was passed on before.
    pub(crate) fn was_passed(&self, message: &ConsensusMessage) -> bool {
        match name(message) {
            Named::Word(place, word) => {
                let is_new_list = has_list(message);
                let mut words = self.words.get(&place).into_iter().flatten();
                words.any(|known| known.word == word && (known.has_list || !is_new_list))
            }
            Named::Certificate(place, of) => self
                .certificates
                .get(&place)
                .and_then(|known| known.newest)
                .is_some_and(|(newest, _)| of <= newest),
        }
    }

    /// Whether a message is a proposal with a list, of which only copies without a list were
    /// accepted. Such a message is accepted once, even within [`AGAIN`]. The caller checks that the
    /// list is that of the block.
    pub(crate) fn lacks_list(&self, message: &ConsensusMessage, round: Round) -> bool {
        match name(message) {
            Named::Word(place, word) if has_list(message) && is_taken(place.1, round) => {
                let mut words = self.words.get(&place).into_iter().flatten();
                words.any(|known| known.word == word && !known.has_list)
            }
            _ => false,
        }
    }

    /// A message was verified and is passed on.
    pub(crate) fn note(&mut self, message: &ConsensusMessage, now: Duration) {
        match name(message) {
            Named::Word(place, word) => {
                let words = self.words.entry(place).or_default();
                let has_list = has_list(message);
                match words.iter_mut().find(|known| known.word == word) {
                    Some(known) => (known.at, known.has_list) = (now, known.has_list || has_list),
                    None => words.push(Known { word, at: now, has_list }),
                }
            }
            Named::Certificate(place, of) => {
                let known = self.certificates.entry(place).or_default();
                match known.newest {
                    Some((newest, _)) if of < newest => known.older = Some(now),
                    // The newest certificate so far becomes an older one.
                    Some((newest, at)) if of > newest => {
                        known.older = known.older.max(Some(at));
                        known.newest = Some((of, now));
                    }
                    _ => known.newest = Some((of, now)),
                }
            }
        }
    }

    /// Forgets heights that are no longer near.
    pub(crate) fn keep_heights(&mut self, is_near: impl Fn(Height) -> bool) {
        self.words.retain(|(height, ..), _| is_near(*height));
        self.certificates.retain(|(height, _), _| is_near(*height));
    }

    /// Forgets rounds of a height that are no longer taken.
    pub(crate) fn on_round(&mut self, height: Height, round: Round) {
        let first = round.0.saturating_sub(ROUNDS_BEFORE);
        self.words.retain(|(of, round, ..), _| *of != height || round.0 >= first);
    }
}

const fn has_list(message: &ConsensusMessage) -> bool {
    matches!(message, ConsensusMessage::Proposal(_, Some(_)))
}

/// Whether messages of the round `of` are taken while `current` is the round being decided.
const fn is_taken(of: Round, current: Round) -> bool {
    of.0 <= current.0.saturating_add(ROUNDS_AHEAD)
        && of.0 >= current.0.saturating_sub(ROUNDS_BEFORE)
}

fn name(message: &ConsensusMessage) -> Named {
    match message {
        ConsensusMessage::Vote(signed) => {
            let vote = &signed.vote;
            let kind = match vote.kind {
                VoteKind::Prevote => Kind::Prevote,
                VoteKind::Precommit => Kind::Precommit,
            };
            let word = Word { block: vote.block, valid_round: None };
            Named::Word((vote.height, vote.round, kind, vote.validator), word)
        }
        ConsensusMessage::Proposal(signed, _) => {
            let proposal = &signed.proposal;
            let word = Word { block: Some(proposal.block), valid_round: proposal.valid_round };
            Named::Word((proposal.height, proposal.round, Kind::Proposal, proposal.proposer), word)
        }
        ConsensusMessage::Round(certificate) => {
            let kind = match certificate.is_precommit {
                true => CertificateKind::Precommit,
                false => CertificateKind::Skip,
            };
            Named::Certificate((certificate.height, kind), certificate.round)
        }
        ConsensusMessage::Polka(polka) => {
            Named::Certificate((polka.height, CertificateKind::Polka), polka.round)
        }
    }
}
