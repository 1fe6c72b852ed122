//! The result of a run.

use std::hash::Hasher;
use std::time::Duration;

use super::{CHUNK_OVERHEAD, Node, World, nanos};
use crate::swarm::link::nanos_for;
use crate::swarm::outcome::Outcome;

impl World {
    /// The result so far.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let awaited: Vec<&Node> = self.nodes.iter().filter(|node| node.is_awaited()).collect();
        let chunks = self.made.chunks() as usize;
        let first = awaited.iter().map(|node| nanos(node.member.starts_at)).min().unwrap_or(0);
        let last = awaited.iter().max_by_key(|node| node.stored_at.last());
        let last_at = last.and_then(|node| node.stored_at.last().copied()).unwrap_or(0);
        let last_percent = last.map_or(0.0, |node| {
            let before = node.stored_at.len().saturating_sub(chunks.div_ceil(100) + 1);
            let at = node.stored_at.get(before).copied().unwrap_or(0);
            (last_at - at) as f64 / (last_at - nanos(node.member.starts_at)).max(1) as f64
        });
        let chunk_cost = |bytes: u64| bytes * CHUNK_OVERHEAD / 1_000;
        let bytes = self.made.bytes();
        let received: u64 = awaited.iter().map(|node| node.received_bytes).sum();
        let useful = self
            .nodes
            .iter()
            .filter(|node| !node.member.is_seed)
            .map(|node| node.stored_at.len() as u64)
            .sum::<u64>()
            * self.plan.chunk_bytes;
        let from_seeds =
            self.nodes.iter().filter(|node| node.member.is_seed).map(|node| node.chunk_bytes_sent);
        let chunk_bytes_sent = self.nodes.iter().map(|node| node.chunk_bytes_sent).sum::<u64>();
        let sent: u64 = self.nodes.iter().map(|node| node.uplink.sent).sum();
        let last_of_files = awaited.iter().filter_map(|node| node.file_stored_at.last()).max();
        let wanted: u64 = awaited.iter().map(|node| node.wanted_bytes(&self.files)).sum();
        let came: u64 = awaited.iter().map(|node| node.file_received_bytes).sum();
        Outcome {
            is_complete: awaited
                .iter()
                .all(|node| node.is_done(&self.made) && node.has_files(&self.files)),
            time: Duration::from_nanos(last_at.saturating_sub(first)),
            files_time: Duration::from_nanos(last_of_files.map_or(0, |last| last - first)),
            files_copies: came as f64 / wanted.max(1) as f64,
            bound: self.plan.bound_seconds(bytes),
            bound_on_wire: self.plan.bound_seconds(chunk_cost(bytes)),
            seed_copies: from_seeds.sum::<u64>() as f64 / bytes as f64,
            duplicates: received.saturating_sub(useful) as f64 / received.max(1) as f64,
            waste: (chunk_bytes_sent as f64 / useful.max(1) as f64 - 1.0).max(0.0),
            control: self.control_bytes as f64 / sent.max(1) as f64,
            last_percent,
            stored_twice: awaited.iter().map(|node| node.stored_twice).sum::<u64>() as f64
                / (chunks * awaited.len()) as f64,
            loaded: self.loaded.clone(),
            bans: self.bans.clone(),
            digest: self.digest.finish(),
        }
    }

    /// For people: each node's busy share of its uplink, its stored chunks, and the copies that it
    /// sent.
    #[must_use]
    pub fn shares(&self) -> Vec<(f64, u64, f64)> {
        let share = |node: &Node| {
            let busy = nanos_for(node.uplink.sent, node.member.up) as f64 / self.now.max(1) as f64;
            (
                busy,
                node.stored_at.len() as u64,
                node.chunk_bytes_sent as f64 / self.made.bytes() as f64,
            )
        };
        self.nodes.iter().map(share).collect()
    }
}
