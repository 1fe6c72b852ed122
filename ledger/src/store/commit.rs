//! Writes to the store: commits, whose blocks become durable together, and checkpoints.

use std::sync::PoisonError;

use crate::certificate::{CERTIFICATE_BYTES_MAX, Certificate};
use crate::chain::Committed;
use crate::codec;
use crate::history::SealedSegment;
use crate::state::State;
use crate::store::checkpoint::{CHECKPOINT_BLOCKS, CHECKPOINT_BLOCKS_MAX, Slots};
use crate::store::disk::Batch;
use crate::store::evidence::Kept;
use crate::store::index;
use crate::store::schema::{Key, Marker, PIECE_BYTES, TipValue};
use crate::store::witness::Witness;
use crate::store::{Store, StoreError};

/// Most pieces of a certificate.
#[allow(clippy::cast_possible_truncation)] // Three.
const CERTIFICATE_PIECES: u32 = CERTIFICATE_BYTES_MAX.div_ceil(PIECE_BYTES) as u32;

/// State that only writes use. It is behind a lock, so that a second write waits until the first
/// one ends.
pub(super) struct Writer {
    pub(super) tip: TipValue,
    pub(super) state: State,
    pub(super) slots: Slots,
    pub(super) witness: Witness,
    /// Which evidence is kept; `None` until it is first needed.
    pub(super) evidence: Option<Kept>,
    /// The first failure of a write. After it nothing more is written.
    pub(super) failed: Option<String>,
}

impl Store {
    /// Makes final blocks durable: all of them or none, even if the write fails or the machine
    /// dies. A batch has one block while the node follows the network, and many while it catches
    /// up. While a batch is written, its bytes are in memory several times, so it should have at
    /// most some tens of megabytes.
    ///
    /// Readers see the blocks once this returns `Ok`. The caller should call [`Self::maintain`]
    /// after each commit.
    ///
    /// # Errors
    /// `StoreError::Io` if the disk refuses, such as when it is full, or `StoreError::Corrupt`. All
    /// later writes return `StoreError::Failed`, and readers may fail too, with `Io` or `Corrupt`.
    /// Acknowledged blocks are safe, and no reader ever sees a part of a failed commit. Whether the
    /// disk holds the failed commit is known only when the store is opened again. So the caller
    /// should stop, and open the store again once there is room.
    ///
    /// # Panics
    /// If the first block does not follow the tip, if another block does not follow the one before
    /// it, if a certificate is for another block, or if a sealed segment does not follow the one
    /// before it.
    pub fn commit(&self, batch: &[Committed]) -> Result<(), StoreError> {
        let Some(last) = batch.last() else { return Ok(()) };
        self.write(|writer| {
            let unmarked = last.block.height().0.saturating_sub(writer.slots.height.0);
            if unmarked > CHECKPOINT_BLOCKS_MAX && writer.tip.height > writer.slots.height {
                self.checkpoint(writer)?;
            }
            let mut writes = Batch::default();
            let mut tip = writer.tip;
            for committed in batch {
                tip = put_block(&mut writes, &tip, committed);
            }
            writes.put_value(Key::Tip, &tip);
            put_certificate(&mut writes, &last.certificate);
            self.shared.disk.apply(writes)?;
            self.shared.disk.sync()?;
            writer.witness.write(tip.height, tip.hash)?;

            // Readers see the blocks only now that they are durable.
            let entries: Vec<_> =
                batch.iter().map(|committed| index::entries(&committed.block)).collect();
            {
                let mut view = self.shared.view.write().unwrap_or_else(PoisonError::into_inner);
                view.tip = tip;
                view.certificate = last.certificate.clone();
                entries.into_iter().for_each(|entries| view.index.push(entries));
            }
            // This frees the accounts of the block before, which takes milliseconds. So it is done
            // outside the lock of the readers.
            writer.tip = tip;
            writer.state = last.block.state().clone();
            Ok(())
        })
    }

