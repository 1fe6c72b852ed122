//! The phases of the machine.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between heights.
    Waiting,
    /// Consensus decides the next height.
    Deciding,
    /// Consensus has decided a block whose body is being fetched. Meanwhile consensus rests.
    Fetching,
    /// A commit is being made durable.
    Committing,
    /// Others are ahead, so consensus rests.
    CatchingUp,
    /// [`Effect::Halt`](super::Effect::Halt) was given.
    Halted,
}

/// How a block became final here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Consensus decided it on this node.
    Consensus,
    /// Others decided it. It was fetched during [`Phase::CatchingUp`].
    CatchUp,
    /// Others decided it. Its certificate came before consensus here had decided.
    Certified,
}
