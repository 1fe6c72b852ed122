//! Snapshots: the kind of collection that offers snapshots of the state to peers, and lets a chain
//! at height 0 begin with one.
//!
//! A frontier proves the chunks, and the header of the snapshot's block proves the frontier, except
//! for its counts. So each frontier has an id, which peers announce, and each id is a collection of
//! its own. A frontier with false counts has chunks that nobody can send.

mod checkpoint;
mod fetch;
mod frontier;
mod joining;
mod offers;
mod serve;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ledger::chain::Chain;
use ledger::hash::SnapshotId;
use ledger::history::History;
use ledger::snapshot::{Frontier, SEGMENT_CHUNKS, SnapshotRules};
use ledger::units::{Height, SegmentIndex};

use super::classes::Class;
use super::effect::Effect;
use super::engine::{Collection, Engine};
use super::history;
use super::input::{Join, SnapshotOffer};
use super::message::{ChunkId, CollectionId, CollectionNumber, SNAPSHOTS_MAX, SyncMessage};
use super::progress::Progress;
use super::ranges::SegmentRanges;
use crate::ids::PeerId;
use joining::{Joining, Step};
pub(super) use serve::on_get_block_proof;

/// A whole snapshot that is offered to peers.
#[derive(Debug)]
struct Kept {
    offer: SnapshotOffer,
    number: CollectionNumber,
}

/// Fetches and serves snapshots.
pub(super) struct Kind {
    chain: Arc<Chain>,
    rules: SnapshotRules,
    /// At most [`SNAPSHOTS_MAX`].
    kept: BTreeMap<SnapshotId, Kept>,
    /// While the chain is to begin with a snapshot.
    joining: Option<Joining>,
}

impl Kind {
    pub(super) fn new(chain: Arc<Chain>, join: Option<Join>, now: Duration) -> Self {
        let rules = SnapshotRules::new(chain.limits());
        let joining = join.map(|join| Joining::new(join, now));
        Self { chain, rules, kept: BTreeMap::new(), joining }
    }

    pub(super) const fn is_joining(&self) -> bool {
        self.joining.is_some()
    }

    /// A snapshot is whole on disk.
    ///
    /// While the chain is at height 0, no snapshot of an earlier run is offered: its block is not
    /// proved, and the file would be in the way of the same snapshot.
    pub(super) fn on_kept(&mut self, engine: &mut Engine, offer: SnapshotOffer) {
        let id = offer.id;
        let fetched = self.joining.as_ref().and_then(Joining::fetch);
        if self.kept.contains_key(&id) || fetched.is_some_and(|fetch| fetch.offer.id == id) {
            return;
        }
        if self.is_joining() {
            return engine.push(Effect::DropSnapshot(id));
        }
        let whole = SegmentRanges::before(SegmentIndex(offer.frontier.segment_count()));
        let number = self.open(engine, id, whole);
        self.keep(engine, Kept { offer, number });
    }

    /// A snapshot is not on disk any more.
    pub(super) fn on_gone(&mut self, engine: &mut Engine, id: SnapshotId) {
        if let Some(Kept { number, .. }) = self.kept.remove(&id) {
            engine.close(number);
            self.announce(engine);
        }
    }

    fn open(&self, engine: &mut Engine, id: SnapshotId, whole: SegmentRanges) -> CollectionNumber {
        engine.open(Collection {
            id: CollectionId(id.0),
            class: Class::Snapshot,
            chunk_bytes: self.chain.limits().chunk_bytes,
            chunks_max: u32::try_from(SEGMENT_CHUNKS).unwrap_or(u32::MAX),
            whole,
            is_announced: true,
            paused_until: None,
        })
    }

    fn keep(&mut self, engine: &mut Engine, kept: Kept) {
        self.kept.insert(kept.offer.id, kept);
        while self.kept.len() > SNAPSHOTS_MAX {
            let lowest = self.kept.values().min_by_key(|kept| kept.offer.height);
            let Some((id, number)) = lowest.map(|kept| (kept.offer.id, kept.number)) else { break };
            self.kept.remove(&id);
            engine.close(number);
        }
        self.announce(engine);
    }

    fn announce(&self, engine: &mut Engine) {
        engine.send_all(&self.announcement());
    }

    fn announcement(&self) -> SyncMessage {
        let all = self.kept.values().map(|kept| (kept.offer.height, kept.offer.id));
        SyncMessage::Snapshots(all.collect())
    }

