//! Hostile peers do not hold up a newcomer, and do not turn it away.

use std::time::Duration;

use ledger::units::Height;
use protocol::PeerId;
use protocol::swarm::{JoinFailure, Rates};

use super::MINUTE;
use super::newcomer::{Conduct, Newcomer, false_name, made, true_offer};

const SECOND: Duration = Duration::from_secs(1);

/// Whoever announced the snapshot that was tried is trusted less, also if it has taken it back.
#[test]
fn a_peer_that_announces_one_false_snapshot_after_another_costs_one_try() {
    let mut newcomer = Newcomer::new(None);
    newcomer.meet(1, Conduct::Changes, Vec::new());
    newcomer.hear(PeerId(1), &false_name(0));
    newcomer.meet(2, Conduct::Honest, vec![true_offer(1)]);
    newcomer.certify();
    newcomer.run(10 * MINUTE);
    assert_eq!((newcomer.loaded, newcomer.failed), (Some(true_offer(1).id), None));
    assert_eq!(newcomer.peers[&PeerId(1)].asked.len(), 1);
    assert!(newcomer.now < 10 * SECOND, "{:?}", newcomer.now);

    // Without another peer the newcomer stops listening to it.
    let mut newcomer = Newcomer::new(None);
    newcomer.meet(1, Conduct::Changes, Vec::new());
    newcomer.hear(PeerId(1), &false_name(0));
    newcomer.certify();
    newcomer.run(10 * MINUTE);
    assert_eq!(newcomer.failed, Some(JoinFailure::AllLeft));
    assert_eq!(newcomer.peers[&PeerId(1)].asked.len(), 3);
    assert!(newcomer.now < MINUTE, "{:?}", newcomer.now);
}

/// What was announced before the first try ends comes before all that is announced later.
#[test]
fn peers_that_come_with_a_false_snapshot_and_leave_do_not_use_up_the_tries() {
    let mut newcomer = Newcomer::new(None);
    newcomer.meet(1, Conduct::Silent, Vec::new());
    newcomer.hear(PeerId(1), &false_name(1));
    newcomer.meet(1_000, Conduct::Honest, vec![true_offer(1)]);
    newcomer.certify();
    for peer in 2..100 {
        newcomer.meet(peer, Conduct::Silent, Vec::new());
        newcomer.hear(PeerId(peer), &false_name(peer));
        newcomer.leave(peer - 1);
    }
    newcomer.run(MINUTE);
    assert_eq!((newcomer.loaded, newcomer.failed), (Some(true_offer(1).id), None));

    // They come before the first honest peer.
    let mut newcomer = Newcomer::new(None);
    newcomer.certify();
    newcomer.meet(1, Conduct::Silent, Vec::new());
    newcomer.hear(PeerId(1), &false_name(1));
    newcomer.run(SECOND);
    for peer in 2..100 {
        newcomer.meet(peer, Conduct::Silent, Vec::new());
        newcomer.hear(PeerId(peer), &false_name(peer));
        newcomer.leave(peer - 1);
    }
    newcomer.meet(1_000, Conduct::Honest, vec![true_offer(1)]);
    newcomer.run(MINUTE);
    assert_eq!((newcomer.loaded, newcomer.failed), (Some(true_offer(1).id), None));
}

#[test]
fn every_holder_is_asked_once_before_a_snapshot_is_left() {
    let mut newcomer = Newcomer::new(None);
    for silent in 1..=6 {
        newcomer.meet(silent, Conduct::Silent, vec![true_offer(3)]);
    }
    newcomer.meet(7, Conduct::Honest, vec![true_offer(3)]);
    newcomer.meet(8, Conduct::Honest, vec![true_offer(1)]);
    newcomer.certify();
    newcomer.run(10 * MINUTE);
    assert_eq!(newcomer.begun, [true_offer(3).id]);
    assert!(newcomer.loaded.is_some() && newcomer.now < 25 * SECOND, "{:?}", newcomer.now);
}

/// Each of them would be asked in its turn.
#[test]
fn a_try_does_not_wait_for_holders_that_come_again_and_again() {
    let mut newcomer = Newcomer::new(None);
    newcomer.meet(1, Conduct::Silent, Vec::new());
    newcomer.hear(PeerId(1), &false_name(0));
    newcomer.meet(1_000, Conduct::Honest, vec![true_offer(1)]);
    newcomer.certify();
    for peer in 2..12 {
        newcomer.meet(peer, Conduct::Silent, Vec::new());
        newcomer.hear(PeerId(peer), &false_name(0));
        newcomer.run(2 * SECOND);
    }
    assert_eq!(newcomer.loaded, Some(true_offer(1).id));
    assert!(newcomer.now < 10 * SECOND, "{:?}", newcomer.now);
}

