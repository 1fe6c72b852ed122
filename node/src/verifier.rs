//! Verifies signatures of transactions off the driver's thread, many at once: from gossip and from this node's users.

use std::sync::Arc;

use ledger::codec;
use ledger::hash::ChainId;
use ledger::transaction::{Transaction, VerifiedTransaction, verify_transactions};
use protocol::message::{Attempt, TRANSACTIONS_BYTES_MAX};
use tokio::sync::mpsc;

use crate::network::{Gossip, GossipTicket};
use crate::submission::{Reply, Submission};

/// Messages taken together into one batch equation; more gains nothing (measured: a batch of 1,024 costs a third of single checks).
const TOGETHER_MAX: usize = 64;
/// Results that wait for the driver; when it is slower than this, gossip waits in its queue and submissions are told to try again.
pub(crate) const RESULTS: usize = 256;

/// What the driver gets.
pub(crate) enum Verified {
    /// A gossip message; nothing when it does not decode.
    Gossip(GossipTicket, Option<Vec<Option<Arc<VerifiedTransaction>>>>),
    /// A user's transaction; nothing when its signature does not hold.
    Submission(Option<Arc<VerifiedTransaction>>, Reply),
}

enum Job {
    Gossip(GossipTicket, Option<Vec<Transaction>>),
    Submission(Submission),
}

/// Runs until its inputs or the driver go away.
pub(crate) async fn run(
    chain: ChainId,
    mut gossip: mpsc::Receiver<Gossip>,
    mut submissions: mpsc::Receiver<Submission>,
    results: mpsc::Sender<Verified>,
) {
    let (mut from_gossip, mut from_users) = (Vec::new(), Vec::new());
    loop {
        tokio::select! {
            count = gossip.recv_many(&mut from_gossip, TOGETHER_MAX) => if count == 0 { return },
            count = submissions.recv_many(&mut from_users, TOGETHER_MAX) => if count == 0 { return },
        }
        // Whoever else is waiting comes along.
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
        let Ok(verified) = tokio::task::spawn_blocking(move || verify(chain, messages, users)).await else {
            // The blocking task panicked: the process reports it and the node stops as its queues close.
            return;
        };
        for result in verified {
            if results.send(result).await.is_err() {
                return;
            }
        }
    }
}

fn verify(chain: ChainId, messages: Vec<Gossip>, submissions: Vec<Submission>) -> Vec<Verified> {
    let mut jobs: Vec<Job> = submissions.into_iter().map(Job::Submission).collect();
    jobs.extend(messages.into_iter().map(|message| {
        let decoded = codec::decode::<Attempt<Vec<Transaction>>>(&message.bytes, TRANSACTIONS_BYTES_MAX);
        Job::Gossip(message.ticket, decoded.ok().map(|attempt| attempt.message))
    }));
    let transactions = jobs.iter().flat_map(|job| match job {
        Job::Gossip(_, transactions) => transactions.as_deref().unwrap_or_default(),
        Job::Submission(submission) => std::slice::from_ref(&submission.transaction),
    });
    let mut verdicts = verify_transactions(chain, transactions.cloned().collect()).into_iter();
    let verified = jobs.into_iter().map(|job| match job {
        Job::Gossip(ticket, transactions) => {
            let verdicts = transactions.map(|transactions| verdicts.by_ref().take(transactions.len()).collect());
            Verified::Gossip(ticket, verdicts)
        }
        Job::Submission(submission) => Verified::Submission(verdicts.next().flatten(), submission.reply),
    });
    verified.collect()
}
