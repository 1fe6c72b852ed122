//! Blocks and the headers that commit to everything: transactions, state, all sealed history and the parent's certificate.

use bincode::{Decode, Encode};

use crate::certificate::{CERTIFICATE_BYTES_MAX, Certificate};
use crate::codec;
use crate::hash::{BlockHash, ChainId, Domain, Hash, HistoryRoot, StateRoot, TxHash};
use crate::merkle;
use crate::signature::PublicKey;
use crate::transaction::Transaction;
use crate::units::{Height, Timestamp};

/// The header version this code writes, from height 1.
pub const HEADER_VERSION: u16 = 2;
/// Exact bytes of a header of version 2.
pub const HEADER_BYTES: usize = 2 + 8 + 8 + 8 * 32;
/// Bytes that a block may have beyond its transactions: header, certificate, lengths.
pub const BLOCK_OVERHEAD_MAX: usize = HEADER_BYTES + CERTIFICATE_BYTES_MAX + 64;

/// What validators sign by its hash.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Header {
    /// Version of the rules; the first field, so that a node meets it before anything it may not know.
    pub version: u16,
    /// Height, from 1.
    pub height: Height,
    /// The proposer's clock, and at least `block_interval_ms` after the parent's time.
    pub time: Timestamp,
    /// The block before; for height 1 the chain id.
    pub parent: BlockHash,
    /// Consensus key of the validator that first proposed it.
    pub proposer: PublicKey,
    /// Merkle root over the full hashes of the transactions.
    pub transactions_root: Hash,
    /// All accounts after this block.
    pub state_root: StateRoot,
    /// All segments sealed before this block.
    pub history_root: HistoryRoot,
    /// Validators of this height.
    pub validators: Hash,
    /// Validators of the next height.
    pub next_validators: Hash,
    /// Hash of the parent's certificate, which is part of this block.
    pub parent_certificate: Hash,
}

impl Header {
    /// The block's name.
    #[must_use]
    pub fn hash(&self) -> BlockHash {
        BlockHash(Hash::of(Domain::Block, &[&codec::encode(self)]))
    }
}

/// A header with everything it commits to by value. `T` is a transaction as read ([`Transaction`]) or verified and shared.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Block<T = Transaction> {
    /// The header.
    pub header: Header,
    /// Why the parent is final. Agreed on here, so that history has the same bytes on every node.
    pub parent_certificate: Certificate,
    /// In the order they are applied.
    pub transactions: Vec<T>,
}

/// Root over the full hashes of a block's transactions.
#[must_use]
pub fn transactions_root(hashes: &[TxHash]) -> Hash {
    merkle::root(&hashes.iter().map(|hash| hash.0).collect::<Vec<_>>())
}

/// The parent of the first block.
#[must_use]
pub const fn genesis_parent(chain: ChainId) -> BlockHash {
    BlockHash(chain.0)
}
