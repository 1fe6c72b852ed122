//! A machine that has snapshots and offers them.

use std::time::Duration;

use ledger::codec;
use ledger::hash::{SnapshotId, StateRoot};
use ledger::snapshot::{
    FRONTIER_PAGE_SUBTREES, Frontier, FrontierError, SnapshotRules, SubtreeDescriptor,
};
use ledger::units::{Height, SegmentIndex};
use protocol::PeerId;
use protocol::swarm::message::{
    CollectionId, CollectionNumber, FrontierPage, SNAPSHOTS_MAX, SyncMessage, Update,
};
use protocol::swarm::{
    CollectionKind, Effect, Input, Rates, SegmentRanges, Setup, SnapshotOffer, Swarm,
    snapshot_chunk,
};

use super::newcomer::{made, true_offer};

const PEER: PeerId = PeerId(1);
const NUMBER: CollectionNumber = CollectionNumber(9);

/// A machine with all of history.
fn machine() -> Swarm {
    let setup = Setup {
        chain: made().chain.clone(),
        history: &made().history(5),
        kept: SegmentRanges::before(SegmentIndex(5)),
        staged: Vec::new(),
        manifest: None,
        nonce: 7,
        rates: Rates::default(),
        join: None,
    };
    Swarm::new(setup, Duration::ZERO).0
}

fn give(sync: &mut Swarm, input: Input) -> (Vec<SyncMessage>, Vec<Effect>) {
    let effects = sync.handle(Duration::ZERO, input);
    let (said, rest): (Vec<Effect>, Vec<Effect>) =
        effects.into_iter().partition(|it| matches!(it, Effect::Send(..) | Effect::Answer(..)));
    let said = said.into_iter().map(|effect| match effect {
        Effect::Send(PEER, bytes) | Effect::Answer(PEER, bytes) => {
            SyncMessage::decode(&bytes).unwrap()
        }
        other => panic!("{other:?}"),
    });
    (said.collect(), rest)
}

fn hear(sync: &mut Swarm, message: &SyncMessage) -> (Vec<SyncMessage>, Vec<Effect>) {
    give(sync, Input::Message(PEER, codec::encode(message)))
}

