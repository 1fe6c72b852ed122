#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]

mod collections;

use ledger::hash::Hash;
use ledger::units::SegmentIndex;

use super::*;
use crate::swarm::classes::Class;
use crate::swarm::message::Holdings;
use crate::swarm::ranges::{SegmentRange, SegmentRanges};

const CHUNK: u64 = 1 << 10;
/// Chunks of each segment.
const CHUNKS: u32 = 8;
const A: PeerId = PeerId(1);
const B: PeerId = PeerId(2);

/// The number of a collection at the node under test, and at its peers.
const OURS: CollectionNumber = CollectionNumber(5);
const THEIRS: CollectionNumber = CollectionNumber(9);

fn id(which: u8) -> CollectionId {
    CollectionId(Hash([which; 32]))
}

fn segment(number: CollectionNumber, index: u64) -> SegmentId {
    number.segment(SegmentIndex(index))
}

fn range(first: u64, last: u64) -> SegmentRange {
    SegmentRange { first: SegmentIndex(first), last: SegmentIndex(last) }
}

fn engine() -> Engine {
    Engine::new(1, Rates::default(), Duration::ZERO)
}

/// Opens a collection of which the segments before `end` are here.
fn open(engine: &mut Engine, number: CollectionNumber, which: u8, end: u64) {
    engine.next_number = number;
    let opened = engine.open(Collection {
        id: id(which),
        class: Class::File,
        chunk_bytes: CHUNK,
        chunks_max: CHUNKS,
        whole: SegmentRanges::before(SegmentIndex(end)),
        is_announced: true,
        paused_until: None,
    });
    assert_eq!(opened, number);
}

/// Begins to fetch a segment of a collection.
fn begin(engine: &mut Engine, number: CollectionNumber, index: u64, here: &[bool]) {
    let segment = segment(number, index);
    engine.add_segment(Segment::new(segment, u64::from(CHUNKS) * CHUNK, CHUNKS, here));
}

fn hear(engine: &mut Engine, from: PeerId, message: SyncMessage) {
    match message {
        SyncMessage::Open(number, id) => engine.on_open(from, number, id),
        SyncMessage::Close(number) => engine.on_close(from, number),
        SyncMessage::Holdings(number, holdings) => engine.on_holdings(from, number, holdings),
        SyncMessage::Held(number, range) => engine.on_held(from, number, range),
        SyncMessage::NotKept(segment) => drop(engine.on_not_kept(from, segment)),
        SyncMessage::Update(update) => engine.on_update(from, update),
        SyncMessage::Busy(milliseconds) => engine.on_busy(from, milliseconds),
        other => panic!("{other:?} is no message of the engine"),
    }
}

/// A peer opens a link, and the collection `id(1)` of which it has these segments.
fn greet(engine: &mut Engine, peer: PeerId, whole: SegmentRanges) {
    engine.on_opened(peer);
    hear(engine, peer, SyncMessage::Open(THEIRS, id(1)));
    let holdings = Holdings { whole, ..Holdings::default() };
    hear(engine, peer, SyncMessage::Holdings(THEIRS, holdings));
}

/// What the engine says and whom it bans, once it has settled.
fn told(engine: &mut Engine) -> (Vec<(PeerId, SyncMessage)>, Vec<Offence>) {
    engine.settle();
    let (mut said, mut offences) = (Vec::new(), Vec::new());
    for effect in engine.take_effects() {
        match effect {
            Effect::Send(to, bytes) => said.push((to, SyncMessage::decode(&bytes).unwrap())),
            Effect::Ban { offence, .. } => offences.push(offence),
            _ => {}
        }
    }
    (said, offences)
}

/// The chunks that the engine asks peers for.
fn asked(said: &[(PeerId, SyncMessage)]) -> BTreeMap<PeerId, Vec<ChunkId>> {
    let mut asked = BTreeMap::<PeerId, Vec<ChunkId>>::new();
    for (to, message) in said {
        if let SyncMessage::Update(update) = message {
            asked.entry(*to).or_default().extend(&update.add);
        }
    }
    asked
}

/// Two engines with a link between them.
struct Pair {
    engines: [Engine; 2],
    stored: [BTreeSet<ChunkId>; 2],
}

impl Pair {
    /// Moves messages and chunks between the two until nothing more is said.
    fn run(&mut self) {
        for at in 0..2_000u64 {
            let now = Duration::from_millis(10 * at);
            for place in [0, 1] {
                self.engines[place].now = now;
                self.engines[place].settle();
                for effect in self.engines[place].take_effects() {
                    self.perform(place, effect);
                }
            }
        }
    }

