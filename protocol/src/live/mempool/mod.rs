//! The mempool: signed transactions that wait for a block, bounded in bytes and per sender.
//!
//! Each sender has a queue by nonce. A gap is allowed, since gossip keeps no order, but no
//! transaction behind a gap can go into a block. Every held transaction passes the ledger's rules
//! against the tip, alone and with the sum of its queue, so proposed transactions can be applied.
//! The memory in use is a multiple of the counted bytes. Measured for transfers of one output, it
//! is three times as much if few senders have many waiting, and six times if each sender has one.

mod index;
mod queue;
mod rate;

use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;

use ledger::chain::{
    Blame, ChainState, TransactionError, check_created, check_expiry, check_form, least_fee,
};
use ledger::genesis::Limits;
use ledger::hash::{TxHash, TxId};
use ledger::signature::PublicKey;
use ledger::state::{Account, StateKey};
use ledger::transaction::VerifiedTransaction;
use ledger::units::{Amount, Nonce, Timestamp};

use index::Index;
use queue::{Queue, Waiting};
use rate::{Place, least_to_replace};

/// How much a mempool may hold. Local to a node: no consensus rule depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MempoolLimits {
    /// Most bytes of transactions, as encoded. Beyond that the last transactions of senders leave:
    /// first those behind a gap, then those that pay least per byte.
    pub bytes_max: usize,
    /// A nonce must be less than this far ahead of its account's next nonce. So this is also the
    /// most transactions of one sender.
    pub sender_transactions_max: usize,
}

impl Default for MempoolLimits {
    fn default() -> Self {
        Self { bytes_max: 64 << 20, sender_transactions_max: 4_096 }
    }
}

/// Why a transaction was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// It cannot be applied.
    #[error(transparent)]
    Rejected(#[from] TransactionError),
    /// Another transaction of this sender and nonce waits, and this one does not pay enough to
    /// replace it.
    #[error(
        "another transaction of the sender with this nonce is pending; a replacement needs a fee \
         of at least {least} pebbles"
    )]
    Underpriced {
        /// Smallest fee that replaces it, in pebbles; `u64::MAX` if none does.
        least: u64,
    },
    /// It would expire too soon to get into a block reliably.
    #[error(
        "expires at {expires_at}, expected at least {least}: a transaction needs some time to get \
         into a block"
    )]
    ExpiresSoon {
        /// Last time at which the transaction is valid.
        expires_at: Timestamp,
        /// Earliest expiry that is let in now.
        least: Timestamp,
    },
    /// There is no room, and no waiting transaction is worth less.
    #[error("the mempool is full, and its transactions pay at least as much per byte")]
    Full,
}

impl AdmitError {
    /// Whose fault it is. A rejection has the blame of its rule. Price, expiry and room are
    /// nobody's fault, since they differ from node to node.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Rejected(error) => error.blame(),
            Self::Underpriced { .. } | Self::ExpiresSoon { .. } | Self::Full => Blame::Nobody,
        }
    }
}

/// How a transaction was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It is new.
    New,
    /// It was held already, with the same signature.
    Known,
    /// It replaced this one.
    Replaced(Arc<VerifiedTransaction>),
}

/// Transactions that wait for a block. Every committed block must be reported by
/// [`Mempool::on_commit`].
#[derive(Debug)]
pub struct Mempool {
    limits: MempoolLimits,
    index: Index,
}

/// How long a transaction must stay valid to be let in. A transaction that expires before it can be
/// in a block takes room and bandwidth and never pays for them. This time is long enough for a
/// block or two. A much longer one would refuse honest transactions.
const LIFE_MIN_MS: u64 = 2_000;

/// How long a transaction must still be valid to be let in, in milliseconds: [`LIFE_MIN_MS`], but
/// at most a quarter of the longest life that the chain allows. So a wallet has at least the other
/// three quarters to submit it.
fn life_min(limits: &Limits) -> u64 {
    LIFE_MIN_MS.min(limits.expiry_ms_max / 4)
}

impl Mempool {
    /// An empty mempool.
    #[must_use]
    pub fn new(limits: MempoolLimits) -> Self {
        Self { limits, index: Index::default() }
    }

