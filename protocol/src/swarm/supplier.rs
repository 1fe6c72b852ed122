//! One peer that sends chunks to this node: its rate, lateness and credit, and the next update for
//! it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::message::{ChunkId, CollectionNumber, Update};
use super::meter::{Meter, bytes_in, time_for};

/// A peer gets credit for the chunks that it can send within its round trip plus this time.
const AHEAD: Duration = Duration::from_millis(500);
/// Most chunks in flight from one peer.
const DEPTH_MAX: u64 = 64;
/// Longest time without a chunk until a peer is late, however slow it is.
const LATE_MOST: Duration = Duration::from_secs(10);
/// A peer is late after this time without a chunk, or after the time of four chunks at its rate if
/// that is longer. Then other peers take over its requests.
const LATE: Duration = Duration::from_secs(2);
/// A peer that has never sent a chunk is late after this time without one.
pub(super) const LATE_AT_FIRST: Duration = Duration::from_secs(3);

/// A peer with an open link.
#[derive(Debug)]
pub(super) struct Supplier {
    /// Chunks that are wanted from it.
    wants: BTreeSet<ChunkId>,
    /// Number of wants that were withdrawn after the peer was told of them. That many chunks may
    /// still arrive.
    pub(super) withdrawn: u64,
    /// Number of chunks that arrived from it.
    received: u64,
    /// Credit: number of chunks that it may send, counted since the link opened.
    pub(super) allowed: u64,
    /// Since when it could have sent a chunk: since its last chunk, or, after a pause, since it had
    /// credit and something was wanted from it again.
    busy_since: Option<Duration>,
    was_idle: bool,
    round_trip: Option<Duration>,
    pub(super) meter: Meter,
    pub(super) is_late: bool,
    /// It has no upload slot for us before this time.
    busy_until: Duration,
    fetched_bytes: u64,
    /// Changes of wants that the peer has not been told yet.
    news: Update,
    has_news: bool,
}

/// A chunk that a peer may not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breach {
    /// The peer had no credit.
    NoCredit,
    /// The chunk was never wanted from the peer.
    NotWanted,
}

impl Supplier {
    /// A peer whose link has just opened.
    pub(super) fn new() -> Self {
        Self {
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
        }
    }

    pub(super) const fn wants(&self) -> &BTreeSet<ChunkId> {
        &self.wants
    }

