//! The wallet: a keystore, signing, and proofs that are verified on the user's own machine.
//!
//! No node is trusted. A balance, or the finality of a transfer, is reported as proved only if
//! certificates and proofs confirm it under the pinned genesis. Before the first block, balances
//! are those of the genesis. The modules below are in the order in which to read them: each imports
//! only modules above it.

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
