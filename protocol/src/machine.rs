//! The machine: the one door for every input, and the only place where mempool, consensus and
//! catch-up meet.

mod ahead;
mod attendance;
mod clock;
mod consensus;
mod gossip;
mod headers;
mod heard;
mod peers;
mod proposals;
mod signing;
mod transactions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ledger::block::{Block, Header};
use ledger::certificate::Certificate;
use ledger::chain::{ChainState, Committed};
use ledger::hash::{BlockHash, TxHash};
use ledger::signature::{PublicKey, SigningKey};
use ledger::transaction::VerifiedTransaction;
use ledger::units::{Height, Nonce, Round, Timestamp};

use crate::bodies::Bodies;
pub use crate::bodies::Work;
use crate::budget::Cost;
use crate::catchup::CatchUp;
use crate::consensus::Consensus;
use crate::ids::{PeerId, RequestId, Ticket};
use crate::lots::Lots;
use crate::mempool::{AdmitError, Mempool, MempoolLimits};
use crate::message::{CertifiedHeader, Evidence, LogEntry};
use crate::offence::Offence;
use ahead::Ahead;
use attendance::Attendance;
pub use attendance::Quorum;
use clock::Clocks;
use heard::Heard;
use proposals::Proposals;
use signing::Signing;
use transactions::Outbox;

/// The two clocks of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since start; never goes back. All timers use it.
    pub elapsed: Duration,
    /// What the time is for people; only block times use it.
    pub wall: Timestamp,
}

/// What gossip is about. Each has its own topic and queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Proposals and votes.
    Consensus,
    /// Certified headers.
    Headers,
    /// Batches of transactions.
    Transactions,
}

/// What to do with a gossip message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Pass it on.
    Accept,
    /// Drop it; nobody's fault.
    Ignore,
    /// Drop it and hold it against the sender.
    Reject,
}

/// Everything that happens to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// Nothing but time passing; due at [`Machine::deadline`].
    Time,
    /// A peer is there.
    Connected(PeerId),
    /// A peer is gone.
    Disconnected(PeerId),
    /// Gossip of consensus or headers.
    Gossip(Topic, PeerId, Ticket, Vec<u8>),
    /// Gossip of transactions, verified outside in parallel: `None` where a signature does not
    /// hold.
    Transactions(Ticket, Vec<Option<Arc<VerifiedTransaction>>>),
    /// A transaction from this node's own users, verified.
    Submit(Ticket, Arc<VerifiedTransaction>),
    /// A peer asks.
    Request(PeerId, Ticket, Vec<u8>),
    /// A peer answers, or does not.
    Response(RequestId, PeerId, Option<Vec<u8>>),
    /// The blocks of [`Effect::Commit`] are durable.
    Committed,
    /// Heights that come as segments, first and last, from [`crate::sync::Effect::Plan`].
    Plan(Option<(Height, Height)>),
    /// The blocks of a segment, all signatures verified, and the certificate of the last one.
    Segment(Vec<Block<Arc<VerifiedTransaction>>>, Certificate),
}

/// Everything a node does. To be performed in order; each must be done before the next begins.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Empty the log and begin it anew for this height. Durable at the latest with the next
    /// [`Effect::SyncLog`].
    CutLog(Height),
    /// Append to the log.
    Log(LogEntry),
    /// Make the log durable.
    SyncLog,
    /// Tell everybody.
    Gossip(Topic, Vec<u8>),
    /// What becomes of a gossip message.
    Judge(Ticket, Verdict),
    /// Ask a peer.
    Request(RequestId, PeerId, Vec<u8>),
    /// Answer a peer.
    Respond(Ticket, Vec<u8>),
    /// Answer a peer with final blocks from this height on, as
    /// [`crate::message::Response::Blocks`].
    RespondBlocks(Ticket, Height),
    /// A certified header far ahead of the tip: [`crate::sync`] should fetch what leads there, and
    /// give [`Input::Plan`].
    Sync(CertifiedHeader),
    /// Make these blocks durable, together; then give [`Input::Committed`]. On failure the node
    /// stops.
    Commit(Vec<Committed>),
    /// Whether a submission was taken.
    Submitted(Ticket, Result<(), AdmitError>),
    /// Keep proof of a validator's double signing.
    Evidence(Evidence),
    /// Have nothing to do with this peer any more.
    Ban {
        /// The peer.
        peer: PeerId,
        /// Why.
        offence: Offence,
    },
    /// Worth telling a person.
    Notice(Notice),
    /// The node must stop: going on could make it or others wrong.
    Halt(String),
}

