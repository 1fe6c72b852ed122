//! The shapes of the JSON-RPC interface, defined once for node and wallet.
//!
//! JSON-RPC 2.0 over HTTP and WebSocket. Every 64-bit number is a decimal text, so that no JSON
//! reader rounds it; smaller numbers are JSON numbers; hashes, keys and canonical bytes are
//! lower-case hexadecimal. Parameters are given by name.

use serde::{Deserialize, Serialize};

/// A method: name, parameters, result, and what it does. `rpc_methods` returns the table.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Method {
    /// Name as called.
    pub name: &'static str,
    /// Parameters by name, optional ones with `?`.
    pub params: &'static str,
    /// Shape of the result.
    pub result: &'static str,
    /// What it does.
    pub about: &'static str,
}

macro_rules! methods {
    ($($constant:ident $name:literal ($params:literal) -> $result:literal, $about:literal;)*) => {
        $(#[doc = $about] pub const $constant: &str = $name;)*
        /// Every method of the interface.
        pub const METHODS: &[Method] =
            &[$(Method { name: $name, params: $params, result: $result, about: $about }),*];
    };
}

methods! {
    RPC_METHODS "rpc_methods" ("") -> "[Method]",
        "Lists all methods with their parameters and results.";
    CHAIN_STATUS "chain_status" ("") -> "Status",
        "Where this node stands: chain, height, roots, peers.";
    CHAIN_GENESIS "chain_genesis" ("") -> "object", "The genesis file of the chain.";
    CHAIN_HEAD "chain_head" ("height?: text") -> "Head",
        "Header and certificate of a final block, as canonical bytes; of the last one without a \
         height.";
    CHAIN_BLOCK "chain_block" ("height?: text, hash?: text, raw?: bool") -> "BlockInfo",
        "A final block by height or hash, the last one without either; with its canonical bytes if \
         raw.";
    CHAIN_VALIDATORS "chain_validators" ("") -> "[ValidatorInfo]",
        "The validators of the next height.";
    CHAIN_SUBSCRIBE "chain_subscribeBlocks" ("") -> "subscription of BlockSummary",
        "Pushes each block as it becomes final (WebSocket only).";
    CHAIN_UNSUBSCRIBE "chain_unsubscribeBlocks" ("subscription") -> "bool", "Ends a subscription.";
    TX_SUBMIT "tx_submit" ("transaction: hex") -> "Submitted",
        "Checks a signed transaction, keeps it and gossips it; says so if it is final already.";
    TX_GET "tx_get" ("id: text, wait_ms?: number, raw?: bool") -> "TxInfo",
        "What this node knows of a transaction; waits up to wait_ms (30,000) for it to become \
         final; with its canonical bytes if raw.";
    TX_PROOF "tx_proof" ("id: text") -> "TxProofInfo",
        "A final transaction with a proof that it is in a certified block.";
    TX_MEMPOOL "tx_mempool" ("limit?: number") -> "MempoolInfo",
        "Transactions that wait for a block, best fee first, 100 or up to 1,000.";
    ACCOUNT_GET "account_get" ("account: address or hex key") -> "AccountInfo",
        "Balance and nonce of an account.";
    ACCOUNT_PROOF "account_proof" ("account: address or hex key") -> "AccountProofInfo",
        "The account with a proof under a certified header.";
    SYNC_STATUS "sync_status" ("") -> "SyncStatus",
        "Progress of sync: how much is fetched and applied, from which peers, how fast, or why \
         nothing arrives.";
    NET_PEERS "net_peers" ("") -> "[PeerInfo]", "Connected peers.";
    NET_BANS "net_bans" ("") -> "[BanInfo]", "Peers that may not connect, why and until when.";
}

/// 64-bit numbers as decimal text.
pub mod decimal {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the number as text.
    ///
    /// # Errors
    /// The serializer's errors.
    pub fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    /// Reads a number from text.
    ///
    /// # Errors
    /// If the text is not a decimal number of up to 64 bits.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        let canonical = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = canonical.then(|| text.parse().ok()).flatten();
        number.ok_or_else(|| {
            serde::de::Error::custom(format!("expected a decimal number as text, got {text:?}"))
        })
    }
}

