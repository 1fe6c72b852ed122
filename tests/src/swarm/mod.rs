//! Swarms: many real sync machines in one thread, on links with rates and latency, without a byte of payload.
//!
//! A made chain ([`Made`]) has hashes and certificates and no blocks, so hundreds of nodes fetch it from each other in seconds. All
//! chance comes from the plan's seed and all that happens is in one order: a [`Plan`] has one [`Outcome`]. It tells how far the time
//! of the last node is from the shortest that the links allow.

mod chain;
mod link;
mod outcome;
mod plan;
mod scenario;
mod world;

pub use chain::Made;
pub use outcome::Outcome;
pub use plan::{Conduct, Member, Plan, mbit};
pub use scenario::{hostile, killed, scenarios};
pub use world::{World, run};
