//! Segments: consecutive whole blocks, cut into chunks that are requested, verified and offered one
//! by one.

use std::ops::Range;

use crate::codec::{self, Decode, Encode};
use crate::hash::{BlockHash, Domain, Hash};
use crate::history::{BLOCK_BYTES_MAX, HistoryError, HistoryRules};
use crate::merkle;
use crate::units::Height;

/// Hash of the bytes of one chunk, as `chunks_root` commits to it.
#[must_use]
pub fn chunk_hash(bytes: &[u8]) -> Hash {
    Hash::of(Domain::Chunk, &[bytes])
}

/// The commitment to a sealed segment: its hash is a leaf of history's Merkle mountain range. Its
/// encoding has 128 bytes.
///
/// A descriptor from a peer is a mere claim until a `SegmentProof` or a `Manifest` proves it
/// against the `history_root` of a certified header. No method panics on a claim. But until
/// [`validate_at`](Self::validate_at) has accepted it, its `bytes` and chunk count may be huge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SegmentDescriptor {
    /// Index of the segment in history, from 0.
    pub index: u64,
    /// Height of its first block.
    pub first: Height,
    /// Height of its last block.
    pub last: Height,
    /// Sum of the lengths of its blocks' canonical bytes.
    pub bytes: u64,
    /// Merkle root over the hashes of its chunks.
    pub chunks_root: Hash,
    /// Merkle root over the hashes of its blocks.
    pub blocks_root: Hash,
    /// Hash of the block at `last`.
    pub last_block: BlockHash,
}

impl SegmentDescriptor {
    /// The segment's leaf in the mountain range.
    #[must_use]
    pub fn leaf(&self) -> Hash {
        Hash::of(Domain::Segment, &[&codec::encode(self)])
    }

    /// Validates that this can be segment `index`, beginning at height `first`: it has this index
    /// and height, and the rules allow a segment to close after this many bytes and blocks. Returns
    /// the height after its last block. Only a root can prove that the descriptor is true.
    ///
    /// # Errors
    /// `HistoryError::Index`, `First` or `Closing`.
    pub fn validate_at(
        &self,
        index: u64,
        first: Height,
        rules: &HistoryRules,
    ) -> Result<Height, HistoryError> {
        if self.index != index {
            return Err(HistoryError::Index { expected: index, got: self.index });
        }
        if self.first != first {
            return Err(HistoryError::First { index, expected: first, got: self.first });
        }
        let Self { last, bytes, .. } = *self;
        let ends = self.block_count().is_some_and(|blocks| {
            blocks <= rules.segment_blocks
                && rules.closes(bytes, blocks)
                && bytes < rules.segment_bytes_max()
                && bytes <= blocks.saturating_mul(BLOCK_BYTES_MAX)
        });
        match last.checked_add(1) {
            Some(next) if ends => Ok(next),
            _ => Err(HistoryError::Closing { index, first, last, bytes }),
        }
    }

    /// Number of its blocks; `None` if `first` and `last` cannot be heights of a segment.
    #[must_use]
    pub fn block_count(&self) -> Option<u64> {
        self.last.0.checked_sub(self.first.0)?.checked_add(1)
    }

    /// Number of its chunks.
    #[must_use]
    pub fn chunk_count(&self, rules: &HistoryRules) -> u64 {
        self.bytes.div_ceil(rules.chunk_bytes)
    }

    /// The place of chunk `index` in the bytes of the segment; `None` if there is no such chunk.
    ///
    /// Each chunk has `chunk_bytes` bytes, except that the last one may have fewer.
    #[must_use]
    pub fn chunk_range(&self, index: u64, rules: &HistoryRules) -> Option<Range<u64>> {
        let start = index.checked_mul(rules.chunk_bytes).filter(|start| *start < self.bytes)?;
        Some(start..start.saturating_add(rules.chunk_bytes).min(self.bytes))
    }

    /// Verifies that these are the hashes of all chunks, in order.
    ///
    /// # Errors
    /// `HistoryError::ChunkCount`, which is checked before anything is hashed, or `ChunksRoot`.
    pub fn verify_chunks(&self, rules: &HistoryRules, chunks: &[Hash]) -> Result<(), HistoryError> {
        let (expected, got) = (self.chunk_count(rules), chunks.len() as u64);
        if got != expected {
            return Err(HistoryError::ChunkCount { index: self.index, expected, got });
        }
        let (expected, got) = (self.chunks_root, merkle::root(chunks));
        if got != expected {
            return Err(HistoryError::ChunksRoot { index: self.index, expected, got });
        }
        Ok(())
    }
}

/// A closed segment, with the hashes under its roots and the places where its blocks end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSegment {
    /// The segment as history commits to it.
    pub descriptor: SegmentDescriptor,
    /// Hash of each chunk.
    pub chunks: Vec<Hash>,
    /// Hash of each block, from height `first` to `last`.
    pub blocks: Vec<Hash>,
    /// Where each block ends in the bytes of the segment.
    pub ends: Vec<u64>,
}

/// The segment that still takes blocks. Holds hashes, lengths and less than one chunk of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpenSegment {
    pub(super) index: u64,
    pub(super) first: Height,
    pub(super) bytes: u64,
    blocks: Vec<Hash>,
    ends: Vec<u64>,
    chunks: Vec<Hash>,
    /// Bytes after the last full chunk, always fewer than a chunk.
    tail: Vec<u8>,
}