/// Something a person cares about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Catching up begins: from the tip to a proved height.
    Behind(Height, Height),
    /// Caught up.
    CaughtUp(Height),
    /// A height takes more than one round.
    Round(Height, Round),
    /// This validator does not sign yet, and why.
    NotSigning(String),
    /// This validator signs from this height on.
    Signing(Height),
    /// A proposal that breaks the rules.
    InvalidBlock(Height, BlockHash, String),
    /// Validators that signed twice.
    Equivocation(Vec<PublicKey>),
    /// This clock is so many milliseconds ahead of most peers' clocks (behind, if negative): more
    /// than half of what is tolerated.
    ClockOff(i64),
    /// The clock is near those of most peers again; so many milliseconds ahead.
    ClockRight(i64),
    /// The height has lasted long without votes of a quorum being heard: validators of which none
    /// is.
    NoQuorum(Height, Vec<PublicKey>),
    /// A quorum is heard again, at this height.
    Quorum(Height),
}

/// What was found in the log at start.
#[derive(Clone, Debug)]
pub enum Log {
    /// The log of this height, whole.
    Intact(Height, Vec<LogEntry>),
    /// No log, or one that cannot be read: what was signed is not known.
    Lost,
}

/// Everything a machine starts with.
pub struct Setup {
    /// The chain as stored.
    pub chain: ChainState,
    /// Header of the tip; none before the first block.
    pub header: Option<Header>,
    /// Certificate of the tip.
    pub certificate: Certificate,
    /// Consensus key of a validator.
    pub key: Option<SigningKey>,
    /// The log.
    pub log: Log,
    /// Sign although the log is lost: the operator knows that nothing was signed beyond the tip.
    pub sign_without_log: bool,
    /// Bounds of the mempool.
    pub mempool: MempoolLimits,
    /// Decides what is left to chance, such as which peer is asked. Nobody else should know it.
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between heights.
    Waiting,
    /// Consensus decides the next height.
    Deciding,
    /// A commit is on its way to disk.
    Committing,
    /// Others are ahead; consensus rests.
    CatchingUp,
    /// [`Effect::Halt`] was given.
    Halted,
}

/// How a block came to be final here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Consensus decided it on this node.
    Consensus,
    /// Others did, many blocks ahead; it was fetched while consensus rested.
    CatchUp,
    /// Others did, and consensus was at it here: its certificate came first.
    Certified,
}

/// A node's mind.
pub struct Machine {
    now: Now,
    chain: ChainState,
    header: Option<Header>,
    certificate: Certificate,
    key: Option<SigningKey>,
    signing: Signing,
    phase: Phase,
    consensus: Consensus,
    mempool: Mempool,
    bodies: Bodies,
    catchup: CatchUp,
    outbox: Outbox,
    peers: BTreeSet<PeerId>,
    clocks: Clocks,
    /// The canonical bytes of the genesis, once a peer has asked for them.
    genesis: Option<Vec<u8>>,
    /// Requests under way that are not for blocks of the past.
    requests: BTreeMap<RequestId, peers::Asked>,
    next_request: u64,
    next_attempt: u64,
    next_poll: Duration,
    /// The peer that was polled last. All take their turn: tips and clocks of some should not grow
    /// old.
    polled: PeerId,
    /// When the current or last height was started; nothing before the first one of this run.
    started_at: Option<Duration>,
    /// When the first height of this run begins: peers connect first.
    first_start: Duration,
    /// A block of the height after the tip is not built before.
    build_from: Duration,
    proposals: Proposals,
    /// What was passed on lately.
    heard: Heard,
    /// What came before its height.
    ahead: Ahead,
    attendance: Attendance,
    /// Blocks by round whose verdict consensus has: it logs each verdict it is told.
    told: BTreeSet<(Round, BlockHash)>,
    /// What [`Effect::Commit`] was given for, and how it came to be final here.
    committing: Option<(Vec<Committed>, ChainState, Source)>,
    /// Log entries of a height after the tip, until it is started.
    replay: Vec<LogEntry>,
    /// The height the log is at.
    log_height: Option<Height>,
    /// Hashes of recent blocks, to notice two certificates for one height.
    recent: BTreeMap<Height, BlockHash>,
    /// The highest height whose header left this node, said here or passed on. Of each height at
    /// most one does.
    passed: Height,
    /// When to say that the tip is final, if nobody else is heard to.
    announce_at: Option<Duration>,
    lots: Lots,
    effects: Vec<Effect>,
    /// What the input at hand cost, beyond decoding it.
    cost: Cost,
    extra_rounds: u64,
    equivocations: u64,
    /// Proofs of double signing that were kept, by validator.
    evidence: BTreeMap<PublicKey, u32>,
}

