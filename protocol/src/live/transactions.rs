//! Transactions of this node's users on their way out, and of other nodes on their way in.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ledger::chain::{Blame, ChainState, Committed};
use ledger::hash::TxHash;
use ledger::signature::PublicKey;
use ledger::transaction::{Transaction, VerifiedTransaction};
use ledger::units::Nonce;

use super::{Effect, Machine, Now, Topic, Verdict};
use crate::budget::Cost;
use crate::ids::Ticket;
use crate::live::mempool::{Admitted, Mempool, MempoolLimits};
use crate::message::BATCH_BYTES;

/// A batch is sent this long after its first transaction, unless it is full before.
const BATCH_DELAY: Duration = Duration::from_millis(5);
/// Interval at which own transactions that still wait are sent again.
const REPEAT: Duration = Duration::from_secs(5);
/// Delay from the connection of a new peer until own transactions are sent again for it.
const NEW_PEER_DELAY: Duration = Duration::from_millis(500);
/// Most own transactions sent again at a time.
const REPEATED_MAX: usize = 500;
/// Most own transactions remembered; further ones are sent only once.
const OWN_MAX: usize = 65_536;

/// Most transactions remembered as held back behind a gap. Further ones are not sent when their gap
/// closes.
const HELD_MAX: usize = 65_536;

/// Outgoing transactions: those of this node's users, and those of others whose batch was not worth
/// passing on.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    batch: Vec<Arc<VerifiedTransaction>>,
    bytes: usize,
    flush_at: Option<Duration>,
    own: BTreeSet<TxHash>,
    repeat_at: Option<Duration>,
    /// Sender and nonce of transactions that wait behind a gap. They can be in no block, so
    /// relaying them would cost the network and never their sender. They are held back, and sent
    /// when the gap closes.
    held: BTreeSet<(PublicKey, Nonce)>,
}

impl Outbox {
    /// Remembers a transaction of this node's users, to send it again.
    fn own(&mut self, hash: TxHash, now: Duration) {
        if self.own.len() < OWN_MAX {
            self.own.insert(hash);
            self.repeat_at.get_or_insert(now.saturating_add(REPEAT));
        }
    }

    /// Queues an admitted transaction if it can be in the next block, and with it the held-back
    /// successors that it releases. Otherwise holds it back.
    fn push(&mut self, mempool: &Mempool, transaction: &Arc<VerifiedTransaction>, now: Duration) {
        let transfer = transaction.transfer();
        if !mempool.is_executable(transaction) {
            if self.held.len() < HELD_MAX {
                self.held.insert((transfer.sender, transfer.nonce));
            }
            return;
        }
        self.add(Arc::clone(transaction), now);
        self.release(mempool, transfer.sender, next(transfer.nonce), now);
    }

    /// Queues a sender's held-back transactions from this nonce on, as far as they can be in the
    /// next block.
    fn release(&mut self, mempool: &Mempool, sender: PublicKey, from: Nonce, now: Duration) {
        let mut nonce = from;
        while self.held.contains(&(sender, nonce))
            && let Some(transaction) = mempool.executable(&sender, nonce)
        {
            self.held.remove(&(sender, nonce));
            self.add(transaction, now);
            nonce = next(nonce);
        }
    }

    /// A transaction was passed on within its batch. Queues its held-back successors, which are not
    /// in that batch.
    fn on_passed(
        &mut self,
        mempool: &Mempool,
        transaction: &Arc<VerifiedTransaction>,
        now: Duration,
    ) {
        let transfer = transaction.transfer();
        if mempool.is_executable(transaction) {
            self.release(mempool, transfer.sender, next(transfer.nonce), now);
        }
    }

    /// A block has these transactions, so the held-back successors of their senders are released.
    fn on_commit(
        &mut self,
        mempool: &Mempool,
        committed: &[Arc<VerifiedTransaction>],
        now: Duration,
    ) {
        if self.held.is_empty() {
            return;
        }
        for transfer in committed.iter().map(|transaction| transaction.transfer()) {
            self.held.remove(&(transfer.sender, transfer.nonce));
            self.release(mempool, transfer.sender, next(transfer.nonce), now);
        }
        if self.held.len() >= HELD_MAX {
            self.held.retain(|(sender, nonce)| mempool.has(sender, *nonce));
        }
    }

    fn add(&mut self, transaction: Arc<VerifiedTransaction>, now: Duration) {
        self.bytes = self.bytes.saturating_add(transaction.bytes());
        self.batch.push(transaction);
        self.flush_at.get_or_insert(now.saturating_add(BATCH_DELAY));
    }

