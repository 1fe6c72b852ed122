//! The shell of the machine: its clock, disk and peers, and a check of each effect.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ledger::block::Header;
use ledger::certificate::{Certificate, VoteKind};
use ledger::chain::{ChainState, Committed};
use ledger::codec;
use ledger::hash::BlockHash;
use ledger::signature::{PublicKey, SigningKey};
use ledger::transaction::Transaction;
use ledger::units::{Height, Round, Timestamp};
use protocol::budget::KEPT;
use protocol::live::mempool::MempoolLimits;
use protocol::message::{
    Attempt, CONSENSUS_BYTES_MAX, CertifiedHeader, ConsensusMessage, Evidence,
    HEADER_MESSAGE_BYTES_MAX, LogEntry, REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX, Request, Response,
    TRANSACTIONS_BYTES_MAX, answer_bytes_max,
};
use protocol::{
    Effect, FetchPlan, HeightRange, Input, Log, Machine, Now, PeerId, RequestId, Setup, Ticket,
    Topic,
};

use super::HOSTILE;
use crate::fuzz::fixture::{BYZANTINE, HEIGHTS, OWN, START, fixture};

/// When the machine starts, its clock is this far beyond the genesis, in milliseconds. So it is
/// after all final blocks.
const STARTS_AFTER: u64 = 10_000;
/// A request fails if it is not answered within this time.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Most requests in flight with one peer, as the network limits them.
const IN_FLIGHT_MAX: usize = 64;
/// Most effects of one input. Honest work causes far fewer.
const EFFECTS_MAX: usize = 1_000;
/// Most wakes in a row without a pause. An idle machine never asks for this many.
const RESTLESS_MAX: usize = 50;
/// Limits so small that transactions must leave.
const MEMPOOL: MempoolLimits = MempoolLimits { bytes_max: 2_048, sender_transactions_max: 8 };

/// A change of the log that is not durable yet.
#[allow(clippy::large_enum_variant)] // Made once and handed on: a box costs more than the move.
enum Write {
    Cut(Height),
    Entry(LogEntry),
}

/// What outlives a restart of the machine.
struct Disk {
    chain: ChainState,
    header: Option<Header>,
    certificate: Certificate,
    /// Height and entries; `None` if the log is lost.
    log: Option<(Height, Vec<LogEntry>)>,
    unsynced: Vec<Write>,
}

/// Names a message that we sign in a round: a vote of this kind, or a proposal if there is no kind.
type Said = (Height, Round, Option<VoteKind>);

pub(super) struct Shell {
    key: Option<SigningKey>,
    machine: Machine,
    elapsed: Duration,
    disk: Disk,
    said: BTreeMap<Said, (Option<BlockHash>, Option<Round>)>,
    peers: BTreeSet<PeerId>,
    asked: BTreeMap<RequestId, (PeerId, Request, Duration)>,
    tickets: u64,
    /// Whether sync has promised all final blocks as one segment, which was not given yet.
    is_segment_due: bool,
    is_forked: bool,
    is_halted: bool,
}

impl Shell {
    pub(super) fn new(is_validator: bool, has_log: bool) -> Self {
        let chain = fixture().states[0].clone();
        let certificate = Certificate::genesis(fixture().chain.id());
        let log = has_log.then(|| (Height(1), Vec::new()));
        let disk = Disk { chain, header: None, certificate, log, unsynced: Vec::new() };
        let key = is_validator.then(|| fixture().validators[OWN].clone());
        let machine = machine(&disk, key.clone(), Duration::ZERO, 0);
        Self {
            key,
            machine,
            elapsed: Duration::ZERO,
            disk,
            said: BTreeMap::new(),
            peers: BTreeSet::new(),
            asked: BTreeMap::new(),
            tickets: 0,
            is_segment_due: false,
            is_forked: false,
            is_halted: false,
        }
    }

    pub(super) fn tip(&self) -> Height {
        self.disk.chain.tip().height
    }

    pub(super) const fn is_forked(&self) -> bool {
        self.is_forked
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// The counter of a gossip message, which differs with each.
    pub(super) fn attempt(&mut self) -> u64 {
        self.ticket().0
    }

    pub(super) fn connect(&mut self, peer: PeerId) {
        if self.peers.insert(peer) {
            self.give(Input::Connected(peer));
        }
    }

    /// The requests to a peer fail when it disconnects.
    pub(super) fn disconnect(&mut self, peer: PeerId) {
        if self.peers.remove(&peer) {
            self.give(Input::Disconnected(peer));
        }
        while self.answer(&[peer], 0, |_| None) {}
    }

    pub(super) fn elapse(&mut self, time: Duration) {
        self.elapsed += time;
        let late: Vec<RequestId> = self
            .asked
            .iter()
            .filter(|(_, (.., until))| *until <= self.elapsed)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            if let Some((peer, ..)) = self.asked.remove(&id) {
                self.give(Input::Response(id, peer, None));
            }
        }
        self.give(Input::Time);
    }

