//! Messages between nodes, and entries of a validator's log. All use the ledger's codec.

use bincode::{Decode, Encode};
use ledger::block::{Block, Header};
use ledger::certificate::{CERTIFICATE_BYTES_MAX, Certificate, CertificateError, Vote};
use ledger::chain::Chain;
use ledger::codec::{self, CodecError};
use ledger::hash::{BlockHash, ChainId, Domain, Hash, TxHash};
use ledger::signature::{self, PublicKey, Signature};
use ledger::transaction::{TRANSACTION_BYTES_MAX, Transaction};
use ledger::units::{Height, Round, SegmentIndex};

use crate::eras::{Announcement, ERA_RANGES_MAX};
use crate::search::FloodMessage;

/// Most bytes of a consensus message. A proposal of the largest block names about 11,800
/// transactions by hashes of 32 bytes.
pub const CONSENSUS_BYTES_MAX: usize = 512 << 10;
/// Most bytes of a certified header.
pub const HEADER_MESSAGE_BYTES_MAX: usize = 128 << 10;
/// Most bytes of a batch of transactions that a node accepts.
pub const TRANSACTIONS_BYTES_MAX: usize = 64 << 10;
/// Most bytes of a batch of transactions that this node makes. A full batch is sent at once.
pub const BATCH_BYTES: usize = 16 << 10;
/// Most bytes of a request.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Most bytes of a response.
pub const RESPONSE_BYTES_MAX: usize = 4 << 20;
/// Most transactions that one request may name.
pub const REQUESTED_TRANSACTIONS_MAX: usize = 1_000;
/// Bytes of one piece of the genesis; the last piece is shorter.
pub const GENESIS_PIECE_BYTES: usize = 1 << 20;
/// Most blocks in one response.
pub const BLOCKS_MAX: u64 = 64;
/// A node that lacks more blocks than this first asks for sealed segments, before it fetches blocks
/// one by one.
pub const BEHIND_FAR: u64 = 8;
/// Most bytes of blocks in one response. A single larger block is sent alone.
pub const BLOCKS_BYTES: usize = 2 << 20;

/// A vote and its voter's signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedVote {
    /// The vote.
    pub vote: Vote,
    /// Signature by the validator that the vote names.
    pub signature: Signature,
}

impl SignedVote {
    /// Whether the validator that the vote names signed it.
    #[must_use]
    pub fn verify(&self, chain: ChainId) -> bool {
        signature::verify_strict(&self.vote.validator, &self.vote.message(chain), &self.signature)
    }
}

/// A validator's statement that a block should be decided in a round.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Proposal {
    /// Height proposed for.
    pub height: Height,
    /// Round proposed in.
    pub round: Round,
    /// The block.
    pub block: BlockHash,
    /// The earlier round in which a quorum prevoted for the block, if it is proposed again.
    pub valid_round: Option<Round>,
    /// The validator whose turn the round is.
    pub proposer: PublicKey,
}

impl Proposal {
    /// The bytes the proposer signs.
    #[must_use]
    pub fn message(&self, chain: ChainId) -> Vec<u8> {
        let parts = codec::encode(&(self.height, self.round, self.block, self.valid_round));
        signature::message(Domain::SignProposal, chain, &[&parts])
    }
}

/// A proposal and its proposer's signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedProposal {
    /// The proposal.
    pub proposal: Proposal,
    /// Signature by the proposer that the proposal names.
    pub signature: Signature,
}

impl SignedProposal {
    /// Whether the proposer that the proposal names signed it.
    #[must_use]
    pub fn verify(&self, chain: ChainId) -> bool {
        signature::verify_strict(
            &self.proposal.proposer,
            &self.proposal.message(chain),
            &self.signature,
        )
    }
}

/// A block with full hashes in place of its transactions, most of which nodes already hold (idea:
/// BIP-152).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CompactBlock {
    /// The header.
    pub header: Header,
    /// Certificate that makes the parent final.
    pub parent_certificate: Certificate,
    /// Full hashes of the transactions, in order.
    pub transactions: Vec<TxHash>,
}

