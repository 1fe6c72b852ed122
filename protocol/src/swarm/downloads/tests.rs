#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use ledger::units::SegmentIndex;

use super::super::bits::Bits;
use super::super::classes::Class;
use super::super::message::{CollectionNumber, Holdings};
use super::super::ranges::SegmentRanges;
use super::super::supplier::LATE_AT_FIRST;
use super::choice::{OFFERED, RANDOM_FIRST};
use super::*;

const CHUNK: u64 = 1 << 20;
const A: PeerId = PeerId(1);
const B: PeerId = PeerId(2);
const C: PeerId = PeerId(3);

/// The downloads of a node, and its peers' claims.
struct Fetch {
    downloads: Downloads,
    census: Census,
    now: Duration,
}

const SEGMENT: SegmentId = CollectionNumber(3).segment(SegmentIndex(0));
/// Most chunks of a segment.
const CHUNKS: u32 = 1_000;

fn id(chunk: u32) -> ChunkId {
    SEGMENT.chunk(chunk)
}

impl Fetch {
    /// One segment of `chunks` chunks.
    fn new(chunks: u32) -> Self {
        let mut downloads = Downloads::new(7, Limit::new(None), Limit::new(None));
        downloads.open(SEGMENT.collection, Class::History);
        downloads.set_chunk_bytes(CHUNK);
        downloads.add_segment(Segment::new(SEGMENT, u64::from(chunks) * CHUNK, chunks, &[]));
        Self { downloads, census: Census::default(), now: Duration::from_secs(100) }
    }

    fn open(&mut self, peer: PeerId, sealed: u64, has: impl IntoIterator<Item = u32>) {
        let mut bits = Bits::default();
        has.into_iter().for_each(|chunk| assert!(bits.set(chunk)));
        let whole = SegmentRanges::before(SegmentIndex(sealed));
        let open = vec![(SEGMENT.index, bits)];
        let holdings = Holdings { whole, open, nonce: mix(peer.0) };
        self.census.on_holdings(peer, SEGMENT.collection, holdings, CHUNKS).unwrap();
        self.downloads.on_opened(peer);
    }

    /// Gives a peer requests, and returns the update for it.
    fn fill(&mut self, peer: PeerId) -> Update {
        self.downloads.fill(peer, &self.census, self.now);
        self.downloads.take_news(peer).unwrap_or_default()
    }

    fn comes(&mut self, peer: PeerId, chunk: u32) -> Arrival {
        self.downloads.on_chunk(peer, id(chunk), true, CHUNK, self.now)
    }

    /// Lets a peer send `count` wanted chunks, each after `time`.
    fn works(&mut self, peer: PeerId, count: usize, time: Duration) {
        for _ in 0..count {
            self.fill(peer);
            let chunk = self.wants(peer)[0];
            self.now += time;
            assert_eq!(self.comes(peer, chunk), Arrival::New);
        }
    }

    fn wants(&self, peer: PeerId) -> Vec<u32> {
        self.downloads.suppliers[&peer].wants().iter().map(|id| id.chunk).collect()
    }

    /// Chunks that are wanted from two peers.
    fn twice(&self) -> usize {
        self.downloads.requests.of_segment(SEGMENT).unwrap().twice()
    }

    /// Index, number of chunks and number of missing ones of each segment.
    fn segments(&self) -> Vec<(u64, u64, u64)> {
        let segments = self.downloads.segments().iter();
        segments
            .map(|segment| (segment.id().index.0, segment.chunks(), segment.missing()))
            .collect()
    }

    fn in_flight(&self, peer: PeerId) -> u64 {
        self.downloads.suppliers[&peer].in_flight()
    }
}

fn milliseconds(time: u64) -> Duration {
    Duration::from_millis(time)
}

