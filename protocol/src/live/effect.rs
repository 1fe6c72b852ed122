//! What a node does.

use std::collections::BTreeSet;

use ledger::chain::Committed;
use ledger::hash::BlockHash;
use ledger::signature::PublicKey;
use ledger::units::{Height, Round};

use super::input::{Topic, Verdict};
use crate::ids::{PeerId, RequestId, Ticket};
use crate::live::mempool::AdmitError;
use crate::message::{CertifiedHeader, Evidence, LogEntry};
use crate::offence::Offence;

/// Everything a node does. The shell performs effects in order, each before the next begins.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Empty the log and begin it for this height. Durable by the next [`Effect::SyncLog`].
    CutLog(Height),
    /// Append to the log.
    Log(LogEntry),
    /// Make the log durable.
    SyncLog,
    /// Replace the log by a shorter one, atomically and durably. It leaves out the bodies that are
    /// not among these, and keeps all other entries, even those that were not synced before.
    ShortenLog(BTreeSet<BlockHash>),
    /// Publish a gossip message.
    Gossip(Topic, Vec<u8>),
    /// The verdict on a gossip message.
    Judge(Ticket, Verdict),
    /// Send a request to a peer.
    Request(RequestId, PeerId, Vec<u8>),
    /// Answer a request.
    Respond(Ticket, Vec<u8>),
    /// Answer a request with final blocks from this height on, as
    /// [`crate::message::Response::Blocks`].
    RespondBlocks(Ticket, Height),
    /// A certified header far above the tip: [`crate::swarm`] fetches the segments up to it and
    /// gives [`Input::Plan`](super::Input::Plan).
    Sync(CertifiedHeader),
    /// Make these blocks durable together, then give [`Input::Committed`](super::Input::Committed);
    /// on failure, stop the node.
    Commit(Vec<Committed>),
    /// Whether a submitted transaction was admitted.
    Submitted(Ticket, Result<(), AdmitError>),
    /// Keep a proof of double signing.
    Evidence(Evidence),
    /// A peer committed an offence: disconnect or ban it, as [`Offence::severity`] says.
    Ban {
        /// The peer.
        peer: PeerId,
        /// The offence.
        offence: Offence,
    },
    /// Tell the operator.
    Notice(Notice),
    /// Stop the node: going on could do harm here or elsewhere.
    Halt(String),
}

/// News for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Catching up begins: the tip, and the highest proved height.
    Behind(Height, Height),
    /// Caught up, at this tip.
    CaughtUp(Height),
    /// Consensus decided this block of a height, and its body is being fetched.
    Fetching(Height, BlockHash),
    /// A height needs another round.
    Round(Height, Round),
    /// This validator does not sign yet, and why.
    NotSigning(String),
    /// This validator signs from this height on.
    Signing(Height),
    /// A proposed block breaks the rules, and why.
    InvalidBlock(Height, BlockHash, String),
    /// These validators signed twice.
    Equivocation(Vec<PublicKey>),
    /// This clock is this many milliseconds ahead of most peers' clocks (negative: behind), more
    /// than half of the tolerated drift.
    ClockOff(i64),
    /// The clock is near most peers' clocks again; its offset in milliseconds, positive if ahead.
    ClockRight(i64),
    /// The height has lasted long without votes of a quorum; the validators that were not heard.
    NoQuorum(Height, Vec<PublicKey>),
    /// Votes of a quorum are heard again, at this height.
    Quorum(Height),
}