    /// Bytes of chunks that arrived from it.
    pub(super) const fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes
    }

    /// Chunks that it has credit for and that have not arrived.
    pub(super) const fn in_flight(&self) -> u64 {
        self.allowed.saturating_sub(self.received)
    }

    /// Chunks in flight that are still wanted.
    pub(super) fn awaited(&self) -> u64 {
        self.in_flight().min(self.wants.len() as u64)
    }

    /// Whether the peer may send a chunk now.
    pub(super) fn may_send(&self, id: ChunkId) -> bool {
        self.received < self.allowed && (self.wants.contains(&id) || self.withdrawn > 0)
    }

    /// Decides whether the peer was allowed to send a chunk that has arrived.
    pub(super) fn admit(&mut self, id: ChunkId) -> Result<(), Breach> {
        if self.received >= self.allowed {
            return Err(Breach::NoCredit);
        }
        if !self.wants.contains(&id) {
            self.withdrawn = self.withdrawn.checked_sub(1).ok_or(Breach::NotWanted)?;
        }
        Ok(())
    }

    /// An admitted chunk has arrived.
    pub(super) fn on_chunk(&mut self, bytes: u64, now: Duration) {
        let waited = self.busy_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        self.received = self.received.saturating_add(1);
        self.fetched_bytes = self.fetched_bytes.saturating_add(bytes);
        self.meter.add(bytes, waited);
        if std::mem::take(&mut self.was_idle) {
            self.round_trip = Some(self.round_trip.unwrap_or(waited).min(waited));
        }
        self.busy_since = (self.in_flight() > 0).then_some(now);
        self.is_late = false;
        self.has_news = true;
    }

    /// It has no upload slot for us until this time.
    pub(super) const fn on_busy(&mut self, until: Duration) {
        self.busy_until = until;
    }

    /// Whether it has no upload slot for us.
    pub(super) fn is_busy(&self, now: Duration) -> bool {
        self.busy_until > now
    }

    /// Whether no chunk is expected from it soon.
    pub(super) fn is_stuck(&self, now: Duration) -> bool {
        self.is_late || self.is_busy(now)
    }

    /// Notices that the peer is late.
    pub(super) fn note_lateness(&mut self, chunk_bytes: u64, now: Duration) {
        self.is_late |= self.lateness(chunk_bytes).is_some_and(|at| at <= now);
    }

    /// Rate in bytes per second, which falls while nothing of what is wanted arrives.
    pub(super) fn rate(&self, now: Duration) -> Option<u64> {
        let waited = self.waited(now);
        let mut meter = self.meter;
        if waited > LATE {
            meter.add(0, waited);
        }
        meter.rate().or_else(|| self.meter.rate().map(|_| 1))
    }

    /// Since when something is awaited that the peer may send.
    fn awaited_since(&self) -> Option<Duration> {
        self.busy_since.filter(|_| !self.wants.is_empty())
    }

    /// How long the peer has let this node wait.
    fn waited(&self, now: Duration) -> Duration {
        self.awaited_since().map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// When the peer becomes late, if nothing arrives.
    fn lateness(&self, chunk_bytes: u64) -> Option<Duration> {
        let since = self.awaited_since()?;
        Some(since.saturating_add(match self.meter.rate() {
            Some(rate) => time_for(chunk_bytes.saturating_mul(4), rate).clamp(LATE, LATE_MOST),
            None => LATE_AT_FIRST,
        }))
    }

    /// Chunks that it may have in flight.
    pub(super) fn depth(&self, chunk_bytes: u64, now: Duration) -> u64 {
        match self.rate(now) {
            // A newcomer gets one, and so does a late peer.
            None => 1,
            Some(_) if self.is_late => 1,
            Some(rate) => {
                let ahead = self.round_trip.unwrap_or_default().saturating_add(AHEAD);
                bytes_in(rate, ahead).div_ceil(chunk_bytes.max(1)).clamp(1, DEPTH_MAX)
            }
        }
    }

    /// How long the peer needs to send the awaited chunks and one more. If the peer is stuck or has
    /// no rate yet, the result is a guess, which grows while nothing arrives.
    pub(super) fn time_to_clear(&self, chunk_bytes: u64, now: Duration) -> Duration {
        let chunks = self.awaited().saturating_add(1);
        let rate = match (self.rate(now), self.is_stuck(now)) {
            (Some(rate), false) => rate,
            _ => return LATE_AT_FIRST.saturating_add(self.waited(now)),
        };
        time_for(chunks.saturating_mul(chunk_bytes), rate)
    }

    /// How many more chunks may be wanted from it, if `depth` chunks may be in flight.
    pub(super) fn room(&self, depth: u64) -> usize {
        usize::try_from(depth).unwrap_or(usize::MAX).saturating_sub(self.wants.len())
    }

    /// Credit that it lacks for `depth` chunks in flight, or for all wanted chunks if they are
    /// fewer.
    pub(super) fn credit_to(&self, depth: u64) -> u64 {
        depth.min(self.wants.len() as u64).saturating_sub(self.in_flight())
    }

    /// Gives credit for one chunk more.
    pub(super) fn allow(&mut self, now: Duration) {
        self.allowed = self.allowed.saturating_add(1);
        self.has_news = true;
        if self.busy_since.is_none() {
            (self.busy_since, self.was_idle) = (Some(now), true);
        }
    }

    pub(super) fn want(&mut self, chunk: ChunkId, now: Duration) {
        if self.wants.is_empty() && self.in_flight() > 0 {
            (self.busy_since, self.was_idle) = (Some(now), true);
        }
        if self.wants.insert(chunk) {
            self.news.add.push(chunk);
            self.has_news = true;
        }
    }

    /// Withdraws a chunk, and tells the peer.
    pub(super) fn unwant(&mut self, chunk: ChunkId) {
        if self.wants.remove(&chunk) {
            let before = self.news.add.len();
            self.news.add.retain(|added| *added != chunk);
            if self.news.add.len() == before {
                self.news.remove.push(chunk);
                self.withdrawn = self.withdrawn.saturating_add(1);
            }
            self.has_news = true;
        }
    }

    /// Does not tell the peer of withdrawn chunks of a collection, which it hears is closed.
    pub(super) fn forget_collection(&mut self, collection: CollectionNumber) {
        self.news.remove.retain(|id| id.segment.collection != collection);
    }

    /// Withdraws a chunk that the peer has sent, without telling the peer.
    pub(super) fn forget_want(&mut self, chunk: ChunkId) {
        if self.wants.remove(&chunk) {
            self.news.add.retain(|added| *added != chunk);
        }
    }

    /// The update for it, if there is one.
    pub(super) fn take_news(&mut self) -> Option<Update> {
        if !std::mem::take(&mut self.has_news) {
            return None;
        }
        let news = std::mem::take(&mut self.news);
        Some(Update { received: self.received, allowed: self.allowed, ..news })
    }

    /// An update with the counts only, without changes of wants.
    pub(super) fn counts(&self) -> Update {
        Update { received: self.received, allowed: self.allowed, ..Update::default() }
    }
}
