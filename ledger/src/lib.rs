//! What is true on a Cairn chain: types, bytes, the state transition, history, proofs and the
//! store.
//!
//! There is no async code, socket or clock here. The modules stand in the order to read them.
#![warn(
    missing_docs,
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    clippy::iter_over_hash_type,
    clippy::cast_possible_truncation
)]

pub mod codec;
pub mod hash;
pub mod units;

pub mod address;
pub mod signature;
pub mod transaction;

pub mod validators;

pub mod certificate;

pub mod merkle;

pub mod block;
pub mod history;
pub mod state;

pub mod genesis;

pub mod chain;

pub mod light;

pub mod store;

pub mod api;
