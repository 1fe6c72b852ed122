//! Why a transaction or a block is refused, and whose fault that is.

use crate::block::HEADER_VERSION;
use crate::certificate::CertificateError;
use crate::genesis::MADE_BY_0_1;
use crate::hash::{BlockHash, Hash};
use crate::signature::{KeyError, PublicKey};
use crate::transaction::{MEMO_BYTES_MAX, OUTPUTS_MAX};
use crate::units::{Amount, Height, Nonce, Timestamp};

/// Whose fault an error is: what a peer's score depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Who sent it could have known.
    Sender,
    /// It may have been right when or where it was sent.
    Nobody,
    /// Our disk or our code.
    Us,
}

/// Why a transaction cannot be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// The signature does not hold for this chain and sender.
    #[error("the signature does not hold for this chain and sender")]
    Signature,
    /// None or too many outputs.
    #[error("{0} outputs, expected 1 to {OUTPUTS_MAX}")]
    Outputs(usize),
    /// The memo is too long.
    #[error("memo of {0} bytes, expected at most {MEMO_BYTES_MAX}")]
    Memo(usize),
    /// An output of zero.
    #[error("output {0} has amount 0, expected more")]
    ZeroAmount(usize),
    /// A recipient that no one owns.
    #[error("a recipient cannot be paid: {0}")]
    Recipient(KeyError),
    /// Outputs and fee exceed 64 bits.
    #[error("outputs and fee together exceed 64 bits")]
    Overflow,
    /// The nonce was used already.
    #[error("nonce {got} is used already, the account's next is {next}")]
    NonceUsed {
        /// Nonce given.
        got: Nonce,
        /// Next nonce of the account.
        next: Nonce,
    },
    /// Earlier transactions of the sender are missing.
    #[error("nonce {got} is ahead, the account's next is {next}")]
    NonceAhead {
        /// Nonce given.
        got: Nonce,
        /// Next nonce of the account.
        next: Nonce,
    },
    /// The sender cannot pay.
    #[error("balance of {balance} pebbles does not cover {needed}")]
    Balance {
        /// What the sender has.
        balance: Amount,
        /// Outputs and fee.
        needed: Amount,
    },
    /// The fee is too low.
    #[error("fee of {got} pebbles, expected at least {least}")]
    Fee {
        /// Fee given.
        got: Amount,
        /// Least fee for its size and the accounts it creates.
        least: Amount,
    },
    /// Too late.
    #[error("expired at {expires_at}, the block's time is {time}")]
    Expired {
        /// Last time it is valid.
        expires_at: Timestamp,
        /// Time of the block.
        time: Timestamp,
    },
    /// Valid for longer than the chain allows.
    #[error("expires at {expires_at}, expected at most {latest}")]
    ExpiryTooFar {
        /// Last time it claims to be valid.
        expires_at: Timestamp,
        /// Latest allowed.
        latest: Timestamp,
    },
}

impl TransactionError {
    /// Whose fault: what the bytes alone show is the sender's; what depends on the state may be nobody's.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Signature
            | Self::Outputs(_)
            | Self::Memo(_)
            | Self::ZeroAmount(_)
            | Self::Recipient(_)
            | Self::Overflow => Blame::Sender,
            Self::NonceUsed { .. }
            | Self::NonceAhead { .. }
            | Self::Balance { .. }
            | Self::Fee { .. }
            | Self::Expired { .. }
            | Self::ExpiryTooFar { .. } => Blame::Nobody,
        }
    }
}

const fn what_to_do(version: u16) -> &'static str {
    if version < HEADER_VERSION { MADE_BY_0_1 } else { "upgrade this program" }
}

/// Why a block does not follow the tip. Always the proposer's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// A version this code does not know. Not a fault: the node is too old and has to stop.
    #[error("header version {got}, expected {HEADER_VERSION}: {}", what_to_do(*got))]
    Version {
        /// Version found.
        got: u16,
    },
    /// Not the next height.
    #[error("height {got}, expected {expected}")]
    Height {
        /// Height found.
        got: Height,
        /// Height after the tip.
        expected: Height,
    },
    /// Another parent than the tip.
    #[error("parent {got}, expected {expected}")]
    Parent {
        /// Parent found.
        got: BlockHash,
        /// The tip.
        expected: BlockHash,
    },
    /// Sooner after the parent than the block interval allows.
    #[error("time {got}, expected at least {earliest}")]
    Time {
        /// Time found.
        got: Timestamp,
        /// Time of the parent and the block interval.
        earliest: Timestamp,
    },
    /// The proposer is no validator.
    #[error("proposer {0} is no validator")]
    Proposer(PublicKey),
    /// A commitment differs from what it commits to.
    #[error("{field} is {got}, expected {expected}")]
    Commitment {
        /// Header field.
        field: &'static str,
        /// Value found.
        got: Hash,
        /// Value computed.
        expected: Hash,
    },
    /// The parent's certificate proves nothing.
    #[error("certificate of the parent: {0}")]
    Certificate(#[from] CertificateError),
    /// Too many bytes of transactions.
    #[error("{got} bytes of transactions, expected at most {max}")]
    Size {
        /// Bytes found.
        got: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// A transaction that cannot be applied.
    #[error("transaction {index}: {error}")]
    Transaction {
        /// Place in the block.
        index: usize,
        /// Why.
        error: TransactionError,
    },
}
