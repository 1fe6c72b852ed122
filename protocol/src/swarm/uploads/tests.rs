#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use ledger::units::SegmentIndex;

use super::super::message::Holdings;
use super::slots::{ROTATION, SLOTS, SLOTS_FOR_GIVERS};
use super::*;

const CHUNK: u64 = 64 << 10;
const A: PeerId = PeerId(1);
const B: PeerId = PeerId(2);
const C: PeerId = PeerId(3);

/// The uploads of a node, and its peers' claims.
struct Serve {
    uploads: Uploads,
    census: Census,
    now: Duration,
}

const COLLECTION: CollectionNumber = CollectionNumber(3);
const CHUNKS: u32 = 1_000;

fn id(chunk: u32) -> ChunkId {
    COLLECTION.segment(SegmentIndex(0)).chunk(chunk)
}

impl Serve {
    fn new(peers: u64) -> Self {
        let now = Duration::from_secs(100);
        let uploads = Uploads::new(5, Limit::new(None), Limit::new(None));
        let mut serve = Self { uploads, census: Census::default(), now };
        serve.uploads.open(COLLECTION, Class::History, CHUNK, Duration::ZERO);
        serve.uploads.set_chunk_bytes(CHUNK);
        for peer in (1..=peers).map(PeerId) {
            let none = Holdings::default();
            serve.census.on_holdings(peer, COLLECTION, none, CHUNKS).unwrap();
            serve.uploads.on_opened(peer);
        }
        serve
    }

    fn wants(&mut self, peer: PeerId, add: impl IntoIterator<Item = u32>, allowed: u64) {
        let add = add.into_iter().map(id).collect();
        self.updates(peer, &Update { add, allowed, ..Update::default() }).unwrap();
    }

    fn updates(&mut self, peer: PeerId, update: &Update) -> Result<(), Misuse> {
        let result = self.uploads.on_update(peer, update, |_| true, self.now);
        for have in &update.have {
            self.census.on_have(peer, *have, CHUNKS).unwrap();
            self.uploads.on_have(peer, *have, self.now);
        }
        result
    }

    fn has(&mut self, peer: PeerId, chunks: impl IntoIterator<Item = u32>) {
        let have = chunks.into_iter().map(id).collect();
        self.updates(peer, &Update { have, ..Update::default() }).unwrap();
    }

    /// The next chunk to send, without waiting for the one before to be written.
    fn next(&mut self) -> Option<(PeerId, u32)> {
        drop(self.uploads.rotate(self.now));
        self.uploads
            .next(&self.census, |id| id.chunk < 500, self.now)
            .map(|(peer, id)| (peer, id.chunk))
    }

    /// All chunks that may be sent, each written and confirmed at once.
    fn all(&mut self) -> Vec<(PeerId, u32)> {
        let mut all = Vec::new();
        while let Some((peer, chunk)) = self.next() {
            all.push((peer, chunk));
            self.uploads.on_written(peer, self.now);
            let received = self.uploads.peers[&peer].sent;
            self.updates(peer, &Update { have: vec![id(chunk)], received, ..Update::default() })
                .unwrap();
        }
        all
    }
}

#[test]
fn what_nobody_has_goes_first_then_those_who_got_least_then_what_fewest_have() {
    let mut serve = Serve::new(5);
    serve.has(PeerId(4), [1, 2, 3]);
    serve.has(PeerId(5), [1, 2]);
    serve.wants(A, [1, 2, 3, 4], 9);
    serve.wants(B, [1, 5], 9);
    serve.wants(C, [600], 9);
    let all = serve.all();
    assert_eq!(
        all[..2].iter().map(|(_, chunk)| *chunk).collect::<BTreeSet<_>>(),
        BTreeSet::from([4, 5]),
        "{all:?}"
    );
    assert_eq!(all[2..], [(A, 3), (B, 1), (A, 2), (A, 1)].map(|each| each), "{all:?}");
}

#[test]
fn a_chunk_on_its_way_counts_as_a_copy() {
    let mut serve = Serve::new(2);
    serve.wants(A, [0], 9);
    serve.wants(B, [0, 1], 9);
    let first = serve.next().unwrap();
    serve.uploads.on_written(first.0, serve.now);
    let second = serve.next().unwrap();
    assert_ne!(first.1, second.1, "the second goes to what nobody is getting");
    // The first chunk was not on disk after all.
    serve.uploads.on_unsent(first.0, id(first.1));
    assert!(serve.uploads.sending.keys().eq([&id(second.1)]));
    serve.uploads.on_closed(second.0);
    assert!(serve.uploads.sending.is_empty());
}

#[test]
fn what_is_cancelled_or_not_allowed_does_not_go() {
    let mut serve = Serve::new(2);
    serve.wants(A, [0, 1, 2, 3], 2);
    serve.updates(A, &Update { remove: vec![id(0), id(2)], ..Update::default() }).unwrap();
    serve.has(A, [3]);
    serve.wants(B, [7], 0);
    assert_eq!(serve.all(), [(A, 1)]);
    serve.wants(B, [], 1);
    assert_eq!(serve.all(), [(B, 7)]);
}

