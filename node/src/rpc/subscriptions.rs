//! Who gets blocks pushed.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most subscriptions of a connection.
pub(super) const SUBSCRIPTIONS_MAX: usize = 8;

/// The block subscriptions of a connection, by number.
#[derive(Default)]
pub(super) struct Subscriptions(Mutex<Numbers>);

#[derive(Default)]
struct Numbers {
    last: u32,
    active: Vec<u32>,
}

impl Subscriptions {
    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        // Numbers are plain data: a panic elsewhere leaves nothing half-done in them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a new one, if there is room for it.
    pub(super) fn add(&self) -> Option<u32> {
        let mut numbers = self.numbers();
        if numbers.active.len() >= SUBSCRIPTIONS_MAX {
            return None;
        }
        numbers.last = numbers.last.wrapping_add(1);
        let number = numbers.last;
        numbers.active.push(number);
        Some(number)
    }

    /// Ends one; false if there is none of this number.
    pub(super) fn remove(&self, number: u32) -> bool {
        let mut numbers = self.numbers();
        let before = numbers.active.len();
        numbers.active.retain(|active| *active != number);
        numbers.active.len() < before
    }

    pub(super) fn is_empty(&self) -> bool {
        self.numbers().active.is_empty()
    }

    pub(super) fn active(&self) -> Vec<u32> {
        self.numbers().active.clone()
    }

    /// Ends all of them and says which they were.
    pub(super) fn clear(&self) -> Vec<u32> {
        std::mem::take(&mut self.numbers().active)
    }
}
