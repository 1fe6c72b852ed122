//! A user's transaction on its way from RPC through the verifier to the driver.

use ledger::hash::TxId;
use ledger::transaction::Transaction;
use protocol::live::mempool::AdmitError;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The mempool does not admit the transaction.
    #[error(transparent)]
    Refused(#[from] AdmitError),
    /// The node is stopping or its queue is full.
    #[error("the node is busy or stopping, try again")]
    Unavailable,
}
