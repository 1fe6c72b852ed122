//! The parts of a running Cairn node: the network, the driver that performs what the protocol
//! decides, RPC and the local testnet.
//!
//! The modules below stand in reading order: each imports only modules that stand below it. The
//! network knows no ledger rules, RPC reads snapshots, and only the driver changes the node's
//! state.

pub mod cli;

pub mod testnet;

pub mod run;

mod progress;
pub mod rpc;

pub mod metrics;
mod nodes;
mod sync_status;

mod driver;

mod shared_files;

mod verifier;

pub mod view;

pub mod submission;

pub mod home;

pub mod keys;

mod invitation;

pub mod config;

pub mod consensus_log;
mod descriptors;
mod logging;

pub mod network;

// Helpers at the bottom, which any module may use.
pub mod accounts;
pub mod chain_maker;
pub mod checkpoint;
pub mod client;
mod clock;
mod control;
mod files;
mod holes;
mod index;
mod memory;
mod output;
mod parent;
mod screen;
mod signals;
pub mod space;
mod tasks;
pub mod uploaded;
