//! Nodes that began with a snapshot fetch the history before it. Real machines, messages that
//! arrive at once, and disks that may refuse.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ledger::codec;
use ledger::hash::Hash;
use ledger::history::SegmentHead;
use ledger::units::{Height, SegmentIndex};
use protocol::swarm::message::{ChunkId, CollectionNumber, SyncMessage};
use protocol::swarm::{
    BACKFILL, Effect, Expected, HISTORY, Input, Rates, SegmentRange, SegmentRanges, Setup, Swarm,
};
use protocol::{Offence, PeerId};
use tests::swarm::Made;

use super::MIB;

/// A node: its machine and what is on its disk.
struct Node {
    sync: Swarm,
    kept: SegmentRanges,
    staged: BTreeMap<SegmentIndex, (SegmentHead, Vec<bool>)>,
    /// The segments in the order in which they were put in their place.
    placed: Vec<u64>,
    /// Chunks that were stored, each time.
    stored: Vec<ChunkId>,
    /// Chunks sent, by the collection.
    sent: BTreeMap<CollectionNumber, usize>,
    /// Sends other bytes than it should.
    lies: bool,
    /// How many more writes of chunks the disk refuses.
    refuses: usize,
    /// How many more segments cannot be put in their place.
    refuses_to_place: usize,
    /// Chunks that the disk damages before their segment is complete.
    damages: BTreeSet<(u64, u32)>,
}

/// What arrives at a node.
#[allow(clippy::large_enum_variant)] // Made once and handed on: a box costs more than the move.
enum Arrival {
    Input(Input),
    Chunk { from: usize, id: ChunkId, hash: Hash, bytes: u64 },
}

/// All nodes have a link to each other.
struct Net {
    made: Arc<Made>,
    nodes: Vec<Node>,
    now: Duration,
    queue: VecDeque<(usize, Arrival)>,
    bans: Vec<(usize, usize, Offence)>,
}

fn range(first: u64, last: u64) -> SegmentRange {
    SegmentRange { first: SegmentIndex(first), last: SegmentIndex(last) }
}

fn ranges(all: &[SegmentRange]) -> SegmentRanges {
    SegmentRanges::unchecked(all.to_vec())
}

impl Net {
    fn new(made: &Arc<Made>) -> Self {
        Self {
            made: Arc::clone(made),
            nodes: Vec::new(),
            now: Duration::ZERO,
            queue: VecDeque::new(),
            bans: Vec::new(),
        }
    }

    /// A machine at the tip of the chain that keeps these segments.
    fn machine(&self, kept: &SegmentRanges, nonce: u64, upload: Option<u64>) -> Swarm {
        let history = self.made.history(self.made.heads.len());
        let setup = Setup {
            chain: Arc::clone(&self.made.chain),
            history: &history,
            kept: kept.clone(),
            staged: Vec::new(),
            manifest: None,
            nonce,
            rates: Rates { upload, ..Rates::default() },
            join: None,
        };
        Swarm::new(setup, self.now).0
    }

    /// Adds a node at the tip that keeps these segments. Returns its place.
    fn add(&mut self, kept: &[SegmentRange]) -> usize {
        self.add_with(kept, None)
    }

    /// As [`Self::add`], with a limit of bytes a second to its peers.
    fn add_with(&mut self, kept: &[SegmentRange], upload: Option<u64>) -> usize {
        let (place, kept) = (self.nodes.len(), ranges(kept));
        let sync = self.machine(&kept, place as u64, upload);
        self.nodes.push(Node {
            sync,
            kept,
            staged: BTreeMap::new(),
            placed: Vec::new(),
            stored: Vec::new(),
            sent: BTreeMap::new(),
            lies: false,
            refuses: 0,
            refuses_to_place: 0,
            damages: BTreeSet::new(),
        });
        for other in 0..place {
            self.link(place, other);
        }
        place
    }

    /// A node that keeps all history.
    fn add_seed(&mut self) -> usize {
        self.add(&[range(0, self.made.heads.len() as u64 - 1)])
    }

    fn link(&mut self, one: usize, other: usize) {
        self.give(one, Input::Opened(PeerId(other as u64)));
        self.give(other, Input::Opened(PeerId(one as u64)));
    }

    fn unlink(&mut self, one: usize, other: usize) {
        let is_between = |to: usize, from: u64| {
            (to, from) == (one, other as u64) || (to, from) == (other, one as u64)
        };
        self.queue.retain(|(to, arrival)| match arrival {
            Arrival::Chunk { from, .. } => !is_between(*to, *from as u64),
            Arrival::Input(Input::Message(from, _)) => !is_between(*to, from.0),
            Arrival::Input(_) => true,
        });
        self.give(one, Input::Closed(PeerId(other as u64)));
        self.give(other, Input::Closed(PeerId(one as u64)));
    }

