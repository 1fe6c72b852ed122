//! Waiting for events, with a deadline that only a broken node misses.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Deadline of any event: far more than it needs, as test machines are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two polls, except where a state passes quickly.
const POLL: Duration = Duration::from_millis(40);
const SHORT_POLL: Duration = Duration::from_millis(1);

/// Polls until `look` returns a value.
///
/// # Panics
/// After two minutes without a value; the message says what was waited for.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    look_each(POLL, PATIENCE, look).unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain: {what}"))
}

/// Like [`until`], but polls every millisecond, for a state that passes quickly.
///
/// # Panics
/// After two minutes without a value; the message says what was waited for.
pub fn at_once<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    look_each(SHORT_POLL, PATIENCE, look)
        .unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain: {what}"))
}

/// Polls until `look` returns a value; `None` after this time. Looks at least once.
pub(crate) fn poll<T>(time: Duration, look: impl FnMut() -> Option<T>) -> Option<T> {
    look_each(POLL, time, look)
}

/// Like [`poll`], but polls every millisecond.
pub(crate) fn poll_at_once<T>(time: Duration, look: impl FnMut() -> Option<T>) -> Option<T> {
    look_each(SHORT_POLL, time, look)
}

fn look_each<T>(pause: Duration, time: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if start.elapsed() >= time {
            return None;
        }
        sleep(pause);
    }
}

/// Calls `look` repeatedly for this long, to check that a state does not change.
pub fn throughout(time: Duration, mut look: impl FnMut()) {
    let start = Instant::now();
    while start.elapsed() < time {
        look();
        sleep(POLL);
    }
    look();
}

/// Sleeps for a random time. This is not a wait: it makes the next step come at any moment.
pub fn pause_up_to(time: Duration) {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    sleep(time * (clock.subsec_micros() % 1_000) / 1_000);
}
