//! What only a validator has: its key, the log of what it signed, and the rule of when it may sign.

pub(super) mod log;
mod signing;

use std::time::Duration;

use ledger::chain::ChainState;
use ledger::signature::SigningKey;

use crate::live::input::Now;
use log::{Log, Logged};
use signing::Signing;

/// The validator that this node is, or would be if its key were in the validator set.
pub(super) struct Validator {
    /// Its consensus key; none if this node only follows.
    pub(super) key: Option<SigningKey>,
    /// When it may sign.
    pub(super) signing: Signing,
    /// The log of consensus.
    pub(super) log: Logged,
}

impl Validator {
    pub(super) fn new(
        key: Option<SigningKey>,
        log: Log,
        sign_without_log: bool,
        chain: &ChainState,
        now: Now,
    ) -> Self {
        let (tip, next) = (chain.tip(), chain.tip().height.next());
        let validators = chain.chain().validators(next);
        let is_validator = key.as_ref().is_some_and(|key| validators.find(&key.public()).is_some());
        let drift = Duration::from_millis(chain.chain().limits().clock_drift_ms);
        // The later of the two times counts, since a clock behind the chain must not shorten the
        // wait.
        let start = now.wall.max(tip.time);
        let signing = Signing::new(is_validator, &log, tip.height, sign_without_log, drift, start);
        Self { key, signing, log: Logged::new(log, next) }
    }
}
