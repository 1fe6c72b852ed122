//! Files in the world: what nodes share and fetch.

use std::hash::Hasher;

use ledger::hash::{FileId, Hash};
use ledger::units::SegmentIndex;
use protocol::PeerId;
use protocol::swarm::message::{CHUNK_HEADER_BYTES, ChunkId, SyncMessage};
use protocol::swarm::{HeldFile, Input, SegmentRanges, file_chunk};

use super::frames::ROTTEN_ONE_IN;
use super::{CHUNK_OVERHEAD, Content, Node, World};
use crate::swarm::files::MadeFile;
use crate::swarm::plan::{Conduct, Member};

impl World {
    /// Tells a machine which files are here, and which it is to fetch.
    pub(super) fn begin_files(&mut self, place: usize) {
        let Member { wants, shares, conduct, .. } = self.nodes[place].member;
        for at in 0..self.files.len() {
            let made = &self.files[at];
            let part = self.nodes[place].parts.entry(made.id).or_default();
            part.is_done = false;
            let held = if shares { made.whole() } else { part.held(made.id) };
            if conduct == Conduct::Boasts {
                let whole = SegmentRanges::before(SegmentIndex(1 << 20));
                self.give(place, Input::FileHeld(HeldFile { whole, ..held }));
            } else if shares {
                self.give(place, Input::FileHeld(held));
            } else if let Some(range) = wants {
                self.give(place, Input::FileWanted(held, range));
            }
        }
    }

    /// Sends a chunk of a file. The driver hashes each chunk before it leaves, so a file that has
    /// changed is not served any more.
    pub(super) fn send_of_file(
        &mut self,
        place: usize,
        peer: PeerId,
        id: ChunkId,
        name: ChunkId,
        file: FileId,
    ) {
        let made = self.files.iter().find(|made| made.id == file).expect("a file of the plan");
        let Some((mut hash, bytes)) = made.chunk(id) else {
            return self.give(place, Input::Impossible(peer, id));
        };
        let node = &mut self.nodes[place];
        let part = &node.parts[&file];
        let chunk = file_chunk(id).expect("the file has it");
        assert!(
            node.member.shares || part.here.contains(&chunk),
            "node {place} sends chunk {chunk}, which is not here"
        );
        match node.member.conduct {
            Conduct::Stalls | Conduct::Boasts => return,
            Conduct::Poisons => hash = Hash::ZERO,
            Conduct::Rots if id.chunk % ROTTEN_ONE_IN == 1 => {
                return self.give(place, Input::Unsent(peer, id));
            }
            Conduct::Changes(most) if node.file_chunks_sent >= most => {
                self.give(place, Input::Unsent(peer, id));
                return self.give(place, Input::FileGone(file));
            }
            _ => {}
        }
        node.file_chunks_sent += 1;
        self.tell(place, || format!("to {}: chunk {chunk} of a file", peer.0));
        let cost = (bytes + CHUNK_HEADER_BYTES as u64) * CHUNK_OVERHEAD / 1_000;
        self.push(place, peer, cost, Content::OfFile(name, hash, bytes));
    }

    pub(super) fn store_of_file(&mut self, place: usize, id: ChunkId, file: FileId) {
        let chunk = file_chunk(id).expect("the machine stores chunks that exist");
        self.tell(place, || format!("stores chunk {chunk} of a file"));
        self.digest.write_u64(self.now);
        self.digest.write_usize(place);
        self.digest.write_u64(chunk);
        let now = self.now;
        let node = &mut self.nodes[place];
        let part = node.parts.get_mut(&file).expect("a segment is begun first");
        assert!(part.heads.contains_key(&id.segment.index.0), "a segment is begun first");
        assert!(part.here.insert(chunk), "node {place} stores {id:?} twice");
        node.file_stored_at.push(now);
    }

    pub(super) fn send_file_head(
        &mut self,
        place: usize,
        peer: PeerId,
        id: FileId,
        segment: SegmentIndex,
    ) {
        let node = &self.nodes[place];
        let made = self.files.iter().find(|made| made.id == id).expect("a file of the plan");
        let mut head = match node.member.shares {
            true => made.head(segment),
            false => node.parts.get(&id).and_then(|part| part.heads.get(&segment.0).cloned()),
        };
        match (node.member.conduct, &mut head) {
            (Conduct::Boasts, _) => return,
            (Conduct::FalseHeads, Some(head)) => head.chunks[0] = Hash::ZERO,
            _ => {}
        }
        self.say(place, peer, &SyncMessage::FileHead(id, segment, head));
    }
}

impl Node {
    /// Whether it has all that it wants of the files.
    pub(super) fn has_files(&self, files: &[MadeFile]) -> bool {
        let Some(range) = self.member.wants else { return true };
        files.iter().all(|made| {
            let part = self.parts.get(&made.id);
            part.is_some_and(|part| part.is_done && made.chunks_of(range).is_subset(&part.here))
        })
    }

    /// Bytes of all that it wants of the files.
    pub(super) fn wanted_bytes(&self, files: &[MadeFile]) -> u64 {
        let Some(range) = self.member.wants else { return 0 };
        let bytes = |made: &MadeFile| -> u64 {
            made.chunks_of(range).iter().map(|chunk| made.descriptor.chunk_bytes(*chunk)).sum()
        };
        files.iter().map(bytes).sum()
    }
}