    /// Lets a transaction in, if it could go into a block after the earlier ones of its sender.
    ///
    /// It may push out other transactions: the one of its nonce, if it pays enough more; later ones
    /// of its sender that the balance no longer covers; and, to make room, the last ones of
    /// senders: first those behind a gap, then those that pay less per byte.
    ///
    /// # Errors
    /// `AdmitError`; then nothing has changed.
    ///
    /// # Panics
    /// When a committed block was not reported to the mempool.
    pub fn admit(
        &mut self,
        chain: &ChainState,
        now: Timestamp,
        transaction: Arc<VerifiedTransaction>,
    ) -> Result<Admitted, AdmitError> {
        if self.index.get(&transaction.hash()).is_some() {
            return Ok(Admitted::Known);
        }
        let time = now.max(chain.next_time());
        let (account, waiting) = self.check(chain, time, transaction)?;
        let (sender, nonce) =
            (waiting.transaction.transfer().sender, waiting.transaction.transfer().nonce);

        // From here on the transaction is in. If it turns out that there is no room, every
        // transaction that it pushed out returns.
        let mut left: Vec<Waiting> = self.index.remove(sender, nonce).into_iter().collect();
        let admitted = left
            .first()
            .map_or(Admitted::New, |old| Admitted::Replaced(Arc::clone(&old.transaction)));
        self.index.insert(account.nonce, waiting);
        left.extend(self.index.settle(sender, &account));
        while self.index.bytes() > self.limits.bytes_max {
            match self.weaker_than(sender, nonce) {
                Some((victim, nonce)) => left.extend(self.index.remove(victim, nonce)),
                None => {
                    self.index.remove(sender, nonce);
                    for waiting in left {
                        let next = chain.account(&waiting.transaction.transfer().sender).nonce;
                        self.index.insert(next, waiting);
                    }
                    return Err(AdmitError::Full);
                }
            }
        }
        Ok(admitted)
    }

    /// Checks all rules for a transaction that is not held yet, as if a block of this time had it.
    fn check(
        &self,
        chain: &ChainState,
        time: Timestamp,
        transaction: Arc<VerifiedTransaction>,
    ) -> Result<(Account, Waiting), AdmitError> {
        let needed = check_form(&transaction)?;
        let transfer = transaction.transfer();
        let limits = chain.chain().limits();
        check_expiry(limits, transfer.expires_at, time)?;
        let least = Timestamp(time.0.saturating_add(life_min(limits)));
        if transfer.expires_at < least {
            return Err(AdmitError::ExpiresSoon { expires_at: transfer.expires_at, least });
        }

        let account = chain.account(&transfer.sender);
        let (got, next) = (transfer.nonce, account.nonce);
        if got < next {
            return Err(TransactionError::NonceUsed { got, next }.into());
        }
        if got.0 >= next.0.saturating_add(self.limits.sender_transactions_max as u64) {
            return Err(TransactionError::NonceAhead { got, next }.into());
        }

        let queue = self.index.queue(&transfer.sender);
        let covered = |sum: u128| sum <= u128::from(account.balance.0);
        // The sum over the whole queue is known, and the balance mostly covers it. Only if it does
        // not, the sum up to this nonce is added up.
        if !covered(queue.map_or(0, Queue::needed).saturating_add(needed.0.into())) {
            let sum = queue.map_or(needed.0.into(), |queue| queue.needed_with(got, needed));
            if !covered(sum) {
                let needed = Amount(u64::try_from(sum).unwrap_or(u64::MAX));
                return Err(TransactionError::Balance { balance: account.balance, needed }.into());
            }
        }

        let least = least_fee(limits, transaction.bytes(), created(chain, &transaction)?);
        if transfer.fee < least {
            return Err(TransactionError::Fee { got: transfer.fee, least }.into());
        }
        // An expired transaction does not have to be outbid.
        let old = queue.and_then(|queue| queue.get(got));
        if let Some(old) = old.filter(|old| old.transaction.transfer().expires_at >= time) {
            let least = least_to_replace(limits, &old.transaction, transaction.bytes());
            if u128::from(transfer.fee.0) < least {
                return Err(AdmitError::Underpriced {
                    least: u64::try_from(least).unwrap_or(u64::MAX),
                });
            }
        }
        Ok((account, Waiting { transaction, needed }))
    }

    /// The transaction that leaves first, if it may leave for the newcomer, which is the one of
    /// this sender and nonce. It may leave if it pays less per byte than the newcomer, or waits
    /// behind a gap while the newcomer does not. It is the last of its sender, so it leaves no gap.
    fn weaker_than(&self, sender: PublicKey, nonce: Nonce) -> Option<(PublicKey, Nonce)> {
        let newcomer = self.index.queue(&sender)?.standing(nonce)?;
        let (weakest, victim, nonce) = self.index.weakest()?;
        let is_weaker =
            (weakest.in_order, weakest.place.rate) < (newcomer.in_order, newcomer.place.rate);
        is_weaker.then_some((victim, nonce))
    }