/// Optional 64-bit numbers as decimal text.
pub mod decimal_option {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the number as text, or null.
    ///
    /// # Errors
    /// The serializer's errors.
    pub fn serialize<S: Serializer>(
        number: &Option<u64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match number {
            Some(number) => serializer.collect_str(number),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a number from text, or null.
    ///
    /// # Errors
    /// If the text is not a decimal number of up to 64 bits.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<u64>, D::Error> {
        #[derive(Deserialize)]
        struct Number(#[serde(with = "super::decimal")] u64);
        Ok(Option::<Number>::deserialize(deserializer)?.map(|number| number.0))
    }
}

/// Where a node stands: chain, tip, peers, consensus and mempool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Root over all segments sealed up to that block, a segment that it closes included.
    pub history_root: String,
    /// Time of that block, milliseconds since 1970.
    #[serde(with = "decimal")]
    pub time: u64,
    /// Connected peers.
    pub peers: u32,
    /// Whether a peer has proved a height that this node has not reached.
    pub syncing: bool,
    /// Consensus key, if this node is a validator.
    pub validator: Option<String>,
    /// Current round of the height being decided, while consensus runs.
    pub round: u32,
    /// Transactions in the mempool.
    pub mempool_transactions: u32,
    /// Bytes of these transactions.
    #[serde(with = "decimal")]
    pub mempool_bytes: u64,
    /// How far the node's clock is ahead of the median of its peers' clocks, milliseconds; negative
    /// if it is behind, null with fewer than three peers.
    pub clock_offset_ms: Option<i64>,
    /// Whether enough validators are heard for blocks to become final.
    pub quorum: QuorumInfo,
}

/// Whether enough validators are heard for blocks to become final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuorumInfo {
    /// False once a height has lasted three rounds or 10 s without votes from a quorum.
    pub ok: bool,
    /// Validators that are not heard: their names in the genesis, or else keys. Empty while `ok`.
    pub missing: Vec<String>,
    /// When that height began, milliseconds since 1970; null while `ok`.
    #[serde(with = "decimal_option")]
    pub since_ms: Option<u64>,
}

/// A final block, as anybody can verify it from the genesis validators.
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

/// A transaction as people read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionInfo {
    /// Id of the transaction.
    pub id: String,
    /// Always `transfer` so far.
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
    /// Latest time of a block that may hold it, milliseconds since 1970.
    #[serde(with = "decimal")]
    pub expires_at: u64,
    /// Memo bytes, hex.
    pub memo: String,
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
    /// `pending`, or `final` if a transaction with this id is in a block already, whatever its
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
    /// Neither: never seen, or dropped.
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
    /// When this node accepted it, by its own clock, milliseconds since 1970; only if recent.
    #[serde(with = "decimal_option")]
    pub accepted_at: Option<u64>,
    /// When it was final and durable here, by the same clock; only if recent.
    #[serde(with = "decimal_option")]
    pub final_at: Option<u64>,
    /// The transaction.
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
    /// Bytes of all of them.
    #[serde(with = "decimal")]
    pub bytes: u64,
    /// Some of them, best fee first.
    pub list: Vec<TransactionInfo>,
}

/// An account as of a block.
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
    /// Nonce after the account's transactions in this node's mempool.
    #[serde(with = "decimal")]
    pub pending_nonce: u64,
    /// Height of the block.
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
    /// Nonce after the account's transactions in this node's mempool. Not proved.
    #[serde(with = "decimal")]
    pub pending_nonce: u64,
}

/// A validator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidatorInfo {
    /// Name in the genesis.
    pub name: String,
    /// Consensus key.
    pub key: String,
    /// Address that receives the fees.
    pub payout: String,
    /// Voting power.
    #[serde(with = "decimal")]
    pub power: u64,
}

/// A connected peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// libp2p peer id.
    pub id: String,
    /// Address of the connection.
    pub address: String,
    /// Whether it dialled us.
    pub inbound: bool,
    /// Agent string that the peer gives.
    pub agent: String,
    /// Last round-trip time in microseconds.
    pub ping_us: Option<u32>,
    /// Certified height that it last announced, if any.
    #[serde(with = "decimal_option")]
    pub height: Option<u64>,
    /// Bytes sent to it on its connections, encrypted.
    #[serde(with = "decimal")]
    pub sent_bytes: u64,
    /// Bytes received from it on its connections, encrypted.
    #[serde(with = "decimal")]
    pub received_bytes: u64,
    /// Its cost account.
    pub cost: PeerCost,
}

/// Cost of what a peer has made the node do, in microseconds, from a table of constants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCost {
    /// Budget that is left; below zero while the peer is in debt.
    pub left: i64,
    /// Charged for decoding messages.
    pub decode: u64,
    /// Charged for verifying signatures.
    pub verify: u64,
    /// Charged for look-ups in memory and reads of the store.
    pub look_up: u64,
    /// Charged for sending answers.
    pub answer: u64,
    /// Charged for passing on messages that were passed on before.
    pub relay: u64,
    /// Messages ignored and requests refused because the budget was spent.
    pub refused: u64,
}

/// A peer that may not connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanInfo {
    /// libp2p peer id.
    pub peer: String,
    /// Name of the offence, for programs.
    pub offence: String,
    /// End of the ban, in milliseconds since 1970.
    #[serde(with = "decimal")]
    pub until_ms: u64,
}

/// What sync is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncState {
    /// Nothing to fetch is known, and there is nobody to ask.
    Idle,
    /// A certified height is known, but not yet the segments up to it.
    Manifest,
    /// Chunks are missing.
    Chunks,
    /// All known chunks are here; blocks are verified and applied.
    Applying,
    /// Blocks after the last sealed segment are fetched in ranges.
    Tail,
    /// Consensus follows the network.
    Live,
}

