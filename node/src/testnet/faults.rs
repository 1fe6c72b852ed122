//! Which links of a network are cut or slow. Pure state: the supervisor tells it to the nodes.

use std::collections::{BTreeMap, BTreeSet};

/// Two positions in the list of nodes, the lower first.
pub(super) type Pair = (usize, usize);

/// All faults of a network. Cuts add up until [`Faults::heal`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    cut: BTreeSet<Pair>,
    /// Nodes that are cut off from all others, also from nodes that are added later.
    isolated: BTreeSet<usize>,
    /// Latency of pairs that have none of their own, milliseconds each way.
    latency_all: u32,
    latency: BTreeMap<Pair, u32>,
}

/// The faults of one node's links: positions of its peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OfNode {
    pub(super) cut: Vec<usize>,
    /// Peers with a latency, in milliseconds.
    pub(super) latency_ms: Vec<(usize, u32)>,
}

fn pair(a: usize, b: usize) -> Pair {
    (a.min(b), a.max(b))
}

impl Faults {
    /// Cuts all links between nodes of different groups.
    pub(super) fn partition(&mut self, groups: &[Vec<usize>]) {
        for (number, group) in groups.iter().enumerate() {
            let others = groups.iter().skip(number.saturating_add(1)).flatten();
            for other in others {
                self.cut.extend(group.iter().map(|node| pair(*node, *other)));
            }
        }
    }

    /// Cuts all links of a node.
    pub(super) fn isolate(&mut self, node: usize) {
        self.isolated.insert(node);
    }

    /// Takes away all faults.
    pub(super) fn heal(&mut self) {
        *self = Self::default();
    }

    /// Sets the latency of a pair, or of all pairs in place of all earlier latencies.
    pub(super) fn delay(&mut self, between: Option<Pair>, ms: u32) {
        match between {
            Some((a, b)) => {
                self.latency.insert(pair(a, b), ms);
            }
            None => {
                self.latency.clear();
                self.latency_all = ms;
            }
        }
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&pair(a, b)) || self.isolated.contains(&a) || self.isolated.contains(&b)
    }

    fn latency_between(&self, a: usize, b: usize) -> u32 {
        self.latency.get(&pair(a, b)).copied().unwrap_or(self.latency_all)
    }

    /// All cut pairs of a network of this many nodes.
    pub(super) fn cuts(&self, count: usize) -> Vec<Pair> {
        pairs(count).filter(|(a, b)| self.is_cut(*a, *b)).collect()
    }

    /// All pairs with a latency of a network of this many nodes.
    pub(super) fn latencies(&self, count: usize) -> Vec<(usize, usize, u32)> {
        let latency = |(a, b): Pair| (a, b, self.latency_between(a, b));
        pairs(count).map(latency).filter(|(_, _, ms)| *ms > 0).collect()
    }

    /// What one node of a network of this many nodes must be told.
    pub(super) fn of_node(&self, node: usize, count: usize) -> OfNode {
        let peers = || (0..count).filter(|peer| *peer != node);
        OfNode {
            cut: peers().filter(|peer| self.is_cut(node, *peer)).collect(),
            latency_ms: peers()
                .map(|peer| (peer, self.latency_between(node, peer)))
                .filter(|(_, ms)| *ms > 0)
                .collect(),
        }
    }
}

fn pairs(count: usize) -> impl Iterator<Item = Pair> {
    (0..count).flat_map(move |a| (a.saturating_add(1)..count).map(move |b| (a, b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_cuts_between_groups_and_tells_both_ends() {
        let mut faults = Faults::default();
        faults.partition(&[vec![1, 0], vec![3], vec![4]]);
        let cuts = [(0, 3), (0, 4), (1, 3), (1, 4), (3, 4)];
        assert_eq!(faults.cuts(5), cuts, "node 2 is in no group");
        assert_eq!(faults.of_node(3, 5).cut, [0, 1, 4]);
        assert_eq!(faults.of_node(2, 5), OfNode::default());
        for (a, b) in cuts {
            assert!(faults.of_node(a, 5).cut.contains(&b) && faults.of_node(b, 5).cut.contains(&a));
        }
        let before = faults.clone();
        faults.partition(&[vec![1, 0], vec![3], vec![4]]);
        assert_eq!(faults, before, "a second time nothing changes");
        faults.partition(&[vec![2], vec![0]]);
        assert_eq!(faults.cuts(5).len(), 6, "cuts add up");
        faults.heal();
        assert_eq!(faults, Faults::default());
    }

    #[test]
    fn an_isolated_node_is_also_cut_off_from_later_nodes() {
        let mut faults = Faults::default();
        faults.isolate(1);
        assert_eq!(faults.cuts(3), [(0, 1), (1, 2)]);
        assert_eq!(faults.cuts(4), [(0, 1), (1, 2), (1, 3)]);
        assert_eq!(faults.of_node(3, 4).cut, [1]);
    }

    #[test]
    fn latency_is_of_a_pair_or_of_all() {
        let mut faults = Faults::default();
        faults.delay(Some((2, 0)), 70);
        assert_eq!(faults.latencies(3), [(0, 2, 70)]);
        faults.delay(None, 50);
        assert_eq!(faults.latencies(3), [(0, 1, 50), (0, 2, 50), (1, 2, 50)]);
        faults.delay(Some((0, 1)), 0);
        assert_eq!(faults.latencies(3), [(0, 2, 50), (1, 2, 50)]);
        assert_eq!(faults.of_node(2, 3).latency_ms, [(0, 50), (1, 50)]);
        faults.delay(None, 0);
        assert_eq!(faults.latencies(3), []);
    }
}
