//! What nodes do: each effect of a machine is checked and then performed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ledger::certificate::VoteKind;
use ledger::codec;
use ledger::transaction::{Transaction, verify_transactions};
use ledger::units::Round;
use protocol::eras::Announcement;
use protocol::live::Notice;
use protocol::message::{
    Attempt, CONSENSUS_BYTES_MAX, ConsensusMessage, LogEntry, Response, SignedVote,
    TRANSACTIONS_BYTES_MAX,
};
use protocol::{Effect, FetchPlan, Input, RequestId, Ticket, Topic, Verdict};
use rand::RngExt;

use super::super::check::Rule;
use super::super::network::Gossip;
use super::super::node::{Heard, node_of};
use super::{Happening, World};

/// A request that is not answered within this time has failed.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Most wakes in a row without a pause. An idle machine never asks for this many.
const RESTLESS_MAX: u32 = 50;

impl World {
    /// Gives a machine an input, performs its effects in order, and confirms what has become
    /// durable. Machines get inputs in no other way.
    pub(super) fn give(&mut self, node: usize, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = self.nodes[node].now(self.time);
            let Some(running) = &mut self.nodes[node].running else { return };
            let effects = running.machine.handle(now, input);
            let result = running.cost.on_input(&running.machine);
            self.require(result);
            for effect in effects {
                if let Some(fuse) = self.nodes[node].burn() {
                    return self.blow(node, fuse);
                }
                if matches!(effect, Effect::Commit(_)) {
                    inputs.push_back(Input::Committed);
                }
                if matches!(effect, Effect::Sync(_)) {
                    // No simulated node serves segments: all history comes as blocks.
                    inputs.push_back(Input::Plan(FetchPlan::Blocks));
                }
                self.perform(node, effect);
                if self.broken.is_some() {
                    return;
                }
            }
        }
        if let Some(running) =
            self.nodes[node].running.as_mut().filter(|running| running.machine.is_syncing())
        {
            running.cost.on_behind();
        }
        self.set_alarm(node);
    }

    pub(super) fn set_alarm(&mut self, node: usize) {
        let late = Duration::from_micros(self.rng.random_range(1..=2_000));
        let (time, life) = (self.time, self.nodes[node].life);
        let Some(running) = &mut self.nodes[node].running else { return };
        let deadline = running.deadline();
        running.restless = if deadline > time { 0 } else { running.restless + 1 };
        let is_restless = running.restless > RESTLESS_MAX;
        let at = deadline.max(time) + late;
        // A node has one alarm at a time. A wake that comes too early is harmless.
        if running.alarm.is_none_or(|alarm| alarm > at) {
            running.alarm = Some(at);
            self.plan_at(at, Happening::Wake { node, life });
        }
        if is_restless {
            self.forbid(
                Rule::NoSpin,
                format!("node {node} wants to be woken at {deadline:?} for ever"),
            );
        }
    }

    pub(super) fn perform(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::CutLog(height) => self.nodes[node].disk.cut_log(height),
            Effect::Log(entry) => {
                self.on_logged(node, &entry);
                self.nodes[node].disk.append(entry);
            }
            Effect::SyncLog => self.nodes[node].disk.sync_log(),
            Effect::ShortenLog(kept) => self.nodes[node].disk.shorten_log(&kept),
            Effect::Commit(commits) => {
                for committed in &commits {
                    self.tell(Some(node), || format!("commits {}", committed.block.height()));
                    let result = self.check.on_commit(committed);
                    self.require(result);
                }
                self.nodes[node].disk.commit(commits);
            }
            Effect::Gossip(topic, bytes) => self.gossip(node, topic, bytes),
            Effect::Judge(ticket, verdict) => self.on_judged(node, ticket, verdict),
            Effect::Submitted(..) => {}
            Effect::Request(id, peer, bytes) => self.request(node, id, node_of(peer), bytes),
            Effect::Respond(ticket, bytes) => self.respond(node, ticket, bytes),
            Effect::RespondBlocks(ticket, height) => {
                let bytes = codec::encode(&self.nodes[node].disk.blocks_from(height));
                self.respond(node, ticket, bytes);
            }
            Effect::RespondEras { ticket, .. } => {
                let nothing = codec::encode(&Response::Eras(Announcement::default()));
                self.respond(node, ticket, nothing);
            }
            Effect::RespondChunk { ticket, .. } => {
                self.respond(node, ticket, codec::encode(&Response::NotKept));
            }
            Effect::RespondFlood { ticket, .. } => {
                self.respond(node, ticket, codec::encode(&Response::Taken));
            }
            Effect::Sync(_) => {}
            Effect::Evidence(evidence) => {
                let result = self.check.on_evidence(evidence);
                self.require(result);
            }
            // A banned byzantine peer comes back under another name.
            Effect::Ban { peer, .. } if !self.nodes[node_of(peer)].is_honest() => {}
            Effect::Ban { peer, offence } => {
                self.forbid(
                    Rule::NoSlander,
                    format!("node {node} bans node {}: {offence}", node_of(peer)),
                );
            }
            Effect::Notice(notice) => {
                self.rounds += u64::from(matches!(notice, Notice::Round(..)));
                self.tell(Some(node), || format!("{notice:?}"));
            }
            Effect::Halt(reason) => {
                self.forbid(Rule::NoHalt, format!("node {node} halts: {reason}"))
            }
        }
    }

    pub(super) fn gossip(&mut self, from: usize, topic: Topic, bytes: Vec<u8>) {
        self.note(from, 3, &bytes);
        let mut transactions = Vec::new();
        match topic {
            Topic::Consensus => {
                let Attempt { message, .. } = decode(&bytes, CONSENSUS_BYTES_MAX);
                self.on_said(from, &message);
            }
            Topic::Transactions => {
                let Attempt { message, .. } =
                    decode::<Vec<Transaction>>(&bytes, TRANSACTIONS_BYTES_MAX);
                transactions = verify_transactions(self.chain.id(), message);
            }
            Topic::Headers => {}
        }
        let key = Arc::new(bytes.clone());
        let gossip = Arc::new(Gossip { topic, bytes, transactions, spreads: false });
        self.broadcast(from, &gossip, &key, |_| true);
    }

    /// Sends gossip to the nodes that `reaches` selects. `bytes` identify the message.
    pub(super) fn broadcast(
        &mut self,
        from: usize,
        gossip: &Arc<Gossip>,
        bytes: &Arc<Vec<u8>>,
        reaches: impl Fn(usize) -> bool,
    ) {
        for to in (0..self.nodes.len()).filter(|to| *to != from && reaches(*to)) {
            if let Some(delay) = self.network.send(&mut self.rng, from, to) {
                let (gossip, bytes) = (Arc::clone(gossip), Arc::clone(bytes));
                self.plan_in(delay, Happening::Gossip { from, to, gossip, bytes });
            }
        }
    }

    /// Checks that no node rejects a message that an honest node sends or passes on. If a node
    /// passes the message on, its [`Cost`](crate::sim::cost::Cost) is charged.
    fn on_judged(&mut self, node: usize, ticket: Ticket, verdict: Verdict) {
        let heard =
            self.nodes[node].running.as_mut().and_then(|running| running.heard.remove(&ticket));
        let Some(Heard { from, gossip, bytes }) = heard else {
            panic!("gossip is judged once");
        };
        if verdict == Verdict::Reject && self.nodes[from].is_honest() {
            self.forbid(Rule::NoSlander, format!("node {node} rejects what node {from} passes on"));
        }
        if verdict != Verdict::Accept {
            return;
        }
        if gossip.topic == Topic::Consensus {
            let Attempt { message, .. } = decode(&gossip.bytes, CONSENSUS_BYTES_MAX);
            self.on_accepted(node, &message);
        }
        if gossip.spreads {
            self.broadcast(node, &gossip, &bytes, |to| to != from);
        }
    }

    fn on_accepted(&mut self, node: usize, message: &ConsensusMessage) {
        let (time, chain) = (self.time, &self.chain);
        let height = self.nodes[node].disk.height();
        let latest = self.nodes[node].now(time).wall.0 + chain.limits().clock_drift_ms;
        let Some(running) = &mut self.nodes[node].running else { return };
        let result = running.cost.on_accepted(time, message);
        if message.height() == height.next() {
            running.cost.on_begun(height.next(), time);
        }
        if let ConsensusMessage::Proposal(signed, Some(compact)) = message {
            let proposal = &signed.proposal;
            let is_early = proposal.height == height.next().next() && proposal.round == Round(0);
            let mempool = running.machine.mempool();
            let is_complete = compact.transactions.iter().all(|hash| mempool.get(hash).is_some());
            let is_honest = !self.check.is_dishonest(&proposal.proposer);
            if is_early && is_complete && is_honest && compact.header.time.0 <= latest {
                running.cost.on_early(proposal.height, proposal.block);
            }
        }
        self.require(result);
    }

    /// Charges the node for each body that it logs, and checks that it does not prevote late in the
    /// first round of a height.
    fn on_logged(&mut self, node: usize, entry: &LogEntry) {
        let (time, own) = (self.time, self.nodes[node].public());
        let Some(running) = &mut self.nodes[node].running else { return };
        let result = match entry {
            LogEntry::Body(block) => {
                // A node logs its own block before it proposes it, so the current round counts for
                // it.
                let round = self
                    .check
                    .round_of(&block.header.hash())
                    .unwrap_or_else(|| running.machine.round());
                running.cost.on_body(block.header.height, round)
            }
            LogEntry::Vote(SignedVote { vote, .. })
                if Some(vote.validator) == own
                    && vote.kind == VoteKind::Prevote
                    && vote.round == Round(0) =>
            {
                running.cost.on_prevote(vote.height, time)
            }
            _ => Ok(()),
        };
        self.require(result);
    }

    /// Checks that own messages are durable before they are sent, and that no two contradict each
    /// other.
    pub(super) fn on_said(&mut self, from: usize, message: &ConsensusMessage) {
        if let ConsensusMessage::Proposal(signed, _) = message {
            self.check.on_proposed(&signed.proposal);
        }
        let result = self.check.on_message(message);
        self.require(result);
        let own = self.nodes[from].public();
        let entry = match message {
            ConsensusMessage::Vote(vote) if Some(vote.vote.validator) == own => {
                LogEntry::Vote(vote.clone())
            }
            ConsensusMessage::Proposal(signed, _) if Some(signed.proposal.proposer) == own => {
                LogEntry::Proposal(signed.clone())
            }
            _ => return,
        };
        if !self.nodes[from].disk.has_logged(&entry) {
            self.forbid(
                Rule::NothingUnlogged,
                format!("node {from} says what it has not logged: {message:?}"),
            );
        }
    }

    pub(super) fn request(&mut self, from: usize, id: RequestId, to: usize, bytes: Vec<u8>) {
        let life = self.nodes[from].life;
        if let Some(running) = &mut self.nodes[from].running {
            running.asked.insert(id, to);
        }
        self.plan_in(ANSWER_MAX, Happening::Answer { to: from, life, id, bytes: None });
        if let Some(delay) = self.network.send(&mut self.rng, from, to) {
            self.plan_in(delay, Happening::Request { from, life, to, id, bytes });
        }
    }

    pub(super) fn respond(&mut self, from: usize, ticket: Ticket, bytes: Vec<u8>) {
        self.note(from, 4, &bytes);
        let question =
            self.nodes[from].running.as_mut().and_then(|running| running.questions.remove(&ticket));
        let Some((to, life, id)) = question else {
            panic!("a request is answered once");
        };
        if let Some(delay) = self.network.send(&mut self.rng, from, to) {
            self.plan_in(delay, Happening::Answer { to, life, id, bytes: Some(bytes) });
        }
    }
}

fn decode<T: codec::Decode<()>>(bytes: &[u8], max: usize) -> Attempt<T> {
    codec::decode(bytes, max)
        .unwrap_or_else(|error| panic!("machines gossip what they can read: {error}"))
}
