//! The driver feeds the protocol machine and performs its effects, in order, on its own thread.

mod archive;
mod inputs;
mod notices;
mod queries;
mod reads;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use anyhow::Context;
use ledger::api::BlockSummary;
use ledger::chain::{Committed, TransactionError};
use ledger::codec;
use ledger::hash::{Domain, Hash};
use ledger::store::Store;
use ledger::transaction::VerifiedTransaction;
use ledger::units::Height;
use protocol::budget::Cost;
use protocol::live::mempool::AdmitError;
use protocol::message::{CertifiedHeader, answer_bytes_max};
use protocol::{Effect, Input, Machine, PeerId, Quorum, RequestId, Ticket};
use tokio::sync::{broadcast, mpsc, watch};

pub(crate) use self::archive::{TO_ARCHIVE, ToArchive};
use self::inputs::{Cycle, Due, IDLE, Next};
pub(crate) use self::inputs::{Inputs, Joined, ToDriver};
use self::reads::Reads;
use super::blame::charge;
use super::find::ToFind;
use super::peer_numbers::PeerNumbers;
use super::priority::patient_threads;
use super::snapshots::Offers;
use crate::checkpoint::Checkpoint;
use crate::clock::{Clock, wall_ms};
use crate::consensus_log::ConsensusLog;
use crate::network::{self, Gossip, Network, PeerEvent, Topic};
use crate::submission::Reply;
use crate::verifier::Verified;
use crate::view::{Activity, Journal, TipView, block_summary};
use notices::report;

/// The outputs, except network traffic.
pub(crate) struct Outputs {
    pub(crate) tip: watch::Sender<Arc<TipView>>,
    pub(crate) activity: watch::Sender<Activity>,
    pub(crate) quorum: watch::Sender<Quorum>,
    pub(crate) blocks: broadcast::Sender<BlockSummary>,
    pub(crate) journal: Arc<Journal>,
    /// The last certified header far ahead of the tip.
    pub(crate) target: watch::Sender<Option<CertifiedHeader>>,
}

pub(crate) struct Driver {
    clock: Clock,
    machine: Machine,
    store: Store,
    /// Only validators have one.
    log: Option<ConsensusLog>,
    network: Network,
    outputs: Outputs,
    /// A block that the chain must contain.
    checkpoint: Option<Checkpoint>,
    snapshots: Arc<Offers>,
    archive: mpsc::Sender<ToArchive>,
    find: mpsc::Sender<ToFind>,
    peers: PeerNumbers,
    /// Requests in flight, and the peer that each went to.
    requests: HashMap<network::RequestId, (RequestId, PeerId)>,
    tickets: Tickets,
    /// The cost of the current input.
    cost: Cost,
    /// The reads of blocks that peers asked for. A panic in one ends the node.
    reads: Reads,
    activity: Activity,
    /// Set if blocks were committed since the last call of [`Store::maintain`].
    unmaintained: bool,
    /// Set while blocks of history are durable and the machine has not been told.
    unconfirmed: bool,
    /// A low-priority thread for blocks of history.
    past: Arc<rayon::ThreadPool>,
}

/// Gossip, requests and submissions that wait for the machine's answer. It comes within the same
/// call of [`Driver::turn`] or never.
#[derive(Default)]
struct Tickets {
    next: u64,
    /// Gossip without a verdict, each with the cost of the message before the machine saw it.
    gossip: HashMap<Ticket, (network::GossipTicket, Cost)>,
    /// Requests without an answer, each with the peer that sent it.
    responses: HashMap<Ticket, (network::ResponseTicket, network::PeerId)>,
    submissions: HashMap<Ticket, (Arc<VerifiedTransaction>, Reply)>,
}

impl Tickets {
    fn next(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    fn clear(&mut self) {
        self.gossip.clear();
        self.responses.clear();
        self.submissions.clear();
    }
}

/// Everything a driver starts with.
pub(crate) struct Parts {
    pub(crate) clock: Clock,
    pub(crate) machine: Machine,
    pub(crate) store: Store,
    pub(crate) log: Option<ConsensusLog>,
    pub(crate) network: Network,
    pub(crate) peers: PeerNumbers,
    pub(crate) outputs: Outputs,
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) snapshots: Arc<Offers>,
    pub(crate) archive: mpsc::Sender<ToArchive>,
    pub(crate) find: mpsc::Sender<ToFind>,
}