    /// Tells a node what it lacks of the chain.
    fn backfill(&mut self, place: usize) {
        let node = &self.nodes[place];
        let heads = self.made.heads.iter().map(|head| head.descriptor);
        let is_missing = |index: u64| !node.kept.contains(SegmentIndex(index));
        let missing = heads.filter(|descriptor| is_missing(descriptor.index)).collect();
        let staged = node.staged.values().cloned().collect();
        self.give(place, Input::Missing { missing, staged });
    }

    /// Starts a node again, with what is on its disk.
    fn restart(&mut self, place: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != place) {
            self.unlink(place, other);
        }
        self.queue.retain(|(to, _)| *to != place);
        self.nodes[place].sync = self.machine(&self.nodes[place].kept, 1_000 + place as u64, None);
        self.backfill(place);
        for other in (0..self.nodes.len()).filter(|other| *other != place) {
            self.link(place, other);
        }
    }

    /// Lets everything happen until `until` holds.
    fn run(&mut self, until: impl Fn(&Self) -> bool) {
        for _ in 0..200_000 {
            if until(self) {
                return;
            }
            if let Some((to, arrival)) = self.queue.pop_front() {
                self.arrive(to, arrival);
                continue;
            }
            let deadlines = self.nodes.iter_mut().filter_map(|node| node.sync.deadline());
            let next = deadlines.min().expect("something is pending");
            self.now = next.max(self.now + Duration::from_micros(1));
            for place in 0..self.nodes.len() {
                self.give(place, Input::Time);
            }
        }
        panic!("it takes too long: {:?} kept", self.nodes.last().map(|node| node.kept.clone()));
    }

    fn run_until_whole(&mut self, place: usize) {
        let count = self.made.heads.len() as u64;
        self.run(|net| net.nodes[place].kept.count() == count);
    }

    fn arrive(&mut self, to: usize, arrival: Arrival) {
        match arrival {
            Arrival::Input(input) => self.give(to, input),
            Arrival::Chunk { from, id, hash, bytes } => {
                let from = PeerId(from as u64);
                let expected = self.nodes[to].sync.expected(from, id);
                let is_valid = expected == Some(Expected::Hash(hash));
                self.give(to, Input::Chunk { from, id, is_valid, bytes });
            }
        }
    }

    fn give(&mut self, place: usize, input: Input) {
        for effect in self.nodes[place].sync.handle(self.now, input) {
            self.perform(place, effect);
        }
    }

    /// Something happens at a node after what is happening now.
    fn later(&mut self, place: usize, input: Input) {
        self.queue.push_back((place, Arrival::Input(input)));
    }

    fn perform(&mut self, place: usize, effect: Effect) {
        let from = PeerId(place as u64);
        match effect {
            Effect::Send(to, bytes) | Effect::Answer(to, bytes) => {
                self.later(to.0 as usize, Input::Message(from, bytes));
            }
            Effect::SendChunk { to, id, name } => self.send_chunk(place, to, id, name),
            Effect::SendHead(to, index) => {
                let is_kept = self.nodes[place].kept.contains(index);
                let head = is_kept.then(|| self.made.head(index).clone());
                let bytes = codec::encode(&SyncMessage::Head(index, head));
                self.later(to.0 as usize, Input::Message(from, bytes));
            }
            Effect::Begin(collection, head) => {
                assert_eq!(collection, BACKFILL);
                let (index, here) =
                    (SegmentIndex(head.descriptor.index), vec![false; head.chunks.len()]);
                let before = self.nodes[place].staged.insert(index, (head, here));
                assert!(before.is_none(), "{index} is begun once");
            }
            Effect::Store(id) => self.store(place, id),
            Effect::Keep(index) => self.keep(place, index),
            Effect::Release(segment) => {
                assert_eq!(segment.collection, BACKFILL);
                self.nodes[place].staged.remove(&segment.index);
            }
            Effect::Ban { peer, offence } => {
                self.bans.push((place, peer.0 as usize, offence));
                self.unlink(place, peer.0 as usize);
            }
            Effect::Plan(_) => {}
            effect => panic!("nothing else belongs to backfill: {effect:?}"),
        }
    }

    fn send_chunk(&mut self, place: usize, to: PeerId, id: ChunkId, name: ChunkId) {
        let node = &mut self.nodes[place];
        let staged = node.staged.get(&id.segment.index);
        let is_staged = staged.is_some_and(|(_, here)| here[id.chunk as usize]);
        let is_kept = node.kept.contains(id.segment.index);
        assert!(is_kept || (is_staged && id.segment.collection == BACKFILL), "{id:?} is not here");
        *node.sent.entry(id.segment.collection).or_default() += 1;
        let (hash, bytes) = self.made.chunk(id).expect("a peer wants what can exist");
        let hash = if node.lies { Hash::ZERO } else { hash };
        let chunk = Arrival::Chunk { from: place, id: name, hash, bytes };
        self.queue.push_back((to.0 as usize, chunk));
        self.later(place, Input::Written(to));
    }

    fn store(&mut self, place: usize, id: ChunkId) {
        assert_eq!(id.segment.collection, BACKFILL);
        let node = &mut self.nodes[place];
        if node.refuses > 0 {
            node.refuses -= 1;
            return self.give(place, Input::Refused(id));
        }
        node.stored.push(id);
        let staged = node.staged.get_mut(&id.segment.index).expect("begun before it is stored");
        assert!(!std::mem::replace(&mut staged.1[id.chunk as usize], true), "stored once");
    }

    fn keep(&mut self, place: usize, index: SegmentIndex) {
        let node = &mut self.nodes[place];
        let (_, here) = node.staged.get_mut(&index).expect("a complete segment is staged");
        assert!(here.iter().all(|here| *here), "segment {index} is complete");
        let damaged: Vec<u32> = (0..here.len() as u32)
            .filter(|chunk| node.damages.remove(&(index.0, *chunk)))
            .collect();
        for chunk in &damaged {
            here[*chunk as usize] = false;
        }
        let input = if node.refuses_to_place > 0 {
            node.refuses_to_place -= 1;
            Input::NotPlaced(index, Vec::new())
        } else if damaged.is_empty() {
            node.kept.insert(range(index.0, index.0));
            node.placed.push(index.0);
            Input::Kept(range(index.0, index.0))
        } else {
            Input::NotPlaced(index, damaged)
        };
        self.later(place, input);
    }

    fn sent(&self, place: usize, collection: CollectionNumber) -> usize {
        self.nodes[place].sent.get(&collection).copied().unwrap_or_default()
    }
}

