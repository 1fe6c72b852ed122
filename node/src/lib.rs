//! The parts of a running Cairn node: the network, the driver that performs what the protocol
//! decides, RPC and the local testnet.
//!
//! The modules below stand in reading order. The network knows no ledger rules, RPC reads
//! snapshots, and only the driver changes the node's state.

pub mod cli;
pub mod testnet;

pub mod run;

pub mod metrics;
mod progress;
pub mod rpc;
pub mod submission;
mod sync_status;
pub mod view;

mod driver;
mod memory;
mod verifier;

pub mod network;

pub mod config;
pub mod consensus_log;
pub mod home;
pub mod keys;

pub mod client;

// Helpers at the bottom, which any module may use.
pub mod accounts;
mod clock;
mod descriptors;
mod files;
mod logging;
mod output;
mod screen;
mod signals;
mod space;
mod tasks;
