//! Audits in flight, and how many may begin.

use std::collections::BTreeMap;
use std::time::Duration;

use super::TICK;
use crate::eras::Era;
use crate::ids::{PeerId, RequestId};

/// Interval of audits that serve no batch. They find peers that claim what they do not keep.
pub const BACKGROUND: Duration = Duration::from_secs(60);
/// Most audits that begin in a second, for eras that are about to be dropped. Each moves one chunk,
/// 128 KiB by default.
pub const AUDITS_A_SECOND: usize = 8;
/// An audit that has no result after this time is without an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Audits in flight: at most [`AUDITS_A_SECOND`] for each second of [`PATIENCE`], and a few of the
/// background.
#[derive(Debug)]
pub(super) struct Audits {
    in_flight: BTreeMap<RequestId, (PeerId, Era, Duration)>,
    /// How many may still begin before the next tick.
    left: usize,
    /// When the next one of the background begins.
    pub(super) background_at: Duration,
}

impl Audits {
    pub(super) const fn new(now: Duration) -> Self {
        let background_at = now.saturating_add(BACKGROUND);
        Self { in_flight: BTreeMap::new(), left: 0, background_at }
    }

    /// A tick has passed, so more may begin.
    pub(super) fn on_tick(&mut self) {
        self.left = AUDITS_A_SECOND.saturating_mul(usize::try_from(TICK.as_secs()).unwrap_or(1));
    }

    /// Whether one more may begin.
    pub(super) const fn has_room(&self) -> bool {
        self.left > 0
    }

    pub(super) fn begin(&mut self, id: RequestId, peer: PeerId, era: Era, now: Duration) {
        self.left = self.left.saturating_sub(1);
        self.in_flight.insert(id, (peer, era, now.saturating_add(PATIENCE)));
    }

    /// Ends an audit. `None` if it is not in flight.
    pub(super) fn end(&mut self, id: RequestId) -> Option<(PeerId, Era)> {
        self.in_flight.remove(&id).map(|(peer, era, _)| (peer, era))
    }

    /// The peers that are being audited for an era.
    pub(super) fn of(&self, era: Era) -> impl Iterator<Item = PeerId> {
        let of_era = self.in_flight.values().filter(move |(_, audited, _)| *audited == era);
        of_era.map(|(peer, ..)| *peer)
    }

    /// The peer is gone, so its audits have no result.
    pub(super) fn on_disconnected(&mut self, peer: PeerId) {
        self.in_flight.retain(|_, (audited, ..)| *audited != peer);
    }

    /// Ends the audits that have been in flight for too long.
    pub(super) fn take_late(&mut self, now: Duration) -> Vec<PeerId> {
        let late = self.in_flight.extract_if(.., |_, (.., until)| *until <= now);
        late.map(|(_, (peer, ..))| peer).collect()
    }
}
