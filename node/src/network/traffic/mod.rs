//! The memory of gossip: bounds in bytes on the messages from each peer and to each peer.
//!
//! Gossipsub bounds its queues in messages, of which the largest are thousands of times the
//! smallest, and its caches in time. So this module counts the bytes that go into them:
//!
//! - A message that waits for its verdict takes a place. Without a place it is ignored.
//! - A message that is passed on stays in gossipsub's cache for some seconds, so the bytes passed
//!   on in that time are bounded.
//! - Bytes that are pushed into the queue of a peer and not yet written are *owed*. A peer that is
//!   owed too much is disconnected, which frees its queue.
//! - Gossipsub remembers the id of each message for a minute or two. A peer that fills this memory
//!   with useless messages is disconnected.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::gossip::{CACHE_TIME, QUEUE_TIME};
use super::muxer::Written;
use super::share::Share;
use super::wire::{TRANSMIT_BYTES_MAX, Topic};

/// Most messages of a topic that wait. One peer may have about half of the room that the others
/// leave, and fewer messages if they are large: see [`waiting`]. Without room a new message is
/// ignored: it is not forwarded, and its sender is not blamed.
pub(crate) const fn gossip_queue(topic: Topic) -> usize {
    match topic {
        Topic::Consensus => 512,
        Topic::Headers => 256,
        Topic::Transactions => 1_024,
    }
}

/// Bytes of messages that wait for their verdict. Gossipsub has another copy of each. One message
/// of each peer always has a place, and a peer that is alone may have half of the bytes: 32 of the
/// largest messages, or 64 batches of transactions.
const fn waiting(topic: Topic) -> Share {
    let all = match topic {
        Topic::Consensus => 32 << 20,
        Topic::Headers => 8 << 20,
        Topic::Transactions => 8 << 20,
    };
    Share { all, floor: topic.bytes_max() }
}

/// Bytes that a message counts for while it waits. A small message counts for one slot of the
/// queue, so that one peer cannot fill the queue with small messages.
const fn weight(topic: Topic, bytes: usize) -> usize {
    let least = waiting(topic).all / gossip_queue(topic);
    if bytes < least { least } else { bytes }
}

/// Most bytes that are passed on in [`CACHE_TIME`], the time for which gossipsub keeps a copy of
/// each message. For consensus this is 16 messages of the largest size. For transactions it is 1.6
/// MiB a second, which is 9,000 transfers a second.
const fn relayed_max(topic: Topic) -> usize {
    match topic {
        Topic::Consensus => 8 << 20,
        Topic::Headers => 4 << 20,
        Topic::Transactions => 8 << 20,
    }
}

/// Messages up to this size, votes among them, are passed on beyond [`relayed_max`]. Other rules
/// bound their number.
const SMALL_BYTES: usize = 4 << 10;

/// Most bytes that one peer may be owed. A link of 10 Mbit/s moves 12 MiB in [`QUEUE_TIME`], the
/// time that a message may wait.
const OWED_MAX: u64 = 16 << 20;

/// Most bytes that all peers together may be owed. Above it, the peers that are owed most are
/// disconnected.
const OWED_ALL_MAX: u64 = 64 << 20;

/// Most new messages of all peers in this minute and the one before. Gossipsub remembers their ids
/// for that time, in some 400 bytes each: 60 MB in all.
const FRESH_MAX: u64 = 150_000;

/// A peer is disconnected only if at least this many of its messages were not accepted. Peers with
/// fewer do not cause the flood.
const FRESH_LEAST: u64 = 1_000;

/// Least time between two such disconnections.
const FRESH_PAUSE: Duration = Duration::from_secs(5);

/// All counts of gossip's memory.
pub(crate) struct Traffic {
    begun: Instant,
    waiting: [Arc<Mutex<Waiting>>; 3],
    relayed: [Window; 3],
    fresh: Fresh,
    owed: HashMap<PeerId, Owed>,
    owed_all: u64,
    written: Written,
}

impl Traffic {
    pub(crate) fn new(written: Written, now: Instant) -> Self {
        Self {
            begun: now,
            waiting: Default::default(),
            relayed: Default::default(),
            fresh: Fresh::default(),
            owed: HashMap::new(),
            owed_all: 0,
            written,
        }
    }

    /// A message arrived that was not seen before. `None` if there is no place for it.
    pub(crate) fn on_message(
        &mut self,
        topic: Topic,
        from: PeerId,
        bytes: usize,
        now: Instant,
    ) -> Option<Place> {
        self.fresh.on_message(from, now.duration_since(self.begun));
        Place::take(&self.waiting[topic.index()], topic, from, bytes)
    }

