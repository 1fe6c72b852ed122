//! Eras, sets of them as ranges, and what a node announces of its own.

use bincode::de::Decoder;
use bincode::error::DecodeError;
use bincode::{Decode, Encode};

/// Most ranges of eras that a node may announce. One that keeps a third of the eras, chosen by
/// place, needs about two ranges for nine eras, so this is enough for about 1,150 eras. Beyond it,
/// a node announces its newest eras, and the others count as copies for nobody.
pub const ERA_RANGES_MAX: usize = 256;

/// Number of an era, from 0. An era is 16 segments of history, and it counts here once all of them
/// are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Era(pub u64);

impl Era {
    /// The era's place in a list of all eras.
    pub(crate) fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// The era at this place in a list of all eras.
    pub(crate) const fn at(index: usize) -> Self {
        Self(index as u64)
    }
}

/// Eras from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EraRange {
    /// The lowest era.
    pub first: Era,
    /// The highest era.
    pub last: Era,
}

/// A set of eras: at most [`ERA_RANGES_MAX`] ranges in increasing order, with at least one era
/// missing between two of them. Other lists do not decode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode)]
pub struct EraRanges(Vec<EraRange>);

impl EraRanges {
    /// The set of these eras, which come in increasing order. If they make more than
    /// [`ERA_RANGES_MAX`] ranges, the set has only the newest ranges.
    #[must_use]
    pub fn of(eras: impl IntoIterator<Item = Era>) -> Self {
        let mut ranges: Vec<EraRange> = Vec::new();
        for era in eras {
            match ranges.last_mut().filter(|range| range.last.0.saturating_add(1) == era.0) {
                Some(range) => range.last = era,
                None => ranges.push(EraRange { first: era, last: era }),
            }
        }
        ranges.drain(..ranges.len().saturating_sub(ERA_RANGES_MAX));
        Self(ranges)
    }

    /// Whether an era is in the set.
    #[must_use]
    pub fn contains(&self, era: Era) -> bool {
        let at = self.0.partition_point(|range| range.last < era);
        self.0.get(at).is_some_and(|range| range.first <= era)
    }

    /// The ranges, in order.
    pub fn ranges(&self) -> impl Iterator<Item = EraRange> {
        self.0.iter().copied()
    }

    /// The eras of the set that are below `end`, in order. A peer may claim more eras than there
    /// are, so there is always an end.
    pub fn below(&self, end: Era) -> impl Iterator<Item = Era> {
        let clipped =
            move |range: &EraRange| range.first.0..=range.last.0.min(end.0.wrapping_sub(1));
        let ranges = self.0.iter().filter(move |range| range.first < end).map(clipped);
        ranges.flatten().map(Era)
    }

    fn is_canonical(ranges: &[EraRange]) -> bool {
        let has_gap = |pair: &[EraRange]| pair[0].last.0.saturating_add(1) < pair[1].first.0;
        ranges.len() <= ERA_RANGES_MAX
            && ranges.iter().all(|range| range.first <= range.last)
            && ranges.windows(2).all(has_gap)
    }
}

impl<Context> Decode<Context> for EraRanges {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let ranges = Vec::<EraRange>::decode(decoder)?;
        if !Self::is_canonical(&ranges) {
            return Err(DecodeError::Other("ranges of eras out of order, or too many of them"));
        }
        Ok(Self(ranges))
    }
}

bincode::impl_borrow_decode!(EraRanges);

/// What a node says of the eras that it keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Announcement {
    /// Whether it is an archive node: it keeps eras by their places, as its budget allows. Other
    /// nodes keep the newest eras alone. Their copies count, but they have no place.
    pub is_archive: bool,
    /// The eras that it keeps and does not mean to drop.
    pub eras: EraRanges,
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use ledger::codec;

    use super::*;
    use crate::lots::Lots;

    #[test]
    fn a_set_has_exactly_its_eras() {
        let mut lots = Lots::new(1);
        for _ in 0..200 {
            let eras: BTreeSet<Era> = (0..30).map(|_| Era(lots.below(60))).collect();
            let set = EraRanges::of(eras.iter().copied());
            assert!(EraRanges::is_canonical(&set.0), "{set:?}");
            assert!((0..70).map(Era).all(|era| set.contains(era) == eras.contains(&era)));
            let end = Era(lots.below(70));
            assert!(set.below(end).eq(eras.range(..end).copied()));
        }
        let all = EraRanges(vec![EraRange { first: Era(0), last: Era(u64::MAX) }]);
        assert!(all.contains(Era(u64::MAX)) && all.below(Era(0)).next().is_none());
        assert_eq!(all.below(Era(2)).collect::<Vec<_>>(), [Era(0), Era(1)]);
    }

    #[test]
    fn only_ranges_in_order_with_gaps_decode_and_the_newest_are_announced() {
        let range = |first, last| EraRange { first: Era(first), last: Era(last) };
        let many = |count: u64| (0..count).map(|at| range(2 * at, 2 * at)).collect();
        let most = ERA_RANGES_MAX as u64;
        for (ranges, expected) in [
            (vec![], true),
            (vec![range(3, 3), range(5, 9)], true),
            (vec![range(0, u64::MAX)], true),
            (vec![range(3, 3), range(4, 9)], false),
            (vec![range(3, 5), range(5, 9)], false),
            (vec![range(5, 9), range(3, 3)], false),
            (vec![range(4, 3)], false),
            (many(most), true),
            (many(most + 1), false),
        ] {
            let decoded = codec::decode::<EraRanges>(&codec::encode(&ranges), 1 << 20);
            assert_eq!(decoded.is_ok(), expected, "{ranges:?}");
        }
        let set = EraRanges::of((0..=most).map(|at| Era(2 * at)));
        assert!(!set.contains(Era(0)) && set.contains(Era(2)) && set.contains(Era(2 * most)));
    }
}
