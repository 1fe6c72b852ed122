//! Collections that are closed, paused and dropped.

use super::*;

/// Chunks that were asked for before the collection was closed may still come, valid or not, and
/// the peer keeps its place for other collections.
#[test]
fn a_closed_collection_is_neither_asked_for_nor_served_and_nobody_is_blamed() {
    let mut engine = engine();
    open(&mut engine, OURS, 1, 1);
    begin(&mut engine, OURS, 1, &[]);
    greet(&mut engine, A, SegmentRanges::before(SegmentIndex(2)));
    let asked = asked(&told(&mut engine).0);
    assert_eq!(asked[&A].len(), CHUNKS as usize);
    let add = vec![segment(THEIRS, 0).chunk(0)];
    let wants = SyncMessage::Update(Update { add, allowed: 9, ..Update::default() });
    engine.close(OURS);
    let (said, _) = told(&mut engine);
    assert_eq!(said, [(A, SyncMessage::Close(OURS))]);
    assert!(!engine.is_fetching() && engine.census.get(A).is_none());
    hear(&mut engine, A, wants);
    assert!(!engine.on_chunk(A, segment(OURS, 1).chunk(0), false, CHUNK));
    engine.settle();
    let sends = |effect: &Effect| matches!(effect, Effect::SendChunk { .. });
    let effects = engine.take_effects();
    assert!(!effects.iter().any(sends), "it is not here any more");
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Ban { .. })));
    // Opened again, it has another number. The peer still has it open and hears the number.
    let next = OURS.next();
    open(&mut engine, next, 1, 1);
    let (said, _) = told(&mut engine);
    let [(A, SyncMessage::Open(number, _)), (A, SyncMessage::Holdings(..))] = said[..] else {
        panic!("{said:?}")
    };
    assert_eq!(number, next);
}

#[test]
fn numbers_are_used_again_last() {
    let mut engine = engine();
    let last = CollectionNumber(u16::MAX);
    open(&mut engine, CollectionNumber(0), 1, 0);
    open(&mut engine, last, 2, 0);
    assert_eq!(engine.next_number, CollectionNumber(0));
    // Number 0 is in use.
    let id = id(3);
    let one = |engine: &mut Engine| {
        let (whole, paused_until) = (SegmentRanges::default(), None);
        let class = Class::File;
        engine.open(Collection {
            id,
            class,
            chunk_bytes: CHUNK,
            chunks_max: 1,
            whole,
            is_announced: true,
            paused_until,
        })
    };
    assert_eq!(one(&mut engine), CollectionNumber(1));
    engine.close(CollectionNumber(1));
    assert_eq!(one(&mut engine), CollectionNumber(2));
}

/// Credit counts chunks, and a peer may send the longest of all collections for each.
#[test]
fn bytes_in_flight_are_counted_by_the_longest_chunk_of_all_collections() {
    let mut engine = engine();
    let long = |engine: &mut Engine, number, chunk_bytes| {
        open(engine, number, 1, 0);
        engine.collections.get_mut(&number).unwrap().chunk_bytes = chunk_bytes;
        engine.measure_chunks();
    };
    let most = |engine: &Engine| (engine.downloads.chunk_bytes(), engine.uploads.chunk_bytes());
    long(&mut engine, OURS, 100);
    assert_eq!(most(&engine), (100, 100));
    long(&mut engine, THEIRS, 300);
    assert_eq!(most(&engine), (300, 300));
    engine.close(THEIRS);
    assert_eq!(most(&engine), (100, 100));
}

