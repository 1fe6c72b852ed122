//! The shapes of the JSON-RPC interface, once for node and wallet.
//!
//! JSON-RPC 2.0 over HTTP and WebSocket. Every 64-bit number is a decimal text, so that no JSON reader rounds it; smaller numbers are
//! JSON numbers; hashes, keys and canonical bytes are lower-case hexadecimal. Parameters are given by name.

use serde::{Deserialize, Serialize};

/// One method: name, parameters, result, what it does. `rpc_methods` returns the table.
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
    RPC_METHODS "rpc_methods" ("") -> "[Method]", "Lists all methods with their parameters and results.";
    CHAIN_STATUS "chain_status" ("") -> "Status", "Where this node stands: chain, height, roots, peers.";
    CHAIN_GENESIS "chain_genesis" ("") -> "object", "The genesis file of the chain.";
    CHAIN_HEAD "chain_head" ("height?: text") -> "Head", "Header and certificate of a final block, as canonical bytes; of the last one without a height.";
    CHAIN_BLOCK "chain_block" ("height?: text, hash?: text, raw?: bool") -> "BlockInfo", "A final block by height or hash, the last one without either; with its canonical bytes if raw.";
    CHAIN_VALIDATORS "chain_validators" ("") -> "[ValidatorInfo]", "The validators of the next height.";
    CHAIN_SUBSCRIBE "chain_subscribeBlocks" ("") -> "subscription of BlockSummary", "Pushes each block as it becomes final (WebSocket only).";
    CHAIN_UNSUBSCRIBE "chain_unsubscribeBlocks" ("subscription") -> "bool", "Ends a subscription.";
    TX_SUBMIT "tx_submit" ("transaction: hex") -> "Submitted", "Checks a signed transaction, keeps it and gossips it; says so if it is final already.";
    TX_GET "tx_get" ("id: text, wait_ms?: number, raw?: bool") -> "TxInfo", "What this node knows of a transaction; waits up to wait_ms (30,000) for it to become final; with its canonical bytes if raw.";
    TX_PROOF "tx_proof" ("id: text") -> "TxProofInfo", "A final transaction with a proof that it is in a certified block.";
    TX_MEMPOOL "tx_mempool" ("limit?: number") -> "MempoolInfo", "Transactions that wait for a block, best fee first, 100 or up to 1,000.";
    ACCOUNT_GET "account_get" ("account: address or hex key") -> "AccountInfo", "Balance and nonce of an account.";
    ACCOUNT_PROOF "account_proof" ("account: address or hex key") -> "AccountProofInfo", "The account with a proof under a certified header.";
    SYNC_STATUS "sync_status" ("") -> "SyncStatus", "What sync is doing: how much is fetched and applied, from whom, how fast, or why nothing comes.";
    NET_PEERS "net_peers" ("") -> "[PeerInfo]", "Connected peers.";
    NET_BANS "net_bans" ("") -> "[BanInfo]", "Peers that may not connect, why and until when.";
}

/// 64-bit numbers as decimal text.
pub mod decimal {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the number as text.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    /// Reads a number from text.
    ///
    /// # Errors
    /// When the text is not a decimal number of up to 64 bits.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        let canonical = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = canonical.then(|| text.parse().ok()).flatten();
        number.ok_or_else(|| serde::de::Error::custom(format!("expected a decimal number as text, got {text:?}")))
    }
}

