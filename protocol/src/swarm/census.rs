//! Which peer has which chunks, by the peers' own claims. A lie costs the liar: a peer cannot send
//! a chunk that it lacks, and every chunk that arrives is checked.

use std::collections::BTreeMap;

use ledger::units::SegmentIndex;

use super::bits::Bits;
use super::message::{ChunkId, CollectionNumber, Holdings, SegmentId};
use super::ranges::{SegmentRange, SegmentRanges};
use super::segments::OPEN_SEGMENTS_MAX;
use crate::ids::PeerId;

/// The holdings that one peer claims.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holder {
    /// The collections of which it has sent its holdings.
    collections: BTreeMap<CollectionNumber, Whole>,
    /// Its open segments, of all collections.
    open: BTreeMap<SegmentId, Bits>,
}

/// The whole segments of one collection that a peer claims.
#[derive(Clone, Debug, Default)]
struct Whole {
    segments: SegmentRanges,
    nonce: u64,
}

impl Holder {
    /// Whether the peer has sent its holdings of a collection.
    pub(crate) fn knows(&self, collection: CollectionNumber) -> bool {
        self.collections.contains_key(&collection)
    }

    /// Whether the peer claims any whole segment.
    pub(crate) fn is_source(&self) -> bool {
        self.collections.values().any(|whole| !whole.segments.is_empty())
    }

    pub(crate) fn is_complete(&self, segment: SegmentId) -> bool {
        let whole = self.collections.get(&segment.collection);
        whole.is_some_and(|whole| whole.segments.contains(segment.index))
    }

    pub(crate) fn has(&self, id: ChunkId) -> bool {
        self.is_complete(id.segment)
            || self.open.get(&id.segment).is_some_and(|bits| bits.get(id.chunk))
    }

    /// Whether the peer claims any chunk of a segment.
    pub(crate) fn has_any(&self, segment: SegmentId) -> bool {
        self.is_complete(segment) || self.open.get(&segment).is_some_and(|bits| bits.count() > 0)
    }

    /// The lowest of these segments of a collection of which the peer claims any chunk.
    pub(crate) fn first_of(
        &self,
        collection: CollectionNumber,
        segments: &SegmentRanges,
    ) -> Option<SegmentIndex> {
        let whole = self.collections.get(&collection)?;
        let whole = whole.segments.iter().find_map(|range| segments.first_in(range));
        let mut open = self.open.range(collection.segments());
        let open = open.find(|(id, bits)| segments.contains(id.index) && bits.count() > 0);
        whole.into_iter().chain(open.map(|(id, _)| id.index)).min()
    }

    /// Number of whole segments of a collection that the peer claims.
    pub(crate) fn whole_segments(&self, collection: CollectionNumber) -> u64 {
        self.collections.get(&collection).map_or(0, |whole| whole.segments.count())
    }

    /// Number of chunks that the peer claims in open segments of a collection.
    pub(crate) fn open_chunks(&self, collection: CollectionNumber) -> u64 {
        let open = self.open.range(collection.segments());
        open.fold(0, |count, (_, bits)| count.saturating_add(bits.count()))
    }

    fn nonce(&self, collection: CollectionNumber) -> u64 {
        self.collections.get(&collection).map_or(0, |whole| whole.nonce)
    }

    /// Whether the peer may claim chunks of this open segment beside the others.
    fn has_room(&self, segment: SegmentId) -> bool {
        self.open.contains_key(&segment)
            || self.open.range(segment.collection.segments()).count() < OPEN_SEGMENTS_MAX
    }
}

/// A number of peers for each chunk, by segment.
type Counts = BTreeMap<SegmentId, Vec<u16>>;

/// The holdings that each peer claims, and how many peers have each chunk.
#[derive(Debug, Default)]
pub(crate) struct Census {
    peers: BTreeMap<PeerId, Holder>,
    /// For each chunk, the number of peers that have it but not its whole segment.
    open: Counts,
}

/// A peer claimed a chunk that no segment can have, too many segments, or segments out of order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Absurd;

