//! Tests of the outcomes of whole swarms.

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::Offence;
use tests::swarm::{Conduct, Forgery, Outcome, Plan, hostile, killed, mbit, run};

use super::MIB;

/// The plan with a quarter of its chain: enough for all phases of a run, and done soon.
fn short(plan: Plan) -> Plan {
    plan.with_bytes(16 * MIB, 4 * MIB, 64 << 10)
}

fn complete(plan: Plan) -> Outcome {
    let outcome = run(plan);
    assert!(outcome.is_complete, "{outcome}");
    outcome
}

#[test]
fn a_swarm_is_near_the_shortest_time_that_its_links_allow() {
    // The plan, the largest ratio, and the most copies that seeds may send.
    let cases = [
        (Plan::new(1, 1), 1.08, 1.0),
        (Plan::new(1, 4), 1.10, 1.05),
        (Plan::new(1, 8), 1.10, 1.05),
        (Plan::new(1, 15), 1.13, 1.06),
        (Plan::new(1, 8).with_leechers(|_, member| member.up = mbit(10)), 1.10, 3.0),
        (Plan::new(4, 1).with_seeds(|_, member| member.up = mbit(20)), 1.10, 1.01),
        (Plan::new(8, 1).with_seeds(|_, member| member.up = mbit(20)), 1.12, 1.01),
    ];
    for (plan, ratio, copies) in cases {
        let members = plan.members.len();
        let outcome = complete(plan);
        assert!(outcome.ratio() <= ratio, "{members}: {outcome}");
        assert!(outcome.seed_copies <= copies, "{members}: {outcome}");
        assert!(outcome.duplicates <= 0.02, "{members}: {outcome}");
        assert!(outcome.last_percent <= 0.03, "{members}: {outcome}");
        assert_eq!(outcome.bans, [], "{members}");
    }
}

#[test]
fn a_plan_has_one_outcome() {
    let plan = short(Plan::new(2, 5));
    let first = run(plan.clone());
    assert_eq!(first, run(plan.clone()));
    assert_ne!(first.digest, run(plan.with_seed(2)).digest, "another seed is another run");
}

#[test]
fn liars_are_banned_and_nobody_else_is() {
    for seed in 0..50 {
        let plan = short(hostile()).with_seed(seed);
        let poisons = |place: usize| plan.members[place].conduct == Conduct::Poisons;
        let outcome = complete(plan.clone());
        let banned: BTreeSet<usize> = outcome.bans.iter().map(|(_, whom, _)| *whom).collect();
        assert!(banned.iter().all(|place| poisons(*place)), "seed {seed}: {:?}", outcome.bans);
        assert_eq!(
            banned.len(),
            outcome.bans.len(),
            "seed {seed}: each at its first bad chunk: {:?}",
            outcome.bans
        );
    }
    let outcome = complete(hostile());
    assert!(outcome.ratio() <= 1.2 && outcome.bans.len() == 2, "{outcome}");
}

/// A node never sends a chunk that is damaged on its disk, and takes back the segment. So nobody is
/// banned, and the others get the chunks elsewhere.
#[test]
fn bit_rot_bans_nobody_and_holds_back_nobody() {
    for seed in 0..10 {
        let plan = short(Plan::new(3, 4)).with_seeds(|at, member| {
            if at > 0 {
                member.conduct = Conduct::Rots;
            }
        });
        let outcome = complete(plan.with_seed(seed));
        assert_eq!(outcome.bans, [], "seed {seed}");
        assert!(outcome.ratio() <= 1.2, "seed {seed}: {outcome}");
    }
}

/// Some nodes fetch all of history, and others begin with the snapshot after the third segment.
/// `joiners` of the leechers begin with it.
fn with_snapshot(seeds: usize, leechers: usize, joiners: usize) -> Plan {
    let plan = Plan::new(seeds, leechers).with_bytes(8 * MIB, 2 * MIB, 32 << 10);
    plan.with_snapshot(2, 20_000).with_leechers(|at, member| member.joins = at < joiners)
}