    fn perform(&mut self, place: usize, effect: Effect) {
        let [peer, other] = [[A, B], [B, A]][place];
        match effect {
            Effect::Send(to, bytes) => {
                assert_eq!(to, other);
                let message = SyncMessage::decode(&bytes).unwrap();
                hear(&mut self.engines[1 - place], peer, message);
            }
            Effect::SendChunk { to, id, name } => {
                assert_eq!(to, other);
                let collection = self.engines[place].collections[&id.segment.collection].id;
                let receiver = &mut self.engines[1 - place];
                let of = receiver.collections[&name.segment.collection].id;
                let is_same = (id.segment.index, id.chunk) == (name.segment.index, name.chunk);
                receiver.on_chunk(peer, name, of == collection && is_same, CHUNK);
                self.engines[place].uploads.on_written(to, self.engines[place].now);
            }
            Effect::Store(id) => assert!(self.stored[place].insert(id), "{id:?} is stored once"),
            other => panic!("{other:?}"),
        }
    }
}

/// Each node fetches one collection and has the other. Their numbers are the other way round.
#[test]
fn collections_go_both_ways_over_one_link_whatever_their_numbers() {
    let mut pair = Pair { engines: [engine(), engine()], stored: Default::default() };
    let [one, other] = &mut pair.engines;
    open(one, OURS, 1, 3);
    open(one, THEIRS, 2, 0);
    open(other, OURS, 2, 3);
    one.on_opened(B);
    other.on_opened(A);
    pair.run();
    // The last collection is opened when the link is up.
    let [one, other] = &mut pair.engines;
    open(other, THEIRS, 1, 0);
    for index in 0..3 {
        begin(one, THEIRS, index, &[]);
        begin(other, THEIRS, index, &[]);
    }
    pair.run();
    for stored in pair.stored {
        let all = (0..3).flat_map(|index| (0..CHUNKS).map(move |chunk| (index, chunk)));
        let all = all.map(|(index, chunk)| segment(THEIRS, index).chunk(chunk));
        assert_eq!(stored, all.collect());
    }
}

#[test]
fn only_peers_whose_ranges_have_a_segment_are_asked_for_it() {
    let mut engine = engine();
    open(&mut engine, OURS, 1, 0);
    let holds = |ranges: &[(u64, u64)]| {
        SegmentRanges::unchecked(ranges.iter().map(|(first, last)| range(*first, *last)).collect())
    };
    greet(&mut engine, A, holds(&[(0, 1), (4, 4)]));
    greet(&mut engine, B, holds(&[(2, 3), (7, 9)]));
    for index in 0..8 {
        begin(&mut engine, OURS, index, &[]);
    }
    let asked = asked(&told(&mut engine).0);
    let segments = |peer: PeerId| -> BTreeSet<u64> {
        asked[&peer].iter().map(|id| id.segment.index.0).collect()
    };
    assert_eq!(segments(A), BTreeSet::from([0, 1, 4]));
    assert_eq!(segments(B), BTreeSet::from([2, 3, 7]));
    // Nobody has segments 5 and 6, until one says that it has.
    hear(&mut engine, A, SyncMessage::Held(THEIRS, range(5, 5)));
    engine.now += REVIEW;
    let (said, _) = told(&mut engine);
    let asked = super::tests::asked(&said);
    assert!(asked[&A].iter().all(|id| id.segment.index.0 == 5), "{said:?}");
    // What a peer takes back is asked of others.
    hear(&mut engine, B, SyncMessage::Held(THEIRS, range(5, 5)));
    hear(&mut engine, A, SyncMessage::NotKept(segment(THEIRS, 5)));
    engine.now += REVIEW;
    let asked = super::tests::asked(&told(&mut engine).0);
    assert!(asked[&B].iter().any(|id| id.segment.index.0 == 5));
    // So is what its new holdings lack.
    hear(&mut engine, B, SyncMessage::Holdings(THEIRS, Holdings::default()));
    hear(&mut engine, A, SyncMessage::Held(THEIRS, range(7, 7)));
    engine.now += REVIEW;
    let asked = super::tests::asked(&told(&mut engine).0);
    assert!(asked[&A].iter().any(|id| id.segment.index.0 == 7));
}

#[test]
fn what_is_not_kept_here_is_answered_and_nobody_is_banned() {
    let mut engine = engine();
    open(&mut engine, OURS, 1, 0);
    engine.on_whole(OURS, range(2, 3));
    begin(&mut engine, OURS, 4, &[true]);
    greet(&mut engine, A, SegmentRanges::default());
    let _ = told(&mut engine);
    let wants = [(0, 0), (1, 0), (1, 1), (2, 0), (4, 1), (5, 0)];
    let add = wants.map(|(index, chunk)| segment(THEIRS, index).chunk(chunk)).to_vec();
    hear(&mut engine, A, SyncMessage::Update(Update { add, ..Update::default() }));
    let (said, offences) = told(&mut engine);
    let expected = [0, 1, 5].map(|index| (A, SyncMessage::NotKept(segment(OURS, index))));
    assert_eq!((said.as_slice(), offences.as_slice()), (expected.as_slice(), [].as_slice()));
}

