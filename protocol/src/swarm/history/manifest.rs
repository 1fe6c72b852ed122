//! How segments are found: the manifest that a certified header proves, and the head of each
//! segment.

use std::collections::BTreeMap;
use std::time::Duration;

use bincode::{Decode, Encode};
use ledger::codec;
use ledger::history::{History, Manifest, SegmentDescriptor, SegmentHead};
use ledger::units::{Height, SegmentIndex};

use super::{HISTORY, Kind};
use crate::ids::PeerId;
use crate::message::{BEHIND_FAR, CertifiedHeader};
use crate::offence::Offence;
use crate::plan::{FetchPlan, HeightRange};
use crate::swarm::asked::Asked;
use crate::swarm::effect::Effect;
use crate::swarm::engine::Engine;
use crate::swarm::message::{DESCRIPTORS_MAX, MANIFEST_SEGMENTS_MAX, SyncMessage};
use crate::swarm::segments::OPEN_SEGMENTS_MAX;

/// Most bytes of segments that are fetched ahead of the tip.
const STAGED_BYTES_MAX: u64 = 1 << 30;

/// Timeout of a request, after which another peer is asked. A late head still counts. A late
/// manifest counts only if no request for a manifest has followed.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest timeout of a manifest. The timeout runs from the first request to the last page. It
/// starts at [`PATIENCE`] and doubles whenever a manifest has begun but is not finished in time.
const PATIENCE_MAX: Duration = Duration::from_secs(300);
/// Delay until peers are asked again, once none of them had an answer.
const RETRY: Duration = Duration::from_millis(750);
/// Most heads asked for at a time.
const HEADS_MAX: usize = 16;

/// The content of [`Effect::SaveManifest`].
#[derive(Debug, Encode, Decode)]
struct Saved {
    header: CertifiedHeader,
    descriptors: Vec<SegmentDescriptor>,
}

/// A manifest in flight. All of it comes from one peer, so that peer is to blame if it is wrong.
#[derive(Debug)]
struct Fetch {
    peer: PeerId,
    header: CertifiedHeader,
    from: SegmentIndex,
    /// The height after the last block of the descriptors so far.
    next: Height,
    descriptors: Vec<SegmentDescriptor>,
    deadline: Duration,
}

impl Fetch {
    /// The segment after the last descriptor so far.
    fn next_index(&self) -> SegmentIndex {
        SegmentIndex(self.from.0.saturating_add(self.descriptors.len() as u64))
    }
}

/// The manifest, and the requests that extend it.
#[derive(Debug)]
pub(in crate::swarm) struct Source {
    manifest: Manifest,
    /// The highest certified header that sync was told of.
    target: Option<CertifiedHeader>,
    /// The header that proves the manifest.
    proof: Option<CertifiedHeader>,
    fetch: Option<Fetch>,
    /// The timeout of a whole manifest.
    patience: Duration,
    asked: Asked,
    heads: BTreeMap<SegmentIndex, (PeerId, Duration)>,
}

impl Source {
    pub(in crate::swarm) fn new(history: &History) -> Self {
        Self {
            manifest: Manifest::after(history),
            target: None,
            proof: None,
            fetch: None,
            patience: PATIENCE,
            asked: Asked::default(),
            heads: BTreeMap::new(),
        }
    }

    pub(in crate::swarm) fn on_certified(&mut self, certified: CertifiedHeader) {
        if self.target_height() < certified.header.height {
            self.target = Some(certified);
        }
    }

    pub(in crate::swarm) fn on_closed(&mut self, peer: PeerId) {
        self.asked.forget(peer);
        self.fetch = self.fetch.take().filter(|fetch| fetch.peer != peer);
        self.heads.retain(|_, (asked, _)| *asked != peer);
    }

    pub(in crate::swarm) fn on_sealed(&mut self, descriptor: &SegmentDescriptor) {
        self.manifest.sealed(descriptor);
    }

    pub(in crate::swarm) fn forget_below(&mut self, index: SegmentIndex) {
        self.manifest.forget_below(index.0);
        self.heads = self.heads.split_off(&index);
    }

    pub(in crate::swarm) fn deadline(&self, now: Duration) -> Option<Duration> {
        let fetch = self.fetch.as_ref().map(|fetch| fetch.deadline);
        let all = fetch.into_iter().chain(self.heads.values().map(|(_, deadline)| *deadline));
        // A deadline in the past belongs to a request that timed out and is no longer needed.
        all.filter(|deadline| *deadline > now).min()
    }

    pub(in crate::swarm) fn target_height(&self) -> Height {
        self.target.as_ref().map_or(Height(0), |target| target.header.height)
    }

    pub(in crate::swarm) fn proven_height(&self) -> Height {
        self.proof.as_ref().map_or(Height(0), |proof| proof.header.height)
    }

