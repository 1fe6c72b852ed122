//! Everything that the swarm machine asks its driver to do.

use ledger::file::FileHead;
use ledger::hash::{FileId, SnapshotId};
use ledger::history::{SegmentDescriptor, SegmentHead};
use ledger::units::{Height, SegmentIndex};

use super::input::SnapshotOffer;
use super::join_failure::JoinFailure;
use super::message::{ChunkId, CollectionNumber, SegmentId};
use crate::ids::PeerId;
use crate::offence::Offence;
use crate::plan::FetchPlan;

/// Everything that the swarm machine asks its driver to do.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // Made once and handed on: a box costs more than the move.
pub enum Effect {
    /// Send a message over the link.
    Send(PeerId, Vec<u8>),
    /// Send a message that the peer has asked for. Its bytes are charged to the peer.
    Answer(PeerId, Vec<u8>),
    /// Send a chunk from staging, the store, the file of a snapshot or a shared file, as
    /// [`Swarm::kind`](super::Swarm::kind) says, then hand in
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
    /// Answer with the head of a segment of a file, or with none if it cannot be read.
    SendFileHead {
        /// The peer that asked.
        peer: PeerId,
        /// The file.
        id: FileId,
        /// The segment.
        segment: SegmentIndex,
    },
    /// Answer with the proof that the block of a height is in its stored segment.
    SendBlockProof(PeerId, Height),
    /// Make room for the chunks of a segment of this collection: history or backfill.
    Begin(CollectionNumber, SegmentHead),
    /// Make room for the chunks of a segment of a file, which may be the first one of it. If the
    /// disk refuses, it is tried again when a chunk of the segment has arrived.
    BeginFileSegment(FileId, FileHead),
    /// Everything that was wanted of a file is here.
    FileDone(FileId),
    /// Store the chunk of the input that had this effect, in staging, in the file of its snapshot
    /// or in its place in a file, as [`Swarm::kind`](super::Swarm::kind) says. If the disk refuses,
    /// hand in [`Input::Refused`](super::Input::Refused).
    Store(ChunkId),
    /// Keep these bytes, and hand them in as [`Setup::manifest`](super::Setup::manifest) at the
    /// next start.
    SaveManifest(Vec<u8>),
    /// Read a complete segment, cut it into blocks and verify all signatures, then hand in
    /// [`Input::Assembled`](super::Input::Assembled).
    Assemble(SegmentIndex),
    /// Apply the blocks of an assembled segment that are above the tip.
    Apply(SegmentIndex),
    /// Put a complete segment of backfill in its place, then hand in
    /// [`Input::Kept`](super::Input::Kept) or [`Input::NotPlaced`](super::Input::NotPlaced).
    Keep(SegmentIndex),
    /// Delete the staged chunks of a segment, which is applied, in its place or of no use.
    Release(SegmentId),
    /// How the blocks above the tip are fetched from now on.
    Plan(FetchPlan),
    /// Make the file of a snapshot, whose chunks come from now on.
    BeginSnapshot(SnapshotOffer),
    /// The snapshot was given up: remove its file.
    DropSnapshot(SnapshotId),
    /// All chunks of a snapshot are here. Verify them, have the chain take over the state, and hand
    /// in [`Input::Loaded`](super::Input::Loaded) or
    /// [`Input::LoadFailed`](super::Input::LoadFailed).
    LoadSnapshot {
        /// The snapshot.
        id: SnapshotId,
        /// The proved descriptors of all segments up to its block.
        descriptors: Vec<SegmentDescriptor>,
    },
    /// The chain cannot begin with a snapshot. History goes on from where the chain is, unless
    /// [`JoinFailure::is_fatal`] says that the node must stop.
    JoinFailed(JoinFailure),
    /// A peer committed an offence: disconnect or ban it, as [`Offence::severity`] says.
    Ban {
        /// The peer.
        peer: PeerId,
        /// The offence.
        offence: Offence,
    },
}