    /// Lets time pass until the machine has something to do, and wakes it until it rests.
    pub(super) fn sleep(&mut self) {
        for _ in 0..RESTLESS_MAX {
            let wait = self.machine.deadline().saturating_sub(self.elapsed);
            self.elapse(wait + Duration::from_millis(1));
            if self.is_halted || self.machine.deadline() > self.elapsed {
                return;
            }
        }
        panic!("the machine wants to be woken at {:?} for ever", self.machine.deadline());
    }

    /// A gossip message of a connected peer.
    pub(super) fn gossip(&mut self, from: PeerId, topic: Topic, bytes: Vec<u8>) {
        let ticket = self.ticket();
        if self.peers.contains(&from) {
            self.give(Input::Gossip(topic, from, ticket, bytes));
        }
    }

    /// A request of a connected peer.
    pub(super) fn request(&mut self, from: PeerId, bytes: Vec<u8>) {
        let ticket = self.ticket();
        if self.peers.contains(&from) {
            self.give(Input::Request(from, ticket, bytes));
        }
    }

    /// Answers a request to one of these peers. Returns whether there was any.
    pub(super) fn answer(
        &mut self,
        peers: &[PeerId],
        which: u8,
        response: impl FnOnce(&Request) -> Option<Vec<u8>>,
    ) -> bool {
        let open: Vec<RequestId> = self
            .asked
            .iter()
            .filter(|(_, (peer, ..))| peers.contains(peer))
            .map(|(id, _)| *id)
            .collect();
        let Some(id) = open.get(usize::from(which) % open.len().max(1)) else { return false };
        let Some((peer, request, _)) = self.asked.remove(id) else { return false };
        self.give(Input::Response(*id, peer, response(&request)));
        true
    }

    /// Gives the segment that sync promised.
    pub(super) fn give_segment(&mut self) {
        if std::mem::take(&mut self.is_segment_due) {
            let blocks = fixture().blocks.iter().map(|(block, _)| block.block().clone()).collect();
            let certificate = fixture().blocks.last().map(|(_, certificate)| certificate.clone());
            self.give(Input::Segment(blocks, certificate.expect("there are blocks")));
        }
    }

    /// A quorum has signed another block of a height: now the machine may halt.
    pub(super) fn fork(&mut self, height: Height) {
        self.is_forked = true;
        let block = fixture().propose(height, Timestamp(START + 5_000));
        let (header, certificate) = (block.header().clone(), fixture().certify(&block));
        let attempt = self.attempt();
        let bytes =
            codec::encode(&Attempt { attempt, message: CertifiedHeader { header, certificate } });
        self.connect(HOSTILE[0]);
        self.gossip(HOSTILE[0], Topic::Headers, bytes);
    }

    /// Stops the process without a warning and starts it again.
    pub(super) fn restart(&mut self) {
        self.disk.unsynced.clear();
        self.peers.clear();
        self.asked.clear();
        self.is_segment_due = false;
        self.is_halted = false;
        self.machine = machine(&self.disk, self.key.clone(), self.elapsed, self.tickets);
    }