impl OpenSegment {
    pub(super) const fn new(index: u64, first: Height) -> Self {
        Self {
            index,
            first,
            bytes: 0,
            blocks: Vec::new(),
            ends: Vec::new(),
            chunks: Vec::new(),
            tail: Vec::new(),
        }
    }

    pub(super) fn block_count(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// Height of the last block; while there is none, height of the last block before the segment.
    pub(super) fn tip(&self) -> Height {
        Height(self.first.0.saturating_add(self.block_count()).saturating_sub(1))
    }

    pub(super) fn push(&mut self, block: BlockHash, mut bytes: &[u8], rules: &HistoryRules) {
        self.blocks.push(block.0);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        self.ends.push(self.bytes);
        let chunk_bytes = usize::try_from(rules.chunk_bytes).unwrap_or(usize::MAX);
        while let Some((head, rest)) =
            bytes.split_at_checked(chunk_bytes.saturating_sub(self.tail.len()))
        {
            self.chunks.push(Hash::of(Domain::Chunk, &[&self.tail, head]));
            self.tail.clear();
            bytes = rest;
        }
        self.tail.extend_from_slice(bytes);
    }

    /// Closes the segment after its block at height `last`, whose hash was pushed last.
    pub(super) fn seal(mut self, last: Height, last_block: BlockHash) -> SealedSegment {
        if !self.tail.is_empty() {
            self.chunks.push(chunk_hash(&self.tail));
        }
        let descriptor = SegmentDescriptor {
            index: self.index,
            first: self.first,
            last,
            bytes: self.bytes,
            chunks_root: merkle::root(&self.chunks),
            blocks_root: merkle::root(&self.blocks),
            last_block,
        };
        SealedSegment { descriptor, chunks: self.chunks, blocks: self.blocks, ends: self.ends }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    const RULES: HistoryRules =
        HistoryRules { segment_bytes: 100, segment_blocks: 10, chunk_bytes: 8 };

    fn descriptor(bytes: u64) -> SegmentDescriptor {
        SegmentDescriptor {
            index: 3,
            first: Height(5),
            last: Height(9),
            bytes,
            chunks_root: merkle::root(&[]),
            blocks_root: Hash::ZERO,
            last_block: BlockHash(Hash::ZERO),
        }
    }

    #[test]
    fn chunks_tile_the_segment() {
        for (bytes, count, last) in
            [(0, 0, 0), (1, 1, 1), (7, 1, 7), (8, 1, 8), (9, 2, 1), (24, 3, 8), (25, 4, 1)]
        {
            let segment = descriptor(bytes);
            assert_eq!(segment.chunk_count(&RULES), count, "{bytes}");
            let mut end = 0;
            for i in 0..count {
                let range = segment.chunk_range(i, &RULES).unwrap();
                assert_eq!(range.start, end, "{i} of {bytes}");
                assert_eq!(
                    range.end - range.start,
                    if i + 1 == count { last } else { 8 },
                    "{i} of {bytes}"
                );
                end = range.end;
            }
            assert_eq!(end, bytes);
            assert_eq!(segment.chunk_range(count, &RULES), None);
        }
    }

    #[test]
    fn an_absurd_claim_gives_values_and_no_panic() {
        let mut claim = descriptor(u64::MAX);
        let count = claim.chunk_count(&RULES);
        assert_eq!(count, 1 << 61);
        assert_eq!(claim.chunk_range(count - 1, &RULES), Some(u64::MAX - 7..u64::MAX));
        for index in [count, u64::MAX] {
            assert_eq!(claim.chunk_range(index, &RULES), None);
        }
        assert_eq!(
            claim.verify_chunks(&RULES, &[]),
            Err(HistoryError::ChunkCount { index: 3, expected: count, got: 0 })
        );
        for (first, last, blocks) in
            [(5, 4, None), (0, u64::MAX, None), (1, u64::MAX, Some(u64::MAX)), (5, 5, Some(1))]
        {
            (claim.first, claim.last) = (Height(first), Height(last));
            assert_eq!(claim.block_count(), blocks, "{first} to {last}");
        }
    }

    #[test]
    fn only_the_whole_list_of_chunk_hashes_in_order_is_accepted() {
        let chunks: Vec<Hash> = (0..3).map(|i| chunk_hash(&[i])).collect();
        let segment = SegmentDescriptor { chunks_root: merkle::root(&chunks), ..descriptor(20) };
        assert_eq!(segment.verify_chunks(&RULES, &chunks), Ok(()));
        for wrong in [&chunks[..2], &[chunks.clone(), vec![chunks[2]]].concat()] {
            assert!(matches!(
                segment.verify_chunks(&RULES, wrong),
                Err(HistoryError::ChunkCount { .. })
            ));
        }
        let swapped = [chunks[1], chunks[0], chunks[2]];
        assert!(matches!(
            segment.verify_chunks(&RULES, &swapped),
            Err(HistoryError::ChunksRoot { .. })
        ));
        // The hashes match the root but not the length: a segment of 25 bytes has four chunks.
        let longer = SegmentDescriptor { bytes: 25, ..segment };
        assert!(matches!(
            longer.verify_chunks(&RULES, &chunks),
            Err(HistoryError::ChunkCount { expected: 4, .. })
        ));
    }
}
