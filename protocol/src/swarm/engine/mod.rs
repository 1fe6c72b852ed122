//! The engine moves chunks. It knows collections by their ids, their segments, and which chunks
//! are here. It decides which peer is asked for which chunk, which is sent which chunk, and which
//! committed an offence.
//!
//! A kind of collection stands beside it, such as `history`. The kind opens the collection, adds
//! the segments that it has proved, says what proves their chunks, and takes away those that are
//! complete.

mod answers;
mod collections;
mod peers;

pub(in crate::swarm) use answers::{
    ANSWERED_ALL, ANSWERED_ALL_AT_ONCE, ANSWERED_EACH, ANSWERED_EACH_AT_ONCE,
};
pub(in crate::swarm) use collections::Collection;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ledger::codec;

use crate::ids::PeerId;
use crate::offence::Offence;
use crate::swarm::census::Census;
use crate::swarm::downloads::{Arrival, Downloads};
use crate::swarm::effect::Effect;
use crate::swarm::input::Rates;
use crate::swarm::message::{
    COLLECTIONS_MAX, ChunkId, CollectionId, CollectionNumber, SegmentId, SyncMessage, Update,
};
use crate::swarm::meter::{Allowance, Limit};
use crate::swarm::segments::{Segment, Segments};
use crate::swarm::uploads::Uploads;

/// Announcements to peers that are not waiting for us are batched over this interval.
const TELL_EVERY: Duration = Duration::from_millis(50);
/// Interval at which every peer may be given more requests, while chunks are missing.
const REVIEW: Duration = Duration::from_millis(100);

/// Number of `Open` and `Holdings` messages, counted together, that are taken from a peer each
/// second. Others are ignored. Both cost this node more than their bytes: it answers `Open` with
/// its own `Holdings`, and the peer's `Holdings` change the counts of all chunks that the peer has.
const DESCRIBED: u64 = 1;
/// Number of these messages that are taken in one burst. A peer needs two for each collection.
const DESCRIBED_AT_ONCE: u64 = 4 * COLLECTIONS_MAX as u64;

/// A link to a peer.
#[derive(Debug)]
struct Link {
    /// Chunks to announce.
    have: Vec<ChunkId>,
    /// The collections that the peer has open, by the peer's numbers. At most [`COLLECTIONS_MAX`].
    theirs: BTreeMap<CollectionNumber, Their>,
    /// How many more descriptions of collections are taken in.
    descriptions: Allowance,
    /// What the peer's requests for manifests, heads and the like may still cost.
    answers: Allowance,
}

/// A collection that a peer has open.
#[derive(Debug)]
struct Their {
    id: CollectionId,
    /// Our number for it, if we have it open too.
    ours: Option<CollectionNumber>,
    /// Whether the peer had all of it when we closed it, so that it does not ask us for it.
    is_sated: bool,
}

impl Link {
    const fn new() -> Self {
        Self {
            have: Vec::new(),
            theirs: BTreeMap::new(),
            descriptions: Allowance::new(DESCRIBED, DESCRIBED_AT_ONCE),
            answers: Allowance::new(ANSWERED_EACH, ANSWERED_EACH_AT_ONCE),
        }
    }

    /// Whether one more `Open` or `Holdings` of the peer is taken in. Counts it if so.
    fn may_describe(&mut self, now: Duration) -> bool {
        let may = self.descriptions.has(1, now);
        if may {
            self.descriptions.take(1);
        }
        may
    }

    /// The peer's number for a collection of ours, if the peer has it open too.
    fn number(&self, ours: CollectionNumber) -> Option<CollectionNumber> {
        let mut theirs = self.theirs.iter();
        theirs.find(|(_, their)| their.ours == Some(ours)).map(|(number, _)| *number)
    }
}

