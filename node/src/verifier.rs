//! Verifies signatures of transactions, from gossip and from this node's users. It works in batches
//! and off the driver's thread. Gossip and users have batches of their own, so that neither pays
//! for bad signatures of the other.

use std::collections::HashMap;
use std::sync::Arc;

use ledger::codec;
use ledger::hash::{ChainId, TxHash};
use ledger::signature::Checks;
use ledger::transaction::{Transaction, VerifiedTransaction, transaction_hash, verify_and_count};
use protocol::budget::Cost;
use protocol::message::{Attempt, TRANSACTIONS_BYTES_MAX};
use tokio::sync::mpsc;

use crate::network::{Gossip, GossipTicket};
use crate::submission::{Reply, Submission};

/// Most gossip messages, and most submissions, whose signatures are verified together. A larger
/// batch gains nothing: a signature costs a third of one verified alone, also if 1,024 are verified
/// together (measured).
const TOGETHER_MAX: usize = 64;
/// Most results that wait for the driver. Beyond it the verifier waits too. Gossip then stays in
/// its queue. Submissions stay in theirs, and are refused as busy once it is full.
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
    /// Bytes of transactions at which a generation is full: about 40,000 ordinary transfers, or ten
    /// seconds of the highest load. Repeated gossip arrives within seconds, so a larger value would
    /// only take memory.
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

    /// Verifies the transactions that are not known.
    fn verify(&mut self, chain: ChainId, transactions: Vec<Transaction>) -> Verdicts {
        let mut verified = Vec::with_capacity(transactions.len());
        let (mut checked, mut unknown) = (Vec::new(), Vec::new());
        for transaction in transactions {
            let known = self.get(&transaction_hash(chain, &transaction)).cloned();
            if known.is_none() {
                checked.push(verified.len());
                unknown.push(transaction);
            }
            verified.push(known);
        }
        let (verdicts, checks) = verify_and_count(chain, unknown);
        for (place, verdict) in checked.iter().zip(verdicts) {
            verdict.iter().for_each(|transaction| self.insert(transaction));
            verified[*place] = verdict;
        }
        Verdicts { verified, checked, checks }
    }
}

/// The outcome of verifying some transactions.
struct Verdicts {
    /// For each transaction: the transaction itself, or `None` if its signature does not hold.
    verified: Vec<Option<Arc<VerifiedTransaction>>>,
    /// Places of the transactions whose signatures were checked, in ascending order.
    checked: Vec<usize>,
    checks: Checks,
}

impl Verdicts {
    /// The cost of the signatures of these transactions, as if each were verified alone. The
    /// transactions with bad signatures also pay for the search for the bad ones, in equal parts.
    fn cost(&self, places: &std::ops::Range<usize>) -> Cost {
        let bad = |places: &[usize]| {
            places.iter().filter(|place| self.verified[**place].is_none()).count() as u64
        };
        let from = self.checked.partition_point(|place| *place < places.start);
        let to = self.checked.partition_point(|place| *place < places.end);
        let own = &self.checked[from..to];
        let again = self.checks.together.saturating_sub(self.checked.len() as u64);
        let search = Cost::signatures_together(again).and(Cost::signatures(self.checks.alone));
        let part = match bad(own) {
            0 => Cost::NONE,
            guilty => {
                Cost { verify: (search.verify * guilty).div_ceil(bad(&self.checked)), ..Cost::NONE }
            }
        };
        Cost::signatures(own.len() as u64).and(part)
    }
}

/// Runs until one of the two input channels is closed or the driver is gone.
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
            count = submissions.recv_many(&mut from_users, TOGETHER_MAX) => {
                if count == 0 { return }
            }
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

