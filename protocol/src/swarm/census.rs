//! Which peer has which chunks, by the peers' own claims. A lie costs the liar: a peer cannot send
//! a chunk that it lacks, and every chunk that arrives is checked.

use std::collections::BTreeMap;

use ledger::units::{Height, SegmentIndex};

use super::bits::Bits;
use super::message::{ChunkId, Holdings};
use crate::ids::PeerId;

/// Most segments of which one peer may claim parts, since no more are fetched at a time.
const PARTIAL_MAX: usize = super::segments::STAGED_SEGMENTS_MAX;

/// The holdings that one peer claims.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holder {
    pub(crate) height: Height,
    pub(crate) pruned_below: SegmentIndex,
    pub(crate) sealed: SegmentIndex,
    pub(crate) nonce: u64,
    partial: BTreeMap<SegmentIndex, Bits>,
}

impl Holder {
    /// Whether the peer claims that it once had a whole segment.
    pub(crate) fn is_source(&self) -> bool {
        self.sealed > SegmentIndex(0)
    }

    pub(crate) fn is_complete(&self, segment: SegmentIndex) -> bool {
        (self.pruned_below..self.sealed).contains(&segment)
    }

    pub(crate) fn has(&self, id: ChunkId) -> bool {
        self.is_complete(id.segment)
            || self.partial.get(&id.segment).is_some_and(|bits| bits.get(id.chunk))
    }

    /// Whether the peer claims any chunk of a segment.
    pub(crate) fn has_any(&self, segment: SegmentIndex) -> bool {
        self.is_complete(segment) || self.partial.get(&segment).is_some_and(|bits| bits.count() > 0)
    }

    /// Number of chunks that the peer claims in unfinished segments.
    pub(crate) fn partial_chunks(&self) -> u64 {
        self.partial.values().fold(0, |count, bits| count.saturating_add(bits.count()))
    }
}

/// A number of peers for each chunk, by segment.
type Counts = BTreeMap<SegmentIndex, Vec<u16>>;

/// The holdings that each peer claims, and how many peers have each chunk.
#[derive(Debug)]
pub(crate) struct Census {
    peers: BTreeMap<PeerId, Holder>,
    /// For each chunk, the number of peers that have it but not its whole segment.
    partial: Counts,
    /// Most chunks that a segment can have.
    chunks_max: u32,
}

/// A peer claimed a chunk that no segment can have, too many segments, or segments out of order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Absurd;

impl Census {
    pub(crate) const fn new(chunks_max: u32) -> Self {
        Self { peers: BTreeMap::new(), partial: BTreeMap::new(), chunks_max }
    }

