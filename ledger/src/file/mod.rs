//! Files: any bytes, named by their content and cut into chunks that are verified one by one.
//!
//! A file is cut into chunks of 128 KiB, and 128 chunks are a segment. Only the last chunk and the
//! last segment may be shorter. The Merkle root over the hashes of a segment's chunks gives the
//! segment's leaf, and the Merkle root over all leaves and the file's length give its id. So a
//! [`FileHead`], which is the chunk hashes of one segment and the path of its leaf, proves each
//! chunk of the segment to anybody who knows the id. A fetch can start after one head, however long
//! the file is.
//!
//! The lengths are constants of the format, so the same bytes have the same id on every chain. The
//! format is in `docs/protocol/files.md`.

mod hasher;

use std::ops::Range;

pub use crate::hash::FileId;
pub use hasher::{FileHasher, HashedFile};

use crate::codec::{Decode, Encode};
use crate::hash::{Domain, Hash};
use crate::merkle::{self, MerkleProof, ProofError};

/// Bytes of a chunk; only the last one of a file may be shorter.
pub const CHUNK_BYTES: u64 = 128 << 10;
/// Chunks of a segment; only the last segment of a file may have fewer.
pub const SEGMENT_CHUNKS: u64 = 128;
/// Bytes of a segment; only the last one of a file may be shorter.
pub const SEGMENT_BYTES: u64 = CHUNK_BYTES * SEGMENT_CHUNKS;
/// Most bytes of a file: 16 TiB, the longest file of ext4. It has 2^20 segments, so a path has at
/// most 20 hashes, the tree over all segments takes 64 MiB of memory, and a segment's index fits
/// into the 32 bits that it has in messages.
pub const FILE_BYTES_MAX: u64 = 1 << 44;

/// Version of the format, which is part of the id.
const VERSION: u8 = 1;

/// Hash of the bytes of one chunk, by the same rule as that of a chunk of history.
pub use crate::history::chunk_hash;

/// The leaf of a segment with these chunk hashes.
#[must_use]
pub fn segment_leaf(chunks: &[Hash]) -> Hash {
    Hash::of(Domain::FileSegment, &[merkle::root(chunks).as_bytes()])
}

/// Data that a file's id does not commit to. Its source is at fault: a peer, or our disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The file is longer than any file may be.
    #[error("a file of {length} bytes, expected at most {FILE_BYTES_MAX}")]
    TooLong {
        /// Length claimed or given.
        length: u64,
    },
    /// The descriptor is that of another file.
    #[error("the length and root of file {got}, expected {expected}")]
    Id {
        /// File asked for.
        expected: FileId,
        /// Id that the descriptor gives.
        got: FileId,
    },
    /// The path is for another number of segments.
    #[error("a path among {got} segments, expected {expected}")]
    SegmentCount {
        /// Segments of the file.
        expected: u64,
        /// Segments as the path says.
        got: u64,
    },
    /// There is no such segment.
    #[error("segment {index} does not exist among {count} segments")]
    Segment {
        /// Segment claimed, from 0.
        index: u64,
        /// Segments of the file.
        count: u64,
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
    /// The chunk hashes are not those of the file.
    #[error(transparent)]
    Path(#[from] ProofError),
}

/// Length and root of a file: what its id is made of. Its encoding has 40 bytes.
///
/// A descriptor from a peer is a mere claim until its [`id`](Self::id) is the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FileDescriptor {
    /// Length in bytes.
    pub length: u64,
    /// Merkle root over the leaves of all segments.
    pub root: Hash,
}

impl FileDescriptor {
    /// The empty file, which has no chunks.
    #[must_use]
    pub fn empty() -> Self {
        Self { length: 0, root: merkle::root(&[]) }
    }

    /// The id: a hash of version, length and root.
    #[must_use]
    pub fn id(&self) -> FileId {
        let parts: [&[u8]; 3] = [&[VERSION], &self.length.to_le_bytes(), self.root.as_bytes()];
        FileId(Hash::of(Domain::File, &parts))
    }