    /// The header that proves the manifest, once a manifest is proved.
    pub(in crate::swarm) const fn proof(&self) -> Option<&CertifiedHeader> {
        self.proof.as_ref()
    }

    pub(in crate::swarm) const fn is_asking(&self) -> bool {
        self.fetch.is_some()
    }

    pub(in crate::swarm) const fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

impl Kind {
    /// Uses the files of an earlier run, as far as a certificate proves them.
    pub(in crate::swarm) fn restore(
        &mut self,
        engine: &mut Engine,
        staged: Vec<(SegmentHead, Vec<bool>)>,
        manifest: Option<Vec<u8>>,
    ) {
        let saved =
            manifest.and_then(|bytes| codec::decode::<Saved>(&bytes, codec::VALUE_BYTES_MAX).ok());
        if let Some(Saved { header, descriptors }) = saved
            && header.header.height > self.tip
            && self.is_certified(&header)
        {
            let known = self.source.manifest.segments();
            let new: Vec<_> =
                descriptors.into_iter().filter(|descriptor| descriptor.index >= known).collect();
            if self.source.manifest.extend(&new, header.header.history_root).is_ok() {
                self.progress.extend(&new, &self.rules);
                self.source.proof = Some(header.clone());
                self.source.target = Some(header);
            }
        }
        for (head, here) in staged {
            let index = SegmentIndex(head.descriptor.index);
            let is_proved = self.source.manifest.get(index.0) == Some(&head.descriptor);
            let has_room = self.begun.len() < OPEN_SEGMENTS_MAX;
            if is_proved && has_room && index >= self.sealed && self.is_head(&head) {
                let (chunks, rules) =
                    (here.iter().filter(|here| **here).count() as u64, &self.rules);
                self.progress.on_found(chunks, &head.descriptor, rules);
                self.begin(engine, head, &here);
            } else {
                engine.push(Effect::Release(HISTORY.segment(index)));
            }
        }
    }

    fn is_certified(&self, certified: &CertifiedHeader) -> bool {
        let CertifiedHeader { header, certificate } = certified;
        let validators = self.chain.validators(header.height);
        certificate.verify(self.chain.id(), validators, header.height, header.hash()).is_ok()
    }

    /// Whether the chunk hashes match the descriptor, and its last block is certified.
    pub(in crate::swarm) fn is_head(&self, head: &SegmentHead) -> bool {
        let SegmentDescriptor { last, last_block, .. } = head.descriptor;
        let validators = self.chain.validators(last);
        head.descriptor.verify_chunks(&self.rules, &head.chunks).is_ok()
            && head.certificate.verify(self.chain.id(), validators, last, last_block).is_ok()
    }

    /// Asks for the manifest of a later header, once no known segment is left whose head can be
    /// requested now. Also asks for the heads of the next segments.
    pub(super) fn seek_manifest(&mut self, engine: &mut Engine) {
        let now = engine.now;
        let is_open = self.source.fetch.as_ref().is_none_or(|fetch| fetch.deadline <= now);
        let has_head = !self.is_held && self.next_head(now).is_some();
        if self.is_manifest_due() && is_open && !has_head {
            self.fetch_manifest(engine);
        }
        if self.is_held {
            return;
        }
        let mut asked = self.source.heads.values().filter(|(_, deadline)| *deadline > now).count();
        let begun = self.begun.len();
        while asked < HEADS_MAX && begun.saturating_add(asked) < OPEN_SEGMENTS_MAX {
            let Some(index) = self.next_head(now) else { return };
            let Some(peer) = self.holder_to_ask(engine, index) else { return };
            self.source.heads.insert(index, (peer, now.saturating_add(PATIENCE)));
            self.source.asked.note_asked(peer);
            engine.send(peer, &SyncMessage::GetHead(index));
            asked = asked.saturating_add(1);
        }
    }

    /// Whether the tip is so close to the target that blocks are fetched one by one.
    pub(in crate::swarm) fn is_near(&self) -> bool {
        let target = self.source.target.as_ref().map(|target| target.header.height.0);
        target.is_some_and(|target| target.saturating_sub(self.tip.0) <= BEHIND_FAR)
    }

    /// Whether a longer manifest is needed: both the tip and the proved height are far below the
    /// target.
    fn is_manifest_due(&self) -> bool {
        let target = self.source.target_height().0;
        let is_far = |from: Height| target.saturating_sub(from.0) > BEHIND_FAR;
        is_far(self.tip) && is_far(self.source.proven_height())
    }

