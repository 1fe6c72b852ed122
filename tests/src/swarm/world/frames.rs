//! Frames on their way: over the uplink of one node to the downlink of another.

use ledger::hash::{Hash, SnapshotId};
use protocol::PeerId;
use protocol::swarm::message::{CHUNK_HEADER_BYTES, ChunkId, SyncMessage};
use protocol::swarm::{CollectionKind, Input, snapshot_chunk};

use super::{CHUNK_OVERHEAD, Content, Happening, World, nanos};
use crate::swarm::plan::Conduct;

/// Overhead of a small frame, bytes: headers of TCP, Noise and the multiplexer.
const FRAME_OVERHEAD: u64 = 100;

/// Of this many chunks, one is damaged on the disk of a node that rots.
pub(super) const ROTTEN_ONE_IN: u32 = 40;

impl World {
    pub(super) fn say(&mut self, place: usize, peer: PeerId, message: &SyncMessage) {
        self.send_message(place, peer, ledger::codec::encode(message));
    }

    pub(super) fn send_message(&mut self, place: usize, peer: PeerId, bytes: Vec<u8>) {
        if self.told {
            self.tell(place, || format!("to {}: {:?}", peer.0, Short(&bytes)));
        }
        let cost = bytes.len() as u64 + FRAME_OVERHEAD;
        self.control_bytes += cost;
        self.push(place, peer, cost, Content::Message(bytes));
    }

    pub(super) fn send_chunk(&mut self, place: usize, peer: PeerId, id: ChunkId, name: ChunkId) {
        let sync = self.machine(place).expect("only a running node sends chunks");
        match sync.kind(id.segment.collection) {
            Some(CollectionKind::History | CollectionKind::Backfill) => {}
            Some(CollectionKind::Snapshot(snapshot)) => {
                return self.send_part(place, peer, id, name, snapshot);
            }
            Some(CollectionKind::File(file)) => {
                return self.send_of_file(place, peer, id, name, file);
            }
            None => return self.give(place, Input::Unsent(peer, id)),
        }
        let Some((hash, bytes)) = self.made.chunk(id) else {
            return self.give(place, Input::Unsent(peer, id));
        };
        let hash = match self.nodes[place].member.conduct {
            Conduct::Honest
            | Conduct::Forges(_)
            | Conduct::Withholds(_)
            | Conduct::Misplaces
            | Conduct::FalseHeads
            | Conduct::Boasts
            | Conduct::Changes(_) => hash,
            Conduct::Stalls => return,
            Conduct::Poisons => Hash::ZERO,
            Conduct::Rots if id.chunk % ROTTEN_ONE_IN == 1 => {
                return self.give(place, Input::Unsent(peer, id));
            }
            Conduct::Rots => hash,
        };
        self.tell(place, || format!("to {}: chunk {}/{}", peer.0, id.segment.index, id.chunk));
        self.nodes[place].chunk_bytes_sent += bytes;
        let cost = (bytes + CHUNK_HEADER_BYTES as u64) * CHUNK_OVERHEAD / 1_000;
        self.push(place, peer, cost, Content::Chunk(name, hash, bytes));
    }

    /// Sends a chunk of a snapshot.
    fn send_part(
        &mut self,
        place: usize,
        peer: PeerId,
        id: ChunkId,
        name: ChunkId,
        snapshot: SnapshotId,
    ) {
        let to = peer.0 as usize;
        let index = snapshot_chunk(id);
        let file = &self.nodes[place].files[&snapshot];
        let bytes = self.made.accounts.chunk(&file.offer.frontier, index);
        let Some(mut bytes) = bytes else {
            return self.give(place, Input::Impossible(peer, id));
        };
        let is_true = file.offer.frontier.verify_chunk(index, &bytes).is_ok();
        match self.nodes[place].member.conduct {
            Conduct::Stalls => return,
            Conduct::Poisons => bytes[8] ^= 1,
            Conduct::Rots if id.chunk % ROTTEN_ONE_IN == 1 => {
                return self.give(place, Input::Unsent(peer, id));
            }
            Conduct::Withholds(_) if !is_true => {
                if let Some(link) = self.nodes[place].links[to] {
                    self.on_written(place, to, link, 1);
                }
                return;
            }
            Conduct::Forges(_) => {}
            _ => assert!(is_true, "node {place} has stored a false chunk {index}"),
        }
        self.tell(place, || format!("to {to}: chunk {index} of the snapshot"));
        let length = bytes.len() as u64;
        self.nodes[place].chunk_bytes_sent += length;
        let cost = (length + CHUNK_HEADER_BYTES as u64) * CHUNK_OVERHEAD / 1_000;
        self.push(place, peer, cost, Content::Part(name, bytes));
    }

