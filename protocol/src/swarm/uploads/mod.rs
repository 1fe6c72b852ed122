//! Which chunk to send to which peer.
//!
//! Peers say which chunks they want, and how many may be sent. A wanted chunk that only sources
//! have and that is on its way to nobody goes first. So a source gives each chunk away once before
//! it gives any twice, and peers exchange the chunks among themselves. Otherwise the peer that got
//! least from this node goes first, with the chunk that fewest peers have.
//!
//! Only a few connections take in a chunk at a time. That keeps this node's link busy, and has
//! three advantages. Chunks arrive one after the other, so peers can soon pass them on. Chunks that
//! wait here can still be cancelled, or better ones chosen. Votes do not queue behind chunks.

mod slots;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::census::{Census, mix};
use super::classes::{Class, Turns};
use super::message::{ChunkId, CollectionNumber, SegmentId, Update, WANTS_MAX};
use super::meter::{Limit, Meter, bytes_in, time_for};
use crate::ids::PeerId;

/// Bytes that may be in flight however slow the link is. A link of 20 Mbit/s moves them in 0.2
/// seconds.
const UNDER_WAY_LEAST: u64 = 512 << 10;
/// Most bytes in flight, however fast the link is.
const UNDER_WAY_MOST: u64 = 64 << 20;
/// Beyond [`UNDER_WAY_LEAST`], as many bytes may be in flight as the link moves in this time.
const UNDER_WAY: Duration = Duration::from_millis(250);
/// This many connections may always take in a chunk at a time. With more, chunks share the link and
/// arrive late together. With fewer, the link idles while connections wait for their peers.
const WRITING_LEAST: u64 = 3;
/// More connections are used until their peers together could take this many times what our link
/// moves. With fewer, the peers would be the bottleneck.
const WRITING_TIMES: u64 = 2;
/// A connection that needs this long to take in a chunk is held up by its peer, not by our link, so
/// other peers need not wait for it.
const SLOW: Duration = Duration::from_millis(250);
/// If a peer confirms none of the chunks in flight to it for this long, it gets nothing more until
/// it confirms one.
const STUCK: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct Peer {
    wants: BTreeSet<ChunkId>,
    allowed: u64,
    sent: u64,
    received: u64,
    /// Since when the peer has confirmed no chunk, while chunks are in flight to it.
    waiting_since: Option<Duration>,
    /// Chunks sent that the peer has not announced yet.
    sending: BTreeSet<ChunkId>,
    /// Since when its connection is taking in the last chunk, until all of it is taken in.
    writing_since: Option<Duration>,
    /// Whether its connection took long for the last chunk.
    is_slow: bool,
    served_bytes: u64,
    /// Bytes received from it, halved at each rotation.
    given_lately: u64,
    meter: Meter,
    /// Rate at which the peer gets chunks from anyone, by its announcements.
    gets: Meter,
    /// When it last announced a chunk.
    got_at: Option<Duration>,
    has_slot: bool,
    /// Number of chunks sent to it, by which the peers take turns. A newcomer begins with the least
    /// number of all peers.
    turn: u64,
}

/// A collection whose chunks may be sent.
#[derive(Debug)]
struct Served {
    class: Class,
    /// Most bytes of its chunks.
    chunk_bytes: u64,
    /// Bytes of its chunks that were sent since it was opened.
    bytes: u64,
    /// When it was opened, and then when its last chunk was sent.
    sent_at: Duration,
}

/// All chunks that peers want, and those in flight to them.
#[derive(Debug)]
pub(crate) struct Uploads {
    /// Most bytes of a chunk of any open collection, by which chunks in flight are counted.
    chunk_bytes: u64,
    salt: u64,
    collections: BTreeMap<CollectionNumber, Served>,
    turns: Turns,
    peers: BTreeMap<PeerId, Peer>,
    /// For each chunk, the number of peers that are being sent it and have not announced it yet.
    sending: BTreeMap<ChunkId, u16>,
    /// What goes to peers otherwise takes from it, too.
    pub(crate) limit: Limit,
    /// Limits the chunks of files.
    file_limit: Limit,
    /// Rate of all confirmed chunks.
    meter: Meter,
    confirmed_at: Duration,
    rotate_at: Duration,
    rotations: u64,
    served_bytes: u64,
    /// Of these, bytes of files.
    served_file_bytes: u64,
}

