//! Transactions, pending and final.

use serde::{Deserialize, Serialize};

use super::{decimal, decimal_option};

/// A transaction in readable form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionInfo {
    /// Id of the transaction.
    pub id: String,
    /// Kind of the transaction: always `transfer` so far.
    pub kind: String,
    /// Address of the sender.
    pub sender: String,
    /// Nonce.
    #[serde(with = "decimal")]
    pub nonce: u64,
    /// Payments.
    pub outputs: Vec<OutputInfo>,
    /// Fee in base units.
    #[serde(with = "decimal")]
    pub fee: u64,
    /// Latest time of a block that may hold the transaction, milliseconds since 1970.
    #[serde(with = "decimal")]
    pub expires_at: u64,
    /// Bytes of the memo, hex.
    pub memo: String,
    /// The link that the memo is: an anchor of a file. Missing for any other memo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<String>,
    /// Encoded size in bytes.
    pub bytes: u32,
}

/// One payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputInfo {
    /// Address of the recipient.
    pub address: String,
    /// Amount in base units.
    #[serde(with = "decimal")]
    pub amount: u64,
}

/// Answer to a submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// Id of the transaction.
    pub id: String,
    /// `pending`, or `final` if a transaction with this id is in a block already, even with another
    /// signature.
    pub status: TxStatus,
    /// Height of its block, if final.
    #[serde(with = "decimal_option")]
    pub height: Option<u64>,
}

/// Status of a transaction on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TxStatus {
    /// In a final block.
    Final,
    /// In this node's mempool.
    Pending,
    /// Neither final nor pending: the node has never seen it, or has dropped it.
    Unknown,
}

/// What a node knows of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxInfo {
    /// Id of the transaction.
    pub id: String,
    /// Status.
    pub status: TxStatus,
    /// Height of its block, if final.
    #[serde(with = "decimal_option")]
    pub height: Option<u64>,
    /// Hash of its block, if final.
    pub block_hash: Option<String>,
    /// Index in the block, from 0, if final.
    pub index: Option<u32>,
    /// When this node accepted the transaction, by the node's clock, milliseconds since 1970; null
    /// unless this was recent.
    #[serde(with = "decimal_option")]
    pub accepted_at: Option<u64>,
    /// When the transaction was final and durable on this node, by the same clock; null unless this
    /// was recent.
    #[serde(with = "decimal_option")]
    pub final_at: Option<u64>,
    /// The transaction; null if it is unknown.
    pub transaction: Option<TransactionInfo>,
    /// Canonical bytes of the transaction, hex, if they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
}

/// A final transaction with everything that is needed to verify it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxProofInfo {
    /// Id of the transaction.
    pub id: String,
    /// Height of its block.
    #[serde(with = "decimal")]
    pub height: u64,
    /// Canonical bytes of the transaction, hex.
    pub raw: String,
    /// Canonical bytes of the `MerkleProof` of its full hash under `transactions_root`, hex.
    pub inclusion: String,
    /// Canonical bytes of the header, hex.
    pub header: String,
    /// Canonical bytes of the certificate, hex.
    pub certificate: String,
}

/// Transactions that wait for a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MempoolInfo {
    /// Number of transactions.
    pub transactions: u32,
    /// Bytes of all these transactions.
    #[serde(with = "decimal")]
    pub bytes: u64,
    /// The transactions that pay the most per byte, best first, as many as were asked for.
    pub list: Vec<TransactionInfo>,
}
