//! Faults planted on purpose, to show that the simulator would find them.
//!
//! They are built only with the feature `planted`, and only `tests/tests/planted.rs` uses the
//! feature. Each fault disables one fix, at the line of the fix. A fault is set for the current
//! thread, so simulated runs in other threads are not disturbed.

/// A fix that is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "planted"), allow(dead_code))]
pub enum Fault {
    /// A consensus message is accepted however often it is repeated, with any block list beside a
    /// proposal.
    GossipUnbounded,
    /// A certificate stops consensus even while the block is already known to be valid.
    CertificateStopsConsensus,
    /// Any number of blocks of one round is fetched, executed, kept and logged.
    BlocksOfRoundUnbounded,
    /// A block that still lacks transactions is assembled again at every input.
    AssembledAtEachInput,
    /// A proposal that arrives before its height begins is dropped.
    EarlyProposalForgotten,
}

/// Whether a fault is planted in this thread. Always false without the feature.
#[cfg(not(feature = "planted"))]
#[inline]
pub(crate) const fn is(_: Fault) -> bool {
    false
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    use super::Fault;

    thread_local! {
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Whether a fault is planted in this thread.
    pub(crate) fn is(fault: Fault) -> bool {
        PLANTED.get() == Some(fault)
    }

    /// Plants a fault in this thread; `None` removes it.
    pub fn plant(fault: Option<Fault>) {
        PLANTED.set(fault);
    }
}

#[cfg(feature = "planted")]
pub(crate) use switch::is;
#[cfg(feature = "planted")]
pub use switch::plant;