    /// Tells a peer which snapshots are here, or that none is. A node that is joining says nothing,
    /// since it does not know yet.
    pub(super) fn on_opened(&self, engine: &mut Engine, peer: PeerId) {
        if !self.is_joining() {
            engine.send(peer, &self.announcement());
        }
    }

    pub(super) fn on_closed(&mut self, peer: PeerId) {
        if let Some(joining) = &mut self.joining {
            joining.on_closed(peer);
        }
    }

    /// The snapshot that has this number as a collection.
    pub(super) fn id_of(&self, number: CollectionNumber) -> Option<SnapshotId> {
        let fetched = self.joining.as_ref().and_then(Joining::fetch);
        let fetched = fetched.map(|fetch| (fetch.number, fetch.offer.id));
        let mut all = self.kept.values().map(|kept| (kept.number, kept.offer.id)).chain(fetched);
        all.find(|(known, _)| *known == number).map(|(_, id)| id)
    }

    /// The frontier that proves the chunks of a collection which is being fetched.
    pub(super) fn frontier(&self, number: CollectionNumber) -> Option<Arc<Frontier>> {
        let fetch = self.joining.as_ref()?.fetch().filter(|fetch| fetch.number == number)?;
        Some(Arc::clone(&fetch.offer.frontier))
    }

    /// A missing chunk has arrived.
    pub(super) fn on_chunk(&mut self, engine: &Engine, id: ChunkId, bytes: u64) {
        if let Some(joining) = &mut self.joining {
            joining.on_chunk(engine.now, id, bytes);
        }
    }

    /// A chunk is damaged or was refused by the disk, so it is fetched again. `was_here`: whether
    /// it counted as here in an open segment.
    pub(super) fn on_lost(&mut self, engine: &Engine, id: ChunkId, was_here: bool) {
        let fetch = self.joining.as_mut().and_then(Joining::fetch_mut);
        if let Some(fetch) = fetch.filter(|fetch| fetch.number == id.segment.collection) {
            fetch.on_lost(engine, id, was_here);
        }
    }

    /// The chain has taken over the snapshot, which is offered to peers from now on.
    pub(super) fn on_loaded(
        &mut self,
        engine: &mut Engine,
        history: &mut history::Kind,
        id: SnapshotId,
        loaded: &History,
    ) {
        let is_it = |joining: &mut Joining| match &joining.step {
            Step::Loading(fetch) => fetch.offer.id == id,
            _ => false,
        };
        let Some(Joining { step: Step::Loading(fetch), .. }) = self.joining.take_if(is_it) else {
            return;
        };
        history.on_loaded(engine, loaded);
        self.keep(engine, Kept { offer: fetch.offer, number: fetch.number });
    }

    /// Ends joining, if it goes on. Peers hear that no snapshot is here.
    pub(super) fn give_up(&mut self, engine: &mut Engine, history: &mut history::Kind) {
        if let Some(mut joining) = self.joining.take() {
            joining.drop_fetch(engine);
            history.go_on();
            self.announce(engine);
        }
    }

    /// Moves joining on. If it fails, history goes on without a snapshot.
    pub(super) fn settle(&mut self, engine: &mut Engine, history: &mut history::Kind) {
        let Some(mut joining) = self.joining.take() else { return };
        match joining.settle(self, engine, history) {
            Ok(()) => self.joining = Some(joining),
            Err(failure) => {
                joining.drop_fetch(engine);
                if !failure.is_fatal() {
                    history.go_on();
                    self.announce(engine);
                }
                engine.push(Effect::JoinFailed(failure));
            }
        }
    }

    pub(super) fn deadline(&self, engine: &Engine) -> Option<Duration> {
        self.joining.as_ref()?.deadline(engine.now)
    }

    /// For display: why no chunk of a snapshot arrives, if none has arrived for this time.
    pub(super) fn reason(&self, engine: &Engine, quiet: Duration) -> Option<String> {
        let joining = self.joining.as_ref()?;
        let paused = joining.fetch().and_then(|fetch| engine.paused_until(fetch.number));
        let reason = paused.map(|_| "the disk refused to store a chunk, so fetching pauses");
        reason.map(str::to_owned).or_else(|| joining.reason(engine.now, quiet))
    }

    /// For display: height and progress of the snapshot that is being fetched or loaded.
    pub(super) fn progress(&self) -> Option<(Height, &Progress)> {
        let fetch = self.joining.as_ref()?.fetch()?;
        Some((fetch.offer.height, &fetch.progress))
    }
}

#[cfg(test)]
mod tests;
