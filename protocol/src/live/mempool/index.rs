//! All waiting transactions and the indices over them. All of these change together or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ledger::hash::{TxHash, TxId};
use ledger::signature::PublicKey;
use ledger::state::Account;
use ledger::transaction::VerifiedTransaction;
use ledger::units::{Nonce, Timestamp};

use super::queue::{Queue, Standing, Waiting};
use super::rate::Place;

/// The queues of all senders, and the indices derived from them.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// None of the queues is empty.
    queues: BTreeMap<PublicKey, Queue>,
    by_hash: BTreeMap<TxHash, Arc<VerifiedTransaction>>,
    by_id: BTreeMap<TxId, Arc<VerifiedTransaction>>,
    by_expiry: BTreeSet<(Timestamp, TxHash)>,
    by_place: BTreeMap<Place, Arc<VerifiedTransaction>>,
    /// The next transaction of each account, if it waits here.
    heads: BTreeMap<Place, PublicKey>,
    /// The last transaction of each queue.
    tails: BTreeMap<Standing, PublicKey>,
    bytes: usize,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.by_hash.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, hash: &TxHash) -> Option<&Arc<VerifiedTransaction>> {
        self.by_hash.get(hash)
    }

    pub(super) fn find(&self, id: &TxId) -> Option<&Arc<VerifiedTransaction>> {
        self.by_id.get(id)
    }

    pub(super) fn queue(&self, sender: &PublicKey) -> Option<&Queue> {
        self.queues.get(sender)
    }

    /// All waiting transactions, highest fee per byte first.
    pub(super) fn best(&self) -> impl Iterator<Item = &Arc<VerifiedTransaction>> {
        self.by_place.values().rev()
    }

    /// The next transaction of each account, if it waits here; lowest fee per byte first.
    pub(super) const fn heads(&self) -> &BTreeMap<Place, PublicKey> {
        &self.heads
    }

    /// The transaction that leaves first when room is needed.
    pub(super) fn weakest(&self) -> Option<(Standing, PublicKey, Nonce)> {
        let (standing, sender) = self.tails.first_key_value()?;
        Some((*standing, *sender, self.queues.get(sender)?.last_nonce()?))
    }

    /// The transaction that expires first, if its last valid time is before `time`.
    pub(super) fn expired(&self, time: Timestamp) -> Option<&Arc<VerifiedTransaction>> {
        let (expires_at, hash) = self.by_expiry.first()?;
        if *expires_at < time { self.get(hash) } else { None }
    }

    /// Adds a transaction of an account whose next nonce is `next`.
    ///
    /// # Panics
    /// When the nonce is used or taken, or the queue has another next nonce. Then a committed block
    /// was not reported to the mempool.
    pub(super) fn insert(&mut self, next: Nonce, waiting: Waiting) {
        let transaction = &waiting.transaction;
        let (hash, transfer) = (transaction.hash(), transaction.transfer());
        self.by_hash.insert(hash, Arc::clone(transaction));
        self.by_id.insert(transaction.id(), Arc::clone(transaction));
        self.by_expiry.insert((transfer.expires_at, hash));
        self.by_place.insert(Place::of(transaction), Arc::clone(transaction));
        self.bytes = self.bytes.saturating_add(transaction.bytes());
        self.change(transfer.sender, next, |queue| {
            assert!(
                queue.next() == next,
                "the mempool hears of every block: next nonce {next}, was {}",
                queue.next()
            );
            queue.insert(waiting);
        });
    }

    /// Removes the transaction of this sender and nonce.
    pub(super) fn remove(&mut self, sender: PublicKey, nonce: Nonce) -> Option<Waiting> {
        let queue = self.queues.get(&sender)?;
        queue.get(nonce)?;
        let removed = self.change(sender, queue.next(), |queue| queue.remove(nonce));
        removed.inspect(|waiting| self.forget(&waiting.transaction))
    }

    /// Brings a sender's queue in line with its account. Returns the removed transactions.
    pub(super) fn settle(&mut self, sender: PublicKey, account: &Account) -> Vec<Waiting> {
        if !self.queues.contains_key(&sender) {
            return Vec::new();
        }
        let removed = self.change(sender, account.nonce, |queue| queue.settle(account));
        removed.iter().for_each(|waiting| self.forget(&waiting.transaction));
        removed
    }

    fn forget(&mut self, transaction: &VerifiedTransaction) {
        self.by_hash.remove(&transaction.hash());
        self.by_id.remove(&transaction.id());
        self.by_expiry.remove(&(transaction.transfer().expires_at, transaction.hash()));
        self.by_place.remove(&Place::of(transaction));
        self.bytes = self.bytes.saturating_sub(transaction.bytes());
    }

    /// Changes a queue, and updates the indices of its ends. Queues are changed in no other way. An
    /// absent queue begins empty, with `next`.
    fn change<R>(
        &mut self,
        sender: PublicKey,
        next: Nonce,
        change: impl FnOnce(&mut Queue) -> R,
    ) -> R {
        let queue = self.queues.entry(sender).or_insert_with(|| Queue::new(next));
        let (head, tail) = (queue.head(), queue.tail());
        let result = change(queue);
        let (new_head, new_tail, is_empty) = (queue.head(), queue.tail(), queue.is_empty());
        if new_head != head {
            head.map(|head| self.heads.remove(&head));
            new_head.map(|head| self.heads.insert(head, sender));
        }
        if new_tail != tail {
            tail.map(|tail| self.tails.remove(&tail));
            new_tail.map(|tail| self.tails.insert(tail, sender));
        }
        if is_empty {
            self.queues.remove(&sender);
        }
        result
    }

    /// Checks that the indices are what a fresh index of the same transactions would be.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut again = Self::default();
        for (sender, queue) in &self.queues {
            assert!(!queue.is_empty());
            for waiting in queue.iter() {
                assert_eq!(waiting.transaction.transfer().sender, *sender);
                again.insert(queue.next(), waiting.clone());
            }
            assert_eq!(queue.needed(), again.queues[sender].needed());
        }
        assert_eq!(format!("{self:?}"), format!("{again:?}"));
    }
}
