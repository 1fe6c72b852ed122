//! The endgame: the last chunks are requested from a second peer too, or from a faster one.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::Downloads;
use crate::ids::PeerId;
use crate::swarm::census::Census;
use crate::swarm::message::{ChunkId, CollectionNumber};
use crate::swarm::supplier::Supplier;

/// Once at most one chunk in this many is missing, a chunk may be requested from two peers. If this
/// began earlier, duplicates would use up upload rate that other nodes need.
const TWICE_ONE_IN: u64 = 200;
/// Once at most this many chunks are missing, they may be requested twice, however few the total
/// is.
const TWICE_LEAST: u64 = 3;

impl Downloads {
    /// The endgame of a collection, which begins once the peers have credit for as many chunks as
    /// are missing.
    ///
    /// If few chunks are missing, this peer is asked too for chunks that another peer was asked
    /// for, provided that the other peer needs more than twice as long as this one to send what is
    /// asked of it. If more are missing, requests move to this peer from peers that need more than
    /// eight times as long.
    pub(super) fn hasten(&mut self, id: PeerId, census: &Census, room: usize, now: Duration) {
        let endgames = self.endgames();
        if endgames.is_empty() {
            return;
        }
        let Some(mine) = self.suppliers.get(&id) else { return };
        let mine = mine.time_to_clear(self.chunk_bytes, now);
        let mut candidates = Vec::new();
        for (other, peer) in self.suppliers.iter().filter(|(other, _)| **other != id) {
            let theirs = peer.time_to_clear(self.chunk_bytes, now);
            if theirs > mine.saturating_mul(2) {
                let single = |chunk: &&ChunkId| {
                    let request = self.requests.get(**chunk);
                    request.is_some_and(|request| request.also_from.is_none())
                };
                let is_ending = |chunk: &&ChunkId| endgames.contains_key(&chunk.segment.collection);
                let held = peer.wants().iter().filter(is_ending);
                let held = held.filter(|chunk| census.has(id, **chunk));
                let held = held.filter(single);
                candidates.extend(held.map(|chunk| (Reverse(theirs), *chunk, *other)));
            }
        }
        candidates.sort_unstable();
        for (Reverse(theirs), chunk, other) in candidates.into_iter().take(room) {
            if endgames.get(&chunk.segment.collection) == Some(&true) {
                self.want_too(id, chunk, now);
            } else if theirs > mine.saturating_mul(8) {
                self.release(other, chunk);
                self.want(id, chunk, now);
            }
        }
    }

    /// The collections in their endgame, each with whether few chunks are missing, so that these
    /// may be requested from two peers.
    fn endgames(&self) -> BTreeMap<CollectionNumber, bool> {
        let in_flight = self.suppliers.values().map(Supplier::in_flight);
        let on_way = in_flight.fold(0u64, u64::saturating_add);
        let all = self.collections.iter().map(|(collection, fetched)| {
            let missing = self.segments.missing(*collection);
            (*collection, missing, fetched.verified.saturating_add(missing))
        });
        let ending = all.filter(|(_, missing, _)| (1..=on_way).contains(missing));
        let is_few = |missing: u64, total: u64| missing <= (total / TWICE_ONE_IN).max(TWICE_LEAST);
        ending.map(|(number, missing, total)| (number, is_few(missing, total))).collect()
    }
}
