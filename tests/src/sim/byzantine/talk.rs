//! What a byzantine validator has heard about heights that are not final.

use std::collections::BTreeMap;

use ledger::certificate::VoteKind;
use ledger::hash::BlockHash;
use ledger::signature::{PublicKey, Signature, SigningKey};
use ledger::units::{Height, Round};
use protocol::message::{CompactBlock, ConsensusMessage, SignedProposal, SignedVote};

/// The round, kind and block (or nil) of a vote.
type Ballot = (Round, VoteKind, Option<BlockHash>);

#[derive(Default)]
struct OfHeight {
    /// Highest round that a validator outside the coalition mentioned.
    round: Round,
    proposals: BTreeMap<(Round, BlockHash), (SignedProposal, Option<CompactBlock>)>,
    votes: BTreeMap<Ballot, BTreeMap<PublicKey, Signature>>,
}

#[derive(Default)]
pub(super) struct Talk {
    heights: BTreeMap<Height, OfHeight>,
}

impl Talk {
    pub(super) fn note(&mut self, message: &ConsensusMessage, coalition: &[SigningKey]) {
        let of_height = self.heights.entry(message.height()).or_default();
        match message {
            ConsensusMessage::Vote(vote) => of_height.note_vote(vote, coalition),
            ConsensusMessage::Round(certificate) => {
                certificate.votes.iter().for_each(|vote| of_height.note_vote(vote, coalition));
            }
            ConsensusMessage::Proposal(signed, compact) => {
                let place = (signed.proposal.round, signed.proposal.block);
                let known =
                    of_height.proposals.entry(place).or_insert_with(|| (signed.clone(), None));
                if let Some(compact) =
                    compact.as_ref().filter(|compact| compact.is(signed.proposal.block))
                {
                    known.1.get_or_insert_with(|| compact.clone());
                }
            }
            ConsensusMessage::Polka(_) => {}
        }
    }

    pub(super) fn forget_before(&mut self, height: Height) {
        self.heights = self.heights.split_off(&height);
    }

    pub(super) fn round(&self, height: Height) -> Round {
        self.heights.get(&height).map(|of_height| of_height.round).unwrap_or_default()
    }

    pub(super) fn proposals(
        &self,
        height: Height,
    ) -> impl Iterator<Item = (&SignedProposal, Option<&CompactBlock>)> {
        let proposals = self
            .heights
            .get(&height)
            .into_iter()
            .flat_map(|of_height| of_height.proposals.values());
        proposals.map(|(signed, compact)| (signed, compact.as_ref()))
    }

    /// Votes for blocks, each with its round and block.
    pub(super) fn votes(
        &self,
        height: Height,
        kind: VoteKind,
    ) -> impl Iterator<Item = (Round, BlockHash, &BTreeMap<PublicKey, Signature>)> {
        let votes = self.heights.get(&height).into_iter().flat_map(|of_height| &of_height.votes);
        votes
            .filter(move |((_, of, _), _)| *of == kind)
            .filter_map(|((round, _, block), by)| Some((*round, (*block)?, by)))
    }
}

impl OfHeight {
    fn note_vote(&mut self, signed: &SignedVote, coalition: &[SigningKey]) {
        let vote = &signed.vote;
        if coalition.iter().all(|key| key.public() != vote.validator) {
            self.round = self.round.max(vote.round);
        }
        let ballot = (vote.round, vote.kind, vote.block);
        self.votes.entry(ballot).or_default().insert(vote.validator, signed.signature);
    }
}
