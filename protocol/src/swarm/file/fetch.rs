//! What is wanted of one file, and how it is fetched: heads from the peers that claim a segment,
//! then chunks by the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ledger::file::{FileDescriptor, FileHead, SEGMENT_BYTES};
use ledger::hash::{FileId, Hash};
use ledger::units::SegmentIndex;

use super::chunks_max;
use crate::ids::PeerId;
use crate::swarm::census::Holder;
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

/// How often peers are told of a fetch while none of them has any of the file, or it is stalled.
const ANNOUNCE: Duration = Duration::from_secs(30);

/// A fetch is stalled if fewer than [`PROGRESS`] bytes arrive in this time, whatever peers claim.
/// Then other holders are looked for although some chunks come, and idle segments may be closed. In
/// a shorter time an honest holder may not have an upload slot for this node yet.
const STALL: Duration = Duration::from_secs(60);

/// Bytes that must arrive within [`STALL`]: eight chunks. So a peer that gives a chunk now and then
/// does not end the search for others.
const PROGRESS: u64 = 1 << 20;

/// A stalled fetch gives its place to one that waits after this time. A shorter time would close
/// files before holders that were just found are connected and have a slot.
const STUCK: Duration = Duration::from_secs(300);

/// An open segment.
#[derive(Debug)]
struct Begun {
    /// The hashes of its chunks.
    head: FileHead,
    /// When it was opened, and then when its last chunk arrived.
    chunk_at: Duration,
}