#[test]
fn a_damaged_chunk_withdraws_its_segment() {
    let mut engine = engine();
    open(&mut engine, OURS, 1, 3);
    begin(&mut engine, OURS, 3, &[true, true, true]);
    greet(&mut engine, A, SegmentRanges::default());
    let _ = told(&mut engine);
    for (index, still_here) in [(3, vec![0, 2]), (1, vec![])] {
        let damaged = segment(THEIRS, index).chunk(1);
        let update = Update { add: vec![damaged], allowed: 9, ..Update::default() };
        hear(&mut engine, A, SyncMessage::Update(update));
        engine.settle();
        let sends = |effect: &Effect| matches!(effect, Effect::SendChunk { .. });
        assert!(engine.take_effects().iter().any(sends), "{index}");
        assert_eq!(engine.on_unsent(A, segment(OURS, index).chunk(1)), index == 3);
        engine.now += TELL_EVERY;
        let (said, offences) = told(&mut engine);
        assert_eq!(said[0], (A, SyncMessage::NotKept(segment(OURS, index))));
        assert_eq!(offences, []);
        // The chunks that are still here are announced again. Nothing else is offered.
        let mut have = Vec::new();
        for (_, message) in &said[1..] {
            let SyncMessage::Update(update) = message else { panic!("{message:?}") };
            have.extend(update.have.iter().map(|id| id.chunk));
        }
        assert_eq!(have, still_here, "{index}");
        assert_eq!(engine.has_any(segment(OURS, index)), index == 3);
    }
    // A newcomer hears of neither.
    greet(&mut engine, B, SegmentRanges::default());
    let (said, _) = told(&mut engine);
    let holdings = said.into_iter().find_map(|(_, message)| match message {
        SyncMessage::Holdings(_, holdings) => Some(holdings),
        _ => None,
    });
    let holdings = holdings.unwrap();
    assert_eq!(holdings.whole.iter().collect::<Vec<_>>(), [range(0, 0), range(2, 2)]);
    assert_eq!(holdings.open[0].1.ones().collect::<Vec<_>>(), [0, 2]);
}

#[test]
fn a_number_stands_for_one_collection_and_few_are_open_at_a_time() {
    let most = u16::try_from(COLLECTIONS_MAX).unwrap();
    let number = CollectionNumber;
    let open = |at: u16| SyncMessage::Open(number(at), id(at.to_le_bytes()[0]));
    let other = |at: u16, of: u8| SyncMessage::Open(number(at), id(of));
    let close = |at: u16| SyncMessage::Close(number(at));
    let holdings = |at: u16| {
        let whole = SegmentRanges::before(SegmentIndex(1));
        SyncMessage::Holdings(number(at), Holdings { whole, ..Holdings::default() })
    };
    let wants = |at: u16| {
        let add = vec![segment(number(at), 0).chunk(0)];
        SyncMessage::Update(Update { add, ..Update::default() })
    };
    let full: Vec<SyncMessage> = (2..=most + 1).map(open).collect();
    let with = |more: &[SyncMessage]| [&full[..], more].concat();
    // Whether the peer is known to hold a segment of collection 1 afterwards. A message may have
    // been lost, so none of this is an offence.
    for (messages, is_known) in [
        (vec![open(1), holdings(1), wants(1), holdings(1)], true),
        (vec![open(2), holdings(2), wants(2)], false),
        (vec![open(1), holdings(1), other(1, 2)], false),
        (vec![open(1), holdings(1), other(2, 1)], false),
        (vec![open(1), other(2, 1), holdings(2)], true),
        (vec![open(1), holdings(1), close(1), wants(1)], false),
        (vec![open(1), holdings(1), close(2), wants(3)], true),
        (vec![open(1), holdings(2), holdings(1), SyncMessage::Held(number(4), range(0, 0))], true),
        (vec![open(1), holdings(1), SyncMessage::NotKept(segment(number(4), 0))], true),
        (with(&[open(1), holdings(1)]), false),
        (with(&[close(3), open(1), holdings(1)]), true),
    ] {
        let mut engine = engine();
        super::tests::open(&mut engine, OURS, 1, 3);
        engine.on_opened(A);
        for message in messages.clone() {
            hear(&mut engine, A, message);
        }
        assert_eq!(told(&mut engine).1, [], "{messages:?}");
        assert_eq!(engine.census.has(A, segment(OURS, 0).chunk(0)), is_known, "{messages:?}");
    }
    let mut engine = engine();
    super::tests::open(&mut engine, OURS, 1, 3);
    greet(&mut engine, A, SegmentRanges::default());
    hear(&mut engine, A, SyncMessage::Held(THEIRS, range(1, 0)));
    assert_eq!(told(&mut engine).1, [Offence::AbsurdHoldings]);
}