impl Driver {
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn new(parts: Parts) -> anyhow::Result<Self> {
        let Parts { clock, machine, store, log, network, peers, outputs, .. } = parts;
        Ok(Self {
            clock,
            machine,
            store,
            log,
            network,
            outputs,
            checkpoint: parts.checkpoint,
            snapshots: parts.snapshots,
            archive: parts.archive,
            find: parts.find,
            peers,
            requests: HashMap::new(),
            tickets: Tickets::default(),
            cost: Cost::NONE,
            reads: Reads::new(),
            activity: Activity::default(),
            unmaintained: false,
            unconfirmed: false,
            past: Arc::new(patient_threads("past", 1)?),
        })
    }

    /// Runs until the node must stop or cannot go on. It needs its own thread, since a write to the
    /// disk blocks the thread.
    ///
    /// # Errors
    /// The disk refuses, the machine halts, or a read of blocks for a peer panics.
    pub(crate) async fn run(mut self, mut inputs: Inputs, joined: Joined) -> anyhow::Result<()> {
        let Joined { tip, connected, plan } = joined;
        self.to_archive(ToArchive::Began);
        if tip.is_some() {
            self.publish_tip();
        }
        self.turn(Input::Time)?;
        for peer in connected {
            // `joining` holds its number.
            self.turn(Input::Connected(self.peers.number(&peer)))?;
        }
        if let Some(plan) = plan {
            self.turn(Input::Plan(plan))?;
        }
        let mut cycle = Cycle::new();
        loop {
            let timer = self.machine.deadline().saturating_sub(self.clock.now().elapsed);
            let due = Due {
                timer,
                past: self.unconfirmed,
                checkpoint: self.unmaintained && timer > IDLE,
            };
            match inputs.next(&mut cycle, &mut self.reads, due).await {
                Next::Stop => return Ok(()),
                Next::Consensus(gossip) => self.on_gossip(protocol::Topic::Consensus, gossip)?,
                Next::Timer => self.turn(Input::Time)?,
                Next::Headers(gossip) => self.on_gossip(protocol::Topic::Headers, gossip)?,
                Next::Event(event) => self.on_event(event)?,
                Next::Verified(verified) => self.on_verified(verified)?,
                Next::Query(query) => self.on_query(query),
                Next::Read(read) => {
                    let peer = read.context("reading blocks for a peer")?;
                    self.reads.on_ended(&self.store, &self.network, &peer);
                }
                Next::Past => {
                    self.unconfirmed = false;
                    self.turn_giving_way(Input::Committed)?;
                }
                Next::Sync(ToDriver::Plan(plan)) => self.turn(Input::Plan(plan))?,
                Next::Sync(ToDriver::Segment(blocks, certificate)) => {
                    self.turn_giving_way(Input::Segment(blocks, certificate))?;
                }
                Next::Sync(ToDriver::Joined(_)) => anyhow::bail!("sync loaded a snapshot twice"),
                Next::Idle => self.maintain()?,
            }
        }
    }

    fn maintain(&mut self) -> anyhow::Result<()> {
        self.store.maintain()?;
        self.unmaintained = false;
        Ok(())
    }

    fn on_gossip(&mut self, topic: protocol::Topic, gossip: Gossip) -> anyhow::Result<()> {
        let from = self.peers.number(&gossip.from);
        let ticket = self.tickets.next();
        self.tickets.gossip.insert(ticket, (gossip.ticket, Cost::message(gossip.bytes.len())));
        self.turn(Input::Gossip(topic, from, ticket, gossip.bytes))
    }

    fn on_event(&mut self, event: PeerEvent) -> anyhow::Result<()> {
        let input = match event {
            PeerEvent::Connected(id) => Input::Connected(self.peers.hold(id)),
            PeerEvent::Disconnected(id) => {
                self.reads.forget(&id);
                match self.peers.release(&id) {
                    Some(number) => Input::Disconnected(number),
                    None => return Ok(()),
                }
            }
            PeerEvent::Request { from, bytes, ticket } => {
                let number = self.tickets.next();
                self.tickets.responses.insert(number, (ticket, from));
                let done = self.turn(Input::Request(self.peers.number(&from), number, bytes));
                self.network.accounts().charge(&from, &self.cost);
                return done;
            }
            PeerEvent::Response { id, result, .. } => {
                let Some((id, from)) = self.requests.remove(&id) else {
                    self.to_archive(ToArchive::Response { id, result });
                    return Ok(());
                };
                Input::Response(id, from, result.ok())
            }
        };
        self.turn(input)
    }

