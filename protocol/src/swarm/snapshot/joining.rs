//! How a chain at height 0 begins with a snapshot: choose one, collect its frontier, fetch its
//! chunks, and have it loaded.

use std::time::Duration;

use ledger::hash::{BlockHash, SnapshotId};
use ledger::merkle::MerkleProof;
use ledger::units::Height;

use super::Kind;
use super::checkpoint::Checkpoint;
use super::fetch::{Fetch, GROWTH, chunk_id};
use super::frontier::FrontierFetch;
use super::offers::{Announced, Offers};
use crate::ids::PeerId;
use crate::offence::Offence;
use crate::swarm::effect::Effect;
use crate::swarm::engine::Engine;
use crate::swarm::history;
use crate::swarm::input::{Join, SnapshotOffer};
use crate::swarm::join_failure::JoinFailure;
use crate::swarm::message::{ChunkId, FrontierPage, SNAPSHOTS_MAX, SyncMessage};
use crate::swarm::meter::bytes_in;
use crate::swarm::ranges::SegmentRanges;

/// After this time without a proved manifest, joining by a snapshot fails.
const MANIFEST_PATIENCE: Duration = Duration::from_secs(60);
/// After this time without a snapshot to try, joining fails. Peers announce their snapshots when
/// the link opens.
const OFFER_PATIENCE: Duration = Duration::from_secs(5);
/// The same, if every peer has said that it has none. It is not zero, so that the first peer is not
/// believed alone if others connect soon.
const NONE_PATIENCE: Duration = Duration::from_secs(1);
/// A snapshot that has not grown for this time is left for the next one. It has grown once
/// [`GROWTH`] has come.
const STALLED: Duration = Duration::from_secs(10);
/// Delay until peers are asked again, once none of them had an answer.
const RETRY: Duration = Duration::from_millis(750);

/// The step at which joining is.
#[derive(Debug)]
pub(super) enum Step {
    /// A snapshot to try is awaited, since this time.
    Choosing(Duration),
    /// The frontier of a snapshot is being collected.
    Frontier(FrontierFetch),
    /// Chunks are being fetched.
    Chunks(Fetch),
    /// All chunks are here, and the driver loads them.
    Loading(Fetch),
}

/// A chain that is to begin with a snapshot.
#[derive(Debug)]
pub(super) struct Joining {
    /// When joining began, and since a manifest is proved, when that was.
    began_at: Duration,
    /// Whether a manifest is proved.
    is_proved: bool,
    /// The operator's checkpoint; `None` if there is none or it has been checked.
    checkpoint: Option<Checkpoint>,
    offers: Offers,
    pub(super) step: Step,
}

impl Joining {
    pub(super) fn new(join: Join, now: Duration) -> Self {
        Self {
            began_at: now,
            is_proved: false,
            checkpoint: join.checkpoint.map(Checkpoint::new),
            offers: Offers::default(),
            step: Step::Choosing(now),
        }
    }

    /// The snapshot that is being fetched or loaded.
    pub(super) const fn fetch(&self) -> Option<&Fetch> {
        match &self.step {
            Step::Chunks(fetch) | Step::Loading(fetch) => Some(fetch),
            Step::Choosing(_) | Step::Frontier(_) => None,
        }
    }

    pub(super) const fn fetch_mut(&mut self) -> Option<&mut Fetch> {
        match &mut self.step {
            Step::Chunks(fetch) | Step::Loading(fetch) => Some(fetch),
            Step::Choosing(_) | Step::Frontier(_) => None,
        }
    }

