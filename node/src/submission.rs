//! A user's transaction on its way from RPC through the verifier to the driver.

use ledger::chain::TransactionError;
use ledger::hash::TxId;
use ledger::transaction::Transaction;
use ledger::units::Timestamp;
use tokio::sync::oneshot;

/// Submissions that wait for the verifier. Further callers are told to try again.
pub(crate) const SUBMISSIONS: usize = 1_024;

/// How a user's submission is answered.
pub type Reply = oneshot::Sender<Result<TxId, SubmitError>>;

/// A user's transaction on its way to the verifier, and from there to the mempool.
#[derive(Debug)]
pub struct Submission {
    /// What to verify and admit.
    pub transaction: Transaction,
    /// Where the outcome goes.
    pub reply: Reply,
}

/// Why a submission was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// It breaks a rule.
    #[error("{0}")]
    Rejected(#[from] TransactionError),
    /// The sender has another transaction with this nonce and at least as good a fee.
    #[error(
        "another transaction with this nonce waits already; to replace it the fee must be at least {least} pebbles"
    )]
    Underpriced {
        /// Smallest fee that replaces it.
        least: u64,
    },
    /// It would expire before it could well be in a block.
    #[error("expires at {expires_at}, expected at least {least}: a transaction needs a while to get into a block")]
    ExpiresSoon {
        /// Last time it is valid.
        expires_at: Timestamp,
        /// Earliest such time that is let in now.
        least: Timestamp,
    },
    /// No room for this fee or this sender.
    #[error("the mempool is full for this fee or sender")]
    Full,
    /// The driver is stopping or its inbox is full.
    #[error("the node is busy or stopping, try again")]
    Unavailable,
}
