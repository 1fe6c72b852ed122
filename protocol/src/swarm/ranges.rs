//! Whole segments, as ranges of their numbers.

use bincode::{Decode, Encode};
use ledger::units::SegmentIndex;

/// Most ranges of one collection that a peer may announce.
pub const RANGES_MAX: usize = 256;

/// Segments from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SegmentRange {
    /// The lowest segment.
    pub first: SegmentIndex,
    /// The highest segment.
    pub last: SegmentIndex,
}

impl SegmentRange {
    /// Whether a segment is in the range.
    #[must_use]
    pub fn contains(self, index: SegmentIndex) -> bool {
        (self.first..=self.last).contains(&index)
    }
}

/// Ranges of segments in increasing order, with at least one segment missing between two of them.
///
/// A set from a peer may break these rules until [`Self::is_canonical`] was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct SegmentRanges(Vec<SegmentRange>);

impl SegmentRanges {
    /// All segments before this one.
    #[must_use]
    pub fn before(end: SegmentIndex) -> Self {
        let last = end.0.checked_sub(1).map(SegmentIndex);
        Self(last.map(|last| SegmentRange { first: SegmentIndex(0), last }).into_iter().collect())
    }

    /// These ranges, whatever they are.
    #[must_use]
    pub const fn unchecked(ranges: Vec<SegmentRange>) -> Self {
        Self(ranges)
    }

    /// Whether there are at most [`RANGES_MAX`] ranges, in order and with a gap between them.
    #[must_use]
    pub fn is_canonical(&self) -> bool {
        let has_gap = |pair: &[SegmentRange]| next(pair[0].last) < pair[1].first;
        self.0.len() <= RANGES_MAX
            && self.0.iter().all(|range| range.first <= range.last)
            && self.0.windows(2).all(has_gap)
    }

    /// Whether no segment is in the set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = SegmentRange> {
        self.0.iter().copied()
    }

    /// Number of segments in the set.
    #[must_use]
    pub fn count(&self) -> u64 {
        let length = |range: SegmentRange| range.last.0.abs_diff(range.first.0).saturating_add(1);
        self.iter().map(length).fold(0, u64::saturating_add)
    }

    /// Whether a segment is in the set.
    #[must_use]
    pub fn contains(&self, index: SegmentIndex) -> bool {
        self.get(self.0.partition_point(|range| range.last < index), index).is_some()
    }

    /// The lowest segment of the set that is in a range.
    #[must_use]
    pub fn first_in(&self, range: SegmentRange) -> Option<SegmentIndex> {
        let at = self.0.partition_point(|known| known.last < range.first);
        let first = self.0.get(at)?.first.max(range.first);
        (first <= range.last).then_some(first)
    }

    /// Adds the segments of a range.
    pub fn insert(&mut self, range: SegmentRange) {
        let from = self.0.partition_point(|known| next(known.last) < range.first);
        let to = self.0.partition_point(|known| known.first <= next(range.last));
        let merge = |all: SegmentRange, one: SegmentRange| SegmentRange {
            first: all.first.min(one.first),
            last: all.last.max(one.last),
        };
        let merged = self.0.drain(from..to.max(from)).fold(range, merge);
        self.0.insert(from, merged);
    }

    /// Removes a segment. Returns whether it was in the set.
    pub fn remove(&mut self, index: SegmentIndex) -> bool {
        let at = self.0.partition_point(|range| range.last < index);
        let Some(SegmentRange { first, last }) = self.get(at, index) else { return false };
        let before = index.0.checked_sub(1).map(SegmentIndex).filter(|before| first <= *before);
        let before = before.map(|before| SegmentRange { first, last: before });
        let after = (index < last).then(|| SegmentRange { first: next(index), last });
        drop(self.0.splice(at..=at, before.into_iter().chain(after)));
        true
    }

    /// Removes the segments of a range.
    pub fn remove_range(&mut self, gone: SegmentRange) {
        let rest = std::mem::take(&mut self.0).into_iter().flat_map(|range| {
            let before = gone.first.0.checked_sub(1).map(SegmentIndex);
            let before = before.map(|last| SegmentRange { last: range.last.min(last), ..range });
            let first = range.first.max(next(gone.last));
            let after = (gone.last < range.last).then_some(SegmentRange { first, ..range });
            before.into_iter().chain(after).filter(|range| range.first <= range.last)
        });
        self.0 = rest.collect();
    }

    /// Keeps only the last [`RANGES_MAX`] ranges. Most nodes fetch what came last: those that were
    /// away, and those that go on from a snapshot.
    pub fn truncate(&mut self) {
        self.0.drain(..self.0.len().saturating_sub(RANGES_MAX));
    }

    /// The range at this place, if it has this segment.
    fn get(&self, at: usize, index: SegmentIndex) -> Option<SegmentRange> {
        self.0.get(at).copied().filter(|range| range.contains(index))
    }
}

