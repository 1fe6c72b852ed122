//! The tools of stories on real processes: programs built first, folders and ports of their own, nodes that are started, killed
//! and asked, transfers, and what the system saw of a process.
//!
//! A story reads as what happens: `Network::start(4).await_blocks(5).crash(2).restart(2).await_blocks(5)`. Whatever takes time is
//! waited for with [`until`]; whatever must not happen is looked for again and again with [`throughout`]. Every process ends with
//! the value that stands for it, also when the story fails; then the ends of all logs are shown.

mod programs;

mod folder;
mod wait;

mod process;
mod rpc;

mod network;
mod testnet;

mod load;
mod trace;

pub use folder::Folder;
pub use load::{Payer, Reported, now_ms};
pub use network::{Network, Node};
pub use process::{Finished, Process, finish, has_ended};
pub use programs::{node_program, wallet_program};
pub use rpc::{Failure, Rpc};
pub use testnet::{Description, NodeInfo, Testnet};
pub use trace::Trace;
pub use wait::{at_once, pause_up_to, throughout, until};