    /// The first segment to fetch whose head is neither here nor asked for.
    fn next_head(&self, now: Duration) -> Option<SegmentIndex> {
        let mut bytes = 0u64;
        for descriptor in self.source.manifest.descriptors() {
            let index = SegmentIndex(descriptor.index);
            bytes = bytes.saturating_add(descriptor.bytes);
            if bytes > STAGED_BYTES_MAX && bytes > descriptor.bytes {
                return None;
            }
            let is_asked =
                self.source.heads.get(&index).is_some_and(|(_, deadline)| *deadline > now);
            if self.is_wanted(descriptor) && !self.is_begun(index) && !is_asked {
                return Some(index);
            }
        }
        None
    }

    /// Whether a segment is fetched: it is wholly above the tip, or its fetching has begun.
    fn is_wanted(&self, descriptor: &SegmentDescriptor) -> bool {
        descriptor.first > self.tip || self.is_begun(SegmentIndex(descriptor.index))
    }

    /// Whether the head of a segment is here, so that its chunks are fetched.
    fn is_begun(&self, index: SegmentIndex) -> bool {
        self.begun.contains_key(&index)
    }

    /// The peer to ask next. Of the peers with the fewest unanswered requests it is one that fits,
    /// if any does. Of several it is the one asked longest ago.
    fn least_asked(&self, engine: &Engine, fits: impl Fn(PeerId) -> bool) -> Option<PeerId> {
        knowing(engine).min_by_key(|peer| {
            let (unanswered, number) = self.source.asked.rank(*peer);
            (unanswered, !fits(*peer), number)
        })
    }

    /// The peer to ask next for the head of a segment: one that has the whole segment, if any peer
    /// says so. Of several, it is the one with the fewest unanswered requests.
    fn holder_to_ask(&self, engine: &Engine, index: SegmentIndex) -> Option<PeerId> {
        let rank = |peer: &PeerId| (!holds(engine, *peer, index), self.source.asked.rank(*peer));
        knowing(engine).min_by_key(rank)
    }

    /// When to ask again after a peer had no answer: at once if some peer has no unanswered
    /// request, otherwise after [`RETRY`].
    fn retry_at(&self, engine: &Engine) -> Duration {
        let is_fresh = knowing(engine).any(|peer| self.source.asked.rank(peer).0 == 0);
        if is_fresh { engine.now } else { engine.now.saturating_add(RETRY) }
    }

    fn fetch_manifest(&mut self, engine: &mut Engine) {
        let Some(header) = self.source.target.clone() else { return };
        let height = header.header.height;
        let fits = |peer: PeerId| self.height(peer) >= height;
        let Some(peer) = self.least_asked(engine, fits) else { return };
        let from = SegmentIndex(self.source.manifest.segments());
        let next = self.source.manifest.next_height();
        // A peer that sends page after page without end must not keep others from being asked. The
        // timeout doubles, so that slow links get the time that they need.
        if self.source.fetch.as_ref().is_some_and(|fetch| !fetch.descriptors.is_empty()) {
            self.source.patience = self.source.patience.saturating_mul(2).min(PATIENCE_MAX);
        }
        let deadline = engine.now.saturating_add(self.source.patience);
        self.source.fetch =
            Some(Fetch { peer, header, from, next, descriptors: Vec::new(), deadline });
        self.source.asked.note_asked(peer);
        engine.send(peer, &SyncMessage::GetManifest(height, from));
        // If nothing else is being fetched, the first head is requested right behind the manifest
        // that proves it, which saves a round trip.
        let first = SegmentIndex(from.0.saturating_add(u64::from(next <= self.tip)));
        if !self.is_held && self.begun.is_empty() && holds(engine, peer, first) {
            self.source.heads.insert(first, (peer, engine.now.saturating_add(PATIENCE)));
            engine.send(peer, &SyncMessage::GetHead(first));
        }
    }

