//! Answers to peers that ask for manifests and heads, and what their requests may cost.

use ledger::units::{Height, SegmentIndex};

use crate::ids::PeerId;
use crate::swarm::message::{DESCRIPTORS_MAX, MANIFEST_SEGMENTS_MAX, SyncMessage};
use crate::swarm::{Effect, Swarm};

/// Cost of a segment's head, in descriptors. A head is a descriptor, a certificate and chunk
/// hashes.
pub(in crate::swarm) const HEAD_COST: u64 = 64;
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

impl Swarm {
    /// Whether a peer's request is answered. If so, its cost is charged to the peer's allowance and
    /// to the allowance that all peers share.
    pub(in crate::swarm) fn may_ask(&mut self, peer: PeerId, cost: u64) -> bool {
        let Some(link) = self.links.get_mut(&peer) else { return false };
        let may = link.answers.has(cost, self.now) && self.answers.has(cost, self.now);
        if may {
            link.answers.take(cost);
            self.answers.take(cost);
        }
        may
    }

    /// Cost of the manifest page that begins with this segment, in descriptors.
    pub(in crate::swarm) fn page_cost(&self, first: SegmentIndex) -> u64 {
        let known = self.sealed.0.max(self.source.manifest().segments());
        known.saturating_sub(first.0).clamp(1, DESCRIPTORS_MAX as u64)
    }

    pub(in crate::swarm) fn on_get_manifest(
        &mut self,
        peer: PeerId,
        height: Height,
        first: SegmentIndex,
    ) {
        if height > self.tip.max(self.source.proven_height()) {
            return self.send(peer, &SyncMessage::Manifest(height, first, None));
        }
        let known = self.source.manifest().descriptors();
        let known = known.filter(|descriptor| descriptor.index >= first.0);
        let known = known.filter(|descriptor| descriptor.last < height);
        let known = known.copied().take(DESCRIPTORS_MAX).collect();
        self.effects.push(Effect::SendManifest { peer, height, first, known });
    }

    pub(in crate::swarm) fn on_get_head(&mut self, from: PeerId, index: SegmentIndex) {
        match self.downloads.segments().head(index).cloned() {
            Some(head) => self.send(from, &SyncMessage::Head(index, Some(head))),
            None if index < self.sealed => self.effects.push(Effect::SendHead(from, index)),
            None => self.send(from, &SyncMessage::Head(index, None)),
        }
    }
}