#[test]
fn few_chunks_at_a_time_are_written_but_nobody_waits_for_slow_connections() {
    let peers = WRITING_LEAST + 1;
    let mut serve = Serve::new(peers);
    for peer in 1..=peers {
        serve.wants(PeerId(peer), (0..9).map(|chunk| 10 * peer as u32 + chunk), 9);
    }
    let first: Vec<PeerId> = std::iter::from_fn(|| serve.next()).map(|(peer, _)| peer).collect();
    let least = WRITING_LEAST as usize;
    assert_eq!(
        (first.len(), first.iter().collect::<BTreeSet<_>>().len()),
        (least, least),
        "one for each"
    );
    assert_eq!(serve.uploads.deadline(serve.now), Some(serve.now + SLOW));
    serve.now += SLOW / 2;
    let (quick, slow) = (first[0], first[1]);
    serve.uploads.on_written(quick, serve.now);
    let (last, _) = serve.next().unwrap();
    assert!(!first.contains(&last), "each in turn");
    serve.now += SLOW / 2 - Duration::from_nanos(1);
    assert_eq!(serve.next(), None);
    serve.now += Duration::from_nanos(1);
    assert_eq!(
        serve.next().map(|(peer, _)| peer),
        Some(quick),
        "it has had as much, but is not slow"
    );
    assert_eq!(serve.next(), None, "slow ones get no second chunk");
    serve.uploads.on_written(slow, serve.now);
    assert!(serve.uploads.peers[&slow].is_slow && !serve.uploads.peers[&quick].is_slow);
}

#[test]
fn where_peers_take_less_than_the_link_moves_more_of_them_are_sent_to() {
    // Chunks per second that our link moves, chunks per second that each peer gets if known, and
    // connections used at a time.
    for (link, gets, writing) in [
        (0, None, 3),
        (40, None, 3),
        (40, Some(40), 3),
        (40, Some(20), 4),
        (40, Some(10), 8),
        (400, Some(1), 50),
    ] {
        let mut serve = Serve::new(50);
        serve.uploads.meter.add(link * CHUNK, Duration::from_secs(1));
        (1..=50).for_each(|peer| serve.wants(PeerId(peer), 0..9, 9));
        for (chunk, peer) in
            (1..=50).map(PeerId).flat_map(|peer| (100..120).map(move |chunk| (chunk, peer)))
        {
            if let Some(gets) = gets {
                serve.now += Duration::from_micros(1_000_000 / gets);
                serve.has(peer, [chunk]);
            }
            if chunk == 119 {
                serve.now -= Duration::from_micros(gets.map_or(0, |gets| 20 * 1_000_000 / gets));
            }
        }
        assert_eq!(std::iter::from_fn(|| serve.next()).count(), writing, "{link} {gets:?}");
    }
}

#[test]
fn so_much_is_under_way_until_it_is_confirmed() {
    let mut serve = Serve::new(1);
    serve.wants(A, 0..200, 200);
    let send = |serve: &mut Serve| {
        let mut count = 0;
        while let Some((peer, _)) = serve.next() {
            serve.uploads.on_written(peer, serve.now);
            count += 1;
        }
        count
    };
    assert_eq!(send(&mut serve), UNDER_WAY_LEAST / CHUNK);
    serve.updates(A, &Update { received: 3, ..Update::default() }).unwrap();
    assert!(send(&mut serve) >= 3);
    // A peer that confirms nothing soon takes up no room, and gets nothing more.
    serve.now += STUCK;
    assert_eq!(serve.uploads.under_way(true, serve.now), 0);
    assert_eq!(send(&mut serve), 0);
}

#[test]
fn a_peer_that_asks_or_confirms_too_much_is_told_apart() {
    let check = |update: Update, expected: Result<(), Misuse>| {
        let mut serve = Serve::new(1);
        serve.wants(A, 0..10, 1);
        serve.next().unwrap();
        assert_eq!(serve.updates(A, &update), expected, "{update:?}");
    };
    let wants =
        |count: usize| Update { add: (0..count as u32).map(id).collect(), ..Update::default() };
    check(Update { received: 1, ..Update::default() }, Ok(()));
    check(Update { received: 2, ..Update::default() }, Err(Misuse::Received));
    check(
        Update { received: u64::MAX, allowed: u64::MAX, ..Update::default() },
        Err(Misuse::Received),
    );
    check(Update { allowed: u64::MAX, ..Update::default() }, Ok(()));
    check(wants(WANTS_MAX), Ok(()));
    check(wants(WANTS_MAX + 2), Err(Misuse::Wants));
}

