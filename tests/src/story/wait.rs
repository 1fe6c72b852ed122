//! Waiting for events, with a deadline that only a broken node misses.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Deadline of any event: far more than it needs, as test machines are busy.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two polls. Nothing else in the stories sleeps to wait.
const POLL: Duration = Duration::from_millis(40);
const SHORT_POLL: Duration = Duration::from_millis(1);

/// Polls until `look` returns a value.
///
/// # Panics
/// After two minutes without a value; the message says what was waited for.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    look_each(POLL, what, look)
}

/// Like [`until`], but polls every millisecond, for a state that passes quickly.
///
/// # Panics
/// After two minutes without a value; the message says what was waited for.
pub fn at_once<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    look_each(SHORT_POLL, what, look)
}

fn look_each<T>(pause: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
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
