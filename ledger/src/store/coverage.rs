//! How much of the chain's history a store has, for its operator.

use std::ops::RangeInclusive;

use crate::store::Store;
use crate::store::pages::ERA_SEGMENTS;
use crate::units::Height;

impl Store {
    /// Whether every sealed segment is kept.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let view = self.read_view();
        view.segments.sealed.iter().all(|one| view.segments.gaps.keeps(one.index))
    }

    /// Height up to which every block, from the genesis on, is or was here: either this node has
    /// executed it, or the hash of its segment is proved under a certificate.
    #[must_use]
    pub fn checked_by_hash_to(&self) -> Height {
        let executed = self.executed_to();
        let view = self.read_view();
        view.segments.checked_by_hash_to(view.tip.height, executed)
    }

    /// Whether every sealed segment of the newest era is kept. The last segment of this era is not
    /// sealed yet. A node that keeps only a part of history keeps this era, too.
    #[must_use]
    pub fn keeps_newest_era(&self) -> bool {
        let newest = self.read_view().segments.sealed.len() as u64 / ERA_SEGMENTS;
        self.kept_eras().last().is_some_and(|eras| *eras.end() == newest)
    }

    /// The era of a block in a sealed segment. `None` for later blocks.
    #[must_use]
    pub fn era_of(&self, height: Height) -> Option<u64> {
        let view = self.read_view();
        let sealed = &view.segments.sealed;
        let at = sealed.partition_point(|one| one.last < height);
        Some(sealed.get(at)?.index / ERA_SEGMENTS)
    }

    /// The eras of which every sealed segment is kept, as ranges of their numbers, in order. The
    /// era of the open segment is one of them, unless it lacks a sealed segment.
    #[must_use]
    pub fn kept_eras(&self) -> Vec<RangeInclusive<u64>> {
        let sealed = self.read_view().segments.sealed.len() as u64;
        eras(&self.kept(), sealed)
    }
}

/// The eras that lie in these ranges of kept segments, if `sealed` segments are sealed.
fn eras(kept: &[RangeInclusive<u64>], sealed: u64) -> Vec<RangeInclusive<u64>> {
    // The open segment is here, as a segment after the last sealed one.
    let mut ranges: Vec<_> = kept.iter().map(|range| (*range.start(), *range.end())).collect();
    match ranges.last_mut() {
        Some((_, last)) if last.saturating_add(1) == sealed => *last = sealed,
        _ => ranges.push((sealed, sealed)),
    }
    let whole = ranges.into_iter().filter_map(|(first, last)| {
        let first = first.div_ceil(ERA_SEGMENTS);
        let after = match last == sealed {
            true => (last / ERA_SEGMENTS).saturating_add(1),
            false => last.saturating_add(1) / ERA_SEGMENTS,
        };
        let last = after.checked_sub(1)?;
        (first <= last).then_some(first..=last)
    });
    whole.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_era_is_here_if_none_of_its_sealed_segments_is_missing() {
        for (kept, sealed, expected) in [
            // No segment is sealed yet.
            (&[][..], 0, &[0..=0][..]),
            (&[0..=0], 1, &[0..=0]),
            (&[0..=14], 15, &[0..=0]),
            (&[0..=15], 16, &[0..=1]),
            (&[0..=40], 41, &[0..=2]),
            // A snapshot at the end of segment 40, of 15 and of 16: nothing before it is here.
            (&[], 41, &[]),
            (&[], 16, &[1..=1]),
            (&[], 17, &[]),
            // Of an era one segment is missing: the first, the last, one in the middle.
            (&[1..=40], 41, &[1..=2]),
            (&[0..=14, 16..=40], 41, &[1..=2]),
            (&[0..=19, 21..=40], 41, &[0..=0, 2..=2]),
            (&[0..=31, 33..=40], 41, &[0..=1]),
            (&[0..=31], 41, &[0..=1]),
            (&[16..=31, 48..=63], 80, &[1..=1, 3..=3, 5..=5]),
        ] {
            assert_eq!(eras(kept, sealed), expected, "{kept:?} of {sealed}");
        }
    }
}
