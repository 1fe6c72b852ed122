//! Which part of sealed history is kept: segments below the tip are put into their place, and whole
//! eras are dropped.
//!
//! The database decides. A segment counts as kept only after its files are durable, and an era
//! counts as dropped before its files are removed. So a kill at any step leaves at most files that
//! nothing reads, and opening the store removes them.

use std::sync::{MutexGuard, PoisonError};

use crate::block::Header;
use crate::chain::Chain;
use crate::codec;
use crate::hash::Hash;
use crate::history::{
    SealedSegment, SegmentDescriptor, SegmentError, SegmentHead, SegmentSplitter,
};
use crate::store::disk::Batch;
use crate::store::index::{self, Entry};
use crate::store::kept::{self, End, Gaps};
use crate::store::pages::{self, ERA_SEGMENTS, Name};
use crate::store::{Store, StoreError};
use crate::units::Height;

impl Store {
    /// Puts a sealed segment that is not kept into its place. It is durable when this returns. Does
    /// nothing if the segment is kept already. The last missing segment of an era brings the era's
    /// filter.
    ///
    /// `bytes` are those of the whole segment. The caller has verified the head, and all chunks of
    /// the bytes against it. This needs several times the bytes of a segment in memory, and decodes
    /// and hashes all of its blocks. Commits go on meanwhile.
    ///
    /// # Errors
    /// `StoreError::Segment` if the bytes are not the blocks of the segment. `StoreError::Io` if
    /// the disk refuses, such as when it is full. If it refused a file, the store takes further
    /// writes. Otherwise as [`Self::commit`].
    ///
    /// # Panics
    /// If it is no sealed segment of this chain, or if the certificate is not for its last block.
    pub fn keep_segment(&self, head: &SegmentHead, bytes: &[u8]) -> Result<(), StoreError> {
        let SegmentHead { descriptor, certificate, .. } = head;
        let (index, era) = (descriptor.index, descriptor.index / ERA_SEGMENTS);
        assert!(
            self.descriptors(index, descriptor.last.next(), 1) == [*descriptor]
                && (certificate.height, certificate.block)
                    == (descriptor.last, descriptor.last_block),
            "a head is verified before its segment is kept: {descriptor:?}"
        );
        let _archive = self.lock_archive();
        if self.read_view().segments.gaps.keeps(index) {
            return Ok(());
        }
        let end = self.write_segment(head, bytes)?;
        let refused = self.write(|_| {
            let (mut gaps, sealed) = self.gaps();
            gaps.close(index);
            if gaps.bits(era) == 0 && era < sealed / ERA_SEGMENTS {
                let history = &self.shared.files.history;
                let written = self.shared.files.write_filter(era);
                if let Err(error) = written.and_then(|()| pages::sync_names(history, index)) {
                    return Ok(Err(error));
                }
            }
            self.set_gaps(gaps, era, &[(*descriptor, end)]).map(Ok)
        })?;
        refused.inspect_err(|_| self.remove_segment(index))
    }

    /// Writes the files of a segment, which does not count as kept yet. Returns its end.
    fn write_segment(&self, head: &SegmentHead, bytes: &[u8]) -> Result<End, StoreError> {
        let SegmentHead { descriptor, chunks, certificate } = head;
        let index = descriptor.index;
        let split = split(&self.shared.chain, descriptor, chunks.clone(), bytes);
        let (segment, run, last) = split.map_err(|error| StoreError::Segment { index, error })?;
        let written = self.shared.files.seal(&segment, 0, bytes, &run, false);
        written.inspect_err(|_| self.remove_segment(index))?;
        Ok((last, certificate.clone()))
    }

    /// Removes the files of a segment that is not kept, so that a full disk gets the room back.
    /// What cannot be removed now is removed when the store is opened.
    fn remove_segment(&self, index: u64) {
        let history = &self.shared.files.history;
        for name in [Name::Blocks(index), Name::Index(index), Name::Filter(index / ERA_SEGMENTS)] {
            let _ = pages::remove(history, name);
        }
    }

    /// Withdraws a kept era: reads of its blocks and chunks give `NotKept` from now on, as if it
    /// were dropped. Headers, certificates and descriptors can still be read. The files stay, and
    /// only memory says so: after a restart the era can be read again.
    pub fn withdraw_era(&self, era: u64) {
        let mut view = self.shared.view.write().unwrap_or_else(PoisonError::into_inner);
        view.segments.withdrawn.insert(era);
    }

    /// Restores a withdrawn era: it can be read again.
    pub fn restore_era(&self, era: u64) {
        let mut view = self.shared.view.write().unwrap_or_else(PoisonError::into_inner);
        view.segments.withdrawn.remove(&era);
    }

