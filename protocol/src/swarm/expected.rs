//! What proves a chunk. Each kind of collection has a proof of its own.

use ledger::hash::Hash;
use ledger::history::chunk_hash;

/// What proves a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The hash of its bytes.
    Hash(Hash),
}

impl Expected {
    /// Whether these bytes are the chunk.
    #[must_use]
    pub fn verify(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Hash(hash) => chunk_hash(bytes) == *hash,
        }
    }
}
