//! What sync is doing, for display.

use std::time::Duration;

use ledger::history::{HistoryRules, SegmentDescriptor};
use ledger::units::{Height, SegmentIndex};

use super::Swarm;
use super::history::assembly::Step;
use super::meter::{Meter, time_for};
use super::segments::Segment;
use super::supplier::Supplier;
use crate::ids::PeerId;
use crate::message::BEHIND_FAR;

/// Sync counts as stalled after this time without a chunk, or after the time of four chunks at the
/// last rate if that is longer.
const QUIET: Duration = Duration::from_secs(5);

/// Chunks and bytes of the segments in the manifests of this run: all of them, and those here.
#[derive(Debug, Default)]
pub(super) struct Progress {
    chunks_total: u64,
    bytes_total: u64,
    chunks: u64,
    bytes: u64,
    /// When the last missing chunk of all known segments arrived.
    pub(super) fetched_at: Option<Duration>,
    last_chunk_at: Option<Duration>,
    /// At low rates chunks arrive in bursts. An average over at least 16 of them keeps the rate
    /// steady.
    meter: Meter<16>,
}

impl Progress {
    pub(super) fn extend(&mut self, descriptors: &[SegmentDescriptor], rules: &HistoryRules) {
        for descriptor in descriptors {
            self.chunks_total = self.chunks_total.saturating_add(descriptor.chunk_count(rules));
            self.bytes_total = self.bytes_total.saturating_add(descriptor.bytes);
        }
    }

    pub(super) fn on_found(
        &mut self,
        chunks: u64,
        descriptor: &SegmentDescriptor,
        rules: &HistoryRules,
    ) {
        self.chunks = self.chunks.saturating_add(chunks);
        self.bytes = self
            .bytes
            .saturating_add(chunks.saturating_mul(rules.chunk_bytes).min(descriptor.bytes));
    }

    pub(super) fn on_chunk(&mut self, bytes: u64, now: Duration) {
        self.chunks = self.chunks.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        // The time since the chunk before is measured, so the first chunk is not counted.
        if let Some(since) = self.last_chunk_at.replace(now) {
            self.meter.add(bytes, now.saturating_sub(since));
        }
    }

    pub(super) fn on_lost(&mut self, bytes: u64) {
        self.chunks = self.chunks.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.fetched_at = None;
    }
}

/// The stage of sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// The tip has reached the highest header that sync was told of, or sync was told of none.
    #[default]
    Idle,
    /// The segments up to a certified height far above the tip are not known, and a peer was asked
    /// for them.
    Manifest,
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
    /// It has all segments before this one, as it claims.
    pub sealed: u64,
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
    /// Times that a peer was disconnected or banned for an offence.
    pub bans: u64,
}

impl Swarm {
    /// What sync is doing now.
    #[must_use]
    pub fn report(&self) -> SyncReport {
        let (fetched_bytes, duplicate_bytes) = self.downloads.totals();
        let stage = self.stage();
        let segments = self.downloads.segments().iter().map(|segment| SegmentReport {
            index: segment.index(),
            chunks: segment.chunks(),
            verified: segment.chunks().saturating_sub(segment.missing()),
            is_assembled: self.is_assembled(segment.index()),
            here: segment.here().clone(),
        });
        let peers = self.census.peers().map(|(peer, holdings)| {
            let supplier = self.downloads.supplier(peer);
            let busy = supplier.filter(|supplier| supplier.in_flight() > 0);
            let fetch_rate = busy.and_then(|supplier| supplier.rate(self.now));
            let (served_bytes, serve_rate) = self.uploads.show(peer);
            PeerReport {
                peer,
                height: holdings.height,
                sealed: holdings.sealed.0,
                partial_chunks: holdings.partial_chunks(),
                in_flight: supplier.map_or(0, Supplier::in_flight),
                fetched_bytes: supplier.map_or(0, Supplier::fetched_bytes),
                fetch_rate: fetch_rate.unwrap_or(0),
                served_bytes,
                serve_rate,
            }
        });
        let Progress { chunks_total, bytes_total, chunks, bytes, fetched_at, meter, .. } =
            &self.progress;
        SyncReport {
            stage,
            tip: self.tip,
            target: self.source.target_height(),
            sealed: self.sealed.0,
            segments_total: self.source.manifest().segments(),
            chunks_total: *chunks_total,
            chunks_verified: *chunks,
            bytes_total: *bytes_total,
            bytes_verified: *bytes,
            fetched_bytes,
            duplicate_bytes,
            served_bytes: self.uploads.served_bytes(),
            rate: meter.rate().filter(|_| stage == Stage::Chunks),
            fetched_at: *fetched_at,
            reason: self.reason(stage),
            segments: segments.collect(),
            peers: peers.collect(),
            bans: self.bans,
        }
    }

    /// Whether all blocks of a segment are verified.
    fn is_assembled(&self, segment: SegmentIndex) -> bool {
        matches!(self.steps.get(&segment), Some(Step::Assembled | Step::Applying))
    }

    fn stage(&self) -> Stage {
        let lag = self.source.target_height().0.saturating_sub(self.tip.0);
        let has_segments = self.plan.segments().is_some();
        if self.is_fetching() || (has_segments && self.downloads.segments().is_empty()) {
            Stage::Chunks
        } else if has_segments {
            Stage::Applying
        } else if lag > BEHIND_FAR && self.source.is_asking() {
            Stage::Manifest
        } else if lag > 0 {
            Stage::Tail
        } else {
            Stage::Idle
        }
    }

    /// Why no chunk arrives.
    fn reason(&self, stage: Stage) -> Option<String> {
        if !matches!(stage, Stage::Manifest | Stage::Chunks) {
            return None;
        }
        if self.census.peers().next().is_none() {
            return Some("no peer that serves history is connected".to_owned());
        }
        if stage == Stage::Manifest {
            return Some(format!(
                "no connected peer has sent the manifest of height {} yet",
                self.source.target_height()
            ));
        }
        let segments = self.downloads.segments();
        let Some(first) = segments.iter().find(|segment| segment.missing() > 0) else {
            return Some(
                "no connected peer has sent the heads of the next segments yet".to_owned(),
            );
        };
        let segment = first.index();
        let is_held = |chunk| self.census.peers().any(|(_, holdings)| holdings.has(chunk));
        let unheld = segments.iter().flat_map(Segment::missing_chunks).all(|chunk| !is_held(chunk));
        if unheld {
            return Some(format!("no connected peer has the missing chunks of segment {segment}"));
        }
        let rate = self.progress.meter.rate();
        let patience = rate.map_or(QUIET, |rate| {
            QUIET.max(time_for(self.rules.chunk_bytes.saturating_mul(4), rate))
        });
        let quiet =
            self.progress.last_chunk_at.is_none_or(|at| self.now.saturating_sub(at) > patience);
        quiet.then(|| {
            format!("the peers that have the missing chunks of segment {segment} do not send them")
        })
    }
}
