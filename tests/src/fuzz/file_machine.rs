//! The target for files in the swarm machine, among honest and hostile peers.
//!
//! One file is to be fetched and another one is served. Whatever the input chooses, these rules
//! hold. Only proved heads and chunks are stored, each chunk once. Only chunks that are here are
//! sent, and only to peers that asked for them. No honest peer is banned, and at the end the file
//! comes from honest peers.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ledger::hash::{FileId, Hash};
use ledger::units::SegmentIndex;
use protocol::PeerId;
use protocol::swarm::message::{
    ChunkId, CollectionId, CollectionNumber, Holdings, SyncMessage, Update,
};
use protocol::swarm::{
    ByteRange, CollectionKind, Effect, Expected, HeldFile, Input, Rates, SegmentRange,
    SegmentRanges, Setup, Swarm, file_chunk,
};

use super::sample::{NOISE_BYTES, Sample};
use super::stream::Stream;
use super::swarm_machine::made;
use crate::swarm::MadeFile;

const HONEST: [PeerId; 2] = [PeerId(1), PeerId(2)];
const HOSTILE: [PeerId; 3] = [PeerId(3), PeerId(4), PeerId(5)];
/// The honest peer that opens a link at the end.
const HELPER: PeerId = PeerId(9);
/// Most choices of one input, so that no input takes long.
const CHOICES_MAX: usize = 512;
/// Most steps until the file is here, once only honest peers are left. It takes far fewer.
const STEPS_MAX: usize = 2_000;

/// Two segments, the second one with two chunks.
static WANTED: LazyLock<MadeFile> = LazyLock::new(|| MadeFile::new((16 << 20) + 200_000, 1));
/// A file of three chunks.
static SERVED: LazyLock<MadeFile> = LazyLock::new(|| MadeFile::new(300_000, 2));

fn files() -> [&'static MadeFile; 2] {
    [&WANTED, &SERVED]
}

fn made_file(id: &FileId) -> Option<&'static MadeFile> {
    files().into_iter().find(|file| file.id == *id)
}

/// A link as its peer sees it.
#[derive(Default)]
struct Link {
    wants: BTreeSet<ChunkId>,
    allowed: u64,
    given: u64,
    has_greeted: bool,
    questions: VecDeque<(FileId, SegmentIndex)>,
}

struct Shell {
    swarm: Swarm,
    now: Duration,
    links: BTreeMap<PeerId, Link>,
    begun: BTreeSet<u64>,
    stored: BTreeSet<u64>,
    writing: VecDeque<(PeerId, ChunkId)>,
    is_done: bool,
    has_stored: bool,
}

/// Runs one input, which is a list of choices, as for `swarm_machine`.
pub fn file_machine(data: &[u8]) -> bool {
    let mut stream = Stream(data);
    let mut shell = Shell::new();
    for _ in 0..CHOICES_MAX {
        let Some(choice) = stream.next() else { break };
        choose(&mut shell, choice, &mut stream);
    }
    let is_useful = shell.has_stored;
    finish(&mut shell);
    is_useful
}

fn choose(shell: &mut Shell, choice: u8, stream: &mut Stream<'_>) {
    let honest = |stream: &mut Stream<'_>| HONEST[stream.below(HONEST.len())];
    let hostile = |stream: &mut Stream<'_>| HOSTILE[stream.below(HOSTILE.len())];
    match choice % 14 {
        0 => shell.elapse(Duration::from_millis(u64::from(stream.byte()) * 20)),
        1 => shell.open(honest(stream)),
        2 => shell.open(hostile(stream)),
        3 => shell.close(honest(stream)),
        4 => shell.close(hostile(stream)),
        5 => {
            let (peer, bytes) = (hostile(stream), stream.bytes().to_vec());
            shell.message(peer, bytes);
        }
        6 | 7 => {
            let peer = hostile(stream);
            let lie = lie(stream);
            shell.say(peer, &lie);
        }
        8 => shell.greet(honest(stream)),
        9 => shell.answer(honest(stream)),
        10 => {
            let (peer, which) = (honest(stream), stream.byte());
            shell.give_chunk(peer, which, true);
        }
        11 => {
            let (peer, which, right) = (hostile(stream), stream.byte(), stream.byte());
            shell.give_chunk(peer, which, right & 1 == 0);
        }
        12 => shell.write(stream.byte()),
        _ => shell.change(stream.byte()),
    }
}

