//! The types of the JSON-RPC interface, shared by node and wallet.
//!
//! The interface is JSON-RPC 2.0 over HTTP and WebSocket. Parameters are given by name. 64-bit
//! numbers are strings of decimal digits, so that no JSON parser rounds them. Numbers of up to 32
//! bits are JSON numbers, and so are `clock_offset_ms` and the costs of a peer, which stay small.
//! Hashes, keys and canonical bytes are lower-case hexadecimal.

mod account;
mod chain;
pub mod decimal;
pub mod decimal_option;
mod error;
mod method;
mod peer;
mod sync;
mod transaction;

pub use self::account::{AccountInfo, AccountProofInfo};
pub use self::chain::{
    BlockInfo, BlockSummary, Faults, Head, HistoryInfo, HistoryPhase, QuorumInfo, Status,
    ValidatorInfo,
};
pub use self::error::{ErrorData, REASON_NOT_KEPT, code};
pub use self::method::*;
pub use self::peer::{BanInfo, PeerCost, PeerInfo};
pub use self::sync::{SupplierRun, SyncPeer, SyncSegment, SyncState, SyncStatus};
pub use self::transaction::{
    MempoolInfo, OutputInfo, Submitted, TransactionInfo, TxInfo, TxProofInfo, TxStatus,
};
