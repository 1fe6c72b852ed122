//! The collections whose chunks may be fetched.

use super::Downloads;
use crate::swarm::classes::Class;
use crate::swarm::message::{CollectionNumber, SegmentId};
use crate::swarm::segments::Segment;

/// A collection whose chunks may be fetched.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) class: Class,
    /// Number of its chunks that arrived and were missing.
    pub(super) verified: u64,
    /// Whether none of its chunks is asked for now.
    pub(super) is_paused: bool,
}

impl Downloads {
    /// Chunks of this collection may be fetched.
    pub(in crate::swarm) fn open(&mut self, collection: CollectionNumber, class: Class) {
        self.collections.insert(collection, Fetched { class, verified: 0, is_paused: false });
    }

    /// Nothing of this collection is fetched any more. Peers are not told of each chunk.
    pub(in crate::swarm) fn close(&mut self, collection: CollectionNumber) {
        self.collections.remove(&collection);
        let segments: Vec<SegmentId> = self.segments.of(collection).map(Segment::id).collect();
        segments.into_iter().for_each(|segment| self.remove_segment(segment));
        self.suppliers.values_mut().for_each(|peer| peer.forget_collection(collection));
    }

    /// Asks for no chunk of a collection, and withdraws all requests, until it is resumed.
    pub(in crate::swarm) fn pause(&mut self, collection: CollectionNumber) {
        let Some(fetched) = self.collections.get_mut(&collection) else { return };
        fetched.is_paused = true;
        let missing = self.segments.of(collection).flat_map(Segment::missing_chunks);
        for id in missing.collect::<Vec<_>>() {
            let request = self.requests.get(id).unwrap_or_default();
            request.peers().for_each(|peer| self.release(peer, id));
        }
    }

    /// Asks for chunks of a collection again.
    pub(in crate::swarm) fn resume(&mut self, collection: CollectionNumber) {
        if let Some(fetched) = self.collections.get_mut(&collection) {
            fetched.is_paused = false;
        }
    }

    /// Sets the most bytes of a chunk of any open collection.
    pub(in crate::swarm) const fn set_chunk_bytes(&mut self, chunk_bytes: u64) {
        self.chunk_bytes = chunk_bytes;
    }

    #[cfg(test)]
    pub(in crate::swarm) const fn chunk_bytes(&self) -> u64 {
        self.chunk_bytes
    }
}
