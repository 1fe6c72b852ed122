//! Tests of the outcomes of swarms that fetch files.

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::Offence;
use protocol::swarm::ByteRange;
use tests::swarm::{Conduct, Outcome, Plan, mbit, run};

use super::MIB;

/// Only files, beside a history that is all but nothing.
fn files(seeds: usize, leechers: usize, lengths: &[u64]) -> Plan {
    let plan = Plan::new(seeds, leechers).with_bytes(256 << 10, 256 << 10, 64 << 10);
    plan.with_files(lengths)
}

fn complete(plan: Plan) -> Outcome {
    let outcome = run(plan);
    assert!(outcome.is_complete, "{outcome}");
    outcome
}

#[test]
fn a_file_is_fetched_near_the_shortest_time_that_the_links_allow() {
    for (plan, most) in [
        (files(1, 1, &[64 * MIB]), 1.1),
        (files(1, 8, &[64 * MIB]), 1.15),
        (files(8, 1, &[64 * MIB]).with_seeds(|_, member| member.up = mbit(20)), 1.15),
    ] {
        let members = plan.members.len();
        let bound = plan.bound_seconds(64 * MIB);
        let outcome = complete(plan);
        let ratio = outcome.files_time.as_secs_f64() / bound;
        assert!(ratio <= most, "{members}: {ratio} of {bound} s");
        assert!(outcome.files_copies <= 1.02, "{members}: {}", outcome.files_copies);
        assert_eq!(outcome.bans, [], "{members}");
    }
}

#[test]
fn a_plan_with_files_has_one_outcome() {
    let plan = files(2, 3, &[5 * MIB, 300]);
    assert_eq!(run(plan.clone()), run(plan));
}

/// History has four times the weight, so a file takes at most a fifth of the links from it.
#[test]
fn files_never_starve_history_nor_does_history_starve_files() {
    let alone = complete(Plan::new(1, 4).with_bytes(32 * MIB, 8 * MIB, 128 << 10));
    let both = Plan::new(1, 4).with_bytes(32 * MIB, 8 * MIB, 128 << 10).with_files(&[32 * MIB]);
    let both = complete(both);
    let slower = both.time.as_secs_f64() / alone.time.as_secs_f64();
    assert!(slower <= 1.35, "history takes {slower} times as long beside a file");
    let all = both.files_time.as_secs_f64() / (2.0 * alone.time.as_secs_f64());
    assert!(all <= 1.15, "the file takes {all} times as long as both must");
}

#[test]
fn a_file_comes_beside_history_and_a_snapshot() {
    let plan = Plan::new(2, 4).with_bytes(8 * MIB, 2 * MIB, 32 << 10).with_snapshot(2, 20_000);
    let plan = plan.with_files(&[4 * MIB, MIB]);
    let outcome = complete(plan.with_leechers(|at, member| member.joins = at < 2));
    assert_eq!((outcome.loaded.len(), &outcome.bans[..]), (2, &[][..]), "{outcome}");
}

/// Liars of all kinds beside two honest seeds: false chunks, heads that do not fit, holders that
/// never send, holders that claim what the file does not have, and a file that changes.
#[test]
fn liars_about_files_are_banned_and_the_file_comes_from_honest_nodes() {
    let conducts = [
        Conduct::Boasts,
        Conduct::FalseHeads,
        Conduct::Poisons,
        Conduct::Stalls,
        Conduct::Honest,
        Conduct::Changes(3),
        Conduct::Rots,
        Conduct::Honest,
    ];
    let mut banned = BTreeSet::new();
    for seed in 0..20 {
        let plan = files(conducts.len(), 2, &[18 * MIB]).with_seeds(|at, member| {
            (member.up, member.conduct) = (mbit(20), conducts[at]);
        });
        let outcome = complete(plan.with_seed(seed));
        for (_, whom, offence) in &outcome.bans {
            match conducts.get(*whom) {
                Some(Conduct::Poisons) => assert!(matches!(offence, Offence::BadChunk { .. })),
                Some(Conduct::FalseHeads) => assert!(matches!(offence, Offence::FileHead { .. })),
                _ => panic!("seed {seed}: {whom} is banned: {offence}"),
            }
            banned.insert(*whom);
        }
        assert!(outcome.files_time < Duration::from_secs(40), "{:?}", outcome.files_time);
    }
    assert_eq!(banned, BTreeSet::from([1, 2]));
}

#[test]
fn a_file_that_changes_is_taken_back_and_comes_from_those_who_have_it() {
    let plan = files(2, 3, &[12 * MIB]).with_seeds(|at, member| {
        if at == 0 {
            member.conduct = Conduct::Changes(40);
        }
    });
    let outcome = complete(plan);
    assert_eq!(outcome.bans, []);
}

#[test]
fn parts_of_a_long_file_are_fetched_alone() {
    let length = 40 * 16 * MIB;
    let plan = files(1, 3, &[length]).with_leechers(|at, member| {
        member.wants = Some(match at {
            0 => ByteRange { first: 0, last: 99 },
            1 => ByteRange { first: length - 5, last: u64::MAX },
            _ => ByteRange { first: 17 * MIB, last: 33 * MIB },
        });
    });
    // Four segments come from the seed alone.
    let bound = (4 * 16 * MIB) as f64 / mbit(40) as f64;
    let outcome = complete(plan);
    assert!(outcome.files_copies <= 1.02, "{}", outcome.files_copies);
    assert!(outcome.files_time.as_secs_f64() <= 1.1 * bound, "{:?}", outcome.files_time);
}

#[test]
fn a_node_that_is_killed_goes_on_with_what_it_has() {
    let plan = files(4, 1, &[48 * MIB]).with_seeds(|_, member| member.up = mbit(20));
    let plan = plan.with_leechers(|_, member| {
        member.killed_every = Some(Duration::from_millis(1_300));
    });
    let outcome = complete(plan);
    assert_eq!(outcome.bans, []);
}

/// More files than are fetched or have a collection at a time.
#[test]
fn many_files_take_their_turns() {
    let lengths: Vec<u64> = (0..70).map(|at| 1 + at * 5_000).collect();
    let plan = files(1, 3, &lengths).with_leechers(|at, member| {
        // The last one is a stranger to what the others fetch.
        member.starts_at = Duration::from_secs(if at == 2 { 5 } else { 0 });
    });
    let outcome = complete(plan);
    assert_eq!(outcome.bans, []);
}

#[test]
fn an_empty_file_needs_no_peer() {
    let plan = files(1, 1, &[0]).with_seeds(|_, member| member.shares = false);
    assert_eq!(complete(plan).files_time, Duration::ZERO);
}
