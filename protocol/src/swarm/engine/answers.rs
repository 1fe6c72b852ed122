//! What the requests of peers for manifests, heads and frontiers may cost.

use super::Engine;
use crate::ids::PeerId;
use crate::swarm::message::MANIFEST_SEGMENTS_MAX;

/// Descriptors read for one peer per second: enough for 32 heads, or a manifest page every other
/// second.
pub(in crate::swarm) const ANSWERED_EACH: u64 = 2_048;
/// Burst for one peer, in descriptors: a whole manifest, since a newcomer asks for page after page.
pub(in crate::swarm) const ANSWERED_EACH_AT_ONCE: u64 = MANIFEST_SEGMENTS_MAX as u64;
/// Descriptors read for all peers per second. At about 3 us each, they take at most a tenth of the
/// thread's time.
pub(in crate::swarm) const ANSWERED_ALL: u64 = 32_768;
/// Burst for all peers together, in descriptors: about 1.6 seconds of the thread's time.
pub(in crate::swarm) const ANSWERED_ALL_AT_ONCE: u64 = 2 * MANIFEST_SEGMENTS_MAX as u64;

impl Engine {
    /// Whether a peer's request is answered. If so, its cost is charged to the peer's allowance and
    /// to the allowance that all peers share. Unit: descriptors read.
    ///
    /// The shared allowance may go into debt. If it had to cover the whole cost, peers that use it
    /// up by cheap requests would keep out all others' dear ones.
    pub(in crate::swarm) fn may_ask(&mut self, peer: PeerId, cost: u64) -> bool {
        let Some(link) = self.links.get_mut(&peer) else { return false };
        let may = link.answers.has(cost, self.now) && self.answers.has(1, self.now);
        if may {
            link.answers.take(cost);
            self.answers.take(cost);
        }
        may
    }
}
