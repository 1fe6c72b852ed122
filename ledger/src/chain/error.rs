//! Why a transaction or a block is refused, and whose fault it is.

use crate::block::{HEADER_VERSION, SignatureError};
use crate::certificate::CertificateError;
use crate::genesis::MADE_BY_0_1;
use crate::hash::{BlockHash, Hash};
use crate::signature::{KeyError, PublicKey};
use crate::transaction::{MEMO_BYTES_MAX, OUTPUTS_MAX};
use crate::units::{Amount, Height, Nonce, Timestamp};

/// Whose fault an error is. It decides whether the peer that sent the message is treated as an
/// offender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The sender could have known that the message is wrong.
    Sender,
    /// The message may have been right for its sender, whose state or time was another one.
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
    /// No output, or too many.
    #[error("{0} outputs, expected 1 to {OUTPUTS_MAX}")]
    Outputs(usize),
    /// The memo is too long.
    #[error("memo of {0} bytes, expected at most {MEMO_BYTES_MAX}")]
    Memo(usize),
    /// An output has amount 0.
    #[error("output {0} has amount 0, expected more")]
    ZeroAmount(usize),
    /// A recipient's key is one that no account may have.
    #[error("a recipient cannot be paid: {0}")]
    Recipient(KeyError),
    /// Outputs and fee together exceed 64 bits. No other sum of the rules can: the supply fits 64
    /// bits.
    #[error("outputs and fee together exceed 64 bits")]
    Overflow,
    /// The nonce was used already.
    #[error("nonce {got} is used already, the account's next nonce is {next}")]
    NonceUsed {
        /// Nonce given.
        got: Nonce,
        /// Next nonce of the account.
        next: Nonce,
    },
    /// The nonce is ahead: earlier transactions of the sender are missing.
    #[error("nonce {got} is too high, the account's next nonce is {next}")]
    NonceAhead {
        /// Nonce given.
        got: Nonce,
        /// Next nonce of the account.
        next: Nonce,
    },
    /// The balance does not cover outputs and fee.
    #[error("balance of {balance} pebbles does not cover {needed}")]
    Balance {
        /// Balance of the sender.
        balance: Amount,
        /// Sum of outputs and fee.
        needed: Amount,
    },
    /// The fee is too low.
    #[error("fee of {got} pebbles, expected at least {least}")]
    Fee {
        /// Fee given.
        got: Amount,
        /// Least fee for the transaction's size and the accounts that it creates.
        least: Amount,
    },
    /// The transaction has expired.
    #[error("expired at {expires_at}, the block's time is {time}")]
    Expired {
        /// Last block time at which the transaction is valid.
        expires_at: Timestamp,
        /// Time of the block.
        time: Timestamp,
    },
    /// The transaction is valid for longer than the chain allows.
    #[error("expires at {expires_at}, expected at most {latest}")]
    ExpiryTooFar {
        /// Last block time at which the transaction claims to be valid.
        expires_at: Timestamp,
        /// Latest expiry that the chain allows.
        latest: Timestamp,
    },
}

impl TransactionError {
    /// Whose fault the error is. It is the sender's if the bytes alone show the error, and nobody's
    /// if the error depends on the state or the time.
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

/// Why a block is not valid on the tip. If a proposer sent the block, all but `Version` are the
/// proposer's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The version stands for other rules than those of this code: the program is too old for the
    /// chain, or too new.
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
    /// The parent is not the tip.
    #[error("parent {got}, expected {expected}")]
    Parent {
        /// Parent found.
        got: BlockHash,
        /// Hash of the tip.
        expected: BlockHash,
    },
    /// The block's time is less than the block interval after its parent's.
    #[error("time {got}, expected at least {earliest}")]
    Time {
        /// Time found.
        got: Timestamp,
        /// Time of the parent plus the block interval.
        earliest: Timestamp,
    },
    /// The proposer is no validator.
    #[error("proposer {0} is not a validator")]
    Proposer(PublicKey),
    /// A commitment in the header differs from the computed value.
    #[error("{field} is {got}, expected {expected}")]
    Commitment {
        /// Header field.
        field: &'static str,
        /// Value found.
        got: Hash,
        /// Value computed.
        expected: Hash,
    },
    /// The parent's certificate does not prove that the parent is final.
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
    /// A transaction cannot be applied.
    #[error("transaction {index}: {error}")]
    Transaction {
        /// Index of the transaction in the block, from 0.
        index: usize,
        /// The reason.
        error: TransactionError,
    },
}

impl From<SignatureError> for BlockError {
    fn from(SignatureError { index }: SignatureError) -> Self {
        Self::Transaction { index, error: TransactionError::Signature }
    }
}
