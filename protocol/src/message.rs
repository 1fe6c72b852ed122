//! What nodes say to each other, and what a validator says to itself in its log. All of it in the ledger's one codec.

use bincode::{Decode, Encode};
use ledger::block::{Block, Header, transactions_root};
use ledger::certificate::{CERTIFICATE_BYTES_MAX, Certificate, Vote};
use ledger::codec::{self, CodecError};
use ledger::hash::{BlockHash, ChainId, Domain, TxHash};
use ledger::signature::{self, PublicKey, Signature};
use ledger::transaction::{TRANSACTION_BYTES_MAX, Transaction};
use ledger::units::{Height, Round};

/// Most bytes of a consensus message: a proposal names up to about 11,000 transactions by 32 bytes each.
pub const CONSENSUS_BYTES_MAX: usize = 512 << 10;
/// Most bytes of a certified header.
pub const HEADER_MESSAGE_BYTES_MAX: usize = 128 << 10;
/// Most bytes of a batch of transactions.
pub const TRANSACTIONS_BYTES_MAX: usize = 64 << 10;
/// A batch is sent when it has so many bytes.
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
/// A node that lacks more blocks than this asks whether they are sealed in segments before it fetches them one by one.
pub const BEHIND_FAR: u64 = 8;
/// Bytes of blocks in one response, unless a single block is larger.
pub const BLOCKS_BYTES: usize = 2 << 20;

/// A vote and its voter's signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedVote {
    /// The vote.
    pub vote: Vote,
    /// By the validator it names.
    pub signature: Signature,
}

impl SignedVote {
    /// Whether the validator it names signed it.
    #[must_use]
    pub fn verify(&self, chain: ChainId) -> bool {
        signature::verify_strict(&self.vote.validator, &self.vote.message(chain), &self.signature)
    }
}

/// A validator's word that a block should be decided in a round.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Proposal {
    /// Height proposed for.
    pub height: Height,
    /// Round proposed in.
    pub round: Round,
    /// The block.
    pub block: BlockHash,
    /// The earlier round in which a quorum prevoted for it, if it is proposed again.
    pub valid_round: Option<Round>,
    /// Whose turn it is.
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
    /// By the proposer it names.
    pub signature: Signature,
}

impl SignedProposal {
    /// Whether the proposer it names signed it.
    #[must_use]
    pub fn verify(&self, chain: ChainId) -> bool {
        signature::verify_strict(&self.proposal.proposer, &self.proposal.message(chain), &self.signature)
    }
}

/// A block without its transactions, which most nodes hold already: named by their full hashes (idea: BIP-152).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CompactBlock {
    /// The header.
    pub header: Header,
    /// Why its parent is final.
    pub parent_certificate: Certificate,
    /// Full hashes of the transactions, in order.
    pub transactions: Vec<TxHash>,
}

impl CompactBlock {
    /// Whether it is what the block hash stands for: then nothing in it can be a forgery of a relay.
    #[must_use]
    pub fn is(&self, block: BlockHash) -> bool {
        self.header.hash() == block
            && self.header.parent_certificate == self.parent_certificate.hash()
            && self.header.transactions_root == transactions_root(&self.transactions)
    }
}

/// Votes of one round by a quorum, or by more than a third: lets a node that was away enter the round.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RoundCertificate {
    /// Height of the votes.
    pub height: Height,
    /// Round of the votes.
    pub round: Round,
    /// Whether they are a quorum of precommits; else they are votes of more than a third in a later round.
    pub is_precommit: bool,
    /// Each by another validator.
    pub votes: Vec<SignedVote>,
}

/// Prevotes of a quorum for one block in one round: lets a node that was away accept the block proposed again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PolkaCertificate {
    /// Height of the votes.
    pub height: Height,
    /// Round of the votes.
    pub round: Round,
    /// The block.
    pub block: BlockHash,
    /// Each by another validator.
    pub signatures: Vec<(PublicKey, Signature)>,
}

/// Gossip of consensus.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[allow(clippy::large_enum_variant)] // Made once and handed on: a box would cost more than the move.
pub enum ConsensusMessage {
    /// A vote.
    Vote(SignedVote),
    /// A proposal; the block without its transactions comes along.
    Proposal(SignedProposal, Option<CompactBlock>),
    /// For those who were away.
    Round(RoundCertificate),
    /// For those who were away.
    Polka(PolkaCertificate),
}

