//! Places of transactions and blocks by their ids: short entries that hold only the beginning of an
//! id. So an entry says where an id *may* be, and the block there decides.
//!
//! Entries of the open segment are in memory. Those of a sealed segment are a sorted *run* in its
//! index file.

use crate::block::Block;
use crate::chain::ValidBlock;
use crate::hash::{BlockHash, ChainId, TxId};
use crate::units::Height;

/// The place of a transaction or a block, with `start`, the first eight bytes of its id. Several
/// ids may begin with the same bytes, so a look-up compares the whole id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) start: u64,
    pub(super) height: Height,
    /// The transaction's index in the block, or [`BLOCK`].
    pub(super) index: u32,
}

/// The index in an entry for the block itself. A block has far fewer transactions.
pub(super) const BLOCK: u32 = u32::MAX;

impl Entry {
    fn transaction(id: &TxId, height: Height, index: u32) -> Self {
        Self { start: id_start(id), height, index }
    }

    fn block(hash: &BlockHash, height: Height) -> Self {
        Self { start: hash_start(hash), height, index: BLOCK }
    }
}

pub(super) fn id_start(id: &TxId) -> u64 {
    u64::from_be_bytes(id.as_bytes().first_chunk().copied().unwrap_or_default())
}

pub(super) fn hash_start(hash: &BlockHash) -> u64 {
    u64::from_be_bytes(hash.as_bytes().first_chunk().copied().unwrap_or_default())
}

/// The entries of a block that was validated just now.
pub(super) fn entries(block: &ValidBlock) -> impl Iterator<Item = Entry> {
    let height = block.height();
    let transactions = (0u32..).zip(&block.block().transactions);
    transactions
        .map(move |(index, one)| Entry::transaction(&one.id(), height, index))
        .chain([Entry::block(&block.hash(), height)])
}

/// The entries of a block that was stored.
pub(super) fn stored_entries(chain: ChainId, block: &Block) -> impl Iterator<Item = Entry> {
    let height = block.header.height;
    let transactions = (0u32..).zip(&block.transactions);
    transactions
        .map(move |(index, one)| Entry::transaction(&one.body.id(chain), height, index))
        .chain([Entry::block(&block.header.hash(), height)])
}
