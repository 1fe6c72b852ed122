//! One machine among peers that say and send anything.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ledger::codec;
use ledger::units::{Height, SegmentIndex};
use protocol::PeerId;
use protocol::swarm::message::{
    ChunkId, CollectionNumber, Holdings, SyncMessage, Update, WANTS_MAX,
};
use protocol::swarm::{
    Bits, Effect, HISTORY, Input, Rates, SegmentRange, SegmentRanges, Setup, Swarm,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tests::swarm::Made;

use super::{FIRST, MIB};

/// A peer's number for history. It differs from the machine's.
const NUMBER: CollectionNumber = CollectionNumber(3);

/// A machine, and what its shell knows of it.
struct Shell {
    made: Arc<Made>,
    sync: Swarm,
    now: Duration,
    begun: BTreeSet<SegmentIndex>,
    stored: BTreeSet<ChunkId>,
    /// By peer: the chunks that are wanted from it, and its credit.
    wants: Vec<(BTreeSet<ChunkId>, u64)>,
    received: Vec<u64>,
    banned: Vec<bool>,
}

impl Shell {
    const PEERS: usize = 6;

    fn new(made: &Arc<Made>) -> Self {
        let setup = Setup {
            chain: made.chain.clone(),
            history: &made.history(0),
            kept: SegmentRanges::default(),
            staged: Vec::new(),
            manifest: None,
            nonce: 9,
            rates: Rates::default(),
            join: None,
        };
        let (sync, effects) = Swarm::new(setup, Duration::ZERO);
        assert!(effects.is_empty(), "{effects:?}");
        Self {
            made: made.clone(),
            sync,
            now: Duration::ZERO,
            begun: BTreeSet::new(),
            stored: BTreeSet::new(),
            wants: vec![Default::default(); Self::PEERS],
            received: vec![0; Self::PEERS],
            banned: vec![true; Self::PEERS],
        }
    }

    fn give(&mut self, input: Input) {
        for effect in self.sync.handle(self.now, input) {
            self.perform(effect);
        }
        for peer in 0..Self::PEERS {
            let on_way = self.wants[peer].1 - self.received[peer];
            assert!(on_way <= 64, "{on_way} chunks may be on their way from one peer");
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send(peer, bytes) => {
                let place = peer.0 as usize;
                assert!(!self.banned[place], "nothing is said to a peer that is gone");
                if let Ok(SyncMessage::Update(update)) = SyncMessage::decode(&bytes) {
                    let (wants, allowed) = &mut self.wants[place];
                    wants.retain(|id| !update.remove.contains(id));
                    wants.extend(update.add);
                    *allowed = update.allowed.max(*allowed);
                    assert!(wants.len() <= WANTS_MAX, "{} wants", wants.len());
                }
            }
            Effect::Begin(_, head) => {
                assert!(self.begun.insert(SegmentIndex(head.descriptor.index)));
            }
            Effect::Store(id) => {
                assert!(
                    self.begun.contains(&id.segment.index) && self.stored.insert(id),
                    "{id:?} is stored once"
                );
            }
            Effect::Ban { peer, .. } => self.close(peer.0 as usize),
            _ => {}
        }
    }

    fn close(&mut self, peer: usize) {
        (self.banned[peer], self.wants[peer], self.received[peer]) = (true, Default::default(), 0);
    }

    fn open(&mut self, peer: usize) {
        self.close(peer);
        self.banned[peer] = false;
        self.give(Input::Opened(PeerId(peer as u64)));
        self.say(peer, &SyncMessage::Open(NUMBER, self.made.id()));
    }

    fn say(&mut self, peer: usize, message: &SyncMessage) {
        self.give(Input::Message(PeerId(peer as u64), codec::encode(message)));
    }
}

/// Whatever peers say and send, nothing panics, and the machine keeps to its limits and stores each
/// chunk once.
#[test]
fn no_peer_can_break_a_machine() {
    let made = Arc::new(Made::new(4 * MIB, MIB, 64 << 10));
    for seed in 0..300 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut shell = Shell::new(&made);
        shell.give(Input::Certified(made.target.clone()));
        for _ in 0..400 {
            shell.now += Duration::from_millis(
                *[0, 1, 20, 300, 5_000].get(rng.random_range(0..5usize)).unwrap(),
            );
            let peer = rng.random_range(0..Shell::PEERS);
            if shell.banned[peer] {
                shell.open(peer);
            }
            happen(&mut rng, &mut shell, peer);
        }
    }
}

