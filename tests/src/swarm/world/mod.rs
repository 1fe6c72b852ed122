//! The world: all nodes, all links, and all events in their order.

mod event;
mod files;
mod frames;
mod perform;
mod results;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::DefaultHasher;
use std::sync::Arc;
use std::time::Duration;

use ledger::hash::{FileId, SnapshotId};
use ledger::history::SegmentHead;
use ledger::units::SegmentIndex;
use protocol::message::CertifiedHeader;
use protocol::swarm::message::ChunkId;
use protocol::swarm::{
    Expected, Input, Join, Rates, SegmentRange, SegmentRanges, Setup, SnapshotOffer, Swarm,
};
use protocol::{Offence, PeerId};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::event::{Content, Event, Happening};
use super::chain::Made;
use super::files::{MadeFile, Part};
use super::link::{Downlink, Nanos, Uplink};
use super::outcome::Outcome;
use super::plan::{Conduct, Member, Plan};

/// Length of a chunk frame on the wire, in thousandths of the frame's own length.
const CHUNK_OVERHEAD: u64 = 1_045;

/// Most wakes in a row while no time passes. Only a faulty machine asks for more.
const WAKES_MAX: u32 = 1_000;

/// A snapshot on a node's disk.
struct File {
    offer: SnapshotOffer,
    chunks: BTreeSet<u64>,
    is_whole: bool,
}

/// A node: the machine while it runs, and the state that outlives it.
struct Node {
    member: Member,
    sync: Option<Swarm>,
    life: u64,
    uplink: Uplink<(u64, Content)>,
    downlink: Downlink,
    /// For each other node the number of the link to it, if there is one.
    links: Vec<Option<u64>>,
    neighbours: BTreeSet<usize>,
    banned: BTreeSet<usize>,
    wake_at: Option<Nanos>,
    wakes: u32,
    /// Segments before this one are not here, since the node began with a snapshot.
    first: usize,
    /// Number of segments applied.
    applied: usize,
    files: BTreeMap<SnapshotId, File>,
    /// What it has of each shared file.
    parts: BTreeMap<FileId, Part>,
    /// When each missing chunk of a file was stored.
    file_stored_at: Vec<Nanos>,
    file_received_bytes: u64,
    file_chunks_sent: u64,
    /// Segments begun and not yet applied, each with one flag for each chunk: whether it is here.
    staged: Vec<(SegmentHead, Vec<bool>)>,
    manifest: Option<Vec<u8>>,
    /// When the one core that assembles and applies segments is free.
    cpu_free_at: Nanos,
    /// When each missing chunk was stored.
    stored_at: Vec<Nanos>,
    /// Chunks that were ever stored: a machine that loses none stores none twice.
    stored: BTreeSet<ChunkId>,
    stored_twice: u64,
    received_bytes: u64,
    chunk_bytes_sent: u64,
}

/// All nodes and the links between them.
pub struct World {
    /// Whether to print each event.
    pub told: bool,
    plan: Plan,
    made: Made,
    files: Vec<MadeFile>,
    target: CertifiedHeader,
    now: Nanos,
    sequence: u64,
    links: u64,
    agenda: BinaryHeap<Reverse<Event>>,
    nodes: Vec<Node>,
    rng: ChaCha8Rng,
    loaded: Vec<(usize, Duration)>,
    bans: Vec<(usize, usize, Offence)>,
    control_bytes: u64,
    digest: DefaultHasher,
}

/// Runs a swarm until every awaited leecher has every chunk, or the plan's patience ends.
#[must_use]
pub fn run(plan: Plan) -> Outcome {
    let mut world = World::new(plan);
    world.run();
    world.outcome()
}

