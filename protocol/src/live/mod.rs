//! The live machine: mempool, consensus and catch-up as one state machine. Every input enters by
//! [`Machine::handle`].
//!
//! Each file is one subject:
//! - `heights` begins a height and performs the outputs of consensus. `building` builds its block.
//! - `proposals` and `votes` follow what validators send. `bodies` fetches and judges blocks.
//! - `commits` makes a block final. `headers` announces final blocks and hears of them. `catchup`
//!   fetches blocks that others made final.
//! - `transactions` relays transactions, which wait in `mempool`.
//! - `peers` and `requests` ask peers and answer them. `clocks` compares their clocks with ours.
//! - `validator` decides when this node may sign.
//! - `phase` has the data that exists only for a while. `turn` has what one input causes.

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

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ledger::block::Header;
use ledger::certificate::Certificate;
use ledger::chain::ChainState;
use ledger::codec;
use ledger::hash::TxHash;
use ledger::signature::{PublicKey, SigningKey};
use ledger::transaction::VerifiedTransaction;
use ledger::units::{Height, Nonce, Round};

use crate::budget::Cost;
use crate::ids::{PeerId, Ticket};
use crate::lots::Lots;
use crate::message::{
    Attempt, CONSENSUS_BYTES_MAX, CertifiedHeader, ConsensusMessage, HEADER_MESSAGE_BYTES_MAX,
};
use bodies::Bodies;
pub use bodies::Work;
use catchup::CatchUp;
use consensus::Consensus;
pub use effect::{Effect, Notice};
use final_chain::FinalChain;
use headers::Headers;
use heights::Pace;
pub use input::{Input, Now, Topic, Verdict};
use mempool::{Mempool, MempoolLimits};
use peers::Peers;
use phase::{Begun, Origin, Phase};
use transactions::Transactions;
use turn::Turn;
use validator::Validator;
pub use validator::log::Log;
use votes::Votes;
pub use votes::attendance::Quorum;

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
    /// The consensus log as found at start.
    pub log: Log,
    /// Sign even if the log is lost. The operator vouches that nothing was signed above the tip.
    pub sign_without_log: bool,
    /// Bounds of the mempool.
    pub mempool: MempoolLimits,
    /// Seed of random choices, such as which peer is asked. If it is not secret, peers foresee
    /// them.
    pub seed: u64,
}

/// The state machine of a node: all decisions, no I/O.
pub struct Machine {
    /// The current input: its time, and what follows from it.
    turn: Turn,
    /// The chain up to the tip.
    chain: FinalChain,
    /// The current phase, with the data that exists only in it.
    phase: Phase,
    /// When heights begin.
    pace: Pace,
    /// Decides one height at a time.
    consensus: Consensus,
    /// Proposed blocks of the height after the tip.
    bodies: Bodies,
    /// Messages of consensus: which were passed on, which wait for a later height, which validators
    /// are heard, and which signed twice.
    votes: Votes,
    /// Certified headers that this node sends.
    headers: Headers,
    /// Transactions that wait for a block.
    transactions: Transactions,
    /// Blocks that others made final, which are fetched.
    catchup: CatchUp,
    /// Connected peers, and requests in flight with them.
    peers: Peers,
    /// The validator of this node: key, log, and rule of signing.
    validator: Validator,
}

impl Machine {
    /// A machine that continues from a stored chain and its log.
    #[must_use]
    pub fn new(setup: Setup, now: Now) -> Self {
        let Setup { chain, header, certificate, key, log, sign_without_log, mempool, seed } = setup;
        let (rules, tip) = (chain.chain(), chain.tip().height);
        let mut lots = Lots::new(seed);
        Self {
            catchup: CatchUp::new(lots.draw()),
            turn: Turn::new(now, lots),
            phase: Phase::Waiting,
            pace: Pace::new(now.elapsed),
            consensus: Consensus::new(rules.id(), key.clone(), rules.validators(tip.next())),
            bodies: Bodies::default(),
            votes: Votes::new(),
            headers: Headers::new(tip),
            transactions: Transactions::new(mempool),
            peers: Peers::new(now.elapsed),
            validator: Validator::new(key, log, sign_without_log, &chain, now),
            chain: FinalChain::new(chain, header, certificate),
        }
    }

