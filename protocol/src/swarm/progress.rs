//! How much of what is fetched is here, for display.

use std::time::Duration;

use ledger::history::{HistoryRules, SegmentDescriptor};
use ledger::snapshot::Frontier;

use super::meter::Meter;

/// Chunks and bytes of the segments in the manifests of this run, or of a snapshot: all of them,
/// and those here.
#[derive(Debug, Default)]
pub(in crate::swarm) struct Progress {
    pub(in crate::swarm) chunks_total: u64,
    pub(in crate::swarm) bytes_total: u64,
    pub(in crate::swarm) chunks: u64,
    pub(in crate::swarm) bytes: u64,
    /// When the last missing chunk of all known segments arrived.
    pub(in crate::swarm) fetched_at: Option<Duration>,
    pub(in crate::swarm) last_chunk_at: Option<Duration>,
    /// At low rates chunks arrive in bursts. An average over at least 16 of them keeps the rate
    /// steady.
    pub(in crate::swarm) meter: Meter<16>,
}

impl Progress {
    /// Nothing of a snapshot is here.
    pub(in crate::swarm) fn of(frontier: &Frontier) -> Self {
        let chunks_total = frontier.chunk_count();
        let last = chunks_total.checked_sub(1).and_then(|last| frontier.chunk_range(last));
        Self { chunks_total, bytes_total: last.map_or(0, |last| last.end), ..Self::default() }
    }

    pub(in crate::swarm) fn extend(
        &mut self,
        descriptors: &[SegmentDescriptor],
        rules: &HistoryRules,
    ) {
        for descriptor in descriptors {
            self.chunks_total = self.chunks_total.saturating_add(descriptor.chunk_count(rules));
            self.bytes_total = self.bytes_total.saturating_add(descriptor.bytes);
        }
    }

    pub(in crate::swarm) fn on_found(
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

    pub(in crate::swarm) fn on_chunk(&mut self, bytes: u64, now: Duration) {
        self.chunks = self.chunks.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        // The time since the chunk before is measured, so the first chunk is not counted.
        if let Some(since) = self.last_chunk_at.replace(now) {
            self.meter.add(bytes, now.saturating_sub(since));
        }
    }

    pub(in crate::swarm) fn on_lost(&mut self, bytes: u64) {
        self.chunks = self.chunks.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.fetched_at = None;
    }
}
