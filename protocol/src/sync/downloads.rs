//! What to fetch from whom.
//!
//! A node tells each peer which chunks it *wants* from it and how many it may send; the peer picks. A missing chunk is wanted from one
//! peer at a time, so nothing comes twice, until the end. Only sources, which have a whole segment, are offered more than they may
//! send: then a source can give each chunk to one node first, and nobody has to guess what others asked it for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ledger::hash::Hash;
use ledger::history::SegmentHead;

use super::census::{Census, mix, place};
use super::message::{ChunkId, Update};
use super::meter::{Limit, Meter, bytes_in, time_for};
use crate::ids::PeerId;

/// Chunks that a source may choose from, beyond those it may send at once.
const OFFERED: usize = 64;
/// The first chunks are any chunks, so that a newcomer soon has something to give (Cohen, 2003: "random first piece").
const RANDOM_FIRST: u64 = 4;
/// A peer is asked for what comes within its round trip and so much time.
const AHEAD: Duration = Duration::from_millis(500);
/// Most chunks that one peer may send at a time.
const DEPTH_MAX: u64 = 64;
/// Bytes on their way from all peers; room is taken before a peer is told that it may send.
pub(crate) const IN_FLIGHT_BYTES_MAX: u64 = 32 << 20;
/// A late peer is noticed after so long at the latest, however slow it was.
const LATE_MOST: Duration = Duration::from_secs(10);
/// A peer that sends nothing for so long, or for four times what a chunk takes it, is late: others may be asked for its chunks.
const LATE: Duration = Duration::from_secs(2);
/// The same for a peer that never sent anything.
const LATE_AT_FIRST: Duration = Duration::from_secs(3);
/// Chunks that are fetched before others; beyond them only if a peer would idle.
const WINDOW_BYTES: u64 = 64 << 20;
/// When no more than one chunk of so many is missing, each may be asked for twice. Not before: where all upload as much as they can,
/// what comes twice makes others wait.
const TWICE_ONE_IN: u64 = 200;
/// So few may be asked for twice in any case.
const TWICE_LEAST: u64 = 3;

#[derive(Clone, Copy, Debug, Default)]
struct Chunk {
    is_here: bool,
    /// Whom it is wanted from.
    from: Option<PeerId>,
    /// Whom else, at the end or when the first is late.
    also_from: Option<PeerId>,
}

#[derive(Debug)]
struct Segment {
    head: SegmentHead,
    chunks: Vec<Chunk>,
    missing: u64,
    /// Chunks that are missing and wanted from nobody.
    free: u64,
}

#[derive(Debug)]
struct Peer {
    /// What is wanted from it.
    wants: BTreeSet<ChunkId>,
    /// Wants that were withdrawn after it was told of them: so many chunks may come that are not wanted.
    withdrawn: u64,
    received: u64,
    allowed: u64,
    /// Since when it could have sent something: the last chunk, or the end of idleness.
    busy_since: Option<Duration>,
    was_idle: bool,
    round_trip: Option<Duration>,
    meter: Meter,
    is_late: bool,
    /// It has no upload slot before this time.
    busy_until: Duration,
    fetched_bytes: u64,
    news: Update,
    has_news: bool,
}

/// What an arriving chunk is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is what the manifest says and was missing.
    New,
    /// It is what the manifest says and was here.
    Duplicate,
    /// Nothing is known to check it against: it was wanted before its segment was applied.
    Unknown,
    /// It is not what the manifest says.
    Bad,
    /// The peer was never asked for it.
    Unasked,
    /// The peer sent more than it was allowed to.
    TooMany,
}

/// All that is being fetched, and from whom.
#[derive(Debug)]
pub(crate) struct Downloads {
    chunk_bytes: u64,
    salt: u64,
    segments: BTreeMap<u64, Segment>,
    peers: BTreeMap<PeerId, Peer>,
    limit: Limit,
    /// Chunks that came and were missing.
    verified: u64,
    duplicate_bytes: u64,
    fetched_bytes: u64,
    /// Chunks that were looked at for work, and times that the work of others was.
    #[cfg(test)]
    looks: u64,
}

impl Downloads {
    pub(crate) fn new(chunk_bytes: u64, salt: u64, limit: Limit) -> Self {
        Self {
            chunk_bytes,
            salt,
            segments: BTreeMap::new(),
            peers: BTreeMap::new(),
            limit,
            verified: 0,
            duplicate_bytes: 0,
            fetched_bytes: 0,
            #[cfg(test)]
            looks: 0,
        }
    }

