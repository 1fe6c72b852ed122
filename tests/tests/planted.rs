//! The simulator finds faults: each fix is disabled in turn, and some seed must then break the rule
//! that the fix keeps.
//!
//! Run it by `cargo test -p tests --features planted --test planted`. Nothing else is ever built
//! with the feature.

use std::time::Instant;

use protocol::planted::{Fault, plant};
use tests::sim::{Outcome, Plan, Rule, each_seed, live};

/// Number of seeds within which each fault must be found.
const SEEDS: u64 = 2_000;

/// Plants a fault and checks that some seed breaks this rule. If a run breaks an overlooked rule,
/// it goes on.
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