    /// Gives an input, checks and performs its effects, and confirms the commits that follow.
    pub(super) fn give(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let due = Due::of(&input);
            let now = now(self.elapsed);
            let effects = self.machine.handle(now, input);
            if self.is_halted {
                assert!(effects.is_empty(), "a machine that halted does nothing: {effects:?}");
                continue;
            }
            assert!(effects.len() <= EFFECTS_MAX, "{} effects of one input", effects.len());
            assert!(self.machine.cost().total() <= KEPT, "one input costs at most a full budget");
            assert!(self.machine.mempool().bytes() <= MEMPOOL.bytes_max, "the mempool is bounded");
            due.check(&effects);
            for effect in effects {
                if self.is_halted {
                    break;
                }
                self.perform(effect, &mut inputs);
            }
        }
    }

    fn perform(&mut self, effect: Effect, inputs: &mut VecDeque<Input>) {
        match effect {
            Effect::CutLog(height) => self.disk.unsynced.push(Write::Cut(height)),
            Effect::Log(entry) => self.disk.unsynced.push(Write::Entry(entry)),
            Effect::SyncLog => self.disk.sync(),
            Effect::ShortenLog(kept) => self.disk.shorten(&kept),
            Effect::Gossip(topic, bytes) => self.on_gossip(topic, &bytes),
            Effect::Request(id, peer, bytes) => {
                let request =
                    codec::decode(&bytes, REQUEST_BYTES_MAX).expect("a machine sends requests");
                let known = self.asked.insert(id, (peer, request, self.elapsed + ANSWER_MAX));
                assert!(known.is_none(), "each request has its own number");
                let in_flight = self.asked.values().filter(|(other, ..)| *other == peer).count();
                assert!(in_flight <= IN_FLIGHT_MAX, "{in_flight} requests to {peer:?}");
            }
            Effect::Respond(_, bytes) => {
                codec::decode::<Response>(&bytes, RESPONSE_BYTES_MAX)
                    .expect("a machine sends responses");
            }
            Effect::Sync(_) => {
                let is_whole = self.tip() == Height(0);
                self.is_segment_due = is_whole;
                let all = HeightRange { first: Height(1), last: Height(HEIGHTS) };
                let plan = if is_whole { FetchPlan::Segments(all) } else { FetchPlan::Blocks };
                inputs.push_back(Input::Plan(plan));
            }
            Effect::Commit(commits) => {
                commits.into_iter().for_each(|committed| self.on_commit(committed));
                inputs.push_back(Input::Committed);
            }
            Effect::Evidence(evidence) => self.on_evidence(&evidence),
            Effect::Ban { peer, offence } => {
                // After a fork, honest peers hold another chain than the machine.
                assert!(
                    self.is_forked || HOSTILE.contains(&peer),
                    "the honest {peer:?} is banned: {offence}"
                );
                if self.peers.remove(&peer) {
                    inputs.push_back(Input::Disconnected(peer));
                }
            }
            Effect::Halt(reason) => {
                assert!(self.is_forked, "the machine halts without a fork: {reason}");
                self.is_halted = true;
            }
            Effect::Judge(..)
            | Effect::RespondBlocks(..)
            | Effect::RespondEras { .. }
            | Effect::RespondChunk { .. }
            | Effect::RespondFlood { .. }
            | Effect::Submitted(..)
            | Effect::Notice(_) => {}
        }
    }

    /// Checks that a message was durable before it was sent, and that no two different messages of
    /// one round are signed.
    fn on_gossip(&mut self, topic: Topic, bytes: &[u8]) {
        let message = match topic {
            Topic::Consensus => decode::<ConsensusMessage>(bytes, CONSENSUS_BYTES_MAX),
            Topic::Headers => {
                return drop(decode::<CertifiedHeader>(bytes, HEADER_MESSAGE_BYTES_MAX));
            }
            Topic::Transactions => {
                return drop(decode::<Vec<Transaction>>(bytes, TRANSACTIONS_BYTES_MAX));
            }
        };
        let own = self.key.as_ref().map(SigningKey::public);
        if own.is_none() || message.signer() != own {
            return;
        }
        let (round, said, entry) = match message {
            ConsensusMessage::Vote(signed) => {
                let vote = &signed.vote;
                (
                    (vote.height, vote.round, Some(vote.kind)),
                    (vote.block, None),
                    LogEntry::Vote(signed),
                )
            }
            ConsensusMessage::Proposal(signed, _) => {
                let proposal = &signed.proposal;
                let said = (Some(proposal.block), proposal.valid_round);
                ((proposal.height, proposal.round, None), said, LogEntry::Proposal(signed))
            }
            ConsensusMessage::Round(_) | ConsensusMessage::Polka(_) => return,
        };
        if let Some(before) = self.said.insert(round, said) {
            return assert_eq!(before, said, "two messages of {round:?} are signed");
        }
        let is_logged = self.disk.log.as_ref().is_some_and(|(_, entries)| entries.contains(&entry));
        assert!(is_logged, "{entry:?} is said before it is durable");
    }

    /// Checks that the blocks of the fixture become final, in order.
    fn on_commit(&mut self, Committed { block, certificate, .. }: Committed) {
        assert_eq!(block.height(), self.tip().next(), "blocks become final in order");
        let validators = fixture().chain.validators(block.height());
        let verdict =
            certificate.verify(fixture().chain.id(), validators, block.height(), block.hash());
        assert_eq!(verdict, Ok(()), "a final block has a certificate");
        if !self.is_forked {
            let expected = fixture().block(block.height()).map(|(block, _)| block.hash());
            assert_eq!(Some(block.hash()), expected, "only one block of a height becomes final");
        }
        self.disk.header = Some(block.header().clone());
        self.disk.certificate = certificate.clone();
        self.disk.chain.commit(block, certificate);
    }

    fn on_evidence(&self, evidence: &Evidence) {
        let byzantine: PublicKey = fixture().validators[BYZANTINE].public();
        match evidence.about() {
            Some(validator) => assert_eq!(validator, byzantine, "no honest validator is convicted"),
            None => assert!(self.is_forked, "evidence of a fork that did not happen"),
        }
    }
}

