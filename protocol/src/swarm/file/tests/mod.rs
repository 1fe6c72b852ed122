#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

mod hostile;
mod liars;

use ledger::codec;
use ledger::file::{CHUNK_BYTES, SEGMENT_BYTES, SEGMENT_CHUNKS, segment_leaf};
use ledger::hash::Domain;
use ledger::merkle::MerkleTree;

use super::places::OPEN_MAX;
use super::*;
use crate::swarm::message::{CollectionId, Holdings, Update};
use crate::swarm::segments::OPEN_SEGMENTS_MAX;
use crate::swarm::tests::{genesis_state, sync};
use crate::swarm::{CollectionKind, Input, SegmentRange, Swarm};

const A: PeerId = PeerId(1);
const B: PeerId = PeerId(2);
/// The peers' number for the file.
const THEIRS: CollectionNumber = CollectionNumber(9);

/// A file without bytes.
struct Made {
    id: FileId,
    descriptor: FileDescriptor,
    hashes: Vec<Hash>,
    tree: MerkleTree,
}

fn made(length: u64, number: u64) -> Made {
    let chunks = length.div_ceil(CHUNK_BYTES);
    let hash = |at: u64| Hash::of(Domain::Chunk, &[&number.to_le_bytes(), &at.to_le_bytes()]);
    let hashes: Vec<Hash> = (0..chunks).map(hash).collect();
    let leaves: Vec<Hash> = hashes.chunks(SEGMENT_CHUNKS as usize).map(segment_leaf).collect();
    let tree = MerkleTree::new(&leaves);
    let descriptor = FileDescriptor { length, root: tree.root() };
    Made { id: descriptor.id(), descriptor, hashes, tree }
}

impl Made {
    fn head(&self, segment: u64) -> FileHead {
        let range = self.descriptor.segment_chunks(segment).unwrap();
        let chunks = self.hashes[range.start as usize..range.end as usize].to_vec();
        let path = self.tree.prove(segment as usize).unwrap();
        FileHead { descriptor: self.descriptor, chunks, path }
    }

    /// The first `segments` of it are here.
    fn held(&self, segments: u64) -> HeldFile {
        let whole = SegmentRanges::before(SegmentIndex(segments));
        let descriptor = (segments > 0).then_some(self.descriptor);
        HeldFile { id: self.id, descriptor, whole, begun: Vec::new() }
    }
}

/// A machine at a time.
struct Node {
    swarm: Swarm,
    now: Duration,
}

impl Node {
    fn new(peers: &[PeerId]) -> Self {
        let mut node = Self { swarm: sync(&genesis_state()), now: Duration::from_secs(100) };
        for peer in peers {
            node.give(Input::Opened(*peer));
        }
        node
    }

    fn give(&mut self, input: Input) -> Vec<Effect> {
        self.swarm.handle(self.now, input)
    }

    fn say(&mut self, from: PeerId, message: &SyncMessage) -> Vec<Effect> {
        self.give(Input::Message(from, codec::encode(message)))
    }

    /// Lets time pass, and gives the machine each of its deadlines.
    fn wait(&mut self, time: Duration) -> Vec<Effect> {
        let (end, mut effects) = (self.now + time, Vec::new());
        while let Some(at) = self.swarm.deadline().filter(|at| *at < end) {
            self.now = at.max(self.now + Duration::from_millis(1));
            effects.extend(self.give(Input::Time));
        }
        self.now = end;
        effects.extend(self.give(Input::Time));
        effects
    }

    fn elapse(&mut self, time: Duration) -> Vec<Effect> {
        self.now += time;
        self.give(Input::Time)
    }

    /// A peer opens the file and claims the first `segments`.
    fn claim(&mut self, from: PeerId, made: &Made, segments: u64) -> Vec<Effect> {
        self.claim_range(from, made, 0, segments - 1)
    }

