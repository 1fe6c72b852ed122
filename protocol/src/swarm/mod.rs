//! The swarm machine fetches history as chunks from many peers at once, checks each chunk, offers
//! it to others, and applies complete segments in order.
//!
//! [`Swarm::handle`] is the only entry point: it takes the time and an input and returns effects. A
//! certified header proves the manifest, and the manifest proves the hash of each chunk, so a wrong
//! chunk convicts its sender. Sync messages travel over links of their own ([`message`]). The
//! blocks come out as [`Effect::Apply`] and go through the same commit as live ones. Protocol:
//! `docs/protocol/sync.md`.
//!
//! These modules know chunks only:
//! - `segments` knows which chunks are here, and `census` which peer has which chunk.
//! - `downloads` decides which chunk is requested from whom. `supplier` follows one peer that
//!   sends.
//! - `uploads` decides which chunk is sent to whom.
//! - `meter` measures and limits rates.
//!
//! The module `history` knows of which segments and blocks the chunks are a part. The module
//! `report` says what sync is doing.

pub mod message;

mod bits;
mod census;
mod downloads;
mod effect;
mod history;
mod input;

mod meter;
mod report;
mod segments;
mod supplier;
mod uploads;

pub use bits::Bits;
pub use effect::Effect;
pub use input::{Input, Rates, Setup};
pub use report::{PeerReport, SegmentReport, Stage, SyncReport};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ledger::chain::Chain;
use ledger::codec;
use ledger::hash::Hash;
use ledger::history::{HistoryRules, SegmentDescriptor};
use ledger::units::{Height, SegmentIndex};

use crate::ids::PeerId;
use crate::offence::Offence;
use crate::plan::FetchPlan;
use census::{Absurd, Census};
use downloads::{Arrival, Downloads};
use history::answers::{
    ANSWERED_ALL, ANSWERED_ALL_AT_ONCE, ANSWERED_EACH, ANSWERED_EACH_AT_ONCE, HEAD_COST,
};
use history::assembly::Step;
use history::manifest::Source;
use message::{ChunkId, Holdings, SyncMessage, Update};
use meter::{Allowance, Limit};
use segments::STAGED_SEGMENTS_MAX;
use uploads::{Misuse, Uploads};

/// Announcements to peers that are not waiting for us are batched over this interval.
const TELL_EVERY: Duration = Duration::from_millis(50);
/// Interval at which every peer may be given more requests, while chunks are missing.
const REVIEW: Duration = Duration::from_millis(100);

/// Announcements to send to a peer, and what its requests may still cost.
#[derive(Debug)]
struct Link {
    have: Vec<ChunkId>,
    answers: Allowance,
}

impl Default for Link {
    fn default() -> Self {
        Self { have: Vec::new(), answers: Allowance::new(ANSWERED_EACH, ANSWERED_EACH_AT_ONCE) }
    }
}

/// The part of a node that fetches and serves history.
pub struct Swarm {
    now: Duration,
    chain: Arc<Chain>,
    rules: HistoryRules,
    nonce: u64,
    tip: Height,
    /// All segments before this one are applied.
    sealed: SegmentIndex,
    source: Source,
    steps: BTreeMap<SegmentIndex, Step>,
    census: Census,
    downloads: Downloads,
    uploads: Uploads,
    links: BTreeMap<PeerId, Link>,
    /// What the requests of all peers together may still cost.
    answers: Allowance,
    /// Peers that may have room for requests.
    unfilled: BTreeSet<PeerId>,
    /// Peers that get requests and updates at once, not in the next batch.
    urgent: BTreeSet<PeerId>,
    tell_at: Duration,
    review_at: Duration,
    plan: FetchPlan,
    /// The plan announced last. `None` if the plan must be announced even if it is the same as
    /// before.
    told_plan: Option<FetchPlan>,
    progress: report::Progress,
    bans: u64,
    effects: Vec<Effect>,
}

