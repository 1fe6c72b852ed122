//! History: the canonical bytes of all blocks as segments and chunks, and one root that commits to
//! every sealed segment.
//!
//! Canonical block bytes, one block after the other, form *segments* of whole blocks. A segment is
//! cut into *chunks*. A chunk is the unit that is requested and hashed, so a wrong chunk shows
//! which peer sent wrong bytes. A closed segment is *sealed*: a *descriptor* with its heights,
//! length and roots commits to it. The descriptors are the leaves of a Merkle mountain range. Each
//! header holds the root over all segments sealed before it. So a certified header proves each
//! descriptor, a descriptor proves its chunk hashes, and a chunk hash proves the bytes. Any later
//! header proves any sealed block.

mod manifest;
mod mountain;
mod proof;
mod segment;
mod split;

pub use manifest::{Manifest, SegmentHead};
pub use proof::{BlockProof, SegmentProof};
pub use segment::{SealedSegment, SegmentDescriptor, chunk_hash};
pub use split::{SegmentError, SegmentSplitter};

use crate::block::BLOCK_OVERHEAD_MAX;
use crate::codec::{Decode, Encode};
use crate::hash::{BlockHash, Hash, HistoryRoot};
use crate::merkle::{self, ProofError};
use crate::units::Height;
use mountain::MountainRange;
use segment::OpenSegment;

/// Most canonical bytes of a block on any chain: header, certificate, lengths, and the transactions
/// that the highest limit of a genesis allows.
pub const BLOCK_BYTES_MAX: u64 = (2 << 20) + BLOCK_OVERHEAD_MAX as u64;

/// How blocks become segments and chunks. All nodes of a network agree on these rules. Every number
/// is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HistoryRules {
    /// A segment closes after the block that brings it to this many bytes. Blocks are not cut, so a
    /// segment may have more.
    pub segment_bytes: u64,
    /// A segment closes after this many blocks, however short they are.
    pub segment_blocks: u64,
    /// Bytes of a chunk; only the last one of a segment may be shorter.
    pub chunk_bytes: u64,
}

impl HistoryRules {
    /// Whether a segment closes at this many bytes and blocks.
    const fn closes(&self, bytes: u64, blocks: u64) -> bool {
        bytes >= self.segment_bytes || blocks >= self.segment_blocks
    }

    /// Every segment has fewer bytes than this, since its last block begins below `segment_bytes`.
    #[must_use]
    pub const fn segment_bytes_max(&self) -> u64 {
        self.segment_bytes.saturating_add(BLOCK_BYTES_MAX)
    }

    /// Most chunks of a segment.
    #[must_use]
    pub fn segment_chunks_max(&self) -> u32 {
        let chunks = self.segment_bytes_max().div_ceil(self.chunk_bytes);
        u32::try_from(chunks).unwrap_or(u32::MAX)
    }
}

/// Descriptors, hashes or a proof that do not fit together. Whoever provided them is at fault: a
/// peer, or our disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// Descriptors are not in order of index.
    #[error("segment {got} given, expected segment {expected}")]
    Index {
        /// Index that follows.
        expected: u64,
        /// Index given.
        got: u64,
    },
    /// A segment leaves out or repeats blocks.
    #[error("segment {index} begins at height {got}, expected {expected}")]
    First {
        /// The segment.
        index: u64,
        /// Height that follows.
        expected: Height,
        /// Height given.
        got: Height,
    },
    /// A segment ends where the rules do not allow it.
    #[error("segment {index} cannot end at height {last} with {bytes} bytes since height {first}")]
    Closing {
        /// The segment.
        index: u64,
        /// Its first block.
        first: Height,
        /// Its last block.
        last: Height,
        /// Its bytes.
        bytes: u64,
    },
    /// A list of chunk hashes has the wrong length.
    #[error("{got} chunk hashes for segment {index}, expected {expected}")]
    ChunkCount {
        /// The segment.
        index: u64,
        /// Chunks of the segment.
        expected: u64,
        /// Hashes given.
        got: u64,
    },
    /// A list of chunk hashes is not the one that the descriptor commits to.
    #[error("chunk hashes of segment {index} have root {got}, expected {expected}")]
    ChunksRoot {
        /// The segment.
        index: u64,
        /// Root in the descriptor.
        expected: Hash,
        /// Root of the hashes given.
        got: Hash,
    },
    /// The descriptors are not the ones that a header commits to.
    #[error("the segments have root {got}, expected {expected}")]
    Root {
        /// Root in the header.
        expected: HistoryRoot,
        /// Root of the descriptors given.
        got: HistoryRoot,
    },
    /// The block is not in the segment.
    #[error("height {height} is not in a segment from {first} to {last}")]
    Height {
        /// Height asked for.
        height: Height,
        /// First block of the segment.
        first: Height,
        /// Last block of the segment.
        last: Height,
    },
    /// The proof is for another block of the segment.
    #[error("the proof is for block {index} of {count}, which is not the place of height {height}")]
    Position {
        /// Height asked for.
        height: Height,
        /// Block proved, from 0.
        index: u64,
        /// Blocks of the segment, as the proof says.
        count: u64,
    },
    /// A Merkle path does not lead to its root.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