fn page(sync: &mut Swarm, id: SnapshotId, page: u32) -> Option<FrontierPage> {
    let (said, rest) = hear(sync, &SyncMessage::GetFrontier(id, page));
    assert!(rest.is_empty());
    match &said[..] {
        [SyncMessage::Frontier(got, at, content)] if (*got, *at) == (id, page) => content.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_kept_is_named_and_served_until_it_is_gone() {
    let mut sync = machine();
    let (said, _) = give(&mut sync, Input::Opened(PEER));
    assert!(said.contains(&SyncMessage::Snapshots(Vec::new())), "it says that it has none");
    give(&mut sync, Input::Closed(PEER));
    let offer = true_offer(3);
    let (height, id) = (offer.height, offer.id);
    give(&mut sync, Input::SnapshotKept(offer.clone()));
    let (said, _) = give(&mut sync, Input::Opened(PEER));
    let number = said.iter().find_map(|message| match message {
        SyncMessage::Open(number, CollectionId(hash)) if *hash == id.0 => Some(*number),
        _ => None,
    });
    let number = number.unwrap();
    assert_eq!(sync.kind(number), Some(CollectionKind::Snapshot(id)));
    assert!(said.contains(&SyncMessage::Snapshots(vec![(height, id)])));

    let content = page(&mut sync, id, 0).unwrap();
    assert_eq!(content.subtrees, offer.frontier.descriptors());
    let block = content.block.unwrap();
    assert_eq!((block.header, block.certificate), (offer.header.clone(), offer.certificate));
    for (id, at) in [(id, 1), (id, u32::MAX), (true_offer(2).id, 0)] {
        assert_eq!(page(&mut sync, id, at), None, "{at}");
    }

    hear(&mut sync, &SyncMessage::Open(NUMBER, CollectionId(id.0)));
    let chunk = NUMBER.segment(SegmentIndex(0)).chunk(5);
    let add = vec![chunk];
    let wants = SyncMessage::Update(Update { add, allowed: 9, ..Update::default() });
    let (_, rest) = hear(&mut sync, &wants);
    let [Effect::SendChunk { id: ours, name, .. }] = rest[..] else { panic!("{rest:?}") };
    assert_eq!((ours.segment.collection, name), (number, chunk));
    assert_eq!(snapshot_chunk(ours), 5);
    // A second one changes nothing.
    let (said, _) = give(&mut sync, Input::SnapshotKept(true_offer(3)));
    assert!(said.is_empty(), "{said:?}");

    let (said, _) = give(&mut sync, Input::SnapshotGone(id));
    assert_eq!(said, [SyncMessage::Close(number), SyncMessage::Snapshots(Vec::new())]);
    assert_eq!((sync.kind(number), page(&mut sync, id, 0)), (None, None));
    // The chunk was being read meanwhile.
    let (said, rest) = give(&mut sync, Input::Unsent(PEER, ours));
    assert!(said.is_empty() && rest.is_empty(), "{said:?} {rest:?}");
}

#[test]
fn the_highest_four_snapshots_are_offered() {
    let mut sync = machine();
    give(&mut sync, Input::Opened(PEER));
    let mut named = Vec::new();
    for segment in [2, 0, 1, 4, 3] {
        let (said, _) = give(&mut sync, Input::SnapshotKept(true_offer(segment)));
        for message in said {
            if let SyncMessage::Snapshots(all) = message {
                assert!(all.len() <= SNAPSHOTS_MAX);
                named = all;
            }
        }
    }
    let mut heights: Vec<u64> = named.iter().map(|(height, _)| height.0).collect();
    heights.sort_unstable();
    assert_eq!(heights, [200, 300, 400, 500]);
}

#[test]
fn frontiers_and_proofs_are_answered_so_often() {
    let mut sync = machine();
    give(&mut sync, Input::Opened(PEER));
    let (_, rest) = hear(&mut sync, &SyncMessage::GetBlockProof(Height(7)));
    assert!(matches!(rest[..], [Effect::SendBlockProof(PEER, Height(7))]), "{rest:?}");
    for _ in 0..100 {
        hear(&mut sync, &SyncMessage::GetBlockProof(Height(7)));
    }
    let (said, rest) = hear(&mut sync, &SyncMessage::GetBlockProof(Height(7)));
    assert_eq!(said, [SyncMessage::BlockProof(Height(7), None)]);
    assert!(rest.is_empty());

    let mut sync = machine();
    give(&mut sync, Input::SnapshotKept(true_offer(3)));
    give(&mut sync, Input::Opened(PEER));
    let id = true_offer(3).id;
    let answered = (0..10_000).take_while(|_| page(&mut sync, id, 0).is_some()).count();
    assert!((1_000..9_000).contains(&answered), "{answered}");
}

/// A full page is followed by another one, which may be empty.
#[test]
fn a_frontier_comes_in_pages() {
    let rules = SnapshotRules::new(made().chain.limits());
    let count = FRONTIER_PAGE_SUBTREES;
    let depth = u16::try_from(count.ilog2()).unwrap();
    let hash = made().chain.id().0;
    let subtrees = vec![SubtreeDescriptor { depth, count: rules.entries_max(), hash }; count];
    let root = match Frontier::verify(subtrees.clone(), StateRoot(hash), &rules) {
        Err(FrontierError::OtherRoot { got, .. }) => got,
        other => panic!("{other:?}"),
    };
    let frontier = Frontier::verify(subtrees, root, &rules).unwrap().into();
    let offer: SnapshotOffer = made().offer(SegmentIndex(3), &frontier);
    let id = offer.id;
    let mut sync = machine();
    give(&mut sync, Input::SnapshotKept(offer));
    give(&mut sync, Input::Opened(PEER));
    let first = page(&mut sync, id, 0).unwrap();
    assert!(first.subtrees.len() == count && first.block.is_some());
    let last = page(&mut sync, id, 1).unwrap();
    assert!(last.subtrees.is_empty() && last.block.is_none());
    assert_eq!(page(&mut sync, id, 2), None);
}