/// A well-formed message of a hostile peer.
fn lie(stream: &mut Stream<'_>) -> SyncMessage {
    let file = files()[stream.below(2)];
    let number = CollectionNumber(u16::from(stream.byte() % 4));
    let segment = SegmentIndex(match stream.byte() {
        byte @ 0..=199 => u64::from(byte % 4),
        byte => u64::MAX - u64::from(byte),
    });
    let chunk = number.segment(segment).chunk(u32::from(stream.byte()));
    match stream.below(9) {
        0 | 1 => SyncMessage::Open(number, CollectionId(file.id.0)),
        2 => SyncMessage::Close(number),
        3 => {
            let whole = SegmentRanges::before(segment);
            SyncMessage::Holdings(number, Holdings { whole, open: Vec::new(), nonce: 3 })
        }
        4 => SyncMessage::Held(number, SegmentRange { first: segment, last: segment }),
        5 => SyncMessage::NotKept(number.segment(segment)),
        6 => SyncMessage::GetFileHead(file.id, segment),
        7 => {
            let (received, allowed) = (u64::from(stream.byte() % 2), u64::from(stream.byte()));
            let update = Update { add: vec![chunk], received, allowed, ..Update::default() };
            SyncMessage::Update(update)
        }
        _ => {
            let mut head = file.head(SegmentIndex(u64::from(stream.byte() % 3)));
            if let (Some(head), flip @ 128..) = (&mut head, stream.byte()) {
                head.chunks[0].0[0] ^= flip;
            }
            SyncMessage::FileHead(file.id, segment, head)
        }
    }
}

fn finish(shell: &mut Shell) {
    for peer in HOSTILE {
        shell.close(peer);
    }
    shell.want();
    shell.open(HELPER);
    for _ in 0..STEPS_MAX {
        if shell.is_done {
            let chunks = WANTED.chunks_of(ByteRange::ALL);
            assert_eq!(shell.stored, chunks, "the file is said to be here");
            return;
        }
        for peer in HONEST.into_iter().chain([HELPER]) {
            shell.greet(peer);
            shell.answer(peer);
            shell.give_chunk(peer, 0, true);
        }
        shell.write(0);
        shell.elapse(Duration::from_millis(100));
    }
    panic!("{} chunks are here, although an honest peer has all", shell.stored.len());
}

impl Shell {
    fn new() -> Self {
        let chain = Arc::clone(&made().chain);
        let setup = Setup {
            chain,
            history: &made().history(0),
            kept: SegmentRanges::default(),
            staged: Vec::new(),
            manifest: None,
            nonce: 1,
            rates: Rates::default(),
            join: None,
        };
        let (swarm, _) = Swarm::new(setup, Duration::ZERO);
        let mut shell = Self {
            swarm,
            now: Duration::ZERO,
            links: BTreeMap::new(),
            begun: BTreeSet::new(),
            stored: BTreeSet::new(),
            writing: VecDeque::new(),
            is_done: false,
            has_stored: false,
        };
        shell.give(Input::FileHeld(SERVED.whole()));
        shell.want();
        shell
    }

    /// The file is to be fetched, with what is here of it.
    fn want(&mut self) {
        let whole = SegmentRanges::default();
        let begun = self.begun.iter().filter_map(|segment| {
            let head = WANTED.head(SegmentIndex(*segment))?;
            let first = segment * 128;
            let here = (first..).take(head.chunks.len()).map(|chunk| self.stored.contains(&chunk));
            Some((head, here.collect()))
        });
        let (id, descriptor) = (WANTED.id, None);
        let held = HeldFile { id, descriptor, whole, begun: begun.collect() };
        self.is_done = false;
        self.give(Input::FileWanted(held, ByteRange::ALL));
    }

    fn elapse(&mut self, time: Duration) {
        self.now += time;
        self.give(Input::Time);
    }

    fn open(&mut self, peer: PeerId) {
        if let Entry::Vacant(place) = self.links.entry(peer) {
            place.insert(Link::default());
            self.give(Input::Opened(peer));
        }
    }

    fn close(&mut self, peer: PeerId) {
        if self.links.remove(&peer).is_some() {
            self.writing.retain(|(to, _)| *to != peer);
            self.give(Input::Closed(peer));
        }
    }

    fn message(&mut self, peer: PeerId, bytes: Vec<u8>) {
        if self.links.contains_key(&peer) {
            self.give(Input::Message(peer, bytes));
        }
    }

    fn say(&mut self, peer: PeerId, message: &SyncMessage) {
        self.message(peer, ledger::codec::encode(message));
    }

