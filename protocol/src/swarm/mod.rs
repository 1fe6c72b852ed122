//! The swarm machine fetches collections as chunks from many peers at once, checks each chunk,
//! offers it to others, and puts complete segments in their place.
//!
//! [`Swarm::handle`] is the only entry point: it takes the time and an input and returns effects.
//! Sync messages travel over links of their own ([`message`]). Protocol: `docs/protocol/sync.md`.
//!
//! These modules know chunks only:
//! - `engine` knows the collections and the links to peers, and brings the others together.
//! - `segments` knows which chunks are here, and `census` which peer has which chunk.
//! - `downloads` decides which chunk is requested from whom. `supplier` follows one peer that
//!   sends.
//! - `uploads` decides which chunk is sent to whom.
//! - `meter` measures and limits rates.
//!
//! The module `history` is a kind of collection. A certified header proves the manifest, and the
//! manifest proves the hash of each chunk, so a wrong chunk convicts its sender. The blocks come
//! out as [`Effect::Apply`] and go through the same commit as live ones.
//!
//! The module `snapshot` is another kind. With [`Setup::join`] it brings a chain at height 0 to the
//! state of a snapshot, by [`Effect::LoadSnapshot`], and history goes on from there. Any node
//! offers the snapshots that it has.
//!
//! The module `file` is a third kind: any bytes, whose id proves the head of each segment. It needs
//! no chain.
//!
//! The module `report` says what sync is doing.

pub mod message;

mod asked;
mod backfill;
mod bits;
mod census;
mod classes;
mod downloads;
mod effect;
mod engine;
mod expected;
mod file;
mod heads;
mod history;
mod input;
mod join_failure;
mod meter;
mod progress;
mod ranges;
mod report;
mod segments;
mod snapshot;
mod supplier;
mod uploads;

pub use backfill::BACKFILL;
pub use bits::Bits;
pub use classes::Class;
pub use effect::Effect;
pub use expected::{CollectionKind, Expected, file_chunk, snapshot_chunk};
pub use file::FileReport;
pub use history::HISTORY;
pub use input::{ByteRange, HeldFile, Input, Join, Rates, Setup, SnapshotOffer, Staged};
pub use join_failure::JoinFailure;
pub use meter::Limit;
pub use ranges::{RANGES_MAX, SegmentRange, SegmentRanges};
pub use report::{PeerReport, SegmentReport, Stage, SyncReport};
pub use segments::OPEN_SEGMENTS_MAX;

use std::sync::Arc;
use std::time::Duration;

use crate::ids::PeerId;
use crate::offence::Offence;
use engine::Engine;
use message::{ChunkId, CollectionNumber, SegmentId, SyncMessage};

/// The part of a node that fetches and serves collections.
pub struct Swarm {
    engine: Engine,
    history: history::Kind,
    snapshot: snapshot::Kind,
    backfill: backfill::Kind,
    file: file::Kind,
}

impl Swarm {
    /// A machine that continues from the chain and from the files of an earlier run.
    #[must_use]
    pub fn new(setup: Setup<'_>, now: Duration) -> (Self, Vec<Effect>) {
        let Setup { chain, history, kept, staged, manifest, nonce, rates, join } = setup;
        let mut engine = Engine::new(nonce, rates, now);
        let snapshot = snapshot::Kind::new(Arc::clone(&chain), join, now);
        let (id, rules, whole) = (chain.id(), *history.rules(), kept.clone());
        let mut history = history::Kind::new(&mut engine, chain, history, kept, staged, manifest);
        history.is_held = snapshot.is_joining();
        let backfill = backfill::Kind::new(&mut engine, id, rules, whole);
        let file = file::Kind::default();
        let mut swarm = Self { engine, history, snapshot, backfill, file };
        let effects = swarm.settle();
        (swarm, effects)
    }