#[test]
fn a_peer_describes_its_collections_so_many_times() {
    let mut engine = engine();
    open(&mut engine, OURS, 1, 3);
    engine.on_opened(A);
    let _ = told(&mut engine);
    let answers = |engine: &mut Engine| {
        let said = told(engine).0;
        said.iter().filter(|(_, message)| matches!(message, SyncMessage::Holdings(..))).count()
    };
    for _ in 0..2 * DESCRIBED_AT_ONCE {
        hear(&mut engine, A, SyncMessage::Open(THEIRS, id(1)));
        hear(&mut engine, A, SyncMessage::Close(THEIRS));
    }
    assert_eq!(answers(&mut engine) as u64, DESCRIBED_AT_ONCE);
    engine.now += Duration::from_secs(2);
    hear(&mut engine, A, SyncMessage::Open(THEIRS, id(1)));
    assert_eq!(answers(&mut engine), 1);
    // The second description in these seconds.
    let holdings = |end| {
        let whole = SegmentRanges::before(SegmentIndex(end));
        SyncMessage::Holdings(THEIRS, Holdings { whole, ..Holdings::default() })
    };
    hear(&mut engine, A, holdings(1));
    hear(&mut engine, A, holdings(9));
    let holder = engine.census.get(A).unwrap();
    assert_eq!(holder.whole_segments(OURS), 1);
}

#[test]
fn who_opens_a_collection_later_tells_peers_what_is_here_of_it() {
    let mut engine = engine();
    engine.on_opened(A);
    hear(&mut engine, A, SyncMessage::Open(THEIRS, id(1)));
    assert!(told(&mut engine).0.is_empty());
    open(&mut engine, OURS, 1, 3);
    let said = told(&mut engine).0;
    assert!(matches!(said[..], [(A, SyncMessage::Open(..)), (A, SyncMessage::Holdings(..))]));
}

#[test]
fn a_peer_whose_chunk_was_damaged_gets_it_again() {
    let mut engine = engine();
    open(&mut engine, OURS, 1, 3);
    begin(&mut engine, OURS, 3, &[true]);
    greet(&mut engine, A, SegmentRanges::default());
    let damaged = segment(THEIRS, 3).chunk(0);
    for round in 0..2 {
        let update =
            Update { add: vec![damaged], received: round, allowed: round + 1, ..Update::default() };
        hear(&mut engine, A, SyncMessage::Update(update));
        engine.settle();
        let sends = |effect: &Effect| matches!(effect, Effect::SendChunk { .. });
        assert!(engine.take_effects().iter().any(sends), "{round}");
        engine.uploads.on_written(A, engine.now);
        hear(&mut engine, A, SyncMessage::NotKept(damaged.segment));
    }
}

#[test]
fn who_closes_a_collection_neither_gives_nor_gets_more_of_it() {
    let mut engine = engine();
    open(&mut engine, OURS, 1, 1);
    begin(&mut engine, OURS, 1, &[]);
    greet(&mut engine, A, SegmentRanges::before(SegmentIndex(2)));
    greet(&mut engine, B, SegmentRanges::default());
    assert_eq!(asked(&told(&mut engine).0)[&A].len(), CHUNKS as usize);
    let update = Update { add: vec![segment(THEIRS, 0).chunk(0)], ..Update::default() };
    hear(&mut engine, A, SyncMessage::Update(update));
    hear(&mut engine, A, SyncMessage::Close(THEIRS));
    hear(&mut engine, A, SyncMessage::Update(Update { allowed: 9, ..Update::default() }));
    engine.settle();
    let sends = |effect: &Effect| matches!(effect, Effect::SendChunk { .. });
    assert!(!engine.take_effects().iter().any(sends), "it wants nothing of it");
    // Its chunks are asked of the next peer that has them.
    hear(&mut engine, B, SyncMessage::Held(THEIRS, range(1, 1)));
    engine.now += REVIEW;
    let asked = asked(&told(&mut engine).0);
    assert_eq!(asked[&B].len(), CHUNKS as usize);
    // A chunk that was on its way is no offence.
    let late = segment(OURS, 1).chunk(0);
    assert!(engine.on_chunk(A, late, true, CHUNK));
    assert_eq!(told(&mut engine).1, []);
}
