//! The simulator: real protocol machines in one thread, with clocks, network, log and store
//! simulated under a seed.
//!
//! All chance comes from the seed, and all events happen in one order. So a seed determines a whole
//! history, and a run that fails is repeated exactly by its seed. First the faults are drawn
//! ([`Plan`]), and in every second seed byzantine validators ([`Behaviour`]). The machines run
//! under these faults ([`World`]) while each of their effects is checked ([`Check`]). At last all
//! faults are healed. Then the network must make progress, although the byzantine validators never
//! stop.

mod plan;

mod byzantine;
mod disk;
mod network;
mod node;

mod check;
mod cost;
mod load;

mod world;

mod seeds;

pub use byzantine::Behaviour;
pub use check::{Check, Rule, Violation};
pub use plan::{Damage, Fault, Memory, Plan};
pub use seeds::{Outcome, each_seed};
pub use world::{Failure, Summary, World};

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Heights that every honest node must still reach after all faults are healed.
const FURTHER_HEIGHTS: u64 = 4;
/// How long the nodes may take to reach these heights. It is far more than they need: timeouts grow
/// with each round that a partition cost, up to 20 s.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs the history of a seed: faults, then calm, then progress. Prints each event if `told`.
///
/// # Errors
/// `Failure` names the seed, the time and the rule that was broken. A panic of a machine counts as
/// a broken rule.
pub fn simulate(seed: u64, memory: Memory, told: bool) -> Result<Summary, Failure> {
    live(seed, Plan { memory, ..Plan::of_seed(seed) }, told)
}

/// Runs a seed under a plan that may differ from the seed's own.
///
/// # Errors
/// Those of [`simulate`].
pub fn live(seed: u64, plan: Plan, told: bool) -> Result<Summary, Failure> {
    let calm_at = plan.calm_at;
    let mut world = World::new(seed, plan);
    world.told = told;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        world.run_for(calm_at)?;
        world.calm();
        world.progress(FURTHER_HEIGHTS, PATIENCE)
    }));
    match outcome {
        Ok(Ok(())) => Ok(world.summary()),
        Ok(Err(failure)) => Err(failure),
        Err(_) => {
            Err(world.failure(Violation::new(Rule::NoPanic, "a machine panicked, see above")))
        }
    }
}