impl Census {
    pub(crate) fn get(&self, peer: PeerId) -> Option<&Holder> {
        self.peers.get(&peer)
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = (PeerId, &Holder)> {
        self.peers.iter().map(|(peer, holder)| (*peer, holder))
    }

    /// A peer says what it holds of a collection, whose segments have at most `chunks_max` chunks.
    pub(crate) fn on_holdings(
        &mut self,
        peer: PeerId,
        collection: CollectionNumber,
        holdings: Holdings,
        chunks_max: u32,
    ) -> Result<(), Absurd> {
        self.forget_collection(peer, collection);
        let Holdings { whole, open, nonce } = holdings;
        let is_possible = |bits: &Bits| {
            bits.bytes() <= (chunks_max as usize).div_ceil(8)
                && bits.ones().all(|chunk| chunk < chunks_max)
        };
        if open.len() > OPEN_SEGMENTS_MAX
            || !whole.is_canonical()
            || !open.is_sorted_by(|(before, _), (after, _)| before < after)
            || !open.iter().all(|(_, bits)| is_possible(bits))
        {
            return Err(Absurd);
        }
        let holder = self.peers.entry(peer).or_default();
        for (index, bits) in open.into_iter().filter(|(index, _)| !whole.contains(*index)) {
            let segment = collection.segment(index);
            count_all(self.open.entry(segment).or_default(), &bits, 1);
            holder.open.insert(segment, bits);
        }
        holder.collections.insert(collection, Whole { segments: whole, nonce });
        Ok(())
    }

    /// A peer has a chunk of a segment with at most `chunks_max` chunks.
    pub(crate) fn on_have(
        &mut self,
        peer: PeerId,
        id: ChunkId,
        chunks_max: u32,
    ) -> Result<(), Absurd> {
        if id.chunk >= chunks_max {
            return Err(Absurd);
        }
        let Some(holder) = self.peers.get_mut(&peer) else { return Ok(()) };
        if holder.knows(id.segment.collection)
            && !holder.is_complete(id.segment)
            && holder.has_room(id.segment)
            && holder.open.entry(id.segment).or_default().set(id.chunk)
        {
            count(self.open.entry(id.segment).or_default(), id.chunk, 1);
        }
        Ok(())
    }

    /// A peer has these segments whole.
    pub(crate) fn on_held(
        &mut self,
        peer: PeerId,
        collection: CollectionNumber,
        range: SegmentRange,
    ) {
        let Some(holder) = self.peers.get_mut(&peer) else { return };
        let Some(whole) = holder.collections.get_mut(&collection) else { return };
        whole.segments.insert(range);
        whole.segments.truncate();
        let done = collection.segment(range.first)..=collection.segment(range.last);
        let done: Vec<SegmentId> = holder.open.range(done).map(|(segment, _)| *segment).collect();
        done.into_iter().for_each(|segment| self.forget_open(peer, segment));
    }

    /// A peer has no chunk of a segment, whatever it said before.
    pub(crate) fn on_not_kept(&mut self, peer: PeerId, segment: SegmentId) {
        self.forget_open(peer, segment);
        let holder = self.peers.get_mut(&peer);
        if let Some(whole) =
            holder.and_then(|holder| holder.collections.get_mut(&segment.collection))
        {
            whole.segments.remove(segment.index);
            whole.segments.truncate();
        }
    }

    pub(crate) fn forget(&mut self, peer: PeerId) {
        if let Some(holder) = self.peers.remove(&peer) {
            holder.open.iter().for_each(|(segment, bits)| self.uncount(*segment, bits));
        }
    }

    /// Forgets what a peer holds of a collection.
    pub(crate) fn forget_collection(&mut self, peer: PeerId, collection: CollectionNumber) {
        let Some(holder) = self.peers.get_mut(&peer) else { return };
        holder.collections.remove(&collection);
        let open = holder.open.range(collection.segments());
        let open: Vec<SegmentId> = open.map(|(segment, _)| *segment).collect();
        open.into_iter().for_each(|segment| self.forget_open(peer, segment));
        let is_empty = |holder: &Holder| holder.collections.is_empty();
        if self.peers.get(&peer).is_some_and(is_empty) {
            self.peers.remove(&peer);
        }
    }

    /// Forgets the chunks of an open segment that a peer claimed.
    fn forget_open(&mut self, peer: PeerId, segment: SegmentId) {
        let holder = self.peers.get_mut(&peer);
        if let Some(bits) = holder.and_then(|holder| holder.open.remove(&segment)) {
            self.uncount(segment, &bits);
        }
    }

    fn uncount(&mut self, segment: SegmentId, bits: &Bits) {
        let Some(counts) = self.open.get_mut(&segment) else { return };
        count_all(counts, bits, -1);
        if counts.iter().all(|count| *count == 0) {
            self.open.remove(&segment);
        }
    }

    pub(crate) fn has(&self, peer: PeerId, id: ChunkId) -> bool {
        self.peers.get(&peer).is_some_and(|holder| holder.has(id))
    }

    /// Number of peers that have a chunk but not its whole segment.
    pub(crate) fn partial_holders(&self, id: ChunkId) -> u16 {
        let counts = self.open.get(&id.segment);
        counts.and_then(|counts| counts.get(id.chunk as usize)).copied().unwrap_or(0)
    }

    /// The sources of a segment: peers that have all of it.
    pub(crate) fn sources(&self, segment: SegmentId) -> Vec<PeerId> {
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
                let holder = self.peers.get(peer);
                let nonce = holder.map_or(0, |holder| holder.nonce(id.segment.collection));
                (mix(nonce ^ mix(place(id))), *peer)
            }),
        }
    }
}

