//! Performs what the machine answers to peers: manifests, heads, proofs and chunks. Whatever a peer
//! causes is charged to it, and no peer can stop this node by its requests.

use ledger::codec;
use ledger::hash::SnapshotId;
use ledger::history::{SegmentDescriptor, SegmentHead};
use ledger::snapshot::SEGMENT_CHUNKS;
use ledger::store::{Kept, StoreError};
use ledger::units::{Height, SegmentIndex};
use protocol::PeerId;
use protocol::budget::Cost;
use protocol::swarm::message::{ChunkId, DESCRIPTORS_MAX, SyncMessage};
use protocol::swarm::{BACKFILL, CollectionKind, Input, snapshot_chunk};

use super::{Shell, warn_damaged};

impl Shell {
    /// Sends descriptors of segments: first the stored ones, then the known ones.
    pub(super) fn send_manifest(
        &self,
        peer: PeerId,
        height: Height,
        first: SegmentIndex,
        known: Vec<SegmentDescriptor>,
    ) {
        if !self.admits(peer) {
            return self.send_message(peer, &SyncMessage::Manifest(height, first, None));
        }
        let mut descriptors = self.store.descriptors(first.0, height, DESCRIPTORS_MAX);
        self.charge(peer, &Cost::look_ups(descriptors.len() as u64, 1));
        let next = descriptors.last().map_or(first.0, |last| last.index + 1);
        descriptors.extend(known.into_iter().filter(|descriptor| descriptor.index >= next));
        descriptors.truncate(DESCRIPTORS_MAX);
        self.send_message(peer, &SyncMessage::Manifest(height, first, Some(descriptors)));
    }

    /// Sends the head of a stored segment.
    pub(super) fn send_head(&self, peer: PeerId, index: SegmentIndex) {
        let head = match self.admits(peer) {
            true => self.served(self.stored_head(index)).flatten(),
            false => None,
        };
        self.charge(peer, &Cost::look_ups(0, 2));
        self.send_message(peer, &SyncMessage::Head(index, head));
    }

    /// Sends the proof that a block is in its stored segment.
    pub(super) fn send_block_proof(&self, peer: PeerId, height: Height) {
        let proof = match self.admits(peer) {
            true => self.served(self.store.block_proof(height)).and_then(Kept::here),
            false => None,
        };
        // The root of all blocks of the segment is computed.
        let blocks = proof.as_ref().map_or(0, |(_, proof)| proof.count);
        self.charge(peer, &Cost::look_ups(0, 2).and(Cost::hashes(blocks)));
        self.send_message(peer, &SyncMessage::BlockProof(height, proof));
    }

    /// Whether the peer may cause more work now.
    pub(super) fn admits(&self, peer: PeerId) -> bool {
        self.peers.id(peer).is_some_and(|id| self.network.accounts().admits(&id))
    }

    pub(super) fn charge(&self, peer: PeerId, cost: &Cost) {
        if let Some(id) = self.peers.id(peer) {
            self.network.accounts().charge(&id, cost);
        }
    }

    pub(super) fn send_message(&self, peer: PeerId, message: &SyncMessage) {
        self.send(peer, codec::encode(message));
    }

    pub(super) fn send(&self, peer: PeerId, bytes: Vec<u8>) {
        if let Some(id) = self.peers.id(peer) {
            self.network.send_message(id, bytes);
        }
    }

    pub(super) fn send_chunk(
        &mut self,
        peer: PeerId,
        id: ChunkId,
        name: ChunkId,
    ) -> anyhow::Result<Option<Input>> {
        match self.machine.kind(id.segment.collection) {
            Some(CollectionKind::Snapshot(snapshot)) => {
                return self.send_of_snapshot(peer, &snapshot, id, name);
            }
            Some(CollectionKind::File(file)) => {
                return Ok(self.send_of_file(peer, &file, id, name));
            }
            _ => {}
        }
        let (index, chunk) = (id.segment.index, u64::from(id.chunk));
        let is_sealed = index < self.sealed;
        let mut bytes = Ok(Kept::NotKept);
        if is_sealed {
            bytes = self.store.chunk(index.0, chunk, &self.rules);
        }
        let staging = match id.segment.collection {
            BACKFILL => Some(&mut self.backfill.staging),
            _ if is_sealed => None,
            _ => Some(&mut self.staging),
        };
        if let (Ok(Kept::NotKept), Some(staging)) = (&bytes, staging) {
            bytes = staging.read(index.0, chunk).map(|bytes| match bytes {
                Some(bytes) => Kept::Here(bytes),
                None => {
                    warn_damaged(index, id.chunk);
                    Kept::NotKept
                }
            });
        }
        let bytes = match self.served(bytes) {
            Some(Kept::Here(bytes)) => bytes,
            Some(Kept::Never) => return Ok(Some(Input::Impossible(peer, id))),
            Some(Kept::NotKept) | None => return Ok(Some(Input::Unsent(peer, id))),
        };
        self.send_bytes(peer, name, &bytes);
        Ok(None)
    }

    /// Sends a chunk of a snapshot. One that is damaged here ends the snapshot, and is no fault of
    /// the peer.
    fn send_of_snapshot(
        &mut self,
        peer: PeerId,
        snapshot: &SnapshotId,
        id: ChunkId,
        name: ChunkId,
    ) -> anyhow::Result<Option<Input>> {
        let count = self.loading.chunk_count(snapshot);
        let is_chunk =
            |count: u64| u64::from(id.chunk) < SEGMENT_CHUNKS && snapshot_chunk(id) < count;
        if !count.is_none_or(is_chunk) {
            return Ok(Some(Input::Impossible(peer, id)));
        }
        match self.loading.read(snapshot, snapshot_chunk(id), self.clock.now().elapsed) {
            Ok(Some(bytes)) => {
                self.send_bytes(peer, name, &bytes);
                return Ok(None);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "a snapshot cannot be read for a peer");
                if matches!(error, StoreError::Corrupt { .. }) {
                    self.damaged.push(*snapshot);
                }
            }
        }
        Ok(Some(Input::Unsent(peer, id)))
    }

    pub(super) fn send_bytes(&self, peer: PeerId, name: ChunkId, bytes: &[u8]) {
        // The bytes of the answer are charged, but not the read. The refill of a budget pays for
        // 400 MB/s of answers, which is more than a connection carries. This node decides which
        // chunks it sends, within its upload slots and rate.
        self.charge(peer, &Cost::answer(bytes.len()));
        if let Some(to) = self.peers.id(peer) {
            self.network.uploaded().count(to, bytes.len());
            self.network.send_data(to, name.frame(bytes));
        }
    }

    /// The result of a read for a peer. A failed read is logged and not served, so no peer can stop
    /// this node by its requests.
    fn served<T>(&self, read: Result<T, StoreError>) -> Option<T> {
        read.inspect_err(|error| tracing::error!(%error, "history cannot be read for a peer")).ok()
    }

    fn stored_head(&self, index: SegmentIndex) -> Result<Option<SegmentHead>, StoreError> {
        let Kept::Here((descriptor, chunks)) = self.store.chunk_hashes(index.0)? else {
            return Ok(None);
        };
        let certificate = self.store.certificate(descriptor.last)?.here();
        Ok(certificate.map(|certificate| SegmentHead { descriptor, chunks, certificate }))
    }
}
