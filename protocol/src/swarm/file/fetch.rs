//! What is wanted of one file, and how it is fetched: heads from the peers that claim a segment,
//! then chunks by the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ledger::file::{FileDescriptor, FileHead, SEGMENT_BYTES};
use ledger::hash::{FileId, Hash};
use ledger::units::SegmentIndex;

use crate::ids::PeerId;
use crate::swarm::engine::Engine;
use crate::swarm::heads::Heads;
use crate::swarm::input::ByteRange;
use crate::swarm::message::{ChunkId, CollectionNumber, SyncMessage};
use crate::swarm::meter::Meter;
use crate::swarm::ranges::{SegmentRange, SegmentRanges};
use crate::swarm::segments::{OPEN_SEGMENTS_MAX, Segment};

/// Most heads asked for at a time. A head proves 16 MiB, so eight of them keep a link busy while
/// the next ones come.
const HEADS_MAX: usize = 8;

/// How often a fetch is announced to peers while none of them has any of the file.
const ANNOUNCE: Duration = Duration::from_secs(30);

/// The fetch of a file, whole or in parts.
#[derive(Debug, Default)]
pub(super) struct Fetch {
    /// The wanted ranges, until the length of the file is known.
    unresolved: Vec<ByteRange>,
    /// All segments that are wanted, here or not.
    wanted: SegmentRanges,
    /// The wanted segments that are neither here nor begun.
    missing: SegmentRanges,
    /// Segments that an earlier run began, until they begin here.
    found: BTreeMap<SegmentIndex, (FileHead, Vec<bool>)>,
    /// The open segments, with the hashes of their chunks.
    begun: BTreeMap<SegmentIndex, FileHead>,
    /// Chunks that were lost from segments which were whole.
    lost: BTreeMap<SegmentIndex, BTreeSet<u32>>,
    pub(super) heads: Heads,
    /// The peers that sent chunks.
    pub(super) suppliers: BTreeSet<PeerId>,
    /// The rate of chunks. An average over at least 16 of them keeps it steady.
    pub(super) meter: Meter<16>,
    /// When the last chunk arrived.
    pub(super) last_chunk_at: Option<Duration>,
    /// When it was last announced to peers, while none of them has any of the file.
    announced_at: Option<Duration>,
    /// Whether peers may be asked for heads that nobody could be asked for before.
    pub(super) is_due: bool,
    /// Whether everything that is wanted is here.
    pub(super) is_done: bool,
}

impl Fetch {
    /// A part of the file is wanted too. `found` is what an earlier run began.
    pub(super) fn want(&mut self, range: ByteRange, found: Vec<(FileHead, Vec<bool>)>) {
        self.unresolved.push(range);
        let found =
            found.into_iter().map(|(head, here)| (SegmentIndex(head.index()), (head, here)));
        self.found.extend(found);
        (self.is_due, self.is_done) = (true, false);
    }

    /// These segments are here, whoever brought them.
    pub(super) fn on_found(&mut self, whole: &SegmentRanges) {
        whole.iter().for_each(|range| self.missing.remove_range(range));
    }

    /// The length is known, so it is known which segments are wanted.
    pub(super) fn resolve(
        &mut self,
        engine: &Engine,
        number: CollectionNumber,
        descriptor: &FileDescriptor,
    ) {
        for ByteRange { first, last } in std::mem::take(&mut self.unresolved) {
            let Some(segments) = descriptor.segments_of(first, last) else { continue };
            let last = SegmentIndex(segments.end.saturating_sub(1));
            let range = SegmentRange { first: SegmentIndex(segments.start), last };
            self.wanted.insert(range);
            self.missing.insert(range);
            for index in self.begun.keys() {
                self.missing.remove(*index);
            }
            if let Some(collection) = engine.collection(number) {
                collection.whole.iter().for_each(|range| self.missing.remove_range(range));
            }
        }
    }

    /// Whether a segment is wanted and neither here nor begun.
    pub(super) fn is_missing(&self, segment: SegmentIndex) -> bool {
        self.missing.contains(segment)
    }

    /// The head of an open segment.
    pub(super) fn begun(&self, segment: SegmentIndex) -> Option<&FileHead> {
        self.begun.get(&segment)
    }

    pub(super) fn chunk_hash(&self, id: ChunkId) -> Option<Hash> {
        let head = self.begun.get(&id.segment.index)?;
        head.chunks.get(usize::try_from(id.chunk).ok()?).copied()
    }

    pub(super) fn on_chunk(&mut self, from: PeerId, bytes: u64, now: Duration) {
        self.suppliers.insert(from);
        if let Some(since) = self.last_chunk_at.replace(now) {
            self.meter.add(bytes, now.saturating_sub(since));
        }
    }