    pub(crate) fn on_opened(&mut self, peer: PeerId) {
        let fresh = Peer {
            wants: BTreeSet::new(),
            withdrawn: 0,
            received: 0,
            allowed: 0,
            busy_since: None,
            was_idle: true,
            round_trip: None,
            meter: Meter::default(),
            is_late: false,
            busy_until: Duration::ZERO,
            fetched_bytes: 0,
            news: Update::default(),
            has_news: false,
        };
        self.peers.insert(peer, fresh);
    }

    /// What it was asked for is free to be asked from others.
    pub(crate) fn on_closed(&mut self, peer: PeerId) {
        let Some(gone) = self.peers.remove(&peer) else { return };
        for id in gone.wants {
            self.change(id, |chunk| chunk.release(peer));
        }
    }

    /// Begins to fetch a segment of which some chunks may be here.
    pub(crate) fn add_segment(&mut self, head: SegmentHead, here: &[bool]) {
        let chunks: Vec<Chunk> = (0..head.chunks.len())
            .map(|at| Chunk { is_here: here.get(at).copied().unwrap_or(false), ..Chunk::default() })
            .collect();
        let missing = chunks.iter().filter(|chunk| !chunk.is_here).count() as u64;
        self.segments.insert(head.descriptor.index, Segment { head, chunks, missing, free: missing });
    }

    /// Fetches no more of a segment: it is applied.
    pub(crate) fn remove_segment(&mut self, index: u64) {
        let Some(segment) = self.segments.remove(&index) else { return };
        for (at, chunk) in segment.chunks.iter().enumerate() {
            let id = ChunkId { segment: index, chunk: u32::try_from(at).unwrap_or(u32::MAX) };
            for peer in chunk.from.iter().chain(&chunk.also_from) {
                self.unwant(*peer, id);
            }
        }
    }

    /// A chunk that was here is not good: it is fetched again.
    pub(crate) fn lose(&mut self, id: ChunkId) {
        if self.has(id) {
            self.change(id, |chunk| *chunk = Chunk::default());
        }
    }

    pub(crate) fn head(&self, index: u64) -> Option<&SegmentHead> {
        self.segments.get(&index).map(|segment| &segment.head)
    }

    pub(crate) fn has(&self, id: ChunkId) -> bool {
        self.chunk(id).is_some_and(|chunk| chunk.is_here)
    }