#[test]
fn slots_go_to_givers_to_newcomers_and_to_anybody_in_turn() {
    let count = SLOTS as u64 + 26;
    let mut serve = Serve::new(count);
    let peers: Vec<PeerId> = (1..=count).map(PeerId).collect();
    for peer in &peers {
        serve.wants(*peer, 0..5, 5);
    }
    let givers = &peers[10..10 + SLOTS_FOR_GIVERS];
    // These peers were sent much already and gave nothing.
    let takers = &peers[10 + SLOTS_FOR_GIVERS..];
    takers
        .iter()
        .for_each(|taker| serve.uploads.peers.get_mut(taker).unwrap().served_bytes = 9 * CHUNK);
    let (mut lucky, mut first) = (BTreeSet::<PeerId>::new(), 0);
    for round in 0..40 {
        givers.iter().for_each(|giver| serve.uploads.on_given(*giver, CHUNK));
        let told = serve.uploads.rotate(serve.now);
        assert_eq!(told.len(), 26, "{round}: all others are told when to come again");
        let slots: Vec<PeerId> =
            peers.iter().copied().filter(|peer| serve.uploads.peers[peer].has_slot).collect();
        assert_eq!(slots.len(), SLOTS, "{round}");
        assert!(givers.iter().all(|giver| slots.contains(giver)), "{round}");
        assert!(peers[..10].iter().all(|newcomer| slots.contains(newcomer)), "{round}");
        lucky.extend(takers.iter().filter(|taker| slots.contains(taker)));
        first = if round == 0 { lucky.len() } else { first };
        assert!(serve.uploads.rotate(serve.now).is_empty(), "{round}: not before it is time");
        serve.now += ROTATION;
    }
    assert!(first < lucky.len() && lucky.len() == takers.len(), "sooner or later each has one");
}

#[test]
fn a_rate_is_shown_only_while_the_peer_wants_something() {
    let mut serve = Serve::new(1);
    serve.wants(A, 0..2, 2);
    assert_eq!(serve.next(), Some((A, 0)));
    serve.uploads.on_written(A, serve.now);
    serve.now += Duration::from_secs(1);
    let (have, received) = (vec![id(0)], 1);
    serve.updates(A, &Update { have, received, ..Update::default() }).unwrap();
    assert_eq!(serve.uploads.show(A), (CHUNK, CHUNK));
    serve.all();
    assert_eq!(serve.uploads.show(A), (2 * CHUNK, 0));
}

/// Peers want chunks of some classes for a while, then of all, then of others.
#[test]
fn classes_share_by_weight_and_get_what_others_do_not_use() {
    let classes = [Class::Snapshot, Class::History, Class::Backfill, Class::File];
    let number = |at: usize| CollectionNumber(10 + at as u16);
    let mut serve = Serve::new(1);
    for (at, class) in classes.into_iter().enumerate() {
        serve.uploads.open(number(at), class, CHUNK, Duration::ZERO);
    }
    // Each row: the classes of which a peer wants chunks, the number of chunks that are sent in
    // all, and how many of them belong to each class.
    for (wanted, count, expected) in [
        ([false, false, false, true], 40, [0, 0, 0, 40]),
        ([true, true, true, true], 60, [32, 16, 8, 4]),
        ([false, true, false, true], 50, [0, 40, 0, 10]),
        ([true, false, true, false], 50, [40, 0, 10, 0]),
        ([true, true, true, true], 45, [24, 12, 6, 3]),
    ] {
        let wants = (0..4).filter(|at| wanted[*at]).flat_map(|at| {
            (0..100).map(move |chunk| number(at).segment(SegmentIndex(0)).chunk(chunk))
        });
        let add: Vec<ChunkId> = wants.collect();
        let allowed = u64::MAX;
        serve.updates(A, &Update { add: add.clone(), allowed, ..Update::default() }).unwrap();
        let mut sent = [0; 4];
        for _ in 0..count {
            drop(serve.uploads.rotate(serve.now));
            let (_, id) = serve.uploads.next(&serve.census, |_| true, serve.now).unwrap();
            sent[usize::from(id.segment.collection.0 - 10)] += 1;
            serve.uploads.on_written(A, serve.now);
            let received = serve.uploads.peers[&A].sent;
            let have = vec![id];
            serve.updates(A, &Update { have, received, ..Update::default() }).unwrap();
        }
        let near = |(got, expected): (i32, i32)| (got - expected).abs() <= 1;
        assert!(sent.into_iter().zip(expected).all(near), "{wanted:?}: {sent:?}");
        serve.updates(A, &Update { remove: add, ..Update::default() }).unwrap();
    }
}

/// Answers to audits use up the rate of a second.
#[test]
fn what_went_to_peers_otherwise_uses_up_the_rate() {
    for (audits, expected) in [(0, 10), (4, 6), (20, 0)] {
        let mut serve = Serve::new(1);
        serve.uploads.limit = Limit::new(Some(10 * CHUNK));
        serve.wants(A, 0..100, 100);
        // The level of the bucket does not count, so that the debt alone is left.
        assert!(serve.uploads.limit.opens_at(serve.now).is_none());
        serve.uploads.limit.take(CHUNK);
        serve.uploads.limit.take(audits * CHUNK);
        let mut sent = 0;
        for _ in 0..100 {
            serve.now += Duration::from_millis(10);
            sent += serve.all().len();
        }
        assert_eq!(sent, expected, "{audits}");
    }
}