    pub(super) fn on_lost(&mut self, engine: &Engine, id: ChunkId) {
        let index = id.segment.index;
        if engine.segments().get(id.segment).is_none() && self.wanted.contains(index) {
            self.lost.entry(index).or_default().insert(id.chunk);
            self.missing.insert(SegmentRange { first: index, last: index });
            (self.is_due, self.is_done) = (true, false);
        }
    }

    pub(super) fn on_closed(&mut self, peer: PeerId) {
        self.heads.on_closed(peer);
        self.is_due = true;
    }

    /// Begins to fetch a missing segment, whose head is proved. `here` has one flag for each chunk
    /// that an earlier run stored.
    pub(super) fn begin(
        &mut self,
        engine: &mut Engine,
        number: CollectionNumber,
        head: FileHead,
        here: &[bool],
    ) {
        let index = SegmentIndex(head.index());
        let chunks = u32::try_from(head.chunks.len()).unwrap_or(u32::MAX);
        let kept = self.lost.remove(&index);
        let kept = kept.map(|lost| (0..chunks).map(|chunk| !lost.contains(&chunk)).collect());
        let here: Vec<bool> = kept.unwrap_or_else(|| here.to_vec());
        let bytes = head.descriptor.segment_bytes(index.0);
        engine.add_segment(Segment::new(number.segment(index), bytes, chunks, &here));
        self.missing.remove(index);
        self.begun.insert(index, head);
    }

    /// Stops fetching for now. What is here of open segments is remembered.
    pub(super) fn suspend(&mut self, engine: &Engine, number: CollectionNumber) {
        for (index, head) in std::mem::take(&mut self.begun) {
            self.missing.insert(SegmentRange { first: index, last: index });
            let open = engine.segments().get(number.segment(index));
            let here = (0u32..).take(head.chunks.len());
            let here = here.map(|chunk| open.is_some_and(|open| open.has(chunk))).collect();
            self.found.insert(index, (head, here));
        }
        self.heads.keep_only(|_| false);
        self.is_due = true;
    }

    /// Puts complete segments in their place, begins those that an earlier run left, and asks for
    /// heads.
    pub(super) fn advance(
        &mut self,
        engine: &mut Engine,
        number: CollectionNumber,
        id: FileId,
        descriptor: &mut Option<FileDescriptor>,
    ) {
        let found = self.found.values().next().map(|(head, _)| head.descriptor);
        *descriptor = descriptor.or(found);
        if let Some(descriptor) = descriptor {
            self.resolve(engine, number, descriptor);
        }
        self.place(engine, number);
        if engine.paused_until(number).is_some() {
            return;
        }
        self.begin_found(engine, number);
        self.announce(engine, number);
        self.heads.keep_only(|index| descriptor.is_none() || self.missing.contains(index));
        if self.is_due || self.heads.late(engine.now).is_some() {
            self.is_due = false;
            self.ask(engine, number, id, descriptor.is_some());
        }
        self.is_done =
            self.unresolved.is_empty() && self.missing.is_empty() && self.begun.is_empty();
    }

    pub(super) fn deadline(&self, now: Duration) -> Option<Duration> {
        let announced = self.announced_at.filter(|_| !self.is_done);
        let again = announced.map(|at| at.saturating_add(ANNOUNCE)).filter(|at| *at > now);
        again.into_iter().chain(self.heads.deadline(now)).min()
    }

    /// Announces the fetch again, since the first message may have been dropped.
    fn announce(&mut self, engine: &mut Engine, number: CollectionNumber) {
        let announced_at = *self.announced_at.get_or_insert(engine.now);
        if announced_at.saturating_add(ANNOUNCE) > engine.now {
            return;
        }
        self.announced_at = Some(engine.now);
        let is_known = engine.census.peers().any(|(_, holder)| holder.knows(number));
        if !is_known {
            engine.open_again(number);
        }
    }

    fn place(&mut self, engine: &mut Engine, number: CollectionNumber) {
        let complete = engine.segments().of(number).filter(|segment| segment.missing() == 0);
        let complete: Vec<SegmentIndex> = complete.map(|segment| segment.id().index).collect();
        for index in complete {
            self.begun.remove(&index);
            engine.on_whole(number, SegmentRange { first: index, last: index });
            engine.downloads.remove_segment(number.segment(index));
            self.is_due = true;
        }
    }

    fn begin_found(&mut self, engine: &mut Engine, number: CollectionNumber) {
        let mut has_begun = false;
        while self.begun.len() < OPEN_SEGMENTS_MAX
            && let Some((index, (head, here))) = self.found.pop_first()
        {
            if self.missing.contains(index) {
                self.begin(engine, number, head, &here);
                has_begun = true;
            }
        }
        if has_begun {
            engine.send_holdings_to_all(number);
        }
    }