/// The order of sending, lowest first: the turn of the chunk's class, whether another peer has the
/// chunk or is being sent it, the peer's turn, copies of the chunk, the chunk, chance.
type Rank = (u64, bool, u64, u64, ChunkId, u64);

/// A breach of the limits by a peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Misuse {
    /// It wants more than [`WANTS_MAX`] chunks at a time.
    Wants,
    /// It confirmed more chunks than were sent.
    Received,
}

impl Uploads {
    pub(crate) const fn new(salt: u64, limit: Limit, file_limit: Limit) -> Self {
        Self {
            chunk_bytes: 1,
            salt,
            collections: BTreeMap::new(),
            turns: Turns::new(),
            peers: BTreeMap::new(),
            sending: BTreeMap::new(),
            limit,
            file_limit,
            meter: Meter::DEFAULT,
            confirmed_at: Duration::ZERO,
            rotate_at: Duration::ZERO,
            rotations: 0,
            served_bytes: 0,
            served_file_bytes: 0,
        }
    }

    /// Peers may want chunks of this collection, of at most `chunk_bytes`.
    pub(crate) fn open(
        &mut self,
        collection: CollectionNumber,
        class: Class,
        chunk_bytes: u64,
        now: Duration,
    ) {
        self.collections.insert(collection, Served { class, chunk_bytes, bytes: 0, sent_at: now });
    }

    /// Bytes of a collection's chunks that were sent since it was opened, and when the last one
    /// was.
    pub(crate) fn sent(&self, collection: CollectionNumber) -> Option<(u64, Duration)> {
        self.collections.get(&collection).map(|served| (served.bytes, served.sent_at))
    }

