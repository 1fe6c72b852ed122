//! A link of the fuzzed machine.

use std::collections::{BTreeSet, VecDeque};

use protocol::swarm::HISTORY;
use protocol::swarm::message::{ChunkId, SyncMessage};

/// A link as its peer sees it.
#[derive(Default)]
pub(super) struct Link {
    /// Whether the machine has opened history.
    pub(super) is_greeted: bool,
    /// Whether the peer has sent its holdings.
    pub(super) has_greeted: bool,
    /// Chunks that the machine wants from the peer, the peer's credit, and how many chunks it gave.
    pub(super) wants: BTreeSet<ChunkId>,
    pub(super) allowed: u64,
    pub(super) given: u64,
    /// Chunks that the peer asked for, by its own number of history, the machine's credit, and how
    /// many chunks were sent to the peer.
    pub(super) asked: BTreeSet<ChunkId>,
    pub(super) credit: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Questions of the machine that the peer has not answered, oldest first.
    pub(super) questions: VecDeque<SyncMessage>,
}

impl Link {
    /// One of the chunks of history that are wanted from the peer.
    pub(super) fn wanted(&self, which: u8) -> Option<ChunkId> {
        let wants = self.wants.iter().filter(|id| id.segment.collection == HISTORY);
        let count = wants.clone().count().max(1);
        wants.clone().nth(usize::from(which) % count).copied()
    }
}
