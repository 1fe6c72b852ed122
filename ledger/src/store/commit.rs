//! Writes to the store: commits, whose blocks become durable together, and checkpoints.

use std::sync::PoisonError;

use crate::certificate::{CERTIFICATE_BYTES_MAX, Certificate};
use crate::chain::Committed;
use crate::codec;
use crate::state::State;
use crate::store::checkpoint::{CHECKPOINT_BLOCKS, CHECKPOINT_BLOCKS_MAX, Slots};
use crate::store::disk::Batch;
use crate::store::evidence::Known;
use crate::store::index::{self, Entry};
use crate::store::pages::{CONTENT, CONTENT_BYTES, ERA_SEGMENTS};
use crate::store::schema::{Key, Marker, PIECE_BYTES, TipValue};
use crate::store::segments::{Growth, Open};
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
    pub(super) evidence: Option<Known>,
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
            // The files of history come first: the database names nothing that is not durable.
            let mut writes = Batch::default();
            let (tip, grown) = self.grow(&writer.tip, batch, &mut writes)?;
            writes.put_value(Key::Tip, &tip);
            put_certificate(&mut writes, &last.certificate);
            self.shared.disk.apply(writes)?;
            self.shared.disk.sync()?;
            writer.witness.write(tip.height, tip.hash)?;

            // Readers see the blocks only now that they are durable.
            let before = {
                let mut view = self.shared.view.write().unwrap_or_else(PoisonError::into_inner);
                view.tip = tip;
                view.certificate = last.certificate.clone();
                view.segments.grow(grown)
            };
            drop(before);
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
        disk.sync()?;
        writer.witness.sync()?;

        // The marker says that the accounts reach this height. They are durable by now.
        let marker =
            Marker { slot: writer.slots.next(), height: writer.tip.height, hash: writer.tip.hash };
        let mut batch = Batch::default();
        Slots::put_marker(&mut batch, &marker);
        disk.apply(batch)?;
        disk.sync()?;

        writer.slots.mark(&marker, &writer.state);
        Ok(())
    }

    /// Writes blocks to the files of history, and what belongs to them to a batch for the database.
    /// Returns the new tip. Until this tip is stored, nothing refers to what is written here.
    fn grow(
        &self,
        tip: &TipValue,
        blocks: &[Committed],
        batch: &mut Batch,
    ) -> Result<(TipValue, Growth), StoreError> {
        let files = &self.shared.files;
        let mut tip = *tip;
        let mut grown = Growth::default();
        // The end of the open segment that is not in its file yet, and the page where it begins.
        let mut rest = self.read_view().segments.open.tail.clone();
        let mut page = tip.bytes / CONTENT;
        for Committed { block, certificate, sealed } in blocks {
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
            let bytes = tip.bytes.saturating_add(block.bytes().len() as u64);
            tip = TipValue { height, hash, segments: tip.segments, bytes };
            rest.extend_from_slice(block.bytes());
            grown.open.ends.push(bytes);
            grown.open.entries.extend(index::entries(block));
            let Some(segment) = sealed else { continue };
            assert!(
                segment.descriptor.index == tip.segments && segment.descriptor.bytes == bytes,
                "segments are sealed one after the other, at their last block"
            );
            let mut run: Vec<Entry> = std::mem::take(&mut grown.open.entries).into_iter().collect();
            if grown.sealed.is_empty() {
                run.extend(&self.read_view().segments.open.entries);
            }
            run.sort();
            let is_whole = self.read_view().segments.gaps.bits(tip.segments / ERA_SEGMENTS) == 0;
            files.seal(segment, page, &rest, &run, is_whole)?;
            batch.put_value(Key::Segment(tip.segments), &segment.descriptor);
            grown.sealed.push(segment.descriptor);
            (tip.segments, tip.bytes, page) = (tip.segments.saturating_add(1), 0, 0);
            (rest, grown.open) = (Vec::new(), Open::default());
        }
        grown.open.tail = rest.split_off(rest.len().saturating_sub(rest.len() % CONTENT_BYTES));
        files.extend(tip.segments, page, &rest)?;
        batch.put(Key::Tail, &grown.open.tail);
        Ok((tip, grown))
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

/// Sets the certificate of the tip. A longer certificate that was stored before may have had more
/// pieces, so all pieces are removed first.
pub(super) fn put_certificate(batch: &mut Batch, certificate: &Certificate) {
    for piece in 0..CERTIFICATE_PIECES {
        batch.remove(Key::TipCertificate(piece));
    }
    batch.put_record(Key::TipCertificate, &codec::encode(certificate));
}