    pub(super) fn on_closed(&mut self, peer: PeerId) {
        self.offers.on_closed(peer);
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.on_closed(peer);
        }
        if let Step::Frontier(fetch) = &mut self.step
            && fetch.request.take_if(|request| request.peer == peer).is_some()
        {
            fetch.deadline = Duration::ZERO;
        }
    }

    pub(super) fn on_chunk(&mut self, now: Duration, id: ChunkId, bytes: u64) {
        if let Some(fetch) = self.fetch_mut()
            && fetch.number == id.segment.collection
        {
            fetch.on_chunk(now, bytes);
        }
    }

    /// Does what is due now.
    ///
    /// # Errors
    /// The chain cannot begin with a snapshot.
    pub(super) fn settle(
        &mut self,
        kind: &Kind,
        engine: &mut Engine,
        history: &history::Kind,
    ) -> Result<(), JoinFailure> {
        let now = engine.now;
        if !self.is_proved {
            if history.is_near() {
                return Err(JoinFailure::Near);
            }
            if history.source.proof().is_none() {
                let end = self.began_at.saturating_add(MANIFEST_PATIENCE);
                return if now < end { Ok(()) } else { Err(JoinFailure::NoManifest) };
            }
            (self.is_proved, self.began_at, self.step) = (true, now, Step::Choosing(now));
        }
        if let Some(checkpoint) = &mut self.checkpoint
            && checkpoint.settle(engine, history, &mut self.offers)?
        {
            self.checkpoint = None;
        }
        if let Step::Chunks(_) = self.step {
            self.advance(kind, engine, history);
        }
        if let Step::Frontier(fetch) = &self.step
            && fetch.deadline <= now
        {
            self.ask(kind, engine, history);
        }
        let Step::Choosing(since) = self.step else { return Ok(()) };
        if self.offers.is_over(now.saturating_sub(self.began_at)) {
            return Err(JoinFailure::AllLeft);
        }
        if let Some(snapshot) = self.offers.best(history, &kind.rules) {
            self.offers.on_chosen(snapshot);
            let holders = self.offers.holders(snapshot).collect();
            self.step = Step::Frontier(FrontierFetch::new(snapshot, holders, now));
            self.ask(kind, engine, history);
        } else if since.saturating_add(self.patience(kind, engine, history)) <= now {
            return Err(match self.offers.was_any_left() {
                true => JoinFailure::AllLeft,
                false => JoinFailure::NotOffered,
            });
        }
        Ok(())
    }

    /// How long a snapshot to try is awaited.
    fn patience(&self, kind: &Kind, engine: &Engine, history: &history::Kind) -> Duration {
        let mut segments = history.source.manifest().descriptors();
        if !segments.any(|one| kind.rules.is_candidate(one.index)) {
            // The chain is so short that nobody has a snapshot of it.
            return Duration::ZERO;
        }
        match self.offers.are_none(engine.peers()) {
            true => NONE_PATIENCE,
            false => OFFER_PATIENCE,
        }
    }

    pub(super) fn deadline(&self, now: Duration) -> Option<Duration> {
        let step = match &self.step {
            _ if !self.is_proved => self.began_at.saturating_add(MANIFEST_PATIENCE),
            Step::Choosing(since) => match since.saturating_add(NONE_PATIENCE) {
                soon if soon > now => soon,
                _ => since.saturating_add(OFFER_PATIENCE),
            },
            Step::Frontier(fetch) => fetch.deadline,
            Step::Chunks(fetch) => fetch.grown_at.saturating_add(STALLED),
            Step::Loading(_) => Duration::MAX,
        };
        let checkpoint = self.checkpoint.as_ref().and_then(Checkpoint::deadline);
        let all = [Some(step).filter(|at| *at < Duration::MAX), checkpoint];
        // What is due now and was not done waits for an input.
        all.into_iter().flatten().filter(|at| *at > now).min()
    }

    /// Why no chunk arrives, if none has arrived for this time.
    pub(super) fn reason(&self, now: Duration, quiet: Duration) -> Option<String> {
        match &self.step {
            Step::Choosing(_) => Some("no connected peer has offered a snapshot yet".to_owned()),
            Step::Frontier(fetch) => Some(format!(
                "no connected peer has sent the frontier of the snapshot at height {} yet",
                fetch.snapshot.0
            )),
            Step::Chunks(fetch) if fetch.grown_at.saturating_add(quiet) <= now => Some(format!(
                "the peers that have the snapshot at height {} do not send the missing chunks",
                fetch.offer.height
            )),
            Step::Chunks(_) | Step::Loading(_) => None,
        }
    }

    /// Requests the frontier of the chosen snapshot from its beginning, from the next holder. Once
    /// all holders were asked, the snapshot is left if another one is better.
    fn ask(&mut self, kind: &Kind, engine: &mut Engine, history: &history::Kind) {
        let (now, rules) = (engine.now, &kind.rules);
        let Step::Frontier(fetch) = &mut self.step else { return };
        let snapshot = fetch.snapshot;
        fetch.request = None;
        let mut next = next_holder(&self.offers, fetch);
        if next.is_none() && now < fetch.since.saturating_add(STALLED) {
            // Those that refused may have time again.
            fetch.unasked.append(&mut fetch.refused);
            next = next_holder(&self.offers, fetch);
        }
        if next.is_none() {
            self.offers.on_stalled(snapshot);
            let is_better = self.offers.best(history, rules).is_some_and(|best| best != snapshot);
            if is_better || self.offers.is_used_up(snapshot) {
                return self.leave(engine);
            }
            let holders = self.offers.holders(snapshot).collect();
            *fetch = FrontierFetch::new(snapshot, holders, now);
            next = next_holder(&self.offers, fetch);
        }
        // Nobody announces it any more.
        let Some(peer) = next else { return self.leave(engine) };
        self.offers.note_asked(peer);
        fetch.on_asked(peer, self.offers.tries(snapshot), rules, now);
        engine.send(peer, &SyncMessage::GetFrontier(snapshot.1, 0));
    }

    /// Leaves the current snapshot, and chooses again.
    fn leave(&mut self, engine: &mut Engine) {
        self.offers.on_left();
        self.drop_fetch(engine);
        self.step = Step::Choosing(engine.now);
    }

    /// Closes the collection that is being fetched, and has its file removed.
    pub(super) fn drop_fetch(&mut self, engine: &mut Engine) {
        if let Some(Fetch { offer, number, .. }) = self.fetch() {
            engine.close(*number);
            engine.push(Effect::DropSnapshot(offer.id));
        }
    }

    /// Opens the next segments, and leaves a snapshot that does not grow if another one is better.
    /// Loads it when all chunks are here.
    fn advance(&mut self, kind: &Kind, engine: &mut Engine, history: &history::Kind) {
        let Step::Chunks(fetch) = &mut self.step else { return };
        let (now, snapshot) = (engine.now, fetch.snapshot());
        if fetch.advance(engine) {
            // The checkpoint comes first: the chain must not begin with a state of another chain.
            fetch.on_grown(now);
            let height = fetch.offer.height;
            if self.checkpoint.as_ref().is_none_or(|checkpoint| checkpoint.allows(height)) {
                self.load(engine, history);
            }
            return;
        }
        if engine.paused_until(fetch.number).is_some() {
            // No other snapshot would be easier to store.
            fetch.on_grown(now);
        }
        if fetch.grown_at.saturating_add(STALLED) > now {
            return;
        }
        let has_come = fetch.has_come();
        fetch.on_grown(now);
        if has_come && !self.offers.has_other(snapshot, history, &kind.rules) {
            // Slow is better than nothing.
            return;
        }
        self.offers.on_stalled(snapshot);
        // Without another one, a snapshot is left only when it has stalled too often: its peers may
        // come back.
        let best = self.offers.best(history, &kind.rules);
        let is_over = self.offers.is_used_up(snapshot) && !has_come;
        if is_over || best.is_some_and(|best| best != snapshot) {
            self.leave(engine);
        }
    }

    fn load(&mut self, engine: &mut Engine, history: &history::Kind) {
        let step = std::mem::replace(&mut self.step, Step::Choosing(engine.now));
        let Step::Chunks(fetch) = step else { return };
        let SnapshotOffer { id, height, .. } = fetch.offer;
        let all = history.source.manifest().descriptors();
        let descriptors = all.take_while(|one| one.last <= height).copied().collect();
        engine.push(Effect::LoadSnapshot { id, descriptors });
        self.step = Step::Loading(fetch);
    }
}

