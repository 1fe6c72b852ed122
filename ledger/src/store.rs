//! The store: all that outlives the process, on sled, which nothing outside of here knows.
//!
//! Blocks are the truth; they and their certificates are durable before anybody hears of them. Accounts live in memory and are
//! checkpointed every so many blocks, so opening the store applies the blocks since the newest checkpoint. What else is stored
//! follows from the blocks: heights by hash, sealed segments, an index of transactions.
//!
//! A [`Store`] is a handle: readers clone it, one task writes. Every value carries a checksum; one that fails is an error that
//! names it and is never served.

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

/// An open store. Clones share it; when the last one is dropped, another process may open it.
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

/// What readers see: never more than what is durable.
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

/// Of all readers: `Err` is `StoreError::Corrupt` for what is stored and is not what was written, or `StoreError::Io`.
impl Store {
    /// The last block that is durable: height 0 and the chain's id before the first.
    #[must_use]
    pub fn tip(&self) -> (Height, BlockHash) {
        let tip = self.read_view().tip;
        (tip.height, tip.hash)
    }

    /// The canonical bytes of a block; none above the tip and at height 0.
    ///
    /// # Errors
    /// See above.
    pub fn block_bytes(&self, height: Height) -> Result<Option<Vec<u8>>, StoreError> {
        if !self.has(height) {
            return Ok(None);
        }
        block_bytes(&self.shared.disk, height).map(Some)
    }

    /// How many bytes `block_bytes` has, without reading them.
    ///
    /// # Errors
    /// See above.
    pub fn block_length(&self, height: Height) -> Result<Option<usize>, StoreError> {
        if !self.has(height) {
            return Ok(None);
        }
        let prefix = self.shared.disk.record_prefix(|piece| Key::Body(height, piece), 0)?;
        prefix.map(|(length, _)| Some(length)).ok_or_else(|| missing_block(height))
    }

    /// A block; none above the tip and at height 0.
    ///
    /// # Errors
    /// See above.
    pub fn block(&self, height: Height) -> Result<Option<Block>, StoreError> {
        let bytes = self.block_bytes(height)?;
        bytes.map(|bytes| schema::decode(format_args!("block {height}"), &bytes)).transpose()
    }

    /// The header of a block; none above the tip and at height 0.
    ///
    /// # Errors
    /// See above.
    pub fn header(&self, height: Height) -> Result<Option<Header>, StoreError> {
        Ok(self.block_start(height)?.map(|(header, _)| header))
    }

    /// The height of a block.
    ///
    /// # Errors
    /// See above.
    pub fn height_of(&self, hash: &BlockHash) -> Result<Option<Height>, StoreError> {
        let height = self.shared.disk.value(Key::HeightOf(*hash))?;
        Ok(height.filter(|height| self.has(*height)))
    }

    /// The certificate of a block: the tip's own, else the one that its child has; the empty one at height 0; none above the tip.
    ///
    /// # Errors
    /// See above.
    pub fn certificate(&self, height: Height) -> Result<Option<Certificate>, StoreError> {
        {
            let view = self.read_view();
            if height >= view.tip.height {
                return Ok((height == view.tip.height).then(|| view.certificate.clone()));
            }
        }
        Ok(self.block_start(height.next())?.map(|(_, certificate)| certificate))
    }

    /// Where a transaction is: height, and place in the block from 0.
    ///
    /// # Errors
    /// See above.
    pub fn find_transaction(&self, id: &TxId) -> Result<Option<(Height, u32)>, StoreError> {
        let candidates = self.read_view().index.find(&self.shared.disk, id)?;
        for candidate in candidates {
            let block = self.block(candidate.height)?;
            let transactions = block.as_ref().map(|block| block.transactions.as_slice()).unwrap_or_default();
            let place = usize::try_from(candidate.index).ok().and_then(|index| transactions.get(index));
            if place.is_some_and(|transaction| transaction.body.id(self.shared.chain) == *id) {
                return Ok(Some((candidate.height, candidate.index)));
            }
        }
        Ok(None)
    }

    /// Header and certificate of the parent, without the transactions.
    fn block_start(&self, height: Height) -> Result<Option<(Header, Certificate)>, StoreError> {
        if !self.has(height) {
            return Ok(None);
        }
        let bytes = HEADER_BYTES.saturating_add(CERTIFICATE_BYTES_MAX);
        let prefix = self.shared.disk.record_prefix(|piece| Key::Body(height, piece), bytes)?;
        let (_, start) = prefix.ok_or_else(|| missing_block(height))?;
        let (start, _) =
            codec::decode_prefix(&start).map_err(|error| StoreError::corrupt(format_args!("block {height}"), error))?;
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