#[test]
fn a_source_may_choose_and_each_chunk_is_offered_to_one() {
    let mut fetch = Fetch::new(200);
    fetch.open(A, 1, []);
    let news = fetch.fill(A);
    assert_eq!((news.add.len(), news.allowed), (OFFERED, 1), "a newcomer may send one, of many");
    assert_eq!(fetch.fill(A), Update::default(), "nothing new, nothing told");

    let mut fetch = Fetch::new(200);
    for peer in [A, B, C] {
        fetch.open(peer, 1, []);
    }
    let offers: Vec<Vec<u32>> =
        [A, B, C].map(|peer| (fetch.fill(peer), fetch.wants(peer)).1).to_vec();
    let all: BTreeSet<u32> = offers.iter().flatten().copied().collect();
    assert_eq!(
        all.len(),
        offers.iter().map(Vec::len).sum::<usize>(),
        "no chunk is wanted from two: {offers:?}"
    );
    let sources = fetch.census.sources(SEGMENT);
    for (peer, offers) in [A, B, C].into_iter().zip(&offers) {
        let owned =
            offers.iter().filter(|chunk| fetch.census.owner(&sources, id(**chunk)) == Some(peer));
        assert_eq!(owned.count(), offers.len(), "all who fetch ask {peer:?} for the same ones");
    }
}

#[test]
fn what_fewest_have_is_fetched_first() {
    let mut fetch = Fetch::new(12);
    fetch.open(A, 0, 0..12);
    fetch.open(B, 0, 4..12);
    fetch.open(C, 0, 6..12);
    // The first chunks are chosen at random.
    fetch.works(A, RANDOM_FIRST as usize, milliseconds(2_000));
    let mut order: Vec<u16> = Vec::new();
    while !fetch.downloads.segments().are_complete() {
        let add = fetch.fill(A).add;
        let mut holders: Vec<u16> =
            add.into_iter().map(|id| fetch.census.partial_holders(id)).collect();
        holders.sort_unstable();
        order.extend(holders);
        let chunk = fetch.wants(A)[0];
        fetch.now += milliseconds(2_000);
        fetch.comes(A, chunk);
    }
    assert!(order.len() >= 6 && order.is_sorted() && order[0] < 3, "{order:?}");
}

#[test]
fn what_comes_is_judged_by_the_manifest() {
    let mut fetch = Fetch::new(4);
    fetch.open(A, 1, []);
    fetch.open(B, 0, 0..4);
    assert_eq!(fetch.comes(A, 0), Arrival::TooMany, "nothing was allowed");
    fetch.fill(B);
    assert_eq!(fetch.wants(B).len(), 1);
    let unasked = (fetch.wants(B)[0] + 1) % 4;
    assert_eq!(
        fetch.comes(B, unasked),
        Arrival::Unasked,
        "whatever is missing, nobody may send what was not asked for"
    );
    fetch.downloads.on_closed(B);
    let mut check = |chunk: ChunkId, is_valid: bool, expected: Arrival| {
        let peer = fetch.downloads.suppliers.get_mut(&A).unwrap();
        (peer.allowed, peer.withdrawn) = (peer.allowed + 1, 1);
        let before = fetch.downloads.totals();
        assert_eq!(
            fetch.downloads.on_chunk(A, chunk, is_valid, CHUNK, fetch.now),
            expected,
            "{chunk:?}"
        );
        let after = fetch.downloads.totals();
        let is_waste = matches!(expected, Arrival::Duplicate | Arrival::Unknown);
        assert_eq!(
            (after.0 - before.0, after.1 - before.1),
            (CHUNK, if is_waste { CHUNK } else { 0 }),
            "{chunk:?}"
        );
    };
    check(id(1), true, Arrival::New);
    check(id(1), true, Arrival::Duplicate);
    check(id(1), false, Arrival::Duplicate);
    check(id(2), false, Arrival::Bad);
    check(id(2), true, Arrival::New);
    check(id(4), false, Arrival::Unknown);
    check(CollectionNumber(4).segment(SEGMENT.index).chunk(0), false, Arrival::Unknown);
    assert_eq!(fetch.segments(), [(0, 4, 2)]);
    fetch.downloads.lose(id(1));
    fetch.downloads.lose(id(3));
    assert_eq!(fetch.segments(), [(0, 4, 3)], "one was here and is fetched again");
}

