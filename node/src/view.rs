//! The view that readers (RPC, metrics, progress output) have of a running node: snapshots, and
//! queries that the driver answers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ledger::api::{self, BlockSummary};
use ledger::block::Header;
use ledger::certificate::Certificate;
use ledger::chain::{Chain, ChainState};
use ledger::hash::{BlockHash, TxId};
use ledger::signature::PublicKey;
use ledger::store::Store;
use ledger::transaction::{Transaction, VerifiedTransaction};
use ledger::units::{Height, Nonce, Round, SegmentIndex};
use prometheus_client::metrics::histogram::Histogram;
use protocol::archive::Keep;
use protocol::eras::EraRanges;
use protocol::swarm::SyncReport;
use protocol::{PeerId, Quorum};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::accounts::Accounts;
use crate::network::{self, BanInfo, FaultPlan, PeerInfo};
use crate::space::Disk;
use crate::submission::{Submission, SubmitError};
use crate::uploaded::Uploaded;

/// Most transactions whose times are remembered.
const JOURNAL_MAX: usize = 65_536;

/// The last final block and the state after it. Shared, never changed.
#[derive(Clone, Debug)]
pub struct TipView {
    /// Tip, accounts and history.
    pub state: ChainState,
    /// Proof that the tip is final.
    pub certificate: Certificate,
    /// Header of the tip; `None` before the first block.
    pub header: Option<Header>,
}

/// The summary of a block, as subscribers get it.
#[must_use]
pub fn block_summary(
    header: &Header,
    hash: BlockHash,
    transactions: usize,
    bytes: usize,
) -> BlockSummary {
    BlockSummary {
        height: header.height.0,
        hash: hash.to_string(),
        time: header.time.0,
        proposer: header.proposer.to_string(),
        transactions: u32::try_from(transactions).unwrap_or(u32::MAX),
        bytes: bytes as u64,
    }
}

/// The faults of a local network, as the operator reads them.
#[must_use]
pub fn faults_info(plan: &FaultPlan) -> api::Faults {
    let ms = |latency: &Duration| u32::try_from(latency.as_millis()).unwrap_or(u32::MAX);
    api::Faults {
        cut: plan.cut.iter().map(ToString::to_string).collect(),
        latency_ms: plan.latency.iter().map(|(peer, time)| (peer.to_string(), ms(time))).collect(),
    }
}

/// Most applied segments whose supplier is remembered: 16 GiB of history with segments of the
/// default size. An entry takes about 100 bytes here and in the answer to `sync_status`.
pub const SUPPLIERS_MAX: usize = 1_024;

/// What sync is doing, and when it reached its milestones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncView {
    /// The report of the sync machine.
    pub report: SyncReport,
    /// Network identities of the peers in the report.
    pub peers: BTreeMap<PeerId, String>,
    /// The network identity of the peer that sent most chunks of a segment. A segment has an entry
    /// if peers sent chunks of it since the start. At most [`SUPPLIERS_MAX`] applied segments have
    /// one, and any segment in staging.
    pub suppliers: BTreeMap<SegmentIndex, Arc<str>>,
    /// When the last missing chunk of all known segments was verified, in milliseconds since 1970.
    pub verified_at_ms: Option<u64>,
    /// When the target was reached, in milliseconds since 1970.
    pub applied_at_ms: Option<u64>,
    /// When the stage of the report began, in milliseconds since 1970.
    pub since_ms: u64,
}

/// A rate is shown only after this many milliseconds; before that it predicts nothing.
const MEASURED_MS_MIN: u64 = 2_000;

impl SyncView {
    /// Bytes verified per second. `None` while nothing arrives, or during the first two seconds of
    /// a stage.
    #[must_use]
    pub fn rate(&self, now_ms: u64) -> Option<u64> {
        let is_measured =
            now_ms.saturating_sub(self.since_ms) >= MEASURED_MS_MIN && self.report.reason.is_none();
        self.report.rate.filter(|rate| *rate > 0 && is_measured)
    }

