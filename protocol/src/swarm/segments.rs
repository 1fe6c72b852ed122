//! The segments that are being fetched or wait to be applied, and which of their chunks are here.

use std::collections::BTreeMap;

use ledger::history::SegmentHead;
use ledger::units::SegmentIndex;

use super::bits::Bits;
use super::message::ChunkId;

/// Most bytes of segments that are being fetched or wait to be applied.
pub(super) const STAGED_BYTES_MAX: u64 = 1 << 30;
/// Most segments that are being fetched or wait to be applied.
pub(super) const STAGED_SEGMENTS_MAX: usize = 256;

/// A segment whose head is proved.
#[derive(Debug)]
pub(super) struct Segment {
    head: SegmentHead,
    /// One bit for each chunk that is here.
    here: Bits,
    /// Number of its chunks.
    chunks: u32,
    /// Number of its chunks that are not here.
    missing: u64,
}

/// All segments that are being fetched or wait to be applied, in order.
#[derive(Debug, Default)]
pub(super) struct Segments(BTreeMap<SegmentIndex, Segment>);

impl Segment {
    /// `here` has one flag for each chunk that an earlier run may have stored.
    fn new(head: SegmentHead, here: &[bool]) -> Self {
        let chunks = u32::try_from(head.chunks.len()).unwrap_or(u32::MAX);
        let mut bits = Bits::new(u64::from(chunks));
        for (chunk, _) in (0..chunks).zip(here).filter(|(_, is_here)| **is_here) {
            bits.set(chunk);
        }
        let missing = u64::from(chunks).saturating_sub(bits.count());
        Self { head, here: bits, chunks, missing }
    }

    pub(super) const fn head(&self) -> &SegmentHead {
        &self.head
    }

    pub(super) const fn index(&self) -> SegmentIndex {
        SegmentIndex(self.head.descriptor.index)
    }

    /// Number of its chunks.
    pub(super) fn chunks(&self) -> u64 {
        u64::from(self.chunks)
    }

    /// Number of its chunks that are not here.
    pub(super) const fn missing(&self) -> u64 {
        self.missing
    }

    /// One bit for each chunk that is here.
    pub(super) const fn here(&self) -> &Bits {
        &self.here
    }

    pub(super) fn has(&self, chunk: u32) -> bool {
        self.here.get(chunk)
    }

    /// The chunks that are not here, in order.
    pub(super) fn missing_chunks(&self) -> impl Iterator<Item = ChunkId> {
        let segment = self.index();
        let missing = (0..self.chunks).filter(|chunk| !self.has(*chunk));
        missing.map(move |chunk| ChunkId { segment, chunk })
    }
}

impl Segments {
    /// Adds a segment. Some of its chunks may be here already: see `Segment::new`.
    pub(super) fn add(&mut self, head: SegmentHead, here: &[bool]) {
        let segment = Segment::new(head, here);
        self.0.insert(segment.index(), segment);
    }

    pub(super) fn remove(&mut self, index: SegmentIndex) {
        self.0.remove(&index);
    }

    pub(super) fn get(&self, index: SegmentIndex) -> Option<&Segment> {
        self.0.get(&index)
    }

    pub(super) fn head(&self, index: SegmentIndex) -> Option<&SegmentHead> {
        self.get(index).map(Segment::head)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.0.values()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a chunk is here.
    pub(super) fn has(&self, id: ChunkId) -> bool {
        self.get(id.segment).is_some_and(|segment| segment.has(id.chunk))
    }

    /// Whether a chunk belongs to one of these segments and is not here.
    pub(super) fn lacks(&self, id: ChunkId) -> bool {
        let segment = self.get(id.segment).filter(|segment| id.chunk < segment.chunks);
        segment.is_some_and(|segment| !segment.has(id.chunk))
    }

    /// Number of all chunks that are not here.
    pub(super) fn missing(&self) -> u64 {
        self.iter().fold(0, |sum, segment| sum.saturating_add(segment.missing))
    }

    /// Whether all chunks of all segments are here.
    pub(super) fn is_complete(&self) -> bool {
        self.iter().all(|segment| segment.missing == 0)
    }

    /// A chunk has arrived.
    pub(super) fn on_chunk(&mut self, id: ChunkId) {
        let Some(segment) = self.0.get_mut(&id.segment) else { return };
        if id.chunk < segment.chunks && segment.here.set(id.chunk) {
            segment.missing = segment.missing.saturating_sub(1);
        }
    }

    /// A chunk that was here is damaged.
    pub(super) fn lose(&mut self, id: ChunkId) {
        let Some(segment) = self.0.get_mut(&id.segment) else { return };
        if segment.has(id.chunk) {
            segment.here.unset(id.chunk);
            segment.missing = segment.missing.saturating_add(1);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ledger::certificate::Certificate;
    use ledger::hash::{BlockHash, ChainId, Hash};
    use ledger::history::SegmentDescriptor;
    use ledger::units::Height;

    use super::*;

    const INDEX: SegmentIndex = SegmentIndex(3);

    fn head(chunks: usize) -> SegmentHead {
        let descriptor = SegmentDescriptor {
            index: INDEX.0,
            first: Height(1),
            last: Height(9),
            bytes: 1,
            chunks_root: Hash::ZERO,
            blocks_root: Hash::ZERO,
            last_block: BlockHash(Hash::ZERO),
        };
        let certificate = Certificate::genesis(ChainId(Hash::ZERO));
        SegmentHead { descriptor, chunks: vec![Hash::ZERO; chunks], certificate }
    }

    #[test]
    fn chunks_that_come_and_go_are_counted_once() {
        let mut segments = Segments::default();
        // More flags than chunks: the flags beyond the last chunk do not count.
        segments.add(head(10), &[true; 12]);
        assert!(segments.is_complete() && segments.get(INDEX).unwrap().here().count() == 10);
        segments.add(head(10), &[true, false, true]);
        let id = |chunk| ChunkId { segment: INDEX, chunk };
        let missing = |segments: &Segments| {
            let segment = segments.get(INDEX).unwrap();
            let chunks: Vec<u32> = segment.missing_chunks().map(|id| id.chunk).collect();
            assert_eq!(segment.missing(), chunks.len() as u64);
            assert_eq!(segment.chunks(), segment.missing().saturating_add(segment.here().count()));
            chunks
        };
        assert_eq!(missing(&segments), [1, 3, 4, 5, 6, 7, 8, 9]);
        // The set has room for chunk 12, but the segment has no such chunk.
        for chunk in [1, 1, 2, 9, 12, 99] {
            segments.on_chunk(id(chunk));
        }
        assert_eq!(missing(&segments), [3, 4, 5, 6, 7, 8]);
        for chunk in [0, 0, 3, 12, 99] {
            segments.lose(id(chunk));
        }
        assert_eq!(missing(&segments), [0, 3, 4, 5, 6, 7, 8]);
        assert!(segments.lacks(id(0)) && !segments.lacks(id(12)) && !segments.has(id(12)));
        segments.remove(INDEX);
        assert!(segments.is_empty() && !segments.lacks(id(0)));
    }
}
