//! All offences for which a peer is disconnected or banned, with their facts as fields.
//! [`Offence::severity`] decides which of the two.
//!
//! The messages of both sides are enough to show each offence; none depends on time. An honest peer
//! that runs this version commits none, however slow it is and however old its data. A peer that is
//! late, silent or lacks data is asked less often, but keeps its connection. The network also ends
//! connections without blame: if a peer does not read what it is sent, or if another peer takes its
//! place.

use ledger::certificate::CertificateError;
use ledger::chain::Blame;
use ledger::codec::CodecError;
use ledger::history::HistoryError;
use ledger::snapshot::FrontierError;
use ledger::units::{Height, SegmentIndex};

use crate::message::REQUESTED_TRANSACTIONS_MAX;

/// What a peer did that no honest peer of this version does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Offence {
    /// A request that does not decode.
    #[error("sent a bad request: {0}")]
    Request(CodecError),
    /// A response that does not decode.
    #[error("sent a bad response: {0}")]
    Response(CodecError),
    /// A tip whose certificate does not prove it.
    #[error("claimed a tip that its certificate does not prove")]
    Tip,
    /// A request for more transactions than one request may name.
    #[error("requested {count} transactions, expected at most {REQUESTED_TRANSACTIONS_MAX}")]
    TransactionsAsked {
        /// Number of hashes.
        count: usize,
    },
    /// A list of transactions for a proposed block, longer than any block.
    #[error("sent a list of {count} transactions for a proposed block, at most {most} fit")]
    BlockList {
        /// Transactions named.
        count: usize,
        /// Transactions that fit in a block.
        most: usize,
    },
    /// A list of transactions for another block than the requested one.
    #[error("sent a proposed block other than the requested one")]
    WrongBlock,
    /// Blocks that begin at another height than the requested one, or too many of them.
    #[error("sent {count} blocks from height {first}, requested were {asked}")]
    BlocksUnasked {
        /// Height of the first block sent.
        first: Height,
        /// Number of blocks sent.
        count: usize,
        /// Height that was asked for.
        asked: Height,
    },
    /// A block that is not the child of the block before it.
    #[error("block {height} is not the child of the block before it")]
    BlockUnlinked {
        /// Height of the block.
        height: Height,
    },
    /// A block whose certificate is not valid for it.
    #[error("block {height}: {error}")]
    BlockUncertified {
        /// Height of the block.
        height: Height,
        /// Why the certificate is not valid.
        error: CertificateError,
    },
    /// A block whose transactions or parent certificate are not those that its header commits to.
    #[error("block {height} is not what its header commits to")]
    BlockBody {
        /// Height of the block.
        height: Height,
    },
    /// A message about history that does not decode.
    #[error("sent a bad message about history: {0}")]
    SyncMessage(CodecError),
    /// Claimed holdings that no chain can have.
    #[error("claims to have history that no chain can have")]
    AbsurdHoldings,
    /// More chunks wanted at a time than one peer may want.
    #[error("wants too many chunks at a time")]
    TooManyWants,
    /// A receipt for chunks that were never sent.
    #[error("confirms chunks that were not sent")]
    FalseReceipt,
    /// A chunk wanted that its segment does not have.
    #[error("wants chunk {chunk} of segment {segment}, which has no such chunk")]
    ImpossibleWant {
        /// Index of the segment.
        segment: SegmentIndex,
        /// Place in the segment.
        chunk: u32,
    },
    /// A data frame that is too short to name its chunk.
    #[error("sent a data frame that is too short to name its chunk")]
    NamelessChunk,
    /// A chunk whose hash is not the proved one.
    #[error("sent a bad chunk {chunk} of segment {segment}")]
    BadChunk {
        /// Index of the segment.
        segment: SegmentIndex,
        /// Place in the segment.
        chunk: u32,
    },
    /// A chunk that was not asked for.
    #[error("sent a chunk that was not requested")]
    UnaskedChunk,
    /// More chunks than the peer had credit for.
    #[error("sent more chunks than it had credit for")]
    TooManyChunks,
    /// A manifest whose segments reach beyond the height that the manifest is for.
    #[error(
        "sent a manifest for height {height} whose segments reach beyond it: {next} comes next"
    )]
    ManifestTooLong {
        /// Height that was asked for.
        height: Height,
        /// The height after the last block of the manifest.
        next: Height,
    },
    /// A manifest of more segments than a manifest may have.
    #[error("sent a manifest of more than {most} segments")]
    ManifestTooLarge {
        /// Segments that a manifest may have.
        most: usize,
    },
    /// A manifest that breaks the rules of history, or that no certified header proves.
    #[error("sent a bad manifest: {0}")]
    Manifest(HistoryError),
    /// Subtrees that are no frontier of the state of their block.
    #[error("sent a bad frontier: {0}")]
    Frontier(FrontierError),
    /// A frontier of another snapshot than the requested one.
    #[error("sent the frontier of another snapshot than the requested one")]
    WrongFrontier,
    /// The block of a snapshot, without its certificate or another block than the proved one.
    #[error("sent a bad block of the snapshot at height {height}")]
    SnapshotBlock {
        /// Height of the snapshot, as the peer announced it.
        height: Height,
    },
    /// A proof that does not show that a block is in its segment.
    #[error("sent a bad proof of block {height}")]
    BlockProof {
        /// Height that was asked for.
        height: Height,
    },
    /// Hashes of a segment's chunks, or its certificate, that are not the proved ones.
    #[error("sent a bad head of segment {segment}")]
    SegmentHead {
        /// Index of the segment.
        segment: SegmentIndex,
    },
    /// Hashes of the chunks of a file's segment that are not those that the file's id proves.
    #[error("sent a bad head of segment {segment} of a file")]
    FileHead {
        /// Index of the segment.
        segment: SegmentIndex,
    },
}

