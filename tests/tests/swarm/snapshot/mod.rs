//! Tests of one machine that joins with a snapshot, or offers one.

mod hostile;
mod newcomer;
mod serving;

use std::collections::BTreeSet;
use std::time::Duration;

use ledger::hash::{BlockHash, Hash, SnapshotId};
use ledger::units::Height;
use protocol::swarm::message::{FrontierPage, SNAPSHOTS_MAX, SyncMessage};
use protocol::swarm::{Input, JoinFailure, Stage};
use protocol::{Offence, PeerId};
use tests::swarm::Forgery;

use newcomer::{Conduct, Newcomer, forged_offer, made, true_offer};

const FORGERIES: [Forgery; 3] = [Forgery::Moved, Forgery::Finer, Forgery::Coarser];
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_newcomer_loads_the_highest_snapshot_and_goes_on_with_what_follows() {
    let mut newcomer = Newcomer::new(None);
    newcomer.meet(1, Conduct::Honest, vec![true_offer(1)]);
    newcomer.meet(2, Conduct::Honest, vec![true_offer(1), true_offer(3)]);
    newcomer.certify();
    assert_eq!(newcomer.sync.report().stage, Stage::Snapshot);
    assert_eq!(newcomer.sync.report().snapshot, Some(Height(400)));
    newcomer.run(MINUTE);
    let id = true_offer(3).id;
    assert_eq!((newcomer.loaded, &newcomer.begun[..]), (Some(id), &[id][..]));
    assert!(newcomer.banned.is_empty());
    assert_eq!(newcomer.heads, BTreeSet::from([4]), "no segment before the snapshot is fetched");
    let report = newcomer.sync.report();
    assert_eq!((report.tip, report.sealed, report.stage), (Height(400), 4, Stage::Chunks));
}

/// The liars are more than the honest peers, and announce the highest snapshot.
#[test]
fn a_snapshot_with_false_counts_is_left_and_only_who_sends_false_bytes_is_banned() {
    for forgery in FORGERIES {
        for (conduct, is_banned) in [(Conduct::Pretends, true), (Conduct::Withholds, false)] {
            let mut newcomer = Newcomer::new(None);
            let what = format!("{forgery:?} {conduct:?}");
            for liar in 1..=3 {
                newcomer.meet(liar, conduct, vec![forged_offer(3, forgery)]);
            }
            newcomer.meet(4, Conduct::Honest, vec![true_offer(3)]);
            newcomer.certify();
            newcomer.run(MINUTE);
            let forged = forged_offer(3, forgery).id;
            assert_eq!(newcomer.begun, [forged, true_offer(3).id], "{what}");
            assert_eq!(newcomer.loaded, Some(true_offer(3).id), "{what}");
            assert!(!newcomer.banned.contains_key(&PeerId(4)), "{what}");
            assert_eq!(!newcomer.banned.is_empty(), is_banned, "{what}");
            let is_chunk = |offence: &Offence| matches!(offence, Offence::BadChunk { .. });
            assert!(newcomer.banned.values().all(is_chunk), "{what}");
        }
    }
}

#[test]
fn what_is_false_in_a_frontier_or_its_block_bans_who_sent_it() {
    type Change = fn(&mut FrontierPage);
    type Expected = fn(&Offence) -> bool;
    let is_block: Expected = |offence| matches!(offence, Offence::SnapshotBlock { .. });
    let is_frontier: Expected = |offence| matches!(offence, Offence::Frontier(_));
    let is_other: Expected = |offence| matches!(offence, Offence::WrongFrontier);
    let rows: [(Change, Expected); 7] = [
        (|page| page.block = None, is_block),
        (|page| page.block.as_mut().unwrap().header.time.0 += 1, is_block),
        (|page| page.block.as_mut().unwrap().certificate.signatures[0].0[5] ^= 1, is_block),
        (|page| page.block = Some(made().target.clone()), is_block),
        (|page| page.subtrees[0].hash.0[0] ^= 1, is_frontier),
        (|page| page.subtrees.truncate(3), is_frontier),
        (|page| page.subtrees[0].count += 1, is_other),
    ];
    for (row, (change, expected)) in rows.into_iter().enumerate() {
        let mut newcomer = Newcomer::new(None);
        newcomer.meet(1, Conduct::Honest, vec![true_offer(3)]);
        newcomer.peers.get_mut(&PeerId(1)).unwrap().changes = Some(change);
        newcomer.meet(2, Conduct::Honest, vec![true_offer(3)]);
        newcomer.certify();
        newcomer.run(MINUTE);
        assert!(expected(&newcomer.banned[&PeerId(1)]), "{row}: {:?}", newcomer.banned);
        assert_eq!((newcomer.banned.len(), newcomer.loaded), (1, Some(true_offer(3).id)), "{row}");
    }
}

