//! Which peers each missing chunk is requested from.

use std::collections::BTreeMap;

use crate::ids::PeerId;
use crate::swarm::message::{ChunkId, SegmentId};

/// The peers that one chunk is requested from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Request {
    pub(super) from: Option<PeerId>,
    /// A second peer, in the endgame.
    pub(super) also_from: Option<PeerId>,
}

/// The requests for the chunks of one segment.
#[derive(Debug)]
pub(super) struct SegmentRequests {
    chunks: Vec<Request>,
    /// Number of chunks that are requested from some peer.
    count: u64,
}

/// The requests for the chunks of all segments that are being fetched.
#[derive(Debug, Default)]
pub(super) struct Requests(BTreeMap<SegmentId, SegmentRequests>);

impl Request {
    pub(super) const fn is_none(&self) -> bool {
        self.from.is_none()
    }

    pub(super) fn peers(self) -> impl Iterator<Item = PeerId> {
        self.from.into_iter().chain(self.also_from)
    }

    /// The chunk is no longer requested from this peer.
    pub(super) fn release(&mut self, peer: PeerId) {
        if self.from == Some(peer) {
            self.from = self.also_from.take();
        }
        self.also_from = self.also_from.filter(|other| *other != peer);
    }
}

impl SegmentRequests {
    /// Number of chunks that are requested from some peer. All these chunks are missing.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// Number of chunks that are requested from two peers.
    #[cfg(test)]
    pub(super) fn twice(&self) -> usize {
        self.chunks.iter().filter(|request| request.also_from.is_some()).count()
    }

    /// Whether a chunk is requested from no peer.
    pub(super) fn is_free(&self, chunk: u32) -> bool {
        self.chunks.get(chunk as usize).is_some_and(Request::is_none)
    }
}

impl Requests {
    /// Makes room for the requests of a segment with this many chunks.
    pub(super) fn add_segment(&mut self, segment: SegmentId, chunks: usize) {
        let requests = SegmentRequests { chunks: vec![Request::default(); chunks], count: 0 };
        self.0.insert(segment, requests);
    }

    /// Removes a segment, and returns the requests for its chunks.
    pub(super) fn remove_segment(&mut self, segment: SegmentId) -> Vec<Request> {
        self.0.remove(&segment).map(|requests| requests.chunks).unwrap_or_default()
    }

    pub(super) fn of_segment(&self, segment: SegmentId) -> Option<&SegmentRequests> {
        self.0.get(&segment)
    }

    /// The request for a chunk. `None` if its segment is not being fetched or has no such chunk.
    pub(super) fn get(&self, id: ChunkId) -> Option<Request> {
        self.0.get(&id.segment)?.chunks.get(id.chunk as usize).copied()
    }

    /// Changes a request, and keeps the count of requested chunks right.
    pub(super) fn change(&mut self, id: ChunkId, change: impl FnOnce(&mut Request)) {
        let Some(requests) = self.0.get_mut(&id.segment) else { return };
        let Some(request) = requests.chunks.get_mut(id.chunk as usize) else { return };
        let before = u64::from(!request.is_none());
        change(request);
        let after = u64::from(!request.is_none());
        requests.count = requests.count.saturating_sub(before).saturating_add(after);
    }
}
