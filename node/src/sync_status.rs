//! The progress of sync and of older blocks, as RPC sends it. The progress bar shows the same
//! numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::api::{
    HistoryInfo, HistoryPhase, SupplierRun, SyncPeer, SyncSegment, SyncState, SyncStatus,
};
use ledger::units::{Height, SegmentIndex};
use protocol::archive::Keep;
use protocol::swarm::{PeerReport, SegmentReport, Stage, SyncReport};

use crate::config::keep_text;
use crate::view::{SUPPLIERS_MAX, SyncView, View};

/// The status of sync. `now_ms` is in milliseconds since 1970.
pub(crate) fn sync_status(view: &View, now_ms: u64) -> SyncStatus {
    let sync = view.sync.borrow().clone();
    let activity = *view.activity.borrow();
    let applied = view.tip.borrow().state.tip().height;
    let ignorance = view.ignorance();
    let state = match sync.report.stage {
        Stage::Manifest => SyncState::Manifest,
        Stage::Snapshot => SyncState::Snapshot,
        Stage::Chunks => SyncState::Chunks,
        Stage::Applying => SyncState::Applying,
        Stage::Tail => SyncState::Tail,
        // A node that is only a few blocks behind fetches them without the sync machine.
        Stage::Idle if activity.syncing => SyncState::Tail,
        Stage::Idle if ignorance.is_some() => SyncState::Idle,
        Stage::Idle => SyncState::Live,
    };
    let (rate, eta_ms) = (sync.rate(now_ms), sync.eta_ms(now_ms));
    let SyncView { report, peers: ids, suppliers, verified_at_ms, applied_at_ms, .. } = &*sync;
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
        segment_list: report
            .segments
            .iter()
            .map(|segment| sync_segment(segment, suppliers.get(&segment.index)))
            .collect(),
        suppliers: supplier_runs(suppliers, sealed),
    }
}

/// What is here of history, and who checked it. `tip` is the height that the status tells.
pub(crate) fn history_info(view: &View, tip: Height) -> HistoryInfo {
    let store = &view.store;
    let executed = store.executed_to().max(*view.executed.borrow()).min(tip);
    let checked = store.checked_by_hash_to().max(executed).min(tip);
    let archive = view.archive.borrow();
    let phase = match archive.keep {
        Keep::Full if !store.is_whole() => HistoryPhase::Backfill,
        Keep::Full if executed < tip => HistoryPhase::Audit,
        // A node that does not keep everything executes no blocks before its snapshot.
        Keep::Bytes(_) | Keep::Recent(_) if archive.is_fetching || !store.keeps_newest_era() => {
            HistoryPhase::Backfill
        }
        _ => HistoryPhase::Done,
    };
    HistoryInfo {
        keep: keep_text(archive.keep),
        eras: store.kept_eras().into_iter().map(|era| [*era.start(), *era.end()]).collect(),
        phase,
        executed_to: executed.0,
        checked_by_hash_to: checked.0,
        bytes: view.disk.borrow().history,
    }
}

fn sync_peer(id: &str, peer: &PeerReport) -> SyncPeer {
    SyncPeer {
        peer: id.to_owned(),
        height: peer.height.0,
        segments: peer.segments,
        partial_chunks: peer.partial_chunks,
        in_flight: peer.in_flight,
        fetched_bytes: peer.fetched_bytes,
        fetch_rate: peer.fetch_rate,
        served_bytes: peer.served_bytes,
        serve_rate: peer.serve_rate,
    }
}

fn sync_segment(segment: &SegmentReport, supplier: Option<&Arc<str>>) -> SyncSegment {
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
        supplier: supplier.map(|peer| peer.to_string()),
    }
}

/// The suppliers of the last [`SUPPLIERS_MAX`] applied segments. Neighbours with the same supplier
/// are one run. `sealed` is the number of applied segments.
fn supplier_runs(suppliers: &BTreeMap<SegmentIndex, Arc<str>>, sealed: u64) -> Vec<SupplierRun> {
    let mut runs: Vec<SupplierRun> = Vec::new();
    for index in sealed.saturating_sub(SUPPLIERS_MAX as u64)..sealed {
        let peer = suppliers.get(&SegmentIndex(index)).map(|peer| &**peer);
        match runs.last_mut().filter(|run| run.peer.as_deref() == peer) {
            Some(run) => run.segments += 1,
            None => {
                runs.push(SupplierRun { first: index, segments: 1, peer: peer.map(str::to_owned) });
            }
        }
    }
    runs
}