/// A part of a file that is fetched.
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
    begun: BTreeMap<SegmentIndex, Begun>,
    /// Of segments that are not open, the chunks that are here, if some are and some are not: of
    /// those that were whole and lost a chunk, and of those that were closed. 128 bytes for each.
    partial: BTreeMap<SegmentIndex, Vec<bool>>,
    pub(super) heads: Heads,
    /// Peers that were late with a head, or claim a segment of which no chunk came in time, and
    /// that have sent no chunk since. What others claim is fetched first.
    silent: BTreeSet<PeerId>,
    /// The peers that sent chunks.
    pub(super) suppliers: BTreeSet<PeerId>,
    /// The rate of chunks. An average over at least 16 of them keeps it steady.
    pub(super) meter: Meter<16>,
    /// When the last chunk arrived.
    pub(super) last_chunk_at: Option<Duration>,
    /// Since when fewer than [`PROGRESS`] bytes have arrived. `None` while nothing is fetched.
    pub(super) progress_at: Option<Duration>,
    /// Bytes that have arrived since then.
    progress_bytes: u64,
    /// When it lost its place to another fetch the last time.
    pub(super) stopped_at: Option<Duration>,
    /// When peers were told of it last, or were not because it went on.
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
        (self.progress_at, self.stopped_at) = (None, None);
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
        self.begun.get(&segment).map(|begun| &begun.head)
    }

    pub(super) fn chunk_hash(&self, id: ChunkId) -> Option<Hash> {
        let begun = self.begun.get(&id.segment.index)?;
        begun.head.chunks.get(usize::try_from(id.chunk).ok()?).copied()
    }

    pub(super) fn on_chunk(&mut self, from: PeerId, id: ChunkId, bytes: u64, now: Duration) {
        self.suppliers.insert(from);
        self.silent.remove(&from);
        if let Some(begun) = self.begun.get_mut(&id.segment.index) {
            begun.chunk_at = now;
        }
        if let Some(since) = self.last_chunk_at.replace(now) {
            self.meter.add(bytes, now.saturating_sub(since));
        }
        self.progress_bytes = self.progress_bytes.saturating_add(bytes);
        if self.progress_bytes >= PROGRESS {
            (self.progress_at, self.progress_bytes) = (Some(now), 0);
        }
    }

    /// Since when almost nothing has arrived, if that is long.
    pub(super) fn stuck_since(&self, now: Duration) -> Option<Duration> {
        self.progress_at.filter(|at| at.saturating_add(STUCK) <= now)
    }

    /// Whether it may take the place of a fetch that is stuck: it never had one, or lost its own
    /// long ago.
    pub(super) fn is_next(&self, now: Duration) -> bool {
        self.stopped_at.is_none_or(|at| at.saturating_add(STUCK) <= now)
    }

    /// Whether almost nothing has arrived for a while.
    pub(super) fn is_stalled(&self, now: Duration) -> bool {
        self.progress_at.is_some_and(|at| at.saturating_add(STALL) <= now)
    }

    pub(super) fn on_lost(&mut self, engine: &Engine, id: ChunkId) {
        let index = id.segment.index;
        if engine.segments().get(id.segment).is_none() && self.wanted.contains(index) {
            let all = || vec![true; chunks_max() as usize];
            let here = self.partial.entry(index).or_insert_with(all);
            if let Some(is_here) = usize::try_from(id.chunk).ok().and_then(|at| here.get_mut(at)) {
                *is_here = false;
            }
            self.missing.insert(SegmentRange { first: index, last: index });
            (self.is_due, self.is_done) = (true, false);
        }
    }

    pub(super) fn on_closed(&mut self, peer: PeerId) {
        self.heads.on_closed(peer);
        self.silent.remove(&peer);
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
        let here = self.partial.remove(&index).unwrap_or_else(|| here.to_vec());
        let bytes = head.descriptor.segment_bytes(index.0);
        engine.add_segment(Segment::new(number.segment(index), bytes, chunks, &here));
        self.missing.remove(index);
        self.begun.insert(index, Begun { head, chunk_at: engine.now });
    }

    /// Stops fetching for now. What is here of open segments is remembered.
    pub(super) fn suspend(&mut self, engine: &Engine, number: CollectionNumber) {
        for (index, Begun { head, .. }) in std::mem::take(&mut self.begun) {
            self.missing.insert(SegmentRange { first: index, last: index });
            let here = chunks_here(engine, number, &head);
            self.found.insert(index, (head, here));
        }
        self.heads.keep_only(|_| false);
        (self.is_due, self.progress_at) = (true, None);
        self.stopped_at = Some(engine.now);
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
        if self.progress_at.is_none() {
            (self.progress_at, self.progress_bytes) = (Some(engine.now), 0);
        }
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
        if self.is_done {
            self.progress_at = None;
        }
    }

    pub(super) fn deadline(&self, now: Duration) -> Option<Duration> {
        let announced = self.announced_at.filter(|_| !self.is_done);
        // When it is told again is also when a stalled fetch is looked at again.
        let again = announced.map(|at| at.saturating_add(ANNOUNCE));
        let stalls = self.progress_at.filter(|_| !self.is_done);
        let stalls = stalls.map(|at| at.saturating_add(STALL));
        let times = again.into_iter().chain(stalls).filter(|at| *at > now);
        times.chain(self.heads.deadline(now)).min()
    }

    /// Announces the fetch again, since the first message may have been dropped.
    fn announce(&mut self, engine: &mut Engine, number: CollectionNumber) {
        let announced_at = *self.announced_at.get_or_insert(engine.now);
        if announced_at.saturating_add(ANNOUNCE) > engine.now {
            return;
        }
        self.announced_at = Some(engine.now);
        self.is_due |= self.is_stalled(engine.now);
        let is_known = engine.census.peers().any(|(_, holder)| holder.knows(number));
        if !is_known || self.is_stalled(engine.now) {
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

    /// Asks for heads, each from a peer that claims any chunk of the segment. A late head leaves
    /// its place to those that other peers may give.
    fn ask(&mut self, engine: &mut Engine, number: CollectionNumber, id: FileId, is_known: bool) {
        self.silent.extend(self.heads.take_late(engine.now));
        if !is_known {
            return self.ask_first(engine, number, id);
        }
        let mut free = self.missing.clone();
        for index in self.heads.asked() {
            free.remove(index);
        }
        self.close_idle(engine, number, &free);
        while self.heads.count() < HEADS_MAX
            && self.heads.count().saturating_add(self.begun.len()) < OPEN_SEGMENTS_MAX
        {
            let Some((_, index)) = self.next_of(engine, number, &free) else { return };
            free.remove(index);
            self.ask_for(engine, number, id, index);
        }
    }

    /// The first of these segments that a peer claims, and whether all that claim it are silent:
    /// one that other peers claim comes first.
    fn next_of(
        &self,
        engine: &Engine,
        number: CollectionNumber,
        segments: &SegmentRanges,
    ) -> Option<(bool, SegmentIndex)> {
        let firsts = engine.census.peers().filter_map(|(peer, holder)| {
            let first = holder.first_of(number, segments)?;
            Some((self.silent.contains(&peer), first))
        });
        firsts.min()
    }

    /// If no more segments may be open and the fetch is stalled, closes those of which no chunk
    /// comes, as long as other peers claim one of the `others`. Whoever gives true heads and no
    /// chunks would keep all places otherwise.
    fn close_idle(
        &mut self,
        engine: &mut Engine,
        number: CollectionNumber,
        others: &SegmentRanges,
    ) {
        if self.begun.len() < OPEN_SEGMENTS_MAX || !self.is_stalled(engine.now) {
            return;
        }
        let is_idle = |begun: &Begun| begun.chunk_at.saturating_add(STALL) <= engine.now;
        let idle = self.begun.iter().filter(|(_, begun)| is_idle(begun));
        let idle: Vec<SegmentIndex> = idle.map(|(index, _)| *index).collect();
        let claims =
            |holder: &Holder| idle.iter().any(|index| holder.has_any(number.segment(*index)));
        let claiming = engine.census.peers().filter(|(_, holder)| claims(holder));
        self.silent.extend(claiming.map(|(peer, _)| peer));
        if self.next_of(engine, number, others).is_none_or(|(is_silent, _)| is_silent) {
            return;
        }
        for index in idle {
            let Some(Begun { head, .. }) = self.begun.remove(&index) else { continue };
            let here = chunks_here(engine, number, &head);
            if here.contains(&true) {
                self.partial.insert(index, here);
            }
            self.missing.insert(SegmentRange { first: index, last: index });
            engine.close_segment(number.segment(index));
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
            let is_silent = self.silent.contains(peer);
            (is_silent, unanswered, *index != first, *index, last)
        });
        if let Some((peer, index)) = best {
            self.request(engine, peer, id, index);
        }
    }

    /// Asks one peer for a head: of those that claim any chunk of the segment, one that is not
    /// silent if there is one, and of these one with the fewest unanswered requests in a row.
    fn ask_for(
        &mut self,
        engine: &mut Engine,
        number: CollectionNumber,
        id: FileId,
        index: SegmentIndex,
    ) {
        let holders = engine.census.peers();
        let holding = holders.filter(|(_, holder)| holder.has_any(number.segment(index)));
        let rank = |peer: &PeerId| (self.silent.contains(peer), self.heads.rank(*peer));
        let Some(peer) = holding.map(|(peer, _)| peer).min_by_key(rank) else { return };
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

/// For each chunk of an open segment, whether it is here.
fn chunks_here(engine: &Engine, number: CollectionNumber, head: &FileHead) -> Vec<bool> {
    let open = engine.segments().get(number.segment(SegmentIndex(head.index())));
    let chunks = (0u32..).take(head.chunks.len());
    chunks.map(|chunk| open.is_some_and(|open| open.has(chunk))).collect()
}

/// Bytes of these segments.
pub(super) fn bytes_of(segments: &SegmentRanges, descriptor: &FileDescriptor) -> u64 {
    let start = |index: u64| index.saturating_mul(SEGMENT_BYTES).min(descriptor.length);
    let lengths = segments.iter().map(|SegmentRange { first, last }| {
        start(last.0.saturating_add(1)).saturating_sub(start(first.0))
    });
    lengths.fold(0, u64::saturating_add)
}
