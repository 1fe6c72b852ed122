//! What can go wrong with the store. The disk or the operator is at fault, never a peer, so the
//! node stops.

use std::io;
use std::path::{Path, PathBuf};

use crate::genesis::MADE_BY_0_1;
use crate::hash::ChainId;
use crate::history::SegmentError;
use crate::units::Height;

/// Why a call of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The path for a new store is taken.
    #[error("{} exists already and is not empty", path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// A snapshot was given to a store that has blocks.
    #[error(
        "the store has blocks up to height {height}: only an empty one can begin with a snapshot"
    )]
    NotEmpty {
        /// Its tip.
        height: Height,
    },
    /// There is no store.
    #[error("no store at {}", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// Another version of this program wrote the store.
    #[error(
        "the store has schema version {got}, expected {expected}: {}",
        what_to_do(*got, *expected)
    )]
    Schema {
        /// Version found.
        got: u32,
        /// Version that this code reads and writes.
        expected: u32,
    },
    /// The store belongs to another chain.
    #[error(
        "the store is of chain {got}, the genesis of chain {expected}: one of them belongs to \
         another home"
    )]
    Chain {
        /// Chain found.
        got: ChainId,
        /// Chain of the genesis given.
        expected: ChainId,
    },
    /// The system refused to read or write: disk full, no permission, in use by another process.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Stored bytes are not what was written, or are missing.
    #[error("the store is corrupt: {what}: {reason}")]
    Corrupt {
        /// The value or file.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes of a segment match the chunk hashes of its head, but are not the blocks that its
    /// descriptor commits to. A quorum has signed a false header, or this code is wrong.
    #[error("segment {index} is certified, but breaks the rules: {error}")]
    Segment {
        /// The segment.
        index: u64,
        /// What is wrong with it.
        error: SegmentError,
    },
    /// A write failed earlier. Everything that was acknowledged before is safe. What the disk holds
    /// of the failed write is known only when the store is opened again.
    #[error("the store takes no more writes since one failed: {reason}")]
    Failed {
        /// The first failure.
        reason: String,
    },
}

const fn what_to_do(got: u32, expected: u32) -> &'static str {
    match got {
        0..3 => MADE_BY_0_1,
        got if got < expected => {
            "made by an earlier version: `db export` of that version and `db import` of this one \
             carry the chain over"
        }
        _ => "upgrade this program",
    }
}

impl StoreError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// Whether stored bytes are lost: they are not what was written, or cannot be read from the
    /// medium.
    pub(super) fn is_damage(&self) -> bool {
        /// The system's number of an error of the medium.
        const EIO: i32 = 5;
        match self {
            Self::Corrupt { .. } => true,
            Self::Io { source, .. } => source.raw_os_error() == Some(EIO),
            _ => false,
        }
    }

    pub(super) fn corrupt(what: impl ToString, reason: impl ToString) -> Self {
        Self::Corrupt { what: what.to_string(), reason: reason.to_string() }
    }
}
