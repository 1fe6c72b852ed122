//! The tools of stories on real processes: programs that are built first, folders and ports of
//! their own, nodes to start, kill and call, transfers, and traces of system calls.
//!
//! A story reads as a list of events:
//! `Network::start(4).await_blocks(5).crash(2).restart(2).await_blocks(5)`. A story waits for an
//! event with [`until`] and checks repeatedly with [`throughout`] that something does not happen.
//! Every process ends when its value is dropped, also when the story fails; then the ends of all
//! logs are shown.

mod programs;

mod folder;
mod wait;

mod process;
mod rpc;

mod network;
mod testnet;

mod load;
mod trace;

pub use folder::{Folder, free_ports};
pub use load::{Payer, Reported, now_ms};
pub use network::{Network, Node};
pub use process::{Finished, Process, finish, has_ended, with_default_signals};
pub use programs::{node_program, wallet_program};
pub use rpc::{Failure, Rpc};
pub use testnet::{Description, NodeInfo, Testnet};
pub use trace::Trace;
pub use wait::{at_once, pause_up_to, throughout, until};
