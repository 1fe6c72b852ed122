//! A local Cairn network inside a test: break it, pay on it, and leave nothing behind.
//!
//! [`Testnet`] starts `cairn-node testnet` on free ports and drives it: four validators in a
//! temporary folder, real processes with the real transport. [`Testnet::partition`],
//! [`Testnet::isolate`], [`Testnet::latency`] and [`Testnet::heal`] break and mend links without
//! root; [`Testnet::kill`], [`Testnet::restart`] and [`Testnet::add`] change which nodes run. An
//! [`Account`] pays through a node and has the node prove that the payment is final: the proof is
//! checked against the genesis by the light client of `cairn-ledger`.
//!
//! # Example
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use testkit::{Error, Testnet};
//!
//! fn main() -> Result<(), Error> {
//!     let net = Testnet::start(4)?;
//!     let (alice, bob) = (net.account("alice")?, net.account("bob")?);
//!     let before = bob.balance()?;
//!
//!     let payment = alice.pay(&bob.address(), "1.5 CRN")?;
//!     println!("final in block {} after {:?}", payment.height, payment.took);
//!     assert_eq!(bob.balance()?.amount.0, before.amount.0 + 1_500_000_000);
//!
//!     // Two and two: no half has more than two thirds of the voting power.
//!     net.partition(&[&["node1", "node2"], &["node3", "node4"]])?;
//!     let stuck = alice.submit(&bob.address(), "1 CRN")?;
//!     assert!(!alice.is_final(&stuck, Duration::from_secs(2))?);
//!
//!     // Nothing is lost: what waited arrives at the heal.
//!     net.heal()?;
//!     alice.prove(&stuck)?;
//!     net.kill("node4")?.await_blocks(2)?;
//!     net.restart("node4")?.await_blocks(2)?.agree()?;
//!     Ok(())
//! }
//! ```
//!
//! # The program
//!
//! The crate does not build `cairn-node`; it finds it, in this order: the path given to
//! [`Builder::program`], the path in the environment variable `CAIRN_NODE`, the program beside the
//! running test (`target/debug` in Cairn's own workspace), the folders of `PATH`.
//!
//! # The end
//!
//! All processes end when the [`Testnet`] is dropped, also after a panic, which then shows the ends
//! of all logs. They also end when the test's process is killed, in whatever way: the parent of the
//! nodes ends when its stdin does. Then only the folder stays, below the system's folder for
//! temporary files.
//!
//! The modules stand in reading order: each imports only modules that stand below it.
#![warn(missing_docs)]

mod builder;
mod faults;

mod testnet;

mod account;
mod control;

mod description;
mod template;

pub mod program;

mod error;

mod rpc;

pub mod process;

pub mod wait;

pub use account::{Account, Balance, Payment, Submission};
pub use builder::Builder;
pub use control::{Listing, LoadReport, NodeState, State};
pub use description::{Description, NodeInfo};
pub use error::{Error, Logs};
pub use faults::Paid;
pub use ledger;
pub use rpc::{Failure, Rpc};
pub use template::template;
pub use testnet::Testnet;
