//! How a Cairn node happens: the network, the driver that performs what the protocol decides, RPC and the local testnet.
//!
//! Read in this order. The network knows no ledger rules, RPC reads snapshots, and only the driver changes anything.

pub mod cli;

pub mod config;
pub mod home;
pub mod keys;

pub mod run;

pub mod view;

mod driver;
pub mod log;
mod sync;
mod verifier;

pub mod network;

pub mod client;
mod memory;
pub mod metrics;
mod priority;
mod progress;
pub mod rpc;

pub mod testnet;