impl Disk {
    fn sync(&mut self) {
        for write in std::mem::take(&mut self.unsynced) {
            match write {
                Write::Cut(height) => self.log = Some((height, Vec::new())),
                Write::Entry(entry) => {
                    self.log.iter_mut().for_each(|(_, entries)| entries.push(entry.clone()))
                }
            }
        }
    }

    /// Drops the bodies that are not kept. The new log is durable.
    fn shorten(&mut self, kept: &BTreeSet<BlockHash>) {
        self.sync();
        let is_kept = |entry: &LogEntry| match entry {
            LogEntry::Body(block) => kept.contains(&block.header.hash()),
            _ => true,
        };
        self.log.iter_mut().for_each(|(_, entries)| entries.retain(is_kept));
    }
}

fn now(elapsed: Duration) -> Now {
    let milliseconds = u64::try_from(elapsed.as_millis()).expect("inputs last less than a day");
    Now { elapsed, wall: Timestamp(START + STARTS_AFTER + milliseconds) }
}

fn machine(disk: &Disk, key: Option<SigningKey>, elapsed: Duration, seed: u64) -> Machine {
    let setup = Setup {
        chain: disk.chain.clone(),
        header: disk.header.clone(),
        certificate: disk.certificate.clone(),
        key,
        log: disk.log.clone().map_or(Log::Lost, |(height, entries)| Log::Intact(height, entries)),
        sign_without_log: false,
        mempool: MEMPOOL,
        seed,
    };
    Machine::new(setup, now(elapsed))
}

fn decode<T: codec::Decode<()>>(bytes: &[u8], max: usize) -> T {
    codec::decode::<Attempt<T>>(bytes, max).expect("a machine gossips messages").message
}

/// The answer that an input waits for.
enum Due {
    Nothing,
    Verdict(Ticket),
    /// The last field is the most bytes that the peer reads.
    Answer(Ticket, PeerId, usize),
    Submission(Ticket),
}

impl Due {
    fn of(input: &Input) -> Self {
        match input {
            Input::Gossip(_, _, ticket, _) | Input::Transactions(ticket, _) => {
                Self::Verdict(*ticket)
            }
            Input::Request(from, ticket, bytes) => {
                Self::Answer(*ticket, *from, answer_bytes_max(bytes))
            }
            Input::Submit(ticket, _) => Self::Submission(*ticket),
            _ => Self::Nothing,
        }
    }

    /// Checks that the input's ticket is answered once, in these effects, and that no other ticket
    /// is. A request from a peer that these effects ban has no answer.
    fn check(&self, effects: &[Effect]) {
        let tickets = effects.iter().filter_map(|effect| match effect {
            Effect::Judge(ticket, _)
            | Effect::Respond(ticket, _)
            | Effect::RespondBlocks(ticket, _)
            | Effect::RespondEras { ticket, .. }
            | Effect::RespondChunk { ticket, .. }
            | Effect::RespondFlood { ticket, .. }
            | Effect::Submitted(ticket, _) => Some(*ticket),
            _ => None,
        });
        let tickets: Vec<Ticket> = tickets.collect();
        let is_ban =
            |effect: &Effect, of: &PeerId| matches!(effect, Effect::Ban { peer, .. } if peer == of);
        let is_banned = |peer: &PeerId| effects.iter().any(|effect| is_ban(effect, peer));
        if let Self::Answer(_, _, most) = self {
            for effect in effects {
                let Effect::Respond(_, bytes) = effect else { continue };
                assert!(bytes.len() <= *most, "{} bytes, the peer reads {most}", bytes.len());
            }
        }
        match self {
            Self::Nothing => assert_eq!(tickets, []),
            Self::Answer(_, from, _) if is_banned(from) => assert_eq!(tickets, []),
            Self::Verdict(ticket) | Self::Answer(ticket, ..) | Self::Submission(ticket) => {
                assert_eq!(tickets, [*ticket], "an input has one answer");
            }
        }
    }
}
