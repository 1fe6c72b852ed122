//! How far this node's clock is from its peers' clocks. Nothing else shows that a clock is wrong.
//! If the clock of a validator is too far behind, the validator holds back its votes. If the clock
//! is too far ahead, the others hold back their votes for its blocks.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Machine, Notice};
use crate::ids::PeerId;

/// Fewest peers for an offset. With fewer, a single wrong clock among them could decide it.
const PEERS_MIN: usize = 3;
/// Answers that took longer are ignored, since the error is up to half of the round trip.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(2);

/// Offset of this clock from each connected peer's, in milliseconds; positive if this one is ahead.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    offsets: BTreeMap<PeerId, i64>,
    /// Whether the operator was told that the clock is off.
    is_told: bool,
}

impl Clocks {
    pub(super) fn on_disconnected(&mut self, peer: PeerId) {
        self.offsets.remove(&peer);
    }

    /// A peer's clock showed `theirs` when it answered, `round_trip` is how long that took, and
    /// this clock shows `ours` now.
    fn on_answer(&mut self, peer: PeerId, ours: u64, theirs: u64, round_trip: Duration) {
        if round_trip > ROUND_TRIP_MAX {
            return;
        }
        let half = i64::try_from(round_trip.as_millis() / 2).unwrap_or(i64::MAX);
        let signed = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
        let offset = signed(ours).saturating_sub(signed(theirs)).saturating_sub(half);
        self.offsets.insert(peer, offset);
    }

    /// The median over the peers. If their number is even, it is the middle value nearer to zero,
    /// so that a warning needs more than half of the peers.
    pub(super) fn offset(&self) -> Option<i64> {
        if self.offsets.len() < PEERS_MIN {
            return None;
        }
        let mut sorted: Vec<i64> = self.offsets.values().copied().collect();
        sorted.sort_unstable();
        let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
        let (low, high) = (*sorted.get(low)?, *sorted.get(high)?);
        Some(if low.unsigned_abs() <= high.unsigned_abs() { low } else { high })
    }

    /// If the offset has just passed `limit` or come back: the offset, and whether it is beyond
    /// `limit`.
    fn news(&mut self, limit: u64) -> Option<(i64, bool)> {
        let offset = self.offset()?;
        let is_off = offset.unsigned_abs() > limit;
        (std::mem::replace(&mut self.is_told, is_off) != is_off).then_some((offset, is_off))
    }
}

impl Machine {
    pub(super) fn on_peer_clock(&mut self, peer: PeerId, theirs: u64, asked_at: Duration) {
        if !self.peers.connected.contains(&peer) {
            return;
        }
        let round_trip = self.turn.now.elapsed.saturating_sub(asked_at);
        self.peers.clocks.on_answer(peer, self.turn.now.wall.0, theirs, round_trip);
        // Beyond the full drift, votes are held back: by this node if its clock is behind, by other
        // nodes for its blocks if it is ahead. At half of the drift the operator still has time to
        // act.
        let limit = self.chain.state.chain().limits().clock_drift_ms / 2;
        if let Some((offset, is_off)) = self.peers.clocks.news(limit) {
            let notice = if is_off { Notice::ClockOff(offset) } else { Notice::ClockRight(offset) };
            self.turn.notice(notice);
        }
    }

    /// Median offset of this node's clock from its peers' clocks, in milliseconds; negative if it
    /// is behind. `None` while the clocks of fewer than three peers are known.
    #[must_use]
    pub fn clock_offset_ms(&self) -> Option<i64> {
        self.peers.clocks.offset()
    }
}