#[test]
fn history_and_a_snapshot_are_fetched_at_once() {
    for (seeds, leechers, joiners) in [(1, 1, 1), (1, 6, 3), (2, 12, 11)] {
        let outcome = complete(with_snapshot(seeds, leechers, joiners));
        assert_eq!((outcome.loaded.len(), &outcome.bans[..]), (joiners, &[][..]), "{outcome}");
        let last = outcome.loaded.iter().map(|(_, at)| *at).max().unwrap();
        assert!(last < outcome.time, "{last:?} of {outcome}");
    }
}

/// Liars of all kinds, beside three honest seeds. Which of them a newcomer asks first depends on
/// the run.
#[test]
fn liars_about_snapshots_are_banned_and_newcomers_load_the_right_state() {
    let conducts = [
        Conduct::Misplaces,
        Conduct::Honest,
        Conduct::Forges(Forgery::Moved),
        Conduct::Withholds(Forgery::Finer),
        Conduct::Honest,
        Conduct::Forges(Forgery::Coarser),
        Conduct::Poisons,
        Conduct::Withholds(Forgery::Finer),
        Conduct::Withholds(Forgery::Finer),
        Conduct::Withholds(Forgery::Finer),
        Conduct::Stalls,
        Conduct::Honest,
    ];
    let mut all = BTreeSet::new();
    for seed in 0..10 {
        let plan = with_snapshot(conducts.len(), 5, 4);
        let plan = plan.with_seeds(|at, member| member.conduct = conducts[at]).with_seed(seed);
        let outcome = complete(plan);
        assert!(outcome.loaded.len() >= 4, "seed {seed}: {outcome}");
        for (by, whom, offence) in &outcome.bans {
            let conduct = conducts.get(*whom).copied().unwrap_or_default();
            assert!(conduct != Conduct::Honest, "seed {seed}: {by} bans {whom}: {offence}");
            let is_right = match conduct {
                Conduct::Forges(_) | Conduct::Poisons => {
                    matches!(offence, Offence::BadChunk { .. })
                }
                Conduct::Misplaces => matches!(offence, Offence::SnapshotBlock { .. }),
                _ => false,
            };
            assert!(is_right, "seed {seed}: {conduct:?}: {offence}");
            all.insert(offence.name());
        }
    }
    assert_eq!(all, BTreeSet::from(["bad-chunk", "bad-snapshot-block"]));
}

#[test]
fn who_is_killed_while_it_joins_begins_again() {
    let plan = with_snapshot(2, 3, 3).with_leechers(|at, member| {
        member.killed_every = Some(Duration::from_millis(700 + 150 * at as u64));
    });
    let outcome = complete(plan);
    assert_eq!(outcome.bans, []);
}

#[test]
fn a_swarm_lives_without_its_seed() {
    for (seed, leechers) in [(1, 3), (2, 8), (3, 12)] {
        let plan =
            short(Plan::new(1, leechers)).with_seeds(|_, member| member.leaves_after = Some(110));
        complete(plan.with_seed(seed));
    }
}

#[test]
fn what_was_stored_is_not_fetched_again() {
    for plan in [killed(4, 1), killed(1, 4), killed(1, 8)] {
        let outcome = complete(plan.with_leechers(|at, member| {
            member.killed_every = Some(Duration::from_millis(2_000 + 37 * at as u64));
        }));
        assert!(outcome.stored_twice == 0.0 && outcome.duplicates <= 0.02, "{outcome}");
    }
}

#[test]
fn those_who_come_late_or_are_slow_get_all_and_hold_back_nobody() {
    let late = |at: usize| Duration::from_millis(if at < 4 { 0 } else { 2_000 });
    complete(short(Plan::new(1, 8).with_leechers(|at, member| member.starts_at = late(at))));
    for is_awaited in [false, true] {
        let plan = short(Plan::new(1, 8)).with_leechers(|at, member| {
            if at >= 6 {
                (member.down, member.is_awaited) = (mbit(4), is_awaited);
            }
        });
        let outcome = complete(plan);
        assert!(outcome.ratio() <= 1.35, "{outcome}");
    }
    complete(Plan { degree: Some(5), ..short(Plan::new(1, 30)) });
}
