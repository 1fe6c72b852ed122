//! A node: a machine while it runs, and a disk that outlives it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ledger::signature::{PublicKey, SigningKey};
use ledger::units::Timestamp;
use protocol::live::mempool::MempoolLimits;
use protocol::{Log, Machine, Now, PeerId, RequestId, Setup, Ticket};

use super::byzantine::Byzantine;
use super::cost::Cost;
use super::disk::Disk;
use super::network::Gossip;
use super::plan::{Damage, Memory, milliseconds};

/// A node's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Its reading when the run begins.
    pub(crate) start: Timestamp,
}

/// A crash that comes after this many more effects of the machine were performed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fuse {
    pub(crate) effects: u32,
    pub(crate) down: Duration,
    pub(crate) damage: Damage,
}

pub(crate) struct Node {
    pub(crate) key: Option<SigningKey>,
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    /// Its machine while it runs; always `None` for a byzantine validator.
    pub(crate) running: Option<Running>,
    pub(crate) byzantine: Option<Byzantine>,
    /// The number of its starts. An event that is meant for an earlier life does not reach a later
    /// one.
    pub(crate) life: u64,
}

/// Gossip that reached a node.
pub(crate) struct Heard {
    pub(crate) from: usize,
    pub(crate) gossip: Arc<Gossip>,
    /// The encoded message, which identifies it.
    pub(crate) bytes: Arc<Vec<u8>>,
}

/// Everything that is lost in a crash.
pub(crate) struct Running {
    pub(crate) machine: Machine,
    since: Duration,
    /// The time of its next wake.
    pub(crate) alarm: Option<Duration>,
    /// How often in a row it asked to be woken at once. If this goes on, a real node would spin.
    pub(crate) restless: u32,
    pub(crate) fuse: Option<Fuse>,
    /// Peers it knows to be connected, each with its life.
    pub(crate) peers: BTreeMap<usize, u64>,
    /// Gossip it has seen: a message reaches a node once.
    pub(crate) seen: HashSet<Arc<Vec<u8>>>,
    /// Its unanswered requests.
    pub(crate) asked: BTreeMap<RequestId, usize>,
    /// Requests it has to answer: the peer, the peer's life and the request's id.
    pub(crate) questions: BTreeMap<Ticket, (usize, u64, RequestId)>,
    /// Gossip it still has to judge.
    pub(crate) heard: BTreeMap<Ticket, Heard>,
    pub(crate) cost: Cost,
    next_ticket: u64,
}

impl Node {
    pub(crate) fn public(&self) -> Option<PublicKey> {
        self.key.as_ref().map(SigningKey::public)
    }

    pub(crate) fn now(&self, time: Duration) -> Now {
        let since = self.running.as_ref().map_or(time, |running| running.since);
        Now {
            elapsed: time.saturating_sub(since),
            wall: Timestamp(self.clock.start.0.saturating_add(milliseconds(time))),
        }
    }

    pub(crate) fn start(&mut self, time: Duration, memory: Memory) {
        self.life += 1;
        let log = match (self.disk.read_log(), memory) {
            (Log::Intact(height, _), Memory::None) => Log::Intact(height, Vec::new()),
            (log, _) => log,
        };
        let setup = Setup {
            chain: self.disk.chain.clone(),
            header: self.disk.header(),
            certificate: self.disk.certificate.clone(),
            key: self.key.clone(),
            log,
            sign_without_log: false,
            mempool: MempoolLimits::default(),
            seed: self.life,
        };
        let now = Now { elapsed: Duration::ZERO, ..self.now(time) };
        self.running = Some(Running {
            machine: Machine::new(setup, now),
            since: time,
            alarm: None,
            restless: 0,
            fuse: None,
            peers: BTreeMap::new(),
            seen: HashSet::new(),
            asked: BTreeMap::new(),
            questions: BTreeMap::new(),
            heard: BTreeMap::new(),
            cost: Cost::default(),
            next_ticket: 0,
        });
    }

    /// Its current life, if it runs. Byzantine validators never stop.
    pub(crate) fn living(&self) -> Option<u64> {
        (self.running.is_some() || self.byzantine.is_some()).then_some(self.life)
    }

    pub(crate) const fn is_honest(&self) -> bool {
        self.byzantine.is_none()
    }

    /// Its running state, if it is still in this life.
    pub(crate) fn in_life(&mut self, life: u64) -> Option<&mut Running> {
        self.running.as_mut().filter(|_| self.life == life)
    }

    /// Whether a crash now would count as the loss of its log, because it is a validator that never
    /// wrote to its log. It might never sign again then, and would be one of the third that may
    /// fail.
    pub(crate) fn would_lose_log(&self) -> bool {
        self.key.is_some() && self.disk.has_unused_log()
    }

    /// Counts one effect. Returns the fuse once all its effects are counted. A crash that would
    /// cost the node its log is postponed.
    pub(crate) fn burn(&mut self) -> Option<Fuse> {
        let spared = self.would_lose_log();
        let fuse = self.running.as_mut()?.fuse.as_mut()?;
        match fuse.effects.checked_sub(1) {
            Some(left) => {
                fuse.effects = left;
                None
            }
            None if spared => None,
            None => Some(*fuse),
        }
    }
}

impl Running {
    pub(crate) fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// When its machine wants to be woken, in the world's time.
    pub(crate) fn deadline(&self) -> Duration {
        self.since.saturating_add(self.machine.deadline())
    }
}

/// The id by which other nodes know this one.
pub(crate) const fn peer_id(node: usize) -> PeerId {
    PeerId(node as u64)
}

/// The node with this id.
pub(crate) fn node_of(peer: PeerId) -> usize {
    usize::try_from(peer.0).unwrap_or_else(|_| panic!("peers are numbered as nodes are"))
}