/// The disk is full: the chunk does not count, peers hear so, and others are fetched on.
#[test]
fn what_the_disk_refuses_pauses_its_collection() {
    let mut engine = engine();
    let other = CollectionNumber(6);
    open(&mut engine, OURS, 1, 0);
    open(&mut engine, other, 2, 0);
    begin(&mut engine, OURS, 0, &[]);
    greet(&mut engine, A, SegmentRanges::before(SegmentIndex(1)));
    hear(&mut engine, A, SyncMessage::Open(CollectionNumber(3), id(2)));
    let whole = SegmentRanges::before(SegmentIndex(1));
    let holdings = Holdings { whole, ..Holdings::default() };
    hear(&mut engine, A, SyncMessage::Holdings(CollectionNumber(3), holdings));
    let _ = told(&mut engine);
    let refused = segment(OURS, 0).chunk(0);
    assert!(engine.on_chunk(A, refused, true, CHUNK) && engine.on_refused(refused));
    begin(&mut engine, other, 0, &[]);
    engine.now += TELL_EVERY;
    let (said, offences) = told(&mut engine);
    assert!(said.contains(&(A, SyncMessage::NotKept(refused.segment))) && offences.is_empty());
    let updates = said.iter().filter_map(|(_, message)| match message {
        SyncMessage::Update(update) => Some(update),
        _ => None,
    });
    let updates: Vec<&Update> = updates.collect();
    let is_of = |id: &ChunkId, number| id.segment.collection == number;
    assert!(updates.iter().all(|update| update.have.is_empty()), "it is not here: {updates:?}");
    assert!(updates.iter().flat_map(|update| &update.remove).any(|id| is_of(id, OURS)));
    let added: Vec<&ChunkId> = updates.iter().flat_map(|update| &update.add).collect();
    assert!(!added.is_empty() && added.iter().all(|id| is_of(id, other)), "{added:?}");
    // A chunk that was on its way is stored, if the disk takes it.
    assert!(engine.on_chunk(A, segment(OURS, 0).chunk(1), true, CHUNK));
    let until = engine.paused_until(OURS).unwrap();
    assert_eq!(engine.resumes_at(), Some(until));
    engine.now = until;
    let asked = asked(&told(&mut engine).0);
    assert!(asked[&A].iter().any(|id| is_of(id, OURS)), "{asked:?}");
    assert_eq!((engine.paused_until(OURS), engine.resumes_at()), (None, None));
}

#[test]
fn what_is_dropped_is_answered_as_not_kept() {
    let mut engine = engine();
    open(&mut engine, OURS, 1, 9);
    greet(&mut engine, A, SegmentRanges::default());
    let wants = |index| {
        let add = vec![segment(THEIRS, index).chunk(0)];
        SyncMessage::Update(Update { add, allowed: 9, ..Update::default() })
    };
    let _ = told(&mut engine);
    hear(&mut engine, A, SyncMessage::Update(Update { allowed: 0, ..Update::default() }));
    engine.on_dropped(OURS, range(2, 5));
    let (said, _) = told(&mut engine);
    let [(A, SyncMessage::Holdings(OURS, holdings))] = &said[..] else { panic!("{said:?}") };
    assert_eq!(holdings.whole.iter().collect::<Vec<_>>(), [range(0, 1), range(6, 8)]);
    hear(&mut engine, A, wants(4));
    let (said, offences) = told(&mut engine);
    assert_eq!(said, [(A, SyncMessage::NotKept(segment(OURS, 4)))]);
    assert_eq!(offences, []);
}

/// A large collection does not keep the endgame of a small one from beginning.
#[test]
fn each_collection_has_an_endgame_of_its_own() {
    let mut engine = engine();
    let other = CollectionNumber(6);
    open(&mut engine, OURS, 1, 0);
    open(&mut engine, other, 2, 0);
    for index in 0..50 {
        begin(&mut engine, other, index, &[]);
    }
    begin(&mut engine, OURS, 0, &[false, true, true, true, true, true, true, true]);
    for peer in [A, B] {
        greet(&mut engine, peer, SegmentRanges::before(SegmentIndex(1)));
    }
    let missing = segment(OURS, 0).chunk(0);
    let mut all = BTreeSet::new();
    for tenth in 0..100 {
        engine.now = Duration::from_millis(100 * tenth);
        for (peer, chunks) in asked(&told(&mut engine).0) {
            if chunks.contains(&missing) {
                all.insert(peer);
            }
        }
    }
    assert_eq!(all.len(), 2, "the last chunk is asked of the second peer too: {all:?}");
}