    /// Milliseconds until the known missing chunks are fetched, if the rate stays. `None` without a
    /// rate.
    #[must_use]
    pub fn eta_ms(&self, now_ms: u64) -> Option<u64> {
        let left = self.report.bytes_total.saturating_sub(self.report.bytes_verified);
        let ms =
            u128::from(left).saturating_mul(1_000).checked_div(u128::from(self.rate(now_ms)?))?;
        Some(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

/// What a connected peer says that it keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Its network identity.
    pub peer: String,
    /// Its address group.
    pub group: u64,
    /// The eras, without those that no audit lets this node believe.
    pub eras: EraRanges,
}

/// What the archive has done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchiveWork {
    /// Audits that a holder passed.
    pub audits_passed: u64,
    /// Audits that a holder failed.
    pub audits_failed: u64,
    /// Audits that a holder left unanswered or was too busy for.
    pub audits_unanswered: u64,
    /// Eras that were fetched.
    pub eras_fetched: u64,
    /// Eras that were dropped.
    pub eras_dropped: u64,
}

/// What this node is to keep of history, and what its peers say that they keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveView {
    /// How much of history this node keeps.
    pub keep: Keep,
    /// Whether eras are being fetched.
    pub is_fetching: bool,
    /// Eras that are to be here and are not. Of a node with a budget, those that it fetches, or
    /// would fetch if a connected peer had them.
    pub missing: EraRanges,
    /// The eras that this node announces.
    pub own: EraRanges,
    /// What each connected peer claims.
    pub claims: Vec<Claims>,
    /// What was done.
    pub work: ArchiveWork,
}

/// Most peers that are named to somebody who asks for what is not kept here.
const HOLDERS_MAX: usize = 16;

impl ArchiveView {
    /// Connected peers whose claims are such ones, at most 16. First comes one of each address
    /// group, so that no group keeps the others out.
    pub fn holders(&self, are_such: impl Fn(&EraRanges) -> bool) -> Box<[String]> {
        let mut of_group = BTreeMap::<u64, usize>::new();
        let such = self.claims.iter().filter(|claims| are_such(&claims.eras));
        let mut holders: Vec<(usize, &Claims)> = such
            .map(|claims| {
                let before = of_group.entry(claims.group).or_default();
                *before += 1;
                (*before, claims)
            })
            .collect();
        holders.sort_by_key(|(before, _)| *before);
        holders.into_iter().take(HOLDERS_MAX).map(|(_, claims)| claims.peer.clone()).collect()
    }
}

/// What the driver is doing, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Round of the height being decided.
    pub round: Round,
    /// Highest height that a peer has proved.
    pub best_peer_height: Height,
    /// Whether a peer has proved a height that this node has not reached.
    pub syncing: bool,
    /// Transactions in the mempool.
    pub mempool_transactions: usize,
    /// Bytes of these transactions.
    pub mempool_bytes: usize,
    /// Blocks committed since start.
    pub blocks_committed: u64,
    /// Transactions committed since start.
    pub transactions_committed: u64,
    /// Rounds since the node's start that were not the first of their height.
    pub extra_rounds: u64,
    /// Validators caught signing twice since start.
    pub equivocations: u64,
    /// How far this machine's clock is ahead of most peers' clocks, in milliseconds; `None` with
    /// fewer than three peers.
    pub clock_offset_ms: Option<i64>,
}

/// A query to the driver, with the channel for its answer.
#[derive(Debug)]
pub enum Query {
    /// The waiting transaction with this id.
    Pending(TxId, oneshot::Sender<Option<Arc<VerifiedTransaction>>>),
    /// The account's next nonce after its waiting transactions.
    PendingNonce(PublicKey, oneshot::Sender<Nonce>),
    /// Up to this many waiting transactions, the best fee first.
    Mempool(usize, oneshot::Sender<Vec<Arc<VerifiedTransaction>>>),
    /// Heights that peers have proved.
    PeerHeights(oneshot::Sender<BTreeMap<String, Height>>),
}