    pub(super) fn push(&mut self, place: usize, peer: PeerId, bytes: u64, content: Content) {
        let to = peer.0 as usize;
        if let Some(link) = self.nodes[place].links[to] {
            let uplink = &mut self.nodes[place].uplink;
            match content {
                Content::Message(_) => uplink.push(to, bytes, (link, content)),
                Content::Chunk(..) | Content::Part(..) | Content::OfFile(..) => {
                    let written = uplink.push_chunk(to, bytes, (link, content));
                    self.on_written(place, to, link, written);
                }
            }
            self.send_on(place);
        }
    }

    pub(super) fn send_on(&mut self, place: usize) {
        if let Some(time) = self.nodes[place].uplink.start() {
            self.plan_at(self.now + time, Happening::Sent(place));
        }
    }

    pub(super) fn on_sent(&mut self, from: usize) {
        if let Some(piece) = self.nodes[from].uplink.finish() {
            let to = piece.to;
            let at = self.nodes[to].downlink.take(self.now + nanos(self.plan.latency), piece.bytes);
            if let Some(link) = self.nodes[from].links[to] {
                let bytes = piece.bytes;
                self.plan_at(
                    at + nanos(self.plan.latency),
                    Happening::Taken { from, to, link, bytes },
                );
                self.on_written(from, to, link, piece.written);
            }
            for (link, content) in piece.completes {
                self.plan_at(at, Happening::Arrives { from, to, link, content });
            }
        }
        self.send_on(from);
        let node = &self.nodes[from];
        let is_over = node.member.leaves_after.is_some_and(|most| {
            let copies = self.made.bytes() / 100 * most;
            node.uplink.sent >= copies * CHUNK_OVERHEAD / 1_000
        });
        if is_over && node.sync.is_some() {
            self.stop(from);
        }
    }

    fn on_written(&mut self, from: usize, to: usize, link: u64, written: usize) {
        for _ in 0..written {
            self.plan_at(self.now, Happening::Written { from, to, link });
        }
    }
}

/// A message in short, for people.
struct Short<'a>(&'a [u8]);

impl std::fmt::Debug for Short<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids = |ids: &[ChunkId]| {
            ids.iter()
                .map(|id| format!("{}/{}", id.segment.index, id.chunk))
                .collect::<Vec<_>>()
                .join(" ")
        };
        match SyncMessage::decode(self.0) {
            Ok(SyncMessage::Update(update)) => write!(
                f,
                "have [{}] add [{}] remove [{}] received {} allowed {}",
                ids(&update.have),
                ids(&update.add),
                ids(&update.remove),
                update.received,
                update.allowed
            ),
            Ok(SyncMessage::Frontier(id, page, content)) => {
                write!(f, "page {page} of the frontier of {id}: {}", content.is_some())
            }
            Ok(SyncMessage::Head(index, head)) => write!(f, "head {index}: {}", head.is_some()),
            Ok(SyncMessage::Manifest(height, index, all)) => {
                write!(f, "manifest at {height} from {index}: {:?}", all.map(|all| all.len()))
            }
            Ok(other) => write!(f, "{other:?}"),
            Err(error) => write!(f, "{error}"),
        }
    }
}
