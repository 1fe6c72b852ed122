//! When a machine fetches eras, and which.

use super::super::fetches::SHORT_FOR;
use super::super::{Audit, Effect, Input, Keep, WholeEra, place_hash};
use super::bench::{Bench, audits};
use crate::eras::Era;
use crate::ids::PeerId;

const HOUR: u64 = 3_600;

fn fetches(effects: &[Effect]) -> Vec<u64> {
    let fetch = |effect: &Effect| match effect {
        Effect::Fetch(era) => Some(era.0),
        _ => None,
    };
    effects.iter().filter_map(fetch).collect()
}

/// A machine that lacks all of these eras of one byte.
fn empty(eras: usize, keep: Keep) -> Bench {
    Bench::of(vec![WholeEra { bytes: 1, is_kept: false }; eras], keep)
}

#[test]
fn a_damaged_era_is_fetched_again_once_another_node_has_shown_it() {
    let mut bench = Bench::new(3, Keep::Full);
    assert_eq!(bench.give(Input::Damaged(Era(1))), [Effect::Withdraw(vec![Era(1)])]);
    assert!(!bench.machine.announcement().eras.contains(Era(1)));
    bench.meet(1, 1, &[0, 1, 2]);
    let asked = audits(&bench.second());
    assert_eq!(asked.len(), 1);
    assert_eq!(bench.second(), [], "the rest of it may be the last copy");
    bench.give(Input::Audited(asked[0].1, Audit::Passed));
    assert_eq!(bench.run(1), [Effect::Drop(vec![Era(1)]), Effect::Fetch(Era(1))]);
    bench.give(Input::Fetched { era: Era(1), bytes: 5 });
    assert!(bench.machine.announcement().eras.contains(Era(1)));
    assert_eq!(bench.machine.shelf.used(), 7);
}

#[test]
fn a_damaged_era_that_is_withdrawn_is_not_restored() {
    let mut bench = Bench::new(1, Keep::Bytes(0));
    (1..=3).for_each(|peer| drop(bench.meet(peer, peer, &[0])));
    assert!(bench.second().contains(&Effect::Withdraw(vec![Era(0)])));
    bench.give(Input::Damaged(Era(0)));
    let effects = bench.run(60);
    assert_eq!(effects, [Effect::Drop(vec![Era(0)])]);
}

#[test]
fn an_era_that_came_otherwise_is_announced() {
    let mut bench = empty(2, Keep::Full);
    assert_eq!(bench.machine.absent().count(), 2);
    bench.give(Input::Fetched { era: Era(1), bytes: 7 });
    assert_eq!(bench.machine.absent().collect::<Vec<_>>(), [Era(0)]);
    assert!(bench.machine.announcement().eras.contains(Era(1)));
}

#[test]
fn the_wait_after_failed_fetches_doubles() {
    let mut bench = empty(1, Keep::Full);
    bench.meet(1, 1, &[0]);
    assert_eq!(fetches(&bench.run(5)), [0]);
    for doublings in 0..12 {
        bench.give(Input::Unfetched(Era(0)));
        let least = 10 << doublings.min(10);
        assert!(fetches(&bench.run(least - 1)).is_empty(), "{doublings}");
        assert_eq!(fetches(&bench.run(2 * least + 5)), [0], "{doublings}");
    }
    bench.give(Input::Fetched { era: Era(0), bytes: 1 });
    bench.give(Input::Damaged(Era(0)));
    assert!(fetches(&bench.run(5)).contains(&0));
    bench.give(Input::Unfetched(Era(0)));
    assert_eq!(fetches(&bench.run(31)), [0], "a fetch begins the waits anew");
}

/// Four eras that are claimed and that nobody shows would come first, since they have the fewest
/// copies.
#[test]
fn claims_that_nobody_shows_hold_no_place_of_a_fetch() {
    for result in [Audit::Failed, Audit::Busy, Audit::Unanswered] {
        let mut bench = empty(8, Keep::Full);
        bench.meet(1, 1, &[0, 1, 2, 3, 4, 5, 6, 7]);
        (2..=3).for_each(|peer| drop(bench.meet(peer, peer, &[4, 5, 6, 7])));
        let mut fetched = Vec::new();
        for _ in 0..60 {
            let effects = bench.second();
            fetched.extend(fetches(&effects));
            for (peer, request) in audits(&effects) {
                let result = if peer == 1 { result } else { Audit::Passed };
                bench.give(Input::Audited(request, result));
            }
        }
        fetched.sort_unstable();
        assert_eq!(fetched, [4, 5, 6, 7], "{result:?}");
    }
}