/// A reader's handle to the node. Cheap to clone.
#[derive(Clone)]
pub struct View {
    /// The chain's constants.
    pub chain: Arc<Chain>,
    /// Final blocks on disk.
    pub store: Store,
    /// The consensus key, if this node has one.
    pub validator: Option<PublicKey>,
    /// The last final block.
    pub tip: watch::Receiver<Arc<TipView>>,
    /// What the driver is doing.
    pub activity: watch::Receiver<Activity>,
    /// Whether votes of enough validators arrive for blocks to become final.
    pub quorum: watch::Receiver<Quorum>,
    /// What sync is doing.
    pub sync: watch::Receiver<Arc<SyncView>>,
    /// Connected peers.
    pub peers: watch::Receiver<Arc<Vec<PeerInfo>>>,
    /// Cost accounts of peers.
    pub accounts: Accounts<network::PeerId>,
    /// Banned peers. May still hold bans that have ended.
    pub bans: watch::Receiver<Arc<Vec<BanInfo>>>,
    /// The faults that are set on a local network.
    pub faults: watch::Receiver<Arc<FaultPlan>>,
    /// Each block as it becomes final.
    pub blocks: broadcast::Sender<BlockSummary>,
    /// Queries to the driver. The channel is bounded; full means busy.
    pub queries: mpsc::Sender<Query>,
    /// Users' transactions for the verifier. The channel is bounded; full means busy.
    pub submissions: mpsc::Sender<Submission>,
    /// When transactions were accepted and became final.
    pub journal: Arc<Journal>,
    /// History sent to peers.
    pub uploaded: Uploaded<network::PeerId>,
    /// Height up to which the audit has executed blocks in this run. 0 while it has executed none.
    pub executed: watch::Receiver<Height>,
    /// What the archive does.
    pub archive: watch::Receiver<Arc<ArchiveView>>,
    /// For which missing era this node looks for holders, in words.
    pub seeking: watch::Receiver<Option<String>>,
    /// What the home takes on disk, measured every 20 s.
    pub disk: watch::Receiver<Disk>,
    /// When the node started.
    pub started: Instant,
}

impl View {
    /// Sends a query to the driver and waits for the answer. `None` if the driver is busy or
    /// stopping.
    pub async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        self.queries.try_send(query(sender)).ok()?;
        answer.await.ok()
    }

    /// Submits a user's transaction and waits for the outcome.
    ///
    /// # Errors
    /// Why the transaction was refused; [`SubmitError::Unavailable`] if the node is busy or
    /// stopping.
    pub async fn submit(&self, transaction: Transaction) -> Result<TxId, SubmitError> {
        let (reply, outcome) = oneshot::channel();
        let submission = Submission { transaction, reply };
        self.submissions.try_send(submission).map_err(|_| SubmitError::Unavailable)?;
        outcome.await.unwrap_or(Err(SubmitError::Unavailable))
    }

    /// Whether no peer is connected that could know later blocks. A validator with a quorum of its
    /// own is never cut off.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        !self.is_alone() && self.peers.borrow().is_empty()
    }

    /// The validators' names in the genesis, or their keys where there is no name.
    #[must_use]
    pub fn validator_names(&self, keys: &[PublicKey]) -> Vec<String> {
        let named = &self.chain.genesis().validators;
        let name = |key: &PublicKey| {
            let entry = named.iter().find(|entry| entry.key == *key && !entry.name.is_empty());
            entry.map_or_else(|| key.to_string(), |entry| entry.name.clone())
        };
        keys.iter().map(name).collect()
    }

    /// How far this machine's clock is ahead, in milliseconds, if it is off by more than half of
    /// the clock drift that the chain allows. `None` if it is within that.
    #[must_use]
    pub fn clock_error_ms(&self) -> Option<i64> {
        let limit = self.chain.limits().clock_drift_ms / 2;
        self.activity.borrow().clock_offset_ms.filter(|offset| offset.unsigned_abs() > limit)
    }

    /// Why this node cannot know whether its tip is the network's. `None` if it can.
    #[must_use]
    pub fn ignorance(&self) -> Option<&'static str> {
        if self.is_cut_off() {
            return Some("no peer is connected");
        }
        let is_told = self.activity.borrow().best_peer_height > Height(0);
        (!is_told && !self.is_alone()).then_some("no connected peer has proved a height yet")
    }

    /// Whether this node's own voting power is a quorum.
    fn is_alone(&self) -> bool {
        let validators = self.chain.validators(self.tip.borrow().state.tip().height.next());
        let power = self
            .validator
            .and_then(|key| validators.find(&key).map(|(_, validator)| validator.power));
        power.is_some_and(|power| power >= validators.quorum_power())
    }
}