    /// Number of chunks.
    #[must_use]
    pub const fn chunks(&self) -> u64 {
        self.length.div_ceil(CHUNK_BYTES)
    }

    /// Number of segments.
    #[must_use]
    pub const fn segments(&self) -> u64 {
        self.length.div_ceil(SEGMENT_BYTES)
    }

    /// The place of a chunk in the file, in bytes; `None` if there is no such chunk. Chunks are
    /// counted from the file's beginning.
    #[must_use]
    pub fn chunk_range(&self, chunk: u64) -> Option<Range<u64>> {
        let start = chunk.checked_mul(CHUNK_BYTES).filter(|start| *start < self.length)?;
        Some(start..start.saturating_add(CHUNK_BYTES).min(self.length))
    }

    /// Bytes of a chunk, counted from the file's beginning; 0 if there is no such chunk.
    #[must_use]
    pub fn chunk_bytes(&self, chunk: u64) -> u64 {
        self.chunk_range(chunk).map_or(0, |range| range.end.saturating_sub(range.start))
    }

    /// The chunks of a segment, counted from the file's beginning; `None` if there is no such
    /// segment.
    #[must_use]
    pub fn segment_chunks(&self, segment: u64) -> Option<Range<u64>> {
        let chunks = self.chunks();
        let start = segment.checked_mul(SEGMENT_CHUNKS).filter(|start| *start < chunks)?;
        Some(start..start.saturating_add(SEGMENT_CHUNKS).min(chunks))
    }

    /// Bytes of a segment; 0 if there is no such segment.
    #[must_use]
    pub fn segment_bytes(&self, segment: u64) -> u64 {
        let start = segment.saturating_mul(SEGMENT_BYTES);
        self.length.saturating_sub(start).min(SEGMENT_BYTES)
    }

    /// The segments that hold the bytes from `first` to `last`, both included; `None` if the file
    /// ends before `first`, or `last` is below `first`.
    #[must_use]
    pub fn segments_of(&self, first: u64, last: u64) -> Option<Range<u64>> {
        let last = last.min(self.length.checked_sub(1)?);
        let segment = |byte: u64| byte.checked_div(SEGMENT_BYTES).unwrap_or(0);
        (first <= last).then(|| segment(first)..segment(last).saturating_add(1))
    }
}

/// The head of a file's segment: it proves each chunk of the segment under the file's id.
///
/// A head from a peer proves nothing until [`verify`](Self::verify) has accepted it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FileHead {
    /// Length and root of the file.
    pub descriptor: FileDescriptor,
    /// Hash of each chunk of the segment.
    pub chunks: Vec<Hash>,
    /// The place of the segment's leaf under the root.
    pub path: MerkleProof,
}

impl FileHead {
    /// Most bytes of the encoding of a valid head.
    pub const BYTES_MAX: usize = 40 + 8 + 128 * 32 + 8 + 8 + 8 + 20 * 32;

    /// Index of the segment, from 0, as the head claims.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.path.index
    }

    /// Verifies that these are the chunk hashes of segment [`index`](Self::index) of the file with
    /// this id. Costs two hash operations for each chunk and one for each level of the path. Lists
    /// of the wrong length are refused before anything but the descriptor is hashed.
    ///
    /// # Errors
    /// `FileError`.
    pub fn verify(&self, id: &FileId) -> Result<(), FileError> {
        let Self { descriptor, chunks, path } = self;
        let (length, index) = (descriptor.length, path.index);
        if length > FILE_BYTES_MAX {
            return Err(FileError::TooLong { length });
        }
        let got = descriptor.id();
        if got != *id {
            return Err(FileError::Id { expected: *id, got });
        }
        let (expected, got) = (descriptor.segments(), path.count);
        if got != expected {
            return Err(FileError::SegmentCount { expected, got });
        }
        let Some(range) = descriptor.segment_chunks(index) else {
            return Err(FileError::Segment { index, count: expected });
        };
        let (expected, got) = (range.end.saturating_sub(range.start), chunks.len() as u64);
        if got != expected {
            return Err(FileError::ChunkCount { index, expected, got });
        }
        path.verify(descriptor.root, segment_leaf(chunks))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