impl std::fmt::Display for SyncState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Manifest => "manifest",
            Self::Chunks => "chunks",
            Self::Applying => "applying",
            Self::Tail => "tail",
            Self::Live => "live",
        })
    }
}

/// Progress of sync. Counts of chunks and bytes are since the start of the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncStatus {
    /// What sync is doing.
    pub state: SyncState,
    /// Highest certified height that this node knows of.
    #[serde(with = "decimal")]
    pub target_height: u64,
    /// Height of the last block that is applied and durable.
    #[serde(with = "decimal")]
    pub applied_height: u64,
    /// Sealed segments that are applied.
    #[serde(with = "decimal")]
    pub segments: u64,
    /// Sealed segments that are known.
    #[serde(with = "decimal")]
    pub segments_total: u64,
    /// Chunks to fetch, including those that an earlier run left.
    #[serde(with = "decimal")]
    pub chunks_total: u64,
    /// Chunks of these that are here, each verified by its hash, or were applied.
    #[serde(with = "decimal")]
    pub chunks_verified: u64,
    /// Bytes of the chunks to fetch.
    #[serde(with = "decimal")]
    pub bytes_total: u64,
    /// Bytes of the verified chunks.
    #[serde(with = "decimal")]
    pub bytes_verified: u64,
    /// Bytes of chunks received from peers, good or not.
    #[serde(with = "decimal")]
    pub fetched_bytes: u64,
    /// Bytes of received chunks that were here already.
    #[serde(with = "decimal")]
    pub duplicate_bytes: u64,
    /// Bytes of chunks sent to peers.
    #[serde(with = "decimal")]
    pub served_bytes: u64,
    /// Bytes verified per second, lately; null while nothing comes, and in the first two seconds.
    #[serde(with = "decimal_option")]
    pub rate: Option<u64>,
    /// Milliseconds until all known chunks are here at this rate; null without a rate.
    #[serde(with = "decimal_option")]
    pub eta_ms: Option<u64>,
    /// Why there is no progress, if there is none.
    pub reason: Option<String>,
    /// When all known chunks were here, milliseconds since 1970; null while some are missing.
    #[serde(with = "decimal_option")]
    pub verified_at_ms: Option<u64>,
    /// When the last fetched block was applied and durable, milliseconds since 1970; null while
    /// some are missing.
    #[serde(with = "decimal_option")]
    pub applied_at_ms: Option<u64>,
    /// Number of peers banned for what they sent.
    #[serde(with = "decimal")]
    pub bans: u64,
    /// Peers with a link for chunks.
    pub peers: Vec<SyncPeer>,
    /// Segments that are being fetched or wait to be applied.
    pub segment_list: Vec<SyncSegment>,
}

/// A peer with which history is exchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncPeer {
    /// libp2p peer id.
    pub peer: String,
    /// Its last final block when it connected, or last sealed a segment, by its word.
    #[serde(with = "decimal")]
    pub height: u64,
    /// It has all segments before this one, by its word.
    #[serde(with = "decimal")]
    pub segments: u64,
    /// Chunks of later segments that it has, by its word.
    #[serde(with = "decimal")]
    pub partial_chunks: u64,
    /// Chunks in flight: requested from it, but not received.
    #[serde(with = "decimal")]
    pub in_flight: u64,
    /// Bytes of chunks received from it.
    #[serde(with = "decimal")]
    pub fetched_bytes: u64,
    /// Bytes per second received from it, lately.
    #[serde(with = "decimal")]
    pub fetch_rate: u64,
    /// Bytes of chunks sent to it.
    #[serde(with = "decimal")]
    pub served_bytes: u64,
    /// Bytes per second sent to it, lately.
    #[serde(with = "decimal")]
    pub serve_rate: u64,
}

/// A segment that is being fetched or waits to be applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncSegment {
    /// Index in history, from 0.
    #[serde(with = "decimal")]
    pub index: u64,
    /// Number of its chunks.
    #[serde(with = "decimal")]
    pub chunks: u64,
    /// Number of its chunks that are here.
    #[serde(with = "decimal")]
    pub verified: u64,
    /// Whether all its chunks are here and all signatures in them verified.
    pub assembled: bool,
    /// One bit for each chunk, set if it is here, from the lowest bit of the first byte on. Hex.
    pub holdings: String,
}

/// Error codes beyond those of JSON-RPC 2.0.
pub mod code {
    /// A transaction was refused; `data.reason` says why.
    pub const REJECTED: i32 = -32_000;
    /// The named block, transaction or account is not known here.
    pub const NOT_FOUND: i32 = -32_001;
    /// The mempool is full, and the fee is too low for a place.
    pub const MEMPOOL_FULL: i32 = -32_002;
    /// The node is stopping or overloaded; try again.
    pub const UNAVAILABLE: i32 = -32_003;
    /// The caller's address has spent its budget; `data.retry_after_ms` says when to call again.
    pub const OVER_BUDGET: i32 = -32_004;
}

/// The `data` of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorData {
    /// Stable word for programs, such as `nonce_used`.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
    /// Milliseconds after which the same call may be accepted, if it only has to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
}
