//! The shapes of the JSON-RPC interface, defined once for node and wallet.
//!
//! JSON-RPC 2.0 over HTTP and WebSocket. Every 64-bit number is a decimal text, so that no JSON
//! reader rounds it; smaller numbers are JSON numbers; hashes, keys and canonical bytes are
//! lower-case hexadecimal. Parameters are given by name.

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
pub use self::chain::{BlockInfo, BlockSummary, Head, QuorumInfo, Status, ValidatorInfo};
pub use self::error::{ErrorData, code};
pub use self::method::*;
pub use self::peer::{BanInfo, PeerCost, PeerInfo};
pub use self::sync::{SyncPeer, SyncSegment, SyncState, SyncStatus};
pub use self::transaction::{
    MempoolInfo, OutputInfo, Submitted, TransactionInfo, TxInfo, TxProofInfo, TxStatus,
};