/// Holders that are busy for some seconds are asked again, those that are silent are not.
#[test]
fn a_snapshot_is_not_left_for_holders_that_are_busy_for_a_moment() {
    let mut newcomer = Newcomer::new(None);
    newcomer.meet(1, Conduct::Silent, vec![true_offer(3)]);
    for busy in 2..=6 {
        newcomer.meet(busy, Conduct::Refuses, vec![true_offer(3)]);
    }
    newcomer.meet(7, Conduct::Honest, vec![true_offer(1)]);
    newcomer.certify();
    newcomer.run(9 * SECOND);
    assert_eq!((&newcomer.loaded, &newcomer.failed), (&None, &None));
    assert_eq!(newcomer.peers[&PeerId(1)].asked.len(), 1);
    newcomer.peers.get_mut(&PeerId(2)).unwrap().conduct = Conduct::Honest;
    newcomer.run(2 * SECOND);
    assert_eq!(newcomer.loaded, Some(true_offer(3).id));
}

/// A chunk of 16 KiB every 4 s: too slow if there is another snapshot, good enough if there is
/// none.
#[test]
fn a_snapshot_that_comes_in_drips_is_left_if_there_is_another_one() {
    for has_other in [true, false] {
        let mut newcomer = Newcomer::new(None);
        newcomer.meet(1, Conduct::Honest, vec![true_offer(3)]);
        newcomer.peers.get_mut(&PeerId(1)).unwrap().every = Some(4 * SECOND);
        if has_other {
            newcomer.meet(2, Conduct::Honest, vec![true_offer(1)]);
        }
        newcomer.certify();
        newcomer.run(60 * MINUTE);
        let expected = if has_other { true_offer(1).id } else { true_offer(3).id };
        assert_eq!((newcomer.loaded, newcomer.failed.as_ref()), (Some(expected), None));
        assert_eq!(newcomer.now < MINUTE, has_other, "{:?}", newcomer.now);
    }
}

/// Seven chunks of some 12 KiB a second are 0.7 Mbit/s: a thirtieth of a link of 20 Mbit/s.
#[test]
fn a_snapshot_that_comes_over_a_small_link_is_not_left() {
    let mut newcomer = Newcomer::new(None);
    newcomer.meet(1, Conduct::Honest, vec![true_offer(3)]);
    newcomer.peers.get_mut(&PeerId(1)).unwrap().every = Some(3 * SECOND / 20);
    newcomer.meet(2, Conduct::Honest, vec![true_offer(1)]);
    newcomer.certify();
    newcomer.run(10 * MINUTE);
    assert_eq!(newcomer.begun, [true_offer(3).id]);
    assert!(newcomer.loaded.is_some() && newcomer.now > 15 * SECOND, "{:?}", newcomer.now);
}

/// The operator's limit is below what a snapshot must grow by otherwise.
#[test]
fn a_snapshot_that_comes_as_fast_as_the_operator_allows_is_not_left() {
    let rates = Rates { download: Some(40_000), ..Rates::default() };
    let mut newcomer = Newcomer::with_rates(None, rates);
    newcomer.meet(1, Conduct::Honest, vec![true_offer(1), true_offer(3)]);
    newcomer.certify();
    newcomer.run(10 * MINUTE);
    assert_eq!(newcomer.begun, [true_offer(3).id]);
    assert!(newcomer.loaded.is_some() && newcomer.now > 30 * SECOND, "{:?}", newcomer.now);
}

/// Twelve peers that do not answer take 36 s, and a proof is awaited for 30.
#[test]
fn every_holder_is_asked_before_a_checkpoint_is_unproved() {
    let height = Height(250);
    let checkpoint = Some((height, made().block_proof(height).unwrap().0));
    for honest in [Some(99), None] {
        let mut newcomer = Newcomer::new(checkpoint);
        for silent in 1..=12 {
            newcomer.meet(silent, Conduct::Unproving, vec![true_offer(3)]);
        }
        if let Some(honest) = honest {
            newcomer.meet(honest, Conduct::Honest, vec![true_offer(3)]);
        }
        newcomer.certify();
        newcomer.run(10 * MINUTE);
        let (loaded, failed) = match honest {
            Some(_) => (Some(true_offer(3).id), None),
            None => (None, Some(JoinFailure::CheckpointUnproved { height })),
        };
        assert_eq!((newcomer.loaded, newcomer.failed), (loaded, failed));
        assert!(newcomer.now < MINUTE, "{:?}", newcomer.now);
    }
}

/// To verify a chunk of a snapshot takes milliseconds, so it is done only for a missing chunk from
/// a peer that may send it.
#[test]
fn nothing_proves_a_chunk_that_is_not_awaited_from_its_sender() {
    let mut newcomer = Newcomer::new(None);
    newcomer.meet(1, Conduct::Honest, vec![true_offer(3)]);
    newcomer.peers.get_mut(&PeerId(1)).unwrap().every = Some(SECOND);
    newcomer.meet(2, Conduct::Honest, Vec::new());
    newcomer.certify();
    newcomer.run(SECOND / 2);
    let first = *newcomer.stored.first().expect("a chunk has come");
    let next = newcomer.wanted(1).expect("another chunk is wanted");
    assert!(newcomer.sync.expected(PeerId(1), next).is_some());
    for (peer, chunk) in [(2, next), (3, next), (1, first)] {
        assert_eq!(newcomer.sync.expected(PeerId(peer), chunk), None, "{peer} {chunk:?}");
    }
}
