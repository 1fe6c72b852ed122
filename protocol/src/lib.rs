//! What a Cairn node does next, as two pure state machines.
//!
//! [`live`] follows the chain: mempool, consensus and catch-up. Its door is [`Machine::handle`].
//! [`swarm`] fetches and serves history. Its door is [`swarm::Swarm::handle`]. Each takes the time
//! and an input and returns effects, which the caller performs in order. This crate never waits,
//! opens a socket, touches a disk or asks a clock, so that a simulator can run many machines under
//! a seed. The modules below are in reading order.
#![warn(
    missing_docs,
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    clippy::iter_over_hash_type,
    clippy::cast_possible_truncation
)]

pub mod live;
pub mod swarm;

pub mod budget;
mod ids;
mod lots;
pub mod message;
pub mod offence;
mod plan;
pub mod planted;

pub use ids::{PeerId, RequestId, Ticket};
pub use live::{Effect, Input, Log, Machine, Now, Quorum, Setup, Topic, Verdict, Work};
pub use offence::Offence;
pub use plan::{FetchPlan, HeightRange};
