//! Backfill: the kind of collection for segments of history that this node fetches only to keep
//! them. Their blocks are below its tip. Either the node began with a snapshot, or it is to keep
//! more eras than before.
//!
//! The segments are the same as in `history`, under another id. So a peer that sends them knows
//! that nobody waits for them. Their descriptors are proved already. [`Effect::Keep`] puts a
//! complete segment in its place; then it belongs to both collections.

mod heads;

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::hash::{ChainId, Domain, Hash};
use ledger::history::{HistoryRules, SegmentDescriptor, SegmentHead};
use ledger::units::SegmentIndex;

use super::classes::Class;
use super::effect::Effect;
use super::engine::{Collection, Engine};
use super::heads::Heads;
use super::input::Staged;
use super::message::{CollectionId, CollectionNumber};
use super::ranges::{SegmentRange, SegmentRanges};
use super::segments::{OPEN_SEGMENTS_MAX, Segment};

/// This node's number for backfill, which it opens second.
pub const BACKFILL: CollectionNumber = CollectionNumber(1);

/// Most bytes of segments that are staged. A complete segment is soon in its place, so this only
/// has to keep all peers busy. With more, more bytes would be on the disk twice for a moment.
const STAGED_BYTES_MAX: u64 = 256 << 20;

/// Fetches history to keep it, the oldest segments first: blocks are executed in order.
pub(super) struct Kind {
    rules: HistoryRules,
    /// The segments to fetch that have not begun.
    missing: BTreeMap<SegmentIndex, SegmentDescriptor>,
    /// The open segments, with the hashes of their chunks.
    begun: BTreeMap<SegmentIndex, SegmentHead>,
    heads: Heads,
    /// The complete segment that is being put in its place.
    placing: Option<SegmentIndex>,
}

/// The id of a chain's collection for backfill.
fn id(chain: ChainId) -> CollectionId {
    CollectionId(Hash::of(Domain::Backfill, &[chain.as_bytes()]))
}

impl Kind {
    /// Opens backfill in the engine, with the sealed segments that are here. Nothing is fetched
    /// until [`Self::on_missing`].
    pub(super) fn new(
        engine: &mut Engine,
        chain: ChainId,
        rules: HistoryRules,
        kept: SegmentRanges,
    ) -> Self {
        let number = engine.open(Collection {
            id: id(chain),
            class: Class::Backfill,
            chunk_bytes: rules.chunk_bytes,
            chunks_max: rules.segment_chunks_max(),
            whole: kept,
            is_announced: true,
            paused_until: None,
        });
        assert!(number == BACKFILL, "backfill is the second collection, and got {}", number.0);
        Self {
            rules,
            missing: BTreeMap::new(),
            begun: BTreeMap::new(),
            heads: Heads::default(),
            placing: None,
        }
    }

    /// Which segments this node lacks and is to keep, in place of the list given before, and which
    /// chunks of them an earlier run has staged.
    pub(super) fn on_missing(
        &mut self,
        engine: &mut Engine,
        missing: Vec<SegmentDescriptor>,
        staged: Vec<Staged>,
    ) {
        let index = |descriptor: SegmentDescriptor| (SegmentIndex(descriptor.index), descriptor);
        self.missing = missing.into_iter().map(index).collect();
        let begun: Vec<SegmentIndex> = self.begun.keys().copied().collect();
        for index in begun {
            if self.missing.remove(&index).is_none() {
                self.end(engine, index);
            }
        }
        for (head, here) in staged {
            let index = SegmentIndex(head.descriptor.index);
            let is_missing = self.missing.get(&index) == Some(&head.descriptor);
            let is_usable = is_missing && self.has_room(&head.descriptor);
            if is_usable && head.descriptor.verify_chunks(&self.rules, &head.chunks).is_ok() {
                self.begin(engine, head, &here);
            } else if !self.begun.contains_key(&index) {
                engine.push(Effect::Release(BACKFILL.segment(index)));
            }
        }
        self.heads.keep_only(|index| self.missing.contains_key(&index));
    }

    /// These segments are in their place.
    pub(super) fn on_kept(&mut self, engine: &mut Engine, range: SegmentRange) {
        engine.on_whole(BACKFILL, range);
        self.forget(engine, range);
    }

