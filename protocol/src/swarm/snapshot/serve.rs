//! Answers to peers that ask for frontiers and proofs of blocks.

use ledger::hash::SnapshotId;
use ledger::snapshot::FRONTIER_PAGE_SUBTREES;
use ledger::units::Height;

use super::Kind;
use super::joining::Joining;
use crate::ids::PeerId;
use crate::message::CertifiedHeader;
use crate::swarm::effect::Effect;
use crate::swarm::engine::Engine;
use crate::swarm::history::answers::HEAD_COST;
use crate::swarm::input::SnapshotOffer;
use crate::swarm::message::{FrontierPage, SyncMessage};

/// Subtrees of a frontier that cost as much as a descriptor of a segment, which is read from the
/// store and is four times as long.
const SUBTREES_A_DESCRIPTOR: u64 = 4;
/// Cost of the proof of a block, in descriptors: all blocks of a segment are read and hashed, some
/// 0.1 seconds of the thread's time. A peer may ask for eight at once, and then for one in 16
/// seconds.
const BLOCK_PROOF_COST: u64 = 32_768;

impl Kind {
    pub(in crate::swarm) fn on_get_frontier(
        &self,
        engine: &mut Engine,
        from: PeerId,
        id: SnapshotId,
        page: u32,
    ) {
        let answer = self.offer(id).and_then(|offer| frontier_page(offer, page));
        let cost = answer.as_ref().map_or(1, |page| {
            let subtrees = page.subtrees.len() as u64;
            let block = if page.block.is_some() { HEAD_COST } else { 0 };
            subtrees.div_ceil(SUBTREES_A_DESCRIPTOR).saturating_add(block).max(1)
        });
        let answer = answer.filter(|_| engine.may_ask(from, cost));
        engine.send(from, &SyncMessage::Frontier(id, page, answer));
    }

    /// A snapshot that is whole here, or whose chunks are being fetched.
    fn offer(&self, id: SnapshotId) -> Option<&SnapshotOffer> {
        let fetched = self.joining.as_ref().and_then(Joining::fetch).map(|fetch| &fetch.offer);
        let kept = self.kept.get(&id).map(|kept| &kept.offer);
        kept.or(fetched).filter(|offer| offer.id == id)
    }
}

/// Asks the driver for the proof of a block, or refuses.
pub(in crate::swarm) fn on_get_block_proof(engine: &mut Engine, from: PeerId, height: Height) {
    match engine.may_ask(from, BLOCK_PROOF_COST) {
        true => engine.push(Effect::SendBlockProof(from, height)),
        false => engine.send(from, &SyncMessage::BlockProof(height, None)),
    }
}

/// A page of a frontier. If the last page that has subtrees is full, an empty one follows it.
fn frontier_page(offer: &SnapshotOffer, page: u32) -> Option<FrontierPage> {
    let first = (page as usize).checked_mul(FRONTIER_PAGE_SUBTREES)?;
    let subtrees = offer.frontier.descriptors().get(first..)?;
    let subtrees = subtrees.iter().take(FRONTIER_PAGE_SUBTREES).copied().collect();
    let (header, certificate) = (offer.header.clone(), offer.certificate.clone());
    let block = (page == 0).then_some(CertifiedHeader { header, certificate });
    Some(FrontierPage { block, subtrees })
}
