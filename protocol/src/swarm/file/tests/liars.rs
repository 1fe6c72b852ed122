//! Peers that claim what they do not give.

use std::collections::BTreeSet;

use super::*;
use crate::swarm::file::places::FETCHES_MAX;

#[test]
fn claims_and_single_chunks_do_not_end_the_search_for_holders() {
    let mut node = Node::new(&[A]);
    let file = made(SEGMENT_BYTES, 1);
    node.give(Input::FileWanted(file.held(0), ByteRange::ALL));
    assert!(node.report(file.id).needs_holders, "nobody has it");
    node.claim(A, &file, 1);
    node.say(A, &SyncMessage::FileHead(file.id, SegmentIndex(0), Some(file.head(0))));
    node.wait(Duration::from_secs(5));
    assert!(!node.report(file.id).needs_holders);
    node.wait(Duration::from_secs(54));
    assert!(node.report(file.id).needs_holders, "nothing has come");
    let number = *node.swarm.file.open.keys().next().unwrap();
    let give = |node: &mut Node, chunk| {
        node.wait(Duration::from_secs(1));
        let id = number.segment(SegmentIndex(0)).chunk(chunk);
        node.give(Input::Chunk { from: A, id, is_valid: true, bytes: CHUNK_BYTES });
    };
    give(&mut node, 0);
    assert!(node.report(file.id).needs_holders, "one chunk in a minute is not much");
    (1..8).for_each(|chunk| give(&mut node, chunk));
    assert!(!node.report(file.id).needs_holders);
    node.wait(Duration::from_secs(60));
    assert!(node.report(file.id).needs_holders, "it gives no more");
    node.give(Input::FileGone(file.id));
    assert!(node.swarm.report().files.is_empty());
}

/// Nobody gives the first segments, which a liar claims.
#[test]
fn a_liar_does_not_keep_back_what_others_have() {
    for knows_length in [false, true] {
        let mut node = Node::new(&[A]);
        let file = made(200 * SEGMENT_BYTES, 1);
        node.give(Input::FileWanted(file.held(0), ByteRange::ALL));
        if knows_length {
            node.claim(A, &file, 1);
            node.say(A, &SyncMessage::FileHead(file.id, SegmentIndex(0), Some(file.head(0))));
        }
        assert!(!asked(&node.claim(A, &file, 200)).is_empty());
        node.give(Input::Opened(B));
        node.claim_range(B, &file, 100, 109);
        let effects = node.wait(Duration::from_secs(3));
        let asked_b: Vec<u64> =
            asked(&effects).iter().filter(|(peer, _)| *peer == B).map(|(_, at)| *at).collect();
        let most = if knows_length { 8 } else { 1 };
        assert_eq!(asked_b, (100..100 + most).collect::<Vec<_>>(), "{effects:?}");
        node.serve(B, &file, effects);
        assert!(node.report(file.id).here_bytes >= 10 * SEGMENT_BYTES);
    }
}

/// A liar gives true heads and no chunks, so its segments take all places.
#[test]
fn open_segments_of_which_no_chunk_comes_make_room_for_others() {
    let mut node = Node::new(&[A]);
    let file = made(200 * SEGMENT_BYTES, 1);
    node.give(Input::FileWanted(file.held(0), ByteRange::ALL));
    let mut waiting = asked(&node.claim(A, &file, 90));
    while let Some((_, at)) = waiting.pop() {
        let head = SyncMessage::FileHead(file.id, SegmentIndex(at), Some(file.head(at)));
        waiting.extend(asked(&node.say(A, &head)));
    }
    let open = |node: &Node| -> Vec<u64> {
        node.swarm.engine.segments().iter().map(|segment| segment.id().index.0).collect()
    };
    assert_eq!(open(&node), (0..64).collect::<Vec<_>>());
    // It gives one chunk, which stays here.
    let number = *node.swarm.file.open.keys().next().unwrap();
    let missing = node.swarm.engine.segments().of(number).flat_map(|one| one.missing_chunks());
    let missing: Vec<ChunkId> = missing.collect();
    let id = *missing.iter().find(|id| node.swarm.expected(A, **id).is_some()).unwrap();
    node.give(Input::Chunk { from: A, id, is_valid: true, bytes: CHUNK_BYTES });
    node.wait(Duration::from_secs(120));
    assert_eq!(open(&node).len(), OPEN_SEGMENTS_MAX, "nobody else has any");
    node.give(Input::Opened(B));
    let effects = node.claim_range(B, &file, 100, 104);
    assert!(asked(&effects).contains(&(B, 100)), "{:?}", asked(&effects));
    let effects = node.serve(B, &file, effects);
    let told = sent(&effects);
    assert!(told.contains(&(A, SyncMessage::NotKept(id.segment))));
    assert!(node.report(file.id).here_bytes >= 5 * SEGMENT_BYTES);
    // What came of the segment that was closed does not come again.
    let mut effects = node.claim_range(B, &file, id.segment.index.0, id.segment.index.0);
    effects.extend(node.wait(Duration::from_secs(3)));
    let effects = node.serve(B, &file, effects);
    let again = effects.iter().filter(|effect| matches!(effect, Effect::Store(one) if *one == id));
    assert_eq!(again.count(), 0);
    assert_eq!(node.report(file.id).here_bytes, 6 * SEGMENT_BYTES);
}