    /// Whether an accepted message may be passed on.
    pub(crate) fn may_relay(&mut self, place: &Place, now: Instant) -> bool {
        self.fresh.on_accepted(&place.from);
        let window = &mut self.relayed[place.topic.index()];
        let time = now.duration_since(self.begun);
        let may = place.bytes <= SMALL_BYTES
            || window.total(time) + place.bytes <= relayed_max(place.topic);
        if may {
            window.add(place.bytes, time);
        }
        may
    }

    /// A message goes into the queues of these peers. Returns the peers that must be disconnected.
    pub(crate) fn on_pushed(
        &mut self,
        peers: impl Iterator<Item = PeerId>,
        bytes: usize,
        now: Instant,
    ) -> Vec<PeerId> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let mut is_over = false;
        for peer in peers {
            let written = &self.written;
            let owed = self.owed.entry(peer).or_insert_with(|| Owed::new(written.to(&peer), now));
            owed.push(bytes, now);
            self.owed_all += bytes;
            is_over |= owed.total > OWED_MAX;
        }
        if is_over || self.owed_all > OWED_ALL_MAX { self.overdue(now) } else { Vec::new() }
    }

    /// Subtracts the bytes that were written meanwhile. Returns the peers that are owed too much.
    fn overdue(&mut self, now: Instant) -> Vec<PeerId> {
        for (peer, owed) in &mut self.owed {
            self.owed_all -= owed.settle(self.written.to(peer), now);
        }
        let mut most: Vec<(u64, PeerId)> =
            self.owed.iter().map(|(peer, owed)| (owed.total, *peer)).collect();
        most.sort_unstable_by_key(|(total, _)| std::cmp::Reverse(*total));
        let mut over = Vec::new();
        for (total, peer) in most {
            if total <= OWED_MAX && self.owed_all <= OWED_ALL_MAX {
                break;
            }
            self.on_disconnected(&peer);
            over.push(peer);
        }
        over
    }

    /// The peer to disconnect, if too many new messages came lately: gossipsub remembers the id of
    /// each, and this memory must stay bounded. It is the peer that sent most of the messages that
    /// were not accepted.
    pub(crate) fn flooder(&mut self, now: Instant) -> Option<PeerId> {
        self.fresh.worst(now.duration_since(self.begun))
    }

    /// A disconnected peer is owed no bytes.
    pub(crate) fn on_disconnected(&mut self, peer: &PeerId) {
        if let Some(owed) = self.owed.remove(peer) {
            self.owed_all -= owed.total;
        }
    }
}

/// The sum of [`weight`] of the messages of a topic that wait for their verdict: of all peers, and
/// of each peer.
#[derive(Default)]
struct Waiting {
    total: usize,
    peers: HashMap<PeerId, usize>,
}

/// The place of a message that waits for its verdict. Dropping it frees the place.
pub(crate) struct Place {
    waiting: Arc<Mutex<Waiting>>,
    topic: Topic,
    from: PeerId,
    bytes: usize,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Place({} bytes)", self.bytes)
    }
}

impl Place {
    fn take(
        waiting: &Arc<Mutex<Waiting>>,
        topic: Topic,
        from: PeerId,
        bytes: usize,
    ) -> Option<Self> {
        let mut all = lock(waiting);
        let (own, weight) = (all.peers.get(&from).copied().unwrap_or(0), weight(topic, bytes));
        if !self::waiting(topic).allows(own, all.total, weight) {
            return None;
        }
        all.total += weight;
        *all.peers.entry(from).or_default() += weight;
        drop(all);
        Some(Self { waiting: Arc::clone(waiting), topic, from, bytes })
    }

    /// A place that shares its limits with no other message.
    #[cfg(test)]
    pub(crate) fn made_up(topic: Topic, from: PeerId) -> Self {
        Self::take(&Arc::default(), topic, from, 0)
            .unwrap_or_else(|| unreachable!("the books are empty"))
    }