/// Twelve segments of sixteen chunks.
fn made() -> Arc<Made> {
    Arc::new(Made::new(12 * MIB, MIB, 64 << 10))
}

const CHUNKS: usize = 12 * 16;

#[test]
fn a_node_that_began_with_a_snapshot_gets_all_history_although_a_seed_lies() {
    let made = made();
    let mut net = Net::new(&made);
    let (liar, honest) = (net.add_seed(), net.add_seed());
    net.nodes[liar].lies = true;
    let newcomer = net.add(&[]);
    net.backfill(newcomer);
    net.run_until_whole(newcomer);
    let is_lie = |(by, whom, offence): &(usize, usize, Offence)| {
        (*by, *whom) == (newcomer, liar) && matches!(offence, Offence::BadChunk { .. })
    };
    assert!(net.bans.len() == 1 && net.bans.iter().all(is_lie), "{:?}", net.bans);
    let node = &net.nodes[newcomer];
    assert_eq!(node.stored.len(), CHUNKS, "each chunk was fetched once");
    assert!(node.placed.is_sorted(), "the audit needs the oldest first: {:?}", node.placed);
    assert_eq!((net.sent(honest, HISTORY), net.sent(honest, BACKFILL)), (0, CHUNKS));
    net.run(|net| net.queue.is_empty());
    assert!(net.nodes[newcomer].staged.is_empty(), "nothing stays in staging");
}

#[test]
fn seeds_that_keep_a_part_each_are_enough() {
    let made = made();
    let mut net = Net::new(&made);
    let (old, new) = (net.add(&[range(0, 5)]), net.add(&[range(6, 8), range(10, 11)]));
    let newcomer = net.add(&[range(9, 9)]);
    net.backfill(newcomer);
    net.run_until_whole(newcomer);
    assert_eq!((net.sent(old, BACKFILL), net.sent(new, BACKFILL)), (6 * 16, 5 * 16));
    assert_eq!(net.bans.len(), 0);
}

#[test]
fn what_no_peer_has_is_waited_for() {
    let made = made();
    let mut net = Net::new(&made);
    net.add(&[range(0, 5)]);
    let newcomer = net.add(&[]);
    net.backfill(newcomer);
    net.run(|net| net.nodes[newcomer].kept.count() == 6 && net.queue.is_empty());
    net.add(&[range(6, 11)]);
    net.run_until_whole(newcomer);
}

#[test]
fn a_restart_goes_on_with_what_is_on_disk() {
    let made = made();
    let mut net = Net::new(&made);
    net.add_seed();
    let newcomer = net.add(&[]);
    net.backfill(newcomer);
    for chunks in [20, 21, 50, 100, 191] {
        net.run(|net| net.nodes[newcomer].stored.len() >= chunks);
        net.restart(newcomer);
    }
    net.run_until_whole(newcomer);
    assert_eq!(net.nodes[newcomer].stored.len(), CHUNKS, "no chunk is fetched twice");
}

