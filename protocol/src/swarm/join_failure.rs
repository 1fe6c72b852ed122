//! Why a chain cannot begin with a snapshot.

use ledger::hash::BlockHash;
use ledger::units::Height;

/// Why a chain cannot begin with a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinFailure {
    /// The chain of the peers has only a few blocks.
    #[error("the chain is too short for a snapshot to save anything")]
    Near,
    /// No peer has sent a list of segments that a certified header proves.
    #[error("no peer has sent the manifest of the chain")]
    NoManifest,
    /// No peer announces a snapshot of a proved block.
    #[error("no connected peer offers a snapshot")]
    NotOffered,
    /// All snapshots that peers announced were tried.
    #[error("none of the offered snapshots could be fetched")]
    AllLeft,
    /// The chain has another block at the height of the checkpoint.
    #[error(
        "the chain of the peers has block {found} at height {height}, and the checkpoint is block \
         {expected}"
    )]
    CheckpointContradicted {
        /// Height of the checkpoint.
        height: Height,
        /// The checkpoint.
        expected: BlockHash,
        /// The block in the chain.
        found: BlockHash,
    },
    /// The checkpoint is inside a segment, and no peer proves which block is there.
    #[error("no connected peer has proved which block is at height {height} of the checkpoint")]
    CheckpointUnproved {
        /// Height of the checkpoint.
        height: Height,
    },
}

impl JoinFailure {
    /// Whether the node must stop: the chain is not, or may not be, the one that the operator
    /// wants.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        match self {
            Self::CheckpointContradicted { .. } | Self::CheckpointUnproved { .. } => true,
            Self::Near | Self::NoManifest | Self::NotOffered | Self::AllLeft => false,
        }
    }
}
