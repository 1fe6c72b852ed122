//! The rules and the data of a Cairn chain: types, their encoding, the state transition, history,
//! proofs and the store.
//!
//! This crate has no async code, socket or clock. The file `lib.rs` declares the modules in groups,
//! in the order in which to read them. A module imports only modules of its own group and of the
//! groups above.
//!
//! # Example
//!
//! Alice pays Bob in the first block of a chain with one validator. Then a light client, which
//! knows only the genesis, verifies Bob's balance.
//!
//! ```
//! use ledger::address::Coin;
//! use ledger::block::Block;
//! use ledger::certificate::{Certificate, Vote, VoteKind};
//! use ledger::chain::{Chain, ChainState};
//! use ledger::codec::{VALUE_BYTES_MAX, decode, encode};
//! use ledger::genesis::{FORMAT, Genesis, GenesisAccount, GenesisValidator, Limits};
//! use ledger::light::FinalHeader;
//! use ledger::signature::SigningKey;
//! use ledger::state::StateKey;
//! use ledger::transaction::{Body, Output, Transfer, verify_transactions};
//! use ledger::units::{Amount, Nonce, Round, Timestamp, VotingPower};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let validator = SigningKey::from_seed(&[1; 32]);
//!     let alice = SigningKey::from_seed(&[2; 32]);
//!     let bob = SigningKey::from_seed(&[3; 32]).public();
//!
//!     // Genesis: everything that the nodes of a chain must agree on.
//!     let genesis = Genesis {
//!         format: FORMAT,
//!         network: "example".to_owned(),
//!         address_prefix: "crn".to_owned(),
//!         coin: Coin { symbol: "CRN".to_owned(), decimals: 9 },
//!         start_time: Timestamp(1_000),
//!         accounts: vec![GenesisAccount {
//!             name: "alice".to_owned(),
//!             account: alice.public(),
//!             balance: Amount(5_000_000_000),
//!         }],
//!         validators: vec![GenesisValidator {
//!             name: "one".to_owned(),
//!             key: validator.public(),
//!             payout: validator.public(),
//!             power: VotingPower(1),
//!         }],
//!         limits: Limits::default(),
//!     };
//!     assert!(genesis.problems().is_empty());
//!     let chain = Chain::new(genesis);
//!     let mut state = ChainState::genesis(chain.clone());
//!
//!     // Propose: a block with a transfer that Alice signed.
//!     let transfer = Transfer {
//!         sender: alice.public(),
//!         nonce: Nonce(0),
//!         outputs: vec![Output { account: bob, amount: Amount(1_000_000_000) }],
//!         fee: Amount(2_000_000),
//!         expires_at: Timestamp(60_000),
//!         memo: b"for the boat".to_vec(),
//!     };
//!     let signed = Body::Transfer(transfer).sign(chain.id(), &alice);
//!     let candidates = verify_transactions(chain.id(), vec![signed]).into_iter().flatten();
//!     let (proposer, now) = (validator.public(), Timestamp(2_000));
//!     let before = Certificate::genesis(chain.id());
//!     let proposed = state.propose(proposer, now, before, candidates);
//!
//!     // Validate: another node gets the bytes and applies the same rules.
//!     let block: Block = decode(proposed.bytes(), VALUE_BYTES_MAX)?;
//!     let block = state.validate(block.verify(chain.id())?)?;
//!     assert_eq!(block.hash(), proposed.hash());
//!     assert_eq!(block.block().transactions.len(), 1);
//!
//!     // Commit: precommits by more than two thirds of the voting power make the block final.
//!     let vote = Vote {
//!         kind: VoteKind::Precommit,
//!         height: block.height(),
//!         round: Round(0),
//!         block: Some(block.hash()),
//!         validator: validator.public(),
//!     };
//!     let precommit = (vote.validator, validator.sign(&vote.message(chain.id())));
//!     let validators = chain.validators(vote.height);
//!     let certificate =
//!         Certificate::new(vote.height, vote.round, block.hash(), validators, [precommit]);
//!     let committed = state.commit(block, certificate);
//!
//!     // Prove: a node shows the header, its certificate, and a proof of Bob's account.
//!     let header = encode(committed.block.header());
//!     let certificate = encode(&committed.certificate);
//!     let proof = encode(&state.state().prove(&StateKey::account(bob)));
//!
//!     // Verify: the light client needs the genesis and these bytes, and trusts nobody.
//!     let header = FinalHeader::verify(&chain, &header, &certificate)?;
//!     let account = header.account(&bob, &proof)?.expect("Bob was paid");
//!     assert_eq!(account.balance, Amount(1_000_000_000));
//!     Ok(())
//! }
//! ```
#![warn(
    missing_docs,
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    clippy::iter_over_hash_type,
    clippy::cast_possible_truncation
)]

pub mod codec;
pub mod hash;
pub mod units;

pub mod address;
pub mod signature;
pub mod transaction;

pub mod validators;

pub mod certificate;

pub mod merkle;

pub mod block;
pub mod file;
pub mod history;
pub mod state;

pub mod link;

pub mod genesis;

pub mod chain;

pub mod light;

pub mod snapshot;

pub mod store;

pub mod api;