    /// Bytes of the message.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let weight = weight(self.topic, self.bytes);
        let mut all = lock(&self.waiting);
        all.total -= weight;
        if let Some(own) = all.peers.get_mut(&self.from) {
            *own -= weight;
            if *own == 0 {
                all.peers.remove(&self.from);
            }
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Number of seconds that a window covers.
const SLOTS: usize = CACHE_TIME.as_secs() as usize;

/// Bytes passed on in the last seconds, by second.
#[derive(Default)]
struct Window {
    slots: [usize; SLOTS],
    /// The second of the newest slot.
    second: u64,
}

impl Window {
    fn turn(&mut self, time: Duration) {
        let passed =
            usize::try_from(time.as_secs().saturating_sub(self.second)).unwrap_or(SLOTS).min(SLOTS);
        self.slots.rotate_right(passed);
        self.slots[..passed].fill(0);
        self.second = self.second.max(time.as_secs());
    }

    fn total(&mut self, time: Duration) -> usize {
        self.turn(time);
        self.slots.iter().sum()
    }

    fn add(&mut self, bytes: usize, time: Duration) {
        self.turn(time);
        self.slots[0] += bytes;
    }
}

/// Messages seen for the first time, in this minute and the one before.
#[derive(Default)]
struct Fresh {
    minute: u64,
    minutes: [Minute; 2],
    last: Option<Duration>,
}

#[derive(Default)]
struct Minute {
    total: u64,
    /// Messages that were not accepted, by the peer that sent them.
    useless: HashMap<PeerId, u64>,
}

impl Fresh {
    fn turn(&mut self, time: Duration) {
        let minute = time.as_secs() / 60;
        if minute > self.minute {
            let before = std::mem::take(&mut self.minutes[0]);
            self.minutes[1] = if minute == self.minute + 1 { before } else { Minute::default() };
            self.minute = minute;
        }
    }

    fn on_message(&mut self, from: PeerId, time: Duration) {
        self.turn(time);
        self.minutes[0].total += 1;
        *self.minutes[0].useless.entry(from).or_default() += 1;
    }

    fn on_accepted(&mut self, from: &PeerId) {
        if let Some(count) = self.minutes.iter_mut().find_map(|minute| minute.useless.get_mut(from))
        {
            *count = count.saturating_sub(1);
        }
    }

    fn worst(&mut self, time: Duration) -> Option<PeerId> {
        self.turn(time);
        let total: u64 = self.minutes.iter().map(|minute| minute.total).sum();
        let is_soon = self.last.is_some_and(|last| time.saturating_sub(last) < FRESH_PAUSE);
        if total <= FRESH_MAX || is_soon {
            return None;
        }
        let mut counts: HashMap<PeerId, u64> = HashMap::new();
        for (peer, count) in self.minutes.iter().flat_map(|minute| &minute.useless) {
            *counts.entry(*peer).or_default() += count;
        }
        let (worst, _) = counts
            .into_iter()
            .filter(|(_, count)| *count >= FRESH_LEAST)
            .max_by_key(|(_, count)| *count)?;
        for minute in &mut self.minutes {
            minute.useless.remove(&worst);
        }
        self.last = Some(time);
        Some(worst)
    }
}

/// Bytes that were pushed into the queue of a peer and are not yet written.
struct Owed {
    /// Bytes with the time at which they were pushed, the oldest first.
    pushes: VecDeque<(Instant, u64)>,
    total: u64,
    /// The count of written bytes at the last call of `settle`.
    written: u64,
    /// A time after which a message was surely taken from the queue, and the count of written bytes
    /// at that time.
    mark: (Instant, u64),
}

impl Owed {
    fn new(written: u64, now: Instant) -> Self {
        Self { pushes: VecDeque::new(), total: 0, written, mark: (now, written) }
    }

    fn push(&mut self, bytes: u64, now: Instant) {
        self.total += bytes;
        match self.pushes.back_mut() {
            Some((at, sum)) if now.duration_since(*at) < Duration::from_millis(100) => {
                *sum += bytes
            }
            _ => self.pushes.push_back((now, bytes)),
        }
    }

    /// Subtracts what was written, given the count of bytes written so far. Returns by how many
    /// bytes the debt has shrunk.
    fn settle(&mut self, written: u64, now: Instant) -> u64 {
        let before = self.total;
        let mut paid = written.saturating_sub(self.written);
        self.written = written;
        while let Some((_, bytes)) = self.pushes.front_mut() {
            let part = paid.min(*bytes);
            (*bytes, paid, self.total) = (*bytes - part, paid - part, self.total - part);
            if *bytes > 0 {
                break;
            }
            self.pushes.pop_front();
        }
        // Gossipsub drops messages that waited too long, but only when it takes one from the queue.
        // No message is larger than the limit of a frame. So once that many bytes were written
        // since the mark, gossipsub has taken at least one.
        if written.saturating_sub(self.mark.1) >= TRANSMIT_BYTES_MAX as u64 {
            while let Some((at, bytes)) = self.pushes.front().copied()
                && self.mark.0.saturating_duration_since(at) >= QUEUE_TIME
            {
                self.total -= bytes;
                self.pushes.pop_front();
            }
            self.mark = (now, written);
        }
        before - self.total
    }
}

#[cfg(test)]
mod tests;
