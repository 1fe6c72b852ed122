//! The phases of the machine. Each has the data that exists only while the phase lasts.

use ledger::certificate::Certificate;
use ledger::chain::{ChainState, Committed};
use ledger::hash::BlockHash;

use super::proposals::Proposals;

/// What the machine is doing.
pub(super) enum Phase {
    /// Between heights.
    Waiting,
    /// The height after the tip has begun.
    Begun(Begun),
    /// A commit is being made durable.
    Committing(Committing),
    /// Other nodes are ahead, so consensus is stopped: it gets no messages and no timeouts, and
    /// this node signs nothing. A height that had begun is kept in this phase. If catching up ends
    /// without its block, the height goes on where it stood. If it were begun again, what was
    /// signed in it would be forgotten.
    CatchingUp(Option<Begun>),
    /// [`Effect::Halt`](super::Effect::Halt) was given.
    Halted,
}

/// A height that has begun.
pub(super) enum Begun {
    /// Consensus decides it, among these proposals.
    Deciding(Proposals),
    /// Consensus has decided a block whose body is being fetched. This is the block's certificate.
    /// Consensus is stopped meanwhile.
    Fetching(Certificate),
}

/// The pending [`Effect::Commit`](super::Effect::Commit).
pub(super) struct Committing {
    /// Its blocks.
    pub(super) commits: Vec<Committed>,
    /// The chain after them.
    pub(super) after: ChainState,
    /// How they became final.
    pub(super) origin: Origin,
}

/// How a block became final here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Consensus decided it on this node.
    Consensus,
    /// Others decided it. It was fetched during [`Phase::CatchingUp`].
    CatchUp,
    /// Others decided it. Their certificate came before consensus here had decided the block, or
    /// before its body was here.
    Certified,
}

impl Phase {
    pub(super) const fn is_deciding(&self) -> bool {
        matches!(self, Self::Begun(Begun::Deciding(_)))
    }

    /// Whether the height after the tip has begun.
    pub(super) const fn has_begun(&self) -> bool {
        matches!(self, Self::Begun(_) | Self::CatchingUp(Some(_)))
    }

    pub(super) const fn is_catching_up(&self) -> bool {
        matches!(self, Self::CatchingUp(_))
    }

    /// Whether nothing may be committed now.
    pub(super) const fn is_closed(&self) -> bool {
        matches!(self, Self::Committing(_) | Self::Halted)
    }

    /// The proposals of the height that is being decided.
    pub(super) const fn proposals(&mut self) -> Option<&mut Proposals> {
        match self {
            Self::Begun(Begun::Deciding(proposals)) => Some(proposals),
            _ => None,
        }
    }

    /// The proposals of the height that has begun, even if it waits until the node has caught up.
    pub(super) const fn known_proposals(&self) -> Option<&Proposals> {
        match self {
            Self::Begun(Begun::Deciding(proposals))
            | Self::CatchingUp(Some(Begun::Deciding(proposals))) => Some(proposals),
            _ => None,
        }
    }

    /// The certificate of a decided block whose body is not here.
    pub(super) const fn decided(&self) -> Option<&Certificate> {
        match self {
            Self::Begun(Begun::Fetching(certificate))
            | Self::CatchingUp(Some(Begun::Fetching(certificate))) => Some(certificate),
            _ => None,
        }
    }

    /// The body of a block has arrived. If consensus has decided this block, ends the height and
    /// returns the block's certificate.
    pub(super) fn take_decided(&mut self, block: BlockHash) -> Option<Certificate> {
        match std::mem::replace(self, Self::Waiting) {
            Self::Begun(Begun::Fetching(certificate)) if certificate.block == block => {
                Some(certificate)
            }
            other => {
                *self = other;
                None
            }
        }
    }

    /// Catching up begins.
    pub(super) fn rest(&mut self) {
        let begun = match std::mem::replace(self, Self::Waiting) {
            Self::Begun(begun) => Some(begun),
            _ => None,
        };
        *self = Self::CatchingUp(begun);
    }

    /// Catching up ends.
    pub(super) fn resume(&mut self) {
        if let Self::CatchingUp(begun) = self {
            *self = begun.take().map_or(Self::Waiting, Self::Begun);
        }
    }
}
