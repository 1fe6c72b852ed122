//! The chunks of the chosen snapshot: a collection whose segments have no heads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ledger::snapshot::SEGMENT_CHUNKS;
use ledger::units::SegmentIndex;

use super::offers::Announced;
use crate::swarm::engine::Engine;
use crate::swarm::expected::snapshot_chunk;
use crate::swarm::input::SnapshotOffer;
use crate::swarm::message::{ChunkId, CollectionNumber};
use crate::swarm::progress::Progress;
use crate::swarm::ranges::SegmentRange;
use crate::swarm::segments::{OPEN_SEGMENTS_MAX, Segment};

/// A snapshot grows when this many bytes of missing chunks have come. Fewer bytes in ten seconds
/// are no growth, so that nobody can hold up a newcomer by a chunk now and then. It is 52 KB/s: a
/// link of 20 Mbit/s carries it for 47 newcomers at once, beside what they give each other. If it
/// were much higher, a newcomer on a slow link would leave an honest snapshot, and lose the chunks
/// that it has.
pub(super) const GROWTH: u64 = 512 << 10;

/// The name of a chunk by its index in the snapshot.
pub(super) fn chunk_id(number: CollectionNumber, index: u64) -> ChunkId {
    let chunk = index.checked_rem(SEGMENT_CHUNKS).unwrap_or(0);
    let segment = SegmentIndex(index.checked_div(SEGMENT_CHUNKS).unwrap_or(0));
    number.segment(segment).chunk(u32::try_from(chunk).unwrap_or(u32::MAX))
}

/// A snapshot that is being fetched or loaded.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) offer: SnapshotOffer,
    pub(super) number: CollectionNumber,
    /// The first segment that has never been open.
    next: u64,
    /// Chunks that were lost from segments which were whole. These segments are opened again.
    lost: BTreeMap<u64, BTreeSet<u32>>,
    pub(super) progress: Progress,
    /// When the snapshot last grew, or when fetching began or resumed.
    pub(super) grown_at: Duration,
    /// Bytes of missing chunks that came since then.
    came: u64,
    /// How many of these bytes make it grow, at most [`GROWTH`].
    growth: u64,
}

impl Fetch {
    /// `growth`: how many bytes make it grow.
    pub(super) fn new(
        offer: SnapshotOffer,
        number: CollectionNumber,
        growth: u64,
        now: Duration,
    ) -> Self {
        let (progress, lost) = (Progress::of(&offer.frontier), BTreeMap::new());
        Self { offer, number, next: 0, lost, progress, grown_at: now, came: 0, growth }
    }

    pub(super) const fn snapshot(&self) -> Announced {
        (self.offer.height, self.offer.id)
    }

    pub(super) fn on_chunk(&mut self, now: Duration, bytes: u64) {
        self.progress.on_chunk(bytes, now);
        self.came = self.came.saturating_add(bytes);
        if self.came >= self.growth {
            self.on_grown(now);
        }
    }

    /// Restarts the time in which it must grow.
    pub(super) const fn on_grown(&mut self, now: Duration) {
        (self.grown_at, self.came) = (now, 0);
    }

    /// Whether any missing chunk has come since it had grown.
    pub(super) const fn has_come(&self) -> bool {
        self.came > 0
    }

    /// A chunk is not here any more. `was_here`: whether it was in an open segment.
    pub(super) fn on_lost(&mut self, engine: &Engine, id: ChunkId, was_here: bool) {
        let index = id.segment.index.0;
        let is_whole = index < self.next && engine.segments().get(id.segment).is_none();
        let is_news = is_whole && self.lost.entry(index).or_default().insert(id.chunk);
        if was_here || is_news {
            self.progress.on_lost(self.bytes(id));
        }
    }

    fn bytes(&self, id: ChunkId) -> u64 {
        let range = self.offer.frontier.chunk_range(snapshot_chunk(id));
        range.map_or(0, |range| range.end.saturating_sub(range.start))
    }

    /// Puts complete segments in their place and opens the next ones. Returns whether all segments
    /// are in their place.
    pub(super) fn advance(&mut self, engine: &mut Engine) -> bool {
        let open = engine.segments().of(self.number);
        let complete = open.filter(|segment| segment.missing() == 0).map(|open| open.id().index);
        for index in complete.collect::<Vec<_>>() {
            engine.on_whole(self.number, SegmentRange { first: index, last: index });
            engine.downloads.remove_segment(self.number.segment(index));
        }
        while engine.segments().of(self.number).count() < OPEN_SEGMENTS_MAX {
            let Some(segment) = self.next_segment() else { break };
            engine.add_segment(segment);
        }
        engine.segments().of(self.number).next().is_none()
    }

    fn next_segment(&mut self) -> Option<Segment> {
        let (index, lost) = match self.lost.pop_first() {
            Some((index, lost)) => (index, Some(lost)),
            None => (self.next, None),
        };
        let frontier = &self.offer.frontier;
        let chunks = frontier.segment_chunks(index)?;
        let first = frontier.chunk_range(chunks.start)?;
        let last = frontier.chunk_range(chunks.end.saturating_sub(1))?;
        let bytes = last.end.saturating_sub(first.start);
        let count = u32::try_from(chunks.end.saturating_sub(chunks.start)).unwrap_or(u32::MAX);
        let here: Vec<bool> = match lost {
            Some(lost) => (0..count).map(|chunk| !lost.contains(&chunk)).collect(),
            None => Vec::new(),
        };
        self.next = self.next.max(index.saturating_add(1));
        Some(Segment::new(self.number.segment(SegmentIndex(index)), bytes, count, &here))
    }
}