    /// A peer opens the file and claims the segments from `first` to `last`.
    fn claim_range(&mut self, from: PeerId, made: &Made, first: u64, last: u64) -> Vec<Effect> {
        let id = CollectionId(made.id.0);
        let mut effects = self.say(from, &SyncMessage::Open(THEIRS, id));
        let mut whole = SegmentRanges::default();
        whole.insert(SegmentRange { first: SegmentIndex(first), last: SegmentIndex(last) });
        let holdings = Holdings { whole, open: Vec::new(), nonce: from.0 };
        effects.extend(self.say(from, &SyncMessage::Holdings(THEIRS, holdings)));
        effects
    }

    /// A peer gives all that the effects ask it for: heads and chunks.
    fn serve(&mut self, from: PeerId, made: &Made, mut effects: Vec<Effect>) -> Vec<Effect> {
        let mut all = effects.clone();
        for _ in 0..10_000 {
            let mut next = Vec::new();
            for (peer, message) in sent(&effects) {
                if let SyncMessage::GetFileHead(id, segment) = message
                    && peer == from
                {
                    let head = Some(made.head(segment.0));
                    next.extend(self.say(from, &SyncMessage::FileHead(id, segment, head)));
                }
            }
            let number = self.swarm.file.open.iter().find(|(_, id)| **id == made.id);
            let Some(number) = number.map(|(number, _)| *number) else { break };
            let missing = self.swarm.engine.segments().of(number);
            let missing: Vec<ChunkId> = missing.flat_map(|one| one.missing_chunks()).collect();
            let wanted = |id: &&ChunkId| self.swarm.expected(from, **id).is_some();
            if let Some(id) = missing.iter().find(wanted).copied() {
                let chunk = Input::Chunk { from, id, is_valid: true, bytes: CHUNK_BYTES };
                next.extend(self.give(chunk));
            } else if next.is_empty() {
                self.now += Duration::from_millis(100);
                next.extend(self.give(Input::Time));
                if missing.is_empty() && sent(&next).is_empty() {
                    break;
                }
            }
            all.extend(next.clone());
            effects = next;
        }
        all
    }

    fn report(&self, id: FileId) -> FileReport {
        self.swarm.report().files.into_iter().find(|report| report.id == id).unwrap()
    }
}

fn sent(effects: &[Effect]) -> Vec<(PeerId, SyncMessage)> {
    let messages = effects.iter().filter_map(|effect| match effect {
        Effect::Send(peer, bytes) | Effect::Answer(peer, bytes) => {
            Some((*peer, SyncMessage::decode(bytes).unwrap()))
        }
        _ => None,
    });
    messages.collect()
}

fn asked(effects: &[Effect]) -> Vec<(PeerId, u64)> {
    let asked = sent(effects).into_iter().filter_map(|(peer, message)| match message {
        SyncMessage::GetFileHead(_, segment) => Some((peer, segment.0)),
        _ => None,
    });
    asked.collect()
}

fn bans(effects: &[Effect]) -> Vec<(PeerId, Offence)> {
    let bans = effects.iter().filter_map(|effect| match effect {
        Effect::Ban { peer, offence } => Some((*peer, offence.clone())),
        _ => None,
    });
    bans.collect()
}

fn is_done(effects: &[Effect], id: FileId) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::FileDone(done) if *done == id))
}

#[test]
fn a_file_that_is_only_served_is_told_to_those_who_ask() {
    let mut node = Node::new(&[A]);
    let file = made(3 * SEGMENT_BYTES, 1);
    assert_eq!(sent(&node.give(Input::FileHeld(file.held(3)))), []);
    let names = |effects: &[Effect]| {
        let is_it = |id: &CollectionId| id.0 == file.id.0;
        let open = |message: &SyncMessage| matches!(message, SyncMessage::Open(_, id) if is_it(id));
        sent(effects).into_iter().filter(|(_, message)| open(message)).count()
    };
    assert_eq!(names(&node.give(Input::Opened(B))), 0, "nobody hears of it");
    let said = sent(&node.say(A, &SyncMessage::Open(THEIRS, CollectionId(file.id.0))));
    let [(A, SyncMessage::Open(number, _)), (A, SyncMessage::Holdings(same, held))] = &said[..]
    else {
        panic!("{said:?}")
    };
    assert_eq!((number, held.whole.count()), (same, 3));
    assert_eq!(node.swarm.kind(*number), Some(CollectionKind::File(file.id)));
    assert_eq!(node.report(file.id).here_bytes, 3 * SEGMENT_BYTES);
    // Once nobody has it open, it needs no place.
    node.say(A, &SyncMessage::Close(THEIRS));
    assert_eq!(node.swarm.kind(*number), None);
    assert_eq!(node.report(file.id).here_bytes, 3 * SEGMENT_BYTES, "it is still here");
}

