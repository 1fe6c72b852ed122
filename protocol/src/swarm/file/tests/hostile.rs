//! Peers that lie about a file, or ask for what no file has.

use super::*;
use crate::swarm::SegmentRange;

#[test]
fn a_head_that_does_not_fit_bans_its_sender_and_another_peer_is_asked() {
    let file = made(2 * SEGMENT_BYTES, 1);
    let other = made(2 * SEGMENT_BYTES, 2);
    let wrong: [fn(&mut FileHead); 4] = [
        |head| head.chunks[5] = Hash::ZERO,
        |head| head.descriptor.length += 1,
        |head| head.path.index = 1,
        |head| head.chunks.truncate(3),
    ];
    let mut heads: Vec<FileHead> = wrong
        .iter()
        .map(|change| {
            let mut head = file.head(0);
            change(&mut head);
            head
        })
        .collect();
    heads.extend([other.head(0), file.head(1)]);
    for head in heads {
        let mut node = Node::new(&[A, B]);
        node.give(Input::FileWanted(file.held(0), ByteRange::ALL));
        let mut effects = node.claim(A, &file, 2);
        effects.extend(node.claim(B, &file, 2));
        assert_eq!(asked(&effects), [(A, 0)]);
        // Nobody asked B, so its heads are not looked at.
        let message = SyncMessage::FileHead(file.id, SegmentIndex(1), Some(head.clone()));
        assert_eq!(bans(&node.say(B, &message)), []);
        let message = SyncMessage::FileHead(file.id, SegmentIndex(0), Some(head));
        let effects = node.say(A, &message);
        assert_eq!(bans(&effects), [(A, Offence::FileHead { segment: SegmentIndex(0) })]);
        assert_eq!(asked(&effects), [(B, 0)]);
        let effects = node.serve(B, &file, effects);
        assert!(is_done(&effects, file.id));
    }
}

#[test]
fn a_peer_that_never_answers_is_asked_last() {
    let mut node = Node::new(&[A, B]);
    let file = made(2 * SEGMENT_BYTES, 1);
    node.give(Input::FileWanted(file.held(0), ByteRange::ALL));
    let mut effects = node.claim(A, &file, 2);
    effects.extend(node.claim(B, &file, 2));
    assert_eq!(asked(&effects), [(A, 0)]);
    assert_eq!(asked(&node.elapse(Duration::from_secs(2))), []);
    let effects = node.elapse(Duration::from_secs(1));
    assert_eq!(asked(&effects), [(B, 0)]);
    // One that refuses is left sooner.
    let refusal = SyncMessage::FileHead(file.id, SegmentIndex(0), None);
    assert_eq!(asked(&node.say(B, &refusal)), []);
    let effects = node.elapse(Duration::from_millis(750));
    assert_eq!(asked(&effects).len(), 1);
    let head = SyncMessage::FileHead(file.id, SegmentIndex(0), Some(file.head(0)));
    let effects = node.say(B, &head);
    assert_eq!(asked(&effects), [(B, 1)], "a late head still counts");
    assert_eq!(bans(&effects), []);
}

#[test]
fn claims_beyond_the_end_of_a_file_ask_for_nothing() {
    let mut node = Node::new(&[A]);
    let file = made(SEGMENT_BYTES + 5, 1);
    node.give(Input::FileWanted(file.held(0), ByteRange::ALL));
    let effects = node.claim(A, &file, 1 << 40);
    let effects = node.serve(A, &file, effects);
    assert!(is_done(&effects, file.id));
    let segments: Vec<u64> = asked(&effects).iter().map(|(_, segment)| *segment).collect();
    assert_eq!(segments, [0, 1]);
}