    pub(in crate::swarm) fn on_manifest(
        &mut self,
        engine: &mut Engine,
        from: PeerId,
        height: Height,
        index: SegmentIndex,
        descriptors: Option<Vec<SegmentDescriptor>>,
    ) {
        let Some(mut fetch) = self.source.fetch.take() else { return };
        if (fetch.peer, fetch.header.header.height, fetch.next_index()) != (from, height, index) {
            // This answers a request that was given up.
            self.source.fetch = Some(fetch);
            return;
        }
        // The peer does not know the height, or refuses for now. `retry_at` says when the next peer
        // is asked.
        let Some(descriptors) = descriptors else {
            // A peer that refuses again and again must not put off the next request.
            fetch.deadline = fetch.deadline.min(self.retry_at(engine));
            self.source.fetch = Some(fetch);
            return;
        };
        let is_whole = descriptors.len() < DESCRIPTORS_MAX;
        if fetch.descriptors.len().saturating_add(descriptors.len()) > MANIFEST_SEGMENTS_MAX {
            return engine.ban(from, Offence::ManifestTooLarge { most: MANIFEST_SEGMENTS_MAX });
        }
        // Each page is validated when it arrives, so an unproved manifest never outgrows what a
        // chain of that height can hold.
        for descriptor in descriptors {
            match descriptor.validate_at(fetch.next_index().0, fetch.next, &self.rules) {
                Ok(next) if next <= height => fetch.next = next,
                Ok(next) => return engine.ban(from, Offence::ManifestTooLong { height, next }),
                Err(error) => return engine.ban(from, Offence::Manifest(error)),
            }
            fetch.descriptors.push(descriptor);
        }
        if !is_whole {
            let next = fetch.next_index();
            self.source.fetch = Some(fetch);
            return engine.send(from, &SyncMessage::GetManifest(height, next));
        }
        self.source.asked.note_answered(from);
        if height <= self.tip {
            return;
        }
        // The chain may have sealed some of these segments itself meanwhile.
        let known = self.source.manifest.segments().saturating_sub(fetch.from.0);
        let new = fetch
            .descriptors
            .get(usize::try_from(known).unwrap_or(usize::MAX)..)
            .unwrap_or_default();
        match self.source.manifest.extend(new, fetch.header.header.history_root) {
            Ok(()) => {
                self.progress.extend(new, &self.rules);
                self.source.proof = Some(fetch.header.clone());
                self.source.patience = PATIENCE;
                let descriptors = self.source.manifest.descriptors().copied().collect();
                let saved = Saved { header: fetch.header, descriptors };
                engine.push(Effect::SaveManifest(codec::encode(&saved)));
            }
            Err(error) => engine.ban(from, Offence::Manifest(error)),
        }
    }

    pub(in crate::swarm) fn on_head(
        &mut self,
        engine: &mut Engine,
        from: PeerId,
        index: SegmentIndex,
        head: Option<SegmentHead>,
    ) {
        let is_asked = self.source.heads.get(&index).is_some_and(|(asked, _)| *asked == from);
        // The peer refuses for now.
        let Some(head) = head else { return self.on_no_head(engine, from, index) };
        let Some(descriptor) = self.source.manifest.get(index.0).copied() else {
            // The head came before its manifest was complete, so nothing proves it. It is requested
            // again.
            self.source.heads.retain(|asked, _| *asked != index || !is_asked);
            return;
        };
        // An unrequested head may be of any segment, and would take a place that the next segments
        // need.
        let is_unasked = !self.source.heads.contains_key(&index);
        let is_full = self.begun.len() >= OPEN_SEGMENTS_MAX;
        if is_unasked || is_full || !self.is_wanted(&descriptor) || self.is_begun(index) {
            return;
        }
        if head.descriptor != descriptor || !self.is_head(&head) {
            return engine.ban(from, Offence::SegmentHead { segment: index });
        }
        self.source.heads.remove(&index);
        self.source.asked.note_answered(from);
        engine.push(Effect::Begin(HISTORY, head.clone()));
        self.begin(engine, head, &[]);
    }

    /// A peer does not give the head of a segment. `retry_at` says when the next peer is asked.
    pub(in crate::swarm) fn on_no_head(
        &mut self,
        engine: &Engine,
        from: PeerId,
        index: SegmentIndex,
    ) {
        let retry_at = self.retry_at(engine);
        if let Some((asked, deadline)) = self.source.heads.get_mut(&index)
            && *asked == from
        {
            *deadline = retry_at.min(*deadline);
        }
    }

    /// How the blocks above the tip are fetched. `None` while that is not known.
    pub(in crate::swarm) fn current_plan(&self) -> Option<FetchPlan> {
        if self.source.proof.is_none() || self.is_manifest_due() {
            return None;
        }
        let manifest = &self.source.manifest;
        let mut above = manifest.descriptors().filter(|descriptor| descriptor.last > self.tip);
        let first = above.find(|descriptor| self.is_wanted(descriptor));
        let last = Height(manifest.next_height().0.saturating_sub(1));
        Some(match first {
            Some(descriptor) => FetchPlan::Segments(HeightRange { first: descriptor.first, last }),
            None => FetchPlan::Blocks,
        })
    }
}

/// The peers that have said what they hold of history, in order.
fn knowing(engine: &Engine) -> impl Iterator<Item = PeerId> {
    let peers = engine.census.peers().filter(|(_, holder)| holder.knows(HISTORY));
    peers.map(|(peer, _)| peer)
}

/// Whether a peer claims to have a whole segment.
fn holds(engine: &Engine, peer: PeerId, index: SegmentIndex) -> bool {
    let holder = engine.census.get(peer);
    holder.is_some_and(|holder| holder.is_complete(HISTORY.segment(index)))
}
