//! The order of nodes for an era. Each node computes it alone, and two nodes always agree which of
//! them comes first.

use ledger::hash::{Domain, Hash};

use crate::eras::Era;

/// The hash by which a node is ordered for an era: the lower, the sooner it keeps the era. `id` is
/// the node's peer id.
///
/// A peer id is free to make, so an attacker can have the first places of any era. Places decide
/// only who keeps an era. Whether a copy may go is decided by audits ([`super`]).
#[must_use]
pub fn place_hash(era: Era, id: &[u8]) -> Hash {
    Hash::of(Domain::Era, &[&era.0.to_le_bytes(), id])
}
