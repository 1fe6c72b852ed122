//! One peer that sends chunks to this node: its rate, lateness and credit, and the news for it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::message::{ChunkId, Update};
use super::meter::{Meter, bytes_in, time_for};

/// A peer has in flight what arrives within its round trip plus this time.
const AHEAD: Duration = Duration::from_millis(500);
/// Most chunks in flight from one peer.
const DEPTH_MAX: u64 = 64;
/// Longest time without a chunk until a peer is late, however slow it was.
const LATE_MOST: Duration = Duration::from_secs(10);
/// A peer is late after this time, or four chunk times if longer, without a chunk: others take
/// over.
const LATE: Duration = Duration::from_secs(2);
/// The same for a peer that has never sent a chunk.
pub(super) const LATE_AT_FIRST: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct Supplier {
    /// Chunks that are wanted from it.
    pub(super) wants: BTreeSet<ChunkId>,
    /// Chunks withdrawn after being announced; that many may still arrive unrequested.
    pub(super) withdrawn: u64,
    pub(super) received: u64,
    pub(super) allowed: u64,
    /// Since when it could have sent a chunk: since the last one, or since it got credit when idle.
    pub(super) busy_since: Option<Duration>,
    pub(super) was_idle: bool,
    pub(super) round_trip: Option<Duration>,
    pub(super) meter: Meter,
    pub(super) is_late: bool,
    /// It has no upload slot for us before this time.
    pub(super) busy_until: Duration,
    pub(super) fetched_bytes: u64,
    pub(super) news: Update,
    pub(super) has_news: bool,
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

    pub(super) const fn in_flight(&self) -> u64 {
        self.allowed.saturating_sub(self.received)
    }

    pub(super) fn on_chunk(&mut self, bytes: u64, now: Duration) {
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

    /// Rate in bytes per second, which falls while nothing arrives.
    pub(super) fn rate(&self, now: Duration) -> Option<u64> {
        let waited = self.busy_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let mut meter = self.meter;
        if waited > LATE {
            meter.add(0, waited);
        }
        meter.rate().or_else(|| self.meter.rate().map(|_| 1))
    }

    /// When the peer becomes late, if nothing arrives.
    pub(super) fn lateness(&self, chunk_bytes: u64) -> Option<Duration> {
        let since = self.busy_since.filter(|_| !self.wants.is_empty())?;
        Some(since.saturating_add(match self.meter.rate() {
            Some(rate) => time_for(chunk_bytes.saturating_mul(4), rate).clamp(LATE, LATE_MOST),
            None => LATE_AT_FIRST,
        }))
    }

    /// Chunks that a peer may have in flight.
    pub(super) fn depth(&self, chunk_bytes: u64, now: Duration) -> u64 {
        match self.rate(now) {
            // A newcomer gets one, and so does a peer that does not keep up.
            None => 1,
            Some(_) if self.is_late => 1,
            Some(rate) => {
                let ahead = self.round_trip.unwrap_or_default().saturating_add(AHEAD);
                bytes_in(rate, ahead).div_ceil(chunk_bytes.max(1)).clamp(1, DEPTH_MAX)
            }
        }
    }

    /// Time that a peer takes for its credit and one chunk more.
    pub(super) fn time_to_clear(&self, chunk_bytes: u64, now: Duration) -> Duration {
        let chunks = self.in_flight().min(self.wants.len() as u64).saturating_add(1);
        let waited = self.busy_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let rate = match (self.rate(now), self.is_late || self.busy_until > now) {
            (Some(rate), false) => rate,
            _ => return LATE_AT_FIRST.saturating_add(waited),
        };
        time_for(chunks.saturating_mul(chunk_bytes), rate)
    }
}
