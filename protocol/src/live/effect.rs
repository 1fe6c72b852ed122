//! The effects of the live machine, and its notices to the operator.

use std::collections::BTreeSet;

use ledger::chain::Committed;
use ledger::hash::BlockHash;
use ledger::signature::PublicKey;
use ledger::units::{Height, Round, SegmentIndex};

use super::input::{Topic, Verdict};
use crate::eras::Announcement;
use crate::ids::{PeerId, RequestId, Ticket};
use crate::live::mempool::AdmitError;
use crate::message::{CertifiedHeader, Evidence, LogEntry};
use crate::offence::Offence;
use crate::search::FloodMessage;

/// Everything that the machine asks the shell to do. The shell performs effects in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Empty the log and begin it for this height. Durable by the next [`Effect::SyncLog`].
    CutLog(Height),
    /// Append to the log.
    Log(LogEntry),
    /// Make the log durable.
    SyncLog,
    /// Replace the log by a shorter one, atomically and durably. The new log leaves out the bodies
    /// of blocks that are not in this set. It keeps all other entries, even those that were not
    /// synced before.
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
    /// Answer a request with the eras that this node keeps, as
    /// [`crate::message::Response::Eras`].
    RespondEras {
        /// The request.
        ticket: Ticket,
        /// The peer that sent it.
        from: PeerId,
        /// What the peer says of its own eras.
        said: Announcement,
    },
    /// Answer a request with a chunk of a sealed segment, as
    /// [`crate::message::Response::Chunk`], or with [`crate::message::Response::NotKept`].
    RespondChunk {
        /// The request.
        ticket: Ticket,
        /// The segment.
        segment: SegmentIndex,
        /// The index of the chunk in its segment.
        chunk: u64,
    },
    /// Answer a message of the flood query with [`crate::message::Response::Taken`], or not at all
    /// if this node takes part in none.
    RespondFlood {
        /// The request.
        ticket: Ticket,
        /// The peer that sent it.
        from: PeerId,
        /// The message.
        message: FloodMessage,
    },
    /// A certified header far above the tip. [`crate::swarm`] fetches the segments up to it, and
    /// its answer is handed in as [`Input::Plan`](super::Input::Plan).
    Sync(CertifiedHeader),
    /// Make these blocks durable together, then hand in
    /// [`Input::Committed`](super::Input::Committed). On failure, stop the node.
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
    /// Stop the node, since going on could do harm to it or to the network.
    Halt(String),
}

/// News for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Catching up begins. The heights are those of the tip and of the highest proved block.
    Behind(Height, Height),
    /// Catching up has ended, at this tip.
    CaughtUp(Height),
    /// Consensus decided this block of a height, and its body is being fetched.
    Fetching(Height, BlockHash),
    /// A height needs another round.
    Round(Height, Round),
    /// This validator does not sign now, and why.
    NotSigning(String),
    /// This validator signs from this height on.
    Signing(Height),
    /// A proposed block breaks the rules, and why.
    InvalidBlock(Height, BlockHash, String),
    /// These validators signed conflicting messages.
    Equivocation(Vec<PublicKey>),
    /// Median offset of this node's clock from its peers' clocks, in milliseconds; negative if this
    /// clock is behind. It is more than half of the drift that the chain tolerates.
    ClockOff(i64),
    /// The median offset is at most half of the tolerated drift again. In milliseconds, and
    /// negative if this clock is behind.
    ClockRight(i64),
    /// The height has lasted long without votes of a quorum. The validators are those not heard.
    NoQuorum(Height, Vec<PublicKey>),
    /// Votes of a quorum are heard again, at this height.
    Quorum(Height),
}
