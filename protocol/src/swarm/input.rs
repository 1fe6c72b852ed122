//! What the swarm machine starts with, and everything that happens to it.

use std::sync::Arc;

use ledger::block::Header;
use ledger::certificate::Certificate;
use ledger::chain::Chain;
use ledger::file::{FileDescriptor, FileHead};
use ledger::hash::{BlockHash, FileId, SnapshotId};
use ledger::history::{History, SegmentDescriptor, SegmentHead};
use ledger::snapshot::Frontier;
use ledger::units::{Height, SegmentIndex};

use super::message::ChunkId;
use super::ranges::{SegmentRange, SegmentRanges};
use crate::ids::PeerId;
use crate::message::CertifiedHeader;

/// Rates in bytes per second. `None` means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Limit for chunks to peers.
    pub upload: Option<u64>,
    /// Limit for chunks from peers.
    pub download: Option<u64>,
    /// Limit for chunks of files to peers, within that of all chunks.
    pub file_upload: Option<u64>,
    /// Limit for chunks of files from peers, within that of all chunks.
    pub file_download: Option<u64>,
}

/// A segment that an earlier run staged, with one flag for each chunk: whether it is here.
pub type Staged = (SegmentHead, Vec<bool>);

/// What the swarm machine starts with.
pub struct Setup<'a> {
    /// The chain's constants.
    pub chain: Arc<Chain>,
    /// The history of all applied blocks.
    pub history: &'a History,
    /// The sealed segments that are here. A node that began with a snapshot, or keeps a part of
    /// history, has fewer than [`Setup::history`] covers.
    pub kept: SegmentRanges,
    /// Segments of history that an earlier run staged.
    pub staged: Vec<Staged>,
    /// The bytes of the last [`Effect::SaveManifest`](super::Effect::SaveManifest).
    pub manifest: Option<Vec<u8>>,
    /// A random number, different at each start and on each node.
    pub nonce: u64,
    /// Limits of the rates.
    pub rates: Rates,
    /// What to join with. `None` to go on by history alone, as a chain above height 0 must.
    pub join: Option<Join>,
}

/// How a chain at height 0 begins with a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Join {
    /// A block that the chain must contain.
    ///
    /// The machine checks it if its height is that of the target or of a block in a proved
    /// segment. Whoever applies a block of a greater height has to compare its hash.
    pub checkpoint: Option<(Height, BlockHash)>,
}

/// A snapshot: its block, and the frontier that proves its chunks.
#[derive(Clone, Debug)]
pub struct SnapshotOffer {
    /// Height of its block.
    pub height: Height,
    /// Its id, which is `frontier.id(height)`.
    pub id: SnapshotId,
    /// How its state is cut into chunks. About 80 bytes for each subtree.
    pub frontier: Arc<Frontier>,
    /// Header of its block.
    pub header: Header,
    /// Proves that the block is final.
    pub certificate: Certificate,
}

/// Bytes of a file from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// The lowest byte.
    pub first: u64,
    /// The highest byte. It may be beyond the end of the file.
    pub last: u64,
}

impl ByteRange {
    /// A whole file, however long it is.
    pub const ALL: Self = Self { first: 0, last: u64::MAX };
}

/// What is on this node's disk of a file.
#[derive(Clone, Debug)]
pub struct HeldFile {
    /// The file.
    pub id: FileId,
    /// Its length and root, once they are known.
    pub descriptor: Option<FileDescriptor>,
    /// The segments of which all chunks are here.
    pub whole: SegmentRanges,
    /// Segments of which some chunks are here, with one flag for each chunk. Of use only if they
    /// are to be fetched.
    pub begun: Vec<(FileHead, Vec<bool>)>,
}

