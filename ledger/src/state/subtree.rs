//! Subtrees: parts of a state that are taken out of one state and joined into another.

use std::fmt;
use std::sync::Arc;

use super::State;
use super::account::Entry;
use super::page_id::PageId;
use super::pages;
use super::tiling::Tiling;
use super::tree::{LEAF_ENTRIES_MAX, Node, Placed, placed};
use crate::hash::Hash;

/// Entries that are no subtree at the place where they should be one. Whoever gave them is at
/// fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubtreeError {
    /// The path of an entry does not begin with the bits of the place.
    #[error("path {path} does not begin with the first {} bits of {}", at.depth, at.prefix)]
    Misplaced {
        /// Path of the entry.
        path: Hash,
        /// Place of the subtree.
        at: PageId,
    },
    /// The paths of the entries do not strictly increase.
    #[error("path {path} follows path {before}, expected paths that increase")]
    Unsorted {
        /// Path of the entry before.
        before: Hash,
        /// Path of the entry.
        path: Hash,
    },
}

/// All entries of a state whose paths begin with the same bits. A clone shares the nodes.
#[derive(Clone)]
pub struct Subtree {
    pub(super) at: PageId,
    pub(super) node: Arc<Node>,
}

impl Subtree {
    /// Builds the subtree at a place from its entries in path order.
    ///
    /// # Errors
    /// `SubtreeError` for the first entry that is not at its place.
    pub fn build(at: PageId, entries: &[Entry]) -> Result<Self, SubtreeError> {
        let mut sorted: Vec<Placed> = Vec::with_capacity(entries.len());
        for (key, account) in entries {
            let next = placed(key, account);
            let path = next.0;
            if !at.meets(&path, &path) {
                return Err(SubtreeError::Misplaced { path, at });
            }
            if let Some((before, _)) = sorted.last().filter(|(before, _)| *before >= path) {
                return Err(SubtreeError::Unsorted { before: *before, path });
            }
            sorted.push(next);
        }
        Ok(Self { at, node: Arc::new(Node::build(&sorted, at.depth)) })
    }

    /// Place of the subtree.
    #[must_use]
    pub const fn at(&self) -> PageId {
        self.at
    }

    /// Hash of the subtree: a leaf's or an inner node's.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.node.hash()
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.node.count()
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries, in path order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.node.entries(self.at)
    }

    /// The pages of the whole state that lie in this subtree, in path order, if the subtree is one
    /// of [`State::subtrees`] for at least `PAGE_ENTRIES_MAX` entries.
    pub fn pages(&self) -> impl Iterator<Item = (PageId, Vec<Entry>)> {
        pages::pages(&self.node, self.at)
    }
}

impl fmt::Debug for Subtree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, node } = self;
        f.debug_struct("Subtree").field("at", at).field("len", &node.count()).finish()
    }
}

impl State {
    /// The largest subtrees with at most `entries_max` entries, in path order. They cover the tree.
    /// `entries_max` is at least `PAGE_ENTRIES_MAX`.
    pub fn subtrees(&self, entries_max: usize) -> impl Iterator<Item = Subtree> {
        Node::subtrees(&self.root, PageId::ROOT, entries_max)
            .map(|(at, node)| Subtree { at, node: Arc::clone(node) })
    }

