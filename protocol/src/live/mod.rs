//! The machine: the one door for every input, and the only place where mempool, consensus and
//! catch-up meet.

mod bodies;
mod building;
mod catchup;
mod clocks;
mod commits;
pub mod consensus;
mod effect;
mod final_chain;
mod headers;
mod heights;
mod input;
pub mod mempool;
mod peers;
mod phase;
mod proposals;
mod requests;
mod transactions;
mod turn;
mod validator;
mod votes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ledger::block::Header;
use ledger::certificate::Certificate;
use ledger::chain::{ChainState, Committed};
use ledger::codec;
use ledger::hash::{BlockHash, TxHash};
use ledger::signature::{PublicKey, SigningKey};
use ledger::transaction::VerifiedTransaction;
use ledger::units::{Height, Nonce, Round};

use crate::budget::Cost;
use crate::ids::{PeerId, RequestId, Ticket};
use crate::lots::Lots;
use crate::message::{
    Attempt, CONSENSUS_BYTES_MAX, CertifiedHeader, ConsensusMessage, HEADER_MESSAGE_BYTES_MAX,
    LogEntry,
};
use bodies::Bodies;
pub use bodies::Work;
use catchup::CatchUp;
use clocks::Clocks;
use consensus::Consensus;
pub use effect::{Effect, Notice};
use final_chain::FinalChain;
use headers::Told;
pub use input::{Input, Now, Topic, Verdict};
use mempool::{Mempool, MempoolLimits};
use phase::{Phase, Source};
use proposals::Proposals;
use transactions::Outbox;
use turn::Turn;
pub use validator::log::Log;
use validator::log::Logged;
use validator::signing::Signing;
use votes::attendance::Attendance;
pub use votes::attendance::Quorum;
use votes::early::Ahead;
use votes::relay::Heard;

/// What a machine starts with.
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
    /// Sign although the log is lost. The operator vouches that nothing was signed above the tip.
    pub sign_without_log: bool,
    /// Bounds of the mempool.
    pub mempool: MempoolLimits,
    /// Seed of random choices, such as which peer is asked. Secret, or peers foresee the choices.
    pub seed: u64,
}

/// The state machine of a node: all decisions, no I/O.
pub struct Machine {
    turn: Turn,
    chain: FinalChain,
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
    /// Requests in flight, except those for final blocks.
    requests: BTreeMap<RequestId, requests::Asked>,
    next_poll: Duration,
    /// The peer that was polled last. Peers are polled in turn, so that no tip or clock grows old.
    polled: PeerId,
    /// When the last begun height began; none before the first one of this run.
    started_at: Option<Duration>,
    /// When the first height of this run begins, so that peers can connect before.
    first_start: Duration,
    /// Earliest time to build a block of the height after the tip.
    build_from: Duration,
    proposals: Proposals,
    /// Consensus messages that were passed on lately.
    heard: Heard,
    /// Consensus messages that came before their height began.
    ahead: Ahead,
    attendance: Attendance,
    /// Verdicts that consensus was told, by round and block: it logs each one that it is told.
    told: BTreeSet<(Round, BlockHash)>,
    /// The bodies in the log of the height after the tip.
    logged: Logged,
    /// The certificate of a decided block whose body is not here.
    decided: Option<Certificate>,
    /// Blocks of the pending [`Effect::Commit`], the chain after them, and how they became final.
    committing: Option<(Vec<Committed>, ChainState, Source)>,
    /// Log entries of a height above the tip, until it begins.
    replay: Vec<LogEntry>,
    /// The height of the log.
    log_height: Option<Height>,
    /// The highest height whose header this node sent or passed on. Only higher ones follow, so at
    /// most one of each height.
    passed: Height,
    /// When to announce the tip, unless another node is heard to do so first.
    announce_at: Option<Duration>,
    extra_rounds: u64,
    equivocations: u64,
    /// Number of proofs of double signing kept, by validator.
    evidence: BTreeMap<PublicKey, u32>,
}