impl Swarm {
    /// A machine that continues from the chain and from the files of an earlier run.
    #[must_use]
    pub fn new(setup: Setup<'_>, now: Duration) -> (Self, Vec<Effect>) {
        let Setup { chain, history, staged, manifest, nonce, rates } = setup;
        let rules = *history.rules();
        let chunk_bytes = rules.chunk_bytes;
        // The last block of a segment may exceed the size at which segments close.
        let bytes_max = rules.segment_bytes_max();
        let chunks_max = u32::try_from(bytes_max.div_ceil(chunk_bytes)).unwrap_or(u32::MAX);
        let mut sync = Self {
            now,
            rules,
            nonce,
            tip: history.tip(),
            sealed: SegmentIndex(history.segments()),
            source: Source::new(history),
            steps: BTreeMap::new(),
            census: Census::new(chunks_max),
            downloads: Downloads::new(chunk_bytes, nonce, Limit::new(rates.download)),
            uploads: Uploads::new(chunk_bytes, nonce, Limit::new(rates.upload)),
            links: BTreeMap::new(),
            answers: Allowance::new(ANSWERED_ALL, ANSWERED_ALL_AT_ONCE),
            unfilled: BTreeSet::new(),
            urgent: BTreeSet::new(),
            tell_at: now,
            review_at: now,
            plan: FetchPlan::Blocks,
            told_plan: None,
            progress: report::Progress::default(),
            bans: 0,
            effects: Vec::new(),
            chain,
        };
        sync.restore(staged, manifest);
        sync.settle();
        let effects = std::mem::take(&mut sync.effects);
        (sync, effects)
    }

    /// Takes in one input and returns its effects.
    pub fn handle(&mut self, now: Duration, input: Input) -> Vec<Effect> {
        self.now = now;
        match input {
            Input::Time => {}
            Input::Opened(peer) => self.on_opened(peer),
            Input::Closed(peer) => self.on_closed(peer),
            Input::Message(peer, bytes) => self.on_message(peer, &bytes),
            Input::Chunk { from, id, hash, bytes } => self.on_chunk(from, id, hash, bytes),
            Input::Written(peer) => self.uploads.on_written(peer, self.now),
            Input::Unsent(peer, id) => self.on_unsent(peer, id),
            Input::Impossible(peer, id) => {
                self.ban(peer, Offence::ImpossibleWant { segment: id.segment, chunk: id.chunk });
            }
            Input::Certified(certified) => {
                self.source.on_certified(certified);
                // The caller waits for a plan, even if the plan has not changed.
                self.told_plan = None;
            }
            Input::Tip(height, sealed) => self.on_tip(height, &sealed),
            Input::Assembled(index, damaged) => self.on_assembled(index, &damaged),
        }
        self.settle();
        std::mem::take(&mut self.effects)
    }

