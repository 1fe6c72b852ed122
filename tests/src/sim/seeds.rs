//! Runs many seeds on all cores.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Failure, Summary};

/// A seed and its result.
pub type Outcome = (u64, Result<Summary, Failure>);

/// Runs `count` seeds from 0 on, each on one thread, or fewer if the outcomes so far are enough.
pub fn each_seed(
    count: u64,
    live: impl Fn(u64) -> Result<Summary, Failure> + Sync,
    is_enough: impl Fn(&[Outcome]) -> bool + Sync,
) -> Vec<Outcome> {
    let next = AtomicU64::new(0);
    let outcomes = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count
                        || is_enough(&outcomes.lock().unwrap_or_else(PoisonError::into_inner))
                    {
                        return;
                    }
                    let outcome = live(seed);
                    if let Err(failure) = &outcome {
                        // The failure is printed at once, as the whole run takes a while.
                        println!("{failure}");
                    }
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((seed, outcome));
                }
            });
        }
    });
    outcomes.into_inner().unwrap_or_else(PoisonError::into_inner)
}
