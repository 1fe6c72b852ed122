//! Why a call fails.

use serde::{Deserialize, Serialize};

/// Error codes beyond those of JSON-RPC 2.0.
pub mod code {
    /// A transaction was refused; `data.reason` says why.
    pub const REJECTED: i32 = -32_000;
    /// The named block is not known here, the named transaction is not final here, or no block is
    /// final yet.
    pub const NOT_FOUND: i32 = -32_001;
    /// The mempool is full, and the transaction pays too little per byte to replace another one.
    pub const MEMPOOL_FULL: i32 = -32_002;
    /// The node is stopping or overloaded, or the call asks for more than the node gives at once.
    /// `data.hint` says what to do.
    pub const UNAVAILABLE: i32 = -32_003;
    /// The caller's address has spent its budget; `data.retry_after_ms` says when to call again.
    pub const OVER_BUDGET: i32 = -32_004;
    /// The answer is, or may be, in a part of the chain that this node does not keep. The code is
    /// that of [`OVER_BUDGET`]: in both cases another node may answer. `data.reason` is
    /// [`REASON_NOT_KEPT`](super::REASON_NOT_KEPT), and `data.holders` names such nodes.
    pub const NOT_KEPT: i32 = -32_004;
}

/// The reason of an error with [`code::NOT_KEPT`].
pub const REASON_NOT_KEPT: &str = "not_kept";

/// The `data` of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorData {
    /// A word for programs, which never changes, such as `nonce_used`.
    pub reason: String,
    /// Text for people: what to do about the error.
    pub hint: String,
    /// Milliseconds after which the same call may be accepted, if the caller only has to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
    /// Peer ids of nodes that are known to keep what this node does not; only with the reason
    /// `not_kept`, and perhaps empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holders: Option<Box<[String]>>,
}
