//! The open segments, and which of their chunks are here.

use std::collections::BTreeMap;

use super::bits::Bits;
use super::message::{ChunkId, CollectionNumber, SegmentId};

/// Most segments of one collection that are open at a time, so that memory does not depend on the
/// length of a collection. 64 segments of 16 MiB are 1 GiB.
pub const OPEN_SEGMENTS_MAX: usize = 64;

/// A segment that is being fetched. Its kind knows what proves its chunks.
#[derive(Debug)]
pub(super) struct Segment {
    id: SegmentId,
    /// Bytes of all its chunks.
    bytes: u64,
    /// One bit for each chunk that is here.
    here: Bits,
    /// Number of its chunks.
    chunks: u32,
    /// Number of its chunks that are not here.
    missing: u64,
}

/// The open segments of all collections, in order: those that are being fetched, and those that
/// are complete and wait to be put in their place.
#[derive(Debug, Default)]
pub(super) struct Segments(BTreeMap<SegmentId, Segment>);

impl Segment {
    /// `here` has one flag for each chunk that an earlier run may have stored.
    pub(super) fn new(id: SegmentId, bytes: u64, chunks: u32, here: &[bool]) -> Self {
        let mut bits = Bits::new(u64::from(chunks));
        for (chunk, _) in (0..chunks).zip(here).filter(|(_, is_here)| **is_here) {
            bits.set(chunk);
        }
        let missing = u64::from(chunks).saturating_sub(bits.count());
        Self { id, bytes, here: bits, chunks, missing }
    }

    pub(super) const fn id(&self) -> SegmentId {
        self.id
    }

    /// Bytes of all its chunks.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
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
        let missing = (0..self.chunks).filter(|chunk| !self.has(*chunk));
        missing.map(|chunk| self.id.chunk(chunk))
    }
}

impl Segments {
    pub(super) fn add(&mut self, segment: Segment) {
        self.0.insert(segment.id, segment);
    }

    pub(super) fn remove(&mut self, segment: SegmentId) {
        self.0.remove(&segment);
    }

    pub(super) fn get(&self, segment: SegmentId) -> Option<&Segment> {
        self.0.get(&segment)
    }

    /// The open segments of one collection, in order.
    pub(super) fn of(&self, collection: CollectionNumber) -> impl Iterator<Item = &Segment> {
        self.0.range(collection.segments()).map(|(_, segment)| segment)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.0.values()
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

    /// Whether a segment is open and has such a chunk.
    pub(super) fn knows(&self, id: ChunkId) -> bool {
        self.get(id.segment).is_some_and(|segment| id.chunk < segment.chunks)
    }

    /// Number of chunks of a collection's open segments that are not here.
    pub(super) fn missing(&self, collection: CollectionNumber) -> u64 {
        self.of(collection).fold(0, |sum, segment| sum.saturating_add(segment.missing))
    }

    /// Whether all chunks of the open segments of a collection are here.
    pub(super) fn is_complete(&self, collection: CollectionNumber) -> bool {
        self.of(collection).all(|segment| segment.missing == 0)
    }

    /// Whether all chunks of all open segments are here.
    pub(super) fn are_complete(&self) -> bool {
        self.iter().all(|segment| segment.missing == 0)
    }

    /// A chunk has arrived.
    pub(super) fn on_chunk(&mut self, id: ChunkId) {
        let Some(segment) = self.0.get_mut(&id.segment) else { return };
        if id.chunk < segment.chunks && segment.here.set(id.chunk) {
            segment.missing = segment.missing.saturating_sub(1);
        }
    }

    /// A chunk is damaged. Returns whether it counted as here.
    pub(super) fn lose(&mut self, id: ChunkId) -> bool {
        let Some(segment) = self.0.get_mut(&id.segment) else { return false };
        let was_here = segment.has(id.chunk);
        if was_here {
            segment.here.unset(id.chunk);
            segment.missing = segment.missing.saturating_add(1);
        }
        was_here
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ledger::units::SegmentIndex;

    use super::*;

    const SEGMENT: SegmentId = CollectionNumber(0).segment(SegmentIndex(3));

    fn segment(chunks: u32, here: &[bool]) -> Segment {
        Segment::new(SEGMENT, 1, chunks, here)
    }

    #[test]
    fn chunks_that_come_and_go_are_counted_once() {
        let mut segments = Segments::default();
        // More flags than chunks: the flags beyond the last chunk do not count.
        segments.add(segment(10, &[true; 12]));
        assert!(
            segments.is_complete(SEGMENT.collection)
                && segments.get(SEGMENT).unwrap().here().count() == 10
        );
        segments.add(segment(10, &[true, false, true]));
        let id = |chunk| SEGMENT.chunk(chunk);
        let missing = |segments: &Segments| {
            let segment = segments.get(SEGMENT).unwrap();
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
        let was_here = [0, 0, 3, 12, 99].map(|chunk| segments.lose(id(chunk)));
        assert_eq!(was_here, [true, false, false, false, false]);
        assert_eq!(missing(&segments), [0, 3, 4, 5, 6, 7, 8]);
        assert!(segments.lacks(id(0)) && !segments.lacks(id(12)) && !segments.has(id(12)));
        assert!(segments.knows(id(9)) && !segments.knows(id(10)));
        segments.remove(SEGMENT);
        assert!(segments.get(SEGMENT).is_none() && !segments.lacks(id(0)));
    }
}