/// Moves the chunks of all collections.
pub(in crate::swarm) struct Engine {
    pub(in crate::swarm) now: Duration,
    nonce: u64,
    /// The number that the next collection gets, if it is not in use.
    next_number: CollectionNumber,
    collections: BTreeMap<CollectionNumber, Collection>,
    pub(in crate::swarm) census: Census,
    pub(in crate::swarm) downloads: Downloads,
    pub(in crate::swarm) uploads: Uploads,
    links: BTreeMap<PeerId, Link>,
    /// Peers whose links have closed since [`Self::take_closed`].
    closed: Vec<PeerId>,
    /// Peers that may have room for requests.
    unfilled: BTreeSet<PeerId>,
    /// Peers that get requests and updates at once, not in the next batch.
    urgent: BTreeSet<PeerId>,
    tell_at: Duration,
    review_at: Duration,
    /// What the requests of all peers together may still cost.
    answers: Allowance,
    bans: u64,
    effects: Vec<Effect>,
}

impl Engine {
    pub(in crate::swarm) fn new(nonce: u64, rates: Rates, now: Duration) -> Self {
        Self {
            now,
            nonce,
            next_number: CollectionNumber(0),
            collections: BTreeMap::new(),
            census: Census::default(),
            downloads: Downloads::new(
                nonce,
                Limit::new(rates.download),
                Limit::new(rates.file_download),
            ),
            uploads: Uploads::new(nonce, Limit::new(rates.upload), Limit::new(rates.file_upload)),
            links: BTreeMap::new(),
            closed: Vec::new(),
            unfilled: BTreeSet::new(),
            urgent: BTreeSet::new(),
            tell_at: now,
            review_at: now,
            answers: Allowance::new(ANSWERED_ALL, ANSWERED_ALL_AT_ONCE),
            bans: 0,
            effects: Vec::new(),
        }
    }

    /// Begins to fetch a segment, whose chunks its kind can prove.
    pub(in crate::swarm) fn add_segment(&mut self, segment: Segment) {
        self.downloads.add_segment(segment);
        self.unfilled.extend(self.links.keys());
    }

    /// The open segments of all collections.
    pub(in crate::swarm) const fn segments(&self) -> &Segments {
        self.downloads.segments()
    }

