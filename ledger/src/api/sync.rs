//! The progress of sync.

use serde::{Deserialize, Serialize};

use super::{decimal, decimal_option};

/// What sync is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncState {
    /// The node cannot know whether it has all blocks: no peer is connected, or none has proved a
    /// height.
    #[default]
    Idle,
    /// A certified height is known, but not yet the segments up to it.
    Manifest,
    /// Chunks of known segments are missing.
    Chunks,
    /// This node has all known chunks, and verifies and applies their blocks.
    Applying,
    /// A snapshot of the state is chosen, fetched or loaded. The node has no blocks yet.
    Snapshot,
    /// Blocks are fetched in ranges: those after the last sealed segment, or the few by which this
    /// node is behind.
    Tail,
    /// No peer has proved a height that this node has not reached. Consensus follows the network.
    Live,
}

impl std::fmt::Display for SyncState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Manifest => "manifest",
            Self::Chunks => "chunks",
            Self::Applying => "applying",
            Self::Snapshot => "snapshot",
            Self::Tail => "tail",
            Self::Live => "live",
        })
    }
}

/// Progress of sync. Chunks and bytes are counted from the start of the process, for the segments
/// that this process has fetched or has to fetch. In the state `snapshot` they are those of the
/// snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncStatus {
    /// What sync is doing.
    pub state: SyncState,
    /// Highest certified height that this node knows of.
    #[serde(with = "decimal")]
    pub target_height: u64,
    /// Height of the last block that is applied and durable.
    #[serde(with = "decimal")]
    pub applied_height: u64,
    /// Number of sealed segments that are applied.
    #[serde(with = "decimal")]
    pub segments: u64,
    /// Number of sealed segments that are applied, or known by a proved manifest.
    #[serde(with = "decimal")]
    pub segments_total: u64,
    /// Number of chunks of these segments, including chunks that an earlier run has stored.
    #[serde(with = "decimal")]
    pub chunks_total: u64,
    /// Number of these chunks that are stored, each verified by its hash, or applied.
    #[serde(with = "decimal")]
    pub chunks_verified: u64,
    /// Bytes of all chunks that `chunks_total` counts.
    #[serde(with = "decimal")]
    pub bytes_total: u64,
    /// Bytes of the chunks that `chunks_verified` counts.
    #[serde(with = "decimal")]
    pub bytes_verified: u64,
    /// Bytes of chunks that this node asked for and received, valid or not.
    #[serde(with = "decimal")]
    pub fetched_bytes: u64,
    /// Bytes of received chunks that this node had already or no longer needed.
    #[serde(with = "decimal")]
    pub duplicate_bytes: u64,
    /// Bytes of chunks sent to peers.
    #[serde(with = "decimal")]
    pub served_bytes: u64,
    /// Recent rate of verified chunks, bytes per second. Null except in the states `chunks` and
    /// `snapshot`, in the first two seconds of such a state, and while no chunk arrives.
    #[serde(with = "decimal_option")]
    pub rate: Option<u64>,
    /// Milliseconds until this node has all known chunks, if the rate stays; null without a rate.
    #[serde(with = "decimal_option")]
    pub eta_ms: Option<u64>,
    /// Why there is no progress, if there is none.
    pub reason: Option<String>,
    /// When this node had all known chunks, milliseconds since 1970; null while chunks are missing.
    #[serde(with = "decimal_option")]
    pub verified_at_ms: Option<u64>,
    /// When this node had applied all blocks up to the height that sync aims at, milliseconds since
    /// 1970; null while blocks are missing, or if sync has no such height.
    #[serde(with = "decimal_option")]
    pub applied_at_ms: Option<u64>,
    /// How often sync reported a peer for an offence. Such a peer is disconnected, and for a severe
    /// offence banned.
    #[serde(with = "decimal")]
    pub bans: u64,
    /// Peers with which chunks can be exchanged.
    pub peers: Vec<SyncPeer>,
    /// Segments that are being fetched or wait to be applied.
    pub segment_list: Vec<SyncSegment>,
    /// Who supplied the last 1,024 applied segments, in order and without gaps. A node of an older
    /// version leaves this out.
    #[serde(default)]
    pub suppliers: Vec<SupplierRun>,
}

/// Applied segments, one after the other, that the same peer supplied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupplierRun {
    /// Index of the first segment.
    #[serde(with = "decimal")]
    pub first: u64,
    /// Number of segments.
    #[serde(with = "decimal")]
    pub segments: u64,
    /// libp2p id of the peer that sent most of the chunks of each of them; null if no peer sent any
    /// since the start of the process.
    pub peer: Option<String>,
}

/// A peer with which history is exchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncPeer {
    /// libp2p peer id.
    pub peer: String,
    /// Height of the peer's last final block, as it said when it connected or last sealed a
    /// segment.
    #[serde(with = "decimal")]
    pub height: u64,
    /// The peer says that it has all segments before this index.
    #[serde(with = "decimal")]
    pub segments: u64,
    /// Number of chunks that the peer says it has of segments from this index on.
    #[serde(with = "decimal")]
    pub partial_chunks: u64,
    /// Number of chunks in flight: requested from the peer, and not received yet.
    #[serde(with = "decimal")]
    pub in_flight: u64,
    /// Bytes of chunks received from the peer.
    #[serde(with = "decimal")]
    pub fetched_bytes: u64,
    /// Recent rate at which chunks arrive from the peer, bytes per second; 0 while no chunk is in
    /// flight.
    #[serde(with = "decimal")]
    pub fetch_rate: u64,
    /// Bytes of chunks sent to the peer.
    #[serde(with = "decimal")]
    pub served_bytes: u64,
    /// Recent rate at which chunks are sent to the peer, bytes per second; 0 while it wants no
    /// chunk.
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
    /// Number of its chunks that this node has.
    #[serde(with = "decimal")]
    pub verified: u64,
    /// Whether this node has all its chunks and has verified all signatures in them.
    pub assembled: bool,
    /// Bitmap in hex: one bit for each chunk, set if this node has the chunk. The first chunk has
    /// the lowest bit of the first byte.
    pub holdings: String,
    /// libp2p id of the peer that sent most of its chunks so far; null if no peer sent any since
    /// the start of the process. A node of an older version leaves this out.
    #[serde(default)]
    pub supplier: Option<String>,
}