/// The growing history of one chain. Takes each block once, in order of height.
///
/// Keeps 64 bytes for each sealed segment. For the open segment it keeps 40 bytes for each block,
/// 32 for each chunk, and less than one chunk of bytes. Two histories of the same blocks are equal,
/// even if one of them was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    rules: HistoryRules,
    sealed: MountainRange,
    open: OpenSegment,
}

impl History {
    /// The history before the first block.
    ///
    /// # Panics
    /// If a rule is zero, which no genesis allows.
    #[must_use]
    pub fn new(rules: HistoryRules) -> Self {
        let HistoryRules { segment_bytes, segment_blocks, chunk_bytes } = rules;
        assert!(
            segment_bytes > 0 && segment_blocks > 0 && chunk_bytes > 0,
            "a genesis has no zero in {rules:?}"
        );
        Self { rules, sealed: MountainRange::default(), open: OpenSegment::new(0, Height(1)) }
    }

    /// The history after these sealed segments. Its open segment is empty, so the caller must push
    /// the blocks after the sealed segments again.
    ///
    /// Checks what can be checked without a root: their order, that there are no gaps, and that
    /// each segment ends where the rules close a segment. Descriptors from a peer are proved only
    /// if [`Self::root`] of the result equals the root in a certified header.
    ///
    /// # Errors
    /// `HistoryError::Index`, `First` or `Closing` for the first descriptor that does not follow
    /// from those before it.
    ///
    /// # Panics
    /// If a rule is zero, as in `new`.
    pub fn restore(
        rules: HistoryRules,
        descriptors: impl IntoIterator<Item = SegmentDescriptor>,
    ) -> Result<Self, HistoryError> {
        let mut history = Self::new(rules);
        for descriptor in descriptors {
            let open = &history.open;
            let next = descriptor.validate_at(open.index, open.first, &rules)?;
            history.sealed.push(descriptor.leaf());
            history.open_next(next);
        }
        Ok(history)
    }

    /// Takes the next block. Returns the segment if this block closes it.
    ///
    /// # Panics
    /// If `height` does not follow `tip`. A gap could never be filled later.
    pub fn push(
        &mut self,
        height: Height,
        hash: BlockHash,
        block_bytes: &[u8],
    ) -> Option<SealedSegment> {
        assert_eq!(
            height,
            self.tip().next(),
            "blocks enter history one by one, in order of height"
        );
        self.open.push(hash, block_bytes, &self.rules);
        if !self.rules.closes(self.open.bytes, self.open.block_count()) {
            return None;
        }
        let segment = self.open_next(height.next()).seal(height, hash);
        self.sealed.push(segment.descriptor.leaf());
        Some(segment)
    }

    /// Commitment to all sealed segments, as it is in the header of the block after `tip`.
    #[must_use]
    pub fn root(&self) -> HistoryRoot {
        self.sealed.root()
    }

    /// The root after the first `segments` segments; `None` if there are fewer.
    #[must_use]
    pub fn root_at(&self, segments: u64) -> Option<HistoryRoot> {
        self.sealed.root_at(segments)
    }

    /// Number of sealed segments. It is also the index of the open segment.
    #[must_use]
    pub const fn segments(&self) -> u64 {
        self.open.index
    }

    /// Height of the first block of the open segment. This block may not exist yet.
    #[must_use]
    pub const fn open_first(&self) -> Height {
        self.open.first
    }

    /// Height of the last block taken; 0 if there is none.
    #[must_use]
    pub fn tip(&self) -> Height {
        self.open.tip()
    }

    /// The rules of this history.
    #[must_use]
    pub const fn rules(&self) -> &HistoryRules {
        &self.rules
    }

    /// Proof of segment `index` under `root_at(segments)`; `None` if there is no such segment.
    ///
    /// A header commits to the segments sealed before it, so the header that the verifier trusts
    /// determines `segments`.
    #[must_use]
    pub fn prove_segment(&self, index: u64, segments: u64) -> Option<SegmentProof> {
        let (siblings, peaks) = self.sealed.path(index, segments)?;
        Some(SegmentProof { count: segments, siblings, peaks })
    }

    /// Proof of the block at `height` under `root_at(segments)`; `None` if the height is not in the
    /// segment of `descriptor`, or that segment is not among the first `segments`.
    ///
    /// `blocks` are the hashes of the segment's blocks. Costs two hash operations for each of them.
    #[must_use]
    pub fn prove_block(
        &self,
        height: Height,
        descriptor: &SegmentDescriptor,
        blocks: &[Hash],
        segments: u64,
    ) -> Option<BlockProof> {
        let index = height.0.checked_sub(descriptor.first.0)?;
        Some(BlockProof {
            descriptor: *descriptor,
            segment: self.prove_segment(descriptor.index, segments)?,
            block: merkle::prove(blocks, usize::try_from(index).ok()?)?,
        })
    }

    /// Replaces the open segment by an empty one after it. Returns the segment that was open.
    fn open_next(&mut self, first: Height) -> OpenSegment {
        let next = OpenSegment::new(self.open.index.saturating_add(1), first);
        std::mem::replace(&mut self.open, next)
    }
}

#[cfg(test)]
mod tests;