    /// The transactions to propose after the tip: highest fee per byte first, each sender's by
    /// nonce and without a gap.
    ///
    /// Their bytes are at most `bytes_max` and at most the limit of a block. A block built `now`
    /// can apply all of them in this order. A transaction that has expired since the last commit
    /// ends its sender's queue. Its successors cannot be applied without it, so they must not use
    /// up the room in the block.
    #[must_use]
    pub fn candidates(
        &self,
        chain: &ChainState,
        now: Timestamp,
        bytes_max: usize,
    ) -> Vec<Arc<VerifiedTransaction>> {
        let time = now.max(chain.next_time());
        let block_bytes_max =
            usize::try_from(chain.chain().limits().block_bytes_max).unwrap_or(usize::MAX);
        let mut room = bytes_max.min(block_bytes_max);
        // Each sender's next transaction, as its place, its sender and its position in the queue.
        // Most heads are never looked at, so they stay in their index, and only successors of taken
        // transactions go into the heap.
        let mut heads =
            self.index.heads().iter().rev().map(|(place, sender)| (*place, *sender, 0)).peekable();
        let mut followers: BinaryHeap<(Place, PublicKey, usize)> = BinaryHeap::new();
        let mut candidates = Vec::new();
        loop {
            let best = if followers.peek() > heads.peek() { followers.pop() } else { heads.next() };
            let Some((_, sender, position)) = best else { break };
            let Some(queue) = self.index.queue(&sender) else { break };
            let Some(transaction) = queue.executable(position) else { break };
            if check_expiry(chain.chain().limits(), transaction.transfer().expires_at, time)
                .is_err()
            {
                continue;
            }
            // Stopping here wastes less room than one transaction takes. A search for smaller
            // transactions could visit all heads.
            let Some(left) = room.checked_sub(transaction.bytes()) else { break };
            room = left;
            candidates.push(Arc::clone(transaction));
            let position = position.saturating_add(1);
            if let Some(follower) = queue.executable(position) {
                followers.push((Place::of(follower), sender, position));
            }
        }
        candidates
    }

    /// Whether any transaction could go into a block now. Takes constant time.
    #[must_use]
    pub fn has_candidate(&self) -> bool {
        !self.index.heads().is_empty()
    }

    /// Follows the chain to a new tip, whose block had these transactions: drops transactions that
    /// can no longer be applied.
    ///
    /// The time is proportional to the senders in the block and to the dropped transactions, since
    /// the balances of other accounts can only have grown.
    pub fn on_commit(&mut self, chain: &ChainState, committed: &[Arc<VerifiedTransaction>]) {
        let senders: BTreeSet<PublicKey> =
            committed.iter().map(|transaction| transaction.transfer().sender).collect();
        for sender in senders {
            // A look here costs less than reading the state. Most senders in other nodes' blocks
            // have no transaction left here.
            if self.index.queue(&sender).is_some() {
                self.index.settle(sender, &chain.account(&sender));
            }
        }
        while let Some(expired) = self.index.expired(chain.next_time()) {
            let (sender, nonce) = (expired.transfer().sender, expired.transfer().nonce);
            let removed = self.index.remove(sender, nonce);
            assert!(removed.is_some(), "what has an expiry waits in its sender's queue");
        }
    }

    /// The transaction with this full hash.
    #[must_use]
    pub fn get(&self, hash: &TxHash) -> Option<Arc<VerifiedTransaction>> {
        self.index.get(hash).cloned()
    }

    /// The transaction with this id, whichever signature it has.
    #[must_use]
    pub fn find(&self, id: &TxId) -> Option<Arc<VerifiedTransaction>> {
        self.index.find(id).cloned()
    }

    /// Whether this transaction waits and could be in the next block: no nonce before it is
    /// missing.
    #[must_use]
    pub fn is_executable(&self, transaction: &VerifiedTransaction) -> bool {
        let transfer = transaction.transfer();
        self.executable(&transfer.sender, transfer.nonce)
            .is_some_and(|waiting| waiting.hash() == transaction.hash())
    }

    /// The waiting transaction of this sender and nonce, if it could be in the next block.
    #[must_use]
    pub fn executable(&self, sender: &PublicKey, nonce: Nonce) -> Option<Arc<VerifiedTransaction>> {
        let queue = self.index.queue(sender)?;
        let position = usize::try_from(nonce.0.checked_sub(queue.next().0)?).ok()?;
        queue.executable(position).cloned()
    }

    /// Whether a transaction of this sender and nonce waits.
    #[must_use]
    pub fn has(&self, sender: &PublicKey, nonce: Nonce) -> bool {
        self.index.queue(sender).is_some_and(|queue| queue.get(nonce).is_some())
    }

    /// The nonce that an account should sign next: the first that is neither used in the chain nor
    /// by a transaction that waits without a gap before it.
    #[must_use]
    pub fn next_nonce(&self, chain: &ChainState, account: &PublicKey) -> Nonce {
        self.index.queue(account).map_or_else(|| chain.account(account).nonce, Queue::free_nonce)
    }

    /// How many transactions wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all transactions that wait, as encoded.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.index.bytes()
    }

    /// Up to `limit` transactions by fee per byte, highest first, whether or not a nonce before
    /// them is missing. Looks at no others.
    #[must_use]
    pub fn best(&self, limit: usize) -> Vec<Arc<VerifiedTransaction>> {
        self.index.best().take(limit).cloned().collect()
    }
}

/// Number of accounts that a transaction would create at the tip. It is an error if one of them may
/// not be created. If an earlier transaction creates one of them first, this one pays more than it
/// must.
fn created(chain: &ChainState, transaction: &VerifiedTransaction) -> Result<u64, TransactionError> {
    let outputs = &transaction.transfer().outputs;
    let accounts: BTreeSet<PublicKey> = outputs.iter().map(|output| output.account).collect();
    let mut count = 0u64;
    for account in accounts {
        if chain.state().get(&StateKey::account(account)).is_none() {
            check_created(&account)?;
            count = count.saturating_add(1);
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests;
