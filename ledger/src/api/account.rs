//! Accounts.

use serde::{Deserialize, Serialize};

use super::{Head, decimal};

/// An account as of the last final block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountInfo {
    /// Address.
    pub address: String,
    /// Balance in base units.
    #[serde(with = "decimal")]
    pub balance: u64,
    /// Nonce of its next transaction.
    #[serde(with = "decimal")]
    pub nonce: u64,
    /// Nonce after the account's transactions in this node's mempool, if these become final.
    #[serde(with = "decimal")]
    pub pending_nonce: u64,
    /// Height of this block.
    #[serde(with = "decimal")]
    pub height: u64,
}

/// An account with everything that is needed to verify it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountProofInfo {
    /// Header and certificate under which the account is proved.
    pub head: Head,
    /// Canonical bytes of the account proof, hex.
    pub proof: String,
    /// Nonce after the account's transactions in this node's mempool, if these become final. It is
    /// not proved.
    #[serde(with = "decimal")]
    pub pending_nonce: u64,
}
