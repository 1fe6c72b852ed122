//! The world: what happens, in which order, and what becomes of it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use ledger::certificate::VoteKind;
use ledger::chain::Chain;
use ledger::codec;
use ledger::transaction::{Transaction, verify_transactions};
use ledger::units::{Height, Round, Timestamp};
use protocol::machine::Notice;
use protocol::message::{Attempt, CONSENSUS_BYTES_MAX, ConsensusMessage, LogEntry, SignedVote, TRANSACTIONS_BYTES_MAX};
use protocol::{Effect, Input, RequestId, Ticket, Topic, Verdict};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::check::{Check, Rule, Violation};
use super::disk::Disk;
use super::load::Load;
use super::network::{Gossip, Network};
use super::node::{Clock, Fuse, Node, node_of, peer_id};
use super::plan::{Damage, Fault, Plan, milliseconds, validator_key};

/// A request without an answer has failed after so long.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Wakes at once in a row that no idle machine wants.
const RESTLESS_MAX: u32 = 50;

/// A broken rule, and how to see it again.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The history.
    pub seed: u64,
    /// Time since it began.
    pub at: Duration,
    /// What was broken.
    pub violation: Violation,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, at, violation } = self;
        write!(f, "seed {seed}, at {at:.3?}: {violation}\n  see it again: make sim SEED={seed}")
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Heights made final.
    pub heights: u64,
    /// Transfers made final.
    pub transactions: u64,
    /// Crashes that nodes lived through.
    pub crashes: u64,
    /// Heights that took more than one round, counted once per node and round.
    pub rounds: u64,
    /// Time that went by.
    pub time: Duration,
    /// Stands for all that happened, in order.
    pub digest: u64,
}

/// What may be next.
enum Happening {
    Wake { node: usize, life: u64 },
    Gossip { from: usize, to: usize, gossip: Arc<Gossip>, bytes: Arc<Vec<u8>> },
    Request { from: usize, life: u64, to: usize, id: RequestId, bytes: Vec<u8> },
    Answer { to: usize, life: u64, id: RequestId, bytes: Option<Vec<u8>> },
    Meet { node: usize, peer: usize },
    Load,
    Fault(Fault),
    Join(u64),
    Restart { node: usize, life: u64 },
}

/// All nodes, and all between them.
pub struct World {
    /// Whether to print what happens.
    pub told: bool,
    seed: u64,
    plan: Plan,
    rng: ChaCha8Rng,
    time: Duration,
    sequence: u64,
    agenda: BTreeMap<(Duration, u64), Happening>,
    chain: Arc<Chain>,
    network: Network,
    nodes: Vec<Node>,
    load: Load,
    loaded: bool,
    check: Check,
    broken: Option<Violation>,
    crashes: u64,
    rounds: u64,
    digest: DefaultHasher,
}

impl World {
    /// A network at its first start, all nodes up.
    #[must_use]
    pub fn new(seed: u64, plan: Plan) -> Self {
        let chain = Chain::new(plan.genesis());
        // Another stream than the plan's: the same chance must not decide both.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(1);
        let start = Timestamp(chain.genesis().start_time.0 + 86_400_000);
        let drift = milliseconds(plan.clock_drift);
        let nodes = (0..plan.nodes()).map(|place| Node {
            key: (place < plan.powers.len()).then(|| validator_key(place)),
            clock: Clock { start: Timestamp(start.0 + rng.random_range(0..=drift)) },
            disk: Disk::new(&chain),
            running: None,
            life: 0,
        });
        let nodes: Vec<Node> = nodes.collect();
        let dishonest = plan.liar.map(|liar| validator_key(liar).public()).into_iter().collect();
        let mut world = Self {
            told: false,
            seed,
            rng,
            time: Duration::ZERO,
            sequence: 0,
            agenda: BTreeMap::new(),
            network: Network::new(plan.delay.clone(), plan.loss_percent),
            nodes,
            load: Load::new(),
            loaded: true,
            check: Check::new(&chain, dishonest),
            broken: None,
            crashes: 0,
            rounds: 0,
            digest: DefaultHasher::new(),
            chain,
            plan,
        };
        for (at, fault) in std::mem::take(&mut world.plan.faults) {
            world.plan_at(at, Happening::Fault(fault));
        }
        world.plan_at(Duration::ZERO, Happening::Load);
        (0..world.nodes.len()).for_each(|node| world.start(node));
        world
    }

