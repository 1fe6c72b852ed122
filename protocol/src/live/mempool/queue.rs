//! The waiting transactions of one sender.

use std::collections::VecDeque;
use std::sync::Arc;

use ledger::state::Account;
use ledger::transaction::VerifiedTransaction;
use ledger::units::{Amount, Nonce};

use super::rate::Place;

/// A waiting transaction, and the total that its sender pays for it.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) transaction: Arc<VerifiedTransaction>,
    /// Sum of the outputs and the fee.
    pub(super) needed: Amount,
}

impl Waiting {
    fn nonce(&self) -> Nonce {
        self.transaction.transfer().nonce
    }
}

/// Rank of a transaction when room is needed: the lowest leaves first.
///
/// A transaction behind a gap can go into no block, so it never pays. If its rate counted against
/// transactions that do pay, anybody could empty the mempool for free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Standing {
    pub(super) in_order: bool,
    pub(super) place: Place,
}

/// One sender's transactions by nonce: each nonce at most once, none below the account's next
/// nonce.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    next: Nonce,
    waiting: VecDeque<Waiting>,
    /// Sum of what the sender pays for all of `waiting`.
    needed: u128,
}

impl Queue {
    /// An empty queue of an account whose next nonce is `next`.
    pub(super) const fn new(next: Nonce) -> Self {
        Self { next, waiting: VecDeque::new(), needed: 0 }
    }

    /// The account's next nonce.
    pub(super) const fn next(&self) -> Nonce {
        self.next
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn position(&self, nonce: Nonce) -> Result<usize, usize> {
        self.waiting.binary_search_by_key(&nonce, Waiting::nonce)
    }

    pub(super) fn get(&self, nonce: Nonce) -> Option<&Waiting> {
        self.waiting.get(self.position(nonce).ok()?)
    }

    /// Whether the transaction at this position follows the account's nonce without a gap.
    fn in_order(&self, position: usize, waiting: &Waiting) -> bool {
        // Nonces increase by at least 1 from `next` on, so any gap before this position shows.
        waiting.nonce().0.checked_sub(self.next.0) == Some(position as u64)
    }

    /// The transaction at this position, if no nonce before it is missing.
    pub(super) fn executable(&self, position: usize) -> Option<&Arc<VerifiedTransaction>> {
        let waiting = self.waiting.get(position)?;
        self.in_order(position, waiting).then_some(&waiting.transaction)
    }

    /// The first nonce, from the account's next one on, of which no transaction waits.
    pub(super) fn free_nonce(&self) -> Nonce {
        let (mut low, mut high) = (0, self.waiting.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.executable(middle).is_some() {
                low = middle.saturating_add(1)
            } else {
                high = middle
            }
        }
        Nonce(self.next.0.saturating_add(low as u64))
    }

    /// The rank of the transaction of this nonce.
    pub(super) fn standing(&self, nonce: Nonce) -> Option<Standing> {
        self.standing_at(self.position(nonce).ok()?)
    }

    fn standing_at(&self, position: usize) -> Option<Standing> {
        let waiting = self.waiting.get(position)?;
        Some(Standing {
            in_order: self.in_order(position, waiting),
            place: Place::of(&waiting.transaction),
        })
    }

    /// The place of the account's next transaction, if it waits here.
    pub(super) fn head(&self) -> Option<Place> {
        self.executable(0).map(|transaction| Place::of(transaction))
    }

    /// The highest nonce that waits.
    pub(super) fn last_nonce(&self) -> Option<Nonce> {
        self.waiting.back().map(Waiting::nonce)
    }

    /// The rank of the transaction of the highest nonce.
    pub(super) fn tail(&self) -> Option<Standing> {
        self.standing_at(self.waiting.len().checked_sub(1)?)
    }

    /// Total that the sender pays for all transactions before this nonce, plus `needed` for the
    /// transaction of this nonce.
    pub(super) fn needed_with(&self, nonce: Nonce, needed: Amount) -> u128 {
        let before = self.waiting.iter().take_while(|waiting| waiting.nonce() < nonce);
        before.fold(needed.0.into(), |sum, waiting| sum.saturating_add(waiting.needed.0.into()))
    }

    /// Total that the sender pays for all waiting transactions.
    pub(super) const fn needed(&self) -> u128 {
        self.needed
    }

    /// Adds a transaction.
    ///
    /// # Panics
    /// When its nonce is used or taken.
    pub(super) fn insert(&mut self, waiting: Waiting) {
        let nonce = waiting.nonce();
        assert!(
            nonce >= self.next,
            "what waits has no used nonce: {nonce}, the next is {}",
            self.next
        );
        let Err(position) = self.position(nonce) else {
            panic!("a nonce waits once per sender: {nonce}")
        };
        self.needed = self.needed.saturating_add(waiting.needed.0.into());
        self.waiting.insert(position, waiting);
    }

    /// Removes the transaction of this nonce.
    pub(super) fn remove(&mut self, nonce: Nonce) -> Option<Waiting> {
        let waiting = self.waiting.remove(self.position(nonce).ok()?);
        self.without(waiting)
    }

    /// Brings the queue in line with its account. Removes transactions with used nonces, and from
    /// the end those that the balance does not cover.
    pub(super) fn settle(&mut self, account: &Account) -> Vec<Waiting> {
        let mut removed = Vec::new();
        self.next = account.nonce;
        while self.waiting.front().is_some_and(|first| first.nonce() < account.nonce) {
            let first = self.waiting.pop_front();
            removed.extend(self.without(first));
        }
        while self.needed > u128::from(account.balance.0) {
            let last = self.waiting.pop_back();
            removed.extend(self.without(last));
        }
        removed
    }

    fn without(&mut self, removed: Option<Waiting>) -> Option<Waiting> {
        self.needed = self
            .needed
            .saturating_sub(removed.as_ref().map_or(0, |waiting| waiting.needed.0.into()));
        removed
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter()
    }
}
