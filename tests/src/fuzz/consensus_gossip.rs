//! The target for gossip: consensus messages, certified headers and batches of transactions.

use std::collections::BTreeSet;

use ledger::certificate::{Vote, VoteKind};
use ledger::transaction::Transaction;
use protocol::live::consensus::Consensus;
use protocol::message::{
    Attempt, CONSENSUS_BYTES_MAX, CertifiedHeader, ConsensusMessage, HEADER_MESSAGE_BYTES_MAX,
    PolkaCertificate, Proposal, RoundCertificate, SignedProposal, SignedVote,
    TRANSACTIONS_BYTES_MAX,
};

use super::canonical;
use super::fixture::{BYZANTINE, fixture};

/// Reads a message of each topic. Consensus gives a repeated message its old verdict. It accepts
/// only signatures that also hold when verified on their own, proposals of the validator whose turn
/// it is, and certificates with enough power. A certified header that holds is the header of a
/// final block. Each vote and proposal is also checked with a validator's signature, since a fuzzer
/// cannot sign.
pub fn consensus_gossip(data: &[u8]) -> bool {
    let consensus = canonical::<Attempt<ConsensusMessage>>(data, CONSENSUS_BYTES_MAX);
    let header = canonical::<Attempt<CertifiedHeader>>(data, HEADER_MESSAGE_BYTES_MAX);
    let transactions = canonical::<Attempt<Vec<Transaction>>>(data, TRANSACTIONS_BYTES_MAX);
    let is_accepted = consensus.is_some() || header.is_some() || transactions.is_some();
    if let Some(Attempt { message, .. }) = consensus {
        on_message(&message);
    }
    if let Some(Attempt { message, .. }) = header {
        on_header(&message);
    }
    is_accepted
}

fn on_header(message: &CertifiedHeader) {
    let fixture = fixture();
    let CertifiedHeader { header, certificate } = message;
    let validators = fixture.chain.validators(header.height);
    if certificate.verify(fixture.chain.id(), validators, header.height, header.hash()).is_ok() {
        let known = fixture.block(header.height).map(|(block, _)| block.header());
        assert_eq!(known, Some(header), "nobody certified another header");
    }
}

fn on_message(message: &ConsensusMessage) {
    let fixture = fixture();
    let id = fixture.chain.id();
    let validators = fixture.chain.validators(message.height());
    let verdict = |message: &ConsensusMessage| {
        let mut consensus = Consensus::new(id, None, validators);
        let verdict = consensus.verify(message, validators);
        assert_eq!(
            consensus.verify(message, validators),
            verdict,
            "a repeated message has its old verdict"
        );
        verdict
    };
    let (is_valid, holds, signed) = match message {
        ConsensusMessage::Vote(signed) => {
            let key = &fixture.validators[BYZANTINE];
            let mut vote = signed.vote.clone();
            vote.validator = key.public();
            let again = SignedVote { signature: key.sign(&vote.message(id)), vote };
            (verdict(message), signed.verify(id), Some(ConsensusMessage::Vote(again)))
        }
        ConsensusMessage::Proposal(signed, list) => {
            let proposer = validators.proposer(signed.proposal.height, signed.proposal.round).key;
            let key = fixture
                .validators
                .iter()
                .find(|key| key.public() == proposer)
                .expect("four validators");
            let proposal = Proposal { proposer, ..signed.proposal.clone() };
            let again = SignedProposal { signature: key.sign(&proposal.message(id)), proposal };
            let holds = signed.proposal.proposer == proposer && signed.verify(id);
            (verdict(message), holds, Some(ConsensusMessage::Proposal(again, list.clone())))
        }
        ConsensusMessage::Round(certificate) => {
            let RoundCertificate { height, round, is_precommit, votes } = certificate;
            let (total, quorum) = (validators.total_power().0, validators.quorum_power().0);
            let least = if *is_precommit { quorum } else { total / 3 + 1 };
            let is_of = |vote: &Vote| {
                (vote.height, vote.round) == (*height, *round)
                    && (!is_precommit || vote.kind == VoteKind::Precommit)
            };
            let holds = votes.iter().all(|signed| is_of(&signed.vote)) && has_power(votes, least);
            (verdict(message), holds, None)
        }
        ConsensusMessage::Polka(polka) => {
            let PolkaCertificate { height, round, block, signatures } = polka.clone();
            let vote = |validator| Vote {
                kind: VoteKind::Prevote,
                height,
                round,
                block: Some(block),
                validator,
            };
            let votes = signatures.into_iter();
            let votes = votes.map(|(key, signature)| SignedVote { vote: vote(key), signature });
            let holds = has_power(&votes.collect::<Vec<_>>(), validators.quorum_power().0);
            (verdict(message), holds, None)
        }
    };
    assert!(!is_valid || holds, "consensus accepts a message that does not hold: {message:?}");
    if let Some(signer) = message.signer().filter(|_| is_valid) {
        assert!(validators.find(&signer).is_some(), "only validators sign");
    }
    assert!(signed.is_none_or(|signed| verdict(&signed)), "a validator's own signature holds");
}

/// Whether all votes are signed by different validators, who together have this much power.
fn has_power(votes: &[SignedVote], least: u64) -> bool {
    let chain = &fixture().chain;
    let voters: BTreeSet<_> = votes.iter().map(|signed| signed.vote.validator).collect();
    let power = |signed: &SignedVote| {
        let (_, validator) = chain.validators(signed.vote.height).find(&signed.vote.validator)?;
        signed.verify(chain.id()).then_some(validator.power.0)
    };
    let power: Option<u64> = votes.iter().map(power).sum();
    voters.len() == votes.len() && power.is_some_and(|power| power >= least)
}
