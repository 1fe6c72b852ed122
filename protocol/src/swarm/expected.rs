//! What proves a chunk. Each kind of collection has a proof of its own.

use std::sync::Arc;

use ledger::file;
use ledger::hash::{FileId, Hash, SnapshotId};
use ledger::history::chunk_hash;
use ledger::snapshot::{Frontier, SEGMENT_CHUNKS};

use super::message::ChunkId;

/// What a collection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CollectionKind {
    /// The chain's history.
    History,
    /// History that is fetched only to be kept.
    Backfill,
    /// This snapshot.
    Snapshot(SnapshotId),
    /// This file.
    File(FileId),
}

/// What proves a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The hash of its bytes.
    Hash(Hash),
    /// The frontier of its snapshot.
    Snapshot(Arc<Frontier>),
}

impl Expected {
    /// Whether these bytes are the chunk. Costs some two hash operations for each entry of a
    /// snapshot.
    #[must_use]
    pub fn verify(&self, id: ChunkId, bytes: &[u8]) -> bool {
        match self {
            Self::Hash(hash) => chunk_hash(bytes) == *hash,
            Self::Snapshot(frontier) => frontier.verify_chunk(snapshot_chunk(id), bytes).is_ok(),
        }
    }
}

/// The index in its whole snapshot of a chunk of a snapshot. Segments have 128 chunks each.
#[must_use]
pub const fn snapshot_chunk(id: ChunkId) -> u64 {
    id.segment.index.0.saturating_mul(SEGMENT_CHUNKS).saturating_add(id.chunk as u64)
}

/// The index in its whole file of a chunk of a file. `None` if no segment has such a chunk.
#[must_use]
pub fn file_chunk(id: ChunkId) -> Option<u64> {
    let chunk = u64::from(id.chunk);
    let first = id.segment.index.0.checked_mul(file::SEGMENT_CHUNKS)?;
    first.checked_add(chunk).filter(|_| chunk < file::SEGMENT_CHUNKS)
}
