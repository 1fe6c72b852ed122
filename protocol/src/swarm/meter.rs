//! Measured rates, and limits of rates.

use std::time::Duration;

/// After this much busy time, the weight of earlier measurements is halved.
const MEMORY: Duration = Duration::from_secs(2);

/// A rate over busy time. The weight of earlier measurements is halved from time to time, but only
/// if all measurements together then still weigh as much as `LEAST` new ones.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter<const LEAST: u32 = 0> {
    bytes: u64,
    busy: Duration,
    count: u32,
}

impl<const LEAST: u32> Meter<LEAST> {
    pub(crate) const DEFAULT: Self = Self { bytes: 0, busy: Duration::ZERO, count: 0 };

    /// `bytes` arrived in `busy` time.
    pub(crate) fn add(&mut self, bytes: u64, busy: Duration) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.busy = self.busy.saturating_add(busy);
        self.count = self.count.saturating_add(1);
        while self.busy > MEMORY && self.count >= LEAST.saturating_mul(2) {
            self.bytes /= 2;
            self.count /= 2;
            self.busy = self.busy.checked_div(2).unwrap_or_default();
        }
    }

    /// Bytes per second; none before the first bytes.
    pub(crate) fn rate(&self) -> Option<u64> {
        // Busy time below a millisecond counts as one: so short a burst says little about the rate.
        (self.bytes > 0).then(|| per_second(self.bytes, self.busy.max(Duration::from_millis(1))))
    }
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    let micros = time.as_micros().max(1);
    u64::try_from(u128::from(bytes).saturating_mul(1_000_000).checked_div(micros).unwrap_or(0))
        .unwrap_or(u64::MAX)
}

/// Bytes that move at a rate in this time.
pub(crate) fn bytes_in(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate).saturating_mul(time.as_micros()) / 1_000_000).unwrap_or(u64::MAX)
}

/// Time that bytes take at a rate, at most a day.
pub(crate) fn time_for(bytes: u64, rate: u64) -> Duration {
    let micros = u128::from(bytes)
        .saturating_mul(1_000_000)
        .checked_div(u128::from(rate))
        .unwrap_or(u128::MAX);
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
        .min(Duration::from_secs(86_400))
}

/// A rate limit, as a token bucket that holds a tenth of a second's worth. One chunk may overdraw
/// it, so that even a limit far below a chunk per second lets chunks through.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Bytes per second; `None` means unlimited.
    rate: Option<u64>,
    level: u64,
    debt: u64,
    filled_at: Duration,
}

impl Limit {
    /// A limit of this many bytes per second; `None` means unlimited.
    #[must_use]
    pub const fn new(rate: Option<u64>) -> Self {
        Self { rate, level: 0, debt: 0, filled_at: Duration::ZERO }
    }

    /// Bytes per second; `None` means unlimited.
    pub(crate) const fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// When the bucket will be out of debt. `None` if it has no debt now.
    pub fn opens_at(&mut self, now: Duration) -> Option<Duration> {
        let rate = self.rate?;
        let filled = bytes_in(rate, now.saturating_sub(self.filled_at));
        if filled > 0 {
            self.filled_at = now;
            let paid = filled.min(self.debt);
            self.debt = self.debt.saturating_sub(paid);
            self.level = self.level.saturating_add(filled.saturating_sub(paid)).min(rate / 10);
        }
        // One microsecond is added, so that rounding never returns the same moment again.
        let wait = time_for(self.debt, rate).saturating_add(Duration::from_micros(1));
        (self.debt > 0).then(|| now.saturating_add(wait))
    }

    /// Takes bytes out of the bucket.
    pub fn take(&mut self, bytes: u64) {
        if self.rate.is_some() {
            let paid = bytes.min(self.level);
            self.level = self.level.saturating_sub(paid);
            self.debt = self.debt.saturating_add(bytes.saturating_sub(paid));
        }
    }
}

/// Work that peers may cause, in units of the caller's choice: a token bucket that begins full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// Units per second.
    rate: u64,
    most: u64,
    left: u64,
    /// Units that were taken and were not left. What fills the bucket pays them first.
    debt: u64,
    filled_at: Duration,
}

impl Allowance {
    /// `rate` units per second, and a burst of `most`.
    pub(crate) const fn new(rate: u64, most: u64) -> Self {
        Self { rate, most, left: most, debt: 0, filled_at: Duration::ZERO }
    }

    /// Whether this many units are left.
    pub(crate) fn has(&mut self, units: u64, now: Duration) -> bool {
        let filled = bytes_in(self.rate, now.saturating_sub(self.filled_at));
        if filled > 0 {
            self.filled_at = now;
            let paid = filled.min(self.debt);
            self.debt = self.debt.saturating_sub(paid);
            self.left = self.left.saturating_add(filled.saturating_sub(paid)).min(self.most);
        }
        self.left >= units
    }

    /// Takes units, also such that are not left.
    pub(crate) fn take(&mut self, units: u64) {
        let paid = units.min(self.left);
        self.left = self.left.saturating_sub(paid);
        self.debt = self.debt.saturating_add(units.saturating_sub(paid));
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_follows_the_recent_rate() {
        let mut meter = Meter::<0>::default();
        assert_eq!(meter.rate(), None);
        for _ in 0..50 {
            meter.add(1_000, Duration::from_millis(100));
        }
        assert_eq!(meter.rate(), Some(10_000));
        for _ in 0..100 {
            meter.add(5_000, Duration::from_millis(100));
        }
        assert!((49_000..=50_000).contains(&meter.rate().unwrap_or(0)), "{meter:?}");
    }

    #[test]
    fn a_meter_of_many_measurements_does_not_jump_with_those_that_come_together() {
        let mut meter = Meter::<16>::default();
        for round in 0..100 {
            for seconds in [10, 0, 0, 0] {
                meter.add(100_000, Duration::from_secs(seconds));
            }
            assert!((35_000..=45_000).contains(&meter.rate().unwrap_or(0)), "{round}: {meter:?}");
        }
    }

    #[test]
    fn a_limit_lets_through_its_rate_and_no_more() {
        let (mut limit, mut now, mut sent) = (Limit::new(Some(100_000)), Duration::ZERO, 0u64);
        while now < Duration::from_secs(10) {
            match limit.opens_at(now) {
                None => {
                    limit.take(30_000);
                    sent += 30_000;
                }
                Some(at) => {
                    assert!(at > now);
                    now = at;
                }
            }
        }
        assert!((950_000..=1_060_000).contains(&sent), "{sent}");
        let mut none = Limit::new(None);
        none.take(u64::MAX);
        assert_eq!(none.opens_at(Duration::ZERO), None);
    }

    #[test]
    fn an_allowance_fills_with_time_and_holds_so_much() {
        let mut allowance = Allowance::new(100, 1_000);
        let at = Duration::from_secs;
        assert!(allowance.has(1_000, at(0)) && !allowance.has(1_001, at(0)));
        allowance.take(1_000);
        assert!(!allowance.has(1, at(0)));
        assert!(allowance.has(500, at(5)) && !allowance.has(501, at(5)));
        allowance.take(500);
        assert!(allowance.has(1_000, at(1_000)) && !allowance.has(1_001, at(1_000)));
        // What was not left is paid first.
        allowance.take(1_500);
        assert!(!allowance.has(1, at(1_005)) && allowance.has(100, at(1_006)));
    }
}
