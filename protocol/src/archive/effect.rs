//! Everything that the archive machine asks its driver to do.

use crate::eras::Era;
use crate::ids::{PeerId, RequestId};

/// Everything that the archive machine asks its driver to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send [`Archive::announcement`](super::Archive::announcement) to a peer as a request. Its
    /// answer is the peer's own announcement, made after the request arrived: hand it in with this
    /// number.
    Exchange {
        /// The peer.
        peer: PeerId,
        /// Names the request.
        request: RequestId,
    },
    /// Audit a holder: ask a peer for one chunk of an era, check it, and hand in
    /// [`Input::Audited`](super::Input::Audited).
    Audit {
        /// The peer.
        peer: PeerId,
        /// Names the audit.
        request: RequestId,
        /// The era.
        era: Era,
        /// A random number that chooses the chunk: its remainder by the number of the era's chunks.
        lot: u64,
    },
    /// Fetch an era from the peers that have it, then hand in
    /// [`Input::Fetched`](super::Input::Fetched) or [`Input::Unfetched`](super::Input::Unfetched).
    Fetch(Era),
    /// Serve these eras to nobody from now on, by any way. Before the next effect nobody is given
    /// any part of them.
    Withdraw(Vec<Era>),
    /// Serve these withdrawn eras again.
    Restore(Vec<Era>),
    /// Remove these withdrawn eras from the disk, at most [`BATCH_MAX`](super::BATCH_MAX).
    Drop(Vec<Era>),
    /// Tell the operator.
    Notice(Notice),
}

/// What the archive machine tells the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// More is kept than the budget allows, since too few other nodes have it.
    OverBudget {
        /// Bytes beyond the budget.
        bytes: u64,
    },
    /// The budget was exceeded by more than a tenth. So eras are dropped that fewer than
    /// [`COPIES`](super::COPIES) other nodes have.
    FewCopies {
        /// Number of eras.
        eras: usize,
        /// Number of other nodes that have each of them, at least.
        copies: usize,
    },
}
