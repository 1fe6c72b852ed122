//! What only a validator has: a log of what it signed, and a rule when it may sign.

pub(super) mod log;
pub(super) mod signing;