    /// These segments are not to be kept any more, so they are not fetched either.
    pub(super) fn on_dropped(&mut self, engine: &mut Engine, range: SegmentRange) {
        engine.on_dropped(BACKFILL, range);
        self.forget(engine, range);
    }

    /// A complete segment could not be put in its place. Chunks that are damaged in staging are
    /// fetched again. If none is damaged, the disk refused, and backfill pauses.
    pub(super) fn on_not_placed(
        &mut self,
        engine: &mut Engine,
        index: SegmentIndex,
        damaged: &[u32],
    ) {
        self.placing = self.placing.filter(|placing| *placing != index);
        match damaged {
            [] => engine.pause(BACKFILL),
            damaged => drop(engine.on_damaged(BACKFILL.segment(index), damaged)),
        }
    }

    /// The hash of a chunk of an open segment.
    pub(super) fn chunk_hash(&self, segment: SegmentIndex, chunk: u32) -> Option<Hash> {
        self.begun.get(&segment)?.chunks.get(usize::try_from(chunk).ok()?).copied()
    }

    /// Puts a complete segment in its place, and asks for what is missing besides chunks. While
    /// `is_behind`, the node catches up, and backfill waits.
    pub(super) fn settle(&mut self, engine: &mut Engine, is_behind: bool) {
        if self.missing.is_empty() && self.begun.is_empty() {
            return;
        }
        let now = engine.now;
        let is_paused = engine.paused_until(BACKFILL).is_some_and(|until| until > now);
        if is_behind && !is_paused {
            engine.pause(BACKFILL);
        }
        if is_behind || is_paused {
            return;
        }
        self.place(engine);
        self.ask(engine);
    }

    pub(super) fn deadline(&self, now: Duration) -> Option<Duration> {
        self.heads.deadline(now)
    }

    /// Begins to fetch a segment whose head is proved.
    fn begin(&mut self, engine: &mut Engine, head: SegmentHead, here: &[bool]) {
        let index = SegmentIndex(head.descriptor.index);
        let chunks = u32::try_from(head.chunks.len()).unwrap_or(u32::MAX);
        let id = BACKFILL.segment(index);
        engine.add_segment(Segment::new(id, head.descriptor.bytes, chunks, here));
        self.missing.remove(&index);
        self.begun.insert(index, head);
    }

    /// Fetches none of these segments.
    fn forget(&mut self, engine: &mut Engine, range: SegmentRange) {
        self.missing.retain(|index, _| !range.contains(*index));
        let begun = self.begun.range(range.first..=range.last);
        let begun: Vec<SegmentIndex> = begun.map(|(index, _)| *index).collect();
        begun.into_iter().for_each(|index| self.end(engine, index));
        self.heads.keep_only(|index| self.missing.contains_key(&index));
    }

    /// Stops fetching a segment.
    fn end(&mut self, engine: &mut Engine, index: SegmentIndex) {
        self.begun.remove(&index);
        self.placing = self.placing.filter(|placing| *placing != index);
        engine.downloads.remove_segment(BACKFILL.segment(index));
        engine.push(Effect::Release(BACKFILL.segment(index)));
    }

    /// Has one complete segment at a time put in its place.
    fn place(&mut self, engine: &mut Engine) {
        if self.placing.is_some() {
            return;
        }
        let complete = engine.segments().of(BACKFILL).find(|segment| segment.missing() == 0);
        self.placing = complete.map(|segment| segment.id().index);
        if let Some(index) = self.placing {
            engine.push(Effect::Keep(index));
        }
    }

    /// Whether one more segment may be open.
    fn has_room(&self, next: &SegmentDescriptor) -> bool {
        let asked = self.heads.asked().filter_map(|index| self.missing.get(&index));
        let open = self.begun.values().map(|head| &head.descriptor).chain(asked);
        let (count, bytes) = open.fold((0usize, next.bytes), |(count, bytes), one| {
            (count.saturating_add(1), bytes.saturating_add(one.bytes))
        });
        count == 0 || (count < OPEN_SEGMENTS_MAX && bytes <= STAGED_BYTES_MAX)
    }
}
