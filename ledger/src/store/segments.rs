//! Reads sealed segments as peers request them: descriptors, chunk hashes, and chunks. Chunks are
//! not stored, but put together from the stored blocks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::codec::{self, Decode};
use crate::hash::Hash;
use crate::history::{HistoryRules, SealedSegment, SegmentDescriptor};
use crate::store::disk::Disk;
use crate::store::schema::{self, Key, PIECE_BYTES};
use crate::store::{Store, StoreError};
use crate::units::Height;

/// Most layouts that are kept in memory: those of the segments served last. A layout says where
/// each block of a segment ends. 64 are enough while many peers fetch the same segments in any
/// order.
const LAYOUTS_MAX: usize = 64;
/// Most blocks in all kept layouts together. A layout takes 8 bytes for each block, so all layouts
/// take at most 4 MiB. A genesis allows a segment at most 65,536 blocks, and eight such segments
/// reach this bound. The layout used last is kept even if it has more blocks than that.
const LAYOUT_BLOCKS_MAX: usize = 8 * 65_536;

/// Readers return `StoreError::Corrupt` if stored bytes are not what was written, or
/// `StoreError::Io`.
impl Store {
    /// A sealed segment by its index, from 0; `None` if there is no such segment.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn segment(&self, index: u64) -> Result<Option<SealedSegment>, StoreError> {
        if index >= self.read_view().tip.segments {
            return Ok(None);
        }
        segment(&self.shared.disk, index).map(Some)
    }

    /// Descriptors of the sealed segments from index `from` on whose blocks are all below the
    /// height `below`, but at most `max`. Reads one piece of the record of each of these segments,
    /// and of at most one more.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn descriptors(
        &self,
        from: u64,
        below: Height,
        max: usize,
    ) -> Result<Vec<SegmentDescriptor>, StoreError> {
        let mut descriptors = Vec::new();
        for index in (from..self.read_view().tip.segments).take(max) {
            let descriptor = descriptor(&self.shared.disk, index)?;
            if descriptor.last >= below {
                break;
            }
            descriptors.push(descriptor);
        }
        Ok(descriptors)
    }

    /// Descriptor and chunk hashes of a sealed segment; `None` if there is no such segment. Reads
    /// little more than their bytes.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn chunk_hashes(
        &self,
        index: u64,
    ) -> Result<Option<(SegmentDescriptor, Vec<Hash>)>, StoreError> {
        if index >= self.read_view().tip.segments {
            return Ok(None);
        }
        let disk = &self.shared.disk;
        let (_, chunks): (SegmentDescriptor, u64) = start(disk, index, 0)?;
        start(disk, index, start_bytes(chunks, 0)).map(Some)
    }

    /// The bytes of a chunk of a sealed segment; `None` if there is no such segment or chunk. Reads
    /// little more than these bytes. For a segment that was not served lately, it also reads the
    /// layout: 8 bytes for each block of the segment and 32 for each chunk.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn chunk(
        &self,
        segment: u64,
        chunk: u64,
        rules: &HistoryRules,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        if segment >= self.read_view().tip.segments {
            return Ok(None);
        }
        let layout = self.shared.layouts.get(&self.shared.disk, segment)?;
        let Some(range) = layout.descriptor.chunk_range(chunk, rules) else { return Ok(None) };
        let mut bytes = Vec::with_capacity(
            usize::try_from(range.end.saturating_sub(range.start)).unwrap_or_default(),
        );
        let mut block = layout.ends.partition_point(|end| *end <= range.start);
        while let Some(end) = layout.ends.get(block).copied() {
            let start = block.checked_sub(1).map_or(0, |before| layout.ends[before]);
            if start >= range.end {
                break;
            }
            let height = Height(layout.descriptor.first.0.saturating_add(block as u64));
            // Turns an offset in the segment into one in this block, whose length fits into memory.
            let within = |at: u64| {
                usize::try_from(at.clamp(start, end).saturating_sub(start)).unwrap_or(usize::MAX)
            };
            let part = within(range.start)..within(range.end);
            self.shared.disk.append_part(
                |piece| Key::Body(height, piece),
                within(end),
                part,
                &mut bytes,
            )?;
            block = block.saturating_add(1);
        }
        Ok(Some(bytes))
    }
}

/// Where the blocks of a segment lie in its bytes.
struct Layout {
    descriptor: SegmentDescriptor,
    /// Where each block ends. The last block ends with the segment.
    ends: Vec<u64>,
}

impl Layout {
    /// Reads only the beginning of the segment's record, up to the end of the layout.
    fn read(disk: &Disk, index: u64) -> Result<Self, StoreError> {
        let (descriptor, chunks): (SegmentDescriptor, u64) = start(disk, index, 0)?;
        let bytes = start_bytes(chunks, descriptor.block_count().unwrap_or_default());
        let (_, _, ends): (SegmentDescriptor, Vec<Hash>, Vec<u64>) = start(disk, index, bytes)?;
        if !ends.is_sorted() || ends.last() != Some(&descriptor.bytes) {
            let reason = format!("its blocks do not end at its {} bytes", descriptor.bytes);
            return Err(StoreError::corrupt(Key::Segment(index, 0), reason));
        }
        Ok(Self { descriptor, ends })
    }
}

