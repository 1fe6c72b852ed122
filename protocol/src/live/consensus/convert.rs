//! Converts between the core's messages and those of the wire and the log.

use ledger::signature::Signature;
use ledger::units;
use malachite_types as core;

use super::context::{Address, Context, Height, Round, Timeout, TimeoutKind, Value, round_number};
use super::{CoreInput, context};
use crate::message::{
    ConsensusMessage, LogEntry, PolkaCertificate, Proposal, RoundCertificate, SignedProposal,
    SignedVote,
};

pub(super) fn round(round: Option<units::Round>) -> Round {
    round.map_or(Round::Nil, |round| Round::new(round.0))
}

fn round_option(round: Round) -> Option<units::Round> {
    round.as_u32().map(units::Round)
}

pub(super) fn vote_to_core(signed: &SignedVote) -> core::SignedVote<Context> {
    core::SignedVote::<Context>::new(signed.vote.clone().into(), signed.signature.into())
}

pub(super) fn vote_to_wire(signed: &core::SignedVote<Context>) -> SignedVote {
    SignedVote { vote: signed.message.ledger(), signature: signed.signature.into() }
}

pub(super) fn proposal_to_core(signed: &SignedProposal) -> core::SignedProposal<Context> {
    let proposal = &signed.proposal;
    core::SignedProposal::<Context>::new(
        context::Proposal {
            height: Height(proposal.height),
            round: Round::new(proposal.round.0),
            value: Value(proposal.block),
            pol_round: round(proposal.valid_round),
            proposer: Address(proposal.proposer),
        },
        signed.signature.into(),
    )
}

pub(super) fn unsigned_proposal(proposal: &context::Proposal) -> Proposal {
    Proposal {
        height: proposal.height.0,
        round: round_number(proposal.round),
        block: proposal.value.0,
        valid_round: round_option(proposal.pol_round),
        proposer: proposal.proposer.0,
    }
}

pub(super) fn proposal_to_wire(signed: &core::SignedProposal<Context>) -> SignedProposal {
    SignedProposal {
        proposal: unsigned_proposal(&signed.message),
        signature: signed.signature.into(),
    }
}

pub(super) fn polka_to_core(polka: &PolkaCertificate) -> core::PolkaCertificate<Context> {
    core::PolkaCertificate {
        height: Height(polka.height),
        round: Round::new(polka.round.0),
        value_id: polka.block,
        polka_signatures: polka
            .signatures
            .iter()
            .map(|(key, signature)| core::PolkaSignature::new(Address(*key), (*signature).into()))
            .collect(),
    }
}

pub(super) fn polka_to_wire(polka: &core::PolkaCertificate<Context>) -> PolkaCertificate {
    let signature =
        |entry: &core::PolkaSignature<Context>| (entry.address.0, Signature::from(entry.signature));
    PolkaCertificate {
        height: polka.height.0,
        round: round_number(polka.round),
        block: polka.value_id,
        signatures: polka.polka_signatures.iter().map(signature).collect(),
    }
}

pub(super) fn round_certificate_to_wire(
    certificate: &core::RoundCertificate<Context>,
) -> RoundCertificate {
    RoundCertificate {
        height: certificate.height.0,
        round: round_number(certificate.round),
        is_precommit: certificate.cert_type == core::RoundCertificateType::Precommit,
        votes: certificate.votes(&Context).map(|vote| vote_to_wire(&vote)).collect(),
    }
}

fn round_certificate_to_core(certificate: &RoundCertificate) -> core::RoundCertificate<Context> {
    let cert_type = match certificate.is_precommit {
        true => core::RoundCertificateType::Precommit,
        false => core::RoundCertificateType::Skip,
    };
    core::RoundCertificate::new_from_votes(
        Height(certificate.height),
        Round::new(certificate.round.0),
        cert_type,
        certificate.votes.iter().map(vote_to_core).collect(),
    )
}

/// A message from the network as an input of the core.
pub(super) fn received(message: &ConsensusMessage) -> CoreInput {
    match message {
        ConsensusMessage::Vote(vote) => CoreInput::Vote(vote_to_core(vote)),
        ConsensusMessage::Proposal(proposal, _) => CoreInput::Proposal(proposal_to_core(proposal)),
        ConsensusMessage::Round(certificate) => {
            CoreInput::RoundCertificate(round_certificate_to_core(certificate))
        }
        ConsensusMessage::Polka(polka) => CoreInput::PolkaCertificate(polka_to_core(polka)),
    }
}

/// The log entry for an input that the core asks to log. `None` for round certificates, whose votes
/// are logged, for timeouts that only retransmit, and for commands of the host.
pub(super) fn logged(input: &CoreInput) -> Option<LogEntry> {
    match input {
        CoreInput::Vote(vote) => Some(LogEntry::Vote(vote_to_wire(vote))),
        CoreInput::Proposal(proposal) => Some(LogEntry::Proposal(proposal_to_wire(proposal))),
        CoreInput::PolkaCertificate(polka) => Some(LogEntry::Polka(polka_to_wire(polka))),
        CoreInput::ProposedValue(value, _) => Some(LogEntry::Known {
            round: round_number(value.round),
            valid_round: round_option(value.valid_round),
            proposer: value.proposer.0,
            block: value.value.0,
            valid: value.validity.is_valid(),
        }),
        CoreInput::TimeoutElapsed(timeout) => {
            let kind = match timeout.kind {
                TimeoutKind::Propose => 0,
                TimeoutKind::Prevote => 1,
                TimeoutKind::Precommit => 2,
                TimeoutKind::Rebroadcast | TimeoutKind::FinalizeHeight(_) => return None,
            };
            Some(LogEntry::Timeout(kind, round_number(timeout.round)))
        }
        CoreInput::StartHeight(..)
        | CoreInput::RoundCertificate(_)
        | CoreInput::Propose(_)
        | CoreInput::SyncValueResponse(_) => None,
    }
}

/// A log entry as an input of the core, for replay. `None` for bodies, which the machine restores,
/// and for messages of another height.
pub(super) fn replayed(height: units::Height, entry: &LogEntry) -> Option<CoreInput> {
    let input = match entry {
        LogEntry::Body(_) => return None,
        LogEntry::Vote(vote) if vote.vote.height == height => CoreInput::Vote(vote_to_core(vote)),
        LogEntry::Proposal(proposal) if proposal.proposal.height == height => {
            CoreInput::Proposal(proposal_to_core(proposal))
        }
        LogEntry::Polka(polka) if polka.height == height => {
            CoreInput::PolkaCertificate(polka_to_core(polka))
        }
        LogEntry::Vote(_) | LogEntry::Proposal(_) | LogEntry::Polka(_) => return None,
        LogEntry::Known { round: at, valid_round, proposer, block, valid } => {
            CoreInput::ProposedValue(
                malachite::ProposedValue {
                    height: Height(height),
                    round: Round::new(at.0),
                    valid_round: round(*valid_round),
                    proposer: Address(*proposer),
                    value: Value(*block),
                    validity: core::Validity::from_bool(*valid),
                },
                core::ValueOrigin::Consensus,
            )
        }
        LogEntry::Timeout(kind, at) => {
            let kind = match kind {
                0 => TimeoutKind::Propose,
                1 => TimeoutKind::Prevote,
                _ => TimeoutKind::Precommit,
            };
            CoreInput::TimeoutElapsed(Timeout::new(Round::new(at.0), kind))
        }
    };
    Some(input)
}
