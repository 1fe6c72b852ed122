//! The history that this node has sent to its peers since it started: chunks, and ranges of blocks.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most peers that are told apart. Identities cost nothing, so without a bound a stranger could
/// fill memory with them: 4,096 take about 400 KB. Beyond it only the bytes are counted.
const PEERS_MAX: usize = 4_096;

/// Bytes of history sent, and to which peers. Cheap to clone: all clones share the counts.
#[derive(Clone, Debug)]
pub struct Uploaded<Peer>(Arc<Mutex<Counts<Peer>>>);

#[derive(Debug)]
struct Counts<Peer> {
    bytes: u64,
    peers: HashSet<Peer>,
}

impl<Peer> Default for Uploaded<Peer> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Counts { bytes: 0, peers: HashSet::new() })))
    }
}

impl<Peer: Copy + Eq + Hash> Uploaded<Peer> {
    /// Counts bytes of history that were sent to a peer.
    pub(crate) fn count(&self, peer: Peer, bytes: usize) {
        let mut counts = self.lock();
        counts.bytes = counts.bytes.saturating_add(bytes as u64);
        if counts.peers.len() < PEERS_MAX {
            counts.peers.insert(peer);
        }
    }

    /// Bytes sent, and the number of different peers, at most 4,096.
    #[must_use]
    pub fn total(&self) -> (u64, usize) {
        let counts = self.lock();
        (counts.bytes, counts.peers.len())
    }

    fn lock(&self) -> MutexGuard<'_, Counts<Peer>> {
        // Counts are plain data, so a panic elsewhere leaves them consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_add_up_and_each_peer_counts_once() {
        let (uploaded, other) = (Uploaded::default(), Uploaded::default());
        let shared = uploaded.clone();
        for (peer, bytes) in [(1, 10), (2, 20), (1, 5)] {
            shared.count(peer, bytes);
        }
        assert_eq!((uploaded.total(), other.total()), ((35, 2), (0, 0)));
        (0..PEERS_MAX + 10).for_each(|peer| other.count(peer, 1));
        assert_eq!(other.total(), (PEERS_MAX as u64 + 10, PEERS_MAX));
    }
}
