//! What readers (RPC, metrics, progress output) see of a running node: snapshots, and questions put to the driver.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use ledger::api::BlockSummary;
use ledger::block::Header;
use ledger::certificate::Certificate;
use ledger::chain::{Chain, ChainState};
use ledger::hash::TxId;
use ledger::signature::PublicKey;
use ledger::store::Store;
use ledger::transaction::{Transaction, VerifiedTransaction};
use ledger::units::{Height, Nonce, Round};
use prometheus_client::metrics::histogram::Histogram;
use protocol::sync::SyncReport;
use protocol::{PeerId, Quorum};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::accounts::Accounts;
use crate::network::{self, BanInfo, PeerInfo};
use crate::submission::{Submission, SubmitError};

/// How many transactions' times are remembered.
const JOURNAL_MAX: usize = 65_536;

/// The last final block and all that follows from it. Shared, never changed.
#[derive(Clone)]
pub struct TipView {
    /// Tip, accounts and history.
    pub state: ChainState,
    /// Proof that the tip is final.
    pub certificate: Certificate,
    /// Header of the tip; none before the first block.
    pub header: Option<Header>,
}

/// What sync is doing, and when it reached what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncView {
    /// What the machine says.
    pub report: SyncReport,
    /// Names on the network of the peers in the report.
    pub peers: BTreeMap<PeerId, String>,
    /// When the last known chunk was verified, in milliseconds since 1970.
    pub verified_at_ms: Option<u64>,
    /// When the target was reached, likewise.
    pub applied_at_ms: Option<u64>,
    /// When the stage of the report began, likewise.
    pub since_ms: u64,
}

/// A rate measured for less than so many milliseconds is told to nobody: it says little of what is to come.
const MEASURED_MS_MIN: u64 = 2_000;

impl SyncView {
    /// Bytes a second that are verified now; none while nothing comes, or for too short a time to tell.
    #[must_use]
    pub fn rate(&self, now_ms: u64) -> Option<u64> {
        let is_measured = now_ms.saturating_sub(self.since_ms) >= MEASURED_MS_MIN && self.report.reason.is_none();
        self.report.rate.filter(|rate| *rate > 0 && is_measured)
    }