#[test]
fn a_false_chunk_bans_its_sender_and_comes_from_another() {
    let mut newcomer = Newcomer::new(None);
    newcomer.meet(1, Conduct::Poisons, vec![true_offer(3)]);
    newcomer.meet(2, Conduct::Honest, vec![true_offer(3)]);
    newcomer.certify();
    newcomer.run(MINUTE);
    assert_eq!(newcomer.banned.keys().collect::<Vec<_>>(), [&PeerId(1)]);
    assert_eq!(newcomer.begun, [true_offer(3).id], "the same snapshot");
    assert_eq!(newcomer.loaded, Some(true_offer(3).id));
}

/// Of two ids for one height the one with more holders is first. Who names an id twice is one
/// holder, and who names a false height for it is asked alone.
#[test]
fn more_holders_come_first_and_nobody_is_convicted_by_the_words_of_others() {
    let forged = forged_offer(3, Forgery::Moved);
    let mut newcomer = Newcomer::new(None);
    newcomer.meet(1, Conduct::Withholds, vec![forged.clone()]);
    for honest in [2, 3] {
        newcomer.meet(honest, Conduct::Honest, vec![true_offer(3)]);
    }
    let again = SyncMessage::Snapshots(vec![(forged.height, forged.id); SNAPSHOTS_MAX]);
    newcomer.hear(PeerId(1), &again);
    newcomer.certify();
    newcomer.run(MINUTE);
    assert_eq!(newcomer.begun, [true_offer(3).id]);

    let mut newcomer = Newcomer::new(None);
    newcomer.meet(1, Conduct::Honest, vec![true_offer(1)]);
    newcomer.meet(2, Conduct::Honest, vec![true_offer(1)]);
    // The id is that of a lower snapshot.
    newcomer.hear(PeerId(2), &SyncMessage::Snapshots(vec![(Height(400), true_offer(1).id)]));
    newcomer.certify();
    newcomer.run(MINUTE);
    assert_eq!(newcomer.banned.keys().collect::<Vec<_>>(), [&PeerId(2)]);
    assert_eq!(newcomer.loaded, Some(true_offer(1).id));
    let asked = &newcomer.peers[&PeerId(1)].asked;
    assert_eq!(asked[..], [true_offer(1).id], "asked once, and for its own");
}

#[test]
fn a_height_that_ends_no_segment_or_is_not_proved_is_not_tried() {
    let mut newcomer = Newcomer::new(None);
    newcomer.meet(1, Conduct::Honest, Vec::new());
    let absurd = [0, 1, 399, 401, 501, 600, u64::MAX].map(|height| (Height(height), ID));
    for some in absurd.chunks(SNAPSHOTS_MAX) {
        newcomer.hear(PeerId(1), &SyncMessage::Snapshots(some.to_vec()));
    }
    newcomer.certify();
    newcomer.run(MINUTE);
    assert_eq!(newcomer.failed, Some(JoinFailure::NotOffered));
    assert_eq!(newcomer.now, Duration::from_secs(5));
    assert!(newcomer.peers[&PeerId(1)].asked.is_empty());

    let mut newcomer = Newcomer::new(None);
    newcomer.meet(1, Conduct::Honest, Vec::new());
    let many = vec![(Height(400), ID); SNAPSHOTS_MAX + 1];
    newcomer.hear(PeerId(1), &SyncMessage::Snapshots(many));
    assert_eq!(newcomer.banned[&PeerId(1)], Offence::AbsurdHoldings);
}

const ID: SnapshotId = SnapshotId(Hash::ZERO);