    pub(crate) fn get(&self, peer: PeerId) -> Option<&Holder> {
        self.peers.get(&peer)
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = (PeerId, &Holder)> {
        self.peers.iter().map(|(peer, holder)| (*peer, holder))
    }

    pub(crate) fn on_holdings(&mut self, peer: PeerId, holdings: Holdings) -> Result<(), Absurd> {
        self.forget(peer);
        let Holdings { height, pruned_below, sealed, partial, nonce } = holdings;
        let is_possible = |bits: &Bits| {
            bits.bytes() <= (self.chunks_max as usize).div_ceil(8)
                && bits.ones().all(|chunk| chunk < self.chunks_max)
        };
        if partial.len() > PARTIAL_MAX
            || !partial.is_sorted_by(|(before, _), (after, _)| before < after)
            || !partial.iter().all(|(_, bits)| is_possible(bits))
        {
            return Err(Absurd);
        }
        let mut holder = Holder { height, pruned_below, sealed, nonce, partial: BTreeMap::new() };
        holder.partial =
            partial.into_iter().filter(|(segment, _)| !holder.is_complete(*segment)).collect();
        for (segment, bits) in &holder.partial {
            bits.ones().for_each(|chunk| count(&mut self.partial, *segment, chunk, 1));
        }
        self.peers.insert(peer, holder);
        Ok(())
    }

    pub(crate) fn on_have(&mut self, peer: PeerId, id: ChunkId) -> Result<(), Absurd> {
        if id.chunk >= self.chunks_max {
            return Err(Absurd);
        }
        let Some(holder) = self.peers.get_mut(&peer) else { return Ok(()) };
        let has_room =
            holder.partial.len() < PARTIAL_MAX || holder.partial.contains_key(&id.segment);
        if !holder.is_complete(id.segment)
            && has_room
            && holder.partial.entry(id.segment).or_default().set(id.chunk)
        {
            count(&mut self.partial, id.segment, id.chunk, 1);
        }
        Ok(())
    }

    pub(crate) fn on_sealed(&mut self, peer: PeerId, sealed: SegmentIndex, height: Height) {
        let Some(holder) = self.peers.get_mut(&peer) else { return };
        holder.sealed = sealed.max(holder.sealed);
        holder.height = height.max(holder.height);
        let open = holder.partial.split_off(&holder.sealed);
        let done = std::mem::replace(&mut holder.partial, open);
        self.uncount(&done);
    }

    pub(crate) fn forget(&mut self, peer: PeerId) {
        if let Some(holder) = self.peers.remove(&peer) {
            self.uncount(&holder.partial);
        }
    }

    fn uncount(&mut self, partial: &BTreeMap<SegmentIndex, Bits>) {
        for (segment, bits) in partial {
            bits.ones().for_each(|chunk| count(&mut self.partial, *segment, chunk, -1));
            if self
                .partial
                .get(segment)
                .is_some_and(|counts| counts.iter().all(|count| *count == 0))
            {
                self.partial.remove(segment);
            }
        }
    }

    pub(crate) fn has(&self, peer: PeerId, id: ChunkId) -> bool {
        self.peers.get(&peer).is_some_and(|holder| holder.has(id))
    }

    /// Number of peers that have a chunk but not its whole segment.
    pub(crate) fn partial_holders(&self, id: ChunkId) -> u16 {
        let counts = self.partial.get(&id.segment);
        counts.and_then(|counts| counts.get(id.chunk as usize)).copied().unwrap_or(0)
    }

    /// The sources of a segment: peers that have all of it.
    pub(crate) fn sources(&self, segment: SegmentIndex) -> Vec<PeerId> {
        self.peers()
            .filter(|(_, holder)| holder.is_complete(segment))
            .map(|(peer, _)| peer)
            .collect()
    }

    /// The source that a downloader asks first for a chunk that only sources have. All downloaders
    /// with the same sources agree on it (rendezvous hashing, Thaler and Ravishankar).
    pub(crate) fn owner(&self, sources: &[PeerId], id: ChunkId) -> Option<PeerId> {
        match sources {
            [] => None,
            [one] => Some(*one),
            _ => sources.iter().copied().max_by_key(|peer| {
                let nonce = self.peers.get(peer).map_or(0, |holder| holder.nonce);
                (mix(nonce ^ mix(place(id))), *peer)
            }),
        }
    }
}

fn count(counts: &mut Counts, segment: SegmentIndex, chunk: u32, change: i16) {
    let counts = counts.entry(segment).or_default();
    let at = chunk as usize;
    if counts.len() <= at {
        counts.resize(at.saturating_add(1), 0);
    }
    counts[at] = counts[at].saturating_add_signed(change);
}

/// The chunk id as one number, which orders chunks by segment and then by their place in it.
pub(crate) const fn place(id: ChunkId) -> u64 {
    (id.segment.0 << 32) | id.chunk as u64
}

/// Spreads numbers evenly (the finalizer of SplitMix64, Steele et al. 2014). No use of it needs a
/// function that is hard to invert.
pub(crate) const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn id(segment: u64, chunk: u32) -> ChunkId {
        ChunkId { segment: SegmentIndex(segment), chunk }
    }

