//! Merkle mountain range: an append-only list of hashes under one root.
//!
//! Leaves form perfect binary trees ("mountains"), one for each set bit of the leaf count, highest
//! first. A new leaf adds nodes and never changes one (Peter Todd, OpenTimestamps,
//! `doc/merkle-mountain-range.md`). So the same nodes also give the root and the proofs at every
//! earlier leaf count.

use crate::hash::{Domain, Hash, HistoryRoot};

/// All nodes of the range. They take less than 64 bytes for each leaf, and a path is read without
/// hashing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MountainRange {
    /// `levels[h][i]` is the node over leaves `i << h .. (i + 1) << h`; level 0 holds the leaves.
    levels: Vec<Vec<Hash>>,
}

impl MountainRange {
    pub(super) fn count(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    pub(super) fn push(&mut self, leaf: Hash) {
        let mut node = leaf;
        for height in 0.. {
            if self.levels.len() == height {
                self.levels.push(Vec::new());
            }
            let level = &mut self.levels[height];
            level.push(node);
            match level.as_slice() {
                [.., left, right] if level.len().is_multiple_of(2) => {
                    node = inner_node(left, right)
                }
                _ => break,
            }
        }
    }

    /// Removes all leaves after the first `count`. Costs nothing for the leaves that stay.
    pub(super) fn truncate(&mut self, count: u64) {
        let mut nodes = usize::try_from(count).unwrap_or(usize::MAX);
        for level in &mut self.levels {
            level.truncate(nodes);
            nodes >>= 1;
        }
        self.levels.retain(|level| !level.is_empty());
    }

    /// Leaf `index`; `None` if there is no such leaf.
    pub(super) fn leaf(&self, index: u64) -> Option<&Hash> {
        self.levels.first()?.get(usize::try_from(index).ok()?)
    }

    pub(super) fn root(&self) -> HistoryRoot {
        root_node(self.count(), &self.peaks(self.count()))
    }

    /// Root of the first `count` leaves; `None` if there are fewer.
    pub(super) fn root_at(&self, count: u64) -> Option<HistoryRoot> {
        (count <= self.count()).then(|| root_node(count, &self.peaks(count)))
    }

    /// The proof of a leaf under the root of the first `count` leaves: the siblings on the way to
    /// its peak, lowest first, and the other peaks, highest first. `None` if there is no such leaf.
    pub(super) fn path(&self, index: u64, count: u64) -> Option<(Vec<Hash>, Vec<Hash>)> {
        let place = Place::of(index, count).filter(|_| count <= self.count())?;
        let siblings =
            (0..place.height).map(|height| self.node(height, (index >> height) ^ 1)).collect();
        let mut peaks = self.peaks(count);
        peaks.remove(usize::try_from(place.rank).ok()?);
        Some((siblings, peaks))
    }

    /// Peaks (tops of the mountains) of the first `count` leaves, highest first. At least `count`
    /// leaves must exist.
    fn peaks(&self, count: u64) -> Vec<Hash> {
        let heights = (0..u64::BITS).rev().filter(|height| (count >> height) & 1 == 1);
        // Over the first `count` leaves there are `count >> height` nodes of a height. For these
        // heights the number is odd, since the bit is set, and the last of the nodes is the peak.
        heights.map(|height| self.node(height, (count >> height) ^ 1)).collect()
    }

    fn node(&self, height: u32, at: u64) -> Hash {
        let (Ok(height), Ok(at)) = (usize::try_from(height), usize::try_from(at)) else {
            panic!("nodes over leaves in memory are in memory");
        };
        self.levels[height][at]
    }
}

/// The place of a leaf in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Height of the leaf's mountain, which is the number of siblings in its path.
    pub(super) height: u32,
    /// Number of mountains to the left of the leaf's own.
    pub(super) rank: u32,
}