/// How many bytes make a snapshot grow: fewer than [`GROWTH`] if the operator limits what this node
/// downloads.
fn growth(engine: &Engine) -> u64 {
    let limit = engine.downloads.rate_max().map(|rate| bytes_in(rate, STALLED) / 4);
    limit.map_or(GROWTH, |limit| limit.min(GROWTH))
}

/// The next holder to ask: one that was not asked yet.
fn next_holder(offers: &Offers, fetch: &FrontierFetch) -> Option<PeerId> {
    let holders = offers.holders(fetch.snapshot);
    offers.least_asked(holders.filter(|peer| fetch.unasked.contains(peer)))
}

impl Kind {
    pub(in crate::swarm) fn on_snapshots(
        &mut self,
        engine: &mut Engine,
        from: PeerId,
        snapshots: Vec<Announced>,
    ) {
        if snapshots.len() > SNAPSHOTS_MAX {
            return engine.ban(from, Offence::AbsurdHoldings);
        }
        if let Some(joining) = &mut self.joining {
            joining.offers.on_announced(from, snapshots);
        }
    }

    pub(in crate::swarm) fn on_frontier(
        &mut self,
        engine: &mut Engine,
        history: &history::Kind,
        from: PeerId,
        (id, page): (SnapshotId, u32),
        answer: Option<FrontierPage>,
    ) {
        let Some(joining) = &mut self.joining else { return };
        let Step::Frontier(fetch) = &mut joining.step else { return };
        let (height, chosen) = fetch.snapshot;
        let Some(request) = &mut fetch.request else { return };
        if (request.peer, chosen, request.page) != (from, id, page) {
            // This answers a request that was given up.
            return;
        }
        let Some(answer) = answer else {
            fetch.request = None;
            fetch.refused.insert(from);
            let is_next = next_holder(&joining.offers, fetch).is_some();
            let wait = if is_next { Duration::ZERO } else { RETRY };
            fetch.deadline = engine.now.saturating_add(wait);
            return;
        };
        joining.offers.note_answered(from);
        // The height was that of a proved segment's last block when the snapshot was chosen.
        let Some(segment) = history.source.manifest().segment_of(height) else { return };
        match request.on_page(answer, &self.chain, &self.rules, segment, engine.now) {
            Ok(None) => {
                fetch.deadline = request.deadline;
                engine.send(from, &SyncMessage::GetFrontier(id, request.page));
            }
            Ok(Some(offer)) => {
                let number = self.open(engine, id, SegmentRanges::default());
                engine.push(Effect::BeginSnapshot(offer.clone()));
                let fetch = Fetch::new(offer, number, growth(engine), engine.now);
                if let Some(joining) = &mut self.joining {
                    joining.step = Step::Chunks(fetch);
                }
            }
            Err(offence) => {
                joining.step = Step::Choosing(engine.now);
                engine.ban(from, offence);
            }
        }
    }