    /// Lets so much time go by.
    ///
    /// # Errors
    /// `Failure` at the first broken rule.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Failure> {
        self.run_until(time, |_| false).map(|_| ())
    }

    /// Lets time go by until something is so, or so long at most. Says whether it is so.
    ///
    /// # Errors
    /// `Failure` at the first broken rule.
    pub fn run_until(&mut self, bound: Duration, is_so: impl Fn(&Self) -> bool) -> Result<bool, Failure> {
        let end = self.time + bound;
        while !is_so(self) {
            let next = self.agenda.first_key_value().map(|((at, _), _)| *at).filter(|at| *at <= end);
            if next.is_none() {
                self.time = end;
                return Ok(false);
            }
            if let Some(((at, _), happening)) = self.agenda.pop_first() {
                self.time = at;
                self.happen(happening);
            }
            if let Some(violation) = self.broken.take() {
                return Err(self.failure(violation));
            }
        }
        Ok(true)
    }

    /// Ends all faults: everybody is up and hears everybody, and no new transfers come.
    pub fn calm(&mut self) {
        self.tell(None, || "all is healed".to_owned());
        self.agenda.retain(|_, happening| !matches!(happening, Happening::Fault(_)));
        self.network.heal();
        self.loaded = false;
        for node in 0..self.nodes.len() {
            match &mut self.nodes[node].running {
                Some(running) => running.fuse = None,
                None => self.start(node),
            }
            self.meet_all(node);
        }
        for (place, transaction) in self.load.again(self.check.newest()).into_iter().enumerate() {
            self.give(place % self.nodes.len(), Input::Submit(Ticket(0), transaction));
        }
    }

    /// All nodes reach so many heights more than any has, and once no new ones come, every transfer becomes final.
    ///
    /// # Errors
    /// `Failure` when they do not within this time.
    pub fn progress(&mut self, heights: u64, patience: Duration) -> Result<(), Failure> {
        let target = Height(self.check.newest().tip().height.0 + heights);
        let is_there = |world: &Self| {
            world.nodes.iter().all(|node| node.disk.height() >= target)
                && (world.loaded || world.load.waiting(world.check.newest()) == 0)
        };
        if self.run_until(patience, is_there)? {
            return Ok(());
        }
        let (heights, waiting) = (self.heights(), self.load.waiting(self.check.newest()));
        let what = format!("heights {heights:?} after {patience:?}, expected {target}; {waiting} transfers wait");
        Err(self.failure(Violation::new(Rule::NoStandstill, what)))
    }

    /// Stops a node at once.
    pub fn crash(&mut self, node: usize) {
        self.stop(node, Damage::None);
    }

    /// Starts a node from its disk.
    pub fn restart(&mut self, node: usize) {
        assert!(self.nodes[node].running.is_none(), "a node is started once");
        self.start(node);
    }

    /// Height of each node's store, running or not.
    #[must_use]
    pub fn heights(&self) -> Vec<Height> {
        self.nodes.iter().map(|node| node.disk.height()).collect()
    }

    /// The highest round any running node is in.
    #[must_use]
    pub fn round(&self) -> Round {
        let running = self.nodes.iter().filter_map(|node| node.running.as_ref());
        running.map(|running| running.machine.round()).max().unwrap_or_default()
    }

    /// What has been seen of all nodes.
    #[must_use]
    pub const fn check(&self) -> &Check {
        &self.check
    }

    /// What it came to so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            heights: self.check.newest().tip().height.0,
            transactions: self.check.transactions() as u64,
            crashes: self.crashes,
            rounds: self.rounds,
            time: self.time,
            digest: self.digest.finish(),
        }
    }

    pub(crate) const fn failure(&self, violation: Violation) -> Failure {
        Failure { seed: self.seed, at: self.time, violation }
    }

    fn plan_at(&mut self, at: Duration, happening: Happening) {
        self.sequence += 1;
        self.agenda.insert((at, self.sequence), happening);
    }

    fn plan_in(&mut self, delay: Duration, happening: Happening) {
        self.plan_at(self.time + delay, happening);
    }

    fn tell(&self, node: Option<usize>, what: impl FnOnce() -> String) {
        if self.told {
            let who = node.map_or_else(|| "world".to_owned(), |node| format!("node {node}"));
            println!("{:>12.6} {who}: {}", self.time.as_secs_f64(), what());
        }
    }

    fn note(&mut self, node: usize, what: u8, bytes: &[u8]) {
        self.digest.write_u128(self.time.as_nanos());
        self.digest.write_usize(node);
        self.digest.write_u8(what);
        self.digest.write(bytes);
    }

    fn require(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.broken.get_or_insert(violation);
        }
    }

    fn forbid(&mut self, rule: Rule, what: String) {
        self.require(Err(Violation::new(rule, what)));
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Wake { node, life } => {
                let time = self.time;
                if let Some(running) = self.nodes[node].in_life(life).filter(|it| it.alarm == Some(time)) {
                    running.alarm = None;
                    self.give(node, Input::Time);
                }
            }
            Happening::Gossip { from, to, gossip, bytes } => self.on_gossip(from, to, &gossip, bytes),
            Happening::Request { from, life, to, id, bytes } => {
                let Some(running) = self.nodes[to].running.as_mut().filter(|it| it.peers.get(&from) == Some(&life))
                else {
                    return;
                };
                let ticket = running.ticket();
                running.questions.insert(ticket, (from, life, id));
                self.give(to, Input::Request(peer_id(from), ticket, bytes));
            }
            Happening::Answer { to, life, id, bytes } => {
                let asked = self.nodes[to].in_life(life).and_then(|running| running.asked.remove(&id));
                if let Some(from) = asked {
                    self.give(to, Input::Response(id, peer_id(from), bytes));
                }
            }
            Happening::Meet { node, peer } => self.meet(node, peer),
            Happening::Load => self.submit(),
            Happening::Fault(Fault::Crash { node, effects, down, damage }) => {
                if let Some(running) = &mut self.nodes[node].running {
                    running.fuse = Some(Fuse { effects, down, damage });
                    if effects == 0 {
                        self.blow(node, Fuse { effects, down, damage });
                    }
                }
            }
            Happening::Fault(Fault::Partition { side, lasts, noticed }) => {
                self.tell(None, || {
                    format!("{side:?} are alone for {lasts:?}{}", if noticed { "" } else { ", silently" })
                });
                let number = self.network.split(side, noticed);
                self.plan_in(lasts, Happening::Join(number));
                (0..self.nodes.len()).for_each(|node| self.meet_all(node));
            }
            Happening::Join(number) => {
                self.network.join(number);
                (0..self.nodes.len()).for_each(|node| self.meet_all(node));
            }
            Happening::Restart { node, life } => {
                if self.nodes[node].running.is_none() && self.nodes[node].life == life {
                    self.start(node);
                }
            }
        }
    }

    fn start(&mut self, node: usize) {
        let memory = self.plan.memory;
        self.nodes[node].start(self.time, memory);
        let disk = &self.nodes[node].disk;
        self.tell(Some(node), || format!("starts at height {}, log {}", disk.height(), disk.log_text()));
        self.note(node, 1, &[]);
        self.meet_all(node);
        self.set_alarm(node);
    }

    fn blow(&mut self, node: usize, fuse: Fuse) {
        self.stop(node, fuse.damage);
        let life = self.nodes[node].life;
        self.plan_in(fuse.down, Happening::Restart { node, life });
    }

    fn stop(&mut self, node: usize, damage: Damage) {
        self.tell(Some(node), || format!("crashes, damage: {damage:?}"));
        self.note(node, 2, &[]);
        self.crashes += 1;
        self.nodes[node].running = None;
        self.nodes[node].disk.crash(&mut self.rng, damage);
        self.meet_all(node);
    }

    /// This node and each other one find out soon whether they are connected.
    fn meet_all(&mut self, node: usize) {
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            for (node, peer) in [(node, peer), (peer, node)] {
                let delay = self.network.delay(&mut self.rng);
                self.plan_in(delay, Happening::Meet { node, peer });
            }
        }
    }

    fn meet(&mut self, node: usize, peer: usize) {
        let life = self.nodes[peer].living().filter(|_| self.network.connects(node, peer));
        let Some(running) = &mut self.nodes[node].running else { return };
        let known = running.peers.get(&peer).copied();
        if known == life {
            return;
        }
        if known.is_some() {
            running.peers.remove(&peer);
            let failed: Vec<RequestId> =
                running.asked.iter().filter(|(_, asked)| **asked == peer).map(|(id, _)| *id).collect();
            running.asked.retain(|_, asked| *asked != peer);
            self.give(node, Input::Disconnected(peer_id(peer)));
            failed.into_iter().for_each(|id| self.give(node, Input::Response(id, peer_id(peer), None)));
        }
        if let (Some(life), Some(running)) = (life, &mut self.nodes[node].running) {
            running.peers.insert(peer, life);
            self.give(node, Input::Connected(peer_id(peer)));
        }
    }

    fn submit(&mut self) {
        let mean = milliseconds(self.plan.load_interval);
        let pause = Duration::from_millis(self.rng.random_range(0..=2 * mean));
        self.plan_in(pause, Happening::Load);
        let node = self.rng.random_range(0..self.nodes.len());
        let now = self.nodes[node].now(self.time).wall;
        let chain = self.check.newest();
        let transaction = match self.loaded {
            true => self.load.next(&mut self.rng, chain, now),
            false => self.load.again(chain).into_iter().next(),
        };
        if let Some(transaction) = transaction {
            self.give(node, Input::Submit(Ticket(0), transaction));
        }
    }

    /// The one way into a machine: effects are performed in order, and what is durable is confirmed after them.
    fn give(&mut self, node: usize, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = self.nodes[node].now(self.time);
            let Some(running) = &mut self.nodes[node].running else { return };
            for effect in running.machine.handle(now, input) {
                if let Some(fuse) = self.nodes[node].burn() {
                    return self.blow(node, fuse);
                }
                if matches!(effect, Effect::Commit(_)) {
                    inputs.push_back(Input::Committed);
                }
                self.perform(node, effect);
                if self.broken.is_some() {
                    return;
                }
            }
        }
        self.set_alarm(node);
    }

    fn set_alarm(&mut self, node: usize) {
        let late = Duration::from_micros(self.rng.random_range(1..=2_000));
        let (time, life) = (self.time, self.nodes[node].life);
        let Some(running) = &mut self.nodes[node].running else { return };
        let deadline = running.deadline();
        running.restless = if deadline > time { 0 } else { running.restless + 1 };
        let is_restless = running.restless > RESTLESS_MAX;
        let at = deadline.max(time) + late;
        // One alarm at a time; one that comes too early does no harm.
        if running.alarm.is_none_or(|alarm| alarm > at) {
            running.alarm = Some(at);
            self.plan_at(at, Happening::Wake { node, life });
        }
        if is_restless {
            self.forbid(Rule::NoSpin, format!("node {node} wants to be woken at {deadline:?} for ever"));
        }
    }

    fn perform(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::CutLog(height) => self.nodes[node].disk.cut_log(height),
            Effect::Log(entry) => self.nodes[node].disk.append(entry),
            Effect::SyncLog => self.nodes[node].disk.sync_log(),
            Effect::Commit(commits) => {
                for committed in &commits {
                    self.tell(Some(node), || format!("commits {}", committed.block.height()));
                    let result = self.check.on_commit(committed);
                    self.require(result);
                }
                self.nodes[node].disk.commit(commits);
            }
            Effect::Gossip(topic, bytes) => self.gossip(node, topic, bytes),
            Effect::Judge(_, Verdict::Accept | Verdict::Ignore) | Effect::Submitted(..) => {}
            Effect::Judge(_, Verdict::Reject) => self.forbid(Rule::NoSlander, format!("node {node} rejects gossip")),
            Effect::Request(id, peer, bytes) => self.request(node, id, node_of(peer), bytes),
            Effect::Respond(ticket, bytes) => self.respond(node, ticket, bytes),
            Effect::RespondBlocks(ticket, height) => {
                let bytes = codec::encode(&self.nodes[node].disk.blocks_from(height));
                self.respond(node, ticket, bytes);
            }
            Effect::Evidence(evidence) => {
                let result = self.check.on_evidence(evidence);
                self.require(result);
            }
            Effect::Ban(peer, reason) => {
                self.forbid(Rule::NoSlander, format!("node {node} bans node {}: {reason}", node_of(peer)));
            }
            Effect::Notice(notice) => {
                self.rounds += u64::from(matches!(notice, Notice::Round(..)));
                self.tell(Some(node), || format!("{notice:?}"));
            }
            Effect::Halt(reason) => self.forbid(Rule::NoHalt, format!("node {node} halts: {reason}")),
        }
    }

    fn gossip(&mut self, from: usize, topic: Topic, bytes: Vec<u8>) {
        self.note(from, 3, &bytes);
        let mut transactions = Vec::new();
        match topic {
            Topic::Consensus => {
                let Attempt { attempt, message } = decode(&bytes, CONSENSUS_BYTES_MAX);
                self.on_said(from, attempt, &message);
            }
            Topic::Transactions => {
                let Attempt { message, .. } = decode::<Vec<Transaction>>(&bytes, TRANSACTIONS_BYTES_MAX);
                transactions = verify_transactions(self.chain.id(), message);
            }
            Topic::Headers => {}
        }
        self.broadcast(from, Gossip { topic, bytes, transactions });
    }

    fn broadcast(&mut self, from: usize, gossip: Gossip) {
        let bytes = Arc::new(gossip.bytes.clone());
        let gossip = Arc::new(gossip);
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            if let Some(delay) = self.network.send(&mut self.rng, from, to) {
                let (gossip, bytes) = (Arc::clone(&gossip), Arc::clone(&bytes));
                self.plan_in(delay, Happening::Gossip { from, to, gossip, bytes });
            }
        }
    }

    /// Durable before audible, and never two things.
    fn on_said(&mut self, from: usize, attempt: u64, message: &ConsensusMessage) {
        let result = self.check.on_message(message);
        self.require(result);
        let own = self.nodes[from].public();
        let entry = match message {
            ConsensusMessage::Vote(vote) if Some(vote.vote.validator) == own => LogEntry::Vote(vote.clone()),
            ConsensusMessage::Proposal(signed, _) if Some(signed.proposal.proposer) == own => {
                LogEntry::Proposal(signed.clone())
            }
            _ => return,
        };
        if !self.nodes[from].disk.has_logged(&entry) {
            self.forbid(Rule::NothingUnlogged, format!("node {from} says what it has not logged: {message:?}"));
        }
        if let (LogEntry::Vote(vote), true) = (entry, self.plan.liar == Some(from)) {
            self.lie(from, attempt, vote);
        }
    }

    /// The liar's second word: a precommit for nothing beside the one for a block.
    fn lie(&mut self, from: usize, attempt: u64, said: SignedVote) {
        let mut vote = said.vote;
        if vote.kind != VoteKind::Precommit || vote.block.take().is_none() {
            return;
        }
        let signature = validator_key(from).sign(&vote.message(self.chain.id()));
        let message = ConsensusMessage::Vote(SignedVote { vote, signature });
        let bytes = codec::encode(&Attempt { attempt, message });
        self.broadcast(from, Gossip { topic: Topic::Consensus, bytes, transactions: Vec::new() });
    }

    fn on_gossip(&mut self, from: usize, to: usize, gossip: &Gossip, bytes: Arc<Vec<u8>>) {
        if !self.network.reaches(from, to) {
            return;
        }
        let Some(running) = self.nodes[to].running.as_mut().filter(|it| it.peers.contains_key(&from)) else { return };
        if !running.seen.insert(bytes) {
            return;
        }
        let ticket = running.ticket();
        self.give(
            to,
            match gossip.topic {
                Topic::Transactions => Input::Transactions(ticket, gossip.transactions.clone()),
                topic => Input::Gossip(topic, peer_id(from), ticket, gossip.bytes.clone()),
            },
        );
    }

    fn request(&mut self, from: usize, id: RequestId, to: usize, bytes: Vec<u8>) {
        let life = self.nodes[from].life;
        if let Some(running) = &mut self.nodes[from].running {
            running.asked.insert(id, to);
        }
        self.plan_in(ANSWER_MAX, Happening::Answer { to: from, life, id, bytes: None });
        if let Some(delay) = self.network.send(&mut self.rng, from, to) {
            self.plan_in(delay, Happening::Request { from, life, to, id, bytes });
        }
    }

    fn respond(&mut self, from: usize, ticket: Ticket, bytes: Vec<u8>) {
        self.note(from, 4, &bytes);
        let question = self.nodes[from].running.as_mut().and_then(|running| running.questions.remove(&ticket));
        let Some((to, life, id)) = question else {
            panic!("a request is answered once");
        };
        if let Some(delay) = self.network.send(&mut self.rng, from, to) {
            self.plan_in(delay, Happening::Answer { to, life, id, bytes: Some(bytes) });
        }
    }
}

fn decode<T: codec::Decode<()>>(bytes: &[u8], max: usize) -> Attempt<T> {
    codec::decode(bytes, max).unwrap_or_else(|error| panic!("machines gossip what they can read: {error}"))
}