    /// No peer gets chunks of this collection any more.
    pub(crate) fn close(&mut self, collection: CollectionNumber) {
        self.collections.remove(&collection);
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.forget_collection(peer, collection));
    }

    /// Sets the most bytes of a chunk of any open collection.
    pub(crate) const fn set_chunk_bytes(&mut self, chunk_bytes: u64) {
        self.chunk_bytes = chunk_bytes;
    }

    #[cfg(test)]
    pub(super) const fn chunk_bytes(&self) -> u64 {
        self.chunk_bytes
    }

    pub(crate) fn on_opened(&mut self, peer: PeerId) {
        let turn = self.peers.values().map(|peer| peer.turn).min().unwrap_or(0);
        self.on_closed(peer);
        self.peers.insert(peer, Peer { turn, ..Peer::default() });
    }

    pub(crate) fn on_closed(&mut self, peer: PeerId) {
        if let Some(gone) = self.peers.remove(&peer) {
            gone.sending.into_iter().for_each(|id| landed(&mut self.sending, id));
        }
    }

    /// Takes in a peer's wants, confirmations and credit.
    ///
    /// Wants for chunks that are not here are dropped, so that they are not searched each time. So
    /// are wants for chunks that are being sent to the peer.
    pub(crate) fn on_update(
        &mut self,
        from: PeerId,
        update: &Update,
        has: impl Fn(ChunkId) -> bool,
        now: Duration,
    ) -> Result<(), Misuse> {
        let Some(peer) = self.peers.get_mut(&from) else { return Ok(()) };
        for id in &update.remove {
            peer.wants.remove(id);
        }
        if update.add.len() > WANTS_MAX {
            return Err(Misuse::Wants);
        }
        let sending = &peer.sending;
        peer.wants
            .extend(update.add.iter().copied().filter(|id| !sending.contains(id) && has(*id)));
        if peer.wants.len() > WANTS_MAX {
            return Err(Misuse::Wants);
        }
        if update.received > peer.sent {
            return Err(Misuse::Received);
        }
        let confirmed =
            update.received.saturating_sub(peer.received).saturating_mul(self.chunk_bytes);
        peer.received = update.received.max(peer.received);
        peer.allowed = update.allowed.max(peer.allowed);
        if confirmed > 0 {
            let since = peer.waiting_since.unwrap_or(now);
            peer.meter.add(confirmed, now.saturating_sub(since));
            peer.waiting_since = (peer.sent > peer.received).then_some(now);
            self.meter.add(confirmed, now.saturating_sub(since.max(self.confirmed_at)));
            self.confirmed_at = now;
        }
        Ok(())
    }

    /// A peer has announced a chunk. The chunk is no longer sent to the peer nor counted as on its
    /// way: the census counts the peer as a holder.
    pub(crate) fn on_have(&mut self, from: PeerId, id: ChunkId, now: Duration) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if let Some(before) = peer.got_at.replace(now) {
            peer.gets.add(self.chunk_bytes, now.saturating_sub(before));
        }
        peer.wants.remove(&id);
        if peer.sending.remove(&id) {
            landed(&mut self.sending, id);
        }
    }

    /// The connection has taken in the last chunk.
    pub(crate) fn on_written(&mut self, to: PeerId, now: Duration) {
        if let Some(peer) = self.peers.get_mut(&to)
            && let Some(since) = peer.writing_since.take()
        {
            peer.is_slow = now.saturating_sub(since) >= SLOW;
        }
    }

    /// The peer has all chunks of these segments.
    pub(crate) fn on_held(&mut self, from: PeerId, segments: RangeInclusive<SegmentId>) {
        let chunks = segments.start().chunk(0)..=segments.end().chunk(u32::MAX);
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let held: Vec<ChunkId> = peer.sending.range(chunks).copied().collect();
        for id in held {
            peer.sending.remove(&id);
            landed(&mut self.sending, id);
        }
    }

    /// The peer neither has nor wants anything of a collection any more.
    pub(crate) fn forget_collection(&mut self, from: PeerId, collection: CollectionNumber) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.wants.retain(|id| id.segment.collection != collection);
        }
        self.on_held(from, collection.segments());
    }

    /// No chunk of these segments is here any more.
    pub(crate) fn withdraw(&mut self, segments: RangeInclusive<SegmentId>) {
        let is_gone = |id: &ChunkId| segments.contains(&id.segment);
        self.peers.values_mut().for_each(|peer| peer.wants.retain(|id| !is_gone(id)));
    }

    /// Bytes came from a peer, which count for its slot.
    pub(crate) fn on_given(&mut self, from: PeerId, bytes: u64) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.given_lately = peer.given_lately.saturating_add(bytes);
        }
    }

    /// A chunk could not be sent. The peer hears of it, and asks again when the chunk is announced.
    pub(crate) fn on_unsent(&mut self, to: PeerId, id: ChunkId) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        peer.sent = peer.sent.saturating_sub(1);
        peer.waiting_since = peer.waiting_since.filter(|_| peer.sent > peer.received);
        peer.writing_since = None;
        if peer.sending.remove(&id) {
            landed(&mut self.sending, id);
        }
    }

    /// The next chunk to send and its peer, if one may go now. It counts as sent.
    pub(crate) fn next(
        &mut self,
        census: &Census,
        has: impl Fn(ChunkId) -> bool,
        now: Duration,
    ) -> Option<(PeerId, ChunkId)> {
        for peer in self.peers.values_mut() {
            peer.is_slow |= peer.slow_at().is_some_and(|at| at <= now);
        }
        if !self.may_write() || self.limit.opens_at(now).is_some() {
            return None;
        }
        let may_send_files = self.file_limit.opens_at(now).is_none();
        // Chunks in flight to slow peers do not count against the room of the other peers.
        let has_room = [false, true].map(|slow| self.under_way(slow, now) < self.room());
        let mut best: Option<(Rank, PeerId)> = None;
        let may_get = |peer: &Peer| {
            peer.may_get(now)
                && peer.has_room(self.chunk_bytes)
                && has_room[usize::from(peer.is_slow)]
        };
        let copies = |chunk: &ChunkId| {
            let sending = self.sending.get(chunk).copied().unwrap_or(0);
            u64::from(census.partial_holders(*chunk)).saturating_add(u64::from(sending))
        };
        for (id, peer) in self.peers.iter().filter(|(_, peer)| may_get(peer)) {
            let may_send = |served: &Served| may_send_files || served.class != Class::File;
            for (collection, served) in self.collections.iter().filter(|(_, one)| may_send(one)) {
                let wants = peer.wants.range(collection.chunks());
                let held = wants.filter(|chunk| has(**chunk));
                let Some((copies, chunk)) = held.map(|chunk| (copies(chunk), *chunk)).min() else {
                    continue;
                };
                // Chance decides last, so nodes that have the same chunks begin with different
                // peers, which then help each other.
                let chance = mix(self.salt ^ mix(id.0));
                let turn = self.turns.next(served.class);
                let rank = (turn, copies > 0, peer.turn, copies, chunk, chance);
                if best.is_none_or(|(known, _)| rank < known) {
                    best = Some((rank, *id));
                }
            }
        }
        let ((.., chunk, _), to) = best?;
        let served = self.collections.get_mut(&chunk.segment.collection)?;
        let chunk_bytes = served.chunk_bytes;
        served.bytes = served.bytes.saturating_add(chunk_bytes);
        served.sent_at = now;
        self.turns.take(served.class);
        if served.class == Class::File {
            self.file_limit.take(chunk_bytes);
            self.served_file_bytes = self.served_file_bytes.saturating_add(chunk_bytes);
        }
        let peer = self.peers.get_mut(&to)?;
        peer.wants.remove(&chunk);
        peer.sent = peer.sent.saturating_add(1);
        peer.waiting_since.get_or_insert(now);
        peer.sending.insert(chunk);
        peer.writing_since = Some(now);
        peer.served_bytes = peer.served_bytes.saturating_add(chunk_bytes);
        peer.turn = peer.turn.saturating_add(1);
        let count = self.sending.entry(chunk).or_default();
        *count = count.saturating_add(1);
        self.served_bytes = self.served_bytes.saturating_add(chunk_bytes);
        self.limit.take(chunk_bytes);
        Some((to, chunk))
    }

    /// When another chunk may go, or slots are reassigned.
    pub(crate) fn deadline(&mut self, now: Duration) -> Option<Duration> {
        if !self.peers.values().any(|peer| peer.is_waiting(now)) {
            return None;
        }
        let patience = self.patience();
        let waiting = self.peers.values().filter_map(|peer| peer.waiting_since);
        let waiting =
            waiting.flat_map(|since| [since.saturating_add(patience), since.saturating_add(STUCK)]);
        let opens_at = self.limit.opens_at(now);
        [Some(self.rotate_at), opens_at, self.file_limit.opens_at(now)]
            .into_iter()
            .flatten()
            .chain(waiting)
            .chain(self.peers.values().filter(|peer| !peer.is_slow).filter_map(Peer::slow_at))
            .filter(|at| *at > now)
            .min()
    }

    /// For display: bytes sent to a peer, and the rate in bytes per second, which is 0 while the
    /// peer wants nothing.
    pub(crate) fn show(&self, peer: PeerId) -> (u64, u64) {
        self.peers.get(&peer).map_or((0, 0), |peer| {
            let is_busy = !(peer.wants.is_empty() && peer.sending.is_empty());
            (peer.served_bytes, peer.meter.rate().filter(|_| is_busy).unwrap_or(0))
        })
    }

    pub(crate) const fn served_bytes(&self) -> u64 {
        self.served_bytes
    }

    pub(crate) const fn served_file_bytes(&self) -> u64 {
        self.served_file_bytes
    }

    /// Bytes in flight to peers that have been due to confirm a chunk for less than
    /// [`Self::patience`]. Bytes to slow peers count only if `slow`.
    fn under_way(&self, slow: bool, now: Duration) -> u64 {
        let patience = self.patience();
        let is_recent = |peer: &&Peer| {
            peer.waiting_since.is_some_and(|since| since.saturating_add(patience) > now)
        };
        let counted = self.peers.values().filter(|peer| slow || !peer.is_slow).filter(is_recent);
        let chunks = counted
            .fold(0u64, |sum, peer| sum.saturating_add(peer.sent.saturating_sub(peer.received)));
        chunks.saturating_mul(self.chunk_bytes)
    }

    /// Time in which our link has surely moved a chunk. If a chunk is unconfirmed for longer, the
    /// link is not the cause but the peer.
    fn patience(&self) -> Duration {
        let three = self.chunk_bytes.saturating_mul(3);
        self.meter
            .rate()
            .map_or(Duration::ZERO, |rate| time_for(three, rate))
            .max(SLOW.saturating_mul(2))
    }

    /// Whether one more connection may take in a chunk.
    fn may_write(&self) -> bool {
        let writing =
            self.peers.values().filter(|peer| peer.writing_since.is_some() && !peer.is_slow);
        let rate = self.meter.rate().unwrap_or(0);
        // A peer of unknown rate counts as if it could take all that our link moves.
        let (count, sum) = writing.fold((0u64, 0u64), |(count, sum), peer| {
            (count.saturating_add(1), sum.saturating_add(peer.gets.rate().unwrap_or(rate)))
        });
        count < WRITING_LEAST || sum < rate.saturating_mul(WRITING_TIMES)
    }

    /// Most bytes in flight. There is always room for a second chunk, so the link never waits for
    /// us.
    fn room(&self) -> u64 {
        let by_rate = bytes_in(self.meter.rate().unwrap_or(0), UNDER_WAY);
        UNDER_WAY_LEAST
            .saturating_add(by_rate)
            .min(UNDER_WAY_MOST)
            .max(self.chunk_bytes.saturating_mul(2))
    }
}

