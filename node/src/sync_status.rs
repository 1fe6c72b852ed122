//! The progress of sync, in the shapes of RPC. The progress bar shows the same numbers.

use ledger::api::{SyncPeer, SyncSegment, SyncState, SyncStatus};
use protocol::swarm::{PeerReport, SegmentReport, Stage, SyncReport};

use crate::view::{SyncView, View};

/// The status of sync. `now_ms` is in milliseconds since 1970.
pub(crate) fn sync_status(view: &View, now_ms: u64) -> SyncStatus {
    let sync = view.sync.borrow().clone();
    let activity = *view.activity.borrow();
    let applied = view.tip.borrow().state.tip().height;
    let ignorance = view.ignorance();
    let state = match sync.report.stage {
        Stage::Manifest => SyncState::Manifest,
        Stage::Chunks => SyncState::Chunks,
        Stage::Applying => SyncState::Applying,
        Stage::Tail => SyncState::Tail,
        // A node that is only a few blocks behind fetches them without the sync machine.
        Stage::Idle if activity.syncing => SyncState::Tail,
        Stage::Idle if ignorance.is_some() => SyncState::Idle,
        Stage::Idle => SyncState::Live,
    };
    let (rate, eta_ms) = (sync.rate(now_ms), sync.eta_ms(now_ms));
    let SyncView { report, peers: ids, verified_at_ms, applied_at_ms, .. } = &*sync;
    let SyncReport {
        sealed,
        segments_total,
        chunks_total,
        chunks_verified,
        bytes_total,
        bytes_verified,
        ..
    } = *report;
    let SyncReport { fetched_bytes, duplicate_bytes, served_bytes, bans, .. } = *report;
    let idle_reason = ignorance.filter(|_| state == SyncState::Idle).map(str::to_owned);
    SyncStatus {
        state,
        target_height: report.target.max(activity.best_peer_height).max(applied).0,
        applied_height: applied.0,
        segments: sealed,
        segments_total,
        chunks_total,
        chunks_verified,
        bytes_total,
        bytes_verified,
        fetched_bytes,
        duplicate_bytes,
        served_bytes,
        rate,
        eta_ms,
        reason: report.reason.clone().or(idle_reason),
        verified_at_ms: *verified_at_ms,
        applied_at_ms: *applied_at_ms,
        bans,
        // A peer without an id has just disconnected.
        peers: report
            .peers
            .iter()
            .filter_map(|peer| Some(sync_peer(ids.get(&peer.peer)?, peer)))
            .collect(),
        segment_list: report.segments.iter().map(sync_segment).collect(),
    }
}

fn sync_peer(id: &str, peer: &PeerReport) -> SyncPeer {
    SyncPeer {
        peer: id.to_owned(),
        height: peer.height.0,
        segments: peer.sealed,
        partial_chunks: peer.partial_chunks,
        in_flight: peer.in_flight,
        fetched_bytes: peer.fetched_bytes,
        fetch_rate: peer.fetch_rate,
        served_bytes: peer.served_bytes,
        serve_rate: peer.serve_rate,
    }
}

fn sync_segment(segment: &SegmentReport) -> SyncSegment {
    let mut holdings = vec![0; segment.here.bytes()];
    for chunk in segment.here.ones() {
        holdings[chunk as usize / 8] |= 1u8 << (chunk % 8);
    }
    SyncSegment {
        index: segment.index.0,
        chunks: segment.chunks,
        verified: segment.verified,
        assembled: segment.is_assembled,
        holdings: hex::encode(holdings),
    }
}