/// Times of a transaction by this node's clock, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// When the mempool accepted it.
    pub accepted_at: Option<u64>,
    /// When its block became durable.
    pub final_at: Option<u64>,
}

/// Bounds of the histogram's buckets, in seconds from the mempool to a durable block. Their steps
/// are differences that people notice.
const FINALITY_BUCKETS: [f64; 11] = [0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 15.0, 60.0];

/// When recent transactions were accepted and became final. Bounded: the oldest are forgotten.
#[derive(Debug)]
pub struct Journal {
    entries: Mutex<Entries>,
    /// Time to finality of the transactions that were accepted here and became final while this
    /// node followed the chain.
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
    /// The times that are remembered of a transaction.
    #[must_use]
    pub fn get(&self, id: &TxId) -> Times {
        self.entries().times.get(id).copied().unwrap_or_default()
    }

    /// Records that the mempool accepted a transaction. Only the first time counts.
    pub fn accepted(&self, id: TxId, now: u64) {
        self.note(id, |times| times.accepted_at = times.accepted_at.or(Some(now)));
    }

    /// Records that the block of a transaction is durable.
    pub fn finalized(&self, id: TxId, now: u64) {
        self.note(id, |times| {
            if let (Some(accepted), None) = (times.accepted_at, times.final_at) {
                self.finality.observe(now.saturating_sub(accepted) as f64 / 1_000.0);
            }
            times.final_at = Some(now);
        });
    }

    /// Records that the block of a transaction is durable, for a block that came by catching up.
    /// Only a transaction with an entry gets the time: others in old blocks are not recent.
    pub fn caught_up(&self, id: TxId, now: u64) {
        if let Some(times) = self.entries().times.get_mut(&id) {
            times.final_at = Some(now);
        }
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        // Entries are plain data, so a panic elsewhere leaves them consistent.
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
    use protocol::eras::Era;

    use super::*;

    /// An address group of many identities, and four honest peers.
    #[test]
    fn no_address_group_keeps_other_holders_from_being_named() {
        let claims = |number: u64| Claims {
            peer: number.to_string(),
            group: if number < 100 { 7 } else { number },
            eras: EraRanges::of([Era(number % 2)]),
        };
        let view = ArchiveView { claims: (0..104).map(claims).collect(), ..ArchiveView::default() };
        let holders = view.holders(|eras| eras.contains(Era(0)));
        assert_eq!(holders.len(), HOLDERS_MAX);
        assert_eq!(holders[..4], ["0", "100", "102", "2"]);
    }

    #[test]
    fn of_history_only_what_was_accepted_here_has_a_time() {
        let [accepted, live, old] = [1, 2, 3].map(|byte| TxId(Hash([byte; 32])));
        let journal = Journal::default();
        journal.accepted(accepted, 10);
        journal.finalized(live, 11);
        journal.caught_up(accepted, 12);
        journal.caught_up(old, 12);
        for (id, accepted_at, final_at) in
            [(accepted, Some(10), Some(12)), (live, None, Some(11)), (old, None, None)]
        {
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
