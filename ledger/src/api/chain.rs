//! The status of a node, blocks and validators.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{TransactionInfo, decimal, decimal_option};

/// The status of a node: chain, tip, peers, consensus and mempool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Chain id, hex.
    pub chain_id: String,
    /// Name of the network.
    pub network: String,
    /// Version of the node's program.
    pub version: String,
    /// Height of the last final block.
    #[serde(with = "decimal")]
    pub height: u64,
    /// Hash of that block.
    pub block_hash: String,
    /// Root over all accounts after that block.
    pub state_root: String,
    /// Root over all segments sealed up to that block, including a segment that this block closes.
    pub history_root: String,
    /// Time of that block, milliseconds since 1970.
    #[serde(with = "decimal")]
    pub time: u64,
    /// Number of connected peers.
    pub peers: u32,
    /// Whether a peer has proved a height that this node has not reached.
    pub syncing: bool,
    /// This node's consensus key, if it has one.
    pub validator: Option<String>,
    /// Current round of the height being decided, while consensus runs.
    pub round: u32,
    /// Number of transactions in the mempool.
    pub mempool_transactions: u32,
    /// Bytes of these transactions.
    #[serde(with = "decimal")]
    pub mempool_bytes: u64,
    /// How far the node's clock is ahead of the median of its peers' clocks, milliseconds; negative
    /// if it is behind, null with fewer than three peers.
    pub clock_offset_ms: Option<i64>,
    /// Whether enough validators are heard for blocks to become final.
    pub quorum: QuorumInfo,
    /// Age of the last final block by the node's clock, milliseconds; null before the first block.
    #[serde(default, with = "decimal_option")]
    pub last_block_age_ms: Option<u64>,
    /// Milliseconds since the node started.
    #[serde(default, with = "decimal")]
    pub uptime_ms: u64,
    /// Bytes that the node's home takes on disk, measured every 20 s.
    #[serde(default, with = "decimal")]
    pub disk_bytes: u64,
    /// Bytes that the node may still write on that disk; null if the system cannot say.
    #[serde(default, with = "decimal_option")]
    pub disk_free_bytes: Option<u64>,
    /// Bytes of history (chunks and ranges of blocks) sent to peers since the node started.
    #[serde(default, with = "decimal")]
    pub served_bytes: u64,
    /// Number of different peers to which history was sent since the node started, counted up to
    /// 4,096.
    #[serde(default)]
    pub served_peers: u32,
    /// What is here of the chain's history, and who checked it.
    #[serde(default)]
    pub history: HistoryInfo,
    /// The faults that the operator of a local network has set; null if there are none.
    #[serde(default)]
    pub faults: Option<Faults>,
}

/// What a node has of the chain's history, and how it was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryInfo {
    /// What the node is to keep, as in its settings: `full`, a size such as `20GiB`, or `recent 64
    /// eras`.
    pub keep: String,
    /// The eras of which every sealed segment is here: ranges of their numbers, first and last.
    pub eras: Vec<[u64; 2]>,
    /// What the node still does about blocks below its tip.
    pub phase: HistoryPhase,
    /// Height up to which this node has executed every block, from the genesis on.
    #[serde(with = "decimal")]
    pub executed_to: u64,
    /// Height up to which every block is or was here, proved by hashes under a certificate.
    #[serde(with = "decimal")]
    pub checked_by_hash_to: u64,
    /// Bytes on disk of the files of history, measured every 20 s.
    #[serde(with = "decimal")]
    pub bytes: u64,
}

/// What a node still does about blocks below its tip. Later phases are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HistoryPhase {
    /// It fetches blocks that it is to keep, and executes those that are here.
    Backfill,
    /// All blocks that it is to keep are here. It executes those before its snapshot: the audit of
    /// blocks.
    Audit,
    /// All blocks that it is to keep are here. If it is to keep everything, it has executed them.
    #[default]
    Done,
}

/// Faults that a node of a local network simulates. Peers are named by their libp2p ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Peers from which this node is cut off: what the two send each other waits, and is not lost.
    pub cut: Vec<String>,
    /// Time from the arrival of a peer's bytes until this node reads them, milliseconds. Only peers
    /// with such a latency are listed.
    pub latency_ms: BTreeMap<String, u32>,
}

/// Whether enough validators are heard for blocks to become final.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuorumInfo {
    /// False once a height has lasted three rounds or 10 s without votes from a quorum.
    pub ok: bool,
    /// Validators of which no vote for the present height was heard lately: their names in the
    /// genesis, or keys where there is no name. Empty while `ok`.
    pub missing: Vec<String>,
    /// When this node began to decide the present height, milliseconds since 1970; null while `ok`.
    #[serde(with = "decimal_option")]
    pub since_ms: Option<u64>,
}

/// A header and its certificate. They prove that the block is final to anybody who knows the
/// genesis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Canonical bytes of the header, hex.
    pub header: String,
    /// Canonical bytes of the certificate, hex.
    pub certificate: String,
}

/// Summary of a final block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockSummary {
    /// Height.
    #[serde(with = "decimal")]
    pub height: u64,
    /// Hash.
    pub hash: String,
    /// Time, milliseconds since 1970.
    #[serde(with = "decimal")]
    pub time: u64,
    /// Consensus key of the proposer.
    pub proposer: String,
    /// Number of transactions.
    pub transactions: u32,
    /// Size of the block in bytes.
    #[serde(with = "decimal")]
    pub bytes: u64,
}

/// A final block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockInfo {
    /// The summary.
    #[serde(flatten)]
    pub summary: BlockSummary,
    /// Hash of the parent.
    pub parent: String,
    /// Header version.
    pub version: u16,
    /// Root over the transactions.
    pub transactions_root: String,
    /// Root over all accounts after this block.
    pub state_root: String,
    /// Root over all segments sealed before this block.
    pub history_root: String,
    /// Round in which the block was decided.
    pub round: u32,
    /// Consensus keys of the validators whose precommits made the block final.
    pub signers: Vec<String>,
    /// The transactions, in order.
    pub transaction_list: Vec<TransactionInfo>,
    /// Canonical bytes of the block, hex, if they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
}

/// A validator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidatorInfo {
    /// Name in the genesis; may be empty.
    pub name: String,
    /// Consensus key.
    pub key: String,
    /// Address that receives the fees of the blocks that this validator proposes.
    pub payout: String,
    /// Voting power.
    #[serde(with = "decimal")]
    pub power: u64,
}
