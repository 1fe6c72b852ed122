//! The snapshots of the fuzzed machine: files, peers that offer them, and lies about them.

use std::collections::{BTreeMap, BTreeSet};

use ledger::hash::{BlockHash, Hash, SnapshotId};
use ledger::history::SegmentDescriptor;
use ledger::merkle::MerkleProof;
use ledger::units::{Height, SegmentIndex};
use protocol::PeerId;
use protocol::message::CertifiedHeader;
use protocol::swarm::message::{CollectionNumber, FrontierPage, Holdings, SyncMessage};
use protocol::swarm::{SegmentRanges, SnapshotOffer};

use super::{SNAPSHOT, made, number as history};
use crate::fuzz::stream::Stream;
use crate::swarm::{Forgery, Made};

/// The snapshots on disk, with the chunks that are there.
#[derive(Default)]
pub(super) struct Files {
    pub(super) files: BTreeMap<SnapshotId, (SnapshotOffer, BTreeSet<u64>)>,
    /// The snapshot that is being loaded, and the number of segments up to its block.
    pub(super) loading: Option<(SnapshotId, usize)>,
}

impl Files {
    pub(super) fn begin(&mut self, offer: SnapshotOffer) {
        let before = self.files.insert(offer.id, (offer, BTreeSet::new()));
        assert!(before.is_none(), "a snapshot is begun once");
    }

    pub(super) fn remove(&mut self, id: SnapshotId) {
        self.files.remove(&id);
        self.loading = self.loading.filter(|(loading, _)| *loading != id);
    }

    /// Only the true snapshot has all chunks.
    pub(super) fn on_load(&mut self, id: SnapshotId, made: &Made, known: &[SegmentDescriptor]) {
        let (offer, chunks) = &self.files[&id];
        assert_eq!(*offer.frontier, *made.accounts.frontier, "a false snapshot is whole");
        assert_eq!(chunks.len() as u64, offer.frontier.chunk_count());
        assert_eq!(known.last().map(|one| one.last), Some(offer.height));
        assert!(self.loading.replace((id, known.len())).is_none(), "one is loaded at a time");
    }
}

impl Made {
    /// The snapshot that honest peers have.
    pub(in crate::fuzz) fn true_offer(&self) -> SnapshotOffer {
        self.offer(SNAPSHOT, &self.accounts.frontier)
    }
}

/// An honest peer's number of its snapshot.
pub(super) fn number(peer: PeerId) -> CollectionNumber {
    CollectionNumber(history(peer).0 + 100)
}

pub(super) fn holdings(peer: PeerId) -> SyncMessage {
    let count = made().accounts.frontier.segment_count();
    let whole = SegmentRanges::before(SegmentIndex(count));
    SyncMessage::Holdings(number(peer), Holdings { whole, open: Vec::new(), nonce: peer.0 })
}

/// The only page of a frontier.
pub(super) fn page(offer: &SnapshotOffer, id: SnapshotId, page: u32) -> Option<FrontierPage> {
    let (header, certificate) = (offer.header.clone(), offer.certificate.clone());
    let block = Some(CertifiedHeader { header, certificate });
    let subtrees = offer.frontier.descriptors().to_vec();
    (offer.id == id && page == 0).then_some(FrontierPage { block, subtrees })
}

/// A well-formed message about snapshots, which may be false.
pub(super) fn lie(stream: &mut Stream<'_>) -> SyncMessage {
    let offer = |stream: &mut Stream<'_>| {
        let accounts = &made().accounts;
        let segment = SegmentIndex(stream.below(4) as u64);
        match stream.below(4) {
            0 => made().offer(segment, &accounts.forge(Forgery::Moved)),
            1 => made().offer(segment, &accounts.forge(Forgery::Finer)),
            _ => made().offer(segment, &accounts.frontier),
        }
    };
    match stream.below(6) {
        0 | 1 => {
            let count = stream.below(6);
            let all = (0..count).map(|_| offer(stream)).map(|offer| (offer.height, offer.id));
            SyncMessage::Snapshots(all.collect())
        }
        2 | 3 => {
            let offer = offer(stream);
            let mut page = page(&offer, offer.id, 0);
            if let (Some(page), flip @ 1..) = (&mut page, stream.byte()) {
                let at = usize::from(flip) % page.subtrees.len();
                page.subtrees[at].count ^= u32::from(flip);
                page.block = page.block.take().filter(|_| flip.is_multiple_of(2));
            }
            SyncMessage::Frontier(offer.id, u32::from(stream.byte() > 250), page)
        }
        4 => SyncMessage::GetFrontier(offer(stream).id, u32::from(stream.byte()) << 24),
        _ => {
            let height = Height(u64::from(stream.byte()));
            let proof = MerkleProof { index: 0, count: 1, siblings: Vec::new() };
            let proof = (stream.byte() < 200).then_some((BlockHash(Hash::ZERO), proof));
            match stream.byte() % 2 {
                0 => SyncMessage::GetBlockProof(height),
                _ => SyncMessage::BlockProof(height, proof),
            }
        }
    }
}
