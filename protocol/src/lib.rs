//! What a Cairn node does next: mempool, consensus and catch-up as pure state machines.
//!
//! One door: [`Machine::handle`] takes the time and an input and returns effects, which the caller
//! performs in order. This crate never waits, opens a socket, touches a disk or asks a clock, so
//! that a simulator can run many machines under a seed. The modules below are in reading order.
#![warn(
    missing_docs,
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    clippy::iter_over_hash_type,
    clippy::cast_possible_truncation
)]

pub mod budget;
mod ids;
pub mod machine;
pub mod message;
pub mod offence;
mod plan;
pub mod planted;

pub mod sync;

mod bodies;
mod catchup;
pub mod consensus;
mod lots;
pub mod mempool;

pub use ids::{PeerId, RequestId, Ticket};
pub use machine::{Effect, Input, Log, Machine, Now, Quorum, Setup, Topic, Verdict, Work};
pub use offence::Offence;
pub use plan::{FetchPlan, HeightRange};
