//! The inputs of the live machine.

use std::sync::Arc;
use std::time::Duration;

use ledger::block::Block;
use ledger::certificate::Certificate;
use ledger::transaction::VerifiedTransaction;
use ledger::units::Timestamp;

use crate::ids::{PeerId, RequestId, Ticket};
use crate::plan::FetchPlan;

/// The two clocks of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since the process started; never goes back. All timers use it.
    pub elapsed: Duration,
    /// Milliseconds since 1970. This clock may be set back, so no timer runs on it.
    pub wall: Timestamp,
}

/// Subject of a gossip message. Each has its own topic and queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Proposals and votes.
    Consensus,
    /// Certified headers.
    Headers,
    /// Batches of transactions.
    Transactions,
}

/// What to do with a gossip message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Pass it on.
    Accept,
    /// Drop it; nobody is to blame.
    Ignore,
    /// Drop it, and count it against the sender.
    Reject,
}

/// Everything that happens to a node. Each value is one input.
#[derive(Clone, Debug)]
pub enum Input {
    /// Only time has passed. Due at [`Machine::deadline`](super::Machine::deadline) at the latest.
    Time,
    /// A peer connected.
    Connected(PeerId),
    /// A peer disconnected.
    Disconnected(PeerId),
    /// Gossip of consensus or headers: encoded, not yet verified.
    Gossip(Topic, PeerId, Ticket, Vec<u8>),
    /// Gossip of transactions, verified outside in parallel: `None` for a bad signature.
    Transactions(Ticket, Vec<Option<Arc<VerifiedTransaction>>>),
    /// A transaction from this node's own users, verified.
    Submit(Ticket, Arc<VerifiedTransaction>),
    /// A request of a peer.
    Request(PeerId, Ticket, Vec<u8>),
    /// The response to a request, `None` if it failed.
    Response(RequestId, PeerId, Option<Vec<u8>>),
    /// The blocks of [`Effect::Commit`](super::Effect::Commit) are durable.
    Committed,
    /// How the blocks above the tip are fetched, from [`crate::swarm::Effect::Plan`].
    Plan(FetchPlan),
    /// The blocks of a segment, all signatures verified, and the certificate of the last one.
    Segment(Vec<Block<Arc<VerifiedTransaction>>>, Certificate),
}
