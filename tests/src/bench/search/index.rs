//! A look-up in the simulated index: Kademlia with the numbers of libp2p, which nodes use.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use super::Cost;
use super::network::{Network, Node, mixed};

/// Peers in a bucket of a routing table, nodes that keep a record, and nodes that an answer names.
const K: usize = 20;
/// Most requests in flight while answers bring the asker nearer to the key. After as many answers
/// in a row that do not, up to [`K`] are.
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

/// The nodes that a look-up knows, the nearest first.
type Known = BTreeMap<u64, (Node, State)>;

/// What a look-up does next.
enum Step {
    Ask(u64),
    Wait,
    End,
}

/// It ends when the [`K`] nearest nodes have answered. Until then it asks further nodes, also ones
/// that are not among the [`K`] nearest, if as many requests may be in flight.
fn next(known: &Known, is_full: bool) -> Step {
    let mut answered = Some(0);
    for (distance, (_, state)) in known {
        match state {
            State::Open if is_full => return Step::Wait,
            State::Open => return Step::Ask(*distance),
            State::Asked if is_full => return Step::Wait,
            State::Asked => answered = None,
            State::Answered => {
                answered = answered.map(|count| count + 1);
                if answered == Some(K) {
                    return Step::End;
                }
            }
        }
    }
    if answered.is_some() { Step::End } else { Step::Wait }
}

/// Looks a key up whose record these nodes keep.
pub(super) fn look_up(network: &Network, asker: Node, key: u64, keepers: &[Node]) -> Cost {
    let mut known = Known::new();
    // Returns whether one of these is among the K nearest of all that are known, or fewer are.
    let learn = |known: &mut Known, nodes: Vec<Node>| {
        let last = known.keys().nth(K - 1).copied();
        let mut is_nearer = last.is_none();
        for node in nodes.into_iter().filter(|node| *node != asker) {
            let distance = network.ids[node] ^ key;
            is_nearer |= last.is_some_and(|last| distance < last) && !known.contains_key(&distance);
            known.entry(distance).or_insert((node, State::Open));
        }
        is_nearer
    };
    learn(&mut known, answer(network, asker, key));
    let mut cost = Cost::default();
    if keepers.contains(&asker) {
        cost.first = Some(Duration::ZERO);
    }
    let mut in_flight: BinaryHeap<Reverse<(Duration, u64)>> = BinaryHeap::new();
    let (mut now, mut in_vain) = (Duration::ZERO, 0);
    loop {
        let most = if in_vain < ALPHA { ALPHA } else { K };
        match next(&known, in_flight.len() >= most) {
            Step::End => break,
            Step::Ask(distance) => {
                let Some((node, state)) = known.get_mut(&distance) else { continue };
                *state = State::Asked;
                let trips = if network.are_linked(asker, *node) { 1 } else { 1 + CONNECTING };
                let trip = 2 * Duration::from_micros(network.delay(asker, *node));
                in_flight.push(Reverse((now + trip * trips, distance)));
                cost.queries += 1;
            }
            Step::Wait => {
                let Some(Reverse((at, distance))) = in_flight.pop() else { break };
                now = at;
                let Some((node, state)) = known.get_mut(&distance) else { continue };
                *state = State::Answered;
                let node = *node;
                if keepers.contains(&node) {
                    cost.first.get_or_insert(now);
                }
                let is_nearer = learn(&mut known, answer(network, node, key));
                in_vain = if is_nearer { 0 } else { in_vain + 1 };
            }
        }
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
    fn a_look_up_ends_when_the_nearest_have_answered_and_asks_others_meanwhile() {
        let known = |states: [(usize, State); 3]| -> Known {
            let states = states.into_iter().flat_map(|(count, state)| vec![state; count]);
            (0..).zip(states.enumerate()).collect()
        };
        use State::{Answered, Asked, Open};
        for (states, is_full, expected) in [
            ([(K, Answered), (1, Open), (0, Open)], false, "end"),
            ([(K - 1, Answered), (1, Open), (5, Open)], false, "19"),
            ([(1, Asked), (K, Answered), (1, Open)], false, "21"),
            ([(1, Asked), (K, Answered), (1, Open)], true, "wait"),
            ([(K - 1, Answered), (0, Open), (0, Open)], false, "end"),
            ([(K - 1, Answered), (1, Asked), (0, Open)], false, "wait"),
        ] {
            let step = match next(&known(states), is_full) {
                Step::Ask(distance) => distance.to_string(),
                Step::Wait => "wait".to_owned(),
                Step::End => "end".to_owned(),
            };
            assert_eq!(step, expected);
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
                assert!(cost.queries <= 3 * K as u64, "{nodes} nodes: {cost:?}");
            }
        }
    }
}
