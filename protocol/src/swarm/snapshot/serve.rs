//! Answers to peers that ask for frontiers and proofs of blocks.

use ledger::hash::SnapshotId;
use ledger::snapshot::{FRONTIER_PAGE_SUBTREES, SubtreeDescriptor};
use ledger::units::Height;

use super::Kind;
use super::joining::Joining;
use crate::ids::PeerId;
use crate::message::CertifiedHeader;
use crate::swarm::effect::Effect;
use crate::swarm::engine::Engine;
use crate::swarm::history;
use crate::swarm::history::answers::HEAD_COST;
use crate::swarm::input::SnapshotOffer;
use crate::swarm::message::{FrontierPage, SyncMessage};

/// Subtrees of a frontier that cost as much as a descriptor of a segment, which is read from the
/// store and is four times as long.
const SUBTREES_A_DESCRIPTOR: u64 = 4;
/// Cost of the proof of a block, in descriptors: the hashes of all blocks of a segment, at most
/// 65,536, are read from its index and joined to their root. That is some 20 ms of the thread's
/// time. A peer may ask for 32 at once, and then for one in four seconds.
const BLOCK_PROOF_COST: u64 = 8_192;

impl Kind {
    pub(in crate::swarm) fn on_get_frontier(
        &self,
        engine: &mut Engine,
        from: PeerId,
        id: SnapshotId,
        page: u32,
    ) {
        let found = self.offer(id).and_then(|offer| Some((offer, page_of(offer, page)?)));
        let answer = found.filter(|(_, subtrees)| {
            let block = if page == 0 { HEAD_COST } else { 0 };
            let subtrees = (subtrees.len() as u64).div_ceil(SUBTREES_A_DESCRIPTOR);
            engine.may_ask(from, subtrees.saturating_add(block).max(1))
        });
        let answer = answer.map(|(offer, subtrees)| {
            let (header, certificate) = (offer.header.clone(), offer.certificate.clone());
            let block = (page == 0).then_some(CertifiedHeader { header, certificate });
            FrontierPage { block, subtrees: subtrees.to_vec() }
        });
        engine.answer(from, &SyncMessage::Frontier(id, page, answer));
    }

    /// A snapshot that is whole here, or whose chunks are being fetched.
    fn offer(&self, id: SnapshotId) -> Option<&SnapshotOffer> {
        let fetched = self.joining.as_ref().and_then(Joining::fetch).map(|fetch| &fetch.offer);
        let kept = self.kept.get(&id).map(|kept| &kept.offer);
        kept.or(fetched).filter(|offer| offer.id == id)
    }
}

/// Asks the driver for the proof of a block, or refuses.
pub(in crate::swarm) fn on_get_block_proof(
    engine: &mut Engine,
    history: &history::Kind,
    from: PeerId,
    height: Height,
) {
    match height <= history.tip && engine.may_ask(from, BLOCK_PROOF_COST) {
        true => engine.push(Effect::SendBlockProof(from, height)),
        false => engine.send(from, &SyncMessage::BlockProof(height, None)),
    }
}

/// The subtrees of a page. If the last page that has subtrees is full, an empty one follows it.
fn page_of(offer: &SnapshotOffer, page: u32) -> Option<&[SubtreeDescriptor]> {
    let first = (page as usize).checked_mul(FRONTIER_PAGE_SUBTREES)?;
    let rest = offer.frontier.descriptors().get(first..)?;
    rest.get(..FRONTIER_PAGE_SUBTREES.min(rest.len()))
}
