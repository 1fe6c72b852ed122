//! Everything that sync does.

use ledger::history::{SegmentDescriptor, SegmentHead};
use ledger::units::{Height, SegmentIndex};

use super::message::ChunkId;
use crate::ids::PeerId;
use crate::offence::Offence;
use crate::plan::FetchPlan;

/// Everything that sync does.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // Made once and handed on: a box costs more than the move.
pub enum Effect {
    /// Send a message over the link.
    Send(PeerId, Vec<u8>),
    /// Send a chunk from staging or the store, then give
    /// [`Input::Written`](super::Input::Written), [`Input::Unsent`](super::Input::Unsent) or
    /// [`Input::Impossible`](super::Input::Impossible).
    SendChunk(PeerId, ChunkId),
    /// Answer with the descriptors of segments that were sealed before a height: first the stored
    /// ones, then the known ones.
    SendManifest {
        /// The peer that asked.
        peer: PeerId,
        /// The height whose manifest the peer asked for.
        height: Height,
        /// The segment that the answer begins with.
        first: SegmentIndex,
        /// Proved descriptors of segments that are not stored yet.
        known: Vec<SegmentDescriptor>,
    },
    /// Answer with the head of a stored segment.
    SendHead(PeerId, SegmentIndex),
    /// Make room for the chunks of a segment.
    Begin(SegmentHead),
    /// Store the chunk of this input.
    Store(ChunkId),
    /// Keep these bytes for [`Setup::manifest`](super::Setup::manifest) of the next start.
    SaveManifest(Vec<u8>),
    /// Read a complete segment, cut it into blocks, verify all signatures; then give
    /// [`Input::Assembled`](super::Input::Assembled).
    Assemble(SegmentIndex),
    /// Apply the blocks of an assembled segment that are above the tip.
    Apply(SegmentIndex),
    /// Delete the staged chunks of a segment: it is applied, or cannot be used.
    Release(SegmentIndex),
    /// How the blocks above the tip are fetched from now on.
    Plan(FetchPlan),
    /// A peer committed an offence: disconnect or ban it, as [`Offence::severity`] says.
    Ban {
        /// The peer.
        peer: PeerId,
        /// The offence.
        offence: Offence,
    },
}
