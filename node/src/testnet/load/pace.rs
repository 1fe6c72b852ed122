//! When transfers of a load are due: evenly spaced, whatever happened to those before.

use std::time::Duration;

use tokio::time::Instant;

/// Highest rate, in transfers per second. Four validators on two cores make about 3,000 a second
/// final, so a higher rate would only fill the mempool.
pub(in crate::testnet) const RATE_MAX: u32 = 5_000;

/// Reads a rate: `50/s`. `0/s` is no load.
pub(in crate::testnet) fn rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").filter(|number| !number.starts_with('+'));
    number.and_then(|number| number.parse().ok()).filter(|rate| *rate <= RATE_MAX).ok_or_else(
        || {
            format!(
                "{text:?} is no rate: expected transfers a second, as in 50/s, at most {RATE_MAX}/s"
            )
        },
    )
}

/// The times of a load.
pub(super) struct Pace {
    start: Instant,
    per_second: u32,
    /// Transfers that were due so far.
    count: u64,
    /// Nothing is due from this time on.
    end: Option<Instant>,
}

impl Pace {
    pub(super) const fn new(start: Instant, per_second: u32) -> Self {
        Self { start, per_second, count: 0, end: None }
    }

    /// Lets no transfer become due from this long after the start on.
    pub(super) fn rest(&mut self, after: Duration) {
        self.end = self.start.checked_add(after);
    }

    /// When the next transfer is due. `None` if there is none.
    pub(super) fn due(&self) -> Option<Instant> {
        // The first one is due at the start. Computed from the start, so that no error adds up.
        let nanos = u128::from(self.count) * 1_000_000_000 / u128::from(self.per_second.max(1));
        let since = Duration::from_nanos(u64::try_from(nanos).ok()?);
        let due = self.start.checked_add(since)?;
        (self.per_second > 0 && self.end.is_none_or(|end| due < end)).then_some(due)
    }

    /// The next transfer that is due by now. Each call gives another one.
    pub(super) fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.due().filter(|due| *due <= now)?;
        self.count += 1;
        Some(due)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_whole_numbers_a_second() {
        for (text, expected) in [
            ("50/s", Some(50)),
            ("0/s", Some(0)),
            ("1/s", Some(1)),
            ("5000/s", Some(5_000)),
            ("5001/s", None),
            ("50", None),
            ("/s", None),
            ("-1/s", None),
            ("+1/s", None),
            ("1.5/s", None),
            ("50/m", None),
            ("50 /s", None),
            ("99999999999/s", None),
            ("", None),
        ] {
            assert_eq!(rate(text).ok(), expected, "{text:?}");
        }
        assert!(rate("50").unwrap_err().contains("as in 50/s"));
    }

    #[test]
    fn transfers_are_evenly_spaced_and_end_in_time() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let mut pace = Pace::new(start, 50);
        assert_eq!(pace.take(start), Some(start));
        assert_eq!(pace.take(start + ms(19)), None);
        // After a pause all that became due comes at once, each with its own time.
        let late: Vec<_> = std::iter::from_fn(|| pace.take(start + ms(60))).collect();
        assert_eq!(late, [start + ms(20), start + ms(40), start + ms(60)]);
        pace.rest(ms(20_000));
        let rest = std::iter::from_fn(|| pace.take(start + ms(60_000))).count();
        assert_eq!((rest + 4, pace.due()), (1_000, None), "50 a second for 20 s");

        let mut thirds = Pace::new(start, 3);
        let count = std::iter::from_fn(|| thirds.take(start + ms(3_600_000 - 1))).count();
        assert_eq!(count, 3 * 3_600, "no error adds up");
        assert_eq!(Pace::new(start, 0).due(), None);
    }
}
