//! Faults that are planted on purpose, so that the simulator can show that it would find them.
//!
//! Built with the feature `planted` only, which nothing but `tests/tests/planted.rs` uses. Each fault takes out one mend, at the
//! one line where the mend is. A fault is set for the current thread: simulated runs of one thread do not disturb those of another.

/// A mend that is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "planted"), allow(dead_code))]
pub enum Fault {
    /// A consensus message is accepted however often it comes, and whatever list comes beside a proposal.
    GossipUnbounded,
    /// A certificate stops consensus also where the block is known to be valid.
    CertificateStopsConsensus,
    /// Any number of blocks of a round is looked for, executed, kept and logged.
    BlocksOfRoundUnbounded,
    /// A block that is looked for is assembled anew at every input.
    AssembledAtEachInput,
    /// A proposal that comes before its height begins is forgotten.
    EarlyProposalForgotten,
}

/// Whether a fault is planted in this thread. Never, without the feature.
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

    /// Plants a fault in this thread, or none.
    pub fn plant(fault: Option<Fault>) {
        PLANTED.set(fault);
    }
}

#[cfg(feature = "planted")]
pub(crate) use switch::is;
#[cfg(feature = "planted")]
pub use switch::plant;