#[test]
fn a_chunk_that_no_file_has_costs_its_asker_the_connection_and_nobody_else_anything() {
    for (segment, chunk) in [(1, 1), (1, 128), (0, 200)] {
        let mut node = Node::new(&[A]);
        let file = made(SEGMENT_BYTES + 5, 1);
        node.give(Input::FileHeld(file.held(2)));
        node.say(A, &SyncMessage::Open(THEIRS, CollectionId(file.id.0)));
        let id = THEIRS.segment(SegmentIndex(segment)).chunk(chunk);
        let update = Update { add: vec![id], allowed: 1, ..Update::default() };
        let effects = node.say(A, &SyncMessage::Update(update));
        let sends = effects.iter().find_map(|effect| match effect {
            Effect::SendChunk { id, .. } => Some(*id),
            _ => None,
        });
        let effects = node.give(Input::Unsent(A, sends.unwrap()));
        assert!(matches!(bans(&effects)[..], [(A, Offence::ImpossibleWant { .. })]));
        assert_eq!(node.report(file.id).here_bytes, SEGMENT_BYTES + 5);
    }
}

/// Whoever claims only what the file does not have is asked for it, as long as nobody else is here,
/// since any head tells the length. Its silence keeps nobody else from being asked.
#[test]
fn a_claim_of_a_segment_that_does_not_exist_holds_up_nobody_else() {
    let file = made(2 * SEGMENT_BYTES, 1);
    let refusal = SyncMessage::FileHead(file.id, SegmentIndex(1 << 30), None);
    for says in [None, Some(refusal)] {
        let mut node = Node::new(&[A, B]);
        node.give(Input::FileWanted(file.held(0), ByteRange::ALL));
        node.say(A, &SyncMessage::Open(THEIRS, CollectionId(file.id.0)));
        let mut whole = SegmentRanges::default();
        whole.insert(SegmentRange { first: SegmentIndex(1 << 30), last: SegmentIndex(1 << 31) });
        let holdings = Holdings { whole, open: Vec::new(), nonce: 1 };
        let effects = node.say(A, &SyncMessage::Holdings(THEIRS, holdings));
        assert_eq!(asked(&effects), [(A, 1 << 30)]);
        assert_eq!(asked(&node.claim(B, &file, 2)), []);
        says.iter().for_each(|refusal| drop(node.say(A, refusal)));
        let effects = node.elapse(Duration::from_secs(3));
        assert_eq!(asked(&effects), [(B, 0)]);
        let effects = node.serve(B, &file, effects);
        assert!(is_done(&effects, file.id));
        assert_eq!(bans(&effects), []);
    }
}

/// So the node looks for others: somebody who is connected, and claims the file, sends nothing.
#[test]
fn a_file_that_its_holders_do_not_send_needs_others() {
    let mut node = Node::new(&[A, B]);
    let file = made(SEGMENT_BYTES, 1);
    node.give(Input::FileWanted(file.held(0), ByteRange::ALL));
    assert!(node.report(file.id).needs_holders, "nobody has it");
    node.claim(A, &file, 1);
    node.elapse(Duration::from_secs(6));
    assert!(node.report(file.id).needs_holders, "its holder sends nothing");
    node.claim(B, &file, 1);
    let head = SyncMessage::FileHead(file.id, SegmentIndex(0), Some(file.head(0)));
    node.say(B, &head);
    let number = *node.swarm.file.open.keys().next().unwrap();
    let ids: Vec<ChunkId> = (0..128).map(|at| number.segment(SegmentIndex(0)).chunk(at)).collect();
    node.elapse(Duration::from_millis(100));
    let first = ids.iter().find(|id| node.swarm.expected(B, **id).is_some()).copied().unwrap();
    node.give(Input::Chunk { from: B, id: first, is_valid: true, bytes: CHUNK_BYTES });
    assert!(!node.report(file.id).needs_holders, "it comes");
    node.elapse(Duration::from_secs(6));
    assert!(node.report(file.id).needs_holders, "it does not come any more");
    // What the disk refuses no other holder mends.
    node.give(Input::Refused(first));
    assert!(!node.report(file.id).needs_holders);
    node.give(Input::FileGone(file.id));
    node.give(Input::FileHeld(file.held(1)));
    assert!(!node.report(file.id).needs_holders, "it is here");
}