    /// Milliseconds until the known missing chunks are here if the rate stays; none without a rate.
    #[must_use]
    pub fn eta_ms(&self, now_ms: u64) -> Option<u64> {
        let left = self.report.bytes_total.saturating_sub(self.report.bytes_verified);
        let ms = u128::from(left).saturating_mul(1_000).checked_div(u128::from(self.rate(now_ms)?))?;
        Some(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

/// What the driver is doing, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Round of the height being decided.
    pub round: Round,
    /// Highest height a peer has proved.
    pub best_peer_height: Height,
    /// Whether a peer has proved a height this node has not reached.
    pub syncing: bool,
    /// Transactions in the mempool.
    pub mempool_transactions: usize,
    /// Their bytes.
    pub mempool_bytes: usize,
    /// Blocks committed since start.
    pub blocks_committed: u64,
    /// Transactions committed since start.
    pub transactions_committed: u64,
    /// Rounds started beyond the first of a height since start.
    pub extra_rounds: u64,
    /// Validators caught signing twice since start.
    pub equivocations: u64,
    /// How far this machine's clock is ahead of most peers' clocks, in milliseconds; `None` with fewer than three peers.
    pub clock_offset_ms: Option<i64>,
}

/// A question for the driver.
#[derive(Debug)]
pub enum Query {
    /// The waiting transaction with this id.
    Pending(TxId, oneshot::Sender<Option<Arc<VerifiedTransaction>>>),
    /// Nonce after the waiting transactions of this account.
    PendingNonce(PublicKey, oneshot::Sender<Nonce>),
    /// Up to so many waiting transactions, best fee first.
    Mempool(usize, oneshot::Sender<Vec<Arc<VerifiedTransaction>>>),
    /// Heights that peers have proved.
    PeerHeights(oneshot::Sender<BTreeMap<String, Height>>),
}

/// Handle for readers. Cheap to clone.
#[derive(Clone)]
pub struct View {
    /// The chain's constants.
    pub chain: Arc<Chain>,
    /// Final blocks on disk.
    pub store: Store,
    /// Consensus key, when this node is a validator.
    pub validator: Option<PublicKey>,
    /// The last final block.
    pub tip: watch::Receiver<Arc<TipView>>,
    /// What the driver is doing.
    pub activity: watch::Receiver<Activity>,
    /// Whether enough validators are heard for blocks to become final.
    pub quorum: watch::Receiver<Quorum>,
    /// What sync is doing.
    pub sync: watch::Receiver<Arc<SyncView>>,
    /// Connected peers.
    pub peers: watch::Receiver<Arc<Vec<PeerInfo>>>,
    /// Cost accounts of peers.
    pub accounts: Accounts<network::PeerId>,
    /// Banned peers; bans that have ended may still be here.
    pub bans: watch::Receiver<Arc<Vec<BanInfo>>>,
    /// Each block as it becomes final.
    pub blocks: broadcast::Sender<BlockSummary>,
    /// Questions to the driver; bounded, full means busy.
    pub queries: mpsc::Sender<Query>,
    /// Transactions of users on their way to the verifier; bounded, full means busy.
    pub submissions: mpsc::Sender<Submission>,
    /// When transactions came and became final.
    pub journal: Arc<Journal>,
}

impl View {
    /// Puts a question to the driver and waits for the answer; nothing when it is busy or stopping.
    pub async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        self.queries.try_send(query(sender)).ok()?;
        answer.await.ok()
    }

    /// Submits a user's transaction and waits for the outcome.
    ///
    /// # Errors
    /// Why it was not taken; [`SubmitError::Unavailable`] when the node is busy or stopping.
    pub async fn submit(&self, transaction: Transaction) -> Result<TxId, SubmitError> {
        let (reply, outcome) = oneshot::channel();
        let submission = Submission { transaction, reply };
        self.submissions.try_send(submission).map_err(|_| SubmitError::Unavailable)?;
        outcome.await.unwrap_or(Err(SubmitError::Unavailable))
    }

    /// Whether nobody is there who could tell of later blocks. A validator that needs no other is never cut off.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        !self.is_alone() && self.peers.borrow().is_empty()
    }

    /// Names of these validators in the genesis, else their keys.
    #[must_use]
    pub fn validator_names(&self, keys: &[PublicKey]) -> Vec<String> {
        let named = &self.chain.genesis().validators;
        let name = |key: &PublicKey| {
            let entry = named.iter().find(|entry| entry.key == *key && !entry.name.is_empty());
            entry.map_or_else(|| key.to_string(), |entry| entry.name.clone())
        };
        keys.iter().map(name).collect()
    }

    /// How far this machine's clock is off, if that is more than half of what makes others wait with their votes.
    #[must_use]
    pub fn clock_error_ms(&self) -> Option<i64> {
        let limit = self.chain.limits().clock_drift_ms / 2;
        self.activity.borrow().clock_offset_ms.filter(|offset| offset.unsigned_abs() > limit)
    }

    /// Why this node cannot know that its tip is the network's, although nobody told of a later one.
    #[must_use]
    pub fn ignorance(&self) -> Option<&'static str> {
        if self.is_cut_off() {
            return Some("no peer is connected");
        }
        let is_told = self.activity.borrow().best_peer_height > Height(0);
        (!is_told && !self.is_alone()).then_some("no connected peer has proved a height yet")
    }

    /// Whether this node's own votes make blocks final.
    fn is_alone(&self) -> bool {
        let validators = self.chain.validators(self.tip.borrow().state.tip().height.next());
        let power = self.validator.and_then(|key| validators.find(&key).map(|(_, validator)| validator.power));
        power.is_some_and(|power| power >= validators.quorum_power())
    }
}

