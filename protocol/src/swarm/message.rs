//! Sync messages between two nodes. Their link has an ordered stream of messages each way, and
//! another one of chunks.

use bincode::{Decode, Encode};
use ledger::codec::{self, CodecError};
use ledger::history::{SegmentDescriptor, SegmentHead};
use ledger::units::{Height, SegmentIndex};

use super::bits::Bits;

/// Most bytes of a message.
pub const SYNC_MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Most descriptors in one answer: half a MiB.
pub const DESCRIPTORS_MAX: usize = 4_096;
/// Most new segments in one manifest, which is proved only once it is complete: 32 MiB of
/// descriptors. With segments of 16 MiB they are 4 TiB of history.
pub const MANIFEST_SEGMENTS_MAX: usize = 262_144;
/// Most chunks that one peer may want at a time.
pub const WANTS_MAX: usize = 512;
/// Bytes before the chunk in a data frame, which name it: segment and chunk, little-endian.
pub const CHUNK_HEADER_BYTES: usize = 12;

/// Names a chunk of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ChunkId {
    /// The segment, from 0.
    pub segment: SegmentIndex,
    /// The chunk in its segment, from 0.
    pub chunk: u32,
}

impl ChunkId {
    /// The data frame of this chunk: its name, then its bytes.
    #[must_use]
    pub fn frame(self, bytes: &[u8]) -> Vec<u8> {
        [&self.segment.0.to_le_bytes()[..], &self.chunk.to_le_bytes(), bytes].concat()
    }

    /// The name and bytes of the chunk in a data frame. `None` if the frame is too short to name
    /// one.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<(Self, &[u8])> {
        let (segment, rest) = frame.split_first_chunk()?;
        let (chunk, bytes) = rest.split_first_chunk()?;
        let segment = SegmentIndex(u64::from_le_bytes(*segment));
        Some((Self { segment, chunk: u32::from_le_bytes(*chunk) }, bytes))
    }
}

/// The sender's holdings. The first message of a link.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Holdings {
    /// The sender's last final block. A peer that claims the height of a manifest is asked first
    /// for that manifest. Which chunks are fetched depends on certificates alone.
    pub height: Height,
    /// Segments before this one are no longer available.
    pub pruned_below: SegmentIndex,
    /// All segments before this one are complete.
    pub sealed: SegmentIndex,
    /// Segments of which the sender has some chunks, in increasing order.
    pub partial: Vec<(SegmentIndex, Bits)>,
    /// Random at each start. By it, all downloaders agree which of several sources to ask for a
    /// chunk.
    pub nonce: u64,
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
    /// The sender's holdings.
    Holdings(Holdings),
    /// Changes.
    Update(Update),
    /// The sender now has all segments before this one. The height is that of its last final block.
    Sealed(SegmentIndex, Height),
    /// No upload slot is free: ask again after this many milliseconds. The receiver's wants stay
    /// noted.
    Busy(u32),
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
}

impl SyncMessage {
    /// Decodes a message.
    ///
    /// # Errors
    /// `CodecError` when the bytes are more than [`SYNC_MESSAGE_BYTES_MAX`] or not canonical.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, SYNC_MESSAGE_BYTES_MAX)
    }
}
