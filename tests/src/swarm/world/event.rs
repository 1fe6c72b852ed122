//! Events and their order.

use ledger::hash::{Hash, SnapshotId};
use ledger::units::SegmentIndex;
use protocol::swarm::message::ChunkId;

use crate::swarm::link::Nanos;

/// The content of a frame.
#[derive(Debug)]
pub(super) enum Content {
    Message(Vec<u8>),
    Chunk(ChunkId, Hash, u64),
    /// A chunk of a snapshot.
    Part(ChunkId, Vec<u8>),
    /// A chunk of a file.
    OfFile(ChunkId, Hash, u64),
}

/// An event that may come next.
#[derive(Debug)]
pub(super) enum Happening {
    Start(usize),
    Kill(usize, u64),
    Wake(usize, u64),
    /// A piece has left this node.
    Sent(usize),
    /// The receiver has taken in a piece, and the sender learns of it.
    Taken {
        from: usize,
        to: usize,
        link: u64,
        bytes: u64,
    },
    Written {
        from: usize,
        to: usize,
        link: u64,
    },
    Arrives {
        from: usize,
        to: usize,
        link: u64,
        content: Content,
    },
    Assembled(usize, u64, SegmentIndex),
    Applied(usize, u64, SegmentIndex),
    Loaded(usize, u64, SnapshotId),
}

pub(super) struct Event {
    pub(super) at: Nanos,
    pub(super) sequence: u64,
    pub(super) what: Happening,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}