/// Times of a transaction by this node's clock, milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// When the mempool took it.
    pub accepted_at: Option<u64>,
    /// When its block was durable.
    pub final_at: Option<u64>,
}

/// Seconds from the mempool to a durable block, as far apart as people tell them apart.
const FINALITY_BUCKETS: [f64; 11] = [0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 15.0, 60.0];

/// When recent transactions came and became final. Bounded: the oldest are forgotten.
#[derive(Debug)]
pub struct Journal {
    entries: Mutex<Entries>,
    /// How long those took that came and became final here.
    pub finality: Histogram,
}

impl Default for Journal {
    fn default() -> Self {
        Self { entries: Mutex::default(), finality: Histogram::new(FINALITY_BUCKETS) }
    }
}

#[derive(Debug, Default)]
struct Entries {
    times: BTreeMap<TxId, Times>,
    order: VecDeque<TxId>,
}

impl Journal {
    /// What is remembered of a transaction.
    #[must_use]
    pub fn get(&self, id: &TxId) -> Times {
        self.entries().times.get(id).copied().unwrap_or_default()
    }

    /// Notes that the mempool took it. The first time counts.
    pub fn accepted(&self, id: TxId, now: u64) {
        self.note(id, |times| times.accepted_at = times.accepted_at.or(Some(now)));
    }

    /// Notes that its block is durable.
    pub fn finalized(&self, id: TxId, now: u64) {
        self.note(id, |times| {
            if let (Some(accepted), None) = (times.accepted_at, times.final_at) {
                self.finality.observe(now.saturating_sub(accepted) as f64 / 1_000.0);
            }
            times.final_at = Some(now);
        });
    }

    /// Notes that its block is durable, if the mempool took it: what else comes with history is not recent.
    pub fn caught_up(&self, id: TxId, now: u64) {
        if let Some(times) = self.entries().times.get_mut(&id) {
            times.final_at = Some(now);
        }
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        // Entries are plain data: a panic elsewhere leaves nothing half-done in them.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, id: TxId, change: impl FnOnce(&mut Times)) {
        let mut entries = self.entries();
        if !entries.times.contains_key(&id) {
            entries.order.push_back(id);
            if entries.order.len() > JOURNAL_MAX
                && let Some(oldest) = entries.order.pop_front()
            {
                entries.times.remove(&oldest);
            }
        }
        change(entries.times.entry(id).or_default());
    }
}

#[cfg(test)]
mod tests {
    use ledger::hash::Hash;

    use super::*;

    #[test]
    fn of_history_only_what_was_accepted_here_has_a_time() {
        let [accepted, live, old] = [1, 2, 3].map(|byte| TxId(Hash([byte; 32])));
        let journal = Journal::default();
        journal.accepted(accepted, 10);
        journal.finalized(live, 11);
        journal.caught_up(accepted, 12);
        journal.caught_up(old, 12);
        for (id, accepted_at, final_at) in [(accepted, Some(10), Some(12)), (live, None, Some(11)), (old, None, None)] {
            assert_eq!(journal.get(&id), Times { accepted_at, final_at });
        }
        assert_eq!(journal.entries().order.len(), 2);
    }

    #[test]
    fn the_time_to_finality_is_counted_once_for_what_came_live() {
        let [accepted, late, unseen] = [1, 2, 3].map(|byte| TxId(Hash([byte; 32])));
        let journal = Journal::default();
        journal.accepted(accepted, 1_000);
        journal.accepted(late, 1_000);
        journal.finalized(accepted, 1_090);
        journal.finalized(accepted, 9_000);
        journal.finalized(unseen, 9_000);
        journal.caught_up(late, 9_000);
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register("finality", "Test", journal.finality.clone());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text takes all");
        for line in [
            "finality_sum 0.09",
            "finality_count 1",
            r#"finality_bucket{le="0.05"} 0"#,
            r#"finality_bucket{le="0.1"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
