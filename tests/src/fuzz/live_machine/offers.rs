//! Messages that peers send to the machine, made from choices.

use std::sync::Arc;

use ledger::certificate::VoteKind;
use ledger::codec;
use ledger::hash::{BlockHash, Hash, TxHash};
use ledger::transaction::VerifiedTransaction;
use ledger::units::{Amount, Height, Nonce, Round, SegmentIndex};
use protocol::eras::{Announcement, Era, EraRanges};
use protocol::message::{
    Attempt, ConsensusMessage, PolkaCertificate, Proposal, Request, Response, RoundCertificate,
    SignedProposal, SignedVote,
};
use protocol::search::{FloodMessage, Hops, QueryId, Wanted};

use crate::fuzz::fixture::{BYZANTINE, HEIGHTS, OWN, START, compact, fixture, plain};
use crate::fuzz::stream::Stream;

/// Heights that messages name: those of the final blocks and three more.
const NAMED: usize = HEIGHTS as usize + 3;

/// An honest peer's answer.
pub(super) fn answer(request: &Request) -> Option<Vec<u8>> {
    let fixture = fixture();
    let response = match request {
        Request::Tip(_) => Response::Tip { now: START, head: fixture.certified(Height(HEIGHTS)) },
        Request::Blocks(from) => {
            let blocks = fixture.blocks.iter().filter(|(block, _)| block.height() >= *from);
            let blocks = blocks.map(|(block, _)| plain(block)).collect();
            Response::Blocks(blocks, fixture.blocks.last()?.1.clone())
        }
        Request::Proposed(height, hash) => {
            let block = fixture.block(*height).filter(|(block, _)| block.hash() == *hash);
            Response::Proposed(block.map(|(block, _)| compact(block)))
        }
        Request::Transactions(hashes) => {
            let all = fixture.blocks.iter().flat_map(|(block, _)| &block.block().transactions);
            let named = all.filter(|transaction| hashes.contains(&transaction.hash()));
            Response::Transactions(
                named.map(|transaction| transaction.transaction().clone()).collect(),
            )
        }
        Request::Genesis(_) => Response::Genesis(None),
        Request::Eras(said) => Response::Eras(said.clone()),
        Request::Chunk(..) => Response::NotKept,
        Request::Flood(_) => Response::Taken,
    };
    Some(codec::encode(&response))
}

/// The header of a final block.
pub(super) fn header(stream: &mut Stream<'_>, attempt: u64) -> Option<Vec<u8>> {
    let message = fixture().certified(Height(1 + stream.below(HEIGHTS as usize) as u64))?;
    Some(codec::encode(&Attempt { attempt, message }))
}

/// A vote of an honest validator, or a certificate of such votes. To be a quorum, a certificate of
/// prevotes for a block also has the vote of the validator that signs anything. Honest validators
/// vote for a final block in the round that decided it, and for no block in earlier rounds. Later
/// heights are not decided, so there they vote for no block.
pub(super) fn vote(stream: &mut Stream<'_>, attempt: u64) -> Option<Vec<u8>> {
    let (number, height) = (stream.below(2), Height(1 + stream.below(NAMED) as u64));
    let (kind, round) = (kind(stream), Round(stream.below(3) as u32));
    let message = match stream.below(4) {
        0 if round > Round(0) => {
            let votes =
                (0..2).map(|number| honest(number, kind, height, round)).collect::<Option<_>>()?;
            ConsensusMessage::Round(RoundCertificate { height, round, is_precommit: false, votes })
        }
        1 => {
            let votes: Vec<_> = (0..2)
                .map(|number| honest(number, VoteKind::Prevote, height, round))
                .collect::<Option<_>>()?;
            let block = votes.first()?.vote.block?;
            let byzantine = signed(BYZANTINE, VoteKind::Prevote, height, round, Some(block));
            let votes = votes.into_iter().chain([byzantine]);
            let signatures = votes.map(|vote| (vote.vote.validator, vote.signature)).collect();
            ConsensusMessage::Polka(PolkaCertificate { height, round, block, signatures })
        }
        _ => ConsensusMessage::Vote(honest(number, kind, height, round)?),
    };
    Some(codec::encode(&Attempt { attempt, message }))
}

fn kind(stream: &mut Stream<'_>) -> VoteKind {
    if stream.byte() & 1 == 0 { VoteKind::Prevote } else { VoteKind::Precommit }
}

fn honest(number: usize, kind: VoteKind, height: Height, round: Round) -> Option<SignedVote> {
    let fixture = fixture();
    let block = match fixture.block(height) {
        Some((block, _)) if round == fixture.round(height) => Some(block.hash()),
        Some(_) if round > fixture.round(height) => return None,
        _ => None,
    };
    Some(signed(number, kind, height, round, block))
}

