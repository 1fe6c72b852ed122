//! Everything that the swarm machine asks its driver to do.

use ledger::history::{SegmentDescriptor, SegmentHead};
use ledger::units::{Height, SegmentIndex};

use super::message::ChunkId;
use crate::ids::PeerId;
use crate::offence::Offence;
use crate::plan::FetchPlan;

/// Everything that the swarm machine asks its driver to do.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // Made once and handed on: a box costs more than the move.
pub enum Effect {
    /// Send a message over the link.
    Send(PeerId, Vec<u8>),
    /// Send a chunk from staging or the store, then hand in
    /// [`Input::Written`](super::Input::Written), [`Input::Unsent`](super::Input::Unsent) or
    /// [`Input::Impossible`](super::Input::Impossible).
    SendChunk {
        /// The peer.
        to: PeerId,
        /// The chunk.
        id: ChunkId,
        /// The chunk by the peer's number of its collection, as the data frame names it.
        name: ChunkId,
    },
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
    /// Store the chunk of the input that had this effect.
    Store(ChunkId),
    /// Keep these bytes, and hand them in as [`Setup::manifest`](super::Setup::manifest) at the
    /// next start.
    SaveManifest(Vec<u8>),
    /// Read a complete segment, cut it into blocks and verify all signatures, then hand in
    /// [`Input::Assembled`](super::Input::Assembled).
    Assemble(SegmentIndex),
    /// Apply the blocks of an assembled segment that are above the tip.
    Apply(SegmentIndex),
    /// Delete the staged chunks of a segment, which is applied or cannot be used.
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
