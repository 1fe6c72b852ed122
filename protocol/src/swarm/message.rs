//! Sync messages between two nodes. Their link has an ordered stream of messages each way, and
//! another one of chunks.
//!
//! Each node numbers the collections that it has open. Its messages use its own numbers. A data
//! frame uses the number of the node that receives it, since it may overtake messages.

use std::ops::RangeInclusive;

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};
use ledger::codec::{self, CodecError};
use ledger::file::FileHead;
use ledger::hash::{BlockHash, FileId, Hash, SnapshotId};
use ledger::history::{SegmentDescriptor, SegmentHead};
use ledger::merkle::MerkleProof;
use ledger::snapshot::SubtreeDescriptor;
use ledger::units::{Height, SegmentIndex};

use super::bits::Bits;
use super::ranges::{SegmentRange, SegmentRanges};
use crate::budget::Cost;
use crate::message::CertifiedHeader;

/// Most bytes of a message.
pub const SYNC_MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Most descriptors in one answer: half a MiB.
pub const DESCRIPTORS_MAX: usize = 4_096;
/// Most new segments in one manifest, which is proved only once it is complete: 32 MiB of
/// descriptors. With segments of 16 MiB they are 4 TiB of history.
pub const MANIFEST_SEGMENTS_MAX: usize = 262_144;
/// Most chunks that one peer may want at a time.
pub const WANTS_MAX: usize = 512;
/// Most collections that a node may have open on one link.
pub const COLLECTIONS_MAX: usize = 64;
/// Most snapshots that a node may announce on one link.
pub const SNAPSHOTS_MAX: usize = 4;
/// Bytes before the chunk in a data frame, which name it: collection, segment and chunk,
/// little-endian.
pub const CHUNK_HEADER_BYTES: usize = 10;

/// Names a collection, the same on all nodes. History has the id of its chain; a snapshot and a
/// file have their own id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct CollectionId(pub Hash);

/// A node's own number for a collection, which it says in [`SyncMessage::Open`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct CollectionNumber(pub u16);

impl CollectionNumber {
    /// Names a segment of this collection.
    #[must_use]
    pub const fn segment(self, index: SegmentIndex) -> SegmentId {
        SegmentId { collection: self, index }
    }

    /// The next number. The last one is followed by the first.
    pub(super) const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// Names all segments of this collection, in order.
    pub(super) const fn segments(self) -> RangeInclusive<SegmentId> {
        self.segment(SegmentIndex(0))..=self.segment(SegmentIndex(u64::MAX))
    }

    /// Names all chunks of this collection, in order.
    pub(super) const fn chunks(self) -> RangeInclusive<ChunkId> {
        let last = self.segment(SegmentIndex(u64::MAX)).chunk(u32::MAX);
        self.segment(SegmentIndex(0)).chunk(0)..=last
    }
}

/// Names a segment. Its index takes four bytes in messages, since names of chunks are most of what
/// nodes tell each other. With segments of 16 MiB, that is enough for 64 PiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// The collection.
    pub collection: CollectionNumber,
    /// The segment in its collection, from 0.
    pub index: SegmentIndex,
}

impl SegmentId {
    /// Names a chunk of this segment.
    #[must_use]
    pub const fn chunk(self, chunk: u32) -> ChunkId {
        ChunkId { segment: self, chunk }
    }

    /// The index as messages encode it, in 32 bits. No collection has 2^32 segments.
    fn short_index(self) -> u32 {
        u32::try_from(self.index.0).unwrap_or(u32::MAX)
    }
}

impl Encode for SegmentId {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.collection.encode(encoder)?;
        self.short_index().encode(encoder)
    }
}

impl<Context> Decode<Context> for SegmentId {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let collection = CollectionNumber::decode(decoder)?;
        let index = u32::decode(decoder)?;
        Ok(collection.segment(SegmentIndex(u64::from(index))))
    }
}

bincode::impl_borrow_decode!(SegmentId);

/// Names a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ChunkId {
    /// The segment.
    pub segment: SegmentId,
    /// The chunk in its segment, from 0.
    pub chunk: u32,
}

impl ChunkId {
    /// The data frame of this chunk: its name, then its bytes.
    #[must_use]
    pub fn frame(self, bytes: &[u8]) -> Vec<u8> {
        let collection = self.segment.collection.0.to_le_bytes();
        let (index, chunk) = (self.segment.short_index().to_le_bytes(), self.chunk.to_le_bytes());
        [&collection[..], &index, &chunk, bytes].concat()
    }

    /// The name and bytes of the chunk in a data frame. `None` if the frame is too short to name
    /// one.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<(Self, &[u8])> {
        let (collection, rest) = frame.split_first_chunk()?;
        let (index, rest) = rest.split_first_chunk()?;
        let (chunk, bytes) = rest.split_first_chunk()?;
        let collection = CollectionNumber(u16::from_le_bytes(*collection));
        let index = SegmentIndex(u64::from(u32::from_le_bytes(*index)));
        let segment = collection.segment(index);
        Some((segment.chunk(u32::from_le_bytes(*chunk)), bytes))
    }
}