    /// The state that consists of these subtrees, given in path order. It shares their nodes: only
    /// the nodes above them are made and hashed.
    ///
    /// `None` if they do not cover the tree, or if a node above them would have so few entries that
    /// it is a leaf.
    #[must_use]
    pub fn join(subtrees: impl IntoIterator<Item = Subtree>) -> Option<Self> {
        let mut tiling = Tiling::new();
        for Subtree { at, node } in subtrees {
            tiling.place(at.depth).filter(|place| *place == at)?;
            let join = |_, left, right| {
                let node = Node::inner([left, right]);
                if node.count() > LEAF_ENTRIES_MAX { Ok(Arc::new(node)) } else { Err(()) }
            };
            tiling.push(at, node, join).ok()?;
        }
        Some(Self { root: tiling.finish()? })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state::PAGE_ENTRIES_MAX;
    use crate::state::tests::{KEYS, entries, model};

    proptest! {
        /// A state is cut into subtrees, which are built again from their entries alone and joined
        /// to the same state. Their pages are the pages of the state.
        #[test]
        fn a_state_is_the_sum_of_its_subtrees(
            chosen in prop::collection::btree_map(0..KEYS.len(), 0u64..9, 0..240),
            entries_max in PAGE_ENTRIES_MAX..240,
        ) {
            let state = State::default().with(&model(&chosen));
            let cut: Vec<Subtree> = state.subtrees(entries_max).collect();
            prop_assert_eq!(cut.iter().map(Subtree::len).sum::<usize>(), state.len());
            let built: Vec<Subtree> = cut
                .iter()
                .map(|subtree| {
                    let entries: Vec<Entry> = subtree.entries().copied().collect();
                    Subtree::build(subtree.at(), &entries).unwrap()
                })
                .collect();
            prop_assert!(cut.iter().map(Subtree::hash).eq(built.iter().map(Subtree::hash)));
            prop_assert!(built.iter().flat_map(Subtree::pages).eq(state.pages()));
            let joined = State::join(built.clone()).unwrap();
            prop_assert_eq!(joined.root(), state.root());
            prop_assert!(joined.iter().eq(state.iter()));
            prop_assert!(joined.pages().eq(state.pages()));
            // A joined state goes on as any other.
            let [later, expected] =
                [&joined, &state].map(|state| state.with(&model(&[(0, 77), (200, 78)].into())));
            prop_assert_eq!(later.root(), expected.root());

            for index in 0..built.len() {
                let mut without = built.clone();
                let left_out = without.remove(index);
                prop_assert!(State::join(without).is_none());
                let twice = built.iter().cloned().chain([left_out]);
                prop_assert!(State::join(twice).is_none());
            }
        }
    }

    #[test]
    fn entries_that_are_not_of_the_place_are_refused() {
        let [left, right] = PageId::ROOT.children();
        let state = State::from_entries(entries(0..20));
        let sorted: Vec<Entry> = state.iter().copied().collect();
        let path = |index: usize| sorted[index].0.path();
        let half = sorted.partition_point(|(key, _)| key.path() < right.prefix);
        let swapped = [sorted[1], sorted[0]];
        let repeated = [sorted[2], sorted[2]];
        let deepest = PageId { depth: 256, prefix: path(3) };
        let built = |at, entries: &[Entry]| Subtree::build(at, entries).map(|built| built.len());
        for (at, entries, expected) in [
            (PageId::ROOT, &sorted[..], Ok(20)),
            (left, &sorted[..half], Ok(half)),
            (right, &sorted[half..], Ok(20 - half)),
            (right, &[], Ok(0)),
            (deepest, &sorted[3..4], Ok(1)),
            (left, &sorted[..], Err(SubtreeError::Misplaced { path: path(half), at: left })),
            (right, &sorted[..], Err(SubtreeError::Misplaced { path: path(0), at: right })),
            (deepest, &sorted[4..5], Err(SubtreeError::Misplaced { path: path(4), at: deepest })),
            (left, &swapped, Err(SubtreeError::Unsorted { before: path(1), path: path(0) })),
            (left, &repeated, Err(SubtreeError::Unsorted { before: path(2), path: path(2) })),
        ] {
            assert_eq!(built(at, entries), expected, "{at:?}");
        }
    }

    /// A node with at most eight entries is a leaf, so it is not joined from halves.
    #[test]
    fn only_the_canonical_tree_is_joined() {
        let [left, right] = PageId::ROOT.children();
        for accounts in [0, 8, 9] {
            let state = State::from_entries(entries(0..accounts));
            let (below, above): (Vec<Entry>, Vec<Entry>) =
                state.iter().partition(|(key, _)| key.path() < right.prefix);
            let halves = [(left, below), (right, above)]
                .map(|(at, entries)| Subtree::build(at, &entries).unwrap());
            let joined = State::join(halves.clone()).map(|joined| joined.root());
            assert_eq!(joined, (accounts > 8).then(|| state.root()), "{accounts}");
            let [first, second] = halves;
            assert!(State::join([second, first]).is_none(), "in path order only");
        }
        assert!(State::join([]).is_none());
        // Eight subtrees of one depth, the last two in the other order.
        let mut cut: Vec<Subtree> = State::from_entries(entries(0..300)).subtrees(64).collect();
        assert_eq!(cut.iter().map(|subtree| subtree.at.depth).collect::<Vec<_>>(), [3; 8]);
        cut.swap(6, 7);
        assert!(State::join(cut).is_none());
    }
}
