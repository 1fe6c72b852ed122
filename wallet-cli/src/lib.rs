//! Who holds the keys: a keystore, signing, and proofs checked on the user's own machine.
//!
//! No node is trusted. A balance, or the finality of a transfer, is shown only if certificates and
//! proofs show it under the pinned genesis. The modules below stand in reading order: each imports
//! only modules that stand above it.

pub mod mnemonic;
pub mod slip10;

pub mod keystore;

#[cfg(unix)]
mod hidden;
mod home;
mod rpc;
mod terminal;

mod trust;

mod error;

mod finality;
mod nonce;

mod wallet;

mod payment;

mod commands;

mod cli;

pub use cli::run;