#[test]
fn a_file_is_told_to_all_while_it_is_fetched_and_then_served() {
    let mut node = Node::new(&[A]);
    let file = made(2 * SEGMENT_BYTES + 5, 1);
    let said = sent(&node.give(Input::FileWanted(file.held(0), ByteRange::ALL)));
    assert!(matches!(said[..], [(A, SyncMessage::Open(_, id))] if id.0 == file.id.0), "{said:?}");
    let reason = node.report(file.id).reason.unwrap();
    assert_eq!(reason, "no connected peer has the file");
    let effects = node.claim(A, &file, 3);
    assert_eq!(asked(&effects), [(A, 0)], "one head tells the length");
    let effects = node.serve(A, &file, effects);
    assert!(is_done(&effects, file.id));
    assert_eq!(bans(&effects), []);
    let stored = effects.iter().filter(|effect| matches!(effect, Effect::Store(_))).count();
    assert_eq!(stored, 257);
    let report = node.report(file.id);
    assert_eq!(
        (report.wanted_bytes, report.here_bytes),
        (file.descriptor.length, file.descriptor.length)
    );
    assert!(report.is_done && report.peers == 1, "{report:?}");
    // It is not announced to new peers, but served to those that ask.
    let said = sent(&node.give(Input::Opened(B)));
    assert!(
        !said.iter().any(|(_, message)| {
            matches!(message, SyncMessage::Open(_, id) if id.0 == file.id.0)
        })
    );
    let mut said = sent(&node.say(B, &SyncMessage::Open(THEIRS, CollectionId(file.id.0))));
    said.retain(|(peer, _)| *peer == B);
    assert!(matches!(said[..], [(B, SyncMessage::Open(..)), (B, SyncMessage::Holdings(..))]));
    let effects = node.say(B, &SyncMessage::GetFileHead(file.id, SegmentIndex(2)));
    let is_sent = |effect: &Effect| matches!(effect, Effect::SendFileHead { peer: B, .. });
    assert!(effects.iter().any(is_sent), "{effects:?}");
}

#[test]
fn a_part_of_a_file_needs_its_segments_alone() {
    let mut node = Node::new(&[A]);
    let file = made(40 * SEGMENT_BYTES, 1);
    let range = ByteRange { first: 30 * SEGMENT_BYTES - 1, last: 30 * SEGMENT_BYTES };
    node.give(Input::FileWanted(file.held(0), range));
    let effects = node.claim(A, &file, 40);
    assert_eq!(asked(&effects), [(A, 29)], "the head of the first byte");
    let effects = node.serve(A, &file, effects);
    assert!(is_done(&effects, file.id));
    let begun = effects.iter().filter_map(|effect| match effect {
        Effect::BeginFileSegment(_, head) => Some(head.index()),
        _ => None,
    });
    assert_eq!(begun.collect::<Vec<_>>(), [29, 30]);
    assert_eq!(node.report(file.id).wanted_bytes, 2 * SEGMENT_BYTES);
    // Another part adds up. What is here is not fetched again.
    let range = ByteRange { first: 29 * SEGMENT_BYTES, last: 32 * SEGMENT_BYTES - 1 };
    node.give(Input::FileWanted(file.held(0), range));
    let effects = node.claim(A, &file, 40);
    assert_eq!(asked(&effects), [(A, 31)]);
    let effects = node.serve(A, &file, effects);
    assert!(is_done(&effects, file.id));
    // A part beyond the end is nothing.
    let range = ByteRange { first: 40 * SEGMENT_BYTES, last: u64::MAX };
    assert!(is_done(&node.give(Input::FileWanted(file.held(0), range)), file.id));
}

