//! Subscriptions to new blocks.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most subscriptions per connection.
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
        // Numbers are plain data, so a panic elsewhere leaves them consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a subscription and returns its number; `None` if there are too many.
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

    /// Ends a subscription. False if there is none with this number.
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

    /// Ends all subscriptions and returns their numbers.
    pub(super) fn clear(&self) -> Vec<u32> {
        std::mem::take(&mut self.numbers().active)
    }
}
