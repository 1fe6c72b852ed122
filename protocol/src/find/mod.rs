//! How nodes find out who has an era of history or a file.
//!
//! - `key` names what is searched for. [`Object::key`] gives its place in the index.
//! - `records` is this node's part of the index: who says that it has what ([`Records`]).
//! - `flood` asks without an index: a query that nodes pass on ([`Flood`]).
//!
//! All three are pure. The index itself is the network's Kademlia. Protocol:
//! `docs/protocol/network.md`.

mod flood;
mod key;
mod records;

pub use flood::{
    FLOOD_PEERS_MAX, FOREIGN_A_SECOND, Flood, FloodEffect, FloodInput, HOLDERS_MAX, REMEMBERED_FOR,
    REMEMBERED_MAX,
};
pub use key::{EraGroup, GROUPS_MAX, Key, Object};
pub use records::{
    LIFETIME, PER_HOLDER_MAX, PER_KEY_MAX, PER_SUBNET_MAX, RECORDS_MAX, RENEWED_EVERY, Records,
    Refusal,
};
