//! A machine that joins with a snapshot, among peers of all kinds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ledger::codec;
use ledger::hash::{BlockHash, Hash, SnapshotId};
use ledger::snapshot::{FRONTIER_PAGE_SUBTREES, Frontier};
use ledger::units::{Height, SegmentIndex};
use protocol::message::CertifiedHeader;
use protocol::swarm::message::{
    ChunkId, CollectionId, CollectionNumber, FrontierPage, Holdings, SyncMessage,
};
use protocol::swarm::{
    CollectionKind, Effect, HISTORY, Input, Join, JoinFailure, Rates, SegmentRanges, Setup,
    SnapshotOffer, Swarm, snapshot_chunk,
};
use protocol::{Offence, PeerId};
use tests::swarm::{Forgery, Made};

use super::super::MIB;

/// Five segments of 100 blocks, and a state of many chunks.
pub(super) fn made() -> &'static Made {
    static MADE: LazyLock<Made> =
        LazyLock::new(|| Made::with_accounts(5 * MIB, MIB, 16 << 10, 30_000));
    &MADE
}

/// The snapshot at the end of a segment.
pub(super) fn true_offer(segment: u64) -> SnapshotOffer {
    made().offer(SegmentIndex(segment), &made().accounts.frontier)
}

pub(super) fn forged_offer(segment: u64, forgery: Forgery) -> SnapshotOffer {
    made().offer(SegmentIndex(segment), &made().accounts.forge(forgery))
}

/// What a peer does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Conduct {
    #[default]
    Honest,
    /// Sends no chunk that would convict it.
    Withholds,
    /// Sends for each chunk of a snapshot the bytes that are most like it.
    Pretends,
    /// Sends other bytes for each chunk of a snapshot.
    Poisons,
    /// Refuses each request for a frontier.
    Refuses,
    /// Answers no request for a frontier.
    Silent,
    /// Has no segment of history, so it proves no block inside one.
    Pruned,
    /// Proves a false block inside a segment.
    FalseProof,
    /// Answers no request for the proof of a block.
    Unproving,
    /// Announces another snapshot when it is asked for the frontier of one.
    Changes,
}

/// A peer of the newcomer.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) conduct: Conduct,
    pub(super) offers: Vec<SnapshotOffer>,
    /// How it changes the first page of a frontier.
    pub(super) changes: Option<fn(&mut FrontierPage)>,
    /// Time between two chunks of a snapshot. Without one it sends all at once.
    pub(super) every: Option<Duration>,
    sends_at: Duration,
    wants: BTreeSet<ChunkId>,
    allowed: u64,
    given: u64,
    /// Requests for a frontier that it has heard.
    pub(super) asked: Vec<SnapshotId>,
}

/// The chunks of a snapshot that are on disk.
type Chunks = BTreeMap<u64, Vec<u8>>;

/// A machine that joins, and what its driver knows.
pub(super) struct Newcomer {
    pub(super) sync: Swarm,
    pub(super) now: Duration,
    pub(super) peers: BTreeMap<PeerId, Peer>,
    pub(super) banned: BTreeMap<PeerId, Offence>,
    /// The snapshots on disk, with the chunks that are there.
    files: BTreeMap<SnapshotId, (Arc<Frontier>, Chunks)>,
    /// The snapshots that were begun, in order.
    pub(super) begun: Vec<SnapshotId>,
    pub(super) loaded: Option<SnapshotId>,
    pub(super) failed: Option<JoinFailure>,
    /// The peers that it told that it has no snapshot, in order.
    pub(super) told_none: Vec<PeerId>,
    /// Heads of segments that it asked for.
    pub(super) heads: BTreeSet<u64>,
    /// The chunks that were stored, in order.
    pub(super) stored: Vec<ChunkId>,
    /// Chunks that the disk refuses.
    pub(super) refused: u32,
    /// Chunks that are damaged when they are loaded for the first time.
    pub(super) damaged: Vec<u64>,
}

fn say(message: &SyncMessage) -> Vec<u8> {
    codec::encode(message)
}

/// Announces a snapshot that is not there, of the highest block that may have one.
pub(super) fn false_name(number: u64) -> SyncMessage {
    let mut id = [0xee; 32];
    id[..8].copy_from_slice(&number.to_le_bytes());
    SyncMessage::Snapshots(vec![(Height(400), SnapshotId(Hash(id)))])
}

/// The holdings of a peer: the segments before this one.
fn holdings(peer: PeerId, end: u64) -> Holdings {
    let whole = SegmentRanges::before(SegmentIndex(end));
    Holdings { whole, open: Vec::new(), nonce: peer.0 }
}

/// A peer's number of history. Those of its snapshots follow.
const NUMBER: CollectionNumber = CollectionNumber(7);

impl Newcomer {
    pub(super) fn new(checkpoint: Option<(Height, BlockHash)>) -> Self {
        Self::with_rates(checkpoint, Rates::default())
    }

