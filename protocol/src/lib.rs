//! What a Cairn node does next, as three pure state machines.
//!
//! [`live`] follows the chain: mempool, consensus and catch-up. Its only entry point is
//! [`Machine::handle`]. [`swarm`] fetches and serves history. Its only entry point is
//! [`swarm::Swarm::handle`]. [`archive`] decides which eras of history this node keeps. Its only
//! entry point is [`archive::Archive::handle`]. Each takes the time and an input and returns
//! effects, which the caller performs in order. [`find`] has what searches for other nodes need.
//! This crate never waits, opens a socket, touches a disk or asks a clock, so a simulator can run
//! many machines and repeat a run from its seed. The modules below form two groups: the machines,
//! and what they share. No shared module imports a machine.
//!
//! # Example: a block
//!
//! The only validator of a network makes its first block final. The loop shows all that a driver
//! does: it hands in the time or an event, and performs the effects in order.
//!
//! ```
//! use std::time::Duration;
//!
//! use ledger::address::Coin;
//! use ledger::certificate::Certificate;
//! use ledger::chain::{Chain, ChainState};
//! use ledger::genesis::{FORMAT, Genesis, GenesisValidator, Limits};
//! use ledger::signature::SigningKey;
//! use ledger::units::{Height, Timestamp, VotingPower};
//! use protocol::live::mempool::MempoolLimits;
//! use protocol::{Effect, Input, Log, Machine, Now, Setup};
//!
//! const START: u64 = 1_767_225_600_000;
//!
//! let key = SigningKey::from_seed(&[1; 32]);
//! let chain = Chain::new(Genesis {
//!     format: FORMAT,
//!     network: "example".to_owned(),
//!     address_prefix: "crn".to_owned(),
//!     coin: Coin { symbol: "CRN".to_owned(), decimals: 9 },
//!     start_time: Timestamp(START),
//!     accounts: Vec::new(),
//!     validators: vec![GenesisValidator {
//!         name: "one".to_owned(),
//!         key: key.public(),
//!         payout: key.public(),
//!         power: VotingPower(1),
//!     }],
//!     limits: Limits::default(),
//! });
//! let setup = Setup {
//!     certificate: Certificate::genesis(chain.id()),
//!     chain: ChainState::genesis(chain.clone()),
//!     header: None,
//!     key: Some(key),
//!     log: Log::Intact(Height(1), Vec::new()),
//!     sign_without_log: false,
//!     mempool: MempoolLimits::default(),
//!     seed: 1,
//! };
//!
//! // No clock: the caller says what time it is.
//! let at = |elapsed: Duration| {
//!     let wall = Timestamp(START + u64::try_from(elapsed.as_millis()).unwrap());
//!     Now { elapsed, wall }
//! };
//! let mut elapsed = Duration::ZERO;
//! let mut machine = Machine::new(setup, at(elapsed));
//! while machine.chain().tip().height == Height(0) {
//!     assert!(elapsed < Duration::from_secs(60), "no block within a minute");
//!     let mut inputs = vec![Input::Time];
//!     while let Some(input) = inputs.pop() {
//!         for effect in machine.handle(at(elapsed), input) {
//!             match effect {
//!                 // Final: a node makes the blocks durable here, then confirms.
//!                 Effect::Commit(blocks) => {
//!                     let certificate = &blocks[0].certificate;
//!                     let (height, hash) = (Height(1), blocks[0].block.hash());
//!                     let validators = chain.validators(height);
//!                     assert!(certificate.verify(chain.id(), validators, height, hash).is_ok());
//!                     inputs.push(Input::Committed);
//!                 }
//!                 // A node writes its log here and publishes its votes. This one has no peers.
//!                 _ => {}
//!             }
//!         }
//!     }
//!     elapsed = machine.deadline();
//! }
//! assert_eq!(machine.chain().tip().height, Height(1));
//! ```
//!
//! # Example: a chunk
//!
//! A peer may send only requested chunks, and only as many as this node has given it credit for. A
//! peer that sends a chunk without credit commits an offence.
//!
//! ```
//! use std::time::Duration;
//!
//! use ledger::address::Coin;
//! use ledger::chain::Chain;
//! use ledger::genesis::{FORMAT, Genesis, GenesisValidator, Limits};
//! use ledger::history::History;
//! use ledger::signature::SigningKey;
//! use ledger::units::{SegmentIndex, Timestamp, VotingPower};
//! use protocol::swarm::{Effect, HISTORY, Input, Rates, SegmentRanges, Setup, Swarm};
//! use protocol::{Offence, PeerId};
//!
//! let key = SigningKey::from_seed(&[1; 32]).public();
//! let chain = Chain::new(Genesis {
//!     format: FORMAT,
//!     network: "example".to_owned(),
//!     address_prefix: "crn".to_owned(),
//!     coin: Coin { symbol: "CRN".to_owned(), decimals: 9 },
//!     start_time: Timestamp(1_767_225_600_000),
//!     accounts: Vec::new(),
//!     validators: vec![GenesisValidator {
//!         name: "one".to_owned(),
//!         key,
//!         payout: key,
//!         power: VotingPower(1),
//!     }],
//!     limits: Limits::default(),
//! });
//! let history = History::new(chain.history_rules());
//! let setup = Setup {
//!     chain,
//!     history: &history,
//!     kept: SegmentRanges::default(),
//!     staged: Vec::new(),
//!     manifest: None,
//!     nonce: 1,
//!     rates: Rates::default(),
//!     join: None,
//! };
//! let (mut swarm, _) = Swarm::new(setup, Duration::ZERO);
//!
//! // A link opens. Four messages tell the peer this node's numbers for history and backfill, its
//! // height, and which snapshots it has.
//! let from = PeerId(1);
//! let greeting = swarm.handle(Duration::ZERO, Input::Opened(from));
//! assert_eq!(greeting.len(), 4);
//! assert!(greeting.iter().all(|effect| matches!(effect, Effect::Send(..))));
//!
//! // The caller verifies a chunk when it arrives. The machine never sees the bytes.
//! let (id, bytes) = (HISTORY.segment(SegmentIndex(0)).chunk(0), b"nobody wants this");
//! let is_valid = swarm.expected(from, id).is_some_and(|expected| expected.verify(id, bytes));
//! let bytes = bytes.len() as u64;
//! let effects = swarm.handle(Duration::ZERO, Input::Chunk { from, id, is_valid, bytes });
//! assert!(matches!(effects[..], [Effect::Ban { offence: Offence::TooManyChunks, .. }]));
//! ```
#![warn(
    missing_docs,
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    clippy::iter_over_hash_type,
    clippy::cast_possible_truncation
)]

pub mod archive;
pub mod find;
pub mod live;
pub mod swarm;

pub mod budget;
pub mod eras;
pub mod holder;
mod ids;
mod lots;
pub mod message;
pub mod offence;
mod plan;
pub mod planted;
pub mod search;

pub use ids::{PeerId, RequestId, Ticket};
pub use live::{Effect, Input, Log, Machine, Now, Quorum, Setup, Topic, Verdict, Work};
pub use offence::Offence;
pub use plan::{FetchPlan, HeightRange};
