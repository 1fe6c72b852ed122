//! The simulator finds faults: each mend is taken out in turn, and some seed must break the rule
//! that the mend keeps.
//!
//! `cargo test -p tests --features planted --test planted`. Nothing else is ever built with the
//! feature.

use std::time::Instant;

use protocol::planted::{Fault, plant};
use tests::sim::{Outcome, Plan, Rule, each_seed, live};

/// Seeds within which each fault is found.
const SEEDS: u64 = 2_000;

/// The mend keeps this rule, and no less those that are overlooked.
fn find(fault: Fault, rule: Rule, overlooked: &[Rule]) {
    let breaks = |(_, result): &Outcome| {
        result.as_ref().is_err_and(|failure| failure.violation.rule == rule)
    };
    let planted = |seed| {
        plant(Some(fault));
        live(
            seed,
            Plan { overlooked: overlooked.iter().copied().collect(), ..Plan::of_seed(seed) },
            false,
        )
    };
    let begun = Instant::now();
    let outcomes = each_seed(SEEDS, planted, |outcomes| outcomes.iter().any(breaks));
    let count = outcomes.len();
    let Some((_, Err(failure))) = outcomes.into_iter().find(breaks) else {
        panic!("{fault:?} is planted, and none of {count} seeds breaks {rule:?}");
    };
    println!("{fault:?}: found after {count} seeds, {:.1?}\n  {failure}", begun.elapsed());
}

#[test]
fn unbounded_gossip_is_found() {
    find(Fault::GossipUnbounded, Rule::NoAmplification, &[]);
}

#[test]
fn a_certificate_that_stops_consensus_is_found() {
    find(Fault::CertificateStopsConsensus, Rule::NoStandstill, &[]);
}

#[test]
fn unbounded_blocks_of_a_round_are_found() {
    find(Fault::BlocksOfRoundUnbounded, Rule::NoUnpaidWork, &[Rule::NoAmplification]);
}

#[test]
fn assembly_at_each_input_is_found() {
    find(Fault::AssembledAtEachInput, Rule::NoUnpaidWork, &[]);
}

#[test]
fn a_forgotten_proposal_is_found() {
    find(Fault::EarlyProposalForgotten, Rule::NoIdling, &[]);
}
