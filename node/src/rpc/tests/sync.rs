use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::api::{self, SyncState, SyncStatus};
use ledger::file::FileId;
use ledger::history::chunk_hash;
use ledger::units::{Height, SegmentIndex};
use protocol::PeerId;
use protocol::eras::{Era, EraRanges};
use protocol::swarm::{Bits, FileReport, PeerReport, SegmentReport, Stage, SyncReport};
use serde_json::{Value, json};

use super::fixture::{Fixture, PEER};
use crate::clock::wall_ms;
use crate::view::{ArchiveView, ArchiveWork, SUPPLIERS_MAX, SyncView};

/// A peer that supplied a segment and has left.
const OTHER: &str = "12D3KooWAnother";

/// A file of 1,000 bytes, of which these are here.
fn file(id: &[u8], here_bytes: u64) -> FileReport {
    FileReport {
        id: FileId(chunk_hash(id)),
        length: Some(1_000),
        wanted_bytes: 1_000,
        here_bytes,
        served_bytes: 0,
        rate: 0,
        peers: 0,
        holders: 0,
        needs_holders: false,
        is_done: false,
        reason: None,
    }
}

/// The view of a node that is fetching, with a rate measured for this many milliseconds.
fn fetching(measured_ms: u64) -> SyncView {
    let mut here = Bits::new(10);
    for chunk in [0, 3, 9] {
        here.set(chunk);
    }
    let peer = |peer, in_flight| PeerReport {
        peer,
        height: Height(900),
        segments: 7,
        partial_chunks: 5,
        in_flight,
        fetched_bytes: 3_000,
        fetch_rate: 1_000,
        served_bytes: 4_000,
        serve_rate: 2_000,
    };
    let report = SyncReport {
        stage: Stage::Chunks,
        tip: Height(0),
        snapshot: None,
        target: Height(1_000),
        sealed: 2,
        segments_total: 7,
        chunks_total: 40,
        chunks_verified: 23,
        bytes_total: 40_000,
        bytes_verified: 23_000,
        fetched_bytes: 24_000,
        duplicate_bytes: 1_000,
        served_bytes: 4_000,
        fetched_file_bytes: 600,
        served_file_bytes: 700,
        rate: Some(2_000),
        fetched_at: None,
        reason: None,
        segments: vec![SegmentReport {
            index: SegmentIndex(2),
            chunks: 10,
            verified: 3,
            is_assembled: false,
            here,
        }],
        peers: vec![peer(PeerId(1), 4), peer(PeerId(2), 0)],
        files: vec![file(&[1], 500), file(&[2], 0)],
        bans: 1,
    };
    let peers = BTreeMap::from([(PeerId(1), PEER.to_owned())]);
    let suppliers =
        BTreeMap::from([(SegmentIndex(1), OTHER.into()), (SegmentIndex(2), PEER.into())]);
    SyncView { report, peers, suppliers, since_ms: wall_ms() - measured_ms, ..SyncView::default() }
}

async fn ask(fixture: &Fixture) -> SyncStatus {
    serde_json::from_value(fixture.call(api::SYNC_STATUS, json!({})).await.unwrap()).unwrap()
}