fn signed(
    number: usize,
    kind: VoteKind,
    height: Height,
    round: Round,
    block: Option<BlockHash>,
) -> SignedVote {
    let fixture = fixture();
    let vote = fixture.vote(number, kind, height, round, block);
    SignedVote {
        signature: fixture.validators[number].sign(&vote.message(fixture.chain.id())),
        vote,
    }
}

/// The proposal of a final block.
pub(super) fn proposal(stream: &mut Stream<'_>, attempt: u64) -> Option<Vec<u8>> {
    let fixture = fixture();
    let (block, _) = fixture.block(Height(1 + stream.below(HEIGHTS as usize) as u64))?;
    let round = fixture.round(block.height());
    let list = (stream.byte() & 1 == 0).then(|| compact(block));
    let message = proposed(block.header().proposer, block.height(), round, block.hash(), None)?;
    Some(codec::encode(&Attempt { attempt, message: ConsensusMessage::Proposal(message, list) }))
}

fn proposed(
    proposer: ledger::signature::PublicKey,
    height: Height,
    round: Round,
    block: BlockHash,
    valid_round: Option<Round>,
) -> Option<SignedProposal> {
    let fixture = fixture();
    let key = fixture.validators.iter().find(|key| key.public() == proposer)?;
    assert_ne!(key.public(), fixture.validators[OWN].public(), "the machine signs for itself");
    let proposal = Proposal { height, round, block, valid_round, proposer };
    Some(SignedProposal { signature: key.sign(&proposal.message(fixture.chain.id())), proposal })
}

/// A message of the validator that signs anything.
pub(super) fn byzantine(stream: &mut Stream<'_>, attempt: u64) -> Vec<u8> {
    let fixture = fixture();
    let (height, round) = (Height(stream.below(NAMED) as u64), Round(stream.below(4) as u32));
    let known = fixture.block(height).map(|(block, _)| block.hash());
    let block = match stream.below(3) {
        0 => None,
        1 => known,
        _ => Some(BlockHash(Hash([stream.byte(); 32]))),
    };
    let message = match stream.below(3) {
        0 | 1 => ConsensusMessage::Vote(signed(BYZANTINE, kind(stream), height, round, block)),
        _ => {
            let valid_round =
                stream.byte().checked_sub(200).map(|round| Round(u32::from(round % 3)));
            let other =
                fixture.block(Height(stream.below(NAMED) as u64)).map(|(block, _)| compact(block));
            let block =
                block.or_else(|| other.as_ref().map(|list| list.header.hash())).unwrap_or_default();
            let key = fixture.validators[BYZANTINE].public();
            let signed = proposed(key, height, round, block, valid_round)
                .expect("a validator that is not ours");
            ConsensusMessage::Proposal(signed, other.filter(|_| stream.byte() & 1 == 0))
        }
    };
    codec::encode(&Attempt { attempt, message })
}

/// A request of an honest peer.
pub(super) fn request(stream: &mut Stream<'_>) -> Vec<u8> {
    let fixture = fixture();
    let height = Height(stream.below(NAMED) as u64);
    let request = match stream.below(7) {
        0 => Request::Tip(fixture.certified(height)),
        1 => Request::Blocks(height),
        2 => Request::Proposed(
            height,
            fixture.block(height).map(|(block, _)| block.hash()).unwrap_or_default(),
        ),
        3 => Request::Transactions(vec![TxHash::default(); usize::from(stream.byte())]),
        4 => Request::Genesis(u32::from(stream.byte())),
        5 => match (stream.byte(), stream.byte()) {
            (255, id) => {
                let (id, wanted) = (QueryId([id; 16]), Wanted::Era(Era(3)));
                Request::Flood(FloodMessage::Query { id, wanted, left: Hops::MOST })
            }
            (segment, chunk) => Request::Chunk(SegmentIndex(u64::from(segment)), u64::from(chunk)),
        },
        _ => {
            let eras = EraRanges::of((0..u64::from(stream.byte())).map(|at| Era(2 * at)));
            Request::Eras(Announcement { is_archive: true, eras })
        }
    };
    codec::encode(&request)
}

/// A batch of alice's transactions: those of the final blocks, others with the same nonces, and
/// some whose signature does not hold.
pub(super) fn transactions(stream: &mut Stream<'_>) -> Vec<Option<Arc<VerifiedTransaction>>> {
    let fixture = fixture();
    let one = |choice: u8| {
        let fee = Amount(10_000 * (1 + u64::from(choice / 64)));
        (choice % 16 != 15)
            .then(|| fixture.verified(fixture.transfer(Nonce(u64::from(choice % 16)), fee)))
    };
    (0..=stream.below(6)).map(|_| one(stream.byte())).collect()
}
