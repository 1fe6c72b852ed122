//! Blocks and their headers. A header commits to the transactions, the state, all sealed history
//! and the parent's certificate.

use bincode::{Decode, Encode};

use crate::certificate::{CERTIFICATE_BYTES_MAX, Certificate};
use crate::codec;
use crate::hash::{BlockHash, ChainId, Domain, Hash, HistoryRoot, StateRoot, TxHash};
use crate::merkle;
use crate::signature::PublicKey;
use crate::transaction::Transaction;
use crate::units::{Height, Timestamp};

/// The header version that this code writes and accepts, from height 1.
pub const HEADER_VERSION: u16 = 2;
/// Exact size of a header of version 2, in bytes.
pub const HEADER_BYTES: usize = 2 + 8 + 8 + 8 * 32;
/// Most bytes of a block beyond its transactions: header, certificate, lengths.
pub const BLOCK_OVERHEAD_MAX: usize = HEADER_BYTES + CERTIFICATE_BYTES_MAX + 64;

/// The header of a block. Validators sign its hash.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Header {
    /// Version of the rules. It is the first field, so that a node reads it before any field that
    /// it may not know.
    pub version: u16,
    /// Height, from 1.
    pub height: Height,
    /// The proposer's clock, but at least `block_interval_ms` after the parent's time.
    pub time: Timestamp,
    /// Hash of the parent; the chain id for height 1.
    pub parent: BlockHash,
    /// Consensus key of the validator that first proposed the block.
    pub proposer: PublicKey,
    /// Merkle root over the full hashes of the transactions.
    pub transactions_root: Hash,
    /// Root over all accounts after this block.
    pub state_root: StateRoot,
    /// Root over all segments sealed before this block.
    pub history_root: HistoryRoot,
    /// Hash of the validator set of this height.
    pub validators: Hash,
    /// Hash of the validator set of the next height.
    pub next_validators: Hash,
    /// Hash of the parent's certificate, which is part of this block.
    pub parent_certificate: Hash,
}

impl Header {
    /// The block's hash, which is its identity.
    #[must_use]
    pub fn hash(&self) -> BlockHash {
        BlockHash(Hash::of(Domain::Block, &[&codec::encode(self)]))
    }
}

/// A header with the content that it commits to. `T` is a transaction as decoded ([`Transaction`])
/// or verified and shared.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Block<T = Transaction> {
    /// The header.
    pub header: Header,
    /// Proves that the parent is final. Nodes may hold different certificates of one block; this
    /// one is agreed on, so history has the same bytes on every node.
    pub parent_certificate: Certificate,
    /// In the order in which they are applied.
    pub transactions: Vec<T>,
}

/// Root over the full hashes of a block's transactions.
#[must_use]
pub fn transactions_root(hashes: &[TxHash]) -> Hash {
    merkle::root(&hashes.iter().map(|hash| hash.0).collect::<Vec<_>>())
}

/// The parent hash of the first block: the chain id.
#[must_use]
pub const fn genesis_parent(chain: ChainId) -> BlockHash {
    BlockHash(chain.0)
}