/// What is not there is not waited for.
#[test]
fn a_network_without_snapshots_is_joined_by_history_soon() {
    let ended = |newcomer: &mut Newcomer| {
        newcomer.run(MINUTE);
        assert_eq!(newcomer.failed, Some(JoinFailure::NotOffered));
        newcomer.now
    };
    // No segment is sealed.
    let mut newcomer = Newcomer::new(None);
    newcomer.meet(1, Conduct::Honest, Vec::new());
    newcomer.give(Input::Certified(made().target_inside(Height(50))));
    assert_eq!(newcomer.failed, Some(JoinFailure::NotOffered), "at once");
    // All peers have none.
    let mut newcomer = Newcomer::new(None);
    newcomer.meet(1, Conduct::Honest, Vec::new());
    newcomer.meet(2, Conduct::Honest, Vec::new());
    newcomer.certify();
    assert_eq!(ended(&mut newcomer), Duration::from_secs(1));
    // One has not said so.
    let mut newcomer = Newcomer::new(None);
    newcomer.meet(1, Conduct::Honest, Vec::new());
    newcomer.give(Input::Opened(PeerId(2)));
    newcomer.certify();
    assert_eq!(ended(&mut newcomer), Duration::from_secs(5));
    // One that connects in time has one.
    let mut newcomer = Newcomer::new(None);
    newcomer.meet(1, Conduct::Honest, Vec::new());
    newcomer.certify();
    newcomer.run(Duration::from_millis(500));
    newcomer.meet(2, Conduct::Honest, vec![true_offer(3)]);
    newcomer.run(MINUTE);
    assert_eq!((newcomer.failed, newcomer.loaded), (None, Some(true_offer(3).id)));
}

#[test]
fn joining_ends_and_history_goes_on() {
    // Nobody gives the frontier, so the snapshot is left after some time, and at last for good.
    for conduct in [Conduct::Refuses, Conduct::Silent] {
        let mut newcomer = Newcomer::new(None);
        newcomer.meet(1, conduct, vec![true_offer(3)]);
        newcomer.certify();
        newcomer.run(10 * MINUTE);
        assert_eq!(newcomer.failed, Some(JoinFailure::AllLeft), "{conduct:?}");
        assert!(newcomer.now < 3 * MINUTE, "{:?}", newcomer.now);
        assert!(newcomer.banned.is_empty());
        assert!(newcomer.heads.contains(&0), "history goes on");
        assert_eq!(newcomer.told_none, [PeerId(1)], "once it knows that it has none");
    }
    // Nobody sends chunks.
    let mut newcomer = Newcomer::new(None);
    newcomer.meet(1, Conduct::Withholds, vec![forged_offer(3, Forgery::Finer)]);
    newcomer.certify();
    newcomer.run(10 * MINUTE);
    assert_eq!(newcomer.failed, Some(JoinFailure::AllLeft));
    assert!(newcomer.heads.contains(&0) && newcomer.now < 3 * MINUTE);
    // Nobody is there.
    let mut newcomer = Newcomer::new(None);
    newcomer.run(10 * MINUTE);
    assert_eq!((newcomer.failed, newcomer.now), (Some(JoinFailure::NoManifest), MINUTE));
    // The chain is short.
    let mut newcomer = Newcomer::new(None);
    let mut target = made().target.clone();
    target.header.height = Height(8);
    newcomer.give(Input::Certified(target));
    assert_eq!(newcomer.failed, Some(JoinFailure::Near));
}

#[test]
fn who_does_not_answer_is_not_waited_for_while_others_have_the_snapshot() {
    let mut newcomer = Newcomer::new(None);
    newcomer.meet(1, Conduct::Silent, vec![true_offer(3)]);
    newcomer.meet(2, Conduct::Refuses, vec![true_offer(3)]);
    newcomer.meet(3, Conduct::Honest, vec![true_offer(3)]);
    newcomer.certify();
    newcomer.run(MINUTE);
    assert_eq!(newcomer.loaded, Some(true_offer(3).id));
    assert!(newcomer.now < Duration::from_secs(10), "{:?}", newcomer.now);
}

/// The only peer comes back in time, and its snapshot is fetched on.
#[test]
fn a_snapshot_whose_holders_are_away_for_a_moment_is_fetched_on() {
    let mut newcomer = Newcomer::new(None);
    newcomer.meet(1, Conduct::Honest, vec![true_offer(3)]);
    newcomer.certify();
    newcomer.step();
    newcomer.leave(1);
    newcomer.run(Duration::from_secs(8));
    assert!(newcomer.loaded.is_none() && !newcomer.begun.is_empty());
    newcomer.meet(1, Conduct::Honest, vec![true_offer(3)]);
    newcomer.run(MINUTE);
    assert_eq!(newcomer.begun, [true_offer(3).id]);
    assert_eq!(newcomer.loaded, Some(true_offer(3).id));
}