/// Any gossip. `attempt` makes a message that is sent again another message: gossip drops what it has seen.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Attempt<T> {
    /// Counts the times it was sent.
    pub attempt: u64,
    /// What is said.
    pub message: T,
}

/// A header and the proof that it is final.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CertifiedHeader {
    /// The header.
    pub header: Header,
    /// By more than two thirds of the power.
    pub certificate: Certificate,
}

/// Asked of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[allow(clippy::large_enum_variant)] // Made once and handed on: a box would cost more than the move.
pub enum Request {
    /// The last final block you have; comes with mine.
    Status(Option<CertifiedHeader>),
    /// Final blocks from this height on, as many as fit [`BLOCKS_BYTES`].
    Blocks(Height),
    /// A proposed block of this height without its transactions.
    Proposed(Height, BlockHash),
    /// Transactions by full hash, at most [`REQUESTED_TRANSACTIONS_MAX`].
    Transactions(Vec<TxHash>),
    /// This piece of the genesis, counted from 0. The hash of all pieces together is the chain id.
    Genesis(u32),
}

/// The answer to a request. A peer that does not have something leaves it out.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[allow(clippy::large_enum_variant)] // Made once and handed on: a box would cost more than the move.
pub enum Response {
    /// Where the peer stands.
    Status {
        /// Its clock, in milliseconds since 1970.
        now: u64,
        /// The last final block; none before the first one.
        head: Option<CertifiedHeader>,
    },
    /// Final blocks in order, and the certificate of the last one. Without blocks the peer has not reached the height.
    Blocks(Vec<Block<Transaction>>, Certificate),
    /// The block without its transactions.
    Proposed(Option<CompactBlock>),
    /// Those of the transactions that wait, or are in a proposed block of the next height.
    Transactions(Vec<Transaction>),
    /// The piece, canonical bytes of [`GENESIS_PIECE_BYTES`] each; none beyond the last one.
    Genesis(Option<Vec<u8>>),
    /// The blocks are final, and not kept here.
    NotKept,
}

impl Response {
    /// Reads a response to a request of the same kind.
    ///
    /// # Errors
    /// `CodecError` when the bytes are too many or not canonical.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, RESPONSE_BYTES_MAX)
    }
}

/// Two messages that no honest validator signs both: same height, round and kind, different blocks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Evidence {
    /// Two votes.
    Votes(SignedVote, SignedVote),
    /// Two proposals.
    Proposals(SignedProposal, SignedProposal),
    /// Another block than ours was certified at a height: the signers of both certificates signed twice.
    Fork(BlockHash, Box<CertifiedHeader>),
}

impl Evidence {
    /// The one validator it convicts; none for a fork, which convicts many.
    #[must_use]
    pub const fn about(&self) -> Option<PublicKey> {
        match self {
            Self::Votes(vote, _) => Some(vote.vote.validator),
            Self::Proposals(proposal, _) => Some(proposal.proposal.proposer),
            Self::Fork(..) => None,
        }
    }
}

/// What a validator writes to its log before it acts on it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[allow(clippy::large_enum_variant)] // Made once and handed on: a box would cost more than the move.
pub enum LogEntry {
    /// A block that was found valid, so that a vote for it can be acted on after a restart.
    Body(Block<Transaction>),
    /// A block is known and this is the verdict on it.
    Known {
        /// Round it was proposed in.
        round: Round,
        /// Round of the quorum of prevotes it was proposed again for.
        valid_round: Option<Round>,
        /// Who proposed it.
        proposer: PublicKey,
        /// The block.
        block: BlockHash,
        /// Whether it follows the tip by all rules.
        valid: bool,
    },
    /// A vote, by anybody.
    Vote(SignedVote),
    /// A proposal, by anybody.
    Proposal(SignedProposal),
    /// A quorum of prevotes.
    Polka(PolkaCertificate),
    /// A timeout: 0 propose, 1 prevote, 2 precommit.
    Timeout(u8, Round),
}

const _: () = assert!(TRANSACTION_BYTES_MAX < BATCH_BYTES && CERTIFICATE_BYTES_MAX < HEADER_MESSAGE_BYTES_MAX);