/// Nothing comes of any of them, and a peer has them all open.
#[test]
fn fetches_that_are_stuck_take_turns_with_those_that_wait() {
    let mut node = Node::new(&[A]);
    let files: Vec<Made> = (0..35).map(|number| made(5, number)).collect();
    for (at, file) in (100..).zip(&files) {
        node.give(Input::FileWanted(file.held(0), ByteRange::ALL));
        node.say(A, &SyncMessage::Open(CollectionNumber(at), CollectionId(file.id.0)));
    }
    let open =
        |node: &Node| -> BTreeSet<FileId> { node.swarm.file.open.values().copied().collect() };
    let first = open(&node);
    assert_eq!(first.len(), FETCHES_MAX);
    node.wait(Duration::from_secs(299));
    assert_eq!(open(&node), first);
    node.wait(Duration::from_secs(10));
    let second = open(&node);
    assert_eq!(second.len(), FETCHES_MAX);
    assert!(files.iter().all(|file| first.contains(&file.id) || second.contains(&file.id)));
    // Those that lost their places have the next turn.
    node.wait(Duration::from_secs(20));
    assert_eq!(open(&node), second, "they have had their turn");
    node.wait(Duration::from_secs(300));
    assert!(first.difference(&second).all(|id| open(&node).contains(id)));
}

#[test]
fn what_cannot_be_read_for_once_is_served_again() {
    let mut node = Node::new(&[A]);
    let file = made(2 * SEGMENT_BYTES, 1);
    node.give(Input::FileHeld(file.held(2)));
    node.say(A, &SyncMessage::Open(THEIRS, CollectionId(file.id.0)));
    let name = THEIRS.segment(SegmentIndex(1));
    let want = Update { add: vec![name.chunk(3)], allowed: 9, ..Update::default() };
    let sends = |effects: Vec<Effect>| {
        effects.into_iter().find_map(|effect| match effect {
            Effect::SendChunk { id, .. } => Some(id),
            _ => None,
        })
    };
    let id = sends(node.say(A, &SyncMessage::Update(want.clone()))).unwrap();
    let told = sent(&node.give(Input::Unread(A, id)));
    assert!(told.contains(&(A, SyncMessage::NotKept(id.segment))), "{told:?}");
    assert_eq!(node.report(file.id).here_bytes, SEGMENT_BYTES);
    assert_eq!(sends(node.say(A, &SyncMessage::Update(want.clone()))), None);
    let told = sent(&node.wait(Duration::from_secs(30)));
    let range = SegmentRange { first: SegmentIndex(1), last: SegmentIndex(1) };
    let held = SyncMessage::Held(id.segment.collection, range);
    assert!(told.contains(&(A, held)), "{told:?}");
    assert_eq!(node.report(file.id).here_bytes, 2 * SEGMENT_BYTES);
    assert_eq!(sends(node.say(A, &SyncMessage::Update(want))), Some(id));
    // The file may be closed meanwhile.
    node.give(Input::Unread(A, id));
    node.say(A, &SyncMessage::Close(THEIRS));
    node.wait(Duration::from_secs(30));
    assert_eq!(node.report(file.id).here_bytes, 2 * SEGMENT_BYTES);
}