#[test]
fn a_late_peer_loses_its_work_to_others_and_keeps_its_place() {
    for (waits, is_late) in [(milliseconds(2_900), false), (LATE_AT_FIRST, true)] {
        let mut fetch = Fetch::new(2);
        fetch.open(A, 1, []);
        fetch.fill(A);
        assert_eq!(fetch.wants(A), [0, 1]);
        fetch.open(B, 0, [0]);
        fetch.now += waits;
        fetch.fill(A);
        let news = fetch.fill(B);
        assert_eq!(news.add, if is_late { vec![id(0)] } else { vec![] }, "{waits:?}");
        assert_eq!(fetch.downloads.take_news(A).unwrap_or_default().remove, news.add, "{waits:?}");
        // A chunk that comes late is still accepted.
        assert_eq!(fetch.comes(A, 1), Arrival::New);
        assert!(!fetch.downloads.suppliers[&A].is_late);
    }
}

/// Its credit is left over, since what was wanted from it came from another.
#[test]
fn a_peer_of_which_nothing_was_wanted_is_neither_late_nor_slow() {
    let mut fetch = Fetch::new(60);
    fetch.open(A, 0, 0..60);
    fetch.works(A, 20, milliseconds(10));
    fetch.fill(A);
    let rest = fetch.wants(A);
    assert_eq!((rest.len(), fetch.in_flight(A)), (40, 32));
    // Nothing is wanted from it for ten seconds.
    rest.iter().for_each(|chunk| fetch.downloads.release(A, id(*chunk)));
    fetch.now += Duration::from_secs(10);
    let news = fetch.fill(A);
    assert_eq!(news.add.len(), 40);
    assert!(!fetch.downloads.suppliers[&A].is_late);
    let rate = |fetch: &Fetch| fetch.downloads.suppliers[&A].rate(fetch.now).unwrap();
    assert_eq!(rate(&fetch), 100 * CHUNK);
    fetch.now += milliseconds(10);
    fetch.comes(A, rest[0]);
    assert_eq!(rate(&fetch), 100 * CHUNK);
    // From now on it can be late again.
    fetch.now += LATE_AT_FIRST;
    fetch.fill(A);
    assert!(fetch.downloads.suppliers[&A].is_late);
}

#[test]
fn a_peer_without_a_slot_is_asked_for_nothing_for_a_while() {
    let mut fetch = Fetch::new(1);
    fetch.open(A, 1, []);
    fetch.open(B, 0, [0]);
    fetch.fill(A);
    fetch.downloads.on_busy(A, fetch.now + milliseconds(500));
    assert_eq!(fetch.fill(B).add, [id(0)], "another takes over");
    fetch.downloads.on_closed(B);
    assert_eq!(fetch.fill(A).add, []);
    fetch.now += milliseconds(500);
    assert_eq!(fetch.fill(A).add, [id(0)]);
}

#[test]
fn what_a_source_was_to_send_comes_from_the_first_other_that_has_it() {
    let mut fetch = Fetch::new(3);
    fetch.open(A, 1, []);
    fetch.open(B, 1, []);
    fetch.open(C, 0, []);
    for peer in [A, B] {
        fetch.fill(peer);
    }
    let from = |fetch: &Fetch, chunk: u32| fetch.downloads.requests.get(id(chunk)).unwrap().from;
    let source = from(&fetch, 0).unwrap();
    let other = if source == A { B } else { A };
    assert_eq!(fetch.downloads.on_have(other, id(0), &fetch.census), [], "a source has it anyway");
    assert_eq!(from(&fetch, 0), Some(source));
    fetch.census.on_have(C, id(0), CHUNKS).unwrap();
    assert_eq!(fetch.downloads.on_have(C, id(0), &fetch.census), [C, source]);
    assert_eq!(from(&fetch, 0), None);
    assert_eq!(fetch.fill(C).add, [id(0)]);
    assert_eq!(fetch.downloads.on_have(C, id(0), &fetch.census), [], "it is asked for it already");
    assert_eq!(fetch.comes(C, 0), Arrival::New);
    assert_eq!(fetch.downloads.on_have(B, id(0), &fetch.census), [], "it is here");
}

#[test]
fn sources_are_given_work_last_while_they_alone_have_something() {
    let mut fetch = Fetch::new(2);
    fetch.open(A, 1, []);
    fetch.open(B, 0, [0]);
    fetch.fill(A);
    let turn = |fetch: &Fetch, peer: PeerId| fetch.downloads.turn(peer, &fetch.census);
    assert!(turn(&fetch, B) < turn(&fetch, A), "nobody else has chunk 1");
    fetch.census.on_have(B, id(1), CHUNKS).unwrap();
    assert!(
        !turn(&fetch, A).0 && turn(&fetch, B) < turn(&fetch, A),
        "now a peer like others, with more to do"
    );
}