    /// Takes in one input and returns its effects.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Effect> {
        if matches!(self.phase, Phase::Halted) {
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
                    Ok(attempt) => self.on_header(from, &attempt.message),
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
        if matches!(self.phase, Phase::Halted) {
            return;
        }
        self.poll_peers();
        self.flush_transactions();
        self.commit_certified();
        self.follow_others();
        if self.phase.is_deciding()
            && self.validator.signing.resumes(
                &self.chain.state,
                self.turn.now,
                self.consensus_signs(),
            )
        {
            // This node may sign now, but began the height without signing. The height begins
            // again, and this node signs in it.
            self.begin_height();
        }
        if matches!(self.phase, Phase::Waiting) && self.height_begins() {
            self.begin_height();
        }
        if self.phase.is_deciding() {
            self.take_in_early();
        }
        if self.phase.is_deciding() {
            let outputs = self.consensus.on_time(self.turn.now.elapsed);
            self.perform(outputs);
        }
        if self.phase.is_deciding() {
            self.build_waiting();
        }
        if self.phase.is_deciding() {
            self.look_at_round();
        }
        if matches!(self.phase, Phase::Begun(_)) {
            self.advance_bodies();
        }
        if self.phase.is_deciding() {
            self.repeat_proposals();
        }
        self.commit_certified();
        self.announce();
        self.attend();
    }

    /// The cost of the last input, without its decoding. The sender pays all of it, or only
    /// [`Cost::of_relay`] if its message is passed on.
    #[must_use]
    pub const fn cost(&self) -> Cost {
        self.turn.cost()
    }

    /// When [`Input::Time`] is due at the latest.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        let mut deadline = self.peers.next_poll;
        let mut at =
            |time: Option<Duration>| deadline = time.map_or(deadline, |time| deadline.min(time));
        at(self.transactions.outbox.deadline());
        at(self.headers.announce_at);
        match &self.phase {
            Phase::Waiting => {
                at(Some(self.start_at()));
                at(self.follow_deadline());
            }
            Phase::Begun(Begun::Deciding(proposals)) => {
                at(self.consensus.deadline());
                at(self.bodies.deadline());
                at(Some(proposals.deadline()));
                at(self.votes.attendance.deadline());
                at(self
                    .validator
                    .signing
                    .deadline(self.turn.now)
                    .filter(|_| !self.consensus_signs()));
                at(self.follow_deadline());
            }
            Phase::Begun(Begun::Fetching(_)) => {
                at(self.bodies.deadline());
                at(self.follow_deadline());
            }
            Phase::CatchingUp(_) => at(self.follow_deadline()),
            Phase::Committing(_) | Phase::Halted => {}
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
        &self.transactions.mempool
    }

    /// The nonce to sign next, after the nonces in the chain and those that wait without a gap.
    #[must_use]
    pub fn pending_nonce(&self, account: &PublicKey) -> Nonce {
        self.transactions.mempool.next_nonce(&self.chain.state, account)
    }

    /// Current round of the height being decided; 0 while no height is being decided.
    #[must_use]
    pub fn round(&self) -> Round {
        if self.phase.is_deciding() { self.consensus.round() } else { Round(0) }
    }

    /// Whether this node fetches final blocks while consensus is stopped.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        match &self.phase {
            Phase::CatchingUp(_) => true,
            Phase::Committing(committing) => committing.origin == Origin::CatchUp,
            _ => false,
        }
    }

    /// Highest height that each peer claims.
    #[must_use]
    pub fn peer_heights(&self) -> BTreeMap<PeerId, Height> {
        self.catchup.claims()
    }

    /// Whether votes of a quorum are heard.
    #[must_use]
    pub const fn quorum(&self) -> &Quorum {
        self.votes.attendance.quorum()
    }

    /// Counters of the work on proposed blocks since the start.
    #[must_use]
    pub const fn work(&self) -> Work {
        self.bodies.work()
    }

    /// Blocks of the height after the tip that are in memory: judged, or being fetched.
    #[must_use]
    pub fn bodies_held(&self) -> usize {
        self.bodies.held()
    }

    /// Since the start: rounds that were not the first of their height, and validators in reports
    /// of double signing.
    #[must_use]
    pub const fn troubles(&self) -> (u64, u64) {
        (self.pace.extra_rounds, self.votes.offenders.equivocations())
    }

    fn transaction(&mut self, hash: &TxHash) -> Option<Arc<VerifiedTransaction>> {
        self.transactions.mempool.get(hash).or_else(|| self.bodies.transaction(hash))
    }
}

#[cfg(test)]
mod tests;