    /// Takes in one input and returns its effects.
    pub fn handle(&mut self, now: Duration, input: Input) -> Vec<Effect> {
        self.engine.now = now;
        let Self { engine, history, snapshot, backfill, file } = self;
        match input {
            Input::Time => {}
            Input::Opened(peer) => self.on_opened(peer),
            Input::Closed(peer) => engine.on_closed(peer),
            Input::Message(peer, bytes) => self.on_message(peer, &bytes),
            Input::Chunk { from, id, is_valid, bytes } => self.on_chunk(from, id, is_valid, bytes),
            Input::Uploaded(bytes) => engine.uploads.limit.take(bytes),
            Input::Written(peer) => engine.uploads.on_written(peer, now),
            // The segment may be gone since the chunk was chosen. Then it is not the peer's fault.
            Input::Impossible(peer, id) if engine.has_any(id.segment) => {
                let (SegmentId { index: segment, .. }, chunk) = (id.segment, id.chunk);
                engine.ban(peer, Offence::ImpossibleWant { segment, chunk });
            }
            Input::Unread(peer, id) if file.on_unread(engine, id.segment) => {
                engine.on_unsent(peer, id);
            }
            Input::Unsent(peer, id) if file.is_beyond(id) => {
                let (segment, chunk) = (id.segment.index, id.chunk);
                engine.ban(peer, Offence::ImpossibleWant { segment, chunk });
            }
            Input::Unsent(peer, id) | Input::Unread(peer, id) | Input::Impossible(peer, id) => {
                let was_here = engine.on_unsent(peer, id);
                self.on_lost(id, was_here);
            }
            Input::Refused(id) => {
                let was_here = engine.on_refused(id);
                self.on_lost(id, was_here);
            }
            Input::FileHeld(held) => file.on_held(engine, held),
            Input::FileWanted(held, range) => file.on_wanted(engine, held, range),
            Input::FileGone(id) => file.on_gone(engine, id),
            Input::ByHistory => snapshot.give_up(engine, history),
            Input::SnapshotKept(offer) => snapshot.on_kept(engine, offer),
            Input::SnapshotGone(id) => snapshot.on_gone(engine, id),
            Input::Loaded { id, history: loaded } => {
                snapshot.on_loaded(engine, history, id, &loaded);
            }
            Input::LoadFailed { id, damaged } => snapshot.on_load_failed(engine, id, &damaged),
            Input::Missing { missing, staged } => backfill.on_missing(engine, missing, staged),
            Input::Kept(range) => {
                engine.on_whole(HISTORY, range);
                backfill.on_kept(engine, range);
            }
            Input::NotPlaced(index, damaged) => backfill.on_not_placed(engine, index, &damaged),
            Input::Dropped(range) => {
                engine.on_dropped(HISTORY, range);
                backfill.on_dropped(engine, range);
            }
            Input::Certified(certified) => history.on_certified(certified),
            Input::Tip(height, sealed) => {
                if let Some(range) = history.on_tip(engine, height, &sealed) {
                    engine.on_whole(BACKFILL, range);
                }
            }
            Input::Assembled(index, damaged) => history.on_assembled(engine, index, &damaged),
        }
        self.settle()
    }

    /// What proves a chunk that has arrived from a peer, by this node's name of it. `None` if the
    /// chunk is not missing, or the peer may not send it now: then its bytes are not verified,
    /// which for a chunk of a snapshot would cost milliseconds.
    #[must_use]
    pub fn expected(&self, from: PeerId, id: ChunkId) -> Option<Expected> {
        let SegmentId { collection, index } = id.segment;
        if !self.engine.downloads.awaits(from, id) {
            return None;
        }
        match collection {
            HISTORY => self.history.chunk_hash(index, id.chunk).map(Expected::Hash),
            BACKFILL => self.backfill.chunk_hash(index, id.chunk).map(Expected::Hash),
            _ => {
                let snapshot = self.snapshot.frontier(collection).map(Expected::Snapshot);
                snapshot.or_else(|| self.file.chunk_hash(id).map(Expected::Hash))
            }
        }
    }

    /// What a collection of this node is, by its number. `None` once the collection is closed.
    #[must_use]
    pub fn kind(&self, number: CollectionNumber) -> Option<CollectionKind> {
        match number {
            HISTORY => Some(CollectionKind::History),
            BACKFILL => Some(CollectionKind::Backfill),
            _ => {
                let snapshot = self.snapshot.id_of(number).map(CollectionKind::Snapshot);
                snapshot.or_else(|| self.file.id_of(number).map(CollectionKind::File))
            }
        }
    }

    /// When [`Input::Time`] is due at the latest. `None` while nothing is pending.
    #[must_use]
    pub fn deadline(&mut self) -> Option<Duration> {
        let now = self.engine.now;
        let kinds = [
            self.engine.deadline(),
            self.history.deadline(now),
            self.snapshot.deadline(&self.engine),
            self.backfill.deadline(now),
            self.file.deadline(now),
        ];
        kinds.into_iter().flatten().min()
    }

    fn settle(&mut self) -> Vec<Effect> {
        self.forget_closed();
        self.snapshot.settle(&mut self.engine, &mut self.history);
        self.history.settle(&mut self.engine);
        self.backfill.settle(&mut self.engine, self.history.is_behind());
        self.file.settle(&mut self.engine);
        self.engine.settle();
        self.engine.take_effects()
    }

