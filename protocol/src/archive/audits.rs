//! Audits of holders that are in flight, and how many may begin.

use std::collections::BTreeMap;
use std::time::Duration;

use super::TICK;
use super::input::Audit;
use crate::eras::Era;
use crate::ids::{PeerId, RequestId};

/// Interval between audits in the background. They find peers that claim eras which they do not
/// keep.
pub const BACKGROUND: Duration = Duration::from_secs(60);
/// Most audits that begin in a second before eras are dropped. Each moves one chunk, 128 KiB by
/// default.
pub const AUDITS_A_SECOND: usize = 8;
/// Timeout of an audit. Without a result by then it counts as unanswered.
const PATIENCE: Duration = Duration::from_secs(30);
/// After this time without a result another peer is audited as well, so that silent peers do not
/// delay a drop for long.
const SLOW_AFTER: Duration = Duration::from_secs(5);

/// Audits in flight: at most [`AUDITS_A_SECOND`] for each second of [`PATIENCE`], and a few of the
/// background.
#[derive(Debug)]
pub(super) struct Audits {
    in_flight: BTreeMap<RequestId, Begun>,
    /// How many may still begin before the next tick.
    left: usize,
    /// When the next audit in the background begins.
    pub(super) background_at: Duration,
}

/// An audit in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    pub(super) peer: PeerId,
    pub(super) era: Era,
    pub(super) at: Duration,
    /// Era and peer were chosen at random.
    pub(super) is_random: bool,
    /// It ended without a chunk. It stays until [`SLOW_AFTER`], so that the peer is not audited
    /// again at once.
    pub(super) ended: Option<Audit>,
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

    /// Whether one more may begin for an era that is not about to be dropped. Half of the audits
    /// are for those that are.
    pub(super) const fn has_spare(&self) -> bool {
        self.left > AUDITS_A_SECOND / 2
    }

    pub(super) fn begin(&mut self, id: RequestId, begun: Begun) {
        self.left = self.left.saturating_sub(1);
        self.in_flight.insert(id, begun);
    }

    /// Ends an audit that passed or failed. Any other result comes with [`Self::take_late`]. `None`
    /// as well if it is not in flight.
    pub(super) fn end(&mut self, id: RequestId, audit: Audit) -> Option<Begun> {
        if matches!(audit, Audit::Passed | Audit::Failed) {
            return self.in_flight.remove(&id);
        }
        self.in_flight.get_mut(&id)?.ended = Some(audit);
        None
    }

    /// The peers that are being audited for an era, and whether each takes long.
    pub(super) fn of(&self, era: Era, now: Duration) -> impl Iterator<Item = (PeerId, bool)> {
        let of_era = self.in_flight.values().filter(move |begun| begun.era == era);
        of_era.map(move |begun| {
            (begun.peer, begun.ended.is_some() || now.saturating_sub(begun.at) >= SLOW_AFTER)
        })
    }

    /// The peer is gone, so its audits have no result.
    pub(super) fn on_disconnected(&mut self, peer: PeerId) {
        self.in_flight.retain(|_, begun| begun.peer != peer);
    }

    /// Ends the audits that have been in flight for too long.
    pub(super) fn take_late(&mut self, now: Duration) -> Vec<Begun> {
        let is_late = |begun: &Begun| {
            let most = if begun.ended.is_some() { SLOW_AFTER } else { PATIENCE };
            now.saturating_sub(begun.at) >= most
        };
        let late = self.in_flight.extract_if(.., |_, begun| is_late(begun));
        late.map(|(_, begun)| begun).collect()
    }
}
