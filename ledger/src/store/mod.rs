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
//! and the run of its ids. A whole era gets a filter of its ids. Not every sealed segment is kept,
//! so a read has three outcomes: [`Kept`].
//!
//! Snapshots lie in a folder of their own, one file each: see [`Snapshots`]. They can be made
//! again, so losing one loses nothing.
//!
//! A [`Store`] is a handle, which each reader may clone. Only one task writes. Every value and page
//! carries a checksum. A damaged one is never served: the read fails with an error that names it.

mod adopt;
mod archive;
mod audit;
mod checkpoint;
mod commit;
mod coverage;
mod disk;
mod error;
mod evidence;
mod filter;
mod index;
mod kept;
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

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

pub use crate::chain::Committed;
pub use audit::{Audit, AuditError, AuditStep, Fault};
pub use error::StoreError;
pub use evidence::{EVIDENCE_ABOUT_ONE_MAX, EVIDENCE_BYTES_MAX, EVIDENCE_MAX, Evidence};
pub use kept::Kept;
pub use pages::ERA_SEGMENTS;
pub use recover::Opened;
pub use snapshots::{SnapshotInfo, SnapshotReader, SnapshotWriter, Snapshots};
pub use staging::{Found, SegmentReader, Staging};
pub use verify::{Problem, VerifyReport};

use crate::block::{Block, HEADER_BYTES, Header};
use crate::certificate::{CERTIFICATE_BYTES_MAX, Certificate};
use crate::chain::Chain;
use crate::codec;
use crate::hash::{BlockHash, TxId};
use crate::units::Height;
use commit::Writer;
use disk::Disk;
use index::{BLOCK, Entry};
use kept::End;
use schema::{Joined, TipValue};
use segments::{Files, Segments};

/// An open store. Clones share it. After the last clone is dropped, another process may open the
/// store.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    chain: Arc<Chain>,
    disk: Disk,
    view: RwLock<View>,
    files: Files,
    writer: Mutex<Writer>,
    /// Held while a segment below the tip is put into its place, or an era is dropped.
    archive: Mutex<()>,
    /// Eras with a sealed segment whose files are damaged, as reads have shown.
    damaged: Mutex<BTreeSet<u64>>,
}

/// The part of the store that readers see. It never holds more than is durable.
struct View {
    tip: TipValue,
    certificate: Certificate,
    segments: Segments,
    joined: Option<Joined>,
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