#[test]
fn heads_are_asked_for_in_order_and_few_at_a_time() {
    let mut node = Node::new(&[A]);
    let file = made(100 * SEGMENT_BYTES, 1);
    node.give(Input::FileWanted(file.held(0), ByteRange::ALL));
    node.claim(A, &file, 100);
    let (mut next, mut open) = (1, 0);
    let first = SyncMessage::FileHead(file.id, SegmentIndex(0), Some(file.head(0)));
    let mut waiting: Vec<u64> = asked(&node.say(A, &first)).iter().map(|(_, at)| *at).collect();
    while let Some(segment) = waiting.first().copied() {
        assert!(waiting.len() <= 8 && segment == next, "{waiting:?}");
        waiting.remove(0);
        next += 1;
        let head = Some(file.head(segment));
        let effects = node.say(A, &SyncMessage::FileHead(file.id, SegmentIndex(segment), head));
        waiting.extend(asked(&effects).iter().map(|(_, at)| *at));
        open = node.swarm.engine.segments().iter().count();
        assert!(open <= OPEN_SEGMENTS_MAX);
    }
    assert_eq!(open, OPEN_SEGMENTS_MAX);
}

#[test]
fn a_chunk_that_is_damaged_on_disk_is_fetched_again() {
    let mut node = Node::new(&[A, B]);
    let file = made(2 * SEGMENT_BYTES, 1);
    node.give(Input::FileWanted(file.held(0), ByteRange::ALL));
    let effects = node.claim(A, &file, 2);
    let effects = node.serve(A, &file, effects);
    assert!(is_done(&effects, file.id));
    assert!(node.swarm.file.open.is_empty(), "two that have all of it need no collection");
    node.say(B, &SyncMessage::Open(THEIRS, CollectionId(file.id.0)));
    node.claim(A, &file, 2);
    let number = *node.swarm.file.open.iter().find(|(_, id)| **id == file.id).unwrap().0;
    let id = number.segment(SegmentIndex(1)).chunk(7);
    let effects = node.give(Input::Unsent(B, id));
    assert_eq!(asked(&effects), [(A, 1)]);
    assert!(!node.report(file.id).is_done);
    let effects = node.serve(A, &file, effects);
    let stored = effects.iter().filter_map(|effect| match effect {
        Effect::Store(id) => Some(*id),
        _ => None,
    });
    assert_eq!(stored.collect::<Vec<_>>(), [id]);
    assert!(is_done(&effects, file.id));
}

#[test]
fn an_earlier_run_is_continued() {
    let mut node = Node::new(&[A]);
    let file = made(3 * SEGMENT_BYTES, 1);
    let mut here = vec![true; 128];
    here[5] = false;
    let mut wrong = file.head(2);
    wrong.chunks[0] = Hash::ZERO;
    let begun = vec![(file.head(1), here.clone()), (wrong, here)];
    let held = HeldFile { begun, ..file.held(1) };
    node.give(Input::FileWanted(held, ByteRange::ALL));
    let effects = node.claim(A, &file, 3);
    assert_eq!(asked(&effects), [(A, 2)], "a damaged head is asked for again");
    let effects = node.serve(A, &file, effects);
    let stored = effects.iter().filter(|effect| matches!(effect, Effect::Store(_))).count();
    assert_eq!(stored, 129);
    assert!(is_done(&effects, file.id));
}

#[test]
fn a_file_that_is_gone_is_neither_fetched_nor_served() {
    let mut node = Node::new(&[A]);
    let file = made(2 * SEGMENT_BYTES, 1);
    node.give(Input::FileWanted(file.held(0), ByteRange::ALL));
    node.claim(A, &file, 2);
    let number = *node.swarm.file.open.keys().next().unwrap();
    let said = sent(&node.give(Input::FileGone(file.id)));
    assert_eq!(said, [(A, SyncMessage::Close(number))]);
    let head = SyncMessage::FileHead(file.id, SegmentIndex(0), Some(file.head(0)));
    assert_eq!(sent(&node.say(A, &head)), []);
    let said = sent(&node.say(A, &SyncMessage::GetFileHead(file.id, SegmentIndex(0))));
    assert_eq!(said, [(A, SyncMessage::FileHead(file.id, SegmentIndex(0), None))]);
    assert!(node.swarm.report().files.is_empty());
}

