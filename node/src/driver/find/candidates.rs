//! The peers that may have the object of a search. Answers to a look-up name them, and an answer
//! may be false. So a node must not be able to fill the result by answering first, or with many
//! names. Each source of names gives one peer in its turn, chosen at random.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};

use protocol::holder::HOLDER_ADDRESSES_MAX;

use crate::network::{Multiaddr, PeerId, Source};

/// Most sources that are heard in a search. An honest look-up asks some 25 peers.
const SOURCES_MAX: usize = 64;

/// Most peers that one source may name: what three answers can have.
const NAMED_MAX: usize = 60;

/// A peer that may have what is searched, and addresses at which it may be reached.
pub(super) type Candidate = (PeerId, Vec<Multiaddr>);

/// The peers that each source names, with the addresses that it gives.
#[derive(Default)]
pub(super) struct Candidates(BTreeMap<Source, Vec<Candidate>>);

impl Candidates {
    /// A source names a peer. Another address group, or the records here, are another source.
    pub(super) fn add(&mut self, source: Source, (peer, addresses): Candidate) {
        if self.0.len() >= SOURCES_MAX && !self.0.contains_key(&source) {
            return;
        }
        let named = self.0.entry(source).or_default();
        match named.iter().position(|(one, _)| *one == peer) {
            Some(at) => merge(&mut named[at].1, addresses),
            None if named.len() < NAMED_MAX => named.push((peer, addresses)),
            None => {}
        }
    }

    /// Number of peers that are named.
    pub(super) fn count(&self) -> usize {
        let named = self.0.values().flatten().map(|(peer, _)| *peer);
        named.collect::<BTreeSet<PeerId>>().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Chooses up to `most` of the peers that are wanted. In each turn every source gives one,
    /// chosen at random. Addresses come from all sources that named the peer, in turns too, so that
    /// false ones do not hide true ones.
    pub(super) fn choose(self, most: usize, is_wanted: impl Fn(&PeerId) -> bool) -> Vec<Candidate> {
        let lot = RandomState::new();
        let mut sources: Vec<(Source, Vec<Candidate>)> = self.0.into_iter().collect();
        sources.sort_by_cached_key(|(source, _)| lot.hash_one(source));
        let mut left: Vec<Vec<PeerId>> = Vec::new();
        for (_, named) in &sources {
            let wanted = named.iter().map(|(peer, _)| *peer).filter(&is_wanted);
            let mut wanted: Vec<PeerId> = wanted.collect();
            wanted.sort_by_cached_key(|peer| lot.hash_one(peer));
            left.push(wanted);
        }
        let mut chosen: Vec<PeerId> = Vec::new();
        while left.iter().any(|peers| !peers.is_empty()) {
            for peers in &mut left {
                // What another source has given does not use up the turn.
                while let Some(peer) = peers.pop() {
                    if !chosen.contains(&peer) {
                        chosen.push(peer);
                        break;
                    }
                }
            }
        }
        chosen.truncate(most);
        let addresses = |peer: PeerId| {
            let given = sources.iter().flat_map(|(_, named)| named);
            let given: Vec<&[Multiaddr]> =
                given.filter(|(one, _)| *one == peer).map(|(_, given)| &given[..]).collect();
            let mut addresses = Vec::new();
            for turn in 0..HOLDER_ADDRESSES_MAX {
                merge(&mut addresses, given.iter().filter_map(|given| given.get(turn).cloned()));
            }
            (peer, addresses)
        };
        chosen.into_iter().map(addresses).collect()
    }
}

/// Adds the addresses that are new, as long as there is room.
fn merge(known: &mut Vec<Multiaddr>, more: impl IntoIterator<Item = Multiaddr>) {
    for address in more {
        if known.len() < HOLDER_ADDRESSES_MAX && !known.contains(&address) {
            known.push(address);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn address(number: usize) -> Multiaddr {
        format!("/ip4/1.2.3.4/tcp/{number}").parse().unwrap()
    }

    fn peers(count: usize) -> Vec<PeerId> {
        (0..count).map(|_| PeerId::random()).collect()
    }

    #[test]
    fn whoever_names_many_false_holders_hides_no_true_one() {
        // Chance decides who is first.
        for _ in 0..50 {
            let (holders, fakes) = (peers(3), peers(200));
            let mut candidates = Candidates::default();
            // The liars come first: those that told this node itself, and one that answers often.
            for fake in &fakes[..20] {
                candidates.add(Source::Here, (*fake, vec![address(1)]));
            }
            for fake in &fakes[20..] {
                candidates.add(Source::Group(1), (*fake, vec![address(1)]));
            }
            for group in 2..6 {
                for holder in &holders {
                    candidates.add(Source::Group(group), (*holder, vec![address(2)]));
                }
            }
            let chosen = candidates.choose(8, |_| true);
            assert_eq!(chosen.len(), 8);
            assert!(holders.iter().all(|holder| chosen.iter().any(|(peer, _)| peer == holder)));
        }
    }

    #[test]
    fn false_addresses_of_a_holder_do_not_hide_the_true_one() {
        let holder = PeerId::random();
        let mut candidates = Candidates::default();
        candidates.add(Source::Group(1), (holder, (1..5).map(address).collect()));
        candidates.add(Source::Group(1), (holder, (5..9).map(address).collect()));
        candidates.add(Source::Group(2), (holder, vec![address(100)]));
        let chosen = candidates.choose(8, |_| true);
        assert_eq!(chosen.len(), 1);
        assert_eq!(chosen[0].1.len(), HOLDER_ADDRESSES_MAX);
        assert!(chosen[0].1.contains(&address(100)));
    }

    #[test]
    fn all_that_one_source_names_are_chosen_if_there_is_no_other() {
        let (named, connected) = (peers(70), PeerId::random());
        let mut candidates = Candidates::default();
        assert!(candidates.is_empty());
        candidates.add(Source::Group(1), (connected, Vec::new()));
        for peer in &named {
            candidates.add(Source::Group(1), (*peer, vec![address(1)]));
        }
        let chosen = candidates.choose(usize::MAX, |peer| *peer != connected);
        assert_eq!(chosen.len(), NAMED_MAX - 1);
        assert!(chosen.iter().all(|(peer, _)| named.contains(peer)));
        // Sources without end are not heard.
        let mut candidates = Candidates::default();
        for group in 0..100 {
            candidates.add(Source::Group(group), (PeerId::random(), Vec::new()));
        }
        assert_eq!(candidates.choose(usize::MAX, |_| true).len(), SOURCES_MAX);
    }
}
