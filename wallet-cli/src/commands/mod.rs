//! The commands, one file each.

pub(crate) mod balance;
pub(crate) mod keys;
pub(crate) mod send;
pub(crate) mod tx;
