//! The cost accounts of all peers. The network, the driver and sync share them, and each charges
//! the work that it does.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::budget::{Budget, BudgetReport, Cost};

use crate::clock::Clock;

/// Most accounts. A peer that leaves keeps its account until its budget is full again, so a new
/// connection brings no new budget. Beyond this bound, accounts with a full budget are forgotten.
/// If that is not enough, those with at least the median budget left are forgotten too.
const ACCOUNTS_MAX: usize = 4_096;

/// Most bytes of a request or a record of Kademlia. Each is charged as many, since nobody counts
/// them.
const KADEMLIA_BYTES_MAX: usize = 16 << 10;

/// Look-ups that such a request or record causes: the 20 nearest peers, and what is known of the
/// sender and of the key.
const KADEMLIA_LOOK_UPS: u64 = 40;

/// The accounts. Cheap to clone: all clones share them.
#[derive(Clone, Debug)]
pub struct Accounts<Peer>(Arc<Mutex<Books<Peer>>>);

#[derive(Debug)]
struct Books<Peer> {
    clock: Clock,
    budgets: HashMap<Peer, Budget>,
    /// Peers that the operator named.
    named: HashSet<Peer>,
}

impl<Peer: Copy + Eq + Hash> Default for Accounts<Peer> {
    fn default() -> Self {
        let books = Books { clock: Clock::start(), budgets: HashMap::new(), named: HashSet::new() };
        Self(Arc::new(Mutex::new(books)))
    }
}

impl<Peer: Copy + Eq + Hash> Accounts<Peer> {
    /// Marks the peer as named by the operator. Its old account is replaced by a full one, with the
    /// larger budget of named peers.
    pub fn name(&self, peer: Peer) {
        let mut books = self.lock();
        if books.named.insert(peer) {
            books.budgets.remove(&peer);
        }
    }

    /// Whether the operator named the peer.
    #[must_use]
    pub fn is_named(&self, peer: &Peer) -> bool {
        self.lock().named.contains(peer)
    }

    /// Whether the peer may cause more work now. A refusal is counted in its account.
    #[must_use]
    pub fn admits(&self, peer: &Peer) -> bool {
        let mut books = self.lock();
        let now = books.now();
        books.budget(peer, now).admits(now)
    }

    /// Subtracts work that was done for a peer from its budget.
    pub fn charge(&self, peer: &Peer, cost: &Cost) {
        let mut books = self.lock();
        let now = books.now();
        books.budget(peer, now).charge(now, cost);
    }

    /// Subtracts the price of a request of this many bytes from the peer's budget.
    pub fn charge_request(&self, peer: &Peer, bytes: usize) {
        self.charge(peer, &Cost::request(bytes));
    }

    /// Subtracts the price of a request or a record of Kademlia from the peer's budget.
    pub fn charge_kademlia(&self, peer: &Peer) {
        let cost = Cost::request(KADEMLIA_BYTES_MAX);
        self.charge(peer, &cost.and(Cost::look_ups(KADEMLIA_LOOK_UPS, 0)));
    }

    /// A peer's account as of now.
    #[must_use]
    pub fn report(&self, peer: &Peer) -> BudgetReport {
        let mut books = self.lock();
        let now = books.now();
        books.budget(peer, now).report(now)
    }

    fn lock(&self) -> MutexGuard<'_, Books<Peer>> {
        // Accounts are plain numbers, so a panic elsewhere leaves them consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Peer: Copy + Eq + Hash> Books<Peer> {
    fn now(&self) -> Duration {
        self.clock.now().elapsed
    }

    fn budget(&mut self, peer: &Peer, now: Duration) -> &mut Budget {
        if self.budgets.len() >= ACCOUNTS_MAX && !self.budgets.contains_key(peer) {
            self.budgets.retain(|_, budget| !budget.is_full(now));
            self.forget_half(now);
        }
        let is_named = self.named.contains(peer);
        self.budgets.entry(*peer).or_insert_with(|| Budget::new(now, is_named))
    }

    /// Drops the accounts with at least the median budget left, if there are too many. That is at
    /// least half of them, so one pass makes room for thousands of new peers.
    fn forget_half(&mut self, now: Duration) {
        if self.budgets.len() < ACCOUNTS_MAX {
            return;
        }
        let mut lefts: Vec<i64> =
            self.budgets.values_mut().map(|budget| budget.report(now).left).collect();
        let middle = lefts.len() / 2;
        let (_, median, _) = lefts.select_nth_unstable(middle);
        let median = *median;
        self.budgets.retain(|_, budget| budget.report(now).left < median);
    }
}

#[cfg(test)]
mod tests {
    use protocol::budget::KEPT;

    use super::*;

    #[test]
    fn accounts_are_shared_and_debts_outlive_what_is_forgotten() {
        let accounts = Accounts::<u32>::default();
        let other = accounts.clone();
        let debt = Cost { verify: 10_000 * KEPT, ..Cost::NONE };
        other.charge(&1, &debt);
        assert!(!accounts.admits(&1), "what one charges all see");
        assert_eq!(accounts.report(&1).refused, 1);
        for peer in 2..3 * ACCOUNTS_MAX as u32 {
            // No budget is full, so accounts with less than a full budget must be forgotten.
            accounts.charge(&peer, &Cost { decode: KEPT / 2, ..Cost::NONE });
        }
        assert!(accounts.lock().budgets.len() <= ACCOUNTS_MAX);
        assert!(!accounts.admits(&1), "a debt is not forgotten for those who have none");
        accounts.name(1);
        assert!(accounts.admits(&1));
        assert_eq!(accounts.report(&1).left, 2 * KEPT.cast_signed());
    }
}
