//! The simulated network: nodes with positions, links and delays, all from one seed.

use std::collections::BTreeSet;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Connections that each node makes, as real ones do (`Limits::outbound`).
const OUTBOUND: usize = 16;
/// Shortest and longest one-way delay between two nodes, in microseconds: 10 to 150 ms for a round
/// trip, as between hosts of one continent and of several.
const DELAY: (u64, u64) = (5_000, 75_000);

/// A node, by its place in the order of ids.
pub(super) type Node = usize;

/// Nodes with ids in increasing order, as Kademlia sees them, and their links.
pub(super) struct Network {
    pub(super) ids: Vec<u64>,
    pub(super) links: Vec<Vec<Node>>,
    seed: u64,
}

impl Network {
    pub(super) fn new(nodes: usize, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut ids = BTreeSet::new();
        while ids.len() < nodes {
            ids.insert(random.random::<u64>());
        }
        let mut links = vec![BTreeSet::new(); nodes];
        for node in 0..nodes {
            let mut made = BTreeSet::new();
            while made.len() < OUTBOUND.min(nodes - 1) {
                let other = random.random_range(0..nodes);
                if other != node && made.insert(other) {
                    links[node].insert(other);
                    links[other].insert(node);
                }
            }
        }
        let links = links.into_iter().map(|links| links.into_iter().collect()).collect();
        Self { ids: ids.into_iter().collect(), links, seed }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// One-way delay between two nodes, in microseconds. It is the same each way.
    pub(super) fn delay(&self, one: Node, other: Node) -> u64 {
        let pair = (one.min(other) as u64) << 32 | one.max(other) as u64;
        DELAY.0 + mixed(self.seed ^ mixed(pair)) % (DELAY.1 - DELAY.0)
    }

    pub(super) fn are_linked(&self, one: Node, other: Node) -> bool {
        self.links[one].binary_search(&other).is_ok()
    }
}

/// A number that depends on all bits of another one: the output function of SplitMix64.
pub(super) fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
