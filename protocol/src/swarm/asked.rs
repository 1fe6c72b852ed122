//! Which peer is asked next for a manifest or a head.

use std::collections::BTreeMap;

use crate::ids::PeerId;

/// What was asked of each peer. A peer with the fewest unanswered requests in a row is asked next;
/// of several, the one asked longest ago. So a peer that claims everything and answers nothing is
/// soon asked last.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// For each peer, its unanswered requests in a row and the number of the last request.
    peers: BTreeMap<PeerId, (u64, u64)>,
    requests: u64,
}

impl Asked {
    pub(super) fn note_asked(&mut self, peer: PeerId) {
        self.requests = self.requests.saturating_add(1);
        let (unanswered, number) = self.peers.entry(peer).or_default();
        (*unanswered, *number) = (unanswered.saturating_add(1), self.requests);
    }

    pub(super) fn note_answered(&mut self, peer: PeerId) {
        if let Some((unanswered, _)) = self.peers.get_mut(&peer) {
            *unanswered = 0;
        }
    }

    pub(super) fn forget(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }

    /// Unanswered requests in a row to a peer, and the number of the last request. The peer with
    /// the lowest rank is asked next.
    pub(super) fn rank(&self, peer: PeerId) -> (u64, u64) {
        self.peers.get(&peer).copied().unwrap_or_default()
    }
}
