//! Swarms: many real sync machines in one thread, on links with rates and latency, without any
//! payload.
//!
//! A made-up chain ([`Made`]) has hashes and certificates but no blocks, so hundreds of nodes fetch
//! it from each other in seconds. All chance comes from the plan's seed and all events happen in
//! one order, so a [`Plan`] has exactly one [`Outcome`]. The outcome compares the last node's time
//! with the shortest time that the links allow.

mod chain;
mod files;
mod link;
mod outcome;
mod plan;
mod scenario;
mod snapshots;
mod world;

pub use chain::Made;
pub use files::MadeFile;
pub use outcome::Outcome;
pub use plan::{Conduct, Member, Plan, mbit};
pub use scenario::{hostile, killed, scenarios};
pub use snapshots::{Forgery, MadeState};
pub use world::{World, run};