    /// When [`Input::Time`] is due at the latest. `None` while nothing is pending.
    #[must_use]
    pub fn deadline(&mut self) -> Option<Duration> {
        let has_news =
            !self.unfilled.is_empty() || self.links.values().any(|link| !link.have.is_empty());
        [
            has_news.then_some(self.tell_at),
            self.is_fetching().then_some(self.review_at),
            self.downloads.deadline(self.now),
            self.uploads.deadline(self.now),
            self.source.deadline(self.now),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn settle(&mut self) {
        self.release();
        self.seek_manifest();
        self.assemble();
        self.apply();
        self.announce_plan();
        self.fill();
        self.tell();
        self.serve();
    }

    fn on_opened(&mut self, peer: PeerId) {
        self.on_closed(peer);
        self.links.insert(peer, Link::default());
        self.downloads.on_opened(peer);
        self.uploads.on_opened(peer);
        let open = self.downloads.segments().iter();
        let open = open.filter(|segment| segment.index() >= self.sealed);
        let partial = open.filter(|segment| segment.missing() < segment.chunks());
        let partial = partial.map(|segment| (segment.index(), segment.here().clone()));
        let holdings = Holdings {
            height: self.tip,
            pruned_below: SegmentIndex(0),
            sealed: self.sealed,
            partial: partial.take(STAGED_SEGMENTS_MAX).collect(),
            nonce: self.nonce,
        };
        self.send(peer, &SyncMessage::Holdings(holdings));
    }

    fn on_closed(&mut self, peer: PeerId) {
        self.links.remove(&peer);
        self.census.forget(peer);
        self.downloads.on_closed(peer);
        self.uploads.on_closed(peer);
        self.source.on_closed(peer);
        self.unfilled.remove(&peer);
        self.urgent.remove(&peer);
    }

    fn on_message(&mut self, from: PeerId, bytes: &[u8]) {
        if !self.links.contains_key(&from) {
            return;
        }
        let message = match SyncMessage::decode(bytes) {
            Ok(message) => message,
            Err(error) => return self.ban(from, Offence::SyncMessage(error)),
        };
        match message {
            SyncMessage::Holdings(_) if self.census.get(from).is_some() => {
                self.ban(from, Offence::SecondHello);
            }
            SyncMessage::Holdings(holdings) => {
                // The peer's chunks are requested at once, not in the next batch.
                self.urgent.insert(from);
                let result = self.census.on_holdings(from, holdings);
                self.on_census(from, result);
            }
            SyncMessage::Update(update) => self.on_update(from, &update),
            SyncMessage::Sealed(sealed, height) => {
                self.census.on_sealed(from, sealed, height);
                self.uploads.on_sealed(from, sealed);
                self.unfilled.insert(from);
            }
            SyncMessage::Busy(milliseconds) => {
                let wait = Duration::from_millis(u64::from(milliseconds.min(60_000)));
                // Other peers take over its requests at the next review.
                self.downloads.on_busy(from, self.now.saturating_add(wait));
            }
            // Refused for now: the peer may ask another node, or ask again.
            SyncMessage::GetManifest(height, index)
                if !self.may_ask(from, self.page_cost(index)) =>
            {
                self.send(from, &SyncMessage::Manifest(height, index, None));
            }
            SyncMessage::GetHead(index) if !self.may_ask(from, HEAD_COST) => {
                self.send(from, &SyncMessage::Head(index, None));
            }
            SyncMessage::GetManifest(height, index) => self.on_get_manifest(from, height, index),
            SyncMessage::Manifest(height, index, descriptors) => {
                self.on_manifest(from, height, index, descriptors);
            }
            SyncMessage::GetHead(index) => self.on_get_head(from, index),
            SyncMessage::Head(index, head) => self.on_head(from, index, head),
        }
    }

    fn on_census(&mut self, from: PeerId, result: Result<(), Absurd>) {
        match result {
            Ok(()) => drop(self.unfilled.insert(from)),
            Err(Absurd) => self.ban(from, Offence::AbsurdHoldings),
        }
    }

    fn on_update(&mut self, from: PeerId, update: &Update) {
        let (sealed, segments) = (self.sealed, self.downloads.segments());
        let has = |id: ChunkId| id.segment < sealed || segments.has(id);
        match self.uploads.on_update(from, update, has, self.now) {
            Ok(()) => {}
            Err(Misuse::Wants) => return self.ban(from, Offence::TooManyWants),
            Err(Misuse::Received) => return self.ban(from, Offence::FalseReceipt),
        }
        for id in &update.have {
            if let Err(absurd) = self.census.on_have(from, *id) {
                return self.on_census(from, Err(absurd));
            }
            self.uploads.on_have(from, *id, self.now);
            self.unfilled.extend(self.downloads.on_have(from, *id, &self.census));
        }
    }

    fn on_chunk(&mut self, from: PeerId, id: ChunkId, hash: Hash, bytes: u64) {
        let arrival = self.downloads.on_chunk(from, id, hash, bytes, self.now);
        match arrival {
            Arrival::New => {
                self.effects.push(Effect::Store(id));
                self.uploads.on_given(from, bytes);
                self.progress.on_chunk(bytes, self.now);
                for (peer, link) in &mut self.links {
                    let knows = self
                        .census
                        .get(*peer)
                        .is_some_and(|holdings| !holdings.is_complete(id.segment))
                        && self.census.has(*peer, id);
                    if !knows {
                        link.have.push(id);
                    }
                }
                if self.downloads.segments().is_complete() {
                    self.progress.fetched_at = Some(self.now);
                }
            }
            Arrival::Duplicate | Arrival::Unknown => {}
            Arrival::Bad => {
                return self.ban(from, Offence::BadChunk { segment: id.segment, chunk: id.chunk });
            }
            Arrival::Unasked => return self.ban(from, Offence::UnaskedChunk),
            Arrival::TooMany => return self.ban(from, Offence::TooManyChunks),
        }
        self.unfilled.insert(from);
        self.urgent.insert(from);
    }

    fn on_unsent(&mut self, peer: PeerId, id: ChunkId) {
        // A missing chunk of a segment that is not applied yet is fetched again and sent then. A
        // chunk of an applied segment is not fetched again.
        let is_fetched_again = id.segment >= self.sealed;
        self.uploads.on_unsent(peer, id, is_fetched_again);
        if is_fetched_again {
            self.downloads.lose(id);
            self.progress.on_lost(self.rules.chunk_bytes);
        }
    }

    fn on_tip(&mut self, height: Height, sealed: &[SegmentDescriptor]) {
        self.tip = height;
        for descriptor in sealed {
            self.source.on_sealed(descriptor);
            self.sealed = SegmentIndex(descriptor.index.saturating_add(1));
        }
        if !sealed.is_empty() {
            let message = SyncMessage::Sealed(self.sealed, self.tip);
            let peers: Vec<PeerId> = self.links.keys().copied().collect();
            peers.into_iter().for_each(|peer| self.send(peer, &message));
        }
    }

    fn announce_plan(&mut self) {
        let Some(plan) = self.current_plan() else { return };
        self.plan = plan;
        if self.told_plan != Some(plan) {
            self.told_plan = Some(plan);
            self.effects.push(Effect::Plan(plan));
        }
    }

    fn fill(&mut self) {
        if self.review_at <= self.now && self.is_fetching() {
            self.review_at = self.now.saturating_add(REVIEW);
            self.unfilled.extend(self.links.keys());
        }
        if !self.is_fetching() {
            return self.unfilled.clear();
        }
        // A peer that sent a chunk or its holdings gets new requests at once. A peer that announced
        // chunks gets them in the next batch.
        let is_due = |peer: &PeerId| self.tell_at <= self.now || self.urgent.contains(peer);
        let (due, later): (BTreeSet<PeerId>, _) = self.unfilled.iter().copied().partition(is_due);
        self.unfilled = later;
        let mut peers: Vec<PeerId> = due.into_iter().collect();
        peers.sort_by_cached_key(|peer| self.downloads.turn(*peer, &self.census));
        for peer in peers {
            self.downloads.fill(peer, &self.census, self.now);
        }
    }

    fn is_fetching(&self) -> bool {
        !self.downloads.segments().is_complete()
    }

    /// Sends updates: at once to peers that are `urgent`, to others in batches.
    fn tell(&mut self) {
        let everybody = self.tell_at <= self.now;
        if !everybody && self.urgent.is_empty() {
            return;
        }
        let peers: Vec<PeerId> = self.links.keys().copied().collect();
        let mut has_told = false;
        for peer in peers {
            if !everybody && !self.urgent.contains(&peer) {
                continue;
            }
            let news = self.downloads.take_news(peer);
            let have = self
                .links
                .get_mut(&peer)
                .map(|link| std::mem::take(&mut link.have))
                .unwrap_or_default();
            if news.is_none() && have.is_empty() {
                continue;
            }
            let update = match news {
                Some(news) => Update { have, ..news },
                None => Update { have, ..self.downloads.counts(peer) },
            };
            self.send(peer, &SyncMessage::Update(update));
            has_told = true;
        }
        self.urgent.clear();
        if everybody && has_told {
            self.tell_at = self.now.saturating_add(TELL_EVERY);
        }
    }

    /// Sends chunks for which there are an upload slot, credit and room among the bytes in flight.
    fn serve(&mut self) {
        for (peer, wait) in self.uploads.rotate(self.now) {
            let milliseconds = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
            self.send(peer, &SyncMessage::Busy(milliseconds));
        }
        loop {
            let (sealed, segments) = (self.sealed, self.downloads.segments());
            let has = |id: ChunkId| id.segment < sealed || segments.has(id);
            let Some((peer, id)) = self.uploads.next(&self.census, has, self.now) else { return };
            self.effects.push(Effect::SendChunk(peer, id));
        }
    }

    fn send(&mut self, peer: PeerId, message: &SyncMessage) {
        self.effects.push(Effect::Send(peer, codec::encode(message)));
    }

    /// Reports an offence. The driver closes the link. The network bans or only disconnects the
    /// peer, by the severity of the offence.
    fn ban(&mut self, peer: PeerId, offence: Offence) {
        self.bans = self.bans.saturating_add(1);
        self.effects.push(Effect::Ban { peer, offence });
        self.on_closed(peer);
    }
}

#[cfg(test)]
mod tests;