/// Everything that happens to the swarm machine.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // Made once and handed on: a box costs more than the move.
pub enum Input {
    /// Only time has passed. Due at [`Swarm::deadline`](super::Swarm::deadline) at the latest.
    Time,
    /// The link to a peer is open.
    Opened(PeerId),
    /// The link to a peer is closed.
    Closed(PeerId),
    /// A message of a peer.
    Message(PeerId, Vec<u8>),
    /// A chunk arrived. [`Effect::Store`](super::Effect::Store) follows if it is of use.
    Chunk {
        /// The peer that sent it.
        from: PeerId,
        /// The name that the peer gave it, by this node's number of its collection.
        id: ChunkId,
        /// Whether [`Swarm::expected`](super::Swarm::expected) verifies its bytes. If nothing is
        /// expected, this does not count, and the bytes need not be looked at.
        is_valid: bool,
        /// Number of its bytes.
        bytes: u64,
    },
    /// The disk refused the chunk of [`Effect::Store`](super::Effect::Store). Nothing of its
    /// collection is asked for during ten seconds, and peers hear that the chunk is not here.
    Refused(ChunkId),
    /// Which sealed segments this node lacks and is to keep, in place of what was said before.
    Missing {
        /// Their descriptors, which the chain proves.
        missing: Vec<SegmentDescriptor>,
        /// What an earlier run staged of them.
        staged: Vec<Staged>,
    },
    /// Sealed segments of history below the tip are in their place now, or are served again. It is
    /// one answer to [`Effect::Keep`](super::Effect::Keep).
    Kept(SegmentRange),
    /// The other answer to [`Effect::Keep`](super::Effect::Keep): these chunks are damaged on disk.
    /// If there are none, the disk refused.
    NotPlaced(SegmentIndex, Vec<u32>),
    /// Sealed segments of history are not here any more, or are served to nobody for now.
    Dropped(SegmentRange),
    /// Bytes of history went to peers otherwise than as chunks of a link. They count as uploads.
    Uploaded(u64),
    /// A file is on disk, whole or in parts, and is served to peers that ask for it. Whatever was
    /// said of it before is still true.
    FileHeld(HeldFile),
    /// A part of a file is to be fetched, and served from then on.
    /// [`Effect::FileDone`](super::Effect::FileDone) follows once it is here. Whole segments are
    /// fetched. Several parts of a file add up.
    FileWanted(HeldFile, ByteRange),
    /// A file is not here any more, or is not to be fetched or served any more.
    FileGone(FileId),
    /// The connection has taken in the whole chunk for a peer, so another one may follow.
    Written(PeerId),
    /// The chunk of [`Effect::SendChunk`](super::Effect::SendChunk) is not on disk, is not kept any
    /// more, cannot be read or is damaged. Peers hear that its segment is not here.
    Unsent(PeerId, ChunkId),
    /// The chunk of [`Effect::SendChunk`](super::Effect::SendChunk) could not be read this time.
    /// It is still on disk. If its segment is a whole one of a file, peers hear that the segment is
    /// not here, and after 30 s that it is. Otherwise this is [`Self::Unsent`].
    Unread(PeerId, ChunkId),
    /// The chunk of [`Effect::SendChunk`](super::Effect::SendChunk) cannot exist: its segment has
    /// no such chunk.
    Impossible(PeerId, ChunkId),
    /// A certified header far above the tip.
    Certified(CertifiedHeader),
    /// The chain has grown to this height and has sealed these segments meanwhile.
    Tip(Height, Vec<SegmentDescriptor>),
    /// The chain begins without a snapshot, whatever [`Setup::join`] said: no peer is far ahead.
    /// History goes on from where the chain is.
    ByHistory,
    /// A whole snapshot is on disk, and is offered to peers. Of more than
    /// [`SNAPSHOTS_MAX`](super::message::SNAPSHOTS_MAX) the highest ones are.
    SnapshotKept(SnapshotOffer),
    /// A snapshot is not on disk any more.
    SnapshotGone(SnapshotId),
    /// The chain has taken over the snapshot of
    /// [`Effect::LoadSnapshot`](super::Effect::LoadSnapshot), which stays on disk.
    Loaded {
        /// The snapshot.
        id: SnapshotId,
        /// The history of its block.
        history: History,
    },
    /// The snapshot of [`Effect::LoadSnapshot`](super::Effect::LoadSnapshot) could not be loaded.
    LoadFailed {
        /// The snapshot.
        id: SnapshotId,
        /// Chunks that are damaged on disk, by their index in the snapshot. They are fetched again.
        /// If there are none, the snapshot is given up.
        damaged: Vec<u64>,
    },
    /// The answer to [`Effect::Assemble`](super::Effect::Assemble): the chunks that are damaged on
    /// disk. If there are none, all blocks of the segment are verified.
    Assembled(SegmentIndex, Vec<u32>),
}