#[tokio::test]
async fn all_that_sync_tells_is_in_the_answer() {
    let fixture = Fixture::without_driver(4).await;
    fixture.sync.send_replace(Arc::new(fetching(60_000)));
    let answer = fixture.call(api::SYNC_STATUS, json!({})).await.unwrap();
    let expected = json!({
        "state": "chunks", "target_height": "1000", "applied_height": "0",
        "segments": "2", "segments_total": "7", "chunks_total": "40", "chunks_verified": "23",
        "bytes_total": "40000", "bytes_verified": "23000",
        "fetched_bytes": "24000", "duplicate_bytes": "1000", "served_bytes": "4000",
        "rate": "2000", "eta_ms": "8500",
        "reason": null, "verified_at_ms": null, "applied_at_ms": null, "bans": "1",
        // The other peer has left, so its id is unknown.
        "peers": [{
            "peer": PEER, "height": "900", "segments": "7", "partial_chunks": "5", "in_flight": "4",
            "fetched_bytes": "3000", "fetch_rate": "1000",
            "served_bytes": "4000", "serve_rate": "2000",
        }],
        "segment_list": [{
            "index": "2", "chunks": "10", "verified": "3", "assembled": false, "holdings": "0902",
            "supplier": PEER,
        }],
        "suppliers": [
            { "first": "0", "segments": "1", "peer": null },
            { "first": "1", "segments": "1", "peer": OTHER },
        ],
    });
    assert_eq!(answer, expected);

    let done = SyncView { verified_at_ms: Some(5), applied_at_ms: Some(6), ..SyncView::default() };
    fixture.sync.send_replace(Arc::new(done));
    let status = ask(&fixture).await;
    assert_eq!((status.verified_at_ms, status.applied_at_ms), (Some(5), Some(6)));
}

#[tokio::test]
async fn the_state_is_live_only_when_the_network_is_followed() {
    let quiet = [
        // The number of validators, whether a peer is connected, whether the node is syncing, and
        // the height that the peer has proved. A single validator is a network by itself.
        (1, false, false, 0, SyncState::Live, None),
        (1, true, true, 9, SyncState::Tail, None),
        (4, false, false, 0, SyncState::Idle, Some("no peer is connected")),
        (4, true, false, 0, SyncState::Idle, Some("no connected peer has proved a height yet")),
        (4, true, true, 9, SyncState::Tail, None),
        (4, true, false, 9, SyncState::Live, None),
    ];
    for (validators, peer, syncing, proved, state, reason) in quiet {
        let fixture = Fixture::without_driver(validators).await;
        fixture.activity.send_modify(|activity| {
            activity.syncing = syncing;
            activity.best_peer_height = Height(proved);
        });
        if peer {
            fixture.connect_peer();
        }
        let status = ask(&fixture).await;
        assert_eq!(
            (status.state, status.reason.as_deref()),
            (state, reason),
            "{validators} {peer} {syncing} {proved}"
        );
        assert_eq!((status.applied_height, status.target_height), (0, proved));
        let busy = [
            (Stage::Manifest, SyncState::Manifest),
            (Stage::Chunks, SyncState::Chunks),
            (Stage::Applying, SyncState::Applying),
            (Stage::Tail, SyncState::Tail),
        ];
        for (stage, state) in busy {
            fixture.sync.send_modify(|sync| Arc::make_mut(sync).report.stage = stage);
            let status = ask(&fixture).await;
            assert_eq!((status.state, status.reason), (state, None));
        }
    }
}

#[tokio::test]
async fn the_suppliers_of_the_last_segments_are_told_in_runs() {
    let fixture = Fixture::without_driver(4).await;
    let runs = async |sealed, suppliers: &[(u64, &str)]| {
        let mut view = SyncView::default();
        view.report.sealed = sealed;
        view.suppliers =
            suppliers.iter().map(|(index, peer)| (SegmentIndex(*index), (*peer).into())).collect();
        fixture.sync.send_replace(Arc::new(view));
        let run = |run: api::SupplierRun| (run.first, run.segments, run.peer.unwrap_or_default());
        ask(&fixture).await.suppliers.into_iter().map(run).collect::<Vec<_>>()
    };
    let nobody = String::new;
    assert_eq!(runs(0, &[]).await, []);
    assert_eq!(runs(3, &[]).await, [(0, 3, nobody())]);
    // Segment 5 is not applied yet.
    let supplied = [(1, PEER), (2, PEER), (3, OTHER), (5, OTHER)];
    assert_eq!(
        runs(5, &supplied).await,
        [(0, 1, nobody()), (1, 2, PEER.to_owned()), (3, 1, OTHER.to_owned()), (4, 1, nobody())]
    );
    let most = SUPPLIERS_MAX as u64;
    assert_eq!(
        runs(most + 3, &supplied).await,
        [
            (3, 1, OTHER.to_owned()),
            (4, 1, nobody()),
            (5, 1, OTHER.to_owned()),
            (6, most - 3, nobody())
        ]
    );
}