    pub(in crate::swarm) fn on_block_proof(
        &mut self,
        engine: &mut Engine,
        history: &history::Kind,
        from: PeerId,
        height: Height,
        proof: Option<(BlockHash, MerkleProof)>,
    ) {
        let Some(joining) = &mut self.joining else { return };
        let Some(checkpoint) = &mut joining.checkpoint else { return };
        match checkpoint.on_proof(engine, history, from, height, proof) {
            Ok(true) => joining.checkpoint = None,
            Ok(false) => {}
            Err(failure) => {
                joining.drop_fetch(engine);
                self.joining = None;
                engine.push(Effect::JoinFailed(failure));
            }
        }
    }

    /// The snapshot could not be loaded.
    pub(in crate::swarm) fn on_load_failed(
        &mut self,
        engine: &mut Engine,
        id: SnapshotId,
        damaged: &[u64],
    ) {
        let Some(joining) = &mut self.joining else { return };
        if joining.fetch().is_none_or(|fetch| fetch.offer.id != id) {
            return;
        }
        let step = std::mem::replace(&mut joining.step, Step::Choosing(engine.now));
        let (Step::Loading(mut fetch) | Step::Chunks(mut fetch)) = step else { return };
        let snapshot = fetch.snapshot();
        joining.offers.on_stalled(snapshot);
        for chunk in damaged {
            let name = chunk_id(fetch.number, *chunk);
            let lost = engine.on_damaged(name.segment, &[name.chunk]);
            fetch.on_lost(engine, name, lost > 0);
        }
        fetch.on_grown(engine.now);
        joining.step = Step::Chunks(fetch);
        if damaged.is_empty() || joining.offers.is_used_up(snapshot) {
            joining.leave(engine);
        }
    }
}
