//! What sync is doing, for display.

use std::time::Duration;

use ledger::units::{Height, SegmentIndex};

use super::Swarm;
use super::file::FileReport;
use super::history::HISTORY;
use super::meter::time_for;
use super::progress::Progress;
use super::segments::Segment;
use super::supplier::Supplier;
use crate::ids::PeerId;
use crate::message::BEHIND_FAR;

/// Sync counts as stalled after this time without a chunk, or after the time of four chunks at the
/// last rate if that is longer.
const QUIET: Duration = Duration::from_secs(5);

/// The stage of sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// The tip has reached the highest header that sync was told of, or sync was told of none.
    #[default]
    Idle,
    /// The segments up to a certified height far above the tip are not known, and a peer was asked
    /// for them.
    Manifest,
    /// Before anything else, a snapshot is chosen, fetched and loaded. Counts of chunks and bytes
    /// are those of the snapshot.
    Snapshot,
    /// Chunks or heads are missing.
    Chunks,
    /// All chunks are here; their blocks are verified and applied.
    Applying,
    /// The blocks up to the highest certified height are fetched one by one, not as segments.
    Tail,
}

/// A segment that is being fetched or applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    /// The segment.
    pub index: SegmentIndex,
    /// Number of its chunks.
    pub chunks: u64,
    /// Number of its chunks that are here and verified.
    pub verified: u64,
    /// Whether all its blocks are verified, signatures too.
    pub is_assembled: bool,
    /// One bit for each chunk that is here.
    pub here: super::Bits,
}

/// A peer with a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerReport {
    /// The peer.
    pub peer: PeerId,
    /// Its last final block, as it claims.
    pub height: Height,
    /// Number of whole segments of history that it has, as it claims.
    pub segments: u64,
    /// Chunks that it has of other segments, as it claims.
    pub partial_chunks: u64,
    /// Chunks in flight from it.
    pub in_flight: u64,
    /// Bytes of chunks received from it.
    pub fetched_bytes: u64,
    /// Recent rate of chunks from it, in bytes per second; 0 while none is in flight.
    pub fetch_rate: u64,
    /// Bytes of chunks sent to it.
    pub served_bytes: u64,
    /// Recent rate of chunks to it, in bytes per second; 0 while it wants none.
    pub serve_rate: u64,
}

/// The state of sync as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// The stage.
    pub stage: Stage,
    /// Last final block here.
    pub tip: Height,
    /// Highest certified height that sync was told of; it was far above the tip then.
    pub target: Height,
    /// Height of the snapshot that is being fetched or loaded.
    pub snapshot: Option<Height>,
    /// Number of applied segments.
    pub sealed: u64,
    /// Number of segments that are applied or known by a proved manifest.
    pub segments_total: u64,
    /// Number of chunks of all segments in the manifests of this run.
    pub chunks_total: u64,
    /// Number of these chunks that are here or applied.
    pub chunks_verified: u64,
    /// Bytes of all these chunks.
    pub bytes_total: u64,
    /// Bytes of these chunks that are here or applied.
    pub bytes_verified: u64,
    /// Bytes of requested chunks that arrived, good or not.
    pub fetched_bytes: u64,
    /// Bytes of chunks that arrived but were not missing.
    pub duplicate_bytes: u64,
    /// Bytes of chunks sent to peers.
    pub served_bytes: u64,
    /// Bytes of chunks of files that arrived, were missing and good.
    pub fetched_file_bytes: u64,
    /// Bytes of chunks of files sent to peers.
    pub served_file_bytes: u64,
    /// Recent rate of verified chunks, in bytes per second. `None` before the second chunk, and in
    /// stages other than [`Stage::Chunks`].
    pub rate: Option<u64>,
    /// When all known chunks were here, by the clock of the inputs.
    pub fetched_at: Option<Duration>,
    /// Why no chunk arrives, if none does.
    pub reason: Option<String>,
    /// Segments that are fetched or wait to be applied.
    pub segments: Vec<SegmentReport>,
    /// Peers with a link.
    pub peers: Vec<PeerReport>,
    /// Files that are fetched or served.
    pub files: Vec<FileReport>,
    /// Times that a peer was disconnected or banned for an offence.
    pub bans: u64,
}