    fn on_verified(&mut self, verified: Verified) -> anyhow::Result<()> {
        match verified {
            Verified::Gossip(ticket, cost, Some(transactions)) => {
                let number = self.tickets.next();
                self.tickets.gossip.insert(number, (ticket, cost));
                self.turn(Input::Transactions(number, transactions))
            }
            Verified::Gossip(ticket, cost, None) => {
                self.network.accounts().charge(&ticket.from, &cost);
                self.network.verdict(ticket, network::Verdict::Reject);
                Ok(())
            }
            Verified::Submission(Some(transaction), reply) => {
                let number = self.tickets.next();
                self.tickets.submissions.insert(number, (Arc::clone(&transaction), reply));
                self.turn(Input::Submit(number, transaction))
            }
            Verified::Submission(None, reply) => {
                let refusal = AdmitError::Rejected(TransactionError::Signature);
                let _gone = reply.send(Err(refusal.into()));
                Ok(())
            }
        }
    }

    /// Gives the machine one input and performs its effects. Then does the same with each input
    /// that follows from these effects.
    fn turn(&mut self, input: Input) -> anyhow::Result<()> {
        let mut inputs = VecDeque::from([input]);
        let mut cost = None;
        while let Some(input) = inputs.pop_front() {
            let is_committed = matches!(input, Input::Committed);
            let effects = self.machine.handle(self.clock.now(), input);
            // Only the first input can come from a peer, so only its cost is charged. A block that
            // is committed in the same turn costs the peer nothing.
            self.cost = *cost.get_or_insert(self.machine.cost());
            if is_committed {
                // Durable before acknowledged: readers see a block only after the disk has it.
                self.publish_tip();
            }
            for effect in effects {
                match effect {
                    Effect::Commit(commits) => {
                        self.commit(&commits)?;
                        match self.machine.is_syncing() {
                            // The next blocks may be as much work again, so other inputs go first.
                            true => self.unconfirmed = true,
                            false => inputs.push_back(Input::Committed),
                        }
                    }
                    Effect::Request(id, peer, bytes) => match self.peers.id(peer) {
                        Some(to) => {
                            let most = answer_bytes_max(&bytes);
                            let asked = self.network.request_within(to, bytes, most);
                            self.requests.insert(asked, (id, peer));
                        }
                        None => inputs.push_back(Input::Response(id, peer, None)),
                    },
                    other => self.perform(other)?,
                }
            }
        }
        // The machine answers within the turn or never. Dropping the ticket of a request tells the
        // peer that this node is busy.
        self.tickets.clear();
        self.publish_activity();
        Ok(())
    }

    /// A turn on the low-priority thread.
    fn turn_giving_way(&mut self, input: Input) -> anyhow::Result<()> {
        let (runtime, past) = (tokio::runtime::Handle::current(), Arc::clone(&self.past));
        past.install(|| {
            let _entered = runtime.enter();
            self.turn(input)
        })
    }

    fn perform(&mut self, effect: Effect) -> anyhow::Result<()> {
        match effect {
            Effect::CutLog(height) => self.log()?.cut(height)?,
            Effect::Log(entry) => self.log()?.append(entry),
            Effect::SyncLog => self.log()?.sync()?,
            Effect::ShortenLog(kept) => self.log()?.shorten(&kept)?,
            Effect::Gossip(topic, bytes) => self.network.publish(network_topic(topic), bytes),
            Effect::Judge(ticket, verdict) => {
                if let Some((ticket, cost)) = self.tickets.gossip.remove(&ticket) {
                    // The sender of gossip that is passed on pays at most for repeated bytes.
                    // Otherwise honest peers that relay the messages of an attack would pay for
                    // them.
                    let cost = match verdict {
                        protocol::Verdict::Accept => self.cost.of_relay(),
                        protocol::Verdict::Ignore | protocol::Verdict::Reject => {
                            cost.and(self.cost)
                        }
                    };
                    if cost != Cost::NONE {
                        self.network.accounts().charge(&ticket.from, &cost);
                    }
                    self.network.verdict(ticket, network_verdict(verdict));
                }
            }
            Effect::Respond(ticket, bytes) => {
                if let Some((ticket, peer)) = self.tickets.responses.remove(&ticket) {
                    self.network.accounts().charge(&peer, &Cost::answer(bytes.len()));
                    self.network.respond(ticket, bytes);
                }
            }
            Effect::RespondBlocks(ticket, from) => self.respond_blocks(ticket, from),
            Effect::RespondEras { ticket, said, .. } => {
                self.ask_archive(ticket, |ticket, from| ToArchive::Eras { ticket, from, said });
            }
            Effect::RespondChunk { ticket, segment, chunk } => {
                let question = |ticket, from| ToArchive::Chunk { ticket, from, segment, chunk };
                self.ask_archive(ticket, question);
            }
            Effect::RespondFlood { ticket, message, .. } => self.tell_find(ticket, message),
            Effect::Commit(_) | Effect::Request(..) => {
                unreachable!("performed by `turn`, as inputs follow from them")
            }
            Effect::Submitted(ticket, result) => self.on_submitted(ticket, result),
            Effect::Evidence(evidence) => {
                let bytes = codec::encode(&evidence);
                let key = Hash::of(Domain::StoreValue, &[&bytes]);
                self.store.put_evidence(evidence.about(), key.as_bytes(), &bytes)?;
            }
            Effect::Ban { peer, offence } => {
                if let Some(peer) = self.peers.id(peer) {
                    self.network.ban(peer, charge(&offence));
                }
            }
            Effect::Sync(target) => drop(self.outputs.target.send_replace(Some(target))),
            Effect::Notice(notice) => report(&notice, self.machine.chain().chain().genesis()),
            Effect::Halt(reason) => anyhow::bail!("{reason}"),
        }
        Ok(())
    }