#[test]
fn the_chain_must_contain_the_checkpoint() {
    let hash = |height: u64| match height {
        501 => made().target.header.hash(),
        height => made().block_proof(Height(height)).unwrap().0,
    };
    let other = BlockHash(Hash([7; 32]));
    // The checkpoint, what the peers do, and whether the snapshot is loaded.
    for (height, conduct, is_true, is_loaded) in [
        (400, Conduct::Honest, true, true),
        (400, Conduct::Honest, false, false),
        (100, Conduct::Pruned, true, true),
        (100, Conduct::Pruned, false, false),
        (250, Conduct::Honest, true, true),
        (250, Conduct::Honest, false, false),
        (450, Conduct::Honest, true, true),
        (450, Conduct::Honest, false, false),
        (250, Conduct::Pruned, true, false),
        (501, Conduct::Honest, true, true),
        (501, Conduct::Honest, false, false),
        (9_999, Conduct::Honest, false, true),
    ] {
        let what = format!("{height} {conduct:?} {is_true}");
        let expected = if is_true { hash(height) } else { other };
        let mut newcomer = Newcomer::new(Some((Height(height), expected)));
        newcomer.meet(1, conduct, vec![true_offer(3)]);
        newcomer.certify();
        newcomer.run(MINUTE);
        assert!(newcomer.banned.is_empty(), "{what}");
        assert_eq!(newcomer.loaded.is_some(), is_loaded, "{what}");
        let height = Height(height);
        let failure = match (is_loaded, is_true) {
            (true, _) => None,
            (false, true) => Some(JoinFailure::CheckpointUnproved { height }),
            (false, false) => {
                let found = hash(height.0);
                Some(JoinFailure::CheckpointContradicted { height, expected, found })
            }
        };
        assert_eq!(newcomer.failed, failure, "{what}");
        assert!(newcomer.failed.is_none_or(|failure| failure.is_fatal()), "{what}");
        assert!(is_loaded || newcomer.heads.is_empty(), "{what}: nothing goes on");
    }
    let mut newcomer = Newcomer::new(Some((Height(250), hash(250))));
    newcomer.meet(1, Conduct::FalseProof, vec![true_offer(3)]);
    newcomer.meet(2, Conduct::Honest, vec![true_offer(3)]);
    newcomer.certify();
    newcomer.run(MINUTE);
    assert_eq!(newcomer.banned[&PeerId(1)], Offence::BlockProof { height: Height(250) });
    assert_eq!(newcomer.loaded, Some(true_offer(3).id));
}

/// The first peer names a tip below the checkpoint, and the next one a tip far above it.
#[test]
fn a_checkpoint_above_the_first_manifest_is_checked_under_the_next_one() {
    let (height, other) = (Height(250), BlockHash(Hash([7; 32])));
    let mut newcomer = Newcomer::new(Some((height, other)));
    newcomer.meet(1, Conduct::Honest, vec![true_offer(3)]);
    newcomer.give(Input::Certified(made().target_after(2)));
    newcomer.run(Duration::from_secs(1));
    assert_eq!((&newcomer.loaded, &newcomer.failed), (&None, &None));
    newcomer.certify();
    newcomer.run(MINUTE);
    let found = made().block_proof(height).unwrap().0;
    let failure = JoinFailure::CheckpointContradicted { height, expected: other, found };
    assert_eq!((newcomer.loaded, newcomer.failed), (None, Some(failure)));
}

#[test]
fn what_the_disk_refuses_or_loses_is_fetched_again() {
    let mut newcomer = Newcomer::new(None);
    newcomer.refused = 2;
    newcomer.meet(1, Conduct::Honest, vec![true_offer(3)]);
    newcomer.certify();
    newcomer.run(MINUTE);
    assert_eq!(newcomer.loaded, Some(true_offer(3).id));
    assert!(newcomer.now > Duration::from_secs(10), "it pauses: {:?}", newcomer.now);

    let mut newcomer = Newcomer::new(None);
    let last = true_offer(3).frontier.chunk_count() - 1;
    newcomer.damaged = vec![0, 1, last];
    newcomer.meet(1, Conduct::Honest, vec![true_offer(3)]);
    newcomer.certify();
    newcomer.run(MINUTE);
    assert_eq!(newcomer.loaded, Some(true_offer(3).id));
    assert!(newcomer.banned.is_empty() && newcomer.begun.len() == 1);
}