/// Optional 64-bit numbers as decimal text.
pub mod decimal_option {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the number as text, or null.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(number: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match number {
            Some(number) => serializer.collect_str(number),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a number from text, or null.
    ///
    /// # Errors
    /// When the text is not a decimal number of up to 64 bits.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        #[derive(Deserialize)]
        struct Number(#[serde(with = "super::decimal")] u64);
        Ok(Option::<Number>::deserialize(deserializer)?.map(|number| number.0))
    }
}

/// Where a node stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Identity of the chain, hex.
    pub chain_id: String,
    /// Name of the network.
    pub network: String,
    /// Version of the node.
    pub version: String,
    /// Height of the last final block.
    #[serde(with = "decimal")]
    pub height: u64,
    /// Its hash.
    pub block_hash: String,
    /// Accounts after it.
    pub state_root: String,
    /// Sealed history before it.
    pub history_root: String,
    /// Its time, milliseconds since 1970.
    #[serde(with = "decimal")]
    pub time: u64,
    /// Connected peers.
    pub peers: u32,
    /// Whether a peer has proved a height that this node has not reached.
    pub syncing: bool,
    /// Consensus key, when this node is a validator.
    pub validator: Option<String>,
    /// Current round of the height being decided, when consensus runs.
    pub round: u32,
    /// Waiting transactions.
    pub mempool_transactions: u32,
    /// Their bytes.
    #[serde(with = "decimal")]
    pub mempool_bytes: u64,
    /// How far the node's clock is ahead of the median of its peers' clocks, milliseconds; negative if it is behind, null with
    /// fewer than three peers.
    pub clock_offset_ms: Option<i64>,
    /// Whether enough validators are heard for blocks to become final.
    pub quorum: QuorumInfo,
}

/// Whether enough validators are heard for blocks to become final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuorumInfo {
    /// False once a height has lasted three rounds or 10 s without votes of a quorum being heard.
    pub ok: bool,
    /// Validators that are not heard: their names in the genesis, else their keys. Empty while `ok`.
    pub missing: Vec<String>,
    /// When that height began, milliseconds since 1970; null while `ok`.
    #[serde(with = "decimal_option")]
    pub since_ms: Option<u64>,
}

/// The last final block, as anybody can verify it from the genesis validators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Canonical bytes of the header, hex.
    pub header: String,
    /// Canonical bytes of its certificate, hex.
    pub certificate: String,
}

/// A final block in short.
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
    /// Bytes of the block.
    #[serde(with = "decimal")]
    pub bytes: u64,
}

/// A final block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockInfo {
    /// In short.
    #[serde(flatten)]
    pub summary: BlockSummary,
    /// Hash of the block before.
    pub parent: String,
    /// Header version.
    pub version: u16,
    /// Root over the transactions.
    pub transactions_root: String,
    /// Accounts after it.
    pub state_root: String,
    /// Sealed history before it.
    pub history_root: String,
    /// Round it was decided in.
    pub round: u32,
    /// Consensus keys of those whose precommits made it final.
    pub signers: Vec<String>,
    /// In order.
    pub transaction_list: Vec<TransactionInfo>,
    /// Canonical bytes of the block, hex, if they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
}

/// A transaction as people read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionInfo {
    /// Name.
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
    /// Latest block time, milliseconds since 1970.
    #[serde(with = "decimal")]
    pub expires_at: u64,
    /// Memo bytes, hex.
    pub memo: String,
    /// Encoded size.
    pub bytes: u32,
}

/// One payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputInfo {
    /// Address of the recipient.
    pub address: String,
    /// Base units.
    #[serde(with = "decimal")]
    pub amount: u64,
}

/// Answer to a submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// Name of the transaction.
    pub id: String,
    /// `pending`, or `final` if this very transaction is in a block already: by its name, whatever its signature.
    pub status: TxStatus,
    /// Height of its block, when final.
    #[serde(with = "decimal_option")]
    pub height: Option<u64>,
}

/// What a node can say about a transaction.
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
    /// Name.
    pub id: String,
    /// Status.
    pub status: TxStatus,
    /// Height of its block, when final.
    #[serde(with = "decimal_option")]
    pub height: Option<u64>,
    /// Hash of its block, when final.
    pub block_hash: Option<String>,
    /// Place in the block, when final.
    pub index: Option<u32>,
    /// When this node took it in, by its own clock, milliseconds since 1970; only for recent ones.
    #[serde(with = "decimal_option")]
    pub accepted_at: Option<u64>,
    /// When this node had it final and durable, likewise.
    #[serde(with = "decimal_option")]
    pub final_at: Option<u64>,
    /// The transaction.
    pub transaction: Option<TransactionInfo>,
    /// Its canonical bytes, hex, if they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
}