/// Counts a peer for a chunk of a segment, or one peer less.
fn count(counts: &mut Vec<u16>, chunk: u32, change: i16) {
    let at = chunk as usize;
    if counts.len() <= at {
        counts.resize(at.saturating_add(1), 0);
    }
    counts[at] = counts[at].saturating_add_signed(change);
}

fn count_all(counts: &mut Vec<u16>, bits: &Bits, change: i16) {
    bits.ones().for_each(|chunk| count(counts, chunk, change));
}

/// The chunk's place in its collection as one number, which orders chunks by segment and then by
/// their place in it. It is the same on all nodes.
pub(crate) const fn place(id: ChunkId) -> u64 {
    (id.segment.index.0 << 32) | id.chunk as u64
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
    use crate::swarm::ranges::RANGES_MAX;

    const ONE: CollectionNumber = CollectionNumber(1);
    const OTHER: CollectionNumber = CollectionNumber(2);
    const CHUNKS: u32 = 64;

    fn segment(index: u64) -> SegmentId {
        ONE.segment(SegmentIndex(index))
    }

    fn id(index: u64, chunk: u32) -> ChunkId {
        segment(index).chunk(chunk)
    }

    fn other(index: u64, chunk: u32) -> ChunkId {
        OTHER.segment(SegmentIndex(index)).chunk(chunk)
    }

    /// Segments from 1 on and before `end`, and chunks of open ones.
    fn holdings(end: u64, open: &[(u64, u32)]) -> Holdings {
        let mut bits: BTreeMap<SegmentIndex, Bits> = BTreeMap::new();
        for (segment, chunk) in open {
            bits.entry(SegmentIndex(*segment)).or_default().set(*chunk);
        }
        let mut whole = SegmentRanges::before(SegmentIndex(end));
        whole.remove(SegmentIndex(0));
        Holdings { whole, open: bits.into_iter().collect(), nonce: end }
    }

    fn range(first: u64, last: u64) -> SegmentRange {
        SegmentRange { first: SegmentIndex(first), last: SegmentIndex(last) }
    }

    #[test]
    fn holders_are_counted_once_and_leave_with_their_peer() {
        let mut census = Census::default();
        let [a, b, c] = [PeerId(1), PeerId(2), PeerId(3)];
        census.on_holdings(a, ONE, holdings(2, &[(1, 3), (2, 3)]), CHUNKS).unwrap();
        census.on_holdings(b, ONE, holdings(0, &[(2, 3)]), CHUNKS).unwrap();
        assert!(
            !census.has(a, id(0, 0)) && census.has(a, id(1, 60)) && census.has(a, id(2, 3)),
            "0 is not kept"
        );
        assert_eq!((census.partial_holders(id(1, 3)), census.partial_holders(id(2, 3))), (0, 2));
        census.on_have(b, id(2, 3), CHUNKS).unwrap();
        census.on_have(b, id(2, 4), CHUNKS).unwrap();
        census.on_have(c, id(2, 4), CHUNKS).unwrap();
        assert_eq!(
            (census.partial_holders(id(2, 3)), census.partial_holders(id(2, 4))),
            (2, 1),
            "c never said what it holds"
        );
        census.on_held(a, ONE, range(2, 2));
        assert_eq!(census.partial_holders(id(2, 3)), 1);
        assert_eq!(census.sources(segment(2)), [a]);
        census.forget(b);
        census.forget(a);
        assert!(census.open.is_empty() && census.peers.is_empty());
    }

    #[test]
    fn what_a_peer_takes_back_it_no_longer_has() {
        let mut census = Census::default();
        let a = PeerId(1);
        census.on_holdings(a, ONE, holdings(9, &[(9, 3)]), CHUNKS).unwrap();
        census.on_held(a, ONE, range(20, 22));
        for lost in [5, 9, 20] {
            assert!(census.get(a).unwrap().has_any(segment(lost)));
            census.on_not_kept(a, segment(lost));
            assert!(!census.get(a).unwrap().has_any(segment(lost)));
        }
        assert!(census.open.is_empty());
        assert_eq!(census.get(a).unwrap().whole_segments(ONE), 7 + 2);
        // Holdings that come later replace those before.
        census.on_holdings(a, ONE, holdings(3, &[(7, 1)]), CHUNKS).unwrap();
        assert_eq!(census.get(a).unwrap().whole_segments(ONE), 2);
        assert!(census.has(a, id(7, 1)) && !census.has(a, id(8, 1)));
    }

    #[test]
    fn collections_are_kept_apart() {
        let mut census = Census::default();
        let a = PeerId(1);
        census.on_holdings(a, ONE, holdings(3, &[(3, 7)]), CHUNKS).unwrap();
        census.on_have(a, other(3, 7), CHUNKS).unwrap();
        assert!(!census.get(a).unwrap().knows(OTHER), "it has not said what it holds of it");
        census.on_holdings(a, OTHER, holdings(0, &[(1, 1)]), 2).unwrap();
        assert!(census.has(a, id(2, 1)) && !census.has(a, id(3, 1)));
        assert!(census.has(a, other(1, 1)) && !census.has(a, other(2, 1)));
        census.forget_collection(a, ONE);
        assert!(!census.has(a, id(2, 1)) && census.has(a, other(1, 1)));
        census.forget_collection(a, OTHER);
        assert!(census.open.is_empty() && census.peers.is_empty());
    }

    #[test]
    fn a_chunk_that_cannot_be_takes_no_memory() {
        let mut census = Census::default();
        let a = PeerId(1);
        let says = |census: &mut Census, holdings| census.on_holdings(a, ONE, holdings, CHUNKS);
        assert_eq!(says(&mut census, holdings(0, &[(2, 64)])), Err(Absurd));
        says(&mut census, holdings(0, &[(2, 63)])).unwrap();
        assert_eq!(census.on_have(a, id(2, u32::MAX), CHUNKS), Err(Absurd));
        for segment in 0..5_000 {
            census.on_have(a, id(segment, 63), CHUNKS).unwrap();
        }
        assert_eq!(census.open.len(), OPEN_SEGMENTS_MAX);
        for segment in 0..1_000 {
            census.on_held(a, ONE, range(2 * segment, 2 * segment));
        }
        assert_eq!(census.get(a).unwrap().whole_segments(ONE), RANGES_MAX as u64);
        census.forget(a);
        let part = |segment: u64| {
            let mut bits = Bits::default();
            bits.set(63);
            (SegmentIndex(segment), bits)
        };
        let many = (0..=OPEN_SEGMENTS_MAX as u64).map(part).collect();
        for open in [
            vec![part(3), part(3)],
            vec![part(3), part(2)],
            vec![part(3), (SegmentIndex(4), holdings(0, &[(4, 64)]).open[0].1.clone())],
            many,
        ] {
            let absurd = Holdings { open, ..holdings(0, &[]) };
            assert_eq!(says(&mut census, absurd), Err(Absurd));
            assert!(census.open.is_empty() && census.peers.is_empty(), "nothing of it stays");
        }
        let whole = SegmentRanges::unchecked(vec![range(3, 4), range(4, 5)]);
        assert_eq!(says(&mut census, Holdings { whole, ..holdings(0, &[]) }), Err(Absurd));
    }

    #[test]
    fn sources_share_the_chunks_evenly_and_all_agree() {
        let mut census = Census::default();
        let peers: Vec<PeerId> = (1..=4).map(PeerId).collect();
        for peer in &peers {
            let holdings = Holdings { nonce: mix(peer.0), ..holdings(100, &[]) };
            census.on_holdings(*peer, ONE, holdings, CHUNKS).unwrap();
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