    fn holdings(sealed: u64, partial: &[(u64, u32)]) -> Holdings {
        let mut bits: BTreeMap<SegmentIndex, Bits> = BTreeMap::new();
        for (segment, chunk) in partial {
            bits.entry(SegmentIndex(*segment)).or_default().set(*chunk);
        }
        let partial = bits.into_iter().collect();
        let (pruned_below, nonce) = (SegmentIndex(1), sealed);
        Holdings { height: Height(9), pruned_below, sealed: SegmentIndex(sealed), partial, nonce }
    }

    #[test]
    fn holders_are_counted_once_and_leave_with_their_peer() {
        let mut census = Census::new(64);
        let [a, b, c] = [PeerId(1), PeerId(2), PeerId(3)];
        census.on_holdings(a, holdings(2, &[(1, 3), (2, 3)])).unwrap();
        census.on_holdings(b, holdings(0, &[(2, 3)])).unwrap();
        assert!(
            !census.has(a, id(0, 0)) && census.has(a, id(1, 60)) && census.has(a, id(2, 3)),
            "0 is pruned"
        );
        assert_eq!((census.partial_holders(id(1, 3)), census.partial_holders(id(2, 3))), (0, 2));
        census.on_have(b, id(2, 3)).unwrap();
        census.on_have(b, id(2, 4)).unwrap();
        census.on_have(c, id(2, 4)).unwrap();
        assert_eq!(
            (census.partial_holders(id(2, 3)), census.partial_holders(id(2, 4))),
            (2, 1),
            "c never said hello"
        );
        census.on_sealed(a, SegmentIndex(3), Height(10));
        assert_eq!(census.partial_holders(id(2, 3)), 1);
        assert_eq!(census.sources(SegmentIndex(2)), [a]);
        census.forget(b);
        census.forget(a);
        assert!(census.partial.is_empty() && census.peers.is_empty());
    }

    #[test]
    fn a_chunk_that_cannot_be_takes_no_memory() {
        let mut census = Census::new(64);
        assert_eq!(census.on_holdings(PeerId(1), holdings(0, &[(2, 64)])), Err(Absurd));
        census.on_holdings(PeerId(1), holdings(0, &[(2, 63)])).unwrap();
        assert_eq!(census.on_have(PeerId(1), id(2, u32::MAX)), Err(Absurd));
        for segment in 0..5_000 {
            census.on_have(PeerId(1), id(segment, 63)).unwrap();
        }
        assert_eq!(census.partial.len(), PARTIAL_MAX);
        census.forget(PeerId(1));
        let part = |segment: u64| {
            let mut bits = Bits::default();
            bits.set(63);
            (SegmentIndex(segment), bits)
        };
        let many = (0..=PARTIAL_MAX as u64).map(part).collect();
        for partial in [
            vec![part(3), part(3)],
            vec![part(3), part(2)],
            vec![part(3), (SegmentIndex(4), holdings(0, &[(4, 64)]).partial[0].1.clone())],
            many,
        ] {
            assert_eq!(
                census.on_holdings(PeerId(1), Holdings { partial, ..holdings(0, &[]) }),
                Err(Absurd)
            );
            assert!(census.partial.is_empty() && census.peers.is_empty(), "nothing of it stays");
        }
    }

    #[test]
    fn sources_share_the_chunks_evenly_and_all_agree() {
        let mut census = Census::new(64);
        let peers: Vec<PeerId> = (1..=4).map(PeerId).collect();
        for peer in &peers {
            census
                .on_holdings(*peer, Holdings { nonce: mix(peer.0), ..holdings(100, &[]) })
                .unwrap();
        }
        let mut shares = BTreeMap::<PeerId, u32>::new();
        for segment in 1..100 {
            for chunk in 0..10 {
                let owner = census.owner(&peers, id(segment, chunk)).unwrap();
                *shares.entry(owner).or_default() += 1;
            }
        }
        assert!(
            shares.len() == 4 && shares.values().all(|share| (200..300).contains(share)),
            "{shares:?}"
        );
    }
}
