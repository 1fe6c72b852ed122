//! Which chunks to request from which peer.
//!
//! A node tells each peer which chunks it *wants* and how many the peer may send. The peer picks. A
//! missing chunk is wanted from one peer at a time. So until the endgame a chunk arrives twice only
//! if its request moved to another peer when the first had already sent it. A peer that has a whole
//! segment is called a source. From a source, and only from a source, a node wants more chunks than
//! the source may send. So the source can pick chunks that it has given to no other node yet.

mod choice;
mod collections;
mod endgame;
mod requests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::census::{Census, mix};
use super::classes::{Class, Turns};
use super::message::{ChunkId, CollectionNumber, SegmentId, Update};
use super::meter::Limit;
use super::segments::{Segment, Segments};
use super::supplier::{Breach, Supplier};
use crate::ids::PeerId;
use collections::Fetched;
use requests::{Request, Requests};

/// Most bytes in flight from all peers together, stalled peers not counted. A peer is given credit
/// only while there is room.
pub(crate) const IN_FLIGHT_BYTES_MAX: u64 = 32 << 20;

/// The verdict on an arriving chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is valid and was missing.
    New,
    /// The chunk was here already, so nobody has looked at the bytes.
    Duplicate,
    /// Nothing proves it any more, for example because its segment was put in its place after the
    /// request.
    Unknown,
    /// It is not what its collection proves.
    Bad,
    /// It was never wanted from the peer.
    Unasked,
    /// The peer had no credit.
    TooMany,
}

/// All chunks that are being fetched, and the peers from which they are wanted.
#[derive(Debug)]
pub(crate) struct Downloads {
    /// Most bytes of a chunk of any open collection. Credit counts chunks, and the sender chooses
    /// which, so each may be of this length.
    chunk_bytes: u64,
    salt: u64,
    collections: BTreeMap<CollectionNumber, Fetched>,
    turns: Turns,
    segments: Segments,
    requests: Requests,
    suppliers: BTreeMap<PeerId, Supplier>,
    limit: Limit,
    /// Limits the chunks of files.
    file_limit: Limit,
    duplicate_bytes: u64,
    fetched_bytes: u64,
    /// Number of chunks considered for requests, plus how often requests to other peers were
    /// searched.
    #[cfg(test)]
    looks: u64,
}

impl Downloads {
    pub(crate) fn new(salt: u64, limit: Limit, file_limit: Limit) -> Self {
        Self {
            chunk_bytes: 1,
            salt,
            collections: BTreeMap::new(),
            turns: Turns::new(),
            segments: Segments::default(),
            requests: Requests::default(),
            suppliers: BTreeMap::new(),
            limit,
            file_limit,
            duplicate_bytes: 0,
            fetched_bytes: 0,
            #[cfg(test)]
            looks: 0,
        }
    }

    pub(crate) fn on_opened(&mut self, peer: PeerId) {
        self.suppliers.insert(peer, Supplier::new());
    }

    /// Chunks that were wanted from the peer become free to be requested from others.
    pub(crate) fn on_closed(&mut self, peer: PeerId) {
        let Some(gone) = self.suppliers.remove(&peer) else { return };
        for id in gone.wants() {
            self.requests.change(*id, |request| request.release(peer));
        }
    }

    /// Begins to fetch a segment, of which some chunks may be here.
    pub(super) fn add_segment(&mut self, segment: Segment) {
        let chunks = usize::try_from(segment.chunks()).unwrap_or(usize::MAX);
        self.requests.add_segment(segment.id(), chunks);
        self.segments.add(segment);
    }

    /// Stops fetching a segment, for example since it is in its place.
    pub(super) fn remove_segment(&mut self, segment: SegmentId) {
        self.segments.remove(segment);
        for (chunk, request) in (0..).zip(self.requests.remove_segment(segment)) {
            for peer in request.peers() {
                self.unwant(peer, segment.chunk(chunk));
            }
        }
    }

    /// A peer has less than it said before, so others are asked for what it lacks.
    pub(super) fn on_less(&mut self, peer: PeerId, census: &Census) {
        let Some(supplier) = self.suppliers.get(&peer) else { return };
        let wants = supplier.wants().iter();
        let lacking: Vec<ChunkId> = wants.filter(|id| !census.has(peer, **id)).copied().collect();
        lacking.into_iter().for_each(|chunk| self.release(peer, chunk));
    }

    /// A chunk is damaged. If it counted as here, it is fetched again. Returns whether it did.
    pub(super) fn lose(&mut self, id: ChunkId) -> bool {
        self.segments.lose(id)
    }

    /// The open segments.
    pub(super) const fn segments(&self) -> &Segments {
        &self.segments
    }

    /// The limit of the rate of all downloads together, in bytes per second.
    pub(super) const fn rate_max(&self) -> Option<u64> {
        self.limit.rate()
    }

    pub(crate) const fn totals(&self) -> (u64, u64) {
        (self.fetched_bytes, self.duplicate_bytes)
    }

