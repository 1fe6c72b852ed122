//! Which of the missing chunks are wanted from a peer.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Downloads;
use crate::ids::PeerId;
use crate::swarm::census::{Census, mix, place};
use crate::swarm::classes::{Class, Turns};
use crate::swarm::message::ChunkId;
use crate::swarm::segments::Segment;

/// Number of chunks wanted from a source beyond its credit, so that the source can choose.
pub(super) const OFFERED: usize = 64;
/// Number of chunks that are first chosen at random, so that a newcomer soon has some to give
/// (Cohen 2003).
pub(super) const RANDOM_FIRST: u64 = 4;
/// The first segments, up to this many bytes, are fetched first. Chunks of later segments are
/// wanted only from peers that would otherwise idle.
const WINDOW_BYTES: u64 = 64 << 20;

/// The order in which the chunks of one class are wanted, lowest first: number of peers that have
/// the chunk, whether another source gives it, its place or a random number.
type Rank = (u32, bool, u64);

/// Chunks of one class that may be wanted from a peer.
#[derive(Debug, Default)]
struct Choice {
    candidates: Vec<(Rank, ChunkId)>,
    /// Chunks that only sources have and that this source gives.
    offers: VecDeque<ChunkId>,
}

impl Choice {
    /// The best `most` candidates, in order.
    fn best(&mut self, most: usize) -> VecDeque<ChunkId> {
        let last = most.saturating_sub(1);
        if self.candidates.len() > most && most > 0 {
            self.candidates.select_nth_unstable(last);
        }
        self.candidates.truncate(most);
        self.candidates.sort_unstable();
        self.candidates.iter().map(|(_, chunk)| *chunk).collect()
    }
}

/// Takes up to `most` chunks out of the lists of the classes, which take turns by their weights.
fn in_turns(
    turns: &mut Turns,
    mut lists: BTreeMap<Class, VecDeque<ChunkId>>,
    most: usize,
) -> Vec<ChunkId> {
    let mut chosen = Vec::new();
    while chosen.len() < most {
        let waiting = lists.iter().filter(|(_, list)| !list.is_empty()).map(|(class, _)| *class);
        let Some(class) = waiting.min_by_key(|class| turns.next(*class)) else { break };
        turns.take(class);
        chosen.extend(lists.get_mut(&class).and_then(VecDeque::pop_front));
    }
    chosen
}

impl Downloads {
    /// Requests free chunks from a peer, as many as it has room for. From a source it requests
    /// more, to let the source choose.
    pub(super) fn want_missing(&mut self, id: PeerId, census: &Census, room: usize, now: Duration) {
        let may_want_files = self.file_limit.opens_at(now).is_none();
        let Some(peer) = self.suppliers.get(&id) else { return };
        let Some(holdings) = census.get(id) else { return };
        let only_sources_have = |want: &&ChunkId| census.partial_holders(**want) == 0;
        let is_source = holdings.is_source();
        let offered = match is_source {
            true => peer.wants().iter().filter(only_sources_have).count(),
            false => OFFERED,
        };
        // The offer is topped up once half of it is gone, so that not every chunk costs a scan.
        let offers = if offered <= OFFERED / 2 { OFFERED.saturating_sub(offered) } else { 0 };
        if room == 0 && offers == 0 {
            return;
        }
        let mut choices: BTreeMap<Class, Choice> = BTreeMap::new();
        // Bytes of the collection's segments so far.
        let (mut looked_at, mut collection) = (0u64, None);
        for segment in self.segments.iter() {
            let index = segment.id();
            if collection.replace(index.collection) != Some(index.collection) {
                looked_at = 0;
            }
            let Some(fetched) = self.collections.get(&index.collection) else { continue };
            let is_window_over = looked_at >= WINDOW_BYTES;
            looked_at = looked_at.saturating_add(segment.bytes());
            let choice = choices.entry(fetched.class).or_default();
            let is_enough = choice.candidates.len() >= room && choice.offers.len() >= offers;
            let is_limited = fetched.class == Class::File && !may_want_files;
            if is_limited || fetched.is_paused || (is_window_over && is_enough) {
                continue;
            }
            // If no chunk is free, or the peer has none, the chunks of the segment are not looked
            // at.
            let requests = self.requests.of_segment(index);
            let has_free = requests.is_some_and(|requests| requests.count() < segment.missing());
            if has_free && holdings.has_any(index) {
                #[cfg(test)]
                {
                    self.looks = self.looks.saturating_add(segment.chunks());
                }
                self.consider(id, census, segment, offers, choice);
            }
        }
        let best = choices.iter_mut().map(|(class, choice)| (*class, choice.best(room)));
        for chunk in in_turns(&mut self.turns, best.collect(), room) {
            self.want(id, chunk, now);
        }
        let to_offer = choices.into_iter().map(|(class, choice)| {
            let free = choice.offers.into_iter().filter(|chunk| self.is_free(*chunk));
            (class, free.collect())
        });
        let to_offer: BTreeMap<_, _> = to_offer.collect();
        for chunk in in_turns(&mut self.turns, to_offer, offers) {
            self.want(id, chunk, now);
        }
    }

    /// Adds the free chunks of a segment that a peer has to the choice of their class.
    fn consider(
        &self,
        id: PeerId,
        census: &Census,
        segment: &Segment,
        offers: usize,
        choice: &mut Choice,
    ) {
        let index = segment.id();
        let Some(requests) = self.requests.of_segment(index) else { return };
        let verified = self.collections.get(&index.collection).map_or(0, |one| one.verified);
        let sources = census.sources(index);
        let source_count = u32::try_from(sources.len()).unwrap_or(u32::MAX);
        let free = segment.missing_chunks().filter(|chunk| requests.is_free(chunk.chunk));
        for chunk in free {
            if !census.has(id, chunk) {
                continue;
            }
            let others = u32::from(census.partial_holders(chunk));
            let random = mix(self.salt ^ place(chunk));
            if verified < RANDOM_FIRST && others > 0 {
                choice.candidates.push(((0, false, random), chunk));
                continue;
            }
            let holders = source_count.saturating_add(others);
            if others > 0 {
                choice.candidates.push(((holders, false, random), chunk));
                continue;
            }
            let is_owner = census.owner(&sources, chunk) == Some(id);
            choice.candidates.push(((holders, !is_owner, place(chunk)), chunk));
            if is_owner && choice.offers.len() < offers {
                choice.offers.push_back(chunk);
            }
        }
    }
}