/// A final transaction with all that is needed to believe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxProofInfo {
    /// Name.
    pub id: String,
    /// Height of its block.
    #[serde(with = "decimal")]
    pub height: u64,
    /// Canonical bytes of the transaction, hex.
    pub raw: String,
    /// Canonical bytes of the `MerkleProof` of its full hash under the header's `transactions_root`, hex.
    pub inclusion: String,
    /// Canonical bytes of the header, hex.
    pub header: String,
    /// Canonical bytes of its certificate, hex.
    pub certificate: String,
}

/// Waiting transactions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MempoolInfo {
    /// How many.
    pub transactions: u32,
    /// Their bytes.
    #[serde(with = "decimal")]
    pub bytes: u64,
    /// Some of them.
    pub list: Vec<TransactionInfo>,
}

/// An account as of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountInfo {
    /// Address.
    pub address: String,
    /// Base units.
    #[serde(with = "decimal")]
    pub balance: u64,
    /// Nonce of its next transaction.
    #[serde(with = "decimal")]
    pub nonce: u64,
    /// Nonce after those of its transactions that wait in this node's mempool.
    #[serde(with = "decimal")]
    pub pending_nonce: u64,
    /// Height of the block.
    #[serde(with = "decimal")]
    pub height: u64,
}

/// An account with all that is needed to believe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountProofInfo {
    /// Header and certificate it is proved under.
    pub head: Head,
    /// Canonical bytes of the account proof, hex.
    pub proof: String,
    /// Nonce after those of its transactions that wait in this node's mempool. Not proved.
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
    /// Address fees go to.
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
    /// Address it is connected by.
    pub address: String,
    /// Whether it dialled us.
    pub inbound: bool,
    /// What it says of itself.
    pub agent: String,
    /// Last round trip in microseconds.
    pub ping_us: Option<u32>,
    /// Certified height it last told, if any.
    #[serde(with = "decimal_option")]
    pub height: Option<u64>,
    /// Bytes sent to it since it was connected, encrypted.
    #[serde(with = "decimal")]
    pub sent_bytes: u64,
    /// Bytes received from it since it was connected, encrypted.
    #[serde(with = "decimal")]
    pub received_bytes: u64,
    /// Its cost account.
    pub cost: PeerCost,
}

/// What a peer has made the node do, in microseconds by a table of constants, not by measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCost {
    /// What is left of its budget; below zero while it is in debt.
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
    /// Messages ignored and requests refused for want of budget.
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

/// What sync is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncState {
    /// Nothing to fetch is known, and nobody is there who would know.
    Idle,
    /// A certified height is known, and not yet which segments lead there.
    Manifest,
    /// Chunks are missing.
    Chunks,
    /// All known chunks are here; blocks are verified and applied.
    Applying,
    /// Blocks after the last sealed segment are fetched by ranges.
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