/// A liar claims an era and takes the claim back, so that there seem to be three copies and two.
#[test]
fn claims_that_come_and_go_do_not_make_an_era_come_and_go() {
    let eras = (0..12).map(|era| WholeEra { bytes: 1, is_kept: era < 10 }).collect();
    let mut bench = Bench::of(eras, Keep::Bytes(10));
    let all = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
    (1..=3).for_each(|peer| drop(bench.meet(peer, peer, &all)));
    let mut fetched = 0;
    for _ in 0..2 * HOUR / 60 {
        bench.say(3, &[], None);
        fetched += fetches(&bench.run(30)).len();
        for era in [10, 11] {
            bench.give(Input::Fetched { era: Era(era), bytes: 1 });
        }
        bench.say(3, &all, None);
        bench.run(30);
    }
    assert!((1..=6).contains(&fetched), "{fetched} fetches in two hours");
}

#[test]
fn what_was_fetched_may_be_dropped_when_the_budget_is_changed() {
    let mut bench = empty(1, Keep::Full);
    (1..=3).for_each(|peer| drop(bench.meet(peer, peer, &[0])));
    assert_eq!(fetches(&bench.run(5)), [0]);
    bench.give(Input::Fetched { era: Era(0), bytes: 1 });
    bench.give(Input::Keep(Keep::Bytes(0)));
    assert!(bench.run(30).contains(&Effect::Drop(vec![Era(0)])));
}

/// Seconds until this machine begins to repair an era of these bytes. Other archive nodes without
/// the era are before it: the number of them, and of their address groups.
fn repaired_after(bytes: u64, before: u64, groups: u64) -> u64 {
    let kept = WholeEra { bytes: bytes * 20, is_kept: true };
    let eras = vec![kept, WholeEra { bytes, is_kept: false }];
    // The rest of the budget is the tenth for repairs.
    let mut bench = Bench::of(eras, Keep::Bytes(bytes * 20));
    let is_before =
        |peer: &u64| place_hash(Era(1), &peer.to_le_bytes()) < place_hash(Era(1), b"us");
    bench.meet(1, 1, &[0, 1]);
    for (at, peer) in (2u64..).filter(is_before).take(before as usize).enumerate() {
        bench.meet(peer, 1_000 + at as u64 % groups, &[]);
    }
    (1..).find(|_| fetches(&bench.run(1)).contains(&1)).unwrap()
}

#[test]
fn each_further_node_waits_as_long_as_a_fetch_and_groups_count_once() {
    let short_for = SHORT_FOR.as_secs();
    let soon = short_for..=short_for + 3;
    // Two copies are missing, so the first two begin at once.
    assert!(soon.contains(&repaired_after(1, 1, 1)));
    assert!(soon.contains(&repaired_after(1, 10, 1)), "one address group");
    let later = |by: u64| soon.start() + by..=soon.end() + by;
    assert!(later(5).contains(&repaired_after(1, 2, 2)));
    assert!(later(8 * 5).contains(&repaired_after(1, 40, 40)));
    assert!(later(2 * 128).contains(&repaired_after(256 << 20, 3, 3)));
}

/// A budget has room for two of four eras, and for a tenth of an era more.
#[test]
fn holders_are_looked_for_of_eras_that_are_to_be_fetched_and_that_nobody_here_has() {
    let unclaimed = |bench: &Bench| bench.machine.unclaimed().below(Era(4)).collect::<Vec<_>>();
    let mut bench = empty(4, Keep::Bytes(2));
    bench.run(1);
    let first = unclaimed(&bench);
    assert_eq!(first.len(), 2, "the others have no room: {first:?}");
    bench.meet(1, 1, &[first[0].0]);
    bench.run(1);
    assert_eq!(unclaimed(&bench), [first[1]]);
    bench.give(Input::Disconnected(PeerId(1)));
    bench.give(Input::Fetched { era: first[0], bytes: 1 });
    bench.run(SHORT_FOR.as_secs() + 60);
    assert_eq!(unclaimed(&bench).len(), 3, "one more has room, and each of three lacks copies");
    bench.give(Input::Fetched { era: first[1], bytes: 1 });
    bench.run(1);
    assert_eq!(unclaimed(&bench), [], "no room is left");
}
