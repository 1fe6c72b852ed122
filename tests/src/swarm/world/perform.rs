//! The effects of a node, performed in the world.

use std::collections::BTreeSet;
use std::hash::Hasher;

use ledger::units::SegmentIndex;
use protocol::swarm::message::{ChunkId, DESCRIPTORS_MAX, SyncMessage};
use protocol::swarm::{CollectionKind, Effect, HISTORY, snapshot_chunk};

use super::{File, Happening, World};
use crate::swarm::link::Nanos;

impl World {
    pub(super) fn perform(&mut self, place: usize, effects: Vec<Effect>) {
        for effect in effects {
            self.perform_one(place, effect);
        }
    }

    fn perform_one(&mut self, place: usize, effect: Effect) {
        match effect {
            Effect::Send(peer, bytes) | Effect::Answer(peer, bytes) => {
                self.send_message(place, peer, bytes);
            }
            Effect::SendChunk { to, id, name } => self.send_chunk(place, to, id, name),
            Effect::SendManifest { peer, height, first, known } => {
                let stored = self.made.descriptors(self.nodes[place].applied).into_iter();
                let stored = stored.filter(|descriptor| descriptor.index >= first.0);
                let stored = stored.filter(|descriptor| descriptor.last < height);
                let all = stored.chain(known).take(DESCRIPTORS_MAX).collect();
                self.say(place, peer, &SyncMessage::Manifest(height, first, Some(all)));
            }
            Effect::SendHead(peer, index) => {
                let node = &self.nodes[place];
                let is_applied = (node.first..node.applied).contains(&(index.0 as usize));
                let head = self.made.heads.get(index.0 as usize).filter(|_| is_applied);
                let message = SyncMessage::Head(index, head.cloned());
                self.say(place, peer, &message);
            }
            Effect::Begin(_, head) => {
                let here = vec![false; head.chunks.len()];
                self.nodes[place].staged.push((head, here));
            }
            Effect::Store(id) => self.store(place, id),
            Effect::SaveManifest(bytes) => self.nodes[place].manifest = Some(bytes),
            Effect::Assemble(index) => {
                let at = self.compute(place, index);
                let life = self.nodes[place].life;
                self.plan_at(at, Happening::Assembled(place, life, index));
            }
            Effect::Apply(index) => {
                let at = self.compute(place, index);
                let life = self.nodes[place].life;
                self.plan_at(at, Happening::Applied(place, life, index));
            }
            Effect::Release(segment) => {
                let staged = &mut self.nodes[place].staged;
                staged.retain(|(head, _)| head.descriptor.index != segment.index.0);
            }
            Effect::Keep(index) => {
                panic!("segment {index} of backfill, of which nothing is missing")
            }
            Effect::SendBlockProof(peer, height) => {
                let proof = self.made.block_proof(height);
                self.say(place, peer, &SyncMessage::BlockProof(height, proof));
            }
            Effect::SendFileHead { peer, id, segment } => {
                self.send_file_head(place, peer, id, segment);
            }
            Effect::BeginFileSegment(id, head) => {
                let part = self.nodes[place].parts.entry(id).or_default();
                part.heads.insert(head.index(), head);
            }
            Effect::FileDone(id) => {
                self.nodes[place].parts.entry(id).or_default().is_done = true;
            }
            Effect::BeginSnapshot(offer) => {
                self.tell(place, || format!("begins the snapshot {}", offer.id));
                let file = File { chunks: BTreeSet::new(), is_whole: false, offer };
                let before = self.nodes[place].files.insert(file.offer.id, file);
                assert!(before.is_none(), "node {place} begins a snapshot twice");
            }
            Effect::DropSnapshot(id) => drop(self.nodes[place].files.remove(&id)),
            Effect::LoadSnapshot { id, descriptors } => {
                let file = &self.nodes[place].files[&id];
                let frontier = &file.offer.frontier;
                assert!(*frontier == self.made.accounts.frontier, "only a true snapshot is whole");
                assert_eq!(file.chunks.len() as u64, frontier.chunk_count());
                assert_eq!(descriptors.last().map(|one| one.last), Some(file.offer.height));
                let life = self.nodes[place].life;
                self.plan_at(self.now, Happening::Loaded(place, life, id));
            }
            Effect::JoinFailed(failure) => panic!("node {place}: {failure}"),
            Effect::Plan(_) => {}
            Effect::Ban { peer, offence } => {
                let other = peer.0 as usize;
                self.tell(place, || format!("bans {other}: {offence}"));
                self.nodes[place].banned.insert(other);
                self.bans.push((place, other, offence));
                self.close(place, other);
            }
        }
    }

    /// When the node's core has finished with a segment. Each segment takes its turn on the core.
    fn compute(&mut self, place: usize, index: SegmentIndex) -> Nanos {
        let bytes = self.made.head(index).descriptor.bytes;
        let node = &mut self.nodes[place];
        node.cpu_free_at = node.cpu_free_at.max(self.now) + bytes * self.plan.cpu_per_byte;
        node.cpu_free_at
    }

    fn store(&mut self, place: usize, id: ChunkId) {
        let index = id.segment.index.0;
        if id.segment.collection != HISTORY {
            return self.store_part(place, id);
        }
        self.tell(place, || format!("stores {index}/{}", id.chunk));
        self.digest.write_u64(self.now);
        self.digest.write_usize(place);
        self.digest.write_u64(index << 32 | u64::from(id.chunk));
        let now = self.now;
        let node = &mut self.nodes[place];
        let mut staged = node.staged.iter_mut();
        let staged = staged.find(|(head, _)| head.descriptor.index == index);
        let (_, here) = staged.expect("a chunk is stored after its segment was begun");
        assert!(
            !std::mem::replace(&mut here[id.chunk as usize], true),
            "node {place} stores {id:?} twice"
        );
        if node.stored.insert(id) {
            node.stored_at.push(now);
        } else {
            node.stored_twice += 1;
        }
    }

    fn store_part(&mut self, place: usize, id: ChunkId) {
        let sync = self.machine(place).expect("only a running node stores chunks");
        let snapshot = match sync.kind(id.segment.collection) {
            Some(CollectionKind::Snapshot(snapshot)) => snapshot,
            Some(CollectionKind::File(file)) => return self.store_of_file(place, id, file),
            _ => panic!("{id:?} is stored after its collection was opened"),
        };
        self.digest.write_u64(self.now);
        self.digest.write_usize(place);
        self.digest.write_u64(snapshot_chunk(id));
        let file = self.nodes[place].files.get_mut(&snapshot).expect("a snapshot is begun first");
        assert!(file.chunks.insert(snapshot_chunk(id)), "node {place} stores {id:?} twice");
    }
}