    /// Writes a checkpoint if one is due: every 64 blocks. This takes milliseconds for small
    /// states, and about half a second for a million accounts. Call it after each commit, once
    /// everybody who waited for the commit was answered. Returns whether a checkpoint was due.
    ///
    /// A crash during a checkpoint loses nothing. If this is never called, commits make a
    /// checkpoint every 256 blocks.
    ///
    /// # Errors
    /// As [`Self::commit`]. Blocks that were committed stay committed.
    pub fn maintain(&self) -> Result<bool, StoreError> {
        self.write(|writer| {
            let due =
                writer.tip.height.0.saturating_sub(writer.slots.height.0) >= CHECKPOINT_BLOCKS;
            if due {
                self.checkpoint(writer)?;
            }
            Ok(due)
        })
    }

    /// Makes the accounts at the tip the newest checkpoint.
    pub(super) fn checkpoint(&self, writer: &mut Writer) -> Result<(), StoreError> {
        let disk = &self.shared.disk;
        writer.slots.write(disk, &writer.state)?;
        let change = self.read_view().index.write(disk)?;
        disk.sync()?;
        writer.witness.sync()?;

        // The marker says that accounts and index reach this height. Both are durable by now.
        let marker =
            Marker { slot: writer.slots.next(), height: writer.tip.height, hash: writer.tip.hash };
        let mut batch = Batch::default();
        Slots::put_marker(&mut batch, &marker);
        for (id, run) in &change.added {
            batch.put_record(|piece| Key::Run(*id, piece), &codec::encode(run));
        }
        for id in &change.removed {
            for piece in 0.. {
                let key = Key::Run(*id, piece);
                if disk.get(key)?.is_none() {
                    break;
                }
                batch.remove(key);
            }
        }
        disk.apply(batch)?;
        disk.sync()?;

        writer.slots.mark(&marker, &writer.state);
        let merged = !change.removed.is_empty();
        self.shared.view.write().unwrap_or_else(PoisonError::into_inner).index.replace(change);
        // No reader uses the merged runs any more, so their pieces are removed. If a crash leaves
        // some, they are removed when the store is opened.
        if merged { self.read_view().index.sweep(disk) } else { Ok(()) }
    }

    /// Runs one write. After a failed write the disk may differ from what is in memory, so no other
    /// write runs.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let failed = |reason: &str| StoreError::Failed { reason: reason.to_owned() };
        let mut writer =
            self.shared.writer.lock().map_err(|_| failed("a write ended in a panic"))?;
        if let Some(reason) = &writer.failed {
            return Err(failed(reason));
        }
        let result = work(&mut writer);
        if let Err(error) = &result {
            writer.failed = Some(error.to_string());
        }
        result
    }
}

fn put_block(batch: &mut Batch, tip: &TipValue, committed: &Committed) -> TipValue {
    let Committed { block, certificate, sealed } = committed;
    let (height, hash) = (block.height(), block.hash());
    assert!(
        block.header().parent == tip.hash,
        "blocks are committed on the tip: {height} after {}",
        tip.height
    );
    assert!(
        certificate.block == hash && certificate.height == height,
        "a certificate is for the block it comes with"
    );
    batch.put_record(|piece| Key::Body(height, piece), block.bytes());
    batch.put_value(Key::HeightOf(hash), &height);
    let mut segments = tip.segments;
    if let Some(segment) = sealed {
        assert!(segment.descriptor.index == segments, "segments are sealed one after the other");
        batch.put_record(|piece| Key::Segment(segments, piece), &segment_record(segment));
        segments = segments.saturating_add(1);
    }
    TipValue { height, hash, segments }
}

pub(super) fn segment_record(segment: &SealedSegment) -> Vec<u8> {
    codec::encode(&(&segment.descriptor, &segment.chunks, &segment.ends, &segment.blocks))
}

/// Sets the certificate of the tip. A longer certificate that was stored before may have had more
/// pieces, so all pieces are removed first.
fn put_certificate(batch: &mut Batch, certificate: &Certificate) {
    for piece in 0..CERTIFICATE_PIECES {
        batch.remove(Key::TipCertificate(piece));
    }
    batch.put_record(Key::TipCertificate, &codec::encode(certificate));
}
