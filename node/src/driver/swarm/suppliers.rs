//! Which peer supplied each segment, for display. The machine does not use it, and a restart
//! forgets it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::units::SegmentIndex;

use crate::network::PeerId;
use crate::view::SUPPLIERS_MAX;

/// The peers that sent the chunks of segments since the start.
#[derive(Debug, Default)]
pub(super) struct Suppliers {
    /// Number of chunks from each peer, for segments in staging. The machine bounds the segments
    /// in staging, and a segment has at most as many suppliers as chunks.
    staged: BTreeMap<SegmentIndex, BTreeMap<PeerId, u32>>,
    /// The supplier of each applied segment that peers sent. At most [`SUPPLIERS_MAX`]; the lowest
    /// index is forgotten first.
    applied: BTreeMap<SegmentIndex, Arc<str>>,
}

impl Suppliers {
    /// The peer sent a chunk that was missing.
    pub(super) fn on_chunk(&mut self, segment: SegmentIndex, from: PeerId) {
        let chunks = self.staged.entry(segment).or_default().entry(from).or_default();
        *chunks = chunks.saturating_add(1);
    }

    /// The segment is applied, so no chunk of it is stored any more.
    pub(super) fn on_applied(&mut self, segment: SegmentIndex) {
        let Some(supplier) = self.staged.remove(&segment).and_then(|chunks| most(&chunks)) else {
            return;
        };
        self.applied.insert(segment, supplier);
        while self.applied.len() > SUPPLIERS_MAX {
            self.applied.pop_first();
        }
    }

    /// For each segment with a chunk from a peer, the peer that sent most of its chunks.
    pub(super) fn all(&self) -> BTreeMap<SegmentIndex, Arc<str>> {
        let mut all = self.applied.clone();
        let staged = self.staged.iter();
        all.extend(staged.filter_map(|(segment, chunks)| Some((*segment, most(chunks)?))));
        all
    }
}

/// The peer with the most chunks. Of equals it is the one with the lowest id, so that the answer
/// does not flicker.
fn most(chunks: &BTreeMap<PeerId, u32>) -> Option<Arc<str>> {
    let (peer, _) = chunks.iter().rev().max_by_key(|(_, chunks)| **chunks)?;
    Some(peer.to_string().into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_that_sent_most_chunks_supplied_the_segment() {
        let mut suppliers = Suppliers::default();
        let [few, many, other] = [PeerId::random(), PeerId::random(), PeerId::random()];
        let (first, second, third) = (SegmentIndex(7), SegmentIndex(8), SegmentIndex(9));
        for (segment, peer) in [(first, few), (first, many), (first, many), (second, other)] {
            suppliers.on_chunk(segment, peer);
        }
        let named = |suppliers: &Suppliers, segment| {
            suppliers.all().get(&segment).map(|peer| peer.parse::<PeerId>().unwrap())
        };
        // A segment that is still fetched has a supplier too.
        assert_eq!(named(&suppliers, first), Some(many));
        assert_eq!(named(&suppliers, second), Some(other));
        assert_eq!(named(&suppliers, third), None);
        suppliers.on_applied(first);
        assert_eq!(named(&suppliers, first), Some(many), "an applied segment keeps its supplier");
        // No peer sent a chunk of this segment, for example since an earlier run fetched it.
        suppliers.on_applied(third);
        assert_eq!(named(&suppliers, third), None);
        assert!(!suppliers.staged.contains_key(&first), "counts of chunks end with the segment");
    }

    #[test]
    fn of_equal_suppliers_one_is_named_always() {
        let mut peers = [PeerId::random(), PeerId::random(), PeerId::random()];
        peers.sort_unstable();
        let mut suppliers = Suppliers::default();
        for peer in [peers[2], peers[0], peers[1]] {
            suppliers.on_chunk(SegmentIndex(0), peer);
        }
        assert_eq!(*suppliers.all()[&SegmentIndex(0)], *peers[0].to_string());
    }

    #[test]
    fn only_the_last_segments_are_remembered() {
        let mut suppliers = Suppliers::default();
        let peer = PeerId::random();
        let last = SUPPLIERS_MAX as u64 + 9;
        for segment in (0..=last).map(SegmentIndex) {
            suppliers.on_chunk(segment, peer);
            suppliers.on_applied(segment);
        }
        let all = suppliers.all();
        assert_eq!(all.len(), SUPPLIERS_MAX);
        assert!(!all.contains_key(&SegmentIndex(9)) && all.contains_key(&SegmentIndex(last)));
        assert!(suppliers.staged.is_empty());
    }
}
