//! The shell of the swarm machine: its links and staging files, and a check of each effect.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ledger::hash::Hash;
use ledger::history::{SegmentDescriptor, SegmentHead};
use ledger::units::{Height, SegmentIndex};
use protocol::swarm::message::{
    ChunkId, CollectionId, DESCRIPTORS_MAX, Holdings, SYNC_MESSAGE_BYTES_MAX, SegmentId,
    SyncMessage, Update, WANTS_MAX,
};
use protocol::swarm::{Effect, Expected, HISTORY, Input, Join, Rates, SegmentRanges, Setup, Swarm};
use protocol::{HeightRange, PeerId};

use super::link::Link;
use super::snapshots::{self, Files};
use super::{CHUNK_BYTES, HOSTILE, SEGMENTS, number};
use crate::swarm::Made;

/// Most chunks in flight from one peer.
const IN_FLIGHT_MAX: u64 = 64;
/// Most segments in memory as blocks.
const IN_MEMORY_MAX: usize = 2;
/// Most bytes in flight to one peer.
const UNDER_WAY_MAX: u64 = 64 << 20;

pub(super) struct Shell {
    pub(super) made: &'static Made,
    pub(super) swarm: Swarm,
    now: Duration,
    pub(super) links: BTreeMap<PeerId, Link>,
    /// Segments before this one are applied.
    sealed: SegmentIndex,
    begun: BTreeMap<SegmentIndex, SegmentHead>,
    stored: BTreeSet<ChunkId>,
    assembling: Option<SegmentIndex>,
    /// Segments in memory, which are assembled. One of them may be being applied.
    assembled: BTreeSet<SegmentIndex>,
    applying: Option<SegmentIndex>,
    manifest: Option<Vec<u8>>,
    /// Chunks being written to connections, by the machine's number of history.
    writing: VecDeque<(PeerId, ChunkId)>,
    /// Segments before this one are not here, since the machine began with a snapshot.
    first: SegmentIndex,
    pub(super) files: Files,
}

impl Shell {
    pub(super) fn new(made: &'static Made, joins: bool) -> Self {
        let none = SegmentIndex(0);
        let join = joins.then(Join::default);
        let (swarm, effects) = swarm(made, none..none, join, Vec::new(), None, Duration::ZERO);
        assert!(effects.is_empty(), "an empty node has nothing to do: {effects:?}");
        Self {
            made,
            swarm,
            now: Duration::ZERO,
            links: BTreeMap::new(),
            sealed: none,
            begun: BTreeMap::new(),
            stored: BTreeSet::new(),
            assembling: None,
            assembled: BTreeSet::new(),
            applying: None,
            manifest: None,
            writing: VecDeque::new(),
            first: none,
            files: Files::default(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.sealed == SegmentIndex(SEGMENTS)
    }

    pub(super) fn has_any(&self) -> bool {
        self.sealed > SegmentIndex(0) || !self.stored.is_empty()
    }

    pub(super) fn describe(&self) -> String {
        format!(
            "{} applied, {} begun, {} chunks",
            self.sealed.0,
            self.begun.len(),
            self.stored.len()
        )
    }

    pub(super) fn elapse(&mut self, time: Duration) {
        self.now += time;
        self.give(Input::Time);
    }

    pub(super) fn open(&mut self, peer: PeerId) {
        if let Entry::Vacant(place) = self.links.entry(peer) {
            place.insert(Link::default());
            self.give(Input::Opened(peer));
        }
    }

    pub(super) fn close(&mut self, peer: PeerId) {
        if self.links.remove(&peer).is_some() {
            self.writing.retain(|(to, _)| *to != peer);
            self.give(Input::Closed(peer));
        }
    }

    /// Gives the machine the bytes of a message from a peer.
    pub(super) fn message(&mut self, peer: PeerId, bytes: Vec<u8>) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if let Ok(SyncMessage::Update(update)) = SyncMessage::decode(&bytes) {
            for id in &update.remove {
                link.asked.remove(id);
            }
            link.asked.extend(&update.add);
            link.credit = link.credit.max(update.allowed);
            link.received = link.received.max(update.received);
        }
        self.give(Input::Message(peer, bytes));
    }

    pub(super) fn say(&mut self, peer: PeerId, message: &SyncMessage) {
        self.message(peer, ledger::codec::encode(message));
    }

    /// An honest peer sends its holdings, once.
    pub(super) fn greet(&mut self, peer: PeerId) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if std::mem::replace(&mut link.has_greeted, true) {
            return;
        }
        let (number, whole) = (number(peer), SegmentRanges::before(SegmentIndex(SEGMENTS)));
        let holdings = Holdings { whole, open: Vec::new(), nonce: peer.0 };
        let (offer, other) = (self.made.true_offer(), snapshots::number(peer));
        let snapshot = CollectionId(offer.id.0);
        for message in [
            SyncMessage::Height(self.made.target.header.height),
            SyncMessage::Open(number, self.made.id()),
            SyncMessage::Holdings(number, holdings),
            SyncMessage::Snapshots(vec![(offer.height, offer.id)]),
            SyncMessage::Open(other, snapshot),
            // Of use only if the machine has opened the snapshot.
            snapshots::holdings(peer),
        ] {
            self.say(peer, &message);
        }
    }

