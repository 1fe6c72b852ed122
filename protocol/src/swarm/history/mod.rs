//! The kind of collection that is the chain's history. It knows the manifest, the heads of
//! segments, and how complete segments get into the chain. The engine knows chunks only.

pub(super) mod answers;
mod assembly;
mod manifest;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ledger::chain::Chain;
use ledger::hash::Hash;
use ledger::history::{History, HistoryRules, SegmentDescriptor, SegmentHead};
use ledger::units::{Height, SegmentIndex};

use super::classes::Class;
use super::effect::Effect;
use super::engine::{Collection, Engine};
use super::message::{CollectionId, CollectionNumber, SyncMessage};
use super::progress::Progress;
use super::ranges::{SegmentRange, SegmentRanges};
use super::segments::Segment;
use crate::ids::PeerId;
use crate::message::{BEHIND_FAR, CertifiedHeader};
use crate::plan::FetchPlan;
pub(super) use assembly::Step;
use manifest::Source;

/// This node's number for history, which it opens first.
pub const HISTORY: CollectionNumber = CollectionNumber(0);

/// Fetches and serves history.
pub(super) struct Kind {
    chain: Arc<Chain>,
    rules: HistoryRules,
    pub(super) tip: Height,
    /// All segments before this one are applied.
    pub(super) sealed: SegmentIndex,
    pub(super) source: Source,
    /// The open segments, with the hashes of their chunks.
    begun: BTreeMap<SegmentIndex, SegmentHead>,
    steps: BTreeMap<SegmentIndex, Step>,
    /// The last final block of each peer with a link, as the peer claims.
    heights: BTreeMap<PeerId, Height>,
    pub(super) plan: FetchPlan,
    /// The plan announced last. `None` if the plan must be announced even if it is the same as
    /// before.
    told_plan: Option<FetchPlan>,
    pub(super) progress: Progress,
    /// Whether a snapshot is being fetched. Then the manifest is fetched, but no segment.
    pub(super) is_held: bool,
}

impl Kind {
    /// Opens history in the engine, and continues from the chain and the files of an earlier run.
    pub(super) fn new(
        engine: &mut Engine,
        chain: Arc<Chain>,
        history: &History,
        kept: SegmentRanges,
        staged: Vec<(SegmentHead, Vec<bool>)>,
        manifest: Option<Vec<u8>>,
    ) -> Self {
        let rules = *history.rules();
        let number = engine.open(Collection {
            id: CollectionId(chain.id().0),
            class: Class::History,
            chunk_bytes: rules.chunk_bytes,
            chunks_max: rules.segment_chunks_max(),
            whole: kept,
            is_announced: true,
            paused_until: None,
        });
        assert!(number == HISTORY, "history is the first collection, and got number {}", number.0);
        let mut kind = Self {
            chain,
            rules,
            tip: history.tip(),
            sealed: SegmentIndex(history.segments()),
            source: Source::new(history),
            begun: BTreeMap::new(),
            steps: BTreeMap::new(),
            heights: BTreeMap::new(),
            plan: FetchPlan::Blocks,
            told_plan: None,
            progress: Progress::default(),
            is_held: false,
        };
        kind.restore(engine, staged, manifest);
        kind
    }

    pub(super) fn on_opened(&mut self, engine: &mut Engine, peer: PeerId) {
        self.heights.insert(peer, Height(0));
        engine.send(peer, &SyncMessage::Height(self.tip));
    }

    pub(super) fn on_closed(&mut self, peer: PeerId) {
        self.heights.remove(&peer);
        self.source.on_closed(peer);
    }

    pub(super) fn on_height(&mut self, from: PeerId, height: Height) {
        if let Some(known) = self.heights.get_mut(&from) {
            *known = height.max(*known);
        }
    }

    /// The last final block of a peer, as it claims.
    pub(super) fn height(&self, peer: PeerId) -> Height {
        self.heights.get(&peer).copied().unwrap_or(Height(0))
    }

    pub(super) fn on_certified(&mut self, certified: CertifiedHeader) {
        self.source.on_certified(certified);
        // The caller waits for a plan, even if the plan has not changed.
        self.told_plan = None;
    }

