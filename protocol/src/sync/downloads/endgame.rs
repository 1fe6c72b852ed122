//! The endgame: the last chunks are requested from a second peer too, or from a faster one.

use std::cmp::Reverse;
use std::time::Duration;

use super::Downloads;
use crate::ids::PeerId;
use crate::sync::census::Census;
use crate::sync::message::ChunkId;

/// In the endgame, once at most one chunk in this many is missing, each may be requested twice. Not
/// before: where all upload at full rate, duplicates make others wait.
const TWICE_ONE_IN: u64 = 200;
/// This many may be requested twice in any case.
const TWICE_LEAST: u64 = 3;

impl Downloads {
    /// Endgame: when everything missing may be in flight, requests the last chunks also from this
    /// peer if another is twice as slow, and moves others to it from peers eight times slower.
    pub(super) fn hasten(&mut self, id: PeerId, census: &Census, room: usize, now: Duration) {
        let missing = self.segments.values().fold(0u64, |sum, segment| sum.saturating_add(segment.missing));
        let total = self.verified.saturating_add(missing);
        let may_be_twice = missing <= (total / TWICE_ONE_IN).max(TWICE_LEAST);
        let on_way = self.suppliers.values().fold(0u64, |sum, peer| sum.saturating_add(peer.in_flight()));
        if missing > on_way {
            return;
        }
        let Some(mine) = self.suppliers.get(&id).map(|peer| peer.time_to_clear(self.chunk_bytes, now)) else { return };
        let mut candidates = Vec::new();
        for (other, peer) in self.suppliers.iter().filter(|(other, _)| **other != id) {
            let theirs = peer.time_to_clear(self.chunk_bytes, now);
            if theirs > mine.saturating_mul(2) {
                let single = |chunk: &&ChunkId| self.chunk(**chunk).is_some_and(|state| state.also_from.is_none());
                let held = peer.wants.iter().filter(single).filter(|chunk| census.has(id, **chunk));
                candidates.extend(held.map(|chunk| (Reverse(theirs), *chunk, *other)));
            }
        }
        candidates.sort_unstable();
        for (Reverse(theirs), chunk, other) in candidates.into_iter().take(room) {
            if may_be_twice {
                self.change(chunk, |state| state.also_from = Some(id));
                self.tell_want(id, chunk);
            } else if theirs > mine.saturating_mul(8) {
                self.release(other, chunk);
                self.want(id, chunk);
            }
        }
    }
}