/// Recent block hashes remembered.
const RECENT_MAX: usize = 1_024;
/// The first height of a run begins so long after its start.
const FIRST_HEIGHT_DELAY: Duration = Duration::from_millis(300);

impl Machine {
    /// A node as of its store and its log.
    #[must_use]
    pub fn new(setup: Setup, now: Now) -> Self {
        let Setup { chain, header, certificate, key, log, sign_without_log, mempool, seed } = setup;
        let next = chain.tip().height.next();
        let validators = chain.chain().validators(next);
        let is_validator = key.as_ref().is_some_and(|key| validators.find(&key.public()).is_some());
        let consensus = Consensus::new(chain.chain().id(), key.clone(), validators);
        let drift = Duration::from_millis(chain.chain().limits().clock_drift_ms);
        // A clock behind the chain must not shorten the wait.
        let start = now.wall.max(chain.tip().time);
        let signing = Signing::new(is_validator, &log, chain.tip().height, sign_without_log, drift, start);
        let (log_height, replay) = match log {
            // A store older than the log catches up with it first.
            Log::Intact(height, entries) if height >= next => (Some(height), entries),
            Log::Intact(height, _) => (Some(height), Vec::new()),
            Log::Lost => (None, Vec::new()),
        };
        let recent = BTreeMap::from([(chain.tip().height, chain.tip().hash)]);
        let mut lots = Lots::new(seed);
        Self {
            now,
            header,
            certificate,
            key,
            signing,
            phase: Phase::Waiting,
            consensus,
            mempool: Mempool::new(mempool),
            bodies: Bodies::default(),
            catchup: CatchUp::new(lots.draw()),
            lots,
            passed: chain.tip().height,
            announce_at: None,
            outbox: Outbox::default(),
            peers: BTreeSet::new(),
            clocks: Clocks::default(),
            genesis: None,
            requests: BTreeMap::new(),
            next_request: 0,
            // Beyond those of an earlier run: gossip remembers them.
            next_attempt: now.wall.0,
            next_poll: now.elapsed,
            polled: PeerId(0),
            started_at: None,
            first_start: now.elapsed.saturating_add(FIRST_HEIGHT_DELAY),
            build_from: now.elapsed,
            proposals: Proposals::default(),
            heard: Heard::default(),
            ahead: Ahead::default(),
            attendance: Attendance::new(),
            told: BTreeSet::new(),
            committing: None,
            replay,
            log_height,
            recent,
            effects: Vec::new(),
            cost: Cost::NONE,
            extra_rounds: 0,
            equivocations: 0,
            evidence: BTreeMap::new(),
            chain,
        }
    }