    /// An honest peer answers the oldest question.
    pub(super) fn answer(&mut self, peer: PeerId) {
        let Some(question) = self.links.get_mut(&peer).and_then(|link| link.questions.pop_front())
        else {
            return;
        };
        let made = self.made;
        let answer = match question {
            SyncMessage::GetManifest(height, from) => {
                let all = made.descriptors(SEGMENTS as usize);
                let page = all
                    .into_iter()
                    .filter(|descriptor| descriptor.index >= from.0 && descriptor.last < height);
                SyncMessage::Manifest(height, from, Some(page.take(DESCRIPTORS_MAX).collect()))
            }
            SyncMessage::GetHead(index) => SyncMessage::Head(index, known(made, index).cloned()),
            SyncMessage::GetFrontier(id, page) => {
                SyncMessage::Frontier(id, page, snapshots::page(&made.true_offer(), id, page))
            }
            // The machine has opened a snapshot.
            SyncMessage::Open(..) => snapshots::holdings(peer),
            other => panic!("{other:?} is no question"),
        };
        self.say(peer, &answer);
    }

    /// An honest peer sends a chunk that is wanted from it, within its credit.
    pub(super) fn give_chunk(&mut self, peer: PeerId, which: u8) {
        let Some(link) = self.links.get(&peer).filter(|link| link.given < link.allowed) else {
            return;
        };
        let Some(id) = link.wanted(which) else { return };
        let (hash, bytes) = self.made.chunk(id).expect("only chunks that exist are wanted");
        self.chunk(peer, id, hash, bytes);
    }

    /// One of the chunks that are wanted from a peer.
    pub(super) fn wanted(&self, peer: PeerId, which: u8) -> Option<ChunkId> {
        self.links.get(&peer)?.wanted(which)
    }