impl CompactBlock {
    /// Whether the header, certificate and list are those of this block hash. If so, no relay
    /// forged any of them.
    #[must_use]
    pub fn is(&self, block: BlockHash) -> bool {
        // The check of the list costs most, so it comes last.
        self.header.hash() == block
            && self.header.parent_certificate == self.parent_certificate.hash()
            && self.header.check_content(&self.parent_certificate, &self.transactions).is_ok()
    }
}

/// Votes of one round, by which a node that was away enters the round.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RoundCertificate {
    /// Height of the votes.
    pub height: Height,
    /// Round of the votes.
    pub round: Round,
    /// True: precommits of a quorum, which end the round. False: votes of more than a third of the
    /// power, which let a node skip to the round.
    pub is_precommit: bool,
    /// Each by a different validator.
    pub votes: Vec<SignedVote>,
}

/// Prevotes of a quorum for one block in one round, by which a node that was away accepts the block
/// when it is proposed again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PolkaCertificate {
    /// Height of the votes.
    pub height: Height,
    /// Round of the votes.
    pub round: Round,
    /// The block.
    pub block: BlockHash,
    /// Each by a different validator.
    pub signatures: Vec<(PublicKey, Signature)>,
}

/// Gossip of consensus.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[allow(clippy::large_enum_variant)] // Made once and handed on: a box costs more than the move.
pub enum ConsensusMessage {
    /// A vote.
    Vote(SignedVote),
    /// A proposal. The block without its transactions comes along, unless the proposal is repeated.
    Proposal(SignedProposal, Option<CompactBlock>),
    /// Brings nodes that were away to a round.
    Round(RoundCertificate),
    /// Lets nodes that were away accept a block that is proposed again.
    Polka(PolkaCertificate),
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

/// A gossip message with a counter. Gossip drops a message whose bytes it has seen before, so each
/// retransmission needs another counter.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Attempt<T> {
    /// Differs with each transmission.
    pub attempt: u64,
    /// The message.
    pub message: T,
}

/// A header and the proof that it is final.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CertifiedHeader {
    /// The header.
    pub header: Header,
    /// Its precommits have more than two thirds of the power.
    pub certificate: Certificate,
}

impl CertifiedHeader {
    /// Verifies that the header's block is final in this chain.
    ///
    /// # Errors
    /// `CertificateError`: the certificate does not prove it.
    pub fn verify(&self, chain: &Chain) -> Result<(), CertificateError> {
        let Self { header, certificate } = self;
        let validators = chain.validators(header.height);
        certificate.verify(chain.id(), validators, header.height, header.hash())
    }
}

/// A request to one peer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[allow(clippy::large_enum_variant)] // Made once and handed on: a box costs more than the move.
pub enum Request {
    /// Asks for the peer's last final block, and carries the sender's own.
    Tip(Option<CertifiedHeader>),
    /// Asks for final blocks from this height on, as many as fit [`BLOCKS_MAX`] and
    /// [`BLOCKS_BYTES`].
    Blocks(Height),
    /// Asks for a proposed block of this height, without its transactions.
    Proposed(Height, BlockHash),
    /// Asks for transactions by full hash, at most [`REQUESTED_TRANSACTIONS_MAX`].
    Transactions(Vec<TxHash>),
    /// Asks for a piece of the genesis, counted from 0. The hash of all pieces together is the
    /// chain id.
    Genesis(u32),
    /// Says which eras of history the sender keeps, and asks which ones the peer keeps.
    Eras(Announcement),
    /// Asks for a chunk of a sealed segment, by its index in the segment, to see that the peer
    /// keeps it.
    Chunk(SegmentIndex, u64),
    /// A message of the flood query.
    Flood(FloodMessage),
}

