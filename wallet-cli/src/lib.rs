//! Who holds the keys: a keystore, signing, and proofs checked on the user's own machine.
//!
//! No node is trusted. Balances and the finality of transfers are shown only as far as they follow from the pinned genesis by
//! certificates and proofs. Read in this order.

pub mod mnemonic;
pub mod slip10;

pub mod keystore;

#[cfg(unix)]
mod hidden;
mod home;
mod rpc;
mod terminal;

mod trust;

mod finality;

mod error;
mod wallet;

mod payment;

mod cli;
mod commands;

pub use cli::run;