    /// The canonical bytes of a block. Above the tip and at height 0 there never was one.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn block_bytes(&self, height: Height) -> Result<Kept<Vec<u8>>, StoreError> {
        let view = self.read_view();
        let is_withdrawn = match view.segments.place(height) {
            Kept::Here(place) => view.segments.is_withdrawn(place.segment()),
            _ => false,
        };
        drop(view);
        if is_withdrawn {
            return Ok(Kept::NotKept);
        }
        Ok(self.block_part(height, usize::MAX)?.map(|(_, bytes)| bytes))
    }

    /// Length of a block's canonical bytes. Reads no block.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn block_length(&self, height: Height) -> Result<Kept<usize>, StoreError> {
        Ok(self.block_part(height, 0)?.map(|(length, _)| length))
    }

    /// A block.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn block(&self, height: Height) -> Result<Kept<Block>, StoreError> {
        let bytes = self.block_bytes(height)?;
        bytes.try_map(|bytes| schema::decode(format_args!("block {height}"), &bytes))
    }

    /// The header of a block. Of the last block of a segment it may be here although the block is
    /// not.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn header(&self, height: Height) -> Result<Kept<Header>, StoreError> {
        match self.block_start(height)? {
            Kept::NotKept => Ok(self.end(height)?.map(|(header, _)| header)),
            found => Ok(found.map(|(header, _)| header)),
        }
    }

    /// The hash of a block. Of the last block of a sealed segment it is always here.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn block_hash(&self, height: Height) -> Result<Kept<BlockHash>, StoreError> {
        let end = self.read_view().segments.ending_at(height).map(|segment| segment.last_block);
        match end {
            Some(hash) => Ok(Kept::Here(hash)),
            None => Ok(self.header(height)?.map(|header| header.hash())),
        }
    }

    /// The height of the block with this hash. `NotKept` if none of the blocks here has it, and
    /// some blocks are not here.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn height_of(&self, hash: &BlockHash) -> Result<Kept<Height>, StoreError> {
        self.find(index::hash_start(hash), |place| {
            if place.index != BLOCK {
                return Ok(None);
            }
            let header = self.header(place.height)?.here();
            Ok(header.is_some_and(|header| header.hash() == *hash).then_some(place.height))
        })
    }

    /// The certificate of a block: at the tip the stored one, below the tip the one in the block's
    /// child or the one at the end of a segment. At height 0 it is `Certificate::genesis`.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn certificate(&self, height: Height) -> Result<Kept<Certificate>, StoreError> {
        if height == Height(0) {
            return Ok(Kept::Here(Certificate::genesis(self.shared.chain.id())));
        }
        {
            let view = self.read_view();
            if height >= view.tip.height {
                let is_tip = height == view.tip.height;
                return Ok(is_tip.then(|| view.certificate.clone()).into());
            }
        }
        match self.block_start(height.next())? {
            Kept::NotKept => Ok(self.end(height)?.map(|(_, certificate)| certificate)),
            found => Ok(found.map(|(_, certificate)| certificate)),
        }
    }

    /// The height of the block that holds a transaction, and its index in this block, from 0.
    /// `NotKept` if none of the blocks here holds it, and some blocks are not here.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn find_transaction(&self, id: &TxId) -> Result<Kept<(Height, u32)>, StoreError> {
        self.find(index::id_start(id), |place| {
            if place.index == BLOCK {
                return Ok(None);
            }
            let block = self.block(place.height)?.here();
            let transactions =
                block.as_ref().map(|block| block.transactions.as_slice()).unwrap_or_default();
            let one = usize::try_from(place.index).ok().and_then(|index| transactions.get(index));
            let is_same = one.is_some_and(|one| one.body.id(self.shared.chain.id()) == *id);
            Ok(is_same.then_some((place.height, place.index)))
        })
    }

    /// Visits the places of ids that begin with these bytes, until `visit` finds the right one.
    fn find<T>(
        &self,
        start: u64,
        mut visit: impl FnMut(Entry) -> Result<Option<T>, StoreError>,
    ) -> Result<Kept<T>, StoreError> {
        let (open, sealed) = {
            let view = self.read_view();
            (view.segments.open.find(start), view.segments.sealed.len() as u64)
        };
        for entry in open {
            if let Some(found) = visit(entry)? {
                return Ok(Kept::Here(found));
            }
        }
        let lacks = Cell::new(false);
        let keeps = |segment| {
            let view = self.read_view();
            let segments = &view.segments;
            let keeps = segments.gaps.keeps(segment) && !segments.is_withdrawn(segment);
            lacks.set(lacks.get() || !keeps);
            keeps
        };
        Ok(match self.shared.files.find(start, sealed, keeps, visit)? {
            Some(found) => Kept::Here(found),
            // An era may have gone after its index was read.
            None if lacks.get() || !self.read_view().segments.is_whole() => Kept::NotKept,
            None => Kept::Never,
        })
    }

    /// The header of a block and the certificate of its parent, without the transactions.
    fn block_start(&self, height: Height) -> Result<Kept<(Header, Certificate)>, StoreError> {
        let bytes = HEADER_BYTES.saturating_add(CERTIFICATE_BYTES_MAX);
        self.block_part(height, bytes)?.try_map(|(_, start)| {
            let start = codec::decode_prefix(&start);
            let (start, _) = start
                .map_err(|error| StoreError::corrupt(format_args!("block {height}"), error))?;
            Ok(start)
        })
    }

    /// Header and certificate of a block that is not kept, if it is the last one of a segment.
    fn end(&self, height: Height) -> Result<Kept<End>, StoreError> {
        let descriptor = self.read_view().segments.ending_at(height).copied();
        let end = descriptor.map(|descriptor| kept::read_end(&self.shared.disk, &descriptor));
        Ok(end.transpose()?.flatten().map_or(Kept::NotKept, Kept::Here))
    }

    /// Length of a block, and its first bytes.
    fn block_part(
        &self,
        height: Height,
        bytes: usize,
    ) -> Result<Kept<(usize, Vec<u8>)>, StoreError> {
        let place = self.read_view().segments.place(height);
        place.try_and_then(|place| {
            self.unless_dropped(place.segment(), self.shared.files.block_start(&place, bytes))
        })
    }

    fn read_view(&self) -> RwLockReadGuard<'_, View> {
        self.shared.view.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