/// Most bytes of an honest answer to a request, given the bytes of the request. A longer answer is
/// not read, so a peer cannot make this node hold more than it asked for.
#[must_use]
pub fn answer_bytes_max(request: &[u8]) -> usize {
    // The encoding around the content: the variant's number, a clock, option tags and list lengths.
    const FRAME: usize = 32;
    let bytes = match codec::decode(request, REQUEST_BYTES_MAX) {
        Ok(Request::Tip(_)) => HEADER_MESSAGE_BYTES_MAX,
        Ok(Request::Proposed(..)) => CONSENSUS_BYTES_MAX,
        Ok(Request::Transactions(hashes)) => {
            hashes.len().saturating_mul(TRANSACTION_BYTES_MAX).saturating_add(FRAME)
        }
        Ok(Request::Genesis(_)) => GENESIS_PIECE_BYTES.saturating_add(FRAME),
        // Two numbers for each range.
        Ok(Request::Eras(_)) => ERA_RANGES_MAX.saturating_mul(16).saturating_add(FRAME),
        Ok(Request::Flood(_)) => FRAME,
        // The rules of the chain say how long a chunk and the list of hashes are.
        Ok(Request::Blocks(_) | Request::Chunk(..)) | Err(_) => RESPONSE_BYTES_MAX,
    };
    bytes.min(RESPONSE_BYTES_MAX)
}

/// The answer to a request. A peer leaves out whatever it does not have.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[allow(clippy::large_enum_variant)] // Made once and handed on: a box costs more than the move.
pub enum Response {
    /// The peer's clock and tip.
    Tip {
        /// The peer's clock, in milliseconds since 1970.
        now: u64,
        /// The peer's last final block; none before the first one.
        head: Option<CertifiedHeader>,
    },
    /// Final blocks in order, and the certificate of the last one. The list is empty if the peer
    /// has not reached the height.
    Blocks(Vec<Block<Transaction>>, Certificate),
    /// The block without its transactions; none if the peer does not have it.
    Proposed(Option<CompactBlock>),
    /// The requested transactions that are in the peer's mempool or in a proposed block of its next
    /// height.
    Transactions(Vec<Transaction>),
    /// A piece of the canonical bytes of the genesis. Each piece has [`GENESIS_PIECE_BYTES`], and
    /// the last one may be shorter. `None` beyond the last piece.
    Genesis(Option<Vec<u8>>),
    /// The requested blocks are final, or the segment is sealed, but the peer does not keep it.
    NotKept,
    /// The eras of history that the peer keeps, as of when the request arrived.
    Eras(Announcement),
    /// A chunk, and the hashes of all chunks of its segment.
    Chunk {
        /// The hash of each chunk of the segment, in order.
        hashes: Vec<Hash>,
        /// The bytes of the chunk.
        bytes: Vec<u8>,
    },
    /// The peer has received a message of the flood query. A peer that takes part in none is busy.
    Taken,
}

impl Response {
    /// Decodes a response.
    ///
    /// # Errors
    /// `CodecError` when the bytes are more than [`RESPONSE_BYTES_MAX`] or not canonical.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, RESPONSE_BYTES_MAX)
    }
}

/// Proof that validators signed two conflicting messages.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Evidence {
    /// Two votes of one validator with the same height, round and kind.
    Votes(SignedVote, SignedVote),
    /// Two proposals of one validator with the same height and round.
    Proposals(SignedProposal, SignedProposal),
    /// Our block and another certified header of the same height: every validator that signed both
    /// certificates signed two blocks.
    Fork(BlockHash, Box<CertifiedHeader>),
}

impl Evidence {
    /// The validator that it convicts; none for a fork, which convicts many.
    #[must_use]
    pub const fn about(&self) -> Option<PublicKey> {
        match self {
            Self::Votes(vote, _) => Some(vote.vote.validator),
            Self::Proposals(proposal, _) => Some(proposal.proposal.proposer),
            Self::Fork(..) => None,
        }
    }
}