    /// Takes in what happened and says what to do about it.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Effect> {
        if self.phase == Phase::Halted {
            return Vec::new();
        }
        self.now = now;
        self.cost = Cost::NONE;
        match input {
            Input::Time => {}
            Input::Connected(peer) => self.on_connected(peer),
            Input::Disconnected(peer) => self.on_disconnected(peer),
            Input::Gossip(topic, from, ticket, bytes) => self.on_gossip(topic, from, ticket, &bytes),
            Input::Transactions(ticket, transactions) => self.on_transactions(ticket, transactions),
            Input::Submit(ticket, transaction) => self.on_submit(ticket, transaction),
            Input::Request(from, ticket, bytes) => self.on_request(from, ticket, &bytes),
            Input::Response(id, from, bytes) => self.on_response(id, from, bytes),
            Input::Committed => self.on_committed(),
            Input::Plan(plan) => self.catchup.on_plan(plan),
            Input::Segment(blocks, certificate) => {
                self.catchup.on_segment(self.chain.tip().height, blocks, certificate);
            }
        }
        self.settle();
        std::mem::take(&mut self.effects)
    }

    /// Does everything that is due.
    fn settle(&mut self) {
        if self.phase == Phase::Halted {
            return;
        }
        self.poll_peers();
        self.flush_transactions();
        self.commit_certified();
        self.follow_others();
        if self.phase == Phase::Deciding && self.signing.resumes(&self.chain, self.now, self.consensus_signs()) {
            // The wait for signing is over in the middle of a height: begin it again, as a signer.
            self.begin_height();
        }
        if self.phase == Phase::Waiting && self.height_begins() {
            self.begin_height();
        }
        if self.phase == Phase::Deciding {
            self.take_in_early();
        }
        if self.phase == Phase::Deciding {
            let outputs = self.consensus.on_time(self.now.elapsed);
            self.perform(outputs);
        }
        if self.phase == Phase::Deciding {
            self.build_waiting();
        }
        if self.phase == Phase::Deciding {
            self.look_at_round();
        }
        if self.phase == Phase::Deciding {
            self.advance_bodies();
            self.repeat_proposals();
        }
        self.commit_certified();
        self.announce();
        self.attend();
    }

    /// Tells when a quorum is not heard any more, or again.
    fn attend(&mut self) {
        if self.phase != Phase::Deciding {
            return self.attendance.on_pause();
        }
        self.attendance.on_deciding(self.now);
        let height = self.chain.tip().height.next();
        let validators = self.chain.chain().validators(height);
        if let Some(ok) = self.attendance.look(self.now.elapsed, self.consensus.round(), validators) {
            self.effects.push(Effect::Notice(match ok {
                true => Notice::Quorum(height),
                false => Notice::NoQuorum(height, self.attendance.quorum().missing.clone()),
            }));
        }
    }

    /// What the last input made this node verify and look up. Whoever sent it pays, unless it was
    /// of use.
    #[must_use]
    pub const fn cost(&self) -> Cost {
        self.cost
    }

    /// When [`Input::Time`] is wanted at the latest.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        let mut deadline = self.next_poll;
        let mut at = |time: Option<Duration>| deadline = time.map_or(deadline, |time| deadline.min(time));
        at(self.outbox.deadline());
        at(self.announce_at);
        match self.phase {
            Phase::Waiting => {
                at(Some(self.start_at()));
                at(self.follow_deadline());
            }
            Phase::Deciding => {
                at(self.consensus.deadline());
                at(self.bodies.deadline());
                at(self.proposals.deadline());
                at(self.attendance.deadline());
                at(self.signing.deadline(self.now).filter(|_| !self.consensus_signs()));
                at(self.follow_deadline());
            }
            Phase::CatchingUp => at(self.follow_deadline()),
            Phase::Committing | Phase::Halted => {}
        }
        deadline
    }

    fn on_committed(&mut self) {
        let Some((commits, chain, source)) = self.committing.take() else {
            panic!("a commit is confirmed once, after it was asked for");
        };
        let Some(last) = commits.last() else { return };
        self.chain = chain;
        self.certificate = last.certificate.clone();
        self.header = Some(last.block.header().clone());
        for commit in &commits {
            self.recent.insert(commit.block.height(), commit.block.hash());
            let committed = &commit.block.block().transactions;
            self.mempool.on_commit(&self.chain, committed);
            self.outbox.on_commit(&self.mempool, committed, self.now.elapsed);
        }
        while self.recent.len() > RECENT_MAX {
            self.recent.pop_first();
        }
        let tip = self.chain.tip().height;
        self.outbox.retain(&self.mempool);
        self.bodies.next_height();
        self.proposals = Proposals::default();
        self.forget_heights();
        if self.attendance.on_commit() {
            self.effects.push(Effect::Notice(Notice::Quorum(tip)));
        }
        if self.log_height.is_none_or(|height| height <= tip) {
            // What the log says of a final height is of no use for the next.
            self.replay.clear();
        }
        let interval = Duration::from_millis(self.chain.chain().limits().block_interval_ms);
        self.build_from = match (source, self.started_at) {
            (Source::Consensus | Source::Certified, Some(started_at)) => started_at.saturating_add(interval),
            _ => self.now.elapsed,
        };
        // What this node signed at a height that it took part in is in its log, whoever was first
        // to have the certificate.
        let took_part = self.consensus.is_signing() && self.consensus.height() == tip;
        self.phase = if source == Source::CatchUp { Phase::CatchingUp } else { Phase::Waiting };
        if source != Source::Consensus {
            let outputs = self.consensus.stop();
            self.perform(outputs);
        }
        if source == Source::Consensus || (source == Source::Certified && took_part) {
            self.signing.on_decided(tip);
        }
        self.signing.on_caught_up(tip);
        if source != Source::CatchUp && took_part {
            // At once: a log that stands at the tip would look older than the network after a
            // restart.
            self.log_height = Some(tip.next());
            self.effects.extend([Effect::CutLog(tip.next()), Effect::SyncLog]);
        }
        self.plan_announcement(source);
        self.report_signing();
    }

    fn commit(&mut self, commits: Vec<Committed>, after: ChainState, source: Source) {
        self.phase = Phase::Committing;
        self.committing = Some((commits.clone(), after, source));
        self.effects.push(Effect::Commit(commits));
    }

    fn halt(&mut self, reason: String) {
        self.phase = Phase::Halted;
        self.effects.push(Effect::Halt(reason));
    }

    /// The chain as of the tip.
    #[must_use]
    pub const fn chain(&self) -> &ChainState {
        &self.chain
    }

    /// The tip's header and certificate; none before the first block.
    #[must_use]
    pub fn certified_header(&self) -> Option<CertifiedHeader> {
        let header = self.header.clone()?;
        Some(CertifiedHeader { header, certificate: self.certificate.clone() })
    }

    /// Certificate of the tip.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Waiting transactions.
    #[must_use]
    pub const fn mempool(&self) -> &Mempool {
        &self.mempool
    }

    /// Nonce after the waiting transactions of an account.
    #[must_use]
    pub fn pending_nonce(&self, account: &PublicKey) -> Nonce {
        self.mempool.next_nonce(&self.chain, account)
    }

    /// Round of the height being decided.
    #[must_use]
    pub fn round(&self) -> Round {
        if self.phase == Phase::Deciding { self.consensus.round() } else { Round(0) }
    }

    /// Whether others have proved heights that consensus will not bring here.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        self.phase == Phase::CatchingUp || matches!(self.committing, Some((_, _, Source::CatchUp)))
    }

    /// Highest height that each peer said to have.
    #[must_use]
    pub fn peer_heights(&self) -> BTreeMap<PeerId, Height> {
        self.catchup.claims()
    }

    /// Whether a quorum of validators is heard.
    #[must_use]
    pub const fn quorum(&self) -> &Quorum {
        self.attendance.quorum()
    }

    /// What this machine has done for others since its start.
    #[must_use]
    pub const fn work(&self) -> Work {
        self.bodies.work()
    }

    /// Rounds beyond the first of their height, and validators caught, since start.
    #[must_use]
    pub const fn troubles(&self) -> (u64, u64) {
        (self.extra_rounds, self.equivocations)
    }

    fn attempt(&mut self) -> u64 {
        self.next_attempt = self.next_attempt.saturating_add(1);
        self.next_attempt
    }

    fn transaction(&mut self, hash: &TxHash) -> Option<Arc<VerifiedTransaction>> {
        self.mempool.get(hash).or_else(|| self.bodies.transaction(hash))
    }
}

#[cfg(test)]
mod tests;
