//! Snapshots: the state after certain blocks, cut into chunks that are verified one by one.
//!
//! A newcomer loads a snapshot instead of applying all blocks before it. What it believes comes in
//! three steps:
//!
//! 1. The manifest of history proves that the snapshot's block ends a segment of the chain, under
//!    the `history_root` of any later certified header. So its header gives the `state_root`.
//! 2. The [`Frontier`] is a list of subtrees whose hashes fold to this root. It says how many
//!    entries each subtree has, and so how the entries are cut into chunks. The root does not cover
//!    these counts: a frontier with false ones is noticed only when the chunks come. So each
//!    frontier has an id, [`Frontier::id`]. A peer that announced the id of a frontier with false
//!    counts is at fault.
//! 3. A chunk is a list of entries. Each subtree that is built from them must have the hash in the
//!    frontier. The subtrees of a [`VerifiedChunk`] become nodes of the account tree unchanged.
//!
//! The formats are in `docs/protocol/bytes.md`.

mod chunk;
mod frontier;
mod rules;
#[cfg(test)]
mod tests;

pub use chunk::{ChunkError, SEGMENT_CHUNKS, VerifiedChunk};
pub use frontier::{
    FRONTIER_BYTES_MAX, FRONTIER_PAGE_SUBTREES, FRONTIER_SUBTREES_MAX, Frontier, FrontierBeginning,
    FrontierError, SubtreeDescriptor,
};
pub use rules::{SNAPSHOT_WINDOW_MS, SnapshotRules};