#[test]
fn at_the_end_a_faster_peer_is_asked_too_and_the_slower_is_told_when_it_is_here() {
    let mut fetch = Fetch::new(20);
    let last = 19;
    fetch.open(A, 0, [last]);
    fetch.open(B, 0, 0..20);
    fetch.downloads.suppliers.get_mut(&A).unwrap().meter.add(4 * CHUNK, Duration::from_secs(1));
    assert_eq!(fetch.fill(A).add, [id(last)]);
    fetch.works(B, 18, milliseconds(50));
    // B is asked for the other missing chunk, and for the chunk that is in flight from A too.
    fetch.fill(B);
    assert!(fetch.wants(B).len() == 2 && fetch.wants(B).contains(&last), "{:?}", fetch.wants(B));
    assert_eq!(fetch.twice(), 1);
    assert_eq!(fetch.comes(B, last), Arrival::New);
    assert_eq!(fetch.downloads.take_news(A).unwrap().remove, [id(last)]);
    assert_eq!(fetch.comes(A, last), Arrival::Duplicate);
}

#[test]
fn the_last_chunks_are_asked_for_twice_and_others_taken_from_much_slower_peers_only() {
    // chunks missing, how many times slower B is, chunks wanted from both, chunks taken over
    let cases = [
        (3, 1, 0, 0),
        (3, 3, 3, 0),
        (3, 30, 3, 0),
        (4, 1, 0, 0),
        (4, 3, 0, 0),
        (4, 30, 0, 4),
        (6, 30, 0, 6),
    ];
    for (missing, slower, twice, taken) in cases {
        let case = format!("{missing} missing, slower by {slower}");
        let mut fetch = Fetch::new(40);
        fetch.open(A, 0, 0..40);
        fetch.open(B, 0, 0..40);
        fetch.works(B, 40 - missing, milliseconds(50));
        // All missing chunks are in flight from B. For them and one more, B needs `slower` times as
        // long as A needs for one chunk.
        fetch.fill(B);
        assert_eq!((fetch.wants(B).len(), fetch.in_flight(B)), (missing, missing as u64), "{case}");
        let meter = &mut fetch.downloads.suppliers.get_mut(&A).unwrap().meter;
        meter.add(slower * 20 * CHUNK / (missing as u64 + 1), Duration::from_secs(1));
        fetch.fill(A);
        assert_eq!((fetch.twice(), fetch.wants(A).len()), (twice, twice + taken), "{case}");
        assert_eq!(fetch.wants(B).len(), missing - taken, "{case}");
    }
}

#[test]
fn room_is_taken_before_a_peer_may_send() {
    let most = IN_FLIGHT_BYTES_MAX / CHUNK;
    let mut fetch = Fetch::new(900);
    let peers: Vec<PeerId> = (1..=50).map(PeerId).collect();
    peers.iter().for_each(|peer| fetch.open(*peer, 1, []));
    for round in 0..3 {
        peers.iter().for_each(|peer| drop(fetch.fill(*peer)));
        assert_eq!(fetch.downloads.in_flight(fetch.now), most, "{round}");
        // Room that becomes free goes to the next peer.
        let peer = *peers.iter().find(|peer| fetch.in_flight(**peer) > 0).unwrap();
        let chunk = fetch.wants(peer)[0];
        fetch.now += milliseconds(10);
        assert_eq!(fetch.comes(peer, chunk), Arrival::New);
        assert_eq!(fetch.downloads.in_flight(fetch.now), most - 1, "{round}");
    }
    peers.iter().for_each(|peer| fetch.downloads.on_closed(*peer));
    assert_eq!(fetch.downloads.in_flight(fetch.now), 0);
    let is_here = |chunk: u32| fetch.downloads.segments.has(id(chunk));
    assert!((0..900).all(|chunk| is_here(chunk) || fetch.downloads.is_free(id(chunk))));
}

