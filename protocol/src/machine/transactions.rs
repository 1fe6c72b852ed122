//! Transactions: those of this node's users on their way out, those of others on their way in.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ledger::chain::Blame;
use ledger::codec;
use ledger::hash::TxHash;
use ledger::transaction::{Transaction, VerifiedTransaction};

use super::{Effect, Machine, Topic, Verdict};
use crate::ids::Ticket;
use crate::mempool::{Admitted, Mempool};
use crate::message::{Attempt, BATCH_BYTES};

/// A batch leaves so long after its first transaction came, if it is not full before.
const BATCH_DELAY: Duration = Duration::from_millis(5);
/// Own transactions that still wait are said again so often.
const REPEAT: Duration = Duration::from_secs(5);
/// To a new peer they are said so soon.
const NEW_PEER_DELAY: Duration = Duration::from_millis(500);
/// Own transactions said again at a time.
const REPEATED_MAX: usize = 500;
/// Own transactions remembered.
const OWN_MAX: usize = 65_536;

/// Transactions of this node's users on their way out.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    batch: Vec<Arc<VerifiedTransaction>>,
    bytes: usize,
    flush_at: Option<Duration>,
    own: BTreeSet<TxHash>,
    repeat_at: Option<Duration>,
}

impl Outbox {
    fn push(&mut self, transaction: Arc<VerifiedTransaction>, now: Duration) {
        if self.own.len() < OWN_MAX {
            self.own.insert(transaction.hash());
            self.repeat_at.get_or_insert(now.saturating_add(REPEAT));
        }
        self.add(transaction, now);
    }

    fn add(&mut self, transaction: Arc<VerifiedTransaction>, now: Duration) {
        self.bytes = self.bytes.saturating_add(transaction.bytes());
        self.batch.push(transaction);
        self.flush_at.get_or_insert(now.saturating_add(BATCH_DELAY));
    }

    /// Forgets own transactions that wait no longer.
    pub(super) fn retain(&mut self, mempool: &Mempool) {
        self.own.retain(|hash| mempool.get(hash).is_some());
        if self.own.is_empty() {
            self.repeat_at = None;
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.flush_at.into_iter().chain(self.repeat_at).min()
    }

    /// A new peer has not heard the own ones; it hears gossip a moment after it is there.
    pub(super) fn on_connected(&mut self, now: Duration) {
        if let Some(at) = &mut self.repeat_at {
            *at = (*at).min(now.saturating_add(NEW_PEER_DELAY));
        }
    }

    /// Queues own transactions again, when it is time.
    fn repeat(&mut self, mempool: &Mempool, now: Duration) {
        if self.repeat_at.is_none_or(|at| at > now) {
            return;
        }
        self.repeat_at = Some(now.saturating_add(REPEAT));
        let waiting: Vec<_> = self.own.iter().filter_map(|hash| mempool.get(hash)).take(REPEATED_MAX).collect();
        for transaction in waiting {
            self.add(transaction, now);
        }
    }

    /// A batch of at most [`BATCH_BYTES`], when it is full or old enough.
    fn take(&mut self, now: Duration) -> Option<Vec<Transaction>> {
        if self.batch.is_empty() || (self.bytes < BATCH_BYTES && self.flush_at.is_some_and(|at| at > now)) {
            return None;
        }
        // A single transaction always fits: it has less than half of a batch.
        let mut room = BATCH_BYTES;
        let fits = |transaction: &&Arc<VerifiedTransaction>| {
            let left = room.checked_sub(transaction.bytes());
            room = left.unwrap_or(room);
            left.is_some()
        };
        let count = self.batch.iter().take_while(fits).count();
        let batch: Vec<_> = self.batch.drain(..count).collect();
        self.bytes = batch.iter().fold(self.bytes, |bytes, transaction| bytes.saturating_sub(transaction.bytes()));
        if self.batch.is_empty() {
            self.flush_at = None;
        }
        Some(batch.iter().map(|transaction| transaction.transaction().clone()).collect())
    }
}

impl Machine {
    pub(super) fn flush_transactions(&mut self) {
        self.outbox.repeat(&self.mempool, self.now.elapsed);
        while let Some(message) = self.outbox.take(self.now.elapsed) {
            let attempt = self.attempt();
            self.effects.push(Effect::Gossip(Topic::Transactions, codec::encode(&Attempt { attempt, message })));
        }
    }

    pub(super) fn on_submit(&mut self, ticket: Ticket, transaction: Arc<VerifiedTransaction>) {
        let result = self.mempool.admit(&self.chain, self.now.wall, Arc::clone(&transaction));
        if matches!(result, Ok(Admitted::New | Admitted::Replaced(_))) {
            self.outbox.push(transaction, self.now.elapsed);
        }
        self.effects.push(Effect::Submitted(ticket, result.map(|_| ())));
    }

    /// A batch is passed on if anything in it was of use here; a forged signature in it is the sender's fault.
    pub(super) fn on_transactions(&mut self, ticket: Ticket, transactions: Vec<Option<Arc<VerifiedTransaction>>>) {
        let mut verdict = Verdict::Ignore;
        for transaction in transactions {
            let Some(transaction) = transaction else {
                verdict = Verdict::Reject;
                continue;
            };
            match self.mempool.admit(&self.chain, self.now.wall, transaction) {
                Ok(Admitted::New | Admitted::Replaced(_)) if verdict == Verdict::Ignore => verdict = Verdict::Accept,
                Err(error) if error.blame() == Blame::Sender => verdict = Verdict::Reject,
                Ok(_) | Err(_) => {}
            }
        }
        self.effects.push(Effect::Judge(ticket, verdict));
    }
}