/// The segment after this one. The last possible segment has none and stands for itself.
const fn next(index: SegmentIndex) -> SegmentIndex {
    SegmentIndex(index.0.saturating_add(1))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::lots::Lots;

    fn range(first: u64, last: u64) -> SegmentRange {
        SegmentRange { first: SegmentIndex(first), last: SegmentIndex(last) }
    }

    /// Random changes, compared with a plain set of numbers.
    #[test]
    fn a_set_of_ranges_has_the_segments_that_were_added_and_not_removed() {
        let mut lots = Lots::new(1);
        for _ in 0..200 {
            let (mut ranges, mut plain) = (SegmentRanges::default(), BTreeSet::new());
            for _ in 0..60 {
                let first = lots.below(40);
                let last = first + lots.below(6);
                if lots.below(2) == 0 {
                    ranges.insert(range(first, last));
                    plain.extend(first..=last);
                } else if lots.below(4) == 0 {
                    ranges.remove_range(range(first, last));
                    plain.retain(|index| !(first..=last).contains(index));
                } else {
                    let was_there = plain.remove(&first);
                    assert_eq!(ranges.remove(SegmentIndex(first)), was_there);
                }
                assert!(ranges.is_canonical(), "{ranges:?}");
                assert_eq!(ranges.count(), plain.len() as u64);
                let has = |index: &u64| ranges.contains(SegmentIndex(*index));
                assert_eq!((0..50).filter(has).collect::<BTreeSet<_>>(), plain);
                let next = plain.range(first..=last).next().map(|index| SegmentIndex(*index));
                assert_eq!(ranges.first_in(range(first, last)), next);
            }
        }
    }

    #[test]
    fn both_ends_of_the_numbers_are_in_reach() {
        let mut ranges = SegmentRanges::unchecked(vec![range(0, u64::MAX)]);
        assert!(ranges.is_canonical() && ranges.count() == u64::MAX);
        assert!(ranges.remove(SegmentIndex(0)) && ranges.remove(SegmentIndex(u64::MAX)));
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [range(1, u64::MAX - 1)]);
        ranges.insert(range(u64::MAX, u64::MAX));
        ranges.insert(range(0, 0));
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [range(0, u64::MAX)]);
        ranges.remove_range(range(0, u64::MAX));
        assert!(ranges.is_empty());
        assert!(SegmentRanges::before(SegmentIndex(0)).is_empty());
        assert_eq!(SegmentRanges::before(SegmentIndex(3)).count(), 3);
    }

    #[test]
    fn ranges_out_of_order_that_touch_or_are_too_many_are_not_canonical() {
        let many = |count: u64| (0..count).map(|at| range(2 * at, 2 * at)).collect();
        let most = RANGES_MAX as u64;
        for (ranges, expected) in [
            (vec![], true),
            (vec![range(3, 3), range(5, 9)], true),
            (vec![range(3, 3), range(4, 9)], false),
            (vec![range(3, 5), range(5, 9)], false),
            (vec![range(5, 9), range(3, 3)], false),
            (vec![range(4, 3)], false),
            (many(most), true),
            (many(most + 1), false),
        ] {
            assert_eq!(SegmentRanges::unchecked(ranges.clone()).is_canonical(), expected);
        }
        let mut ranges = SegmentRanges::unchecked(many(most + 1));
        ranges.truncate();
        assert!(ranges.is_canonical() && ranges.contains(SegmentIndex(2 * most)));
        assert!(!ranges.contains(SegmentIndex(0)), "the newest ranges stay");
    }
}