    fn log(&mut self) -> anyhow::Result<&mut ConsensusLog> {
        self.log.as_mut().ok_or_else(|| anyhow::anyhow!("only validators log, and they have a log"))
    }

    fn commit(&mut self, commits: &[Committed]) -> anyhow::Result<()> {
        if let Some(checkpoint) = self.checkpoint {
            for Committed { block, .. } in commits {
                checkpoint.check(block.height(), block.hash())?;
            }
        }
        self.store.commit(commits)?;
        self.unmaintained = true;
        let now = wall_ms();
        let note = if self.machine.is_syncing() { Journal::caught_up } else { Journal::finalized };
        for commit in commits {
            let block = &commit.block;
            let transactions = &block.block().transactions;
            transactions
                .iter()
                .for_each(|transaction| note(&self.outputs.journal, transaction.id(), now));
            self.activity.blocks_committed += 1;
            self.activity.transactions_committed += transactions.len() as u64;
            let (count, bytes) = (transactions.len(), block.bytes().len());
            let summary = block_summary(block.header(), block.hash(), count, bytes);
            // Fails if there are no subscribers.
            let _unheard = self.outputs.blocks.send(summary);
        }
        Ok(())
    }

    fn publish_tip(&self) {
        let (state, certificate) =
            (self.machine.chain().clone(), self.machine.certificate().clone());
        let header = self.machine.certified_header().map(|certified| certified.header);
        let tip = Arc::new(TipView { state, certificate, header });
        // While the node catches up, its states are of the past, and it has other work.
        if !self.machine.is_syncing() {
            self.snapshots.offer(&tip);
        }
        self.outputs.tip.send_replace(tip);
    }

    fn publish_activity(&mut self) {
        let (extra_rounds, equivocations) = self.machine.troubles();
        self.activity = Activity {
            round: self.machine.round(),
            best_peer_height: self.machine.best_peer_height(),
            syncing: self.machine.is_syncing(),
            mempool_transactions: self.machine.mempool().len(),
            mempool_bytes: self.machine.mempool().bytes(),
            extra_rounds,
            equivocations,
            clock_offset_ms: self.machine.clock_offset_ms(),
            ..self.activity
        };
        let activity = self.activity;
        self.outputs
            .activity
            .send_if_modified(|shown| std::mem::replace(shown, activity) != activity);
        let quorum = self.machine.quorum();
        // The quorum is copied only if it changed, which is rare.
        self.outputs.quorum.send_if_modified(|shown| {
            let is_news = shown != quorum;
            if is_news {
                shown.clone_from(quorum);
            }
            is_news
        });
    }

    fn on_submitted(&mut self, ticket: Ticket, result: Result<(), AdmitError>) {
        let Some((transaction, reply)) = self.tickets.submissions.remove(&ticket) else { return };
        let answer = match result {
            Ok(()) => {
                self.outputs.journal.accepted(transaction.id(), wall_ms());
                Ok(transaction.id())
            }
            Err(error) => Err(error.into()),
        };
        let _gone = reply.send(answer);
    }

    fn respond_blocks(&mut self, ticket: Ticket, from: Height) {
        if let Some((ticket, peer)) = self.tickets.responses.remove(&ticket) {
            self.reads.ask(&self.store, &self.network, peer, ticket, from);
        }
    }
}

const fn network_topic(topic: protocol::Topic) -> Topic {
    match topic {
        protocol::Topic::Consensus => Topic::Consensus,
        protocol::Topic::Headers => Topic::Headers,
        protocol::Topic::Transactions => Topic::Transactions,
    }
}

const fn network_verdict(verdict: protocol::Verdict) -> network::Verdict {
    match verdict {
        protocol::Verdict::Accept => network::Verdict::Accept,
        protocol::Verdict::Ignore => network::Verdict::Ignore,
        protocol::Verdict::Reject => network::Verdict::Reject,
    }
}