fn verify(
    chain: ChainId,
    known: &mut Known,
    messages: Vec<Gossip>,
    submissions: Vec<Submission>,
) -> Vec<Verified> {
    let (transactions, replies): (Vec<Transaction>, Vec<Reply>) = submissions
        .into_iter()
        .map(|Submission { transaction, reply }| (transaction, reply))
        .unzip();
    let verdicts = known.verify(chain, transactions).verified;
    let mut results: Vec<Verified> = verdicts
        .into_iter()
        .zip(replies)
        .map(|(verdict, reply)| Verified::Submission(verdict, reply))
        .collect();

    let (mut transactions, mut jobs) = (Vec::new(), Vec::new());
    for message in messages {
        let decoded =
            codec::decode::<Attempt<Vec<Transaction>>>(&message.bytes, TRANSACTIONS_BYTES_MAX);
        let start = transactions.len();
        let is_decoded = decoded.map(|attempt| transactions.extend(attempt.message)).is_ok();
        jobs.push((
            message.ticket,
            Cost::message(message.bytes.len()),
            is_decoded,
            start..transactions.len(),
        ));
    }
    let mut verdicts = known.verify(chain, transactions);
    let costs: Vec<Cost> = jobs.iter().map(|(_, _, _, places)| verdicts.cost(places)).collect();
    for ((ticket, decoding, is_decoded, places), signatures) in jobs.into_iter().zip(costs) {
        let cost = decoding.and(Cost::look_ups(places.len() as u64, 0)).and(signatures);
        let transactions =
            is_decoded.then(|| verdicts.verified[places].iter_mut().map(Option::take).collect());
        results.push(Verified::Gossip(ticket, cost, transactions));
    }
    results
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ledger::genesis::template_key;
    use ledger::hash::Hash;
    use ledger::transaction::{Body, Output, Transfer};
    use ledger::units::{Amount, Nonce, Timestamp};
    use protocol::budget::{SIGNATURE, SIGNATURE_TOGETHER};

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
        let first =
            known.verify(chain, vec![transfer(0, 0), forged.clone(), transfer(2, 0)]).verified;
        assert_eq!(first.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
        let again =
            known.verify(chain, vec![forged, transfer(2, 0), transfer(3, 0), transfer(0, 0)]);
        assert_eq!(again.checked, [0, 2], "only what is not known costs a signature");
        let again = again.verified;
        assert_eq!(
            again.iter().map(Option::is_some).collect::<Vec<_>>(),
            [false, true, true, true]
        );
        for (earlier, later) in [(&first[0], &again[3]), (&first[2], &again[1])] {
            assert!(
                Arc::ptr_eq(earlier.as_ref().unwrap(), later.as_ref().unwrap()),
                "not verified anew"
            );
        }
        assert_eq!((known.young.len(), known.old.len()), (3, 0));
    }

    #[test]
    fn what_is_known_is_bounded_in_bytes() {
        let chain = ChainId(Hash([1; 32]));
        let mut known = Known::default();
        let one = known.verify(chain, vec![transfer(0, 256)]).verified.remove(0).unwrap().bytes();
        known.bytes = Known::BYTES_MAX - one;
        known.verify(chain, vec![transfer(1, 256), transfer(2, 256)]);
        assert_eq!((known.young.len(), known.old.len(), known.bytes), (1, 2, one));
    }

    /// The costs of messages with one new transaction each. The transactions whose numbers are in
    /// `forged` have bad signatures.
    fn costs(count: u64, forged: &[u64], known: &mut Known) -> Vec<u64> {
        let messages = (0..count).map(|number| {
            let mut message = transfer(number, 0);
            message.signature.0[0] ^= u8::from(forged.contains(&number));
            let attempt = Attempt { attempt: 0, message: vec![message] };
            Gossip { bytes: codec::encode(&attempt), ..Gossip::made_up() }
        });
        let verified = verify(ChainId(Hash([1; 32])), known, messages.collect(), Vec::new());
        let cost = |(number, verified)| match verified {
            Verified::Gossip(_, cost, Some(transactions)) => {
                assert_eq!(transactions[0].is_some(), !forged.contains(&number), "{number}");
                cost.verify
            }
            _ => panic!("message {number} decodes"),
        };
        (0..count).zip(verified).map(cost).collect()
    }

    #[test]
    fn who_sends_a_bad_signature_pays_for_the_search_and_nobody_else_does() {
        let honest = SIGNATURE;
        assert_eq!(costs(64, &[], &mut Known::default()), [honest; 64]);
        for forged in [&[0][..], &[63], &[3, 40], &[7, 8, 9, 30, 31]] {
            let costs = costs(64, forged, &mut Known::default());
            let is_forged = |number: usize| forged.contains(&(number as u64));
            let others = costs.iter().enumerate().filter(|(number, _)| !is_forged(*number));
            assert!(
                others.map(|(_, cost)| *cost).all(|cost| cost == honest),
                "{forged:?}: {costs:?}"
            );
            // The search checks at least half of the batch again, many signatures in one equation.
            let paid: u64 = forged.iter().map(|number| costs[*number as usize] - honest).sum();
            let (least, most) =
                (32 * SIGNATURE_TOGETHER, 128 * SIGNATURE_TOGETHER + 64 * SIGNATURE);
            assert!((least..=most).contains(&paid), "{forged:?}: {paid}");
        }
    }

    #[test]
    fn bad_signatures_of_users_are_not_looked_for_among_gossip() {
        let chain = ChainId(Hash([1; 32]));
        let mut forged = transfer(9, 0);
        forged.signature.0[0] ^= 1;
        let (reply, _outcome) = tokio::sync::oneshot::channel();
        let message = Attempt { attempt: 0, message: vec![transfer(1, 0)] };
        let message = Gossip { bytes: codec::encode(&message), ..Gossip::made_up() };
        let users = vec![Submission { transaction: forged, reply }];
        let verified = verify(chain, &mut Known::default(), vec![message], users);
        assert!(matches!(verified[0], Verified::Submission(None, _)));
        assert!(
            matches!(&verified[1], Verified::Gossip(_, cost, Some(_)) if cost.verify == SIGNATURE)
        );
    }
}