impl Place {
    /// The place of leaf `index` among `count` leaves; `None` if there is no such leaf.
    pub(super) fn of(index: u64, count: u64) -> Option<Self> {
        if index >= count {
            return None;
        }
        // Above the bit of the leaf's mountain, index and count have the same bits. At that bit the
        // count has a one and the index a zero.
        let height = (index ^ count).ilog2();
        Some(Self { height, rank: ((count >> height) ^ 1).count_ones() })
    }
}

/// Folds a leaf and its siblings, lowest first, into the peak of its mountain.
pub(super) fn peak(index: u64, leaf: Hash, siblings: &[Hash]) -> Hash {
    let mut at = index;
    let mut node = leaf;
    for sibling in siblings {
        node = if at & 1 == 0 { inner_node(&node, sibling) } else { inner_node(sibling, &node) };
        at >>= 1;
    }
    node
}

/// The count determines the number of peaks, so the parts need no separator.
pub(super) fn root_node(count: u64, peaks: &[Hash]) -> HistoryRoot {
    let count = count.to_le_bytes();
    let parts: Vec<&[u8]> =
        std::iter::once(&count[..]).chain(peaks.iter().map(|peak| &peak.0[..])).collect();
    HistoryRoot(Hash::of(Domain::HistoryRoot, &parts))
}

fn inner_node(left: &Hash, right: &Hash) -> Hash {
    Hash::of(Domain::HistoryInner, &[left.as_bytes(), right.as_bytes()])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    fn leaf(i: u64) -> Hash {
        Hash::of(Domain::Segment, &[&i.to_le_bytes()])
    }

    /// The top of a mountain, computed by its definition.
    fn top(leaves: std::ops::Range<u64>) -> Hash {
        let half = (leaves.end - leaves.start) / 2;
        if half == 0 {
            return leaf(leaves.start);
        }
        let middle = leaves.start + half;
        inner_node(&top(leaves.start..middle), &top(middle..leaves.end))
    }

    #[test]
    fn peaks_are_the_perfect_trees_of_the_count_at_every_earlier_count_too() {
        let mut range = MountainRange::default();
        for count in 0..=70 {
            assert_eq!(range.count(), count);
            for earlier in 0..=count {
                let mut start = 0;
                let mut expected = Vec::new();
                for bit in (0..7).rev().map(|height| 1 << height).filter(|bit| earlier & bit != 0) {
                    expected.push(top(start..start + bit));
                    start += bit;
                }
                assert_eq!(range.peaks(earlier), expected, "{earlier} of {count}");
            }
            assert_eq!(range.root_at(count), Some(range.root()));
            assert_eq!(range.root_at(count + 1), None);
            assert_eq!(range.path(count, count), None);
            assert_eq!(range.path(0, count + 1), None);
            range.push(leaf(count));
        }
    }

    #[test]
    fn a_truncated_range_is_the_one_that_never_grew() {
        let ranges: Vec<MountainRange> = (0..=20u64)
            .map(|count| {
                let mut range = MountainRange::default();
                (0..count).for_each(|i| range.push(leaf(i)));
                range
            })
            .collect();
        for (count, expected) in (0..).zip(&ranges) {
            for longer in &ranges {
                let mut range = longer.clone();
                range.truncate(count);
                assert_eq!(
                    range,
                    if count < longer.count() { expected } else { longer }.clone(),
                    "{count}"
                );
            }
            assert_eq!(ranges[20].leaf(count), (count < 20).then(|| leaf(count)).as_ref());
        }
    }

    #[test]
    fn places() {
        let place = |height, rank| Some(Place { height, rank });
        for (index, count, expected) in [
            (0, 0, None),
            (1, 1, None),
            (0, 1, place(0, 0)),
            (3, 4, place(2, 0)),
            (3, 7, place(2, 0)),
            (4, 7, place(1, 1)),
            (6, 7, place(0, 2)),
            (u64::MAX, u64::MAX, None),
            (0, u64::MAX, place(63, 0)),
            (u64::MAX - 1, u64::MAX, place(0, 63)),
        ] {
            assert_eq!(Place::of(index, count), expected, "{index} of {count}");
        }
    }
}