    /// Segments being fetched, each with its number of chunks, and of missing ones.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.segments.iter().map(|(index, segment)| (*index, segment.chunks.len() as u64, segment.missing))
    }

    /// Which chunks of a segment are here.
    pub(crate) fn here(&self, index: u64) -> impl Iterator<Item = bool> {
        self.segments.get(&index).into_iter().flat_map(|segment| segment.chunks.iter().map(|chunk| chunk.is_here))
    }

    pub(crate) const fn totals(&self) -> (u64, u64) {
        (self.fetched_bytes, self.duplicate_bytes)
    }

    /// For people: what is on its way from a peer, what came from it, and its rate.
    pub(crate) fn show(&self, peer: PeerId, now: Duration) -> (u64, u64, u64) {
        let Some(peer) = self.peers.get(&peer) else { return (0, 0, 0) };
        (peer.allowed.saturating_sub(peer.received), peer.fetched_bytes, peer.rate(now).unwrap_or(0))
    }

    /// Takes in a chunk that came, by its hash.
    pub(crate) fn on_chunk(&mut self, from: PeerId, id: ChunkId, hash: Hash, bytes: u64, now: Duration) -> Arrival {
        let Some(peer) = self.peers.get_mut(&from) else { return Arrival::Unknown };
        if peer.received >= peer.allowed {
            return Arrival::TooMany;
        }
        if !peer.wants.contains(&id) {
            let Some(withdrawn) = peer.withdrawn.checked_sub(1) else { return Arrival::Unasked };
            peer.withdrawn = withdrawn;
        }
        peer.on_chunk(bytes, now);
        self.fetched_bytes = self.fetched_bytes.saturating_add(bytes);
        let expected = self.head(id.segment).and_then(|head| head.chunks.get(id.chunk as usize));
        let arrival = match (expected, self.has(id)) {
            (None, _) => Arrival::Unknown,
            (Some(expected), _) if *expected != hash => Arrival::Bad,
            (Some(_), true) => Arrival::Duplicate,
            (Some(_), false) => Arrival::New,
        };
        match arrival {
            Arrival::New => {
                self.verified = self.verified.saturating_add(1);
                self.arrived(from, id);
            }
            Arrival::Duplicate | Arrival::Unknown => {
                self.duplicate_bytes = self.duplicate_bytes.saturating_add(bytes);
                self.forget_want(from, id);
            }
            Arrival::Bad | Arrival::Unasked | Arrival::TooMany => {}
        }
        arrival
    }

    fn arrived(&mut self, from: PeerId, id: ChunkId) {
        let Some(wanted) = self.chunk(id).copied() else { return };
        self.change(id, |chunk| *chunk = Chunk { is_here: true, ..Chunk::default() });
        self.forget_want(from, id);
        for other in wanted.from.iter().chain(&wanted.also_from).filter(|other| **other != from) {
            self.unwant(*other, id);
        }
    }

    /// No upload slot there for a while.
    pub(crate) fn on_busy(&mut self, peer: PeerId, until: Duration) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.busy_until = until;
        }
    }

    /// A chunk is there elsewhere too: a source gives others first, so it need not come from there. Gives the peers that have room by it.
    pub(crate) fn on_have(&mut self, holder: PeerId, id: ChunkId, census: &Census) -> Vec<PeerId> {
        let Some(chunk) = self.chunk(id).filter(|chunk| !chunk.is_here) else { return Vec::new() };
        let is_source = |peer| census.get(peer).is_some_and(|holdings| holdings.is_complete(id.segment));
        match chunk.from {
            None => vec![holder],
            Some(from) if is_source(from) && !is_source(holder) => {
                self.release(from, id);
                vec![holder, from]
            }
            Some(_) => Vec::new(),
        }
    }

    /// Who is given work first. Sources last, while there is something that they alone have: the others can do the rest. At the end
    /// they are peers like others: who has least to do is first, and chance decides, so that not all who fetch ask the same peer.
    pub(crate) fn turn(&self, peer: PeerId, census: &Census) -> (bool, usize, u64) {
        let wants = self.peers.get(&peer).map(|peer| &peer.wants);
        let only_sources_have = |want: &ChunkId| census.partial_holders(*want) == 0;
        let is_source = census.get(peer).is_some_and(|holdings| holdings.sealed > 0);
        let is_needed = is_source && wants.is_some_and(|wants| wants.iter().any(only_sources_have));
        (is_needed, wants.map_or(0, BTreeSet::len), mix(self.salt ^ mix(peer.0)))
    }

    /// Gives work to a peer that has room.
    pub(crate) fn fill(&mut self, id: PeerId, census: &Census, now: Duration) {
        self.note_lateness(id, now);
        let Some(peer) = self.peers.get(&id) else { return };
        if peer.busy_until > now || (peer.wants.is_empty() && !self.has_any(id, census)) {
            return;
        }
        let depth = self.depth(peer, now);
        let depth_room = usize::try_from(depth).unwrap_or(usize::MAX).saturating_sub(peer.wants.len());
        self.want_missing(id, census, depth_room);
        let still = |downloads: &Self| {
            let wanted = downloads.peers.get(&id).map_or(usize::MAX, |peer| peer.wants.len());
            usize::try_from(depth).unwrap_or(usize::MAX).saturating_sub(wanted)
        };
        let room = still(self);
        if room > 0 {
            self.take_over(id, census, room, now);
        }
        let room = still(self);
        if room > 0 {
            self.hasten(id, census, room, now);
        }
        self.allow(id, depth, now);
    }

    /// Whether a peer may have anything of what is missing. If not, it costs no look at what others are asked for.
    fn has_any(&self, id: PeerId, census: &Census) -> bool {
        let Some(holdings) = census.get(id) else { return false };
        self.segments.iter().any(|(index, segment)| segment.missing > 0 && holdings.has_any(*index))
    }

    /// Wants chunks that are wanted from nobody: as many as the peer has room for, and for a source some to choose from.
    fn want_missing(&mut self, id: PeerId, census: &Census, room: usize) {
        let (Some(peer), Some(holdings)) = (self.peers.get(&id), census.get(id)) else { return };
        let only_sources_have = |want: &&ChunkId| census.partial_holders(**want) == 0;
        let is_source = holdings.sealed > 0;
        let offered = if is_source { peer.wants.iter().filter(only_sources_have).count() } else { OFFERED };
        // Topped up when half of it has gone, so that not every chunk costs a look at all.
        let offers = if offered <= OFFERED / 2 { OFFERED.saturating_sub(offered) } else { 0 };
        if room == 0 && offers == 0 {
            return;
        }
        let mut candidates: Vec<((u32, bool, u64), ChunkId)> = Vec::new();
        let mut to_offer: Vec<ChunkId> = Vec::new();
        let (mut looked_at, mut last_window) = (0u64, u64::MAX);
        for (index, segment) in &self.segments {
            let is_window_over = looked_at >= WINDOW_BYTES && *index > last_window;
            if is_window_over && candidates.len() >= room && to_offer.len() >= offers {
                break;
            }
            if looked_at < WINDOW_BYTES {
                last_window = *index;
            }
            looked_at = looked_at.saturating_add(segment.head.descriptor.bytes);
            // A peer that has nothing of what is to be asked for costs a look at each segment, not at each chunk.
            if segment.free == 0 || !holdings.has_any(*index) {
                continue;
            }
            #[cfg(test)]
            {
                self.looks = self.looks.saturating_add(segment.chunks.len() as u64);
            }
            let sources = census.sources(*index);
            let source_count = u32::try_from(sources.len()).unwrap_or(u32::MAX);
            for (at, _) in segment.chunks.iter().enumerate().filter(|(_, chunk)| chunk.is_free()) {
                let chunk = ChunkId { segment: *index, chunk: u32::try_from(at).unwrap_or(u32::MAX) };
                if !census.has(id, chunk) {
                    continue;
                }
                let others = u32::from(census.partial_holders(chunk));
                let random = mix(self.salt ^ place(chunk));
                if self.verified < RANDOM_FIRST && others > 0 {
                    candidates.push(((0, false, random), chunk));
                    continue;
                }
                let holders = source_count.saturating_add(others);
                if others > 0 {
                    candidates.push(((holders, false, random), chunk));
                    continue;
                }
                let is_owner = census.owner(&sources, chunk) == Some(id);
                candidates.push(((holders, !is_owner, place(chunk)), chunk));
                if is_owner && to_offer.len() < offers {
                    to_offer.push(chunk);
                }
            }
        }
        if candidates.len() > room && room > 0 {
            candidates.select_nth_unstable(room.saturating_sub(1));
        }
        for (_, chunk) in candidates.into_iter().take(room) {
            self.want(id, chunk);
        }
        for chunk in to_offer {
            if self.chunk(chunk).is_some_and(Chunk::is_free) {
                self.want(id, chunk);
            }
        }
    }

    /// Takes over what is wanted from a late peer, or from one that was offered more than it can send soon.
    fn take_over(&mut self, id: PeerId, census: &Census, room: usize, now: Duration) {
        #[cfg(test)]
        {
            self.looks = self.looks.saturating_add(1);
        }
        let mut candidates = Vec::new();
        for (other, peer) in self.peers.iter().filter(|(other, _)| **other != id) {
            let is_stuck = peer.is_late || peer.busy_until > now;
            let kept = if is_stuck { 0 } else { usize::try_from(self.depth(peer, now)).unwrap_or(usize::MAX) };
            // It sends the first ones first.
            for chunk in peer.wants.iter().skip(kept).filter(|chunk| census.has(id, **chunk)) {
                candidates.push((!is_stuck, Reverse(peer.wants.len()), Reverse(*chunk), *other));
            }
        }
        candidates.sort_unstable();
        for (_, _, Reverse(chunk), other) in candidates.into_iter().take(room) {
            self.release(other, chunk);
            // If a second peer was asked for it, that one stays.
            if self.chunk(chunk).is_some_and(Chunk::is_free) {
                self.want(id, chunk);
            }
        }
    }

    /// Wants a chunk from a peer no more: others may be asked for it.
    fn release(&mut self, id: PeerId, chunk: ChunkId) {
        self.unwant(id, chunk);
        self.change(chunk, |state| state.release(id));
    }

    /// At the end, when all that is missing may be on its way: asks a peer for what much slower ones were asked for, instead of them; and for
    /// the very last chunks besides them, if it will be faster. Only for those, as some will come twice.
    fn hasten(&mut self, id: PeerId, census: &Census, room: usize, now: Duration) {
        let missing = self.segments.values().fold(0u64, |sum, segment| sum.saturating_add(segment.missing));
        let total = self.verified.saturating_add(missing);
        let may_be_twice = missing <= (total / TWICE_ONE_IN).max(TWICE_LEAST);
        let on_way = self.peers.values().fold(0u64, |sum, peer| sum.saturating_add(peer.in_flight()));
        if missing > on_way {
            return;
        }
        let Some(mine) = self.peers.get(&id).map(|peer| self.time_to_clear(peer, now)) else { return };
        let mut candidates = Vec::new();
        for (other, peer) in self.peers.iter().filter(|(other, _)| **other != id) {
            let theirs = self.time_to_clear(peer, now);
            if theirs > mine.saturating_mul(2) {
                let single = |chunk: &&ChunkId| self.chunk(**chunk).is_some_and(|state| state.also_from.is_none());
                let held = peer.wants.iter().filter(single).filter(|chunk| census.has(id, **chunk));
                candidates.extend(held.map(|chunk| (Reverse(theirs), *chunk, *other)));
            }
        }
        candidates.sort_unstable();
        for (Reverse(theirs), chunk, other) in candidates.into_iter().take(room) {
            if may_be_twice {
                self.change(chunk, |state| state.also_from = Some(id));
                self.tell_want(id, chunk);
            } else if theirs > mine.saturating_mul(8) {
                self.release(other, chunk);
                self.want(id, chunk);
            }
        }
    }

    /// Lets a peer send as much as it can within its depth, if there is room for it.
    fn allow(&mut self, id: PeerId, depth: u64, now: Duration) {
        let most = IN_FLIGHT_BYTES_MAX.checked_div(self.chunk_bytes).unwrap_or(1).max(1);
        let budget = most.saturating_sub(self.in_flight(now));
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let depth = depth.min(peer.wants.len() as u64);
        for _ in 0..depth.saturating_sub(peer.in_flight()).min(budget) {
            if self.limit.opens_at(now).is_some() {
                return;
            }
            self.limit.take(self.chunk_bytes);
            peer.allowed = peer.allowed.saturating_add(1);
            peer.has_news = true;
            if peer.busy_since.is_none() {
                (peer.busy_since, peer.was_idle) = (Some(now), true);
            }
        }
    }

    /// Chunks that may be on their way, from all peers but those of which nothing is expected: they must not take the room of others.
    fn in_flight(&self, now: Duration) -> u64 {
        let awaited = self.peers.values().filter(|peer| !peer.is_late && peer.busy_until <= now);
        awaited.fold(0, |sum, peer| sum.saturating_add(peer.in_flight().min(peer.wants.len() as u64)))
    }

    /// Chunks that a peer may have on their way.
    fn depth(&self, peer: &Peer, now: Duration) -> u64 {
        match peer.rate(now) {
            // A newcomer, or one that does not keep up, gets one.
            None => 1,
            Some(_) if peer.is_late => 1,
            Some(rate) => {
                let ahead = peer.round_trip.unwrap_or_default().saturating_add(AHEAD);
                bytes_in(rate, ahead).div_ceil(self.chunk_bytes.max(1)).clamp(1, DEPTH_MAX)
            }
        }
    }

    /// How long a peer will take for what it may send, and one chunk more.
    fn time_to_clear(&self, peer: &Peer, now: Duration) -> Duration {
        let chunks = peer.in_flight().min(peer.wants.len() as u64).saturating_add(1);
        let waited = peer.busy_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let rate = match (peer.rate(now), peer.is_late || peer.busy_until > now) {
            (Some(rate), false) => rate,
            _ => return LATE_AT_FIRST.saturating_add(waited),
        };
        time_for(chunks.saturating_mul(self.chunk_bytes), rate)
    }

    fn note_lateness(&mut self, id: PeerId, now: Duration) {
        let chunk_bytes = self.chunk_bytes;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.lateness(chunk_bytes).is_some_and(|at| at <= now) {
            peer.is_late = true;
        }
    }

    /// When more may be allowed than may now. Lateness is noticed whenever a peer is looked at.
    pub(crate) fn deadline(&mut self, now: Duration) -> Option<Duration> {
        let is_fetching = self.segments.values().any(|segment| segment.missing > 0);
        self.limit.opens_at(now).filter(|_| is_fetching)
    }

    /// What is new for a peer, if anything is.
    pub(crate) fn take_news(&mut self, id: PeerId) -> Option<Update> {
        let peer = self.peers.get_mut(&id).filter(|peer| peer.has_news)?;
        peer.has_news = false;
        let news = std::mem::take(&mut peer.news);
        Some(Update { received: peer.received, allowed: peer.allowed, ..news })
    }

    /// An update with nothing new.
    pub(crate) fn counts(&self, id: PeerId) -> Update {
        let (received, allowed) = self.peers.get(&id).map_or((0, 0), |peer| (peer.received, peer.allowed));
        Update { received, allowed, ..Update::default() }
    }

    fn want(&mut self, id: PeerId, chunk: ChunkId) {
        self.change(chunk, |state| state.from = Some(id));
        self.tell_want(id, chunk);
    }

    fn tell_want(&mut self, id: PeerId, chunk: ChunkId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.wants.insert(chunk) {
            peer.news.add.push(chunk);
            peer.has_news = true;
        }
    }

    /// Wants a chunk from a peer no more, and tells it.
    fn unwant(&mut self, id: PeerId, chunk: ChunkId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.wants.remove(&chunk) {
            let before = peer.news.add.len();
            peer.news.add.retain(|added| *added != chunk);
            if peer.news.add.len() == before {
                peer.news.remove.push(chunk);
                peer.withdrawn = peer.withdrawn.saturating_add(1);
            }
            peer.has_news = true;
        }
    }

    /// The peer sent it, so it knows.
    fn forget_want(&mut self, id: PeerId, chunk: ChunkId) {
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.wants.remove(&chunk)
        {
            peer.news.add.retain(|added| *added != chunk);
        }
    }

    fn chunk(&self, id: ChunkId) -> Option<&Chunk> {
        self.segments.get(&id.segment)?.chunks.get(id.chunk as usize)
    }

    /// Changes a chunk, and counts what is missing and free anew.
    fn change(&mut self, id: ChunkId, change: impl FnOnce(&mut Chunk)) {
        let Some(segment) = self.segments.get_mut(&id.segment) else { return };
        let Some(chunk) = segment.chunks.get_mut(id.chunk as usize) else { return };
        let before = *chunk;
        change(chunk);
        let counted = |count: u64, before: bool, after: bool| {
            count.saturating_sub(u64::from(before)).saturating_add(u64::from(after))
        };
        segment.missing = counted(segment.missing, !before.is_here, !chunk.is_here);
        segment.free = counted(segment.free, before.is_free(), chunk.is_free());
    }
}

