//! A look-up in the simulated index: Kademlia with the numbers of libp2p, which nodes use.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use super::Cost;
use super::network::{Network, Node, mixed};

/// Peers in a bucket of a routing table, nodes that keep a record, and nodes that an answer names.
const K: usize = 20;
/// Requests in flight.
const ALPHA: usize = 3;
/// Round trips to connect to a node without a link: TCP, noise, and the protocol's name.
const CONNECTING: u32 = 3;

/// The nodes that keep the records of a key: the nearest ones.
pub(super) fn nearest(network: &Network, key: u64) -> Vec<Node> {
    let mut nodes: Vec<Node> = (0..network.len()).collect();
    let count = K.min(nodes.len());
    if count < nodes.len() {
        nodes.select_nth_unstable_by_key(count, |node| network.ids[*node] ^ key);
    }
    nodes.truncate(count);
    nodes
}

/// The routing table of a node: of each bucket up to [`K`] nodes, chosen at random. It is not
/// stored: it is computed for each request, and always the same.
fn table(network: &Network, node: Node) -> Vec<Node> {
    let (ids, own) = (&network.ids, network.ids[node]);
    let mut table = Vec::new();
    for bit in 0..u64::BITS {
        // The ids that first differ from this node's in this bit are neighbours in the order.
        let size = 1 << (u64::BITS - 1 - bit);
        let first = (own ^ size) & !(size - 1);
        let from = ids.partition_point(|id| *id < first);
        let count = ids[from..].partition_point(|id| id - first < size);
        let mut bucket: Vec<Node> = (from..from + count).collect();
        for at in 0..K.min(count) {
            let choice = mixed(own ^ mixed(u64::from(bit) << 8 | at as u64));
            bucket.swap(at, at + choice as usize % (count - at));
        }
        table.extend(&bucket[..K.min(count)]);
    }
    table
}

/// The nodes of a node's table that are nearest to a key, the nearest first.
fn answer(network: &Network, node: Node, key: u64) -> Vec<Node> {
    let mut known = table(network, node);
    known.sort_unstable_by_key(|other| network.ids[*other] ^ key);
    known.truncate(K);
    known
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Asked,
    Answered,
}

/// Looks up a key whose record these nodes keep, until the [`K`] nearest nodes that are known have
/// all answered.
pub(super) fn look_up(network: &Network, asker: Node, key: u64, keepers: &[Node]) -> Cost {
    let mut known: BTreeMap<u64, (Node, State)> = BTreeMap::new();
    let learn = |known: &mut BTreeMap<u64, (Node, State)>, nodes: Vec<Node>| {
        for node in nodes.into_iter().filter(|node| *node != asker) {
            known.entry(network.ids[node] ^ key).or_insert((node, State::Open));
        }
    };
    learn(&mut known, answer(network, asker, key));
    let mut cost = Cost::default();
    if keepers.contains(&asker) {
        cost.first = Some(Duration::ZERO);
    }
    let mut in_flight: BinaryHeap<Reverse<(Duration, u64)>> = BinaryHeap::new();
    let mut now = Duration::ZERO;
    loop {
        while in_flight.len() < ALPHA {
            let open = known.iter_mut().take(K).find(|(_, (_, state))| *state == State::Open);
            let Some((distance, (node, state))) = open else { break };
            *state = State::Asked;
            let trips = if network.are_linked(asker, *node) { 1 } else { 1 + CONNECTING };
            let trip = 2 * Duration::from_micros(network.delay(asker, *node));
            in_flight.push(Reverse((now + trip * trips, *distance)));
            cost.queries += 1;
        }
        let Some(Reverse((at, distance))) = in_flight.pop() else { break };
        now = at;
        let Some((node, state)) = known.get_mut(&distance) else { continue };
        *state = State::Answered;
        let node = *node;
        if keepers.contains(&node) {
            cost.first.get_or_insert(now);
        }
        learn(&mut known, answer(network, node, key));
    }
    cost.messages = 2 * cost.queries;
    cost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_the_nodes_that_first_differ_in_its_bit() {
        let network = Network::new(500, 3);
        for node in [0, 7, 499] {
            let table = table(&network, node);
            let mut buckets = BTreeMap::<u32, usize>::new();
            let bucket = |other: Node| (network.ids[node] ^ network.ids[other]).leading_zeros();
            table.iter().for_each(|other| *buckets.entry(bucket(*other)).or_default() += 1);
            let mut all = BTreeMap::<u32, usize>::new();
            (0..500).filter(|other| *other != node).for_each(|other| {
                *all.entry(bucket(other)).or_default() += 1;
            });
            assert!(all.iter().all(|(bit, count)| buckets.get(bit) == Some(count.min(&K))));
            assert_eq!(buckets.len(), all.len());
        }
    }

    #[test]
    fn a_look_up_finds_the_nearest_nodes() {
        for nodes in [2, 10, 50, 3_000] {
            let network = Network::new(nodes, 5);
            for key in (0..20).map(mixed) {
                let keepers = nearest(&network, key);
                let cost = look_up(&network, 1, key, &keepers);
                assert!(cost.first.is_some(), "{nodes} nodes");
                let others = keepers.iter().filter(|node| **node != 1).count() as u64;
                assert!(cost.queries >= others, "{nodes} nodes: {cost:?}");
                assert!(cost.queries <= 2 * K as u64 + 20, "{nodes} nodes: {cost:?}");
            }
        }
    }
}
