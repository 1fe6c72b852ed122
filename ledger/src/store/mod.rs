//! The store: the chain data on the disk. A sled database has what changes, and plain files have
//! history. No code outside this module knows sled.
//!
//! Blocks and their certificates are durable before any reader sees the blocks. The genesis and
//! evidence are stored too. All other data can be derived from genesis and blocks: accounts, sealed
//! segments, places of transactions and blocks by their ids. Accounts are in memory, and a
//! checkpoint writes them every 64 blocks. When the store is opened, it applies the blocks after
//! the newest checkpoint.
//!
//! History lies in a folder for each *era* of 16 segments, below `history`. The bytes of a segment
//! are a file, to which each commit appends whole pages. The rest of the last page is in the
//! database until the page is full. When a segment is sealed, it gets a second file with its hashes
//! and the run of its ids. A whole era gets a filter of its ids.
//!
//! Snapshots lie in a folder of their own, one file each: see [`Snapshots`]. They can be made
//! again, so losing one loses nothing.
//!
//! A [`Store`] is a handle, which each reader may clone. Only one task writes. Every value and page
//! carries a checksum. A damaged one is never served: the read fails with an error that names it.

mod checkpoint;
mod commit;
mod disk;
mod error;
mod evidence;
mod filter;
mod index;
mod pages;
mod positions;
mod recover;
mod schema;
mod segment_index;
mod segments;
mod snapshots;
mod staging;
mod unfinished;
mod verify;
mod witness;

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

pub use crate::chain::Committed;
pub use error::StoreError;
pub use evidence::{EVIDENCE_ABOUT_ONE_MAX, EVIDENCE_BYTES_MAX, EVIDENCE_MAX, Evidence};
pub use recover::Opened;
pub use snapshots::{SnapshotInfo, SnapshotWriter, Snapshots};
pub use staging::{Found, SegmentReader, Staging};
pub use verify::{Problem, VerifyReport};

use crate::block::{Block, HEADER_BYTES, Header};
use crate::certificate::{CERTIFICATE_BYTES_MAX, Certificate};
use crate::codec;
use crate::hash::{BlockHash, ChainId, TxId};
use crate::units::Height;
use commit::Writer;
use disk::Disk;
use index::{BLOCK, Entry};
use schema::TipValue;
use segments::{Files, Segments};

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
    files: Files,
    writer: Mutex<Writer>,
}

/// The part of the store that readers see. It never holds more than is durable.
struct View {
    tip: TipValue,
    certificate: Certificate,
    segments: Segments,
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
        Ok(self.block_part(height, usize::MAX)?.map(|(_, bytes)| bytes))
    }

    /// Length of a block's canonical bytes; `None` above the tip and at height 0. Reads no block.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn block_length(&self, height: Height) -> Result<Option<usize>, StoreError> {
        Ok(self.block_part(height, 0)?.map(|(length, _)| length))
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
        self.find(index::hash_start(hash), |place| {
            let header = if place.index == BLOCK { self.header(place.height)? } else { None };
            Ok(header.is_some_and(|header| header.hash() == *hash).then_some(place.height))
        })
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
        self.find(index::id_start(id), |place| {
            if place.index == BLOCK {
                return Ok(None);
            }
            let block = self.block(place.height)?;
            let transactions =
                block.as_ref().map(|block| block.transactions.as_slice()).unwrap_or_default();
            let one = usize::try_from(place.index).ok().and_then(|index| transactions.get(index));
            let is_same = one.is_some_and(|one| one.body.id(self.shared.chain) == *id);
            Ok(is_same.then_some((place.height, place.index)))
        })
    }

    /// Visits the places of ids that begin with these bytes, until `visit` finds the right one.
    fn find<T>(
        &self,
        start: u64,
        mut visit: impl FnMut(Entry) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let (open, sealed) = {
            let view = self.read_view();
            (view.segments.open.find(start), view.segments.sealed.len() as u64)
        };
        for entry in open {
            if let Some(found) = visit(entry)? {
                return Ok(Some(found));
            }
        }
        self.shared.files.find(start, sealed, visit)
    }

    /// The header of a block and the certificate of its parent, without the transactions.
    fn block_start(&self, height: Height) -> Result<Option<(Header, Certificate)>, StoreError> {
        let bytes = HEADER_BYTES.saturating_add(CERTIFICATE_BYTES_MAX);
        let Some((_, start)) = self.block_part(height, bytes)? else { return Ok(None) };
        let (start, _) = codec::decode_prefix(&start)
            .map_err(|error| StoreError::corrupt(format_args!("block {height}"), error))?;
        Ok(Some(start))
    }

    /// Length of a block, and its first bytes.
    fn block_part(
        &self,
        height: Height,
        bytes: usize,
    ) -> Result<Option<(usize, Vec<u8>)>, StoreError> {
        let place = self.read_view().segments.place(height);
        place.map(|place| self.shared.files.block_start(&place, bytes)).transpose()
    }

    fn read_view(&self) -> RwLockReadGuard<'_, View> {
        self.shared.view.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