    fn on_opened(&mut self, peer: PeerId) {
        self.engine.on_opened(peer);
        self.forget_closed();
        self.history.on_opened(&mut self.engine, peer);
        self.snapshot.on_opened(&mut self.engine, peer);
    }

    /// Lets all kinds know of the links that have closed.
    fn forget_closed(&mut self) {
        for peer in self.engine.take_closed() {
            self.history.on_closed(peer);
            self.snapshot.on_closed(peer);
            self.backfill.on_closed(peer);
            self.file.on_closed(&mut self.engine, peer);
        }
    }

    fn on_message(&mut self, from: PeerId, bytes: &[u8]) {
        let Self { engine, history, snapshot, backfill, file } = self;
        if !engine.is_linked(from) {
            return;
        }
        let message = match SyncMessage::decode(bytes) {
            Ok(message) => message,
            Err(error) => return engine.ban(from, Offence::SyncMessage(error)),
        };
        match message {
            SyncMessage::Open(number, id) => {
                engine.on_open(from, number, id);
                file.on_asked(engine, id);
            }
            SyncMessage::Close(number) => {
                engine.on_close(from, number);
                file.close_unused(engine);
            }
            SyncMessage::Holdings(number, holdings) => {
                engine.on_holdings(from, number, holdings);
                file.on_news(engine, from, number);
            }
            SyncMessage::Held(number, range) => {
                engine.on_held(from, number, range);
                file.on_news(engine, from, number);
            }
            SyncMessage::NotKept(segment) => {
                let segment = engine.on_not_kept(from, segment);
                if let Some(segment) = segment.filter(|one| one.collection == HISTORY) {
                    history.on_no_head(engine, from, segment.index);
                    backfill.on_no_head(engine, from, segment.index);
                }
            }
            SyncMessage::Update(update) => {
                let have = update.have.iter().map(|id| id.segment.collection);
                let mut have: Vec<CollectionNumber> = have.collect();
                have.dedup();
                engine.on_update(from, update);
                have.into_iter().for_each(|number| file.on_news(engine, from, number));
            }
            SyncMessage::Busy(milliseconds) => engine.on_busy(from, milliseconds),
            SyncMessage::Height(height) => history.on_height(from, height),
            SyncMessage::GetManifest(height, index) => {
                history.on_get_manifest(engine, from, height, index);
            }
            SyncMessage::Manifest(height, index, descriptors) => {
                history.on_manifest(engine, from, height, index, descriptors);
            }
            SyncMessage::GetHead(index) => {
                if !backfill.on_get_head(engine, from, index) {
                    history.on_get_head(engine, from, index);
                }
            }
            SyncMessage::Head(index, head) if backfill.seeks(index) => {
                backfill.on_head(engine, from, index, head, |head| history.is_head(head));
            }
            SyncMessage::Head(index, head) => history.on_head(engine, from, index, head),
            SyncMessage::Snapshots(all) => snapshot.on_snapshots(engine, from, all),
            SyncMessage::GetFrontier(id, page) => snapshot.on_get_frontier(engine, from, id, page),
            SyncMessage::Frontier(id, page, answer) => {
                snapshot.on_frontier(engine, history, from, (id, page), answer);
            }
            SyncMessage::GetBlockProof(height) => {
                snapshot::on_get_block_proof(engine, history, from, height);
            }
            SyncMessage::BlockProof(height, proof) => {
                snapshot.on_block_proof(engine, history, from, height, proof);
            }
            SyncMessage::GetFileHead(id, segment) => file.on_get_head(engine, from, id, segment),
            SyncMessage::FileHead(id, segment, head) => {
                file.on_head(engine, from, id, segment, head);
            }
        }
    }

    fn on_chunk(&mut self, from: PeerId, id: ChunkId, is_valid: bool, bytes: u64) {
        if !self.engine.on_chunk(from, id, is_valid, bytes) {
            return;
        }
        match id.segment.collection {
            HISTORY => self.history.on_chunk(&self.engine, bytes),
            BACKFILL => {}
            _ => {
                self.snapshot.on_chunk(&self.engine, id, bytes);
                self.file.on_chunk(&self.engine, from, id, bytes);
            }
        }
    }

    /// A chunk is not on disk, or damaged there. `was_here`: whether it counted as here in an open
    /// segment.
    fn on_lost(&mut self, id: ChunkId, was_here: bool) {
        match id.segment.collection {
            HISTORY => self.history.on_lost(u64::from(was_here)),
            BACKFILL => {}
            _ => {
                self.snapshot.on_lost(&self.engine, id, was_here);
                self.file.on_lost(&self.engine, id);
            }
        }
    }
}

#[cfg(test)]
mod tests;