    /// An honest peer says that it has all of the file.
    fn greet(&mut self, peer: PeerId) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if std::mem::replace(&mut link.has_greeted, true) {
            return;
        }
        let number = CollectionNumber(7);
        self.say(peer, &SyncMessage::Open(number, CollectionId(WANTED.id.0)));
        let whole = SegmentRanges::before(SegmentIndex(2));
        let holdings = Holdings { whole, open: Vec::new(), nonce: peer.0 };
        self.say(peer, &SyncMessage::Holdings(number, holdings));
    }

    /// An honest peer answers the oldest question.
    fn answer(&mut self, peer: PeerId) {
        let question = self.links.get_mut(&peer).and_then(|link| link.questions.pop_front());
        let Some((id, segment)) = question else { return };
        let head = made_file(&id).and_then(|file| file.head(segment));
        self.say(peer, &SyncMessage::FileHead(id, segment, head));
    }

    /// A peer sends one of the chunks that are wanted from it, within its credit.
    fn give_chunk(&mut self, from: PeerId, which: u8, is_right: bool) {
        let Some(link) = self.links.get_mut(&from).filter(|link| link.given < link.allowed) else {
            return;
        };
        let count = link.wants.len().max(1);
        let Some(id) = link.wants.iter().nth(usize::from(which) % count).copied() else { return };
        link.wants.remove(&id);
        link.given += 1;
        let (hash, bytes) = WANTED.chunk(id).unwrap_or((Hash::ZERO, 1));
        let hash = if is_right { hash } else { Hash([3; 32]) };
        let is_valid = self.swarm.expected(from, id) == Some(Expected::Hash(hash));
        self.give(Input::Chunk { from, id, is_valid, bytes });
    }

    /// A chunk is written, or turns out not to be on disk.
    fn write(&mut self, choice: u8) {
        let Some((peer, id)) = self.writing.pop_front() else { return };
        match choice {
            0..=199 => self.give(Input::Written(peer)),
            _ => self.unsent(peer, id),
        }
    }

    fn unsent(&mut self, peer: PeerId, id: ChunkId) {
        if self.swarm.kind(id.segment.collection) == Some(CollectionKind::File(WANTED.id))
            && let Some(chunk) = file_chunk(id)
        {
            self.stored.remove(&chunk);
        }
        self.give(Input::Unsent(peer, id));
    }

    /// The operator changes what is served and fetched.
    fn change(&mut self, choice: u8) {
        match choice % 4 {
            0 => self.give(Input::FileHeld(SERVED.whole())),
            1 => self.give(Input::FileGone(SERVED.id)),
            2 => self.want(),
            _ => {
                self.give(Input::FileGone(WANTED.id));
                self.is_done = false;
            }
        }
    }

    fn give(&mut self, input: Input) {
        let effects = self.swarm.handle(self.now, input);
        let mut next = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send(peer, bytes) | Effect::Answer(peer, bytes) => {
                    self.on_message(peer, &bytes);
                }
                Effect::SendChunk { to, id, .. } => next.push((to, id)),
                Effect::SendFileHead { peer, id, segment } => {
                    assert!(self.links.contains_key(&peer), "{peer:?} is not linked");
                    let file = made_file(&id).expect("no other file is here");
                    assert!(file.id == SERVED.id || self.begun.contains(&segment.0));
                }
                Effect::BeginFileSegment(id, head) => {
                    assert_eq!((id, head.verify(&id)), (WANTED.id, Ok(())));
                    self.begun.insert(head.index());
                }
                Effect::Store(id) => {
                    let chunk = file_chunk(id).expect("the chunk exists");
                    assert!(self.begun.contains(&id.segment.index.0), "{id:?} is begun first");
                    assert!(self.stored.insert(chunk), "{id:?} is stored twice");
                    self.has_stored = true;
                }
                Effect::FileDone(id) => self.is_done = id == WANTED.id,
                Effect::Ban { peer, offence } => {
                    assert!(HOSTILE.contains(&peer), "the honest {peer:?} is banned: {offence}");
                    self.links.remove(&peer);
                    self.writing.retain(|(to, _)| *to != peer);
                }
                _ => {}
            }
        }
        next.into_iter().for_each(|(to, id)| self.on_send(to, id));
    }

    fn on_message(&mut self, peer: PeerId, bytes: &[u8]) {
        let message = SyncMessage::decode(bytes).expect("the machine sends messages");
        let link = self.links.get_mut(&peer).expect("messages go to peers with a link");
        match message {
            SyncMessage::Update(update) => {
                for id in &update.remove {
                    link.wants.remove(id);
                }
                link.wants.extend(&update.add);
                link.allowed = update.allowed;
            }
            SyncMessage::GetFileHead(id, segment) => link.questions.push_back((id, segment)),
            SyncMessage::Close(_) => link.wants.clear(),
            _ => {}
        }
    }

    fn on_send(&mut self, to: PeerId, id: ChunkId) {
        let Some(CollectionKind::File(file)) = self.swarm.kind(id.segment.collection) else {
            return;
        };
        let exists = made_file(&file).is_some_and(|file| file.chunk(id).is_some());
        if !exists {
            return self.give(Input::Unsent(to, id));
        }
        let is_here =
            file == SERVED.id || file_chunk(id).is_some_and(|chunk| self.stored.contains(&chunk));
        assert!(is_here, "{id:?} is not here");
        self.writing.push_back((to, id));
    }
}

/// Choices from which a fuzzer starts.
pub(super) fn samples() -> Vec<Sample> {
    // Links open, an honest peer greets, answers and gives chunks, and hostile ones lie.
    let given = [1, 0, 8, 0, 9, 0, 10, 0, 0, 0, 5].to_vec();
    let mut fetched = given.clone();
    (0..60).for_each(|at| fetched.extend([9, 0, 10, 0, at, 0, 2]));
    let lied = [&[2, 0, 2, 1], &[6, 0, 0, 1, 0, 0, 1, 6, 0][..], &fetched].concat();
    let noise = (0..NOISE_BYTES).map(|at| (at * at / 7 + at) as u8).collect();
    let all = [("given", given), ("fetched", fetched), ("lied_to", lied), ("noise", noise)];
    all.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}