impl Swarm {
    /// What sync is doing now.
    #[must_use]
    pub fn report(&self) -> SyncReport {
        let (engine, history) = (&self.engine, &self.history);
        let (fetched_bytes, duplicate_bytes) = engine.downloads.totals();
        let stage = self.stage();
        let segments = engine.segments().of(HISTORY).map(|segment| SegmentReport {
            index: segment.id().index,
            chunks: segment.chunks(),
            verified: segment.chunks().saturating_sub(segment.missing()),
            is_assembled: history.is_assembled(segment.id().index),
            here: segment.here().clone(),
        });
        let peers = engine.census.peers().map(|(peer, holdings)| {
            let supplier = engine.downloads.supplier(peer);
            let busy = supplier.filter(|supplier| supplier.in_flight() > 0);
            let fetch_rate = busy.and_then(|supplier| supplier.rate(engine.now));
            let (served_bytes, serve_rate) = engine.uploads.show(peer);
            PeerReport {
                peer,
                height: history.height(peer),
                segments: holdings.whole_segments(HISTORY),
                partial_chunks: holdings.open_chunks(HISTORY),
                in_flight: supplier.map_or(0, Supplier::in_flight),
                fetched_bytes: supplier.map_or(0, Supplier::fetched_bytes),
                fetch_rate: fetch_rate.unwrap_or(0),
                served_bytes,
                serve_rate,
            }
        });
        let snapshot = self.snapshot.progress();
        let (snapshot, progress) = snapshot
            .map_or((None, &history.progress), |(height, progress)| (Some(height), progress));
        let Progress { chunks_total, bytes_total, chunks, bytes, fetched_at, meter, .. } = progress;
        SyncReport {
            stage,
            tip: history.tip,
            target: history.source.target_height(),
            snapshot,
            sealed: history.sealed.0,
            segments_total: history.source.manifest().segments(),
            chunks_total: *chunks_total,
            chunks_verified: *chunks,
            bytes_total: *bytes_total,
            bytes_verified: *bytes,
            fetched_bytes,
            duplicate_bytes,
            served_bytes: engine.uploads.served_bytes(),
            fetched_file_bytes: self.file.fetched_bytes(),
            served_file_bytes: engine.uploads.served_file_bytes(),
            rate: meter.rate().filter(|_| matches!(stage, Stage::Chunks | Stage::Snapshot)),
            fetched_at: *fetched_at,
            reason: self.reason(stage),
            segments: segments.collect(),
            peers: peers.collect(),
            files: self.file.report(engine),
            bans: engine.bans(),
        }
    }

    fn stage(&self) -> Stage {
        let history = &self.history;
        if self.snapshot.is_joining() && history.source.proof().is_some() {
            return Stage::Snapshot;
        }
        let lag = history.source.target_height().0.saturating_sub(history.tip.0);
        let has_segments = history.plan.segments().is_some();
        let segments = self.engine.segments();
        let is_idle = segments.of(HISTORY).next().is_none();
        if !segments.is_complete(HISTORY) || (has_segments && is_idle) {
            Stage::Chunks
        } else if has_segments {
            Stage::Applying
        } else if lag > BEHIND_FAR && history.source.is_asking() {
            Stage::Manifest
        } else if lag > 0 {
            Stage::Tail
        } else {
            Stage::Idle
        }
    }

    /// Why no chunk arrives.
    fn reason(&self, stage: Stage) -> Option<String> {
        if !matches!(stage, Stage::Manifest | Stage::Snapshot | Stage::Chunks) {
            return None;
        }
        if stage == Stage::Snapshot {
            return self.snapshot.reason(&self.engine, QUIET);
        }
        if self.engine.paused_until(HISTORY).is_some() {
            return Some("the disk refused to store a chunk, so fetching pauses".to_owned());
        }
        if self.engine.census.peers().next().is_none() {
            return Some("no peer that serves history is connected".to_owned());
        }
        if stage == Stage::Manifest {
            return Some(format!(
                "no connected peer has sent the manifest of height {} yet",
                self.history.source.target_height()
            ));
        }
        let segments = self.engine.segments();
        let Some(first) = segments.of(HISTORY).find(|segment| segment.missing() > 0) else {
            return Some(
                "no connected peer has sent the heads of the next segments yet".to_owned(),
            );
        };
        let segment = first.id().index;
        let is_held = |chunk| self.engine.census.peers().any(|(_, holdings)| holdings.has(chunk));
        let unheld =
            segments.of(HISTORY).flat_map(Segment::missing_chunks).all(|chunk| !is_held(chunk));
        if unheld {
            return Some(format!("no connected peer has the missing chunks of segment {segment}"));
        }
        let rate = self.history.progress.meter.rate();
        let patience = rate.map_or(QUIET, |rate| {
            QUIET.max(time_for(self.history.chunk_bytes().saturating_mul(4), rate))
        });
        let quiet = self
            .history
            .progress
            .last_chunk_at
            .is_none_or(|at| self.engine.now.saturating_sub(at) > patience);
        quiet.then(|| {
            format!("the peers that have the missing chunks of segment {segment} do not send them")
        })
    }
}