/// A chunk is no longer on its way to one of the peers.
fn landed(sending: &mut BTreeMap<ChunkId, u16>, id: ChunkId) {
    if let Some(count) = sending.get_mut(&id) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            sending.remove(&id);
        }
    }
}

impl Peer {
    fn is_waiting(&self, now: Duration) -> bool {
        !self.wants.is_empty() && self.sent < self.allowed && !self.is_stuck(now)
    }

    fn may_get(&self, now: Duration) -> bool {
        self.has_slot && self.is_waiting(now) && self.writing_since.is_none()
    }

    /// Whether the peer has less in flight than its rate allows, so that a slow one does not use up
    /// the room of all.
    fn has_room(&self, chunk_bytes: u64) -> bool {
        let by_rate = bytes_in(self.meter.rate().unwrap_or(0), UNDER_WAY);
        let most = UNDER_WAY_LEAST.saturating_add(by_rate).max(chunk_bytes.saturating_mul(2));
        self.sent.saturating_sub(self.received).saturating_mul(chunk_bytes) < most
    }

    fn slow_at(&self) -> Option<Duration> {
        Some(self.writing_since?.saturating_add(SLOW))
    }

    fn is_stuck(&self, now: Duration) -> bool {
        self.stuck_at().is_some_and(|at| at <= now)
    }

    fn stuck_at(&self) -> Option<Duration> {
        Some(self.waiting_since?.saturating_add(STUCK))
    }
}

#[cfg(test)]
mod tests;
