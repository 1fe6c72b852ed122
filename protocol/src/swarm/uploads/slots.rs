//! Upload slots: which peers are served for the next seconds.

use std::time::Duration;

use super::Uploads;
use crate::ids::PeerId;
use crate::swarm::census::mix;

/// Upload slots: peers served at a time.
pub(super) const SLOTS: usize = 64;
/// Slots for the peers that gave most lately. Of the other slots, most go to peers that were sent
/// least, such as newcomers, and a few to peers drawn by lot at each rotation (Cohen 2003).
pub(super) const SLOTS_FOR_GIVERS: usize = 48;
pub(super) const SLOTS_FOR_NEWCOMERS: usize = 12;
/// How often upload slots are reassigned.
pub(super) const ROTATION: Duration = Duration::from_secs(10);

impl Uploads {
    /// Reassigns the slots when it is time. Returns peers that want chunks and got no slot, with
    /// the time to wait.
    pub(crate) fn rotate(&mut self, now: Duration) -> Vec<(PeerId, Duration)> {
        let unsettled =
            self.peers.values().filter(|peer| peer.is_waiting(now) && !peer.has_slot).count();
        let taken = self.peers.values().filter(|peer| peer.has_slot).count();
        if self.rotate_at > now {
            // Free slots go to any peer that waits for one.
            let free = SLOTS.saturating_sub(taken);
            if free > 0 && unsettled > 0 {
                let newcomers =
                    self.peers.values_mut().filter(|peer| peer.is_waiting(now) && !peer.has_slot);
                newcomers.take(free).for_each(|peer| peer.has_slot = true);
            }
            return Vec::new();
        }
        self.rotate_at = now.saturating_add(ROTATION);
        self.rotations = self.rotations.saturating_add(1);
        let mut waiting: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| peer.is_waiting(now)).map(|(id, _)| *id).collect();
        let of = |id: &PeerId| {
            self.peers.get(id).map_or((0, 0), |peer| (peer.given_lately, peer.served_bytes))
        };
        waiting.sort_by_key(|id| (std::cmp::Reverse(of(id).0), of(id).1));
        let mut chosen: Vec<PeerId> =
            waiting.drain(..SLOTS_FOR_GIVERS.min(waiting.len())).collect();
        waiting.sort_by_key(|id| of(id).1);
        chosen.extend(waiting.drain(..SLOTS_FOR_NEWCOMERS.min(waiting.len())));
        let turn = self.rotations;
        waiting.sort_by_key(|id| mix(id.0 ^ mix(turn)));
        chosen.extend(waiting.drain(..SLOTS.saturating_sub(chosen.len()).min(waiting.len())));
        for (id, peer) in &mut self.peers {
            peer.given_lately /= 2;
            peer.has_slot = chosen.contains(id);
        }
        waiting.into_iter().map(|id| (id, ROTATION)).collect()
    }
}
