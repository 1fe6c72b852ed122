//! Chunks of a snapshot: what peers request, verify and pass on.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::codec::{self, CodecError};
use crate::hash::Hash;
use crate::snapshot::Frontier;
use crate::snapshot::frontier::Run;
use crate::state::{Entry, PageId, State, Subtree, SubtreeError};

/// Chunks in a segment of a snapshot; the last segment may have fewer.
pub const SEGMENT_CHUNKS: u64 = 128;

/// Bytes that are not a chunk of the snapshot. Their sender is always at fault, even if the
/// frontier has false counts: an honest node verifies a chunk before it passes it on, so it has
/// none to send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// There is no such chunk.
    #[error("chunk {index} does not exist among {count} chunks")]
    Index {
        /// Chunk asked for, from 0.
        index: u64,
        /// Chunks of the snapshot.
        count: u64,
    },
    /// Too few or too many bytes for the entries that the frontier counts.
    #[error("chunk {index} has {got} bytes, expected {expected}")]
    Length {
        /// The chunk.
        index: u64,
        /// Bytes expected.
        expected: u64,
        /// Bytes given.
        got: u64,
    },
    /// The bytes are no list of entries.
    #[error("chunk {index} is invalid: {error}")]
    Bytes {
        /// The chunk.
        index: u64,
        /// Why the bytes do not decode.
        error: CodecError,
    },
    /// Entries that are not in order, or not in the subtree where they should be.
    #[error("chunk {index} does not fit the frontier: {error}")]
    Entries {
        /// The chunk.
        index: u64,
        /// What is wrong with the entries.
        error: SubtreeError,
    },
    /// Entries that are not those of the state.
    #[error("chunk {index} has a subtree with hash {got}, expected {expected}")]
    OtherHash {
        /// The chunk.
        index: u64,
        /// Hash in the frontier.
        expected: Hash,
        /// Hash of the entries.
        got: Hash,
    },
}

/// A chunk whose subtrees have the hashes of a frontier. Only [`Frontier::verify_chunk`] makes one.
#[derive(Clone, Debug)]
pub struct VerifiedChunk {
    index: u64,
    subtrees: Vec<Subtree>,
}

impl VerifiedChunk {
    /// Index of the chunk in the snapshot, from 0.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// The pages of the state that lie in this chunk, in path order. The pages of all chunks are
    /// the pages of the state, each exactly once, so a store can write them chunk by chunk.
    pub fn pages(&self) -> impl Iterator<Item = (PageId, Vec<Entry>)> {
        self.subtrees.iter().flat_map(Subtree::pages)
    }
}

impl Frontier {
    /// Number of chunks. It is at least 1: the empty state has one chunk without entries.
    #[must_use]
    pub fn chunk_count(&self) -> u64 {
        self.runs.len() as u64
    }

    /// The place of a chunk in the bytes of all chunks, one after the other; `None` if there is no
    /// such chunk.
    #[must_use]
    pub fn chunk_range(&self, index: u64) -> Option<Range<u64>> {
        self.run(index).map(|run| run.bytes.clone())
    }

    /// Length of all chunks together, in bytes.
    #[must_use]
    pub fn chunks_bytes(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.bytes.end)
    }

    /// Number of segments.
    #[must_use]
    pub fn segment_count(&self) -> u64 {
        self.chunk_count().div_ceil(SEGMENT_CHUNKS)
    }

    /// The chunks of a segment; `None` if there is no such segment.
    #[must_use]
    pub fn segment_chunks(&self, segment: u64) -> Option<Range<u64>> {
        let count = self.chunk_count();
        let start = segment.checked_mul(SEGMENT_CHUNKS).filter(|start| *start < count)?;
        Some(start..start.saturating_add(SEGMENT_CHUNKS).min(count))
    }

    /// The bytes of each chunk, in order: the canonical list of its entries. Only one chunk is in
    /// memory at a time.
    ///
    /// # Panics
    /// If this is not the frontier of the state.
    pub fn chunks(&self, state: &State) -> impl Iterator<Item = Vec<u8>> {
        assert!(state.root() == self.root, "a state is cut along its own frontier");
        let entries_max = usize::try_from(self.entries_max).unwrap_or(usize::MAX);
        let mut subtrees = state.subtrees(entries_max);
        self.runs.iter().map(move |run| {
            let subtrees = subtrees.by_ref().take(run.subtrees.len());
            let entries: Vec<Entry> = subtrees
                .flat_map(|subtree| subtree.entries().copied().collect::<Vec<_>>())
                .collect();
            codec::encode(&entries)
        })
    }

    /// Verifies the bytes of a chunk: cuts its entries at the counts of the frontier, builds each
    /// subtree, and compares the subtree's hash.
    ///
    /// Costs some two hash operations for each entry. Bytes of another length are refused before
    /// anything is decoded.
    ///
    /// # Errors
    /// `ChunkError`.
    pub fn verify_chunk(&self, index: u64, bytes: &[u8]) -> Result<VerifiedChunk, ChunkError> {
        let count = self.chunk_count();
        let run = self.run(index).ok_or(ChunkError::Index { index, count })?;
        let got = bytes.len() as u64;
        let expected = run.bytes.end.saturating_sub(run.bytes.start);
        if got != expected {
            return Err(ChunkError::Length { index, expected, got });
        }
        let entries: Vec<Entry> = codec::decode(bytes, bytes.len())
            .map_err(|error| ChunkError::Bytes { index, error })?;
        let mut rest = &entries[..];
        let mut subtrees = Vec::with_capacity(run.subtrees.len());
        for (at, descriptor) in self.subtrees(run) {
            // The length of the chunk is the sum of the counts, so no entry is missing or left.
            let count = usize::try_from(descriptor.count).unwrap_or(usize::MAX);
            let (entries, after) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            rest = after;
            let subtree = Subtree::build(at, entries)
                .map_err(|error| ChunkError::Entries { index, error })?;
            let (expected, got) = (descriptor.hash, subtree.hash());
            if got != expected {
                return Err(ChunkError::OtherHash { index, expected, got });
            }
            subtrees.push(subtree);
        }
        Ok(VerifiedChunk { index, subtrees })
    }

    /// The state, from all of its chunks in any order; `None` unless there is each chunk exactly
    /// once, all of them verified with this frontier. The subtrees become nodes of the state
    /// unchanged.
    #[must_use]
    pub fn assemble(&self, chunks: impl IntoIterator<Item = VerifiedChunk>) -> Option<State> {
        let mut sorted = BTreeMap::new();
        for chunk in chunks {
            if sorted.insert(chunk.index, chunk.subtrees).is_some() {
                return None;
            }
        }
        if sorted.len() as u64 != self.chunk_count() {
            return None;
        }
        State::join(sorted.into_values().flatten()).filter(|state| state.root() == self.root)
    }

    fn run(&self, index: u64) -> Option<&Run> {
        self.runs.get(usize::try_from(index).ok()?)
    }
}
