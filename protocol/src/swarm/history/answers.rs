//! Answers to peers that ask for manifests and heads.

use ledger::units::{Height, SegmentIndex};

use super::{HISTORY, Kind};
use crate::ids::PeerId;
use crate::swarm::effect::Effect;
use crate::swarm::engine::Engine;
use crate::swarm::message::{DESCRIPTORS_MAX, SyncMessage};

/// Cost of a segment's head, in descriptors. A head is a descriptor, a certificate and chunk
/// hashes.
pub(in crate::swarm) const HEAD_COST: u64 = 64;

impl Kind {
    /// Most that the manifest page of a height that begins with this segment costs, in descriptors.
    /// Each segment has a block at least.
    fn page_cost(&self, height: Height, first: SegmentIndex) -> u64 {
        let known = self.sealed.0.max(self.source.manifest().segments()).min(height.0);
        known.saturating_sub(first.0).clamp(1, DESCRIPTORS_MAX as u64)
    }

    pub(in crate::swarm) fn on_get_manifest(
        &mut self,
        engine: &mut Engine,
        peer: PeerId,
        height: Height,
        first: SegmentIndex,
    ) {
        let is_known = height <= self.tip.max(self.source.proven_height());
        if !is_known || !engine.may_ask(peer, self.page_cost(height, first)) {
            // Not known, which costs nothing, or refused for now. The peer may ask another node, or
            // ask again.
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
        if !engine.may_ask(from, HEAD_COST) {
            return engine.send(from, &SyncMessage::Head(index, None));
        }
        match self.begun.get(&index) {
            Some(head) => engine.answer(from, &SyncMessage::Head(index, Some(head.clone()))),
            None if engine.has_any(id) => engine.push(Effect::SendHead(from, index)),
            None => engine.send(from, &SyncMessage::NotKept(id)),
        }
    }
}