impl Chunk {
    const fn is_free(&self) -> bool {
        !self.is_here && self.from.is_none()
    }

    /// It is not wanted from this peer any more.
    fn release(&mut self, peer: PeerId) {
        if self.from == Some(peer) {
            self.from = self.also_from.take();
        }
        self.also_from = self.also_from.filter(|other| *other != peer);
    }
}

impl Peer {
    const fn in_flight(&self) -> u64 {
        self.allowed.saturating_sub(self.received)
    }

    fn on_chunk(&mut self, bytes: u64, now: Duration) {
        let waited = self.busy_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        self.received = self.received.saturating_add(1);
        self.fetched_bytes = self.fetched_bytes.saturating_add(bytes);
        self.meter.add(bytes, waited);
        if std::mem::take(&mut self.was_idle) {
            self.round_trip = Some(self.round_trip.map_or(waited, |round_trip| round_trip.min(waited)));
        }
        self.busy_since = (self.in_flight() > 0).then_some(now);
        self.is_late = false;
        self.has_news = true;
    }

    /// Its rate, which falls while nothing comes.
    fn rate(&self, now: Duration) -> Option<u64> {
        let waited = self.busy_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let mut meter = self.meter;
        if waited > LATE {
            meter.add(0, waited);
        }
        meter.rate().or_else(|| self.meter.rate().map(|_| 1))
    }

    /// When it is late, if nothing comes.
    fn lateness(&self, chunk_bytes: u64) -> Option<Duration> {
        let since = self.busy_since.filter(|_| !self.wants.is_empty())?;
        Some(since.saturating_add(match self.meter.rate() {
            Some(rate) => time_for(chunk_bytes.saturating_mul(4), rate).clamp(LATE, LATE_MOST),
            None => LATE_AT_FIRST,
        }))
    }
}

#[cfg(test)]
mod tests;
