//! Answers to peers that ask for manifests and heads, and what their requests may cost.

use ledger::history::SegmentHead;
use ledger::units::{Height, SegmentIndex};

use super::{HISTORY, Kind};
use crate::ids::PeerId;
use crate::swarm::effect::Effect;
use crate::swarm::engine::Engine;
use crate::swarm::message::{DESCRIPTORS_MAX, MANIFEST_SEGMENTS_MAX, SyncMessage};

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

impl Kind {
    /// Whether a peer's request is answered. If so, its cost is charged to the peer's allowance and
    /// to the allowance that all peers share.
    fn may_ask(&mut self, engine: &Engine, peer: PeerId, cost: u64) -> bool {
        let Some(peer) = self.peers.get_mut(&peer) else { return false };
        let may = peer.answers.has(cost, engine.now) && self.answers.has(cost, engine.now);
        if may {
            peer.answers.take(cost);
            self.answers.take(cost);
        }
        may
    }

    /// Cost of the manifest page that begins with this segment, in descriptors.
    fn page_cost(&self, first: SegmentIndex) -> u64 {
        let known = self.sealed.0.max(self.source.manifest().segments());
        known.saturating_sub(first.0).clamp(1, DESCRIPTORS_MAX as u64)
    }

    pub(in crate::swarm) fn on_get_manifest(
        &mut self,
        engine: &mut Engine,
        peer: PeerId,
        height: Height,
        first: SegmentIndex,
    ) {
        let cost = self.page_cost(first);
        let is_known = height <= self.tip.max(self.source.proven_height());
        if !self.may_ask(engine, peer, cost) || !is_known {
            // Refused for now, or not known. The peer may ask another node, or ask again.
            return engine.send(peer, &SyncMessage::Manifest(height, first, None));
        }
        let known = self.source.manifest().descriptors();
        let known = known.filter(|descriptor| descriptor.index >= first.0);
        let known = known.filter(|descriptor| descriptor.last < height);
        let known = known.copied().take(DESCRIPTORS_MAX).collect();
        engine.push(Effect::SendManifest { peer, height, first, known });
    }

    pub(in crate::swarm) fn on_get_head(
        &mut self,
        engine: &mut Engine,
        from: PeerId,
        index: SegmentIndex,
    ) {
        let id = HISTORY.segment(index);
        if !self.may_ask(engine, from, HEAD_COST) {
            return engine.send(from, &SyncMessage::Head(index, None));
        }
        match (self.begun.get(&index), engine.segments().get(id)) {
            (Some(begun), Some(segment)) => {
                let (descriptor, certificate) = (begun.descriptor, begun.certificate.clone());
                let chunks = segment.hashes().to_vec();
                let head = SegmentHead { descriptor, chunks, certificate };
                engine.send(from, &SyncMessage::Head(index, Some(head)));
            }
            _ if engine.has_any(id) => engine.push(Effect::SendHead(from, index)),
            _ => engine.send(from, &SyncMessage::NotKept(id)),
        }
    }
}
