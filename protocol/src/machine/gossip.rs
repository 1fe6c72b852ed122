//! Gossip in and out: consensus messages, certified headers, batches of transactions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ledger::chain::Blame;
use ledger::codec;
use ledger::hash::{BlockHash, TxHash};
use ledger::signature::PublicKey;
use ledger::transaction::{Transaction, VerifiedTransaction};
use ledger::units::Height;

use super::{Effect, Machine, Phase, Topic, Verdict};
use crate::ids::{PeerId, Ticket};
use crate::mempool::{Admitted, Mempool};
use crate::message::{
    Attempt, BATCH_BYTES, CONSENSUS_BYTES_MAX, CertifiedHeader, ConsensusMessage, Evidence, HEADER_MESSAGE_BYTES_MAX,
};

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

    pub(super) fn on_gossip(&mut self, topic: Topic, from: PeerId, ticket: Ticket, bytes: &[u8]) {
        let verdict = match topic {
            Topic::Consensus => match codec::decode::<Attempt<ConsensusMessage>>(bytes, CONSENSUS_BYTES_MAX) {
                Ok(attempt) => return self.on_consensus_gossip(from, ticket, attempt.message),
                Err(_) => Verdict::Reject,
            },
            Topic::Headers => match codec::decode::<Attempt<CertifiedHeader>>(bytes, HEADER_MESSAGE_BYTES_MAX) {
                Ok(attempt) => self.on_header(from, &attempt.message),
                Err(_) => Verdict::Reject,
            },
            // These are decoded and verified outside, in parallel.
            Topic::Transactions => Verdict::Ignore,
        };
        self.effects.push(Effect::Judge(ticket, verdict));
    }

    /// Judged before it is used: others should not wait for what this node makes of it.
    fn on_consensus_gossip(&mut self, from: PeerId, ticket: Ticket, message: ConsensusMessage) {
        let height = message.height();
        let tip = self.chain.tip().height;
        let verdict = if height < tip || height == Height(0) {
            Verdict::Ignore
        } else {
            let validators = Arc::clone(self.chain.chain().validators(height));
            match self.consensus.verify(&message, &validators) {
                true if height == tip || self.is_near(height) => Verdict::Accept,
                true => Verdict::Ignore,
                false => Verdict::Reject,
            }
        };
        self.effects.push(Effect::Judge(ticket, verdict));
        if verdict == Verdict::Reject || height <= tip {
            return;
        }
        if verdict == Verdict::Accept {
            let is_ours = self.key.as_ref().is_some_and(|key| message.signer() == Some(key.public()));
            let is_signed_here = self.phase == Phase::Deciding && self.consensus_signs();
            if is_ours && !is_signed_here && !self.signing.accounts_for(height) {
                self.signing.on_signed_elsewhere(height);
                self.report_signing();
            }
            self.on_consensus(from, message);
        } else {
            // Validators are at work far ahead: this node missed something.
            self.ask_status(from);
        }
    }

    /// A certified header, from gossip or an answer.
    pub(super) fn on_header(&mut self, from: PeerId, certified: &CertifiedHeader) -> Verdict {
        let CertifiedHeader { header, certificate } = certified;
        let (height, hash) = (header.height, header.hash());
        let tip = self.chain.tip().height;
        if height == Height(0) {
            return Verdict::Reject;
        }
        let known = self.recent.get(&height);
        if known == Some(&hash) || (known.is_none() && height <= tip) {
            self.catchup.on_proof(from, height);
            return Verdict::Ignore;
        }
        let validators = self.chain.chain().validators(height);
        if certificate.verify(self.chain.chain().id(), validators, height, hash).is_err() {
            return Verdict::Reject;
        }
        if let Some(known) = known.copied() {
            self.on_fork(height, known, certified);
            return Verdict::Accept;
        }
        self.catchup.on_proof(from, height);
        if self.catchup.is_news_to_sync(tip, height) {
            self.effects.push(Effect::Sync(certified.clone()));
        }
        Verdict::Accept
    }

    /// Two certificates for one height: more than a third of the power signed both. No node can tell which is right.
    fn on_fork(&mut self, height: Height, known: BlockHash, other: &CertifiedHeader) {
        self.effects.push(Effect::Evidence(Evidence::Fork(known, Box::new(other.clone()))));
        self.halt(format!(
            "two certificates for height {height}: block {known} here and block {} elsewhere. More than a third of the voting power \
             signed both. The proof is in the store",
            other.header.hash(),
        ));
    }
}

impl ConsensusMessage {
    /// Who signed it, where it is one validator's.
    #[must_use]
    pub const fn signer(&self) -> Option<PublicKey> {
        match self {
            Self::Vote(vote) => Some(vote.vote.validator),
            Self::Proposal(proposal, _) => Some(proposal.proposal.proposer),
            Self::Round(_) | Self::Polka(_) => None,
        }
    }

    /// The height it is about.
    #[must_use]
    pub const fn height(&self) -> Height {
        match self {
            Self::Vote(vote) => vote.vote.height,
            Self::Proposal(proposal, _) => proposal.proposal.height,
            Self::Round(certificate) => certificate.height,
            Self::Polka(polka) => polka.height,
        }
    }
}
