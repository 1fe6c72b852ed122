//! The tools of stories on real processes. The tools that any project needs are in the crate
//! `testkit`: a local network, processes, calls of a node, waiting. This module has the tools for
//! Cairn's own tests. It builds the programs first, limits how many stories run at once, starts
//! nodes without `testnet`, sends streams of transfers, traces system calls, and looks for secrets.
//!
//! A story reads as a list of events:
//! `Network::start(4).await_blocks(5).crash(2).restart(2).await_blocks(5)`. A story waits for an
//! event with [`until`] and checks repeatedly with [`throughout`] that something does not happen.
//! Every process ends when its value is dropped, also when the story fails. A story that fails
//! shows the ends of all logs.

mod programs;

mod folder;

mod process;

mod network;
mod operator;
mod testnet;

mod load;
mod secret;
mod trace;

pub use folder::{Folder, free_ports};
pub use load::{Payer, Reported, now_ms};
pub use network::{Network, Node};
pub use operator::call_operator;
pub use process::{Process, rounds, with_default_signals};
pub use programs::{node_program, wallet_program};
pub use secret::Secret;
pub use testkit::process::{Finished, finish, has_ended};
pub use testkit::wait::{at_once, pause_up_to, throughout, until};
pub use testkit::{Description, Failure, NodeInfo, Rpc};
pub use testnet::Testnet;
pub use trace::Trace;
