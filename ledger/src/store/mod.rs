//! The store: the chain data on the disk, in a sled database. No code outside this module knows
//! sled.
//!
//! Blocks and their certificates are durable before any reader sees the blocks. The genesis and
//! evidence are stored too. All other data can be derived from genesis and blocks: accounts,
//! heights by hash, sealed segments, an index of transactions. Accounts are in memory, and a
//! checkpoint writes them every 64 blocks. When the store is opened, it applies the blocks after
//! the newest checkpoint.
//!
//! A [`Store`] is a handle, which each reader may clone. Only one task writes. Every value carries
//! a checksum. A damaged value is never served: the read fails with an error that names the value.

mod checkpoint;
mod commit;
mod disk;
mod error;
mod evidence;
mod index;
mod recover;
mod schema;
mod segments;
mod staging;
mod unfinished;
mod verify;
mod witness;

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

pub use crate::chain::Committed;
pub use error::StoreError;
pub use evidence::{EVIDENCE_ABOUT_ONE_MAX, EVIDENCE_BYTES_MAX, EVIDENCE_MAX, Evidence};
pub use recover::Opened;
pub use staging::{Found, SegmentReader, Staging};
pub use verify::{Problem, VerifyReport};

use crate::block::{Block, HEADER_BYTES, Header};
use crate::certificate::{CERTIFICATE_BYTES_MAX, Certificate};
use crate::codec;
use crate::hash::{BlockHash, ChainId, TxId};
use crate::units::Height;
use commit::Writer;
use disk::Disk;
use index::Index;
use schema::{Key, TipValue};
use segments::Layouts;

/// An open store. Clones share it. After the last clone is dropped, another process may open the
/// store.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    chain: ChainId,
    disk: Disk,
    view: RwLock<View>,
    writer: Mutex<Writer>,
    layouts: Layouts,
}

/// The part of the store that readers see. It never holds more than is durable.
struct View {
    tip: TipValue,
    certificate: Certificate,
    index: Index,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("tip", &self.read_view().tip).finish()
    }
}

/// Readers return `StoreError::Corrupt` if stored bytes are not what was written, or
/// `StoreError::Io`.
impl Store {
    /// Height and hash of the last durable block; 0 and the chain id before the first one.
    #[must_use]
    pub fn tip(&self) -> (Height, BlockHash) {
        let tip = self.read_view().tip;
        (tip.height, tip.hash)
    }

    /// The canonical bytes of a block; `None` above the tip and at height 0.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn block_bytes(&self, height: Height) -> Result<Option<Vec<u8>>, StoreError> {
        if !self.has(height) {
            return Ok(None);
        }
        block_bytes(&self.shared.disk, height).map(Some)
    }

    /// Length of a block's canonical bytes; `None` above the tip and at height 0. Reads only the
    /// first piece of the block's record.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn block_length(&self, height: Height) -> Result<Option<usize>, StoreError> {
        if !self.has(height) {
            return Ok(None);
        }
        let prefix = self.shared.disk.record_prefix(|piece| Key::Body(height, piece), 0)?;
        prefix.map(|(length, _)| Some(length)).ok_or_else(|| missing_block(height))
    }

    /// A block; `None` above the tip and at height 0.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn block(&self, height: Height) -> Result<Option<Block>, StoreError> {
        let bytes = self.block_bytes(height)?;
        bytes.map(|bytes| schema::decode(format_args!("block {height}"), &bytes)).transpose()
    }

    /// The header of a block; `None` above the tip and at height 0.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn header(&self, height: Height) -> Result<Option<Header>, StoreError> {
        Ok(self.block_start(height)?.map(|(header, _)| header))
    }

    /// The height of the block with this hash; `None` if it is not stored.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn height_of(&self, hash: &BlockHash) -> Result<Option<Height>, StoreError> {
        let height = self.shared.disk.value(Key::HeightOf(*hash))?;
        Ok(height.filter(|height| self.has(*height)))
    }

    /// The certificate of a block: at the tip the stored one, below the tip the one in the block's
    /// child. At height 0 it is `Certificate::genesis`. `None` above the tip.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn certificate(&self, height: Height) -> Result<Option<Certificate>, StoreError> {
        {
            let view = self.read_view();
            if height >= view.tip.height {
                return Ok((height == view.tip.height).then(|| view.certificate.clone()));
            }
        }
        Ok(self.block_start(height.next())?.map(|(_, certificate)| certificate))
    }

    /// The height of the block that holds a transaction, and its index in this block, from 0.
    /// `None` if no block holds it.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn find_transaction(&self, id: &TxId) -> Result<Option<(Height, u32)>, StoreError> {
        let candidates = self.read_view().index.find(&self.shared.disk, id)?;
        for candidate in candidates {
            let block = self.block(candidate.height)?;
            let transactions =
                block.as_ref().map(|block| block.transactions.as_slice()).unwrap_or_default();
            let place =
                usize::try_from(candidate.index).ok().and_then(|index| transactions.get(index));
            if place.is_some_and(|transaction| transaction.body.id(self.shared.chain) == *id) {
                return Ok(Some((candidate.height, candidate.index)));
            }
        }
        Ok(None)
    }

    /// The header of a block and the certificate of its parent, without the transactions.
    fn block_start(&self, height: Height) -> Result<Option<(Header, Certificate)>, StoreError> {
        if !self.has(height) {
            return Ok(None);
        }
        let bytes = HEADER_BYTES.saturating_add(CERTIFICATE_BYTES_MAX);
        let prefix = self.shared.disk.record_prefix(|piece| Key::Body(height, piece), bytes)?;
        let (_, start) = prefix.ok_or_else(|| missing_block(height))?;
        let (start, _) = codec::decode_prefix(&start)
            .map_err(|error| StoreError::corrupt(format_args!("block {height}"), error))?;
        Ok(Some(start))
    }

    fn has(&self, height: Height) -> bool {
        height > Height(0) && height <= self.read_view().tip.height
    }

    fn read_view(&self) -> RwLockReadGuard<'_, View> {
        self.shared.view.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn block_bytes(disk: &Disk, height: Height) -> Result<Vec<u8>, StoreError> {
    disk.record(|piece| Key::Body(height, piece))?.ok_or_else(|| missing_block(height))
}

fn missing_block(height: Height) -> StoreError {
    StoreError::corrupt(Key::Body(height, 0), "missing")
}

#[cfg(test)]
mod tests;