    /// Forgets own transactions that no longer wait.
    fn retain(&mut self, mempool: &Mempool) {
        self.own.retain(|hash| mempool.get(hash).is_some());
        if self.own.is_empty() {
            self.repeat_at = None;
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.flush_at.into_iter().chain(self.repeat_at).min()
    }

    /// A new peer has not heard own transactions, so they are sent again soon. The delay is there
    /// because a peer takes part in gossip only a moment after it connects.
    pub(super) fn on_connected(&mut self, now: Duration) {
        if let Some(at) = &mut self.repeat_at {
            *at = (*at).min(now.saturating_add(NEW_PEER_DELAY));
        }
    }

    /// Queues own transactions again when the interval has passed.
    fn repeat(&mut self, mempool: &Mempool, now: Duration) {
        if self.repeat_at.is_none_or(|at| at > now) {
            return;
        }
        self.repeat_at = Some(now.saturating_add(REPEAT));
        let waiting = self.own.iter().filter_map(|hash| mempool.get(hash));
        let waiting: Vec<_> = waiting
            .filter(|transaction| mempool.is_executable(transaction))
            .take(REPEATED_MAX)
            .collect();
        for transaction in waiting {
            self.add(transaction, now);
        }
    }

    /// A batch of at most [`BATCH_BYTES`], if it is full or its delay has passed.
    fn take(&mut self, now: Duration) -> Option<Vec<Transaction>> {
        if self.batch.is_empty()
            || (self.bytes < BATCH_BYTES && self.flush_at.is_some_and(|at| at > now))
        {
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
        self.bytes = batch
            .iter()
            .fold(self.bytes, |bytes, transaction| bytes.saturating_sub(transaction.bytes()));
        if self.batch.is_empty() {
            self.flush_at = None;
        }
        Some(batch.iter().map(|transaction| transaction.transaction().clone()).collect())
    }
}

/// Transactions that wait for a block, and those of them that leave by gossip.
pub(super) struct Transactions {
    pub(super) mempool: Mempool,
    pub(super) outbox: Outbox,
}

impl Transactions {
    pub(super) fn new(limits: MempoolLimits) -> Self {
        Self { mempool: Mempool::new(limits), outbox: Outbox::default() }
    }

    /// These blocks are final, and `chain` is the chain after them.
    pub(super) fn on_commits(&mut self, chain: &ChainState, commits: &[Committed], now: Duration) {
        for commit in commits {
            let committed = &commit.block.block().transactions;
            self.mempool.on_commit(chain, committed);
            self.outbox.on_commit(&self.mempool, committed, now);
        }
        self.outbox.retain(&self.mempool);
    }
}

const fn next(nonce: Nonce) -> Nonce {
    Nonce(nonce.0.saturating_add(1))
}

impl Machine {
    pub(super) fn flush_transactions(&mut self) {
        let Transactions { mempool, outbox } = &mut self.transactions;
        let now = self.turn.now.elapsed;
        outbox.repeat(mempool, now);
        while let Some(message) = outbox.take(now) {
            self.turn.gossip(Topic::Transactions, message);
        }
    }

    pub(super) fn on_submit(&mut self, ticket: Ticket, transaction: Arc<VerifiedTransaction>) {
        self.bodies.on_transaction(&transaction);
        let Transactions { mempool, outbox } = &mut self.transactions;
        let Now { elapsed: now, wall } = self.turn.now;
        let result = mempool.admit(&self.chain.state, wall, Arc::clone(&transaction));
        if matches!(result, Ok(Admitted::New | Admitted::Replaced(_))) {
            outbox.own(transaction.hash(), now);
            outbox.push(mempool, &transaction, now);
        }
        self.turn.push(Effect::Submitted(ticket, result.map(|_| ())));
    }

    /// Judges a batch. It is passed on if no transaction in it is forged and at least half of its
    /// bytes are useful: new here, and able to be in the next block. A transaction is forged if its
    /// bytes alone show that it is invalid, for example by a bad signature. Then the batch is
    /// rejected.
    ///
    /// Of a batch that is not passed on, only the useful transactions go on, in a batch of this
    /// node. Otherwise one transaction that pays would carry 64 KiB of others through the whole
    /// network. The sender is charged for useless bytes that are passed on in its batch.
    pub(super) fn on_transactions(
        &mut self,
        ticket: Ticket,
        transactions: Vec<Option<Arc<VerifiedTransaction>>>,
    ) {
        let Transactions { mempool, outbox } = &mut self.transactions;
        let Now { elapsed: now, wall } = self.turn.now;
        let (mut is_forged, mut bytes) = (false, 0usize);
        let mut new = Vec::new();
        for transaction in transactions {
            let Some(transaction) = transaction else {
                is_forged = true;
                continue;
            };
            bytes = bytes.saturating_add(transaction.bytes());
            self.bodies.on_transaction(&transaction);
            match mempool.admit(&self.chain.state, wall, Arc::clone(&transaction)) {
                Ok(Admitted::New | Admitted::Replaced(_)) => new.push(transaction),
                Err(error) if error.blame() == Blame::Sender => is_forged = true,
                Ok(Admitted::Known) | Err(_) => {}
            }
        }
        let useful = new.iter().filter(|transaction| mempool.is_executable(transaction));
        let useful =
            useful.fold(0usize, |sum, transaction| sum.saturating_add(transaction.bytes()));
        let is_passed_on = !is_forged && useful > 0 && useful.saturating_mul(2) >= bytes;
        if is_passed_on && useful < bytes {
            self.turn.charge(Cost::relay(bytes.saturating_sub(useful)));
        }
        for transaction in &new {
            match is_passed_on {
                true => outbox.on_passed(mempool, transaction, now),
                false => outbox.push(mempool, transaction, now),
            }
        }
        self.turn.push(Effect::Judge(
            ticket,
            match (is_forged, is_passed_on) {
                (true, _) => Verdict::Reject,
                (false, true) => Verdict::Accept,
                (false, false) => Verdict::Ignore,
            },
        ));
    }
}
