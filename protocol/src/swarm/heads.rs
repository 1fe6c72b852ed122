//! Requests for the heads of segments, each to one peer at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::units::SegmentIndex;

use super::asked::Asked;
use crate::ids::PeerId;

/// Timeout of a request, after which another peer is asked. A late head still counts.
const PATIENCE: Duration = Duration::from_secs(3);
/// Delay until peers are asked again, once none of them had an answer.
const RETRY: Duration = Duration::from_millis(750);

/// The requests for the heads of one collection.
#[derive(Debug, Default)]
pub(super) struct Heads {
    asked: Asked,
    /// For each segment the peer that was asked for its head, and when another one is.
    in_flight: BTreeMap<SegmentIndex, (PeerId, Duration)>,
}

impl Heads {
    /// The segments whose heads were asked for, in order.
    pub(super) fn asked(&self) -> impl Iterator<Item = SegmentIndex> {
        self.in_flight.keys().copied()
    }

    /// Number of heads that were asked for.
    pub(super) fn count(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn is_asked(&self, index: SegmentIndex) -> bool {
        self.in_flight.contains_key(&index)
    }

    /// The first segment whose head is late, so that another peer is to be asked.
    pub(super) fn late(&self, now: Duration) -> Option<SegmentIndex> {
        let mut late = self.in_flight.iter().filter(|(_, (_, deadline))| *deadline <= now);
        late.next().map(|(index, _)| *index)
    }

    /// Gives up all requests that are late. Returns the peers that were asked.
    pub(super) fn take_late(&mut self, now: Duration) -> Vec<PeerId> {
        let mut late = Vec::new();
        self.in_flight.retain(|_, (peer, deadline)| {
            let is_late = *deadline <= now;
            late.extend(is_late.then_some(*peer));
            !is_late
        });
        late
    }

    /// Of peers with the same holdings, the one with the lowest rank is asked next.
    pub(super) fn rank(&self, peer: PeerId) -> (u64, u64) {
        self.asked.rank(peer)
    }

    /// A peer is asked for a head.
    pub(super) fn on_asked(&mut self, index: SegmentIndex, peer: PeerId, now: Duration) {
        self.in_flight.insert(index, (peer, now.saturating_add(PATIENCE)));
        self.asked.note_asked(peer);
    }

    /// A good head has come from a peer.
    pub(super) fn on_answered(&mut self, index: SegmentIndex, from: PeerId) {
        self.in_flight.remove(&index);
        self.asked.note_answered(from);
    }

    /// A peer does not give a head, so another one is asked soon.
    pub(super) fn on_refused(&mut self, index: SegmentIndex, from: PeerId, now: Duration) {
        let retry_at = now.saturating_add(RETRY);
        if let Some((asked, deadline)) = self.in_flight.get_mut(&index)
            && *asked == from
        {
            *deadline = retry_at.min(*deadline);
        }
    }

    pub(super) fn on_closed(&mut self, peer: PeerId) {
        self.asked.forget(peer);
        self.in_flight.retain(|_, (asked, _)| *asked != peer);
    }

    pub(super) fn keep_only(&mut self, keep: impl Fn(SegmentIndex) -> bool) {
        self.in_flight.retain(|index, _| keep(*index));
    }

    pub(super) fn deadline(&self, now: Duration) -> Option<Duration> {
        let all = self.in_flight.values().map(|(_, deadline)| *deadline);
        // A deadline in the past is of a segment that no peer has.
        all.filter(|deadline| *deadline > now).min()
    }
}