    /// The state of a peer with an open link, for display.
    pub(super) fn supplier(&self, peer: PeerId) -> Option<&Supplier> {
        self.suppliers.get(&peer)
    }

    /// Whether a chunk is missing and the peer may send it now. Only such a chunk is verified.
    pub(super) fn awaits(&self, from: PeerId, id: ChunkId) -> bool {
        let supplier = self.suppliers.get(&from);
        supplier.is_some_and(|supplier| supplier.may_send(id)) && self.segments.lacks(id)
    }

    /// Takes in an arriving chunk. `is_valid` counts only if the chunk is missing.
    pub(crate) fn on_chunk(
        &mut self,
        from: PeerId,
        id: ChunkId,
        is_valid: bool,
        bytes: u64,
        now: Duration,
    ) -> Arrival {
        let Some(supplier) = self.suppliers.get_mut(&from) else { return Arrival::Unknown };
        match supplier.admit(id) {
            Ok(()) => supplier.on_chunk(bytes, now),
            Err(Breach::NoCredit) => return Arrival::TooMany,
            Err(Breach::NotWanted) => return Arrival::Unasked,
        }
        self.fetched_bytes = self.fetched_bytes.saturating_add(bytes);
        let arrival = match (self.segments.knows(id), self.segments.has(id)) {
            (false, _) => Arrival::Unknown,
            (true, true) => Arrival::Duplicate,
            (true, false) if !is_valid => Arrival::Bad,
            (true, false) => Arrival::New,
        };
        match arrival {
            Arrival::New => {
                if let Some(fetched) = self.collections.get_mut(&id.segment.collection) {
                    fetched.verified = fetched.verified.saturating_add(1);
                }
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
        let request = self.requests.get(id).unwrap_or_default();
        self.requests.change(id, |request| *request = Request::default());
        self.segments.on_chunk(id);
        self.forget_want(from, id);
        for other in request.peers().filter(|other| *other != from) {
            self.unwant(other, id);
        }
    }

    /// The peer has no upload slot for us until this time.
    pub(crate) fn on_busy(&mut self, peer: PeerId, until: Duration) {
        if let Some(peer) = self.suppliers.get_mut(&peer) {
            peer.on_busy(until);
        }
    }

    /// A peer has announced a chunk. If the chunk is wanted from a source and the peer is no
    /// source, the request to the source is withdrawn, so that the source sends chunks that only
    /// sources have. Returns the peers that may now be given requests.
    pub(crate) fn on_have(&mut self, holder: PeerId, id: ChunkId, census: &Census) -> Vec<PeerId> {
        if !self.segments.lacks(id) {
            return Vec::new();
        }
        let is_source = |peer| {
            let holdings = census.get(peer);
            holdings.is_some_and(|holdings| holdings.is_complete(id.segment))
        };
        match self.requests.get(id).and_then(|request| request.from) {
            None => vec![holder],
            Some(from) if is_source(from) && !is_source(holder) => {
                self.release(from, id);
                vec![holder, from]
            }
            Some(_) => Vec::new(),
        }
    }

    /// The rank by which peers get new requests, lowest first. A source comes last while a chunk is
    /// wanted from it that only sources have. Next, a peer from which fewer chunks are wanted comes
    /// first. Between equal peers chance decides, so that not all downloaders ask the same peer.
    pub(crate) fn turn(&self, peer: PeerId, census: &Census) -> (bool, usize, u64) {
        let wants = self.suppliers.get(&peer).map(Supplier::wants);
        let only_sources_have = |want: &ChunkId| census.partial_holders(*want) == 0;
        let is_source = census.get(peer).is_some_and(|holdings| holdings.is_source());
        let is_needed = is_source && wants.is_some_and(|wants| wants.iter().any(only_sources_have));
        (is_needed, wants.map_or(0, BTreeSet::len), mix(self.salt ^ mix(peer.0)))
    }

    /// Gives a peer requests and credit, if it has room.
    pub(crate) fn fill(&mut self, id: PeerId, census: &Census, now: Duration) {
        if let Some(peer) = self.suppliers.get_mut(&id) {
            peer.note_lateness(self.chunk_bytes, now);
        }
        let Some(peer) = self.suppliers.get(&id) else { return };
        if peer.is_busy(now) || (peer.wants().is_empty() && !self.has_any(id, census)) {
            return;
        }
        let depth = peer.depth(self.chunk_bytes, now);
        let room = peer.room(depth);
        self.want_missing(id, census, room, now);
        let room = self.suppliers.get(&id).map_or(0, |peer| peer.room(depth));
        if room > 0 {
            self.take_over(id, census, room, now);
        }
        let room = self.suppliers.get(&id).map_or(0, |peer| peer.room(depth));
        if room > 0 {
            self.hasten(id, census, room, now);
        }
        self.allow(id, depth, now);
    }

    /// Whether a peer claims any missing chunk. If not, it cannot take over requests to other
    /// peers.
    fn has_any(&self, id: PeerId, census: &Census) -> bool {
        let Some(holdings) = census.get(id) else { return false };
        let mut wanted = self.segments.iter().filter(|segment| segment.missing() > 0);
        wanted.any(|segment| holdings.has_any(segment.id()))
    }

    /// Moves requests to this peer from peers that are late or busy, and from peers that are asked
    /// for more than they can send soon.
    fn take_over(&mut self, id: PeerId, census: &Census, room: usize, now: Duration) {
        #[cfg(test)]
        {
            self.looks = self.looks.saturating_add(1);
        }
        let mut candidates = Vec::new();
        for (other, peer) in self.suppliers.iter().filter(|(other, _)| **other != id) {
            let is_stuck = peer.is_stuck(now);
            let kept = if is_stuck { 0 } else { peer.depth(self.chunk_bytes, now) };
            let kept = usize::try_from(kept).unwrap_or(usize::MAX);
            // The other peer keeps the first `kept` chunks, which it sends first.
            for chunk in peer.wants().iter().skip(kept).filter(|chunk| census.has(id, **chunk)) {
                candidates.push((!is_stuck, Reverse(peer.wants().len()), Reverse(*chunk), *other));
            }
        }
        candidates.sort_unstable();
        for (_, _, Reverse(chunk), other) in candidates.into_iter().take(room) {
            self.release(other, chunk);
            // If a second peer was asked for the chunk too, that peer keeps the request.
            if self.is_free(chunk) {
                self.want(id, chunk, now);
            }
        }
    }

    /// No longer wants a chunk from a peer, and lets others be asked for it.
    fn release(&mut self, id: PeerId, chunk: ChunkId) {
        self.unwant(id, chunk);
        self.requests.change(chunk, |request| request.release(id));
    }

    /// Gives a peer credit for up to `depth` chunks in flight, as far as there is room.
    fn allow(&mut self, id: PeerId, depth: u64, now: Duration) {
        let most = IN_FLIGHT_BYTES_MAX.checked_div(self.chunk_bytes).unwrap_or(1).max(1);
        let budget = most.saturating_sub(self.in_flight(now));
        let Some(peer) = self.suppliers.get_mut(&id) else { return };
        for _ in 0..peer.credit_to(depth).min(budget) {
            if self.limit.opens_at(now).is_some() {
                return;
            }
            self.limit.take(self.chunk_bytes);
            peer.allow(now);
        }
    }

    /// Chunks in flight from peers that are not stalled. A stalled peer must not take the room of
    /// others.
    fn in_flight(&self, now: Duration) -> u64 {
        let awaited = self.suppliers.values().filter(|peer| !peer.is_stuck(now));
        awaited.map(Supplier::awaited).fold(0, u64::saturating_add)
    }

    /// When the rate limit next allows credit. Late peers need no deadline here, since
    /// [`Self::fill`] notices them.
    pub(crate) fn deadline(&mut self, now: Duration) -> Option<Duration> {
        let is_fetching = !self.segments.are_complete();
        self.limit.opens_at(now).filter(|_| is_fetching)
    }

    /// The update for a peer, if there is one.
    pub(crate) fn take_news(&mut self, id: PeerId) -> Option<Update> {
        self.suppliers.get_mut(&id)?.take_news()
    }

    /// An update with the counts only, without changes of wants.
    pub(crate) fn counts(&self, id: PeerId) -> Update {
        self.suppliers.get(&id).map(Supplier::counts).unwrap_or_default()
    }

    /// Requests a free chunk from a peer.
    fn want(&mut self, id: PeerId, chunk: ChunkId, now: Duration) {
        self.requests.change(chunk, |request| request.from = Some(id));
        let fetched = self.collections.get(&chunk.segment.collection);
        if fetched.is_some_and(|fetched| fetched.class == Class::File) {
            self.file_limit.take(self.chunk_bytes);
        }
        if let Some(peer) = self.suppliers.get_mut(&id) {
            peer.want(chunk, now);
        }
    }

    /// Requests a chunk from a second peer.
    fn want_too(&mut self, id: PeerId, chunk: ChunkId, now: Duration) {
        self.requests.change(chunk, |request| request.also_from = Some(id));
        if let Some(peer) = self.suppliers.get_mut(&id) {
            peer.want(chunk, now);
        }
    }

    /// No longer wants a chunk from a peer, and tells it.
    fn unwant(&mut self, id: PeerId, chunk: ChunkId) {
        if let Some(peer) = self.suppliers.get_mut(&id) {
            peer.unwant(chunk);
        }
    }

    /// No longer wants a chunk that the peer has sent, without telling it.
    fn forget_want(&mut self, id: PeerId, chunk: ChunkId) {
        if let Some(peer) = self.suppliers.get_mut(&id) {
            peer.forget_want(chunk);
        }
    }

    /// Whether a chunk is missing and requested from no peer.
    fn is_free(&self, id: ChunkId) -> bool {
        self.segments.lacks(id) && self.requests.get(id).is_some_and(|request| request.is_none())
    }
}

#[cfg(test)]
mod tests;