impl World {
    /// A swarm before any node has started.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let Plan { bytes, segment_bytes, chunk_bytes, accounts, .. } = plan;
        let made = Made::with_accounts(bytes, segment_bytes, chunk_bytes, accounts);
        let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
        let count = plan.members.len();
        let nodes = plan.members.iter().map(|member| Node {
            sync: None,
            life: 0,
            uplink: Uplink::new(member.up),
            downlink: Downlink::new(member.down),
            links: vec![None; count],
            neighbours: BTreeSet::new(),
            banned: BTreeSet::new(),
            wake_at: None,
            wakes: 0,
            first: 0,
            files: BTreeMap::new(),
            parts: BTreeMap::new(),
            file_stored_at: Vec::new(),
            file_received_bytes: 0,
            file_chunks_sent: 0,
            applied: if member.is_seed { made.heads.len() } else { 0 },
            staged: Vec::new(),
            manifest: None,
            cpu_free_at: 0,
            stored_at: Vec::new(),
            stored: BTreeSet::new(),
            stored_twice: 0,
            received_bytes: 0,
            chunk_bytes_sent: 0,
            member: member.clone(),
        });
        let files = (0..).zip(&plan.files).map(|(number, length)| MadeFile::new(*length, number));
        let mut world = Self {
            told: false,
            files: files.collect(),
            nodes: nodes.collect(),
            now: 0,
            sequence: 0,
            links: 0,
            agenda: BinaryHeap::new(),
            loaded: Vec::new(),
            bans: Vec::new(),
            control_bytes: 0,
            digest: DefaultHasher::new(),
            target: made.target.clone(),
            made,
            plan,
            rng: ChaCha8Rng::seed_from_u64(rng.random()),
        };
        world.choose_neighbours(&mut rng);
        (0..count).for_each(|place| world.keep_snapshot(place));
        for place in 0..count {
            world.plan_at(nanos(world.nodes[place].member.starts_at), Happening::Start(place));
        }
        world
    }

    fn choose_neighbours(&mut self, rng: &mut ChaCha8Rng) {
        let count = self.nodes.len();
        for place in 0..count {
            let mut others: Vec<usize> = (0..count).filter(|other| *other != place).collect();
            others.shuffle(rng);
            for other in others.into_iter().take(self.plan.degree.unwrap_or(count)) {
                self.nodes[place].neighbours.insert(other);
                self.nodes[other].neighbours.insert(place);
            }
        }
    }

    /// Runs until every awaited leecher has every chunk, or the plan's patience ends.
    pub fn run(&mut self) {
        self.run_until(self.plan.patience);
    }

    /// Like [`Self::run`], but until `end` at most. Returns false once every awaited leecher has
    /// every chunk.
    pub fn run_until(&mut self, end: Duration) -> bool {
        while self.agenda.peek().is_some_and(|Reverse(event)| event.at <= nanos(end)) {
            let Some(Reverse(event)) = self.agenda.pop() else { return false };
            self.now = event.at;
            let may_complete =
                matches!(event.what, Happening::Arrives { .. } | Happening::Applied(..));
            self.happen(event.what);
            let is_done = |node: &Node| node.is_done(&self.made) && node.has_files(&self.files);
            if may_complete && self.nodes.iter().all(|node| !node.is_awaited() || is_done(node)) {
                return false;
            }
        }
        self.now = nanos(end);
        true
    }

    /// A node's machine, while it runs.
    #[must_use]
    pub fn machine(&self, place: usize) -> Option<&Swarm> {
        self.nodes[place].sync.as_ref()
    }

    /// Whether a node is sending.
    #[must_use]
    pub fn is_sending(&self, place: usize) -> bool {
        self.nodes[place].uplink.is_busy()
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Start(place) => self.start(place),
            Happening::Kill(place, life) => {
                let node = &self.nodes[place];
                let is_done = node.is_done(&self.made) && node.has_files(&self.files);
                if self.nodes[place].life == life && !is_done {
                    self.stop(place);
                    self.start(place);
                }
            }
            Happening::Wake(place, life) => {
                let node = &mut self.nodes[place];
                if node.life == life && node.wake_at == Some(self.now) {
                    node.wake_at = None;
                    self.give(place, Input::Time);
                }
            }
            Happening::Taken { from, to, link, bytes } => {
                if self.nodes[from].links[to] == Some(link) {
                    self.nodes[from].uplink.taken(to, bytes);
                    self.send_on(from);
                }
            }
            Happening::Written { from, to, link } => {
                if self.nodes[from].links[to] == Some(link) {
                    self.give(from, Input::Written(PeerId(to as u64)));
                }
            }
            Happening::Sent(place) => self.on_sent(place),
            Happening::Arrives { from, to, link, content } => {
                if self.nodes[to].links[from] == Some(link) {
                    let from = PeerId(from as u64);
                    let expected = |world: &Self, id| {
                        world.machine(to).and_then(|sync| sync.expected(from, id))
                    };
                    let input = match content {
                        Content::Message(bytes) => Input::Message(from, bytes),
                        Content::Part(id, part) => {
                            let is_valid =
                                expected(self, id).is_some_and(|it| it.verify(id, &part));
                            let bytes = part.len() as u64;
                            self.nodes[to].received_bytes += bytes;
                            Input::Chunk { from, id, is_valid, bytes }
                        }
                        Content::OfFile(id, hash, bytes) => {
                            self.nodes[to].file_received_bytes += bytes;
                            let is_valid = expected(self, id) == Some(Expected::Hash(hash));
                            Input::Chunk { from, id, is_valid, bytes }
                        }
                        Content::Chunk(id, hash, bytes) => {
                            self.nodes[to].received_bytes += bytes;
                            let is_valid = expected(self, id) == Some(Expected::Hash(hash));
                            Input::Chunk { from, id, is_valid, bytes }
                        }
                    };
                    self.give(to, input);
                }
            }
            Happening::Assembled(place, life, index) if self.nodes[place].life == life => {
                self.give(place, Input::Assembled(index, Vec::new()));
            }
            Happening::Applied(place, life, index) if self.nodes[place].life == life => {
                let descriptor = self.made.head(index).descriptor;
                self.nodes[place].applied = index.0 as usize + 1;
                self.give(place, Input::Tip(descriptor.last, vec![descriptor]));
            }
            Happening::Loaded(place, life, id) if self.nodes[place].life == life => {
                self.loaded.push((place, Duration::from_nanos(self.now)));
                let node = &mut self.nodes[place];
                let file = node.files.get_mut(&id).expect("a snapshot is loaded from its file");
                file.is_whole = true;
                let segment = self.made.manifest_index(file.offer.height);
                (node.first, node.applied) = (segment + 1, segment + 1);
                let history = self.made.history(segment + 1);
                self.give(place, Input::Loaded { id, history });
            }
            Happening::Assembled(..) | Happening::Applied(..) | Happening::Loaded(..) => {}
        }
    }

    fn start(&mut self, place: usize) {
        let nonce = self.rng.random();
        let node = &mut self.nodes[place];
        node.life += 1;
        node.wake_at = None;
        let life = node.life;
        let setup = Setup {
            chain: self.made.chain.clone(),
            history: &self.made.history(node.applied),
            kept: node.kept(),
            staged: node.staged.clone(),
            manifest: node.manifest.clone(),
            nonce,
            rates: Rates::default(),
            join: (node.member.joins && node.applied == 0).then(Join::default),
        };
        let (sync, effects) = Swarm::new(setup, Duration::from_nanos(self.now));
        node.sync = Some(sync);
        let killed_at = node.member.killed_every.map(|every| self.now + nanos(every));
        self.perform(place, effects);
        // An unfinished file does not survive.
        self.nodes[place].files.retain(|_, file| file.is_whole);
        let offers = self.nodes[place].files.values().map(|file| file.offer.clone());
        for offer in offers.collect::<Vec<_>>() {
            self.give(place, Input::SnapshotKept(offer));
        }
        self.begin_files(place);
        if self.nodes[place].member.is_seed {
            self.give(place, Input::Tip(self.target.header.height, Vec::new()));
        }
        for other in self.nodes[place].neighbours.clone() {
            if self.nodes[other].sync.is_some() && !self.is_banned(place, other) {
                self.open(place, other);
            }
        }
        self.give(place, Input::Certified(self.target.clone()));
        if let Some(at) = killed_at {
            self.plan_at(at, Happening::Kill(place, life));
        }
    }

    /// A seed has the plan's snapshot, or the one that it makes of it.
    fn keep_snapshot(&mut self, place: usize) {
        let Member { is_seed: true, conduct, .. } = self.nodes[place].member else { return };
        let Some(segment) = self.plan.snapshot else { return };
        let accounts = &self.made.accounts;
        let frontier = match conduct {
            Conduct::Forges(forgery) | Conduct::Withholds(forgery) => accounts.forge(forgery),
            _ => Arc::clone(&accounts.frontier),
        };
        let mut offer = self.made.offer(segment, &frontier);
        if conduct == Conduct::Misplaces {
            offer.header.time.0 += 1;
        }
        let file = File { offer, chunks: BTreeSet::new(), is_whole: true };
        self.nodes[place].files.insert(file.offer.id, file);
    }

    fn stop(&mut self, place: usize) {
        self.tell(place, || "is killed".to_owned());
        self.nodes[place].sync = None;
        for other in 0..self.nodes.len() {
            self.close(place, other);
        }
    }

    fn is_banned(&self, one: usize, other: usize) -> bool {
        self.nodes[one].banned.contains(&other) || self.nodes[other].banned.contains(&one)
    }

    fn open(&mut self, one: usize, other: usize) {
        self.links += 1;
        self.nodes[one].links[other] = Some(self.links);
        self.nodes[other].links[one] = Some(self.links);
        self.give(one, Input::Opened(PeerId(other as u64)));
        self.give(other, Input::Opened(PeerId(one as u64)));
    }

    fn close(&mut self, one: usize, other: usize) {
        if self.nodes[one].links[other].take().is_none() {
            return;
        }
        self.nodes[other].links[one] = None;
        self.nodes[one].uplink.cut(other);
        self.nodes[other].uplink.cut(one);
        self.give(one, Input::Closed(PeerId(other as u64)));
        self.give(other, Input::Closed(PeerId(one as u64)));
    }

    fn give(&mut self, place: usize, input: Input) {
        let now = Duration::from_nanos(self.now);
        let is_time = matches!(input, Input::Time);
        let Some(sync) = self.nodes[place].sync.as_mut() else { return };
        let effects = sync.handle(now, input);
        let deadline = sync.deadline();
        self.perform(place, effects);
        self.wake(place, deadline, is_time);
    }

    fn wake(&mut self, place: usize, deadline: Option<Duration>, is_time: bool) {
        let now = self.now;
        let node = &mut self.nodes[place];
        let Some(at) = deadline.map(|at| nanos(at).max(now)) else { return };
        node.wakes = if at == now && is_time { node.wakes + 1 } else { 0 };
        assert!(
            node.wakes < WAKES_MAX,
            "node {place} wants to be woken again and again at {now} ns"
        );
        if node.wake_at.is_none_or(|known| at < known) {
            node.wake_at = Some(at);
            let life = node.life;
            self.plan_at(at, Happening::Wake(place, life));
        }
    }

    fn plan_at(&mut self, at: Nanos, what: Happening) {
        self.sequence += 1;
        self.agenda.push(Reverse(Event { at, sequence: self.sequence, what }));
    }

    fn tell(&self, place: usize, what: impl FnOnce() -> String) {
        if self.told {
            println!("{:>10.6} {place}: {}", self.now as f64 / 1e9, what());
        }
    }
}

impl Node {
    /// Whether it has all that it fetches.
    fn is_done(&self, made: &Made) -> bool {
        match self.member.joins {
            true => self.applied == made.heads.len(),
            false => self.stored_at.len() as u64 >= made.chunks(),
        }
    }

    /// The sealed segments that are here.
    fn kept(&self) -> SegmentRanges {
        let mut kept = SegmentRanges::before(SegmentIndex(self.applied as u64));
        if let Some(last) = self.first.checked_sub(1) {
            let last = SegmentIndex(last as u64);
            kept.remove_range(SegmentRange { first: SegmentIndex(0), last });
        }
        kept
    }

    fn is_awaited(&self) -> bool {
        !self.member.is_seed && self.member.conduct == Conduct::Honest && self.member.is_awaited
    }
}

fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