/// Delay of the first height after the start.
const FIRST_HEIGHT_DELAY: Duration = Duration::from_millis(300);

impl Machine {
    /// A machine that continues from a stored chain and its log.
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
        let signing =
            Signing::new(is_validator, &log, chain.tip().height, sign_without_log, drift, start);
        let (log_height, replay) = match log {
            // The log is ahead of the store: its entries wait until the store has caught up.
            Log::Intact(height, entries) if height >= next => (Some(height), entries),
            Log::Intact(height, _) => (Some(height), Vec::new()),
            Log::Lost => (None, Vec::new()),
        };
        let mut lots = Lots::new(seed);
        Self {
            catchup: CatchUp::new(lots.draw()),
            turn: Turn::new(now, lots),
            key,
            signing,
            phase: Phase::Waiting,
            consensus,
            mempool: Mempool::new(mempool),
            bodies: Bodies::default(),
            passed: chain.tip().height,
            announce_at: None,
            outbox: Outbox::default(),
            peers: BTreeSet::new(),
            clocks: Clocks::default(),
            genesis: None,
            requests: BTreeMap::new(),
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
            logged: Logged::default(),
            decided: None,
            committing: None,
            replay,
            log_height,
            extra_rounds: 0,
            equivocations: 0,
            evidence: BTreeMap::new(),
            chain: FinalChain::new(chain, header, certificate),
        }
    }

    /// Takes in one input and returns its effects.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Effect> {
        if self.phase == Phase::Halted {
            return Vec::new();
        }
        self.turn.begin(now);
        match input {
            Input::Time => {}
            Input::Connected(peer) => self.on_connected(peer),
            Input::Disconnected(peer) => self.on_disconnected(peer),
            Input::Gossip(topic, from, ticket, bytes) => {
                self.on_gossip(topic, from, ticket, &bytes)
            }
            Input::Transactions(ticket, transactions) => self.on_transactions(ticket, transactions),
            Input::Submit(ticket, transaction) => self.on_submit(ticket, transaction),
            Input::Request(from, ticket, bytes) => self.on_request(from, ticket, &bytes),
            Input::Response(id, from, bytes) => self.on_response(id, from, bytes),
            Input::Committed => self.on_committed(),
            Input::Plan(plan) => self.catchup.on_plan(plan),
            Input::Segment(blocks, certificate) => {
                self.catchup.on_segment(self.chain.height(), blocks, certificate);
            }
        }
        self.settle();
        self.turn.take_effects()
    }

    fn on_gossip(&mut self, topic: Topic, from: PeerId, ticket: Ticket, bytes: &[u8]) {
        let verdict = match topic {
            Topic::Consensus => {
                match codec::decode::<Attempt<ConsensusMessage>>(bytes, CONSENSUS_BYTES_MAX) {
                    Ok(attempt) => {
                        return self.on_consensus_gossip(
                            from,
                            ticket,
                            attempt.message,
                            bytes.len(),
                        );
                    }
                    Err(_) => Verdict::Reject,
                }
            }
            Topic::Headers => {
                match codec::decode::<Attempt<CertifiedHeader>>(bytes, HEADER_MESSAGE_BYTES_MAX) {
                    Ok(attempt) => self.on_header(from, &attempt.message, Told::Gossip),
                    Err(_) => Verdict::Reject,
                }
            }
            // Decoded and verified outside, in parallel, and given as `Input::Transactions`.
            Topic::Transactions => Verdict::Ignore,
        };
        self.turn.push(Effect::Judge(ticket, verdict));
    }

    /// Does everything that is due now.
    fn settle(&mut self) {
        if self.phase == Phase::Halted {
            return;
        }
        self.poll_peers();
        self.flush_transactions();
        self.commit_certified();
        self.follow_others();
        if self.phase == Phase::Deciding
            && self.signing.resumes(&self.chain.state, self.turn.now, self.consensus_signs())
        {
            // The wait before signing ended in the middle of a height: begin the height again, as a
            // signer.
            self.begin_height();
        }
        if self.phase == Phase::Waiting && self.height_begins() {
            self.begin_height();
        }
        if self.phase == Phase::Deciding {
            self.take_in_early();
        }
        if self.phase == Phase::Deciding {
            let outputs = self.consensus.on_time(self.turn.now.elapsed);
            self.perform(outputs);
        }
        if self.phase == Phase::Deciding {
            self.build_waiting();
        }
        if self.phase == Phase::Deciding {
            self.look_at_round();
        }
        if matches!(self.phase, Phase::Deciding | Phase::Fetching) {
            self.advance_bodies();
        }
        if self.phase == Phase::Deciding {
            self.repeat_proposals();
        }
        self.commit_certified();
        self.announce();
        self.attend();
    }

    /// Verifications and look-ups that the last input caused. Its sender pays, unless it was of
    /// use.
    #[must_use]
    pub const fn cost(&self) -> Cost {
        self.turn.cost()
    }

    /// When [`Input::Time`] is due at the latest.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        let mut deadline = self.next_poll;
        let mut at =
            |time: Option<Duration>| deadline = time.map_or(deadline, |time| deadline.min(time));
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
                at(self.signing.deadline(self.turn.now).filter(|_| !self.consensus_signs()));
                at(self.follow_deadline());
            }
            Phase::Fetching => {
                at(self.bodies.deadline());
                at(self.follow_deadline());
            }
            Phase::CatchingUp => at(self.follow_deadline()),
            Phase::Committing | Phase::Halted => {}
        }
        deadline
    }

    fn halt(&mut self, reason: String) {
        self.phase = Phase::Halted;
        self.turn.push(Effect::Halt(reason));
    }

    /// The chain as of the tip.
    #[must_use]
    pub const fn chain(&self) -> &ChainState {
        &self.chain.state
    }

    /// The tip's header and certificate; none before the first block.
    #[must_use]
    pub fn certified_header(&self) -> Option<CertifiedHeader> {
        self.chain.certified_header()
    }

    /// Certificate of the tip.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        self.chain.certificate()
    }

    /// Transactions that wait for a block.
    #[must_use]
    pub const fn mempool(&self) -> &Mempool {
        &self.mempool
    }

    /// The nonce to sign next: after those in the chain and those that wait without a gap.
    #[must_use]
    pub fn pending_nonce(&self, account: &PublicKey) -> Nonce {
        self.mempool.next_nonce(&self.chain.state, account)
    }

    /// Round of the height being decided.
    #[must_use]
    pub fn round(&self) -> Round {
        if self.phase == Phase::Deciding { self.consensus.round() } else { Round(0) }
    }

    /// Whether this node fetches final blocks while consensus rests.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        self.phase == Phase::CatchingUp || matches!(self.committing, Some((_, _, Source::CatchUp)))
    }

    /// Highest height that each peer claims.
    #[must_use]
    pub fn peer_heights(&self) -> BTreeMap<PeerId, Height> {
        self.catchup.claims()
    }

    /// Whether votes of a quorum are heard.
    #[must_use]
    pub const fn quorum(&self) -> &Quorum {
        self.attendance.quorum()
    }

    /// Counters of this machine's work for others since its start.
    #[must_use]
    pub const fn work(&self) -> Work {
        self.bodies.work()
    }

    /// Blocks of the height after the tip that are in memory: judged, or being fetched.
    #[must_use]
    pub fn bodies_held(&self) -> usize {
        self.bodies.held()
    }

    /// Since start: rounds beyond the first of their height, and reported equivocations.
    #[must_use]
    pub const fn troubles(&self) -> (u64, u64) {
        (self.extra_rounds, self.equivocations)
    }

    fn transaction(&mut self, hash: &TxHash) -> Option<Arc<VerifiedTransaction>> {
        self.mempool.get(hash).or_else(|| self.bodies.transaction(hash))
    }
}

#[cfg(test)]
mod tests;