/// How grave an offence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Bytes that break a format or an order of messages. An honest program of another version may
    /// send them.
    Mistake,
    /// A false claim. What the peer sent contradicts its own proof, or contradicts the request.
    Lie,
}

impl Offence {
    /// How grave it is. A first mistake costs a peer its connection, a lie bans it.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::Request(_)
            | Self::Response(_)
            | Self::SyncMessage(_)
            | Self::AbsurdHoldings
            | Self::TooManyWants
            | Self::TransactionsAsked { .. }
            | Self::FalseReceipt
            | Self::ImpossibleWant { .. }
            | Self::NamelessChunk
            | Self::UnaskedChunk
            | Self::TooManyChunks => Severity::Mistake,
            Self::Tip
            | Self::BlocksUnasked { .. }
            | Self::BlockUnlinked { .. }
            | Self::BlockUncertified { .. }
            | Self::BlockBody { .. }
            | Self::BlockList { .. }
            | Self::WrongBlock
            | Self::BadChunk { .. }
            | Self::ManifestTooLong { .. }
            | Self::ManifestTooLarge { .. }
            | Self::Manifest(_)
            | Self::Frontier(_)
            | Self::WrongFrontier
            | Self::SnapshotBlock { .. }
            | Self::BlockProof { .. }
            | Self::SegmentHead { .. }
            | Self::FileHead { .. } => Severity::Lie,
        }
    }

    /// A short name that never changes, for scripts.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Request(_) => "bad-request",
            Self::Response(_) => "bad-response",
            Self::Tip => "unproved-tip",
            Self::TransactionsAsked { .. } => "too-many-transactions-asked",
            Self::BlockList { .. } => "too-long-block",
            Self::WrongBlock => "wrong-block",
            Self::BlocksUnasked { .. } => "unasked-blocks",
            Self::BlockUnlinked { .. } => "unlinked-block",
            Self::BlockUncertified { .. } => "uncertified-block",
            Self::BlockBody { .. } => "wrong-body",
            Self::SyncMessage(_) => "bad-sync-message",
            Self::AbsurdHoldings => "absurd-holdings",
            Self::TooManyWants => "too-many-wants",
            Self::FalseReceipt => "false-receipt",
            Self::ImpossibleWant { .. } => "impossible-want",
            Self::NamelessChunk => "nameless-chunk",
            Self::BadChunk { .. } => "bad-chunk",
            Self::UnaskedChunk => "unasked-chunk",
            Self::TooManyChunks => "too-many-chunks",
            Self::ManifestTooLong { .. } => "manifest-too-long",
            Self::ManifestTooLarge { .. } => "manifest-too-large",
            Self::Manifest(_) => "bad-manifest",
            Self::Frontier(_) => "bad-frontier",
            Self::WrongFrontier => "wrong-frontier",
            Self::SnapshotBlock { .. } => "bad-snapshot-block",
            Self::BlockProof { .. } => "bad-block-proof",
            Self::SegmentHead { .. } => "bad-segment-head",
            Self::FileHead { .. } => "bad-file-head",
        }
    }

    /// Whose fault it is. Only [`Blame::Sender`] may cost a peer its connection.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Request(_)
            | Self::Response(_)
            | Self::SyncMessage(_)
            | Self::Tip
            | Self::TransactionsAsked { .. }
            | Self::BlockList { .. }
            | Self::WrongBlock
            | Self::BlocksUnasked { .. }
            | Self::BlockUnlinked { .. }
            | Self::BlockUncertified { .. }
            | Self::BlockBody { .. }
            | Self::AbsurdHoldings
            | Self::TooManyWants
            | Self::FalseReceipt
            | Self::ImpossibleWant { .. }
            | Self::NamelessChunk
            | Self::BadChunk { .. }
            | Self::UnaskedChunk
            | Self::TooManyChunks
            | Self::ManifestTooLong { .. }
            | Self::ManifestTooLarge { .. }
            | Self::Manifest(_)
            | Self::Frontier(_)
            | Self::WrongFrontier
            | Self::SnapshotBlock { .. }
            | Self::BlockProof { .. }
            | Self::SegmentHead { .. }
            | Self::FileHead { .. } => Blame::Sender,
        }
    }
}