    /// Asks for heads, each from a peer that claims any chunk of the segment.
    fn ask(&mut self, engine: &mut Engine, number: CollectionNumber, id: FileId, is_known: bool) {
        let asked = self.heads.asked();
        let late = asked.filter(|index| self.heads.is_late(*index, engine.now));
        let late: Vec<SegmentIndex> = late.collect();
        if !is_known {
            // The file may have no such segment, although a peer claims it.
            self.heads.keep_only(|index| !late.contains(&index));
            return self.ask_first(engine, number, id);
        }
        for index in late {
            self.ask_for(engine, number, id, index);
        }
        let mut free = self.missing.clone();
        for index in self.heads.asked() {
            free.remove(index);
        }
        while self.heads.count() < HEADS_MAX
            && self.heads.count().saturating_add(self.begun.len()) < OPEN_SEGMENTS_MAX
        {
            let holders = engine.census.peers();
            let firsts = holders.filter_map(|(_, holder)| holder.first_of(number, &free));
            let Some(index) = firsts.min() else { return };
            free.remove(index);
            self.ask_for(engine, number, id, index);
        }
    }

    /// Asks for one head, since any head tells the length. It asks a peer with the fewest
    /// unanswered requests in a row, for the head of the first wanted byte if the peer has it, or
    /// else for that of its first segment.
    fn ask_first(&mut self, engine: &mut Engine, number: CollectionNumber, id: FileId) {
        if self.heads.count() > 0 {
            return;
        }
        let first = self.unresolved.iter().map(|range| range.first).min().unwrap_or(0);
        let first = SegmentIndex(first.checked_div(SEGMENT_BYTES).unwrap_or(0));
        let all = SegmentRange { first: SegmentIndex(0), last: SegmentIndex(u64::MAX) };
        let mut any = SegmentRanges::default();
        any.insert(all);
        let claims = engine.census.peers().filter_map(|(peer, holder)| {
            let has_first = holder.has_any(number.segment(first));
            let index = if has_first { first } else { holder.first_of(number, &any)? };
            Some((peer, index))
        });
        let best = claims.min_by_key(|(peer, index)| {
            let (unanswered, last) = self.heads.rank(*peer);
            (unanswered, *index != first, *index, last)
        });
        if let Some((peer, index)) = best {
            self.request(engine, peer, id, index);
        }
    }

    /// Asks one peer for a head: of those that claim any chunk of the segment, one with the fewest
    /// unanswered requests in a row.
    fn ask_for(
        &mut self,
        engine: &mut Engine,
        number: CollectionNumber,
        id: FileId,
        index: SegmentIndex,
    ) {
        let holders = engine.census.peers();
        let holding = holders.filter(|(_, holder)| holder.has_any(number.segment(index)));
        let Some(peer) = holding.map(|(peer, _)| peer).min_by_key(|peer| self.heads.rank(*peer))
        else {
            return;
        };
        self.request(engine, peer, id, index);
    }

    fn request(&mut self, engine: &mut Engine, peer: PeerId, id: FileId, index: SegmentIndex) {
        self.heads.on_asked(index, peer, engine.now);
        engine.send(peer, &SyncMessage::GetFileHead(id, index));
    }

    /// For display: bytes of all wanted segments, and of these the bytes that are here. Whole
    /// segments count, since whole segments are fetched.
    pub(super) fn bytes(
        &self,
        engine: &Engine,
        number: Option<CollectionNumber>,
        descriptor: &FileDescriptor,
    ) -> (u64, u64) {
        let wanted = bytes_of(&self.wanted, descriptor);
        let open = number.into_iter().flat_map(|number| engine.segments().of(number));
        let lacking = open.flat_map(|segment| {
            let first = segment.id().index.0.saturating_mul(ledger::file::SEGMENT_CHUNKS);
            segment.missing_chunks().map(move |id| first.saturating_add(u64::from(id.chunk)))
        });
        let lacking = lacking.map(|chunk| descriptor.chunk_bytes(chunk));
        let lacking = lacking.fold(bytes_of(&self.missing, descriptor), u64::saturating_add);
        (wanted, wanted.saturating_sub(lacking))
    }
}

/// Bytes of these segments.
pub(super) fn bytes_of(segments: &SegmentRanges, descriptor: &FileDescriptor) -> u64 {
    let start = |index: u64| index.saturating_mul(SEGMENT_BYTES).min(descriptor.length);
    let lengths = segments.iter().map(|SegmentRange { first, last }| {
        start(last.0.saturating_add(1)).saturating_sub(start(first.0))
    });
    lengths.fold(0, u64::saturating_add)
}