#[test]
fn a_time_left_needs_a_rate_that_was_measured_and_still_holds() {
    let now = wall_ms();
    let view = |change: fn(&mut SyncReport), measured_ms| {
        let mut view = SyncView { since_ms: now - measured_ms, ..fetching(0) };
        change(&mut view.report);
        (view.rate(now), view.eta_ms(now))
    };
    for (given, expected) in [
        (view(|_| {}, 2_000), (Some(2_000), Some(8_500))),
        (view(|_| {}, 1_999), (None, None)),
        (view(|report| report.rate = None, 9_000), (None, None)),
        (view(|report| report.rate = Some(0), 9_000), (None, None)),
        (view(|report| report.reason = Some("nobody".to_owned()), 9_000), (None, None)),
        (view(|report| report.bytes_verified = 40_000, 9_000), (Some(2_000), Some(0))),
        (
            view(|report| report.bytes_total = u64::MAX, 9_000),
            (Some(2_000), Some(9_223_372_036_854_764_307)),
        ),
    ] {
        assert_eq!(given, expected);
    }
    // The clock was set back.
    assert_eq!(SyncView { since_ms: now + 5, ..fetching(0) }.rate(now), None);
}

#[tokio::test]
async fn metrics_count_what_sync_does() {
    let fixture = Fixture::without_driver(1).await;
    fixture.sync.send_replace(Arc::new(fetching(0)));
    let (_, _, metrics) = fixture.http("GET", "/metrics", &[], "").await;
    for line in [
        "cairn_sync_segments 2",
        "cairn_sync_segments_known 7",
        "cairn_sync_chunks_known 40",
        "cairn_sync_chunks_verified 23",
        "cairn_sync_fetched_bytes_total 24000",
        "cairn_sync_duplicate_bytes_total 1000",
        "cairn_sync_served_bytes_total 4000",
        "cairn_sync_bans_total 1",
        "cairn_files 1",
        "cairn_files_here_bytes 500",
        "cairn_files_fetched_bytes_total 600",
        "cairn_files_served_bytes_total 700",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn metrics_tell_what_the_archive_keeps_and_does() {
    let fixture = Fixture::without_driver(1).await;
    let own = EraRanges::of([0, 1, 2, 7].map(Era));
    let work = ArchiveWork {
        audits_passed: 9,
        audits_failed: 8,
        audits_unanswered: 7,
        eras_fetched: 6,
        eras_dropped: 5,
    };
    fixture.archive.send_replace(Arc::new(ArchiveView { own, work, ..ArchiveView::default() }));
    let (_, _, metrics) = fixture.http("GET", "/metrics", &[], "").await;
    for line in [
        "cairn_history_eras 4",
        "cairn_history_bytes 1000000",
        "cairn_audits_passed_total 9",
        "cairn_audits_failed_total 8",
        "cairn_audits_unanswered_total 7",
        "cairn_history_eras_fetched_total 6",
        "cairn_history_eras_dropped_total 5",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_reason_for_no_progress_is_told() {
    let fixture = Fixture::without_driver(4).await;
    let mut view = fetching(60_000);
    view.report.reason = Some("no connected peer has the missing chunks of segment 2".to_owned());
    fixture.sync.send_replace(Arc::new(view));
    let answer = fixture.call(api::SYNC_STATUS, json!({})).await.unwrap();
    assert_eq!(answer["reason"], "no connected peer has the missing chunks of segment 2");
    assert_eq!((&answer["rate"], &answer["eta_ms"]), (&Value::Null, &Value::Null));
    let refused = fixture.call(api::SYNC_STATUS, json!({"peer": "x"})).await.unwrap_err();
    assert_eq!(refused["data"]["reason"], "invalid_params");
}
