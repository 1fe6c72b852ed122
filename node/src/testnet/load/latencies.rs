//! How long transfers took: a histogram, so that a long load takes no more memory than a short one.

use std::time::Duration;

/// Each time below this many milliseconds has a count of its own.
const EXACT: u64 = 256;
/// Counts for each doubling above [`EXACT`]. The times of one count differ by less than 1%.
const STEPS: u64 = EXACT / 2;
/// Doublings above [`EXACT`]: up to 2^22 ms, which is 70 minutes. Longer times share the last
/// count. Transfers of a load expire after an hour.
const DOUBLINGS: u64 = 22 - EXACT.ilog2() as u64;

/// Times in milliseconds.
#[derive(Clone, Debug)]
pub(super) struct Latencies {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        let places = usize::try_from(EXACT + DOUBLINGS * STEPS).unwrap_or_default();
        Self { counts: vec![0; places], total: 0, max: 0 }
    }
}

/// The index of the count for a time in milliseconds.
fn place(ms: u64) -> u64 {
    if ms < EXACT {
        return ms;
    }
    // 256..512 is doubling 0 with steps of 2, 512..1024 is doubling 1 with steps of 4.
    let doubling = u64::from(ms.ilog2() - EXACT.ilog2());
    EXACT + doubling * STEPS + (ms >> (doubling + 1)) - STEPS
}

/// The shortest time that the count at this index is for, in milliseconds.
const fn least(place: u64) -> u64 {
    if place < EXACT {
        return place;
    }
    let (doubling, step) = ((place - EXACT) / STEPS, (place - EXACT) % STEPS);
    (step + STEPS) << (doubling + 1)
}

impl Latencies {
    pub(super) fn add(&mut self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let last = self.counts.len() - 1;
        let place = usize::try_from(place(ms)).map_or(last, |place| place.min(last));
        self.counts[place] += 1;
        self.total += 1;
        self.max = self.max.max(ms);
    }

    /// The time that `percent` of 100 transfers do not exceed, in milliseconds, rounded down by
    /// less than 1% if it is below 70 minutes. `None` before the first transfer.
    pub(super) fn percentile(&self, percent: u64) -> Option<u64> {
        // The nearest rank: of 1 to 100, the 99th percentile is 99.
        let rank = (self.total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let place = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(least(place as u64))
    }

    /// The longest time, in milliseconds.
    pub(super) fn max(&self) -> Option<u64> {
        (self.total > 0).then_some(self.max)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(times: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::default();
        times.into_iter().for_each(|ms| latencies.add(Duration::from_millis(ms)));
        latencies
    }

    #[test]
    fn each_time_has_a_count_that_is_close() {
        let mut last = 0;
        for ms in (0..2_000).chain((2_000..1 << 22).step_by(997)) {
            let found = place(ms);
            assert!(found >= last, "{ms}");
            last = found;
            let least = least(found);
            assert!(least <= ms && (ms - least) * 100 <= ms, "{ms}: {least}");
        }
        assert_eq!(usize::try_from(place((1 << 22) - 1)).unwrap(), of([]).counts.len() - 1);
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        assert_eq!((of([]).percentile(50), of([]).max()), (None, None));
        assert_eq!((of([7]).percentile(50), of([7]).percentile(99)), (Some(7), Some(7)));
        assert_eq!(of([1, 2, 3]).percentile(50), Some(2), "the rank is rounded up");
        let hundred = of((1..=100).rev());
        assert_eq!(hundred.percentile(50), Some(50));
        assert_eq!((hundred.percentile(99), hundred.max()), (Some(99), Some(100)));
        let skewed = of((0..990).map(|_| 60).chain((0..10).map(|_| 61_000)));
        assert_eq!((skewed.percentile(50), skewed.percentile(99)), (Some(60), Some(60)));
        assert_eq!(skewed.max(), Some(61_000));
        // Beyond the last count only the longest time is exact.
        let long = of([u64::MAX]);
        assert!(long.percentile(50).unwrap() > 4_000_000 && long.max() == Some(u64::MAX));
    }
}