#[test]
fn a_limit_holds_back_what_may_be_sent() {
    let mut fetch = Fetch::new(50);
    fetch.downloads.limit = Limit::new(Some(CHUNK));
    fetch.open(A, 1, []);
    let (mut allowed, start) = (Vec::new(), fetch.now);
    while fetch.now < start + Duration::from_secs(5) {
        fetch.fill(A);
        if fetch.in_flight(A) > 0 {
            allowed.push(fetch.now);
            let chunk = fetch.wants(A)[0];
            fetch.comes(A, chunk);
        }
        fetch.now = fetch.downloads.deadline(fetch.now).unwrap_or(fetch.now + milliseconds(1));
    }
    assert!((5..=6).contains(&allowed.len()), "a chunk a second: {allowed:?}");
}

/// A peer without free chunks costs no look at chunks, however often `fill` is called for it.
#[test]
fn a_peer_that_has_nothing_to_give_costs_no_look_at_chunks() {
    let mut fetch = Fetch::new(500);
    // A claims no chunk at all. B claims only a chunk of a segment that is not fetched.
    fetch.open(A, 0, []);
    fetch.open(B, 0, []);
    fetch.census.on_have(B, SEGMENT.collection.segment(SegmentIndex(7)).chunk(3), CHUNKS).unwrap();
    for _ in 0..100 {
        fetch.fill(A);
        fetch.fill(B);
    }
    assert_eq!(fetch.downloads.looks, 0);
    fetch.open(C, 1, []);
    fetch.fill(C);
    assert_eq!(fetch.downloads.looks, 500);
    // A and B cost no look at the chunks that are wanted from C either.
    for _ in 0..100 {
        fetch.fill(A);
        fetch.fill(B);
    }
    assert_eq!(fetch.downloads.looks, 500);
}

/// The count of free chunks stays right whatever happens to a chunk.
#[test]
fn free_chunks_are_counted() {
    let mut fetch = Fetch::new(100);
    fetch.open(A, 1, []);
    fetch.open(B, 1, []);
    let check = |fetch: &Fetch, what: &str| {
        let segment = fetch.downloads.segments.get(SEGMENT).unwrap();
        let requests = fetch.downloads.requests.of_segment(SEGMENT).unwrap();
        let count = |is: &dyn Fn(ChunkId) -> bool| (0..100).filter(|chunk| is(id(*chunk))).count();
        let free = count(&|chunk| fetch.downloads.is_free(chunk));
        let missing = count(&|chunk| !fetch.downloads.segments.has(chunk));
        let counted = (segment.missing() - requests.count(), segment.missing());
        assert_eq!(counted, (free as u64, missing as u64), "{what}");
    };
    check(&fetch, "at first");
    fetch.works(A, 30, Duration::from_millis(10));
    check(&fetch, "after some came");
    fetch.fill(B);
    check(&fetch, "wanted from two");
    let here = fetch.downloads.segments.get(SEGMENT).unwrap().here().ones().next().unwrap();
    fetch.downloads.lose(id(here));
    check(&fetch, "one is lost");
    fetch.downloads.lose(id(99));
    check(&fetch, "one that was not here is not lost");
    fetch.downloads.on_closed(A);
    check(&fetch, "a peer is gone");
    let missing = fetch.downloads.segments.missing(SEGMENT.collection);
    fetch.works(B, missing as usize, Duration::from_millis(10));
    check(&fetch, "all came");
    assert!((0..100).all(|chunk| !fetch.downloads.is_free(id(chunk))));
}

#[test]
fn what_a_peer_does_not_keep_is_asked_of_others_and_may_still_come() {
    let mut fetch = Fetch::new(2);
    fetch.open(A, 1, []);
    fetch.fill(A);
    assert_eq!(fetch.wants(A), [0, 1]);
    fetch.census.on_not_kept(A, SEGMENT);
    fetch.downloads.on_less(A, &fetch.census);
    assert!(fetch.wants(A).is_empty() && fetch.downloads.is_free(id(0)));
    assert_eq!(fetch.fill(A).add, [], "it has nothing");
    fetch.open(B, 1, []);
    assert_eq!(fetch.fill(B).add, [id(0), id(1)]);
    assert_eq!(fetch.comes(A, 0), Arrival::New, "it was on its way");
}