/// What the sender holds of a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Holdings {
    /// The segments of which it has all chunks, at most [`RANGES_MAX`](super::RANGES_MAX) ranges.
    pub whole: SegmentRanges,
    /// Segments that it is fetching and of which it has some chunks, in increasing order. At most
    /// [`OPEN_SEGMENTS_MAX`](super::OPEN_SEGMENTS_MAX).
    pub open: Vec<(SegmentIndex, Bits)>,
    /// Random at each start. By it, all downloaders agree which of several sources to ask for a
    /// chunk.
    pub nonce: u64,
}

/// A page of the frontier of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FrontierPage {
    /// The block of the snapshot, with a certificate. Page 0 has it, no other page does.
    pub block: Option<CertifiedHeader>,
    /// [`FRONTIER_PAGE_SUBTREES`](ledger::snapshot::FRONTIER_PAGE_SUBTREES) subtrees of the
    /// frontier. If there are fewer, they are the last ones.
    pub subtrees: Vec<SubtreeDescriptor>,
}

/// Changes since the last update. Empty lists change nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Update {
    /// Chunks that the sender now has.
    pub have: Vec<ChunkId>,
    /// Chunks that the sender now wants too. Of all wanted chunks, the receiver sends the one that
    /// helps the swarm most.
    pub add: Vec<ChunkId>,
    /// Chunks that the sender no longer wants.
    pub remove: Vec<ChunkId>,
    /// Number of the receiver's chunks that have arrived since the link opened.
    pub received: u64,
    /// Credit: number of chunks that the receiver may send, counted since the link opened. The
    /// sender keeps room for them.
    pub allowed: u64,
}

/// Any message of a link.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[allow(clippy::large_enum_variant)] // Made once and handed on: a box costs more than the move.
pub enum SyncMessage {
    /// From now on this number stands for this collection in the sender's messages, and in the
    /// chunks that are sent to it.
    Open(CollectionNumber, CollectionId),
    /// The number stands for no collection any more: the sender neither has it nor wants it.
    Close(CollectionNumber),
    /// What the sender holds of a collection, in place of what it said before.
    Holdings(CollectionNumber, Holdings),
    /// The sender now has all chunks of these segments too.
    Held(CollectionNumber, SegmentRange),
    /// The sender has no chunk of this segment to give. It answers a want, or takes back what the
    /// sender said before.
    NotKept(SegmentId),
    /// Changes.
    Update(Update),
    /// No upload slot is free: ask again after this many milliseconds. The receiver's wants stay
    /// noted.
    Busy(u32),
    /// The sender's last final block. A peer that claims the height of a manifest is asked first
    /// for that manifest. Which chunks are fetched depends on certificates alone.
    Height(Height),
    /// Asks for the descriptors of all segments that were sealed before the block of this height,
    /// beginning with the segment of this index.
    GetManifest(Height, SegmentIndex),
    /// The descriptors, at most [`DESCRIPTORS_MAX`]. If there are fewer, they are the last ones.
    /// `None` if the height is unknown, or to refuse for now.
    Manifest(Height, SegmentIndex, Option<Vec<SegmentDescriptor>>),
    /// Asks for the hashes of a segment's chunks, and the certificate of its last block.
    GetHead(SegmentIndex),
    /// The head of a segment. `None` if it is unknown, or to refuse for now.
    Head(SegmentIndex, Option<SegmentHead>),
    /// The snapshots that the sender has whole, in place of those that it named before. At most
    /// [`SNAPSHOTS_MAX`].
    Snapshots(Vec<(Height, SnapshotId)>),
    /// Asks for a page of the frontier of a snapshot, from 0.
    GetFrontier(SnapshotId, u32),
    /// The page of the frontier. `None` if the snapshot or the page is unknown, or to refuse for
    /// now.
    Frontier(SnapshotId, u32, Option<FrontierPage>),
    /// Asks for the proof that the block of this height is in its segment.
    GetBlockProof(Height),
    /// The hash of the block, and its proof under the `blocks_root` of its segment's descriptor.
    /// `None` if the segment is not kept or not sealed, or to refuse for now.
    BlockProof(Height, Option<(BlockHash, MerkleProof)>),
    /// Asks for the head of a segment of a file. Only a peer that has the file open is asked.
    GetFileHead(FileId, SegmentIndex),
    /// The head of a segment of a file. `None` if the segment is not here, or to refuse for now.
    FileHead(FileId, SegmentIndex, Option<FileHead>),
}

/// Numbers of the kinds whose bytes are nearly all hashes, or descriptors that are hashed.
const HASHED: [u32; 4] = [9, 11, 14, 18];

impl SyncMessage {
    /// The cost of taking in a message with these bytes, without its answer.
    ///
    /// Nearly all bytes of a large manifest, head or frontier are hashed once. Those of any other
    /// large message are names of chunks, each of which is looked up.
    #[must_use]
    pub fn cost(bytes: &[u8]) -> Cost {
        let kind = bytes.first_chunk().map(|kind| u32::from_le_bytes(*kind));
        let count = |unit: usize| bytes.len().checked_div(unit).unwrap_or(0) as u64;
        let content = match kind.is_some_and(|kind| HASHED.contains(&kind)) {
            true => Cost::hashes(count(size_of::<Hash>())),
            false => Cost::look_ups(count(CHUNK_HEADER_BYTES), 0),
        };
        Cost::message(bytes.len()).and(content)
    }

    /// Decodes a message.
    ///
    /// # Errors
    /// `CodecError` when the bytes are more than [`SYNC_MESSAGE_BYTES_MAX`] or not canonical.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, SYNC_MESSAGE_BYTES_MAX)
    }
}
