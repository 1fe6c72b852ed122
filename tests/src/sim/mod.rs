//! The simulator: real protocol machines in one thread, with clocks, network, log and store simulated under a seed.
//!
//! All chance comes from one generator and all that happens is in one order, so a seed is a whole history: run again, it fails again
//! at the same place. Faults are drawn first ([`Plan`]), and in every second seed validators that are byzantine ([`Behaviour`]); then
//! machines live through them ([`World`]) while every effect they have is checked ([`Check`]); at last all is healed, and the network
//! has to go on, although the byzantine ones never stop. Read in this order.

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
pub use node::Memory;
pub use plan::{Damage, Fault, Plan};
pub use seeds::{Outcome, each_seed};
pub use world::{Failure, Summary, World};

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Heights that every node has to reach after all is healed.
const FURTHER_HEIGHTS: u64 = 4;
/// Time they have for it. Far more than they need: timeouts grow with each round that a partition cost, up to 20 s.
const PATIENCE: Duration = Duration::from_secs(300);

/// Lives through the history of a seed: faults, then calm, then progress. `told` prints it as it happens.
///
/// # Errors
/// `Failure` names the seed, the time and the rule that was broken; a panic of a machine counts as one.
pub fn simulate(seed: u64, memory: Memory, told: bool) -> Result<Summary, Failure> {
    live(seed, Plan { memory, ..Plan::of_seed(seed) }, told)
}

/// Lives through the history of a seed under a plan that may differ from the seed's own.
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
        Err(_) => Err(world.failure(Violation::new(Rule::NoPanic, "a machine panicked, see above"))),
    }
}
