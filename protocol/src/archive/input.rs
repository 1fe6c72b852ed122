//! What the archive machine starts with, and everything that happens to it.

use std::time::Duration;

use crate::eras::{Announcement, Era};
use crate::ids::{PeerId, RequestId};

/// How much of history a node keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// All of it.
    #[default]
    Full,
    /// At most this many bytes of whole eras, chosen by place.
    Bytes(u64),
    /// The newest eras, this many.
    Recent(u64),
}

/// A whole era of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholeEra {
    /// Its bytes on disk, or as many as it would take.
    pub bytes: u64,
    /// Whether it is here.
    pub is_kept: bool,
}

/// What the archive machine starts with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The bytes of this node's peer id.
    pub id: Box<[u8]>,
    /// How much of history this node keeps.
    pub keep: Keep,
    /// All whole eras, from era 0 on.
    pub eras: Vec<WholeEra>,
    /// For how long the claims of a peer count after its connection ended. [`GONE_COUNTS`] is
    /// usual.
    ///
    /// [`GONE_COUNTS`]: super::GONE_COUNTS
    pub gone_counts: Duration,
    /// A random number, from which all random choices follow.
    pub seed: u64,
}

/// The result of an audit of a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audit {
    /// The peer sent the chunk, and its hash is the proved one.
    Passed,
    /// The peer does not have the chunk, or sent another one.
    Failed,
    /// The peer did not answer.
    Unanswered,
    /// The peer was busy, or its connection ended.
    Busy,
}

/// Everything that happens to the archive machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// Only time has passed. Due at [`Archive::deadline`](super::Archive::deadline) at the latest.
    Time,
    /// A peer is connected.
    Connected {
        /// The peer.
        peer: PeerId,
        /// The bytes of its peer id.
        id: Box<[u8]>,
        /// Its address group. Peers of one group count as one copy, since one operator easily has
        /// many addresses of a group.
        group: u64,
    },
    /// A peer is not connected any more.
    Disconnected(PeerId),
    /// A peer announced the eras that it keeps.
    Announced {
        /// The peer.
        peer: PeerId,
        /// The announcement.
        announcement: Announcement,
        /// The [`Effect::Exchange`](super::Effect::Exchange) that it answers. `None` if the peer
        /// began.
        answers: Option<RequestId>,
    },
    /// The result of [`Effect::Audit`](super::Effect::Audit).
    Audited(RequestId, Audit),
    /// One more era is whole.
    Whole(WholeEra),
    /// An era that was not here is here now, durably: that of
    /// [`Effect::Fetch`](super::Effect::Fetch), or one that came otherwise.
    Fetched {
        /// The era.
        era: Era,
        /// Its bytes on disk.
        bytes: u64,
    },
    /// The era of [`Effect::Fetch`](super::Effect::Fetch) could not be fetched. It is tried again.
    Unfetched(Era),
    /// An era that is here cannot be read whole.
    Damaged(Era),
    /// The operator changed how much to keep.
    Keep(Keep),
}
