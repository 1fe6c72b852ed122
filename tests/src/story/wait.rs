//! Waiting for what happens, with a deadline that only a broken node misses.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long anything may take: far more than it does, as machines that test are busy.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two looks. Nothing else in the stories sleeps to wait.
const POLL: Duration = Duration::from_millis(40);
const SHORT_POLL: Duration = Duration::from_millis(1);

/// Looks until there is something.
///
/// # Panics
/// When there is nothing for two minutes, with what was waited for.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    look_each(POLL, what, look)
}

/// The same for a moment that passes quickly.
///
/// # Panics
/// When there is nothing for two minutes, with what was waited for.
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

/// Looks for as long as this: for what must stay as it is.
pub fn throughout(time: Duration, mut look: impl FnMut()) {
    let start = Instant::now();
    while start.elapsed() < time {
        look();
        sleep(POLL);
    }
    look();
}

/// A random moment from now: not to wait for anything, but so that what follows comes at any time.
pub fn pause_up_to(time: Duration) {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    sleep(time * (clock.subsec_micros() % 1_000) / 1_000);
}