#[test]
fn the_empty_file_needs_no_peer() {
    let mut node = Node::new(&[]);
    let file = made(0, 0);
    assert_eq!(file.descriptor, FileDescriptor::empty());
    let effects = node.give(Input::FileWanted(file.held(0), ByteRange::ALL));
    assert!(is_done(&effects, file.id));
}

#[test]
fn of_many_files_those_that_are_served_keep_their_places() {
    let peers: Vec<PeerId> = (1..=3).map(PeerId).collect();
    let mut node = Node::new(&peers);
    let files: Vec<Made> = (0..60).map(|number| made(5, number)).collect();
    for file in &files {
        node.give(Input::FileHeld(file.held(1)));
    }
    let open = |node: &mut Node, file: usize| {
        let (peer, number) = (peers[file / 30], CollectionNumber(100 + file as u16));
        node.say(peer, &SyncMessage::Open(number, CollectionId(files[file].id.0)));
    };
    (0..60).for_each(|file| open(&mut node, file));
    let places = |node: &Node| -> Vec<usize> {
        let at = |id: &FileId| files.iter().position(|file| file.id == *id).unwrap();
        node.swarm.file.open.values().map(at).collect()
    };
    assert_eq!(places(&node).len(), OPEN_MAX);
    // One of them is used, the others give way in time.
    let used = places(&node)[0];
    node.now += Duration::from_secs(29);
    let id = CollectionNumber(100 + used as u16).segment(SegmentIndex(0)).chunk(0);
    let update = Update { add: vec![id], allowed: 1, ..Update::default() };
    let effects = node.say(peers[used / 30], &SyncMessage::Update(update));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::SendChunk { .. })));
    node.elapse(Duration::from_secs(2));
    assert!(places(&node).contains(&used));
    assert_eq!(places(&node).len(), OPEN_MAX);
    let waiting = (0..60).filter(|file| !places(&node).contains(file)).count();
    assert_eq!(waiting, 12);
    assert!((48..60).all(|file| places(&node).contains(&file)), "{:?}", places(&node));
}

#[test]
fn a_fetch_that_nobody_answers_is_told_again() {
    let mut node = Node::new(&[A]);
    let file = made(5, 1);
    let is_told = |effects: &[Effect]| {
        let said = sent(effects);
        said.iter()
            .any(|(_, message)| matches!(message, SyncMessage::Open(_, id) if id.0 == file.id.0))
    };
    assert!(is_told(&node.give(Input::FileWanted(file.held(0), ByteRange::ALL))));
    assert!(!is_told(&node.elapse(Duration::from_secs(29))));
    assert_eq!(node.swarm.deadline(), Some(node.now + Duration::from_secs(1)));
    assert!(is_told(&node.elapse(Duration::from_secs(1))));
    node.claim(A, &file, 1);
    assert!(!is_told(&node.elapse(Duration::from_secs(30))));
}

/// The file has seemed whole.
#[test]
fn a_file_of_which_the_disk_refuses_the_last_chunk_is_fetched_on() {
    let mut node = Node::new(&[A]);
    let file = made(CHUNK_BYTES, 1);
    node.give(Input::FileWanted(file.held(0), ByteRange::ALL));
    let effects = node.claim(A, &file, 1);
    let asked = asked(&effects);
    assert_eq!(asked, [(A, 0)]);
    node.say(A, &SyncMessage::FileHead(file.id, SegmentIndex(0), Some(file.head(0))));
    let number = *node.swarm.file.open.keys().next().unwrap();
    let id = number.segment(SegmentIndex(0)).chunk(0);
    let chunk = Input::Chunk { from: A, id, is_valid: true, bytes: CHUNK_BYTES };
    assert!(is_done(&node.give(chunk), file.id));
    node.give(Input::Refused(id));
    assert!(!node.report(file.id).is_done);
    let effects = node.elapse(Duration::from_secs(11));
    assert!(is_done(&node.serve(A, &file, effects), file.id));
}
