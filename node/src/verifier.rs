//! Verifies signatures of transactions, from gossip and from this node's users. It works in batches
//! and off the driver's thread.

use std::collections::HashMap;
use std::sync::Arc;

use ledger::codec;
use ledger::hash::{ChainId, TxHash};
use ledger::transaction::{Transaction, VerifiedTransaction, transaction_hash, verify_transactions};
use protocol::budget::Cost;
use protocol::message::{Attempt, TRANSACTIONS_BYTES_MAX};
use tokio::sync::mpsc;

use crate::network::{Gossip, GossipTicket};
use crate::submission::{Reply, Submission};

/// Most gossip messages, and most submissions, in one batch equation. A larger batch gains nothing
/// (measured: 1,024 together cost a third of 1,024 single checks).
const TOGETHER_MAX: usize = 64;
/// Most results that wait for the driver. Beyond it the verifier waits too: gossip stays in its
/// queue, and once their queue is full, submissions are refused as busy.
pub(crate) const RESULTS: usize = 256;

/// A result for the driver.
pub(crate) enum Verified {
    /// A gossip message with the cost of verifying it; `None` if it does not decode.
    Gossip(GossipTicket, Cost, Option<Vec<Option<Arc<VerifiedTransaction>>>>),
    /// A user's transaction; `None` if its signature does not hold.
    Submission(Option<Arc<VerifiedTransaction>>, Reply),
}

/// Transactions whose signatures were verified lately. A transaction that arrives again, in another
/// batch or from another peer, costs a hash and not a signature check.
///
/// There are two generations of at most about [`Known::BYTES_MAX`] bytes of transactions each. When
/// the young one is full, it replaces the old one. Most of these transactions are in the mempool,
/// which shares their memory.
#[derive(Default)]
struct Known {
    young: HashMap<TxHash, Arc<VerifiedTransaction>>,
    old: HashMap<TxHash, Arc<VerifiedTransaction>>,
    bytes: usize,
}

impl Known {
    /// About 40,000 ordinary transfers, or ten seconds of the highest load. Repeated gossip arrives
    /// within seconds, so a larger value would only take memory.
    const BYTES_MAX: usize = 8 << 20;

    fn get(&self, hash: &TxHash) -> Option<&Arc<VerifiedTransaction>> {
        self.young.get(hash).or_else(|| self.old.get(hash))
    }

    fn insert(&mut self, transaction: &Arc<VerifiedTransaction>) {
        if self.bytes >= Self::BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        if self.young.insert(transaction.hash(), Arc::clone(transaction)).is_none() {
            self.bytes += transaction.bytes();
        }
    }

    /// Verifies the transactions that are not known. Also returns the places of these, in ascending
    /// order.
    fn verify(&mut self, chain: ChainId, transactions: Vec<Transaction>) -> (Verdicts, Vec<usize>) {
        let mut verdicts = Vec::with_capacity(transactions.len());
        let (mut places, mut unknown) = (Vec::new(), Vec::new());
        for transaction in transactions {
            let known = self.get(&transaction_hash(chain, &transaction)).cloned();
            if known.is_none() {
                places.push(verdicts.len());
                unknown.push(transaction);
            }
            verdicts.push(known);
        }
        for (place, verdict) in places.iter().zip(verify_transactions(chain, unknown)) {
            verdict.iter().for_each(|transaction| self.insert(transaction));
            verdicts[*place] = verdict;
        }
        (verdicts, places)
    }
}

/// For each transaction: the transaction itself, or `None` if its signature does not hold.
type Verdicts = Vec<Option<Arc<VerifiedTransaction>>>;

enum Job {
    /// With the cost of decoding it; `None` if it does not decode.
    Gossip(GossipTicket, Cost, Option<Vec<Transaction>>),
    Submission(Submission),
}

/// Runs until an input or the driver is gone.
pub(crate) async fn run(
    chain: ChainId,
    mut gossip: mpsc::Receiver<Gossip>,
    mut submissions: mpsc::Receiver<Submission>,
    results: mpsc::Sender<Verified>,
) {
    let (mut from_gossip, mut from_users) = (Vec::new(), Vec::new());
    let mut known = Known::default();
    loop {
        tokio::select! {
            count = gossip.recv_many(&mut from_gossip, TOGETHER_MAX) => if count == 0 { return },
            count = submissions.recv_many(&mut from_users, TOGETHER_MAX) => if count == 0 { return },
        }
        // Messages that wait already join the batch.
        while from_gossip.len() < TOGETHER_MAX
            && let Ok(message) = gossip.try_recv()
        {
            from_gossip.push(message);
        }
        while from_users.len() < TOGETHER_MAX
            && let Ok(submission) = submissions.try_recv()
        {
            from_users.push(submission);
        }
        let (messages, users) = (std::mem::take(&mut from_gossip), std::mem::take(&mut from_users));
        let mut lent = std::mem::take(&mut known);
        let work = move || (verify(chain, &mut lent, messages, users), lent);
        let Ok((verified, returned)) = tokio::task::spawn_blocking(work).await else {
            // The blocking task panicked. The panic is reported, and the node stops because the
            // verifier ends.
            return;
        };
        known = returned;
        for result in verified {
            if results.send(result).await.is_err() {
                return;
            }
        }
    }
}