/// The id of any chunk, mostly one of the chain or near it.
fn any(rng: &mut ChaCha8Rng, number: CollectionNumber) -> ChunkId {
    match rng.random_range(0..12) {
        0 => number.segment(SegmentIndex(rng.random())).chunk(rng.random()),
        _ => {
            let segment = number.segment(SegmentIndex(rng.random_range(0..5)));
            segment.chunk(rng.random_range(0..17))
        }
    }
}

fn ids(rng: &mut ChaCha8Rng, most: usize) -> Vec<ChunkId> {
    let count = rng.random_range(0..=most);
    (0..count).map(|_| any(rng, NUMBER)).collect()
}

fn happen(rng: &mut ChaCha8Rng, shell: &mut Shell, peer: usize) {
    let made = shell.made.clone();
    match rng.random_range(0..18) {
        0 => {
            let mut bits = Bits::new(16);
            for _ in 0..rng.random_range(0..16) {
                bits.set(rng.random_range(0..20));
            }
            let whole = *[0, 2, 4, u64::MAX].get(rng.random_range(0..4usize)).unwrap();
            let mut whole = SegmentRanges::before(SegmentIndex(whole));
            if rng.random_ratio(1, 2) {
                whole.remove(FIRST);
            }
            let open = vec![(SegmentIndex(rng.random_range(0..5)), bits)];
            let holdings = Holdings { whole, open, nonce: rng.random() };
            shell.say(peer, &SyncMessage::Height(Height(rng.random_range(0..1_000))));
            shell.say(peer, &SyncMessage::Holdings(NUMBER, holdings));
        }
        1..=3 => {
            let update = Update {
                have: ids(rng, 8),
                add: ids(rng, 40),
                remove: ids(rng, 8),
                received: if rng.random_ratio(1, 50) { rng.random() } else { 0 },
                allowed: rng.random_range(0..100),
            };
            shell.say(peer, &SyncMessage::Update(update));
        }
        4 => {
            let first = rng.random_range(0..6);
            let last = SegmentIndex(first + rng.random_range(0..3));
            let range = SegmentRange { first: SegmentIndex(first), last };
            shell.say(peer, &SyncMessage::Held(NUMBER, range));
        }
        5 => shell.say(peer, &SyncMessage::Busy(rng.random())),
        6 => {
            let descriptors =
                rng.random_ratio(4, 5).then(|| made.descriptors(rng.random_range(0..=4)));
            let height = made.target.header.height;
            shell.say(peer, &SyncMessage::Manifest(height, FIRST, descriptors));
        }
        7 => {
            let (index, other) = (rng.random_range(0..4u64), rng.random_range(0..20u64));
            let head = made.heads[if other < 4 { other } else { index } as usize].clone();
            let head = rng.random_ratio(9, 10).then_some(head);
            shell.say(peer, &SyncMessage::Head(SegmentIndex(index), head));
        }
        8 => shell.give(Input::Message(
            PeerId(peer as u64),
            (0..rng.random_range(0..60)).map(|_| rng.random()).collect(),
        )),
        9..=12 => {
            let wanted: Vec<ChunkId> = shell.wants[peer].0.iter().copied().collect();
            let id = if wanted.is_empty() || rng.random_ratio(1, 20) {
                any(rng, HISTORY)
            } else {
                wanted[rng.random_range(0..wanted.len())]
            };
            let good = made.chunk(id).filter(|_| rng.random_ratio(30, 31));
            let (is_valid, bytes) = good.map_or((false, 1), |(_, bytes)| (true, bytes));
            if shell.received[peer] < shell.wants[peer].1 {
                shell.received[peer] += 1;
                shell.wants[peer].0.remove(&id);
            }
            shell.give(Input::Chunk { from: PeerId(peer as u64), id, is_valid, bytes });
        }
        13 => {
            let first = SegmentIndex(rng.random_range(0..9));
            shell.say(peer, &SyncMessage::GetManifest(made.target.header.height, first));
        }
        14 => {
            let segment = NUMBER.segment(SegmentIndex(rng.random_range(0..5)));
            shell.say(peer, &SyncMessage::NotKept(segment));
        }
        15 => {
            shell.say(peer, &SyncMessage::Close(NUMBER));
            if !shell.banned[peer] {
                shell.say(peer, &SyncMessage::Open(NUMBER, made.id()));
            }
        }
        16 => {
            shell.close(peer);
            shell.give(Input::Closed(PeerId(peer as u64)));
        }
        _ => shell.give(Input::Time),
    }
}