/// An entry that a validator writes to its log before it acts on the event.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[allow(clippy::large_enum_variant)] // Made once and handed on: a box costs more than the move.
pub enum LogEntry {
    /// A block that was found valid, so that a vote for it can still be acted on after a restart.
    Body(Block<Transaction>),
    /// The verdict on a proposed block.
    Known {
        /// Round in which the block was proposed.
        round: Round,
        /// The earlier round in which a quorum prevoted for the block, if it was proposed again.
        valid_round: Option<Round>,
        /// The proposer.
        proposer: PublicKey,
        /// The block.
        block: BlockHash,
        /// Whether the block follows the tip and keeps all rules.
        valid: bool,
    },
    /// A vote, by any validator.
    Vote(SignedVote),
    /// A proposal, by any validator.
    Proposal(SignedProposal),
    /// Prevotes of a quorum.
    Polka(PolkaCertificate),
    /// A timeout of a round: 0 propose, 1 prevote, 2 precommit.
    Timeout(u8, Round),
}

const _: () = assert!(
    TRANSACTION_BYTES_MAX < BATCH_BYTES && CERTIFICATE_BYTES_MAX < HEADER_MESSAGE_BYTES_MAX
);

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use ledger::block::{BLOCK_OVERHEAD_MAX, HEADER_BYTES};

    use super::*;
    use crate::eras::{Era, EraRanges};
    use crate::search::{Hops, QueryId, Wanted};

    #[test]
    fn the_largest_honest_answer_to_each_request_is_allowed_and_little_more() {
        const PIECE: usize = 4 + 1 + 8 + GENESIS_PIECE_BYTES;
        const TIP: usize = 4 + 8 + 1 + HEADER_BYTES + CERTIFICATE_BYTES_MAX;
        const ERAS: usize = 4 + 1 + 8 + 16 * ERA_RANGES_MAX;
        // The smallest transaction has 177 bytes.
        const LIST: usize = 4 + 1 + BLOCK_OVERHEAD_MAX + 32 * ((2 << 20) / 177);
        let transactions = |count: usize| Request::Transactions(vec![TxHash::default(); count]);
        let query = FloodMessage::Query {
            id: QueryId([7; 16]),
            wanted: Wanted::Era(Era(3)),
            left: Hops::MOST,
        };
        // request, bytes of the largest honest answer, bytes that are too many
        let cases = [
            (Request::Tip(None), TIP, 256 << 10),
            (Request::Proposed(Height(1), BlockHash::default()), LIST, 1 << 20),
            (Request::Genesis(0), PIECE, PIECE + 100),
            (Request::Eras(Announcement::default()), ERAS, ERAS + 100),
            (Request::Flood(query), 4, 100),
            (transactions(0), 12, 100),
            (transactions(7), 12 + 7 * TRANSACTION_BYTES_MAX, 8 * TRANSACTION_BYTES_MAX),
            (
                transactions(REQUESTED_TRANSACTIONS_MAX),
                12 + 1_000 * TRANSACTION_BYTES_MAX,
                RESPONSE_BYTES_MAX,
            ),
            (Request::Blocks(Height(1)), BLOCKS_BYTES + BLOCK_OVERHEAD_MAX, RESPONSE_BYTES_MAX + 1),
        ];
        for (request, largest, too_many) in cases {
            let most = answer_bytes_max(&codec::encode(&request));
            assert!(largest <= most && most < too_many, "{request:?}: {most} bytes");
        }
        let piece = codec::encode(&Response::Genesis(Some(vec![0; GENESIS_PIECE_BYTES])));
        assert_eq!(piece.len(), PIECE);
        let eras = EraRanges::of((0..1_000).map(|at| Era(2 * at)));
        let eras = codec::encode(&Response::Eras(Announcement { is_archive: true, eras }));
        assert_eq!(eras.len(), ERAS);
        assert_eq!(answer_bytes_max(&[9]), RESPONSE_BYTES_MAX, "no request");
    }
}