    /// Drops a whole era: removes the files of its segments. Their descriptors stay, and the ends
    /// of those whose last block can be read. Makes a checkpoint first, if opening the store would
    /// need blocks of the era. Of an era that was dropped, it removes files that could not be
    /// removed before.
    ///
    /// # Errors
    /// As [`Self::commit`]. If only a file cannot be removed, the era is dropped, and the store
    /// takes further writes.
    ///
    /// # Panics
    /// If a segment of the era is not sealed.
    pub fn drop_era(&self, era: u64) -> Result<(), StoreError> {
        let _archive = self.lock_archive();
        let (mut gaps, sealed) = self.gaps();
        assert!(era < sealed / ERA_SEGMENTS, "only whole eras are dropped, not {era} of {sealed}");
        if gaps.open(era) {
            // The certificate of the last block before the era is in the era.
            let (first, next) = segments(era);
            let from = first.saturating_sub(1);
            let count = usize::try_from(next.saturating_sub(from)).unwrap_or(usize::MAX);
            let descriptors = self.descriptors(from, Height(u64::MAX), count);
            let last = descriptors.last().map_or(Height(0), |descriptor| descriptor.last);
            let ends = descriptors.into_iter().filter_map(|descriptor| {
                // A damaged block must not keep the era from being dropped.
                let header = self.header(descriptor.last).ok()?.here()?;
                let certificate = self.certificate(descriptor.last).ok()?.here()?;
                Some((descriptor, (header, certificate)))
            });
            let ends: Vec<_> = ends.collect();
            self.write(|writer| {
                // The end of the last segment is not stored if its block is damaged.
                if writer.slots.height <= last {
                    self.checkpoint(writer)?;
                }
                self.set_gaps(gaps, era, &ends)
            })?;
        }
        self.restore_era(era);
        kept::remove_gap(&self.shared.files.history, &self.gaps().0, era)
    }

    /// Bytes of the files of an era: those of its kept segments, and its filter.
    ///
    /// # Errors
    /// `StoreError::Io`.
    pub fn era_bytes(&self, era: u64) -> Result<u64, StoreError> {
        let (gaps, sealed) = self.gaps();
        let (first, next) = segments(era);
        let kept = (first..next.min(sealed)).filter(|segment| gaps.keeps(*segment));
        let names = kept.flat_map(|segment| [Name::Blocks(segment), Name::Index(segment)]);
        names.chain([Name::Filter(era)]).try_fold(0, |sum: u64, name| {
            let bytes = pages::length(&self.shared.files.history, name)?;
            Ok(sum.saturating_add(bytes))
        })
    }

    /// Bytes of the files of all sealed segments that are kept, and of the filters. Asks the system
    /// for the length of each file: 33 for each era.
    ///
    /// # Errors
    /// `StoreError::Io`.
    pub fn history_bytes(&self) -> Result<u64, StoreError> {
        let eras = self.gaps().1.div_ceil(ERA_SEGMENTS);
        (0..eras).try_fold(0, |sum: u64, era| Ok(sum.saturating_add(self.era_bytes(era)?)))
    }

    /// Makes other gaps of an era durable and visible, with the ends of segments that are not
    /// stored yet.
    fn set_gaps(
        &self,
        gaps: Gaps,
        era: u64,
        ends: &[(SegmentDescriptor, End)],
    ) -> Result<(), StoreError> {
        let disk = &self.shared.disk;
        let mut batch = Batch::default();
        gaps.put_era(&mut batch, era);
        for (descriptor, (header, certificate)) in ends {
            if let Ok(None) = kept::read_end(disk, descriptor) {
                kept::put_end(&mut batch, descriptor.index, header, certificate);
            }
        }
        disk.apply(batch)?;
        disk.sync()?;
        let mut view = self.shared.view.write().unwrap_or_else(PoisonError::into_inner);
        view.segments.gaps = gaps;
        Ok(())
    }

    /// The gaps, and the number of sealed segments.
    fn gaps(&self) -> (Gaps, u64) {
        let view = self.read_view();
        (view.segments.gaps.clone(), view.segments.sealed.len() as u64)
    }

    fn lock_archive(&self) -> MutexGuard<'_, ()> {
        self.shared.archive.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Splits the bytes of a segment. Returns the segment with these chunks, its run, and its last
/// header. Everything but the chunks is checked against the descriptor.
pub(super) fn split(
    chain: &Chain,
    descriptor: &SegmentDescriptor,
    chunks: Vec<Hash>,
    bytes: &[u8],
) -> Result<(SealedSegment, Vec<Entry>, Header), SegmentError> {
    let mut splitter = SegmentSplitter::new(chain.id(), chain.history_rules(), descriptor);
    splitter.push(bytes)?;
    let blocks = splitter.finish()?;
    let (mut run, mut ends, mut end) = (Vec::new(), Vec::new(), 0u64);
    for block in &blocks {
        end = end.saturating_add(codec::encode(block).len() as u64);
        ends.push(end);
        run.extend(index::stored_entries(chain.id(), block));
    }
    run.sort();
    let hashes = blocks.iter().map(|block| block.header.hash().0).collect();
    let segment = SealedSegment { descriptor: *descriptor, chunks, blocks: hashes, ends };
    match blocks.into_iter().next_back() {
        Some(last) => Ok((segment, run, last.header)),
        None => panic!("a segment that was split has a block at each of its heights"),
    }
}

/// The first segment of an era, and the first one after it.
const fn segments(era: u64) -> (u64, u64) {
    let first = era.saturating_mul(ERA_SEGMENTS);
    (first, first.saturating_add(ERA_SEGMENTS))
}