    /// The peers with a link, in order.
    pub(in crate::swarm) fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.links.keys().copied()
    }

    pub(in crate::swarm) fn is_linked(&self, peer: PeerId) -> bool {
        self.links.contains_key(&peer)
    }

    /// Number of times that a peer was disconnected or banned for an offence.
    pub(in crate::swarm) const fn bans(&self) -> u64 {
        self.bans
    }

    pub(in crate::swarm) fn is_fetching(&self) -> bool {
        !self.segments().are_complete()
    }

    pub(in crate::swarm) fn on_opened(&mut self, peer: PeerId) {
        self.on_closed(peer);
        self.links.insert(peer, Link::new());
        self.downloads.on_opened(peer);
        self.uploads.on_opened(peer);
        let announced = self.collections.iter().filter(|(_, collection)| collection.is_announced);
        let ids = announced.map(|(number, collection)| (*number, collection.id));
        for (number, id) in ids.collect::<Vec<_>>() {
            self.send(peer, &SyncMessage::Open(number, id));
        }
    }

    pub(in crate::swarm) fn on_closed(&mut self, peer: PeerId) {
        if self.links.remove(&peer).is_some() {
            self.closed.push(peer);
        }
        self.census.forget(peer);
        self.downloads.on_closed(peer);
        self.uploads.on_closed(peer);
        self.unfilled.remove(&peer);
        self.urgent.remove(&peer);
    }

    /// The peers whose links have closed since the last call.
    pub(in crate::swarm) fn take_closed(&mut self) -> Vec<PeerId> {
        std::mem::take(&mut self.closed)
    }

    /// Takes in an arriving chunk. Returns whether it was missing, and so is stored. `is_valid`:
    /// whether it is what its kind proves, if its segment is open.
    pub(in crate::swarm) fn on_chunk(
        &mut self,
        from: PeerId,
        id: ChunkId,
        is_valid: bool,
        bytes: u64,
    ) -> bool {
        let arrival = self.downloads.on_chunk(from, id, is_valid, bytes, self.now);
        match arrival {
            Arrival::New => {
                self.effects.push(Effect::Store(id));
                self.uploads.on_given(from, bytes);
                self.announce(id);
            }
            Arrival::Duplicate | Arrival::Unknown => {}
            Arrival::Bad => {
                let SegmentId { index, .. } = id.segment;
                self.ban(from, Offence::BadChunk { segment: index, chunk: id.chunk });
                return false;
            }
            Arrival::Unasked => {
                self.ban(from, Offence::UnaskedChunk);
                return false;
            }
            Arrival::TooMany => {
                self.ban(from, Offence::TooManyChunks);
                return false;
            }
        }
        self.unfilled.insert(from);
        self.urgent.insert(from);
        arrival == Arrival::New
    }

    /// Announces a chunk to the peers that have its collection open and are not known to have it.
    fn announce(&mut self, id: ChunkId) {
        for (peer, link) in &mut self.links {
            let is_open = link.number(id.segment.collection).is_some();
            let has_open = self
                .census
                .get(*peer)
                .is_some_and(|holder| !holder.is_complete(id.segment) && holder.has(id));
            if is_open && !has_open {
                link.have.push(id);
            }
        }
    }

    /// Gives requests, sends updates, and sends chunks.
    pub(in crate::swarm) fn settle(&mut self) {
        self.resume();
        self.fill();
        self.tell();
        self.serve();
    }

    /// When [`Self::settle`] is due at the latest. `None` while nothing is pending.
    pub(in crate::swarm) fn deadline(&mut self) -> Option<Duration> {
        let has_news =
            !self.unfilled.is_empty() || self.links.values().any(|link| !link.have.is_empty());
        [
            has_news.then_some(self.tell_at),
            self.is_fetching().then_some(self.review_at),
            self.downloads.deadline(self.now),
            self.uploads.deadline(self.now),
            self.resumes_at(),
        ]
        .into_iter()
        .flatten()
        .min()
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

    /// Sends updates: at once to peers that are `urgent`, to others in batches.
    fn tell(&mut self) {
        let everybody = self.tell_at <= self.now;
        if !everybody && self.urgent.is_empty() {
            return;
        }
        let peers: Vec<PeerId> = self.peers().collect();
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
            let (collections, segments) = (&self.collections, self.downloads.segments());
            let has = |id: ChunkId| collections::has(collections, segments, id);
            let Some((to, id)) = self.uploads.next(&self.census, has, self.now) else { return };
            let link = self.links.get(&to);
            let number = link.and_then(|link| link.number(id.segment.collection));
            let number =
                number.expect("invariant: a peer that closes a collection wants none of it");
            let name = ChunkId { segment: number.segment(id.segment.index), ..id };
            self.effects.push(Effect::SendChunk { to, id, name });
        }
    }

    pub(in crate::swarm) fn send(&mut self, peer: PeerId, message: &SyncMessage) {
        self.effects.push(Effect::Send(peer, codec::encode(message)));
    }

    /// Sends an answer whose bytes the peer pays for.
    pub(in crate::swarm) fn answer(&mut self, peer: PeerId, message: &SyncMessage) {
        self.effects.push(Effect::Answer(peer, codec::encode(message)));
    }

    pub(in crate::swarm) fn send_all(&mut self, message: &SyncMessage) {
        let peers: Vec<PeerId> = self.peers().collect();
        peers.into_iter().for_each(|peer| self.send(peer, message));
    }

    pub(in crate::swarm) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(in crate::swarm) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Reports an offence. The driver closes the link. The network bans or only disconnects the
    /// peer, by the severity of the offence.
    pub(in crate::swarm) fn ban(&mut self, peer: PeerId, offence: Offence) {
        self.bans = self.bans.saturating_add(1);
        self.effects.push(Effect::Ban { peer, offence });
        self.on_closed(peer);
    }
}

#[cfg(test)]
mod tests;
