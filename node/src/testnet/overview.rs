//! What a local network looks like at one moment. The supervisor fills it, and the screen draws it.

use std::collections::VecDeque;
use std::time::Duration;

/// All that is shown of a network.
#[derive(Clone, Debug, Default)]
pub(super) struct Overview {
    pub(super) chain: String,
    pub(super) uptime: Duration,
    pub(super) nodes: Vec<NodeView>,
    /// Pairs of positions in `nodes` whose links are cut, the lower first.
    pub(super) cut: Vec<(usize, usize)>,
    /// Pairs of positions in `nodes` with a latency, in milliseconds each way.
    pub(super) latency: Vec<(usize, usize, u32)>,
    pub(super) accounts: Vec<AccountView>,
    /// The last blocks, the newest first, at most 64.
    pub(super) blocks: VecDeque<BlockView>,
    pub(super) load: Option<LoadView>,
    /// Transfers made final a second, on average over the last 5 s.
    pub(super) rate: u64,
    /// The end of all logs, the newest last, at most 1,000 lines.
    pub(super) log: VecDeque<LogLine>,
    /// What the network did or why it refused, for the line above the help, the newest last.
    pub(super) notes: VecDeque<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Starting,
    Running,
    Killed,
    Ended,
}

#[derive(Clone, Debug)]
pub(super) struct NodeView {
    pub(super) name: String,
    pub(super) validator: bool,
    pub(super) state: State,
    pub(super) pid: Option<u32>,
    pub(super) rpc: String,
    pub(super) peer_id: String,
    /// `None` while it does not answer.
    pub(super) status: Option<ledger::api::Status>,
    pub(super) sync: Option<ledger::api::SyncStatus>,
    /// Positions in `nodes` of the peers that it is connected to.
    pub(super) peers: Vec<usize>,
    pub(super) memory_bytes: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct AccountView {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) balance: String,
}

#[derive(Clone, Debug)]
pub(super) struct BlockView {
    pub(super) height: u64,
    /// Milliseconds since 1970.
    pub(super) time: u64,
    pub(super) transfers: u32,
    /// Name of the node that proposed it.
    pub(super) proposer: String,
    /// From the block's time to the moment when the first node reported it final.
    pub(super) finality: Option<Duration>,
}

#[derive(Clone, Debug)]
pub(super) struct LoadView {
    pub(super) per_second: u32,
    pub(super) sent: u64,
    pub(super) final_: u64,
    pub(super) p50_ms: u64,
    pub(super) p99_ms: u64,
}

#[derive(Clone, Debug)]
pub(super) struct LogLine {
    pub(super) node: usize,
    pub(super) text: String,
}