/// What is fetched is offered before its segment is complete, and afterwards in both collections.
#[test]
fn nodes_that_backfill_give_each_other_what_they_have() {
    let made = made();
    let mut net = Net::new(&made);
    let seed = net.add_with(&[range(0, 11)], Some(MIB));
    let (one, two) = (net.add(&[]), net.add(&[]));
    net.backfill(one);
    net.backfill(two);
    net.run_until_whole(one);
    net.run_until_whole(two);
    let (from_one, from_two) = (net.sent(one, BACKFILL), net.sent(two, BACKFILL));
    assert!(from_one > 0 && from_two > 0, "{from_one} and {from_two} chunks");
    assert_eq!(net.sent(seed, BACKFILL) + from_one + from_two, 2 * CHUNKS);

    net.unlink(seed, one);
    net.unlink(seed, two);
    net.run(|net| net.queue.is_empty());
    let held = |net: &mut Net, place: usize| {
        let other = PeerId(77);
        net.nodes[place].sync.handle(net.now, Input::Opened(other));
        let open = SyncMessage::Open(CollectionNumber(9), net.made.id());
        let effects =
            net.nodes[place].sync.handle(net.now, Input::Message(other, codec::encode(&open)));
        effects.into_iter().find_map(|effect| match effect {
            Effect::Send(_, bytes) | Effect::Answer(_, bytes) => {
                match SyncMessage::decode(&bytes) {
                    Ok(SyncMessage::Holdings(HISTORY, holdings)) => Some(holdings.whole),
                    _ => None,
                }
            }
            _ => None,
        })
    };
    assert_eq!(held(&mut net, one), Some(ranges(&[range(0, 11)])));
}

#[test]
fn a_disk_that_refuses_pauses_backfill_and_nothing_is_lost() {
    let made = made();
    let mut net = Net::new(&made);
    net.add_seed();
    let newcomer = net.add(&[]);
    let node = &mut net.nodes[newcomer];
    (node.refuses, node.refuses_to_place) = (2, 2);
    node.damages = BTreeSet::from([(0, 3), (0, 15), (7, 0)]);
    net.backfill(newcomer);
    net.run_until_whole(newcomer);
    assert!(net.now >= Duration::from_secs(30), "three pauses at least: {:?}", net.now);
    let node = &net.nodes[newcomer];
    assert_eq!(node.stored.len(), CHUNKS + 3, "damaged chunks are fetched again");
    assert_eq!(node.placed.len(), 12, "{:?}", node.placed);
    assert_eq!(net.bans.len(), 0);
}

#[test]
fn backfill_waits_while_the_node_catches_up() {
    let made = made();
    let mut net = Net::new(&made);
    net.add_seed();
    let newcomer = net.add(&[]);
    let tip = made.target.header.height;
    let mut ahead = made.target.clone();
    ahead.header.height = Height(tip.0 + 100);
    net.give(newcomer, Input::Certified(ahead.clone()));
    net.backfill(newcomer);
    net.run(|net| net.now > Duration::from_secs(60));
    assert_eq!(net.nodes[newcomer].stored.len(), 0);
    net.give(newcomer, Input::Tip(ahead.header.height, Vec::new()));
    net.run_until_whole(newcomer);
}

/// An era that is not to be kept any more is not fetched.
#[test]
fn what_is_missing_may_be_said_anew() {
    let made = made();
    let mut net = Net::new(&made);
    net.add_seed();
    let newcomer = net.add(&[]);
    net.backfill(newcomer);
    net.run(|net| net.nodes[newcomer].stored.len() > 20);
    let missing = vec![made.heads[11].descriptor];
    net.give(newcomer, Input::Missing { missing, staged: Vec::new() });
    net.run(|net| net.nodes[newcomer].kept.contains(SegmentIndex(11)) && net.queue.is_empty());
    let node = &net.nodes[newcomer];
    assert!(node.kept.count() < 4 && node.staged.is_empty(), "{:?}", node.kept);
}

/// An era that is dropped while it is being fetched does not come back piece by piece.
#[test]
fn what_is_dropped_is_not_fetched_on() {
    let made = made();
    let mut net = Net::new(&made);
    net.add_seed();
    let newcomer = net.add(&[]);
    net.backfill(newcomer);
    net.run(|net| net.nodes[newcomer].kept.count() > 2);
    net.nodes[newcomer].kept.remove_range(range(0, 10));
    net.give(newcomer, Input::Dropped(range(0, 10)));
    net.run(|net| net.nodes[newcomer].kept.contains(SegmentIndex(11)) && net.queue.is_empty());
    let node = &net.nodes[newcomer];
    assert_eq!(node.kept, ranges(&[range(11, 11)]));
    assert!(node.staged.is_empty());
}
