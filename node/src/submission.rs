//! A user's transaction on its way from RPC through the verifier to the driver.

use ledger::chain::TransactionError;
use ledger::hash::TxId;
use ledger::transaction::Transaction;
use ledger::units::Timestamp;
use tokio::sync::oneshot;

/// Most submissions that wait for the verifier. Beyond it a submission is refused as
/// [`SubmitError::Unavailable`].
pub(crate) const SUBMISSIONS: usize = 1_024;

/// The channel for the outcome of a submission.
pub type Reply = oneshot::Sender<Result<TxId, SubmitError>>;

/// A user's transaction on its way to the verifier, and from there to the mempool.
#[derive(Debug)]
pub struct Submission {
    /// The transaction to verify and to admit to the mempool.
    pub transaction: Transaction,
    /// The channel for the outcome.
    pub reply: Reply,
}

/// Why a submission was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The transaction breaks a rule of the chain.
    #[error("{0}")]
    Rejected(#[from] TransactionError),
    /// The sender has another transaction with this nonce in the mempool, and this fee is too low
    /// to replace it.
    #[error(
        "another transaction of the sender with this nonce is pending; a replacement needs a fee \
         of at least {least} pebbles"
    )]
    Underpriced {
        /// Smallest fee that replaces it.
        least: u64,
    },
    /// The transaction would probably expire before it is in a block.
    #[error(
        "expires at {expires_at}, expected at least {least}: a transaction needs some time to get \
         into a block"
    )]
    ExpiresSoon {
        /// The last block time at which it is valid.
        expires_at: Timestamp,
        /// The earliest expiry that is accepted now.
        least: Timestamp,
    },
    /// The mempool has no room for this fee or this sender.
    #[error("the mempool is full, and its transactions pay at least as much per byte")]
    Full,
    /// The node is stopping or its queue is full.
    #[error("the node is busy or stopping, try again")]
    Unavailable,
}