fn verify(chain: ChainId, known: &mut Known, messages: Vec<Gossip>, submissions: Vec<Submission>) -> Vec<Verified> {
    let mut jobs: Vec<Job> = submissions.into_iter().map(Job::Submission).collect();
    jobs.extend(messages.into_iter().map(|message| {
        let decoded = codec::decode::<Attempt<Vec<Transaction>>>(&message.bytes, TRANSACTIONS_BYTES_MAX);
        Job::Gossip(message.ticket, Cost::message(message.bytes.len()), decoded.ok().map(|attempt| attempt.message))
    }));
    let transactions = jobs.iter().flat_map(|job| match job {
        Job::Gossip(_, _, transactions) => transactions.as_deref().unwrap_or_default(),
        Job::Submission(submission) => std::slice::from_ref(&submission.transaction),
    });
    let (verdicts, checked) = known.verify(chain, transactions.cloned().collect());
    let (mut verdicts, mut place) = (verdicts.into_iter(), 0);
    let verified = jobs.into_iter().map(|job| match job {
        Job::Gossip(ticket, decoding, transactions) => {
            let count = transactions.as_ref().map_or(0, Vec::len);
            let places = place..place + count;
            place = places.end;
            let signatures = checked.iter().filter(|place| places.contains(place)).count();
            let cost = decoding.and(Cost::look_ups(count as u64, 0)).and(Cost::signatures(signatures as u64));
            Verified::Gossip(ticket, cost, transactions.map(|_| verdicts.by_ref().take(count).collect()))
        }
        Job::Submission(submission) => {
            place += 1;
            Verified::Submission(verdicts.next().flatten(), submission.reply)
        }
    });
    verified.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ledger::genesis::template_key;
    use ledger::hash::Hash;
    use ledger::transaction::{Body, Output, Transfer};
    use ledger::units::{Amount, Nonce, Timestamp};

    use super::*;

    fn transfer(nonce: u64, memo: usize) -> Transaction {
        let alice = template_key("alice").unwrap();
        let transfer = Transfer {
            sender: alice.public(),
            nonce: Nonce(nonce),
            outputs: vec![Output { account: alice.public(), amount: Amount(1) }],
            fee: Amount(1),
            expires_at: Timestamp(1),
            memo: vec![0; memo],
        };
        Body::Transfer(transfer).sign(ChainId(Hash([1; 32])), &alice)
    }

    #[test]
    fn a_signature_is_checked_once_and_a_forged_one_each_time() {
        let chain = ChainId(Hash([1; 32]));
        let mut known = Known::default();
        let mut forged = transfer(1, 0);
        forged.signature.0[0] ^= 1;
        let (first, _) = known.verify(chain, vec![transfer(0, 0), forged.clone(), transfer(2, 0)]);
        assert_eq!(first.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
        let (again, checked) = known.verify(chain, vec![forged, transfer(2, 0), transfer(3, 0), transfer(0, 0)]);
        assert_eq!(checked, [0, 2], "only what is not known costs a signature");
        assert_eq!(again.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, true, true]);
        for (earlier, later) in [(&first[0], &again[3]), (&first[2], &again[1])] {
            assert!(Arc::ptr_eq(earlier.as_ref().unwrap(), later.as_ref().unwrap()), "not verified anew");
        }
        assert_eq!((known.young.len(), known.old.len()), (3, 0));
    }

    #[test]
    fn what_is_known_is_bounded_in_bytes() {
        let chain = ChainId(Hash([1; 32]));
        let mut known = Known::default();
        let one = known.verify(chain, vec![transfer(0, 256)]).0.remove(0).unwrap().bytes();
        known.bytes = Known::BYTES_MAX - one;
        known.verify(chain, vec![transfer(1, 256), transfer(2, 256)]);
        assert_eq!((known.young.len(), known.old.len(), known.bytes), (1, 2, one));
    }
}