    pub(super) fn with_rates(checkpoint: Option<(Height, BlockHash)>, rates: Rates) -> Self {
        let setup = Setup {
            chain: made().chain.clone(),
            history: &made().history(0),
            kept: SegmentRanges::default(),
            staged: Vec::new(),
            manifest: None,
            nonce: 7,
            rates,
            join: Some(Join { checkpoint }),
        };
        let (sync, effects) = Swarm::new(setup, Duration::ZERO);
        assert!(effects.is_empty(), "{effects:?}");
        Self {
            sync,
            now: Duration::ZERO,
            peers: BTreeMap::new(),
            banned: BTreeMap::new(),
            files: BTreeMap::new(),
            begun: Vec::new(),
            loaded: None,
            failed: None,
            told_none: Vec::new(),
            heads: BTreeSet::new(),
            stored: Vec::new(),
            refused: 0,
            damaged: Vec::new(),
        }
    }

    /// A peer that has all of history and some snapshots connects.
    pub(super) fn meet(&mut self, peer: u64, conduct: Conduct, offers: Vec<SnapshotOffer>) {
        let id = PeerId(peer);
        let all = offers.iter().map(|offer| (offer.height, offer.id)).collect();
        let snapshots: Vec<(u64, SnapshotId)> =
            offers.iter().map(|offer| (offer.frontier.segment_count(), offer.id)).collect();
        self.peers.insert(id, Peer { conduct, offers, ..Peer::default() });
        self.give(Input::Opened(id));
        let count = if conduct == Conduct::Pruned { 0 } else { made().heads.len() as u64 };
        self.hear(id, &SyncMessage::Height(made().target.header.height));
        self.hear(id, &SyncMessage::Open(NUMBER, made().id()));
        self.hear(id, &SyncMessage::Holdings(NUMBER, holdings(id, count)));
        self.hear(id, &SyncMessage::Snapshots(all));
        for ((segments, snapshot), at) in snapshots.into_iter().zip(1..) {
            let number = CollectionNumber(NUMBER.0 + at);
            self.hear(id, &SyncMessage::Open(number, CollectionId(snapshot.0)));
            // Of use only if the newcomer has opened the collection.
            self.hear(id, &SyncMessage::Holdings(number, holdings(id, segments)));
        }
    }

    /// A chunk of a snapshot that is wanted from a peer.
    pub(super) fn wanted(&self, peer: u64) -> Option<ChunkId> {
        let mut wants = self.peers[&PeerId(peer)].wants.iter();
        wants.find(|id| id.segment.collection != HISTORY).copied()
    }

    pub(super) fn certify(&mut self) {
        self.give(Input::Certified(made().target.clone()));
    }

    pub(super) fn hear(&mut self, from: PeerId, message: &SyncMessage) {
        if self.peers.contains_key(&from) {
            self.give(Input::Message(from, say(message)));
        }
    }

    pub(super) fn leave(&mut self, peer: u64) {
        self.peers.remove(&PeerId(peer));
        self.give(Input::Closed(PeerId(peer)));
    }

