//! Many nodes and many seeds. Each seed is one history, with delay, loss, partitions and crashes,
//! then calm. In every second history some validators are byzantine.
//!
//! `make sim SEED=4711` runs one seed and prints what happens. `CAIRN_SIM_SEEDS=5000` runs more
//! seeds than usual.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tests::sim::{Behaviour, Failure, Memory, Outcome, Plan, Rule, World, each_seed, simulate};

/// Number of seeds of a usual run.
const SEEDS: u64 = 250;
const SECOND: Duration = Duration::from_secs(1);

fn variable(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}, expected a number")))
}

#[test]
fn every_seed_keeps_the_rules_and_goes_on() {
    if let Some(seed) = variable("CAIRN_SIM_SEED") {
        println!("{:#?}", Plan::of_seed(seed));
        match simulate(seed, Memory::Log, true) {
            Ok(summary) => println!("{summary:#?}"),
            Err(failure) => panic!("{failure}"),
        }
        return;
    }
    let count = variable("CAIRN_SIM_SEEDS").unwrap_or(SEEDS);
    let results = each_seed(count, |seed| simulate(seed, Memory::Log, false), |_| false);
    let (mut heights, mut transactions, mut crashes, mut rounds, mut misdeeds) = (0, 0, 0, 0, 0);
    let mut time = Duration::ZERO;
    let mut failures = Vec::new();
    for (_, result) in results {
        match result {
            Ok(summary) => {
                heights += summary.heights;
                transactions += summary.transactions;
                crashes += summary.crashes;
                rounds += summary.rounds;
                misdeeds += summary.misdeeds;
                time += summary.time;
            }
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    println!(
        "{count} seeds: {heights} heights, {transactions} transfers, {crashes} crashes, {rounds} \
         extra rounds, {misdeeds} messages of byzantine validators in {time:.0?}"
    );
    assert!(
        failures.is_empty(),
        "{} of {count} seeds failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    // A simulation in which little happens would prove little.
    assert!(
        heights > 10 * count && transactions > 10 * count && crashes > 2 * count && rounds > count
    );
    assert!(misdeeds > 20 * count);
}

#[test]
fn a_seed_is_a_whole_history() {
    let summary = simulate(7, Memory::Log, false).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(simulate(7, Memory::Log, false).unwrap(), summary);
    assert_ne!(simulate(8, Memory::Log, false).unwrap().digest, summary.digest);
}

/// Only the log keeps a restarted validator from contradicting itself. Without the log some seed
/// must show that it does.
#[test]
fn without_replay_of_the_log_validators_equivocate() {
    let equivocates = |(_, result): &Outcome| {
        result.as_ref().is_err_and(|failure| failure.violation.rule == Rule::NoEquivocation)
    };
    let forgetful = |seed| simulate(seed, Memory::None, false);
    let results = each_seed(SEEDS, forgetful, |results| results.iter().any(equivocates));
    assert!(
        results.iter().any(equivocates),
        "{SEEDS} seeds without a log, and nobody said two things"
    );
}

#[test]
fn a_validator_that_signs_twice_is_proved_guilty_and_stops_nobody() {
    story(byzantine(Behaviour::DoubleVotes), |world| {
        assert!(
            world.run_until(60 * SECOND, |world| !world.check().evidence().is_empty())?,
            "no evidence"
        );
        world.progress(5, 60 * SECOND)
    });
}

/// A plan without crashes and loss, in which one of four validators is byzantine.
fn byzantine(behaviour: Behaviour) -> Plan {
    Plan { byzantine: [(2, vec![behaviour])].into(), block_bytes: 8 << 10, ..Plan::quiet(4) }
}

#[test]
fn no_behaviour_of_one_of_four_stops_the_others() {
    for behaviour in Behaviour::ALL {
        println!("{behaviour:?}");
        story(byzantine(behaviour), |world| {
            for node in [0, 1, 3] {
                world.run_for(2 * SECOND)?;
                world.crash(node);
                world.run_for(3 * SECOND)?;
                world.restart(node);
                world.progress(3, 60 * SECOND)?;
            }
            Ok(())
        });
    }
}

fn story(plan: Plan, tell: impl FnOnce(&mut World) -> Result<(), Failure>) {
    let mut world = World::new(4711, plan);
    world.told = variable("CAIRN_SIM_SEED").is_some();
    tell(&mut world).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn two_of_four_down_no_block_and_one_back_goes_on() {
    story(Plan::quiet(4), |world| {
        world.run_for(5 * SECOND)?;
        world.crash(0);
        world.crash(3);
        // A block that was decided already may still become final.
        world.run_for(2 * SECOND)?;
        let heights = world.heights();
        world.run_for(180 * SECOND)?;
        assert_eq!(world.heights(), heights, "no quorum, no block");
        world.restart(3);
        let goal = world.check().newest().tip().height.0 + 5;
        let all_go_on = |world: &World| (1..4).all(|node| world.heights()[node].0 >= goal);
        assert!(world.run_until(120 * SECOND, all_go_on)?, "{:?}", world.heights());
        world.restart(0);
        world.progress(5, 60 * SECOND)
    });
}

#[test]
fn all_down_and_all_up_goes_on() {
    story(Plan::quiet(5), |world| {
        for _ in 0..5 {
            world.run_for(3 * SECOND)?;
            (0..5).for_each(|node| world.crash(node));
            world.run_for(SECOND)?;
            (0..5).for_each(|node| world.restart(node));
            world.progress(3, 60 * SECOND)?;
        }
        Ok(())
    });
}

/// The node misses more blocks than one response holds, over more than one sealed segment, while
/// the chain goes on.
#[test]
fn a_node_that_was_away_for_long_catches_up() {
    let plan = Plan { full_nodes: 1, load_interval: Duration::from_millis(40), ..Plan::quiet(4) };
    story(plan, |world| {
        world.run_for(SECOND)?;
        world.crash(3);
        world.crash(4);
        assert!(
            world.run_until(300 * SECOND, |world| world.check().newest().tip().height.0 >= 150)?
        );
        world.restart(3);
        world.restart(4);
        world.progress(5, 30 * SECOND)
    });
}