    /// Gives the machine a chunk from a peer.
    pub(super) fn chunk(&mut self, peer: PeerId, id: ChunkId, hash: Hash, bytes: u64) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.given += 1;
        link.wants.remove(&id);
        let is_valid = self.swarm.expected(peer, id) == Some(Expected::Hash(hash));
        self.give(Input::Chunk { from: peer, id, is_valid, bytes });
    }

    /// The connection takes in a chunk that is being sent.
    pub(super) fn write(&mut self, which: u8) {
        let place = usize::from(which) % self.writing.len().max(1);
        let Some((peer, id)) = self.writing.remove(place) else { return };
        if !self.exists(id) {
            return self.give(Input::Impossible(peer, id));
        }
        self.give(Input::Written(peer));
    }

    /// A chunk that is being sent is damaged on disk.
    pub(super) fn lose(&mut self, which: u8) {
        let place = usize::from(which) % self.writing.len().max(1);
        let Some((peer, id)) = self.writing.get(place).copied() else { return };
        if !self.exists(id) || id.segment.collection != HISTORY {
            return self.write(which);
        }
        self.writing.remove(place);
        if let Some(link) = self.links.get_mut(&peer) {
            link.sent -= 1;
        }
        self.stored.remove(&id);
        self.give(Input::Unsent(peer, id));
    }

    pub(super) fn certify(&mut self) {
        self.give(Input::Certified(self.made.target.clone()));
    }

    /// A complete segment was read from disk. `damaged` is the chunk that turned out to be damaged.
    pub(super) fn assemble(&mut self, damaged: Option<u32>) {
        let Some(index) = self.assembling.take() else { return };
        let id = |chunk: u32| HISTORY.segment(index).chunk(chunk);
        let damaged: Vec<u32> =
            damaged.into_iter().filter(|chunk| self.made.chunk(id(*chunk)).is_some()).collect();
        for chunk in &damaged {
            self.stored.remove(&id(*chunk));
        }
        if damaged.is_empty() {
            self.assembled.insert(index);
        }
        self.give(Input::Assembled(index, damaged));
    }

    /// The blocks of a segment are final.
    pub(super) fn apply(&mut self) {
        let Some(index) = self.applying.take() else { return };
        let descriptor =
            self.begun.get(&index).expect("a segment is released once it is applied").descriptor;
        self.sealed = SegmentIndex(index.0 + 1);
        self.give(Input::Tip(descriptor.last, vec![descriptor]));
    }

    /// An honest peer without history asks for a chunk. It may give credit for one more.
    pub(super) fn want(&mut self, peer: PeerId, id: ChunkId, choice: u8) {
        let Some(link) = self.links.get(&peer).filter(|link| link.has_greeted) else { return };
        if self.made.chunk(id).is_none() || link.asked.len() >= WANTS_MAX {
            return;
        }
        let writing = self.writing.iter().filter(|(to, _)| *to == peer).count() as u64;
        let arrived = link.sent.saturating_sub(writing);
        let received = link.received.max(arrived.saturating_sub(u64::from(choice % 4)));
        let allowed = link.credit + u64::from(choice & 4 == 0);
        let update = Update { add: vec![id], allowed, received, ..Update::default() };
        self.say(peer, &SyncMessage::Update(update));
    }

    /// Starts the machine again from what is on disk. A power failure may have damaged a chunk.
    pub(super) fn restart(&mut self, damaged: u8) {
        if damaged > 200 {
            self.stored.pop_first();
        }
        self.links.clear();
        self.files = Files::default();
        self.writing.clear();
        (self.assembling, self.applying) = (None, None);
        self.assembled.clear();
        let here = |head: &SegmentHead| {
            let segment = HISTORY.segment(SegmentIndex(head.descriptor.index));
            let id = |chunk| segment.chunk(chunk);
            (0..)
                .zip(&head.chunks)
                .map(|(chunk, _)| self.stored.contains(&id(chunk)))
                .collect::<Vec<bool>>()
        };
        let staged = self.begun.values().map(|head| (head.clone(), here(head))).collect();
        let (swarm, effects) = swarm(
            self.made,
            self.first..self.sealed,
            None,
            staged,
            self.manifest.clone(),
            self.now,
        );
        self.swarm = swarm;
        self.perform(effects, None);
    }

    /// The chain takes over a snapshot.
    pub(super) fn on_loaded(&mut self, sealed: SegmentIndex) {
        assert!(self.begun.is_empty(), "no segment is fetched before a snapshot is loaded");
        (self.first, self.sealed) = (sealed, sealed);
    }

    /// Gives an input, then checks and performs its effects.
    pub(super) fn give(&mut self, input: Input) {
        let arriving = match &input {
            Input::Chunk { id, is_valid, .. } => Some((*id, *is_valid)),
            _ => None,
        };
        let effects = self.swarm.handle(self.now, input);
        self.perform(effects, arriving);
        assert!(self.begun.len() as u64 <= SEGMENTS);
        let in_memory = self.assembled.len() + usize::from(self.assembling.is_some());
        assert!(in_memory <= IN_MEMORY_MAX, "{in_memory} segments in memory");
    }

    fn perform(&mut self, effects: Vec<Effect>, arriving: Option<(ChunkId, bool)>) {
        for effect in effects {
            match effect {
                Effect::Send(peer, bytes) | Effect::Answer(peer, bytes) => {
                    self.on_message(peer, &bytes)
                }
                Effect::SendChunk { to, id, name } => self.on_send_chunk(to, id, name),
                Effect::SendManifest { peer, height, first, known } => {
                    assert!(self.links.contains_key(&peer), "{peer:?} is not linked");
                    let is_asked =
                        |one: &SegmentDescriptor| one.index >= first.0 && one.last < height;
                    assert!(known.len() <= DESCRIPTORS_MAX && known.iter().all(is_asked));
                    let made = self.made.descriptors(SEGMENTS as usize);
                    assert!(known.iter().all(|one| made.contains(one)), "{known:?} is not proved");
                }
                Effect::SendHead(peer, index) => {
                    assert!(self.links.contains_key(&peer), "{peer:?} is not linked");
                    let is_here = (self.first..self.sealed).contains(&index);
                    assert!(is_here, "the store has no segment {index:?}");
                }
                Effect::Begin(_, head) => {
                    let index = SegmentIndex(head.descriptor.index);
                    assert_eq!(
                        Some(&head),
                        known(self.made, index),
                        "only proved segments are fetched"
                    );
                    assert!(
                        index >= self.sealed && self.begun.insert(index, head).is_none(),
                        "{index:?} is begun once"
                    );
                }
                Effect::Store(id) if id.segment.collection != HISTORY => {
                    assert_eq!(arriving, Some((id, true)), "only proved chunks are stored");
                    self.store_part(id);
                }
                Effect::Store(id) => {
                    assert_eq!(arriving, Some((id, true)), "only proved chunks are stored");
                    assert!(
                        self.begun.contains_key(&id.segment.index) && self.stored.insert(id),
                        "{id:?} is stored once"
                    );
                }
                Effect::SaveManifest(bytes) => self.manifest = Some(bytes),
                Effect::Assemble(index) => {
                    assert!(self.assembling.is_none(), "one segment is read at a time");
                    let chunks = self.begun.get(&index).map_or(0, |head| head.chunks.len());
                    let here = self.stored.iter().filter(|id| id.segment.index == index).count();
                    assert!(chunks > 0 && here == chunks, "{here} of {chunks} chunks of {index:?}");
                    self.assembling = Some(index);
                }
                Effect::Apply(index) => {
                    assert!(
                        self.assembled.contains(&index),
                        "{index:?} is applied once it is verified"
                    );
                    assert_eq!(
                        (index, self.applying),
                        (self.sealed, None),
                        "segments are applied in order"
                    );
                    self.applying = Some(index);
                }
                Effect::Keep(index) => panic!("nothing of backfill is missing, but {index:?} came"),
                Effect::Release(SegmentId { index, .. }) => {
                    assert!(index < self.sealed, "{index:?} is still needed");
                    self.begun.remove(&index);
                    self.assembled.remove(&index);
                    self.stored.retain(|id| id.segment.index != index);
                }
                Effect::SendBlockProof(..) => {}
                Effect::SendFileHead { .. }
                | Effect::BeginFileSegment(..)
                | Effect::FileDone(_) => panic!("no file is here or wanted"),
                Effect::BeginSnapshot(offer) => self.files.begin(offer),
                Effect::DropSnapshot(id) => self.files.remove(id),
                Effect::LoadSnapshot { id, descriptors } => {
                    self.files.on_load(id, self.made, &descriptors);
                }
                Effect::JoinFailed(failure) => assert!(!failure.is_fatal(), "{failure}"),
                Effect::Plan(plan) => {
                    let end = Height(self.made.target.header.height.0 - 1);
                    let is_whole =
                        |range: HeightRange| range.first <= range.last && range.last == end;
                    assert!(plan.segments().is_none_or(is_whole), "{plan:?}");
                }
                Effect::Ban { peer, offence } => {
                    assert!(HOSTILE.contains(&peer), "the honest {peer:?} is banned: {offence}");
                    self.links.remove(&peer);
                    self.writing.retain(|(to, _)| *to != peer);
                }
            }
        }
    }

    fn on_message(&mut self, peer: PeerId, bytes: &[u8]) {
        assert!(bytes.len() <= SYNC_MESSAGE_BYTES_MAX, "{} bytes", bytes.len());
        let message = SyncMessage::decode(bytes).expect("the machine sends messages");
        let link = self
            .links
            .get_mut(&peer)
            .unwrap_or_else(|| panic!("{peer:?} is not linked: {message:?}"));
        let is_first = !std::mem::replace(&mut link.is_greeted, true);
        let is_open = message == SyncMessage::Open(HISTORY, self.made.id());
        assert_eq!(is_first, is_open, "history is opened first, and once: {message:?}");
        match message {
            SyncMessage::Update(update) => {
                for id in &update.remove {
                    link.wants.remove(id);
                }
                for id in update.add {
                    let is_part = id.segment.collection != HISTORY;
                    assert!(is_part || self.made.chunk(id).is_some(), "{id:?} does not exist");
                    link.wants.insert(id);
                }
                assert!(
                    link.wants.len() <= WANTS_MAX,
                    "{} chunks are wanted from {peer:?}",
                    link.wants.len()
                );
                assert!(
                    update.allowed >= link.allowed && update.received <= link.given,
                    "counts never go back"
                );
                link.allowed = update.allowed;
                let in_flight = link.allowed.saturating_sub(link.given);
                assert!(in_flight <= IN_FLIGHT_MAX, "{in_flight} chunks in flight from {peer:?}");
            }
            question @ (SyncMessage::GetManifest(..)
            | SyncMessage::GetHead(_)
            | SyncMessage::GetFrontier(..)) => link.questions.push_back(question),
            open @ SyncMessage::Open(..) if !is_first => link.questions.push_back(open),
            SyncMessage::Holdings(number, _) | SyncMessage::Held(number, _) => {
                let is_own = self.swarm.kind(number).is_some();
                assert!(is_own, "the machine uses its own number");
            }
            _ => {}
        }
    }

    fn on_send_chunk(&mut self, peer: PeerId, id: ChunkId, name: ChunkId) {
        let is_here = match id.segment.collection {
            HISTORY => {
                (self.first..self.sealed).contains(&id.segment.index) || self.stored.contains(&id)
            }
            _ => self.has_part(id),
        };
        assert!(is_here, "{id:?} is not here");
        let link = self.links.get_mut(&peer).unwrap_or_else(|| panic!("{peer:?} is not linked"));
        assert!(link.asked.remove(&name), "{peer:?} did not ask for {name:?}");
        link.sent += 1;
        assert!(link.sent <= link.credit, "{peer:?} allowed {} chunks", link.credit);
        let under_way = link.sent.saturating_sub(link.received) * CHUNK_BYTES;
        assert!(under_way <= UNDER_WAY_MAX, "{under_way} bytes are in flight to {peer:?}");
        self.writing.push_back((peer, id));
    }
}

/// The head of a segment of the chain; `None` if there is no such segment.
fn known(made: &Made, index: SegmentIndex) -> Option<&SegmentHead> {
    made.heads.get(usize::try_from(index.0).ok()?)
}

fn swarm(
    made: &'static Made,
    kept: Range<SegmentIndex>,
    join: Option<Join>,
    staged: Vec<(SegmentHead, Vec<bool>)>,
    manifest: Option<Vec<u8>>,
    now: Duration,
) -> (Swarm, Vec<Effect>) {
    let (chain, rates) = (Arc::clone(&made.chain), Rates::default());
    let history = made.history(usize::try_from(kept.end.0).expect("few segments"));
    let mut whole = SegmentRanges::before(kept.end);
    for index in 0..kept.start.0 {
        whole.remove(SegmentIndex(index));
    }
    let (history, kept, nonce) = (&history, whole, 1);
    Swarm::new(Setup { chain, history, kept, staged, manifest, nonce, rates, join }, now)
}
