//! Chunks of snapshots, and what happens to the snapshots of the fuzzed machine.

use ledger::units::SegmentIndex;
use protocol::PeerId;
use protocol::swarm::message::ChunkId;
use protocol::swarm::{CollectionKind, HISTORY, Input, SnapshotOffer, snapshot_chunk};

use super::shell::Shell;

impl Shell {
    /// The snapshot of a chunk that is being fetched or served, by the machine's name of it.
    fn snapshot_of(&self, id: ChunkId) -> Option<SnapshotOffer> {
        let Some(CollectionKind::Snapshot(snapshot)) = self.swarm.kind(id.segment.collection)
        else {
            return None;
        };
        let known = self.files.files.get(&snapshot).map(|(offer, _)| offer.clone());
        known.or_else(|| Some(self.made.true_offer()).filter(|offer| offer.id == snapshot))
    }

    /// Whether there is such a chunk.
    pub(super) fn exists(&self, id: ChunkId) -> bool {
        match id.segment.collection {
            HISTORY => self.made.chunk(id).is_some(),
            _ => self
                .snapshot_of(id)
                .is_none_or(|offer| snapshot_chunk(id) < offer.frontier.chunk_count()),
        }
    }

    pub(super) fn store_part(&mut self, id: ChunkId) {
        let offer = self.snapshot_of(id).expect("a chunk of an open collection");
        let (_, chunks) = self.files.files.get_mut(&offer.id).expect("a snapshot is begun first");
        assert!(chunks.insert(snapshot_chunk(id)), "{id:?} is stored once");
    }

    /// Whether a chunk of a snapshot may be sent: it is stored, or of a snapshot that is kept. For
    /// chunks that do not exist, the driver says so.
    pub(super) fn has_part(&self, id: ChunkId) -> bool {
        let Some(offer) = self.snapshot_of(id) else { return false };
        match self.files.files.get(&offer.id) {
            Some((_, chunks)) => chunks.contains(&snapshot_chunk(id)) || !self.exists(id),
            None => true,
        }
    }

    /// A peer sends a chunk of a snapshot that is wanted from it, within its credit. A hostile one
    /// may send another one instead.
    pub(super) fn give_part(&mut self, from: PeerId, which: u8, is_true: bool) {
        let Some(link) = self.links.get(&from).filter(|link| link.given < link.allowed) else {
            return;
        };
        let wants = link.wants.iter().filter(|id| id.segment.collection != HISTORY);
        let count = wants.clone().count().max(1);
        let Some(id) = wants.clone().nth(usize::from(which) % count).copied() else { return };
        let offer = self.snapshot_of(id);
        let accounts = &self.made.accounts;
        let bytes = offer.and_then(|one| accounts.chunk(&one.frontier, snapshot_chunk(id)));
        let bytes = bytes.unwrap_or_default();
        let expected = self.swarm.expected(from, id);
        let is_valid = is_true && expected.is_some_and(|expected| expected.verify(id, &bytes));
        if let Some(link) = self.links.get_mut(&from) {
            link.given += 1;
            link.wants.remove(&id);
        }
        let bytes = bytes.len() as u64;
        self.give(Input::Chunk { from, id, is_valid, bytes });
    }

    /// The snapshot that is being loaded is loaded, or one of its chunks is damaged.
    pub(super) fn load(&mut self, choice: u8) {
        let Some((id, segments)) = self.files.loading.take() else { return };
        let (offer, chunks) = self.files.files.get_mut(&id).expect("a snapshot has a file");
        if choice > 200 {
            let damaged = u64::from(choice) % offer.frontier.chunk_count();
            chunks.remove(&damaged);
            return self.give(Input::LoadFailed { id, damaged: vec![damaged] });
        }
        self.on_loaded(SegmentIndex(segments as u64));
        let history = self.made.history(segments);
        self.give(Input::Loaded { id, history });
    }

    /// The true snapshot is kept from now on, or no longer.
    pub(super) fn keep(&mut self, is_kept: bool) {
        let offer = self.made.true_offer();
        match is_kept {
            true => self.give(Input::SnapshotKept(offer)),
            false => self.give(Input::SnapshotGone(offer.id)),
        }
    }
}