/// What sync is doing. Counts of chunks and bytes are since the start of the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncStatus {
    /// What it is at.
    pub state: SyncState,
    /// Highest height that is proved here.
    #[serde(with = "decimal")]
    pub target_height: u64,
    /// Height of the last block that is applied and durable.
    #[serde(with = "decimal")]
    pub applied_height: u64,
    /// Segments applied.
    #[serde(with = "decimal")]
    pub segments: u64,
    /// Segments known.
    #[serde(with = "decimal")]
    pub segments_total: u64,
    /// Chunks to fetch, with those that an earlier run left.
    #[serde(with = "decimal")]
    pub chunks_total: u64,
    /// Those of them that are here, each proved by its hash, or were applied.
    #[serde(with = "decimal")]
    pub chunks_verified: u64,
    /// Bytes of the chunks to fetch.
    #[serde(with = "decimal")]
    pub bytes_total: u64,
    /// Bytes of those that are here or were applied.
    #[serde(with = "decimal")]
    pub bytes_verified: u64,
    /// Bytes of chunks that came from peers, good or not.
    #[serde(with = "decimal")]
    pub fetched_bytes: u64,
    /// Bytes of those that were here already.
    #[serde(with = "decimal")]
    pub duplicate_bytes: u64,
    /// Bytes of chunks sent to peers.
    #[serde(with = "decimal")]
    pub served_bytes: u64,
    /// Bytes a second that are verified, lately; null when nothing comes, and in the first two seconds.
    #[serde(with = "decimal_option")]
    pub rate: Option<u64>,
    /// Milliseconds until all known chunks are here, if the rate stays; null without one.
    #[serde(with = "decimal_option")]
    pub eta_ms: Option<u64>,
    /// Why there is no progress, if there is none.
    pub reason: Option<String>,
    /// When all known chunks were here, milliseconds since 1970; null while some are missing.
    #[serde(with = "decimal_option")]
    pub verified_at_ms: Option<u64>,
    /// When the last fetched block was applied and durable, milliseconds since 1970; null while some are missing.
    #[serde(with = "decimal_option")]
    pub applied_at_ms: Option<u64>,
    /// Peers banned for what they sent.
    #[serde(with = "decimal")]
    pub bans: u64,
    /// Peers with a link for chunks.
    pub peers: Vec<SyncPeer>,
    /// Segments that are fetched or wait to be applied.
    pub segment_list: Vec<SyncSegment>,
}

/// A peer that history is exchanged with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncPeer {
    /// libp2p peer id.
    pub peer: String,
    /// Its last final block when it came, or last sealed a segment, by its word.
    #[serde(with = "decimal")]
    pub height: u64,
    /// It has all segments before this one, by its word.
    #[serde(with = "decimal")]
    pub segments: u64,
    /// Chunks of later segments that it has, by its word.
    #[serde(with = "decimal")]
    pub partial_chunks: u64,
    /// Chunks asked of it that have not come.
    #[serde(with = "decimal")]
    pub in_flight: u64,
    /// Bytes of chunks from it.
    #[serde(with = "decimal")]
    pub fetched_bytes: u64,
    /// Bytes a second from it, lately.
    #[serde(with = "decimal")]
    pub fetch_rate: u64,
    /// Bytes of chunks to it.
    #[serde(with = "decimal")]
    pub served_bytes: u64,
    /// Bytes a second to it, lately.
    #[serde(with = "decimal")]
    pub serve_rate: u64,
}

/// A segment that is fetched or waits to be applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncSegment {
    /// Place in history, from 0.
    #[serde(with = "decimal")]
    pub index: u64,
    /// Its chunks.
    #[serde(with = "decimal")]
    pub chunks: u64,
    /// Those that are here.
    #[serde(with = "decimal")]
    pub verified: u64,
    /// All its chunks are here and all signatures in them verified.
    pub assembled: bool,
    /// One bit for each chunk, set if it is here; the first is the lowest bit of the first byte. Hex.
    pub holdings: String,
}

/// Codes of errors beyond those of JSON-RPC 2.0 itself.
pub mod code {
    /// A transaction was refused; `data.reason` says why.
    pub const REJECTED: i32 = -32_000;
    /// The named block, transaction or account is not known here.
    pub const NOT_FOUND: i32 = -32_001;
    /// The mempool is full for this fee.
    pub const MEMPOOL_FULL: i32 = -32_002;
    /// The node is stopping or overloaded; try again.
    pub const UNAVAILABLE: i32 = -32_003;
    /// The caller's address has spent its budget; `data.retry_after_ms` says when there is some again.
    pub const OVER_BUDGET: i32 = -32_004;
}

/// The `data` of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorData {
    /// Stable word for programs, such as `nonce_used`.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
    /// Milliseconds after which the same call may be taken, if waiting is all that it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
}