    /// Lets time pass in small steps, in which peers send chunks, until joining is over or this
    /// much time has passed.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end && self.loaded.is_none() && self.failed.is_none() {
            self.step();
        }
    }

    pub(super) fn step(&mut self) {
        self.now += Duration::from_millis(50);
        self.give(Input::Time);
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.send_chunks(peer));
    }

    /// A peer sends chunks that are wanted from it.
    fn send_chunks(&mut self, from: PeerId) {
        for _ in 0..64 {
            let may = |peer: &&mut Peer| peer.given < peer.allowed && peer.sends_at <= self.now;
            let Some(peer) = self.peers.get_mut(&from).filter(may) else {
                return;
            };
            let is_wanted = |id: &&ChunkId| id.segment.collection != HISTORY;
            let Some(id) = peer.wants.iter().find(is_wanted).copied() else { return };
            peer.wants.remove(&id);
            let Some(CollectionKind::Snapshot(snapshot)) = self.sync.kind(id.segment.collection)
            else {
                continue;
            };
            let Some(offer) = peer.offers.iter().find(|offer| offer.id == snapshot) else {
                continue;
            };
            let index = snapshot_chunk(id);
            let mut bytes = made().accounts.chunk(&offer.frontier, index).unwrap();
            let is_true = offer.frontier.verify_chunk(index, &bytes).is_ok();
            if peer.conduct == Conduct::Withholds && !is_true {
                continue;
            }
            if peer.conduct == Conduct::Poisons {
                bytes[20] ^= 1;
            }
            peer.given += 1;
            peer.sends_at = peer.every.map_or(self.now, |every| self.now + every);
            let expected = self.sync.expected(from, id);
            let is_valid = expected.is_some_and(|expected| expected.verify(id, &bytes));
            let length = bytes.len() as u64;
            let input = Input::Chunk { from, id, is_valid, bytes: length };
            self.give_chunk(input, bytes);
        }
    }

    pub(super) fn give(&mut self, input: Input) {
        self.give_chunk(input, Vec::new());
    }

    fn give_chunk(&mut self, input: Input, bytes: Vec<u8>) {
        let mut effects = VecDeque::from(self.sync.handle(self.now, input));
        while let Some(effect) = effects.pop_front() {
            if let Some(input) = self.perform(effect, &bytes) {
                effects.extend(self.sync.handle(self.now, input));
            }
        }
    }

    fn perform(&mut self, effect: Effect, bytes: &[u8]) -> Option<Input> {
        match effect {
            Effect::Send(peer, message) | Effect::Answer(peer, message) => {
                let message = SyncMessage::decode(&message).unwrap();
                if message == SyncMessage::Snapshots(Vec::new()) {
                    self.told_none.push(peer);
                }
                let answer = self.answer(peer, &message);
                return answer.map(|answer| Input::Message(peer, say(&answer)));
            }
            Effect::BeginSnapshot(SnapshotOffer { id, frontier, .. }) => {
                self.begun.push(id);
                let before = self.files.insert(id, (frontier, BTreeMap::new()));
                assert!(before.is_none(), "a file is made once");
            }
            Effect::DropSnapshot(id) => {
                assert!(self.files.remove(&id).is_some(), "only files that were made are dropped");
            }
            Effect::Store(id) => {
                let Some(CollectionKind::Snapshot(snapshot)) =
                    self.sync.kind(id.segment.collection)
                else {
                    return None;
                };
                if self.refused > 0 {
                    self.refused -= 1;
                    return Some(Input::Refused(id));
                }
                let (_, chunks) = self.files.get_mut(&snapshot).unwrap();
                let before = chunks.insert(snapshot_chunk(id), bytes.to_vec());
                assert!(before.is_none(), "{id:?} is stored once");
                self.stored.push(id);
            }
            Effect::LoadSnapshot { id, descriptors } => {
                return Some(self.load(id, descriptors.len()));
            }
            Effect::JoinFailed(failure) => self.failed = Some(failure),
            Effect::Ban { peer, offence } => {
                self.peers.remove(&peer);
                self.banned.insert(peer, offence);
            }
            _ => {}
        }
        None
    }

    fn load(&mut self, id: SnapshotId, segments: usize) -> Input {
        let (frontier, chunks) = self.files.get_mut(&id).unwrap();
        let damaged = std::mem::take(&mut self.damaged);
        if !damaged.is_empty() {
            damaged.iter().for_each(|chunk| drop(chunks.remove(chunk)));
            return Input::LoadFailed { id, damaged };
        }
        let verified = chunks.iter().map(|(index, bytes)| frontier.verify_chunk(*index, bytes));
        let state = frontier.assemble(verified.map(Result::unwrap)).unwrap();
        assert_eq!(state.root(), made().accounts.state.root());
        self.loaded = Some(id);
        Input::Loaded { id, history: made().history(segments) }
    }

    /// What a peer answers.
    fn answer(&mut self, from: PeerId, message: &SyncMessage) -> Option<SyncMessage> {
        let peer = self.peers.get_mut(&from)?;
        match message {
            SyncMessage::Update(update) => {
                peer.wants.retain(|id| !update.remove.contains(id));
                peer.wants.extend(&update.add);
                peer.allowed = update.allowed.max(peer.allowed);
                None
            }
            SyncMessage::Open(_, id) => {
                let at = peer.offers.iter().position(|offer| offer.id.0 == id.0)?;
                let number = CollectionNumber(NUMBER.0 + 1 + at as u16);
                let count = peer.offers[at].frontier.segment_count();
                Some(SyncMessage::Holdings(number, holdings(from, count)))
            }
            SyncMessage::GetManifest(height, first) => {
                let all = made().descriptors(made().manifest_index(*height));
                let rest = all.into_iter().skip(first.0 as usize).collect();
                Some(SyncMessage::Manifest(*height, *first, Some(rest)))
            }
            SyncMessage::GetHead(index) => {
                self.heads.insert(index.0);
                None
            }
            SyncMessage::GetFrontier(id, page) => {
                peer.asked.push(*id);
                if peer.conduct == Conduct::Changes {
                    return Some(false_name(peer.asked.len() as u64));
                }
                let offer = peer.offers.iter().find(|offer| offer.id == *id);
                let page_of = |offer: &SnapshotOffer| {
                    let first = *page as usize * FRONTIER_PAGE_SUBTREES;
                    let subtrees = offer.frontier.descriptors()[first..].to_vec();
                    let (header, certificate) = (offer.header.clone(), offer.certificate.clone());
                    FrontierPage { block: Some(CertifiedHeader { header, certificate }), subtrees }
                };
                let mut answer = offer.map(page_of).filter(|_| peer.conduct != Conduct::Refuses);
                if let (Some(change), Some(page)) = (peer.changes, &mut answer) {
                    change(page);
                }
                let is_silent = peer.conduct == Conduct::Silent;
                (!is_silent).then_some(SyncMessage::Frontier(*id, *page, answer))
            }
            SyncMessage::GetBlockProof(_) if peer.conduct == Conduct::Unproving => None,
            SyncMessage::GetBlockProof(height) => {
                let other = if peer.conduct == Conduct::FalseProof { 1 } else { 0 };
                let proof = made().block_proof(Height(height.0 + other));
                Some(SyncMessage::BlockProof(*height, proof))
            }
            _ => None,
        }
    }
}