    /// The chain has grown. Returns the segments that it has sealed.
    pub(super) fn on_tip(
        &mut self,
        engine: &mut Engine,
        height: Height,
        sealed: &[SegmentDescriptor],
    ) -> Option<SegmentRange> {
        self.tip = height;
        for descriptor in sealed {
            self.source.on_sealed(descriptor);
        }
        let index = |descriptor: &SegmentDescriptor| SegmentIndex(descriptor.index);
        let (first, last) = (sealed.first().map(index)?, sealed.last().map(index)?);
        let range = SegmentRange { first, last };
        self.sealed = SegmentIndex(last.0.saturating_add(1));
        engine.on_whole(HISTORY, range);
        engine.send_all(&SyncMessage::Height(height));
        Some(range)
    }

    /// A missing chunk has arrived.
    pub(super) fn on_chunk(&mut self, engine: &Engine, bytes: u64) {
        self.progress.on_chunk(bytes, engine.now);
        if engine.segments().is_complete(HISTORY) {
            self.progress.fetched_at = Some(engine.now);
        }
    }

    /// Chunks that were here are fetched again.
    pub(super) fn on_lost(&mut self, chunks: u64) {
        (0..chunks).for_each(|_| self.progress.on_lost(self.rules.chunk_bytes));
    }

    /// The hash of a chunk of an open segment.
    pub(super) fn chunk_hash(&self, segment: SegmentIndex, chunk: u32) -> Option<Hash> {
        self.begun.get(&segment)?.chunks.get(chunk as usize).copied()
    }

    /// The chain has taken over a snapshot, and goes on from there. No segment before it is here.
    pub(super) fn on_loaded(&mut self, engine: &mut Engine, history: &History) {
        (self.tip, self.sealed) = (history.tip(), SegmentIndex(history.segments()));
        self.source.forget_below(self.sealed);
        self.progress = Progress::default();
        let ahead: Vec<_> = self.source.manifest().descriptors().copied().collect();
        self.progress.extend(&ahead, &self.rules);
        engine.send_all(&SyncMessage::Height(self.tip));
        self.go_on();
    }

    /// Segments are fetched from now on, and the caller hears how.
    pub(super) fn go_on(&mut self) {
        (self.is_held, self.told_plan) = (false, None);
    }

    /// Asks for what is missing besides chunks, and moves complete segments on.
    pub(super) fn settle(&mut self, engine: &mut Engine) {
        self.release(engine);
        self.seek_manifest(engine);
        self.assemble(engine);
        self.apply(engine);
        self.announce_plan(engine);
    }

    pub(super) fn deadline(&self, now: Duration) -> Option<Duration> {
        self.source.deadline(now)
    }

    /// Whether this node is so far behind that it fetches segments.
    pub(super) fn is_behind(&self) -> bool {
        self.source.target_height().0.saturating_sub(self.tip.0) > BEHIND_FAR
    }

    /// Whether all blocks of a segment are verified.
    pub(super) fn is_assembled(&self, segment: SegmentIndex) -> bool {
        matches!(self.steps.get(&segment), Some(Step::Assembled | Step::Applying))
    }

    pub(super) const fn chunk_bytes(&self) -> u64 {
        self.rules.chunk_bytes
    }

    /// Begins to fetch a segment whose head is proved.
    fn begin(&mut self, engine: &mut Engine, head: SegmentHead, here: &[bool]) {
        let index = SegmentIndex(head.descriptor.index);
        let chunks = u32::try_from(head.chunks.len()).unwrap_or(u32::MAX);
        let id = HISTORY.segment(index);
        engine.add_segment(Segment::new(id, head.descriptor.bytes, chunks, here));
        self.begun.insert(index, head);
    }

    fn announce_plan(&mut self, engine: &mut Engine) {
        let Some(plan) = self.current_plan().filter(|_| !self.is_held) else { return };
        self.plan = plan;
        if self.told_plan != Some(plan) {
            self.told_plan = Some(plan);
            engine.push(Effect::Plan(plan));
        }
    }
}
