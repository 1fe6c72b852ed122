//! Made networks for the tests of the screen.

use std::time::Duration;

use ledger::api::{QuorumInfo, Status, SupplierRun, SyncPeer, SyncSegment, SyncState, SyncStatus};

use crate::testnet::overview::{
    AccountView, BlockView, LoadView, LogLine, NodeView, Overview, State,
};

/// The time at which the samples are looked at, in milliseconds since 1970.
pub(super) const NOW_MS: u64 = 1_795_000_000_000;

pub(super) fn status(height: u64) -> Status {
    Status {
        chain_id: "1c631d81".repeat(8),
        network: "local".to_owned(),
        version: "0.1.0".to_owned(),
        height,
        time: NOW_MS - 400,
        peers: 3,
        mempool_transactions: 12,
        mempool_bytes: 2_400,
        clock_offset_ms: Some(3),
        quorum: QuorumInfo { ok: true, ..QuorumInfo::default() },
        last_block_age_ms: Some(400),
        uptime_ms: 192_000,
        disk_bytes: 1_250_304,
        ..Status::default()
    }
}

pub(super) fn sync(state: SyncState, segments: u64) -> SyncStatus {
    SyncStatus {
        state,
        target_height: 1_234,
        applied_height: 1_234,
        segments,
        segments_total: segments,
        ..SyncStatus::default()
    }
}

fn node(position: usize, count: usize) -> NodeView {
    NodeView {
        name: format!("node{}", position + 1),
        validator: true,
        state: State::Running,
        pid: Some(4_000 + u32::try_from(position).unwrap_or(0)),
        rpc: format!("http://127.0.0.1:{}", 7_701 + 10 * position),
        peer_id: peer_id(position),
        status: Some(status(1_234)),
        sync: Some(sync(SyncState::Live, 8)),
        peers: (0..count).filter(|other| *other != position).collect(),
        memory_bytes: Some(20_132_659),
    }
}

fn peer_id(position: usize) -> String {
    format!("12D3KooW{position}")
}

/// Four validators that run.
pub(super) fn four() -> Overview {
    many(4)
}

/// This many validators that run.
pub(super) fn many(count: usize) -> Overview {
    let account = |name: &str, balance: &str| AccountView {
        name: name.to_owned(),
        address: format!("crn1{}{name}", "q0".repeat(24)),
        balance: balance.to_owned(),
    };
    let block = |back: u64| BlockView {
        height: 1_234 - back,
        time: NOW_MS - 400 - back * 500,
        transfers: 25,
        proposer: format!("node{}", 1 + back % 4),
        finality: Some(Duration::from_millis(187 + back)),
    };
    let line = |at: usize| LogLine {
        node: at % count.max(1),
        text: match at % 5 {
            0 => format!("2026-11-18T11:06:{:02}.123456Z  WARN a peer is slow, line {at}", at % 60),
            _ => format!(
                "2026-11-18T11:06:{:02}.123456Z  INFO a height is final, line {at}",
                at % 60
            ),
        },
    };
    Overview {
        chain: "1c631d81".repeat(8),
        uptime: Duration::from_secs(192),
        nodes: (0..count).map(|position| node(position, count)).collect(),
        accounts: vec![
            account("alice", "1,000,010 CRN"),
            account("bob", "999,874.125 CRN"),
            account("carol", "999,991.5 CRN"),
            account("dave", "1,000,000 CRN"),
        ],
        blocks: (0..64).map(block).collect(),
        rate: 50,
        log: (0..40).map(line).collect(),
        ..Overview::default()
    }
}

/// Four validators with cuts, latency, a load and a dead node, and a full node that fetches
/// history.
pub(super) fn syncing() -> Overview {
    let mut overview = many(5);
    overview.cut = vec![(0, 2), (0, 3), (1, 2), (1, 3)];
    overview.latency = vec![(0, 1, 100)];
    overview.load =
        Some(LoadView { per_second: 50, sent: 12_345, final_: 12_300, p50_ms: 387, p99_ms: 1_204 });
    overview.notes.push_back("node4 was killed".to_owned());
    let dead = &mut overview.nodes[3];
    dead.state = State::Killed;
    (dead.pid, dead.status, dead.sync, dead.memory_bytes) = (None, None, None, None);
    dead.peers.clear();
    let full = &mut overview.nodes[4];
    full.validator = false;
    full.status = Some(Status { syncing: true, peers: 4, clock_offset_ms: None, ..status(310) });
    full.sync = Some(fetching());
    overview
}

fn fetching() -> SyncStatus {
    let run = |first, segments, peer: Option<String>| SupplierRun { first, segments, peer };
    let segment = |index, verified, supplier: Option<String>| SyncSegment {
        index,
        chunks: 17,
        verified,
        assembled: false,
        holdings: "ff01".to_owned(),
        supplier,
    };
    let peer = |position, fetch_rate| SyncPeer {
        peer: peer_id(position),
        height: 1_234,
        segments: 20,
        partial_chunks: 0,
        in_flight: 4,
        fetched_bytes: 1_000_000,
        fetch_rate,
        served_bytes: 0,
        serve_rate: 0,
    };
    SyncStatus {
        segments_total: 20,
        chunks_total: 340,
        chunks_verified: 160,
        rate: Some(4_812_345),
        eta_ms: Some(12_001),
        suppliers: vec![
            run(0, 1, None),
            run(1, 3, Some(peer_id(0))),
            run(4, 2, Some(peer_id(1))),
            run(6, 1, Some(peer_id(2))),
            run(7, 1, Some("12D3KooWStranger".to_owned())),
        ],
        segment_list: vec![
            segment(8, 9, Some(peer_id(2))),
            segment(9, 3, Some(peer_id(1))),
            segment(10, 2, None),
            segment(11, 0, None),
        ],
        peers: vec![peer(0, 2_000_000), peer(1, 2_812_345)],
        ..sync(SyncState::Chunks, 8)
    }
}
