//! What two nodes say to each other about history, over a link of their own: an ordered stream of these each way, and another of chunks.

use bincode::{Decode, Encode};
use ledger::codec::{self, CodecError};
use ledger::history::{SegmentDescriptor, SegmentHead};
use ledger::units::Height;

use super::bits::Bits;

/// Most bytes of a message.
pub const SYNC_MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Most descriptors in one answer: half a MiB.
pub const DESCRIPTORS_MAX: usize = 4_096;
/// Most segments beyond those that are here in one manifest, which is proved only when it is whole: 32 MiB of descriptors. With
/// segments of 16 MiB these are 4 TiB of history.
pub const MANIFEST_SEGMENTS_MAX: usize = 262_144;
/// Most chunks that one peer may want at a time.
pub const WANTS_MAX: usize = 512;
/// Bytes before those of the chunk in a frame of chunks: which chunk it is.
pub const CHUNK_HEADER_BYTES: usize = 12;

/// Names a chunk of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ChunkId {
    /// The segment, from 0.
    pub segment: u64,
    /// The chunk in it, from 0.
    pub chunk: u32,
}

impl ChunkId {
    /// The chunk's frame.
    #[must_use]
    pub fn frame(self, bytes: &[u8]) -> Vec<u8> {
        [&self.segment.to_le_bytes()[..], &self.chunk.to_le_bytes(), bytes].concat()
    }

    /// Which chunk a frame carries, and its bytes. None for a frame without a header.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<(Self, &[u8])> {
        let (segment, rest) = frame.split_first_chunk()?;
        let (chunk, bytes) = rest.split_first_chunk()?;
        Some((Self { segment: u64::from_le_bytes(*segment), chunk: u32::from_le_bytes(*chunk) }, bytes))
    }
}

/// What a node has. The first message of a link.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Status {
    /// Its last final block. Shown to people; what is fetched depends on certificates alone.
    pub height: Height,
    /// Segments before this one are not here any more.
    pub pruned_below: u64,
    /// It has all segments before this one.
    pub sealed: u64,
    /// Segments of which it has some chunks.
    pub partial: Vec<(u64, Bits)>,
    /// Chosen anew at each start, so that those who fetch agree on which of several complete peers to ask for a chunk.
    pub nonce: u64,
}

/// What changed since the last update; empty parts say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Update {
    /// I have these now.
    pub have: Vec<ChunkId>,
    /// I want these too: send whichever of my wants serves all best.
    pub add: Vec<ChunkId>,
    /// I want these no more.
    pub remove: Vec<ChunkId>,
    /// Chunks of yours that came here, since the link began.
    pub received: u64,
    /// Chunks you may send, since the link began; room for them is kept.
    pub allowed: u64,
}

/// Anything said over a link.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[allow(clippy::large_enum_variant)] // Made once and handed on: a box would cost more than the move.
pub enum SyncMessage {
    /// What I have.
    Status(Status),
    /// What changed.
    Update(Update),
    /// I have all segments before this one, and this is my last final block.
    Sealed(u64, Height),
    /// No upload slot is free: ask again after so many milliseconds. Nothing you want is lost meanwhile.
    Busy(u32),
    /// Descriptors of segments from this index on that were sealed before the block of this height.
    GetManifest(Height, u64),
    /// Those, at most [`DESCRIPTORS_MAX`]; none if I do not know that height.
    Manifest(Height, u64, Option<Vec<SegmentDescriptor>>),
    /// Hashes of a segment's chunks, and the certificate of its last block.
    GetHead(u64),
    /// Those, if I know them.
    Head(u64, Option<SegmentHead>),
}

impl SyncMessage {
    /// Reads a message.
    ///
    /// # Errors
    /// `CodecError` when the bytes are too many or not canonical.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, SYNC_MESSAGE_BYTES_MAX)
    }
}