/// Layouts of the segments served last, the last one first. Beyond the limits, the least recently
/// used layouts are dropped.
#[derive(Default)]
pub(super) struct Layouts {
    recent: Mutex<VecDeque<Arc<Layout>>>,
}

impl Layouts {
    fn get(&self, disk: &Disk, index: u64) -> Result<Arc<Layout>, StoreError> {
        if let Some(layout) = self.find(index) {
            return Ok(layout);
        }
        // The layout is read outside of the lock, so that other readers go on. If two readers need
        // the same layout at once, one of the two reads is wasted.
        let layout = Arc::new(Layout::read(disk, index)?);
        self.keep(Arc::clone(&layout));
        Ok(layout)
    }

    fn find(&self, index: u64) -> Option<Arc<Layout>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let place = recent.iter().position(|layout| layout.descriptor.index == index)?;
        let layout = recent.remove(place)?;
        recent.push_front(Arc::clone(&layout));
        Some(layout)
    }

    fn keep(&self, layout: Arc<Layout>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|other| other.descriptor.index != layout.descriptor.index);
        recent.push_front(layout);
        let mut blocks = 0usize;
        let kept = recent.iter().take(LAYOUTS_MAX).take_while(|layout| {
            blocks = blocks.saturating_add(layout.ends.len());
            blocks <= LAYOUT_BLOCKS_MAX
        });
        let kept = kept.count().max(1);
        recent.truncate(kept);
    }
}

/// A sealed segment with its lists of hashes and ends.
pub(super) fn segment(disk: &Disk, index: u64) -> Result<SealedSegment, StoreError> {
    let key = |piece| Key::Segment(index, piece);
    let record = disk.record(key)?.ok_or_else(|| StoreError::corrupt(key(0), "missing"))?;
    let (descriptor, chunks, ends, blocks): (SegmentDescriptor, Vec<Hash>, Vec<u64>, Vec<Hash>) =
        schema::decode(key(0), &record)?;
    Ok(SealedSegment { descriptor, chunks, blocks, ends })
}

/// The descriptor of a segment, without its lists.
pub(super) fn descriptor(disk: &Disk, index: u64) -> Result<SegmentDescriptor, StoreError> {
    start(disk, index, 0)
}

/// How many bytes from the beginning of a segment's record are enough for this many chunk hashes
/// and ends of blocks.
fn start_bytes(chunks: u64, ends: u64) -> usize {
    let bytes = chunks.saturating_mul(32).saturating_add(ends.saturating_mul(8));
    usize::try_from(bytes).unwrap_or(usize::MAX).saturating_add(PIECE_BYTES)
}

/// Decodes the beginning of a segment's record from at least its first `bytes` bytes.
fn start<T: Decode<()>>(disk: &Disk, index: u64, bytes: usize) -> Result<T, StoreError> {
    let key = Key::Segment(index, 0);
    let start = disk.record_prefix(|piece| Key::Segment(index, piece), bytes)?;
    let (_, start) = start.ok_or_else(|| StoreError::corrupt(key, "missing"))?;
    let decoded = codec::decode_prefix(&start).map_err(|error| StoreError::corrupt(key, error))?;
    Ok(decoded.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::hash::BlockHash;

    fn layout(index: u64, blocks: usize) -> Arc<Layout> {
        let descriptor = SegmentDescriptor {
            index,
            first: Height(1),
            last: Height(1),
            bytes: 0,
            chunks_root: Hash::ZERO,
            blocks_root: Hash::ZERO,
            last_block: BlockHash(Hash::ZERO),
        };
        Arc::new(Layout { descriptor, ends: vec![0; blocks] })
    }

    #[test]
    fn layouts_are_few_and_those_used_last() {
        for (blocks, kept) in [(1, LAYOUTS_MAX), (65_536, 8), (LAYOUT_BLOCKS_MAX + 1, 1)] {
            let layouts = Layouts::default();
            for index in 0..200u64 {
                layouts.keep(layout(index, blocks));
                layouts.keep(layout(index, blocks));
                assert_eq!(
                    layouts.find(0).is_some(),
                    index == 0 || kept > 1,
                    "0 is used each time"
                );
            }
            assert_eq!(layouts.recent.lock().unwrap().len(), kept);
            let found: Vec<u64> = (1..200).filter(|index| layouts.find(*index).is_some()).collect();
            let newest = 200 - (kept as u64 - 1).max(1);
            assert_eq!(found, (newest..200).collect::<Vec<_>>(), "{blocks}");
        }
    }
}
