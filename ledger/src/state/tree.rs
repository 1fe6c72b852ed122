//! The binary radix tree of the state: its shape, its hashes, and how a batch of changes is
//! applied.
//!
//! A subtree with at most `LEAF_ENTRIES_MAX` entries is one leaf, with its entries sorted by path.
//! A larger subtree is an inner node, which splits at the next bit of the paths. So shape and root
//! depend on the content alone, not on the order of changes.

use std::sync::Arc;

use super::account::{Account, Entry, StateKey};
use super::page_id::{PageId, bit};
use crate::codec;
use crate::hash::{Domain, Hash};

/// Most entries of a leaf. A higher number would make proofs longer, a lower one the tree deeper.
pub(super) const LEAF_ENTRIES_MAX: usize = 8;

/// An entry with its path. The path is a hash, so it is computed once and used at every level.
pub(super) type Placed = (Hash, Entry);

pub(super) fn placed(key: &StateKey, account: &Account) -> Placed {
    (key.path(), (*key, *account))
}

/// A subtree. Several states may share it.
#[derive(Clone)]
pub(super) enum Node {
    /// At most `LEAF_ENTRIES_MAX` entries in path order.
    Leaf { hash: Hash, entries: Vec<Entry> },
    /// More entries, in two children: the entries whose next path bit is 0, and those with a 1.
    Inner { hash: Hash, count: usize, children: [Arc<Node>; 2] },
}

impl Node {
    /// The tree over entries sorted by path, each path once. All paths share the first `depth`
    /// bits.
    pub(super) fn build(sorted: &[Placed], depth: u16) -> Self {
        if sorted.len() <= LEAF_ENTRIES_MAX {
            let entries: Vec<Entry> = sorted.iter().map(|(_, entry)| *entry).collect();
            return Self::Leaf { hash: leaf_hash(&entries), entries };
        }
        let below = depth.saturating_add(1);
        let children = split(sorted, depth).map(|half| Self::build(half, below));
        Self::inner(children.map(Arc::new))
    }

    /// The node above two halves, which together have more than `LEAF_ENTRIES_MAX` entries.
    pub(super) fn inner(children: [Arc<Self>; 2]) -> Self {
        let [left, right] = &children;
        let hash = inner_hash(&left.hash(), &right.hash());
        Self::Inner { hash, count: left.count().saturating_add(right.count()), children }
    }

    /// Overwrites or adds entries, which are sorted by path, each path once. A node above several
    /// changes is hashed only once. It is copied only if another state shares it.
    pub(super) fn apply(node: &mut Arc<Self>, changes: &[Placed], depth: u16) {
        if changes.is_empty() {
            return;
        }
        match Arc::make_mut(node) {
            Self::Inner { hash, count, children: [left, right] } => {
                let below = depth.saturating_add(1);
                let [to_left, to_right] = split(changes, depth);
                Self::apply(left, to_left, below);
                Self::apply(right, to_right, below);
                *count = left.count().saturating_add(right.count());
                *hash = inner_hash(&left.hash(), &right.hash());
            }
            Self::Leaf { hash, entries } => {
                let mut sorted: Vec<Placed> = changes
                    .iter()
                    .filter(|(_, change)| !overwrite(entries, change))
                    .copied()
                    .collect();
                if sorted.is_empty() {
                    *hash = leaf_hash(entries);
                } else {
                    sorted.extend(entries.iter().map(|(key, account)| placed(key, account)));
                    sorted.sort_unstable_by_key(|(path, _)| *path);
                    *node = Arc::new(Self::build(&sorted, depth));
                }
            }
        }
    }

    pub(super) const fn hash(&self) -> Hash {
        match self {
            Self::Leaf { hash, .. } | Self::Inner { hash, .. } => *hash,
        }
    }

    /// Number of entries in the subtree.
    pub(super) const fn count(&self) -> usize {
        match self {
            Self::Leaf { entries, .. } => entries.len(),
            Self::Inner { count, .. } => *count,
        }
    }

    /// The account of a key. `self` is the root.
    pub(super) fn get(&self, key: &StateKey) -> Option<&Account> {
        let path = key.path();
        let (mut node, mut depth) = (self, 0u16);
        loop {
            match node {
                Self::Leaf { entries, .. } => {
                    return entries
                        .iter()
                        .find(|(held, _)| held == key)
                        .map(|(_, account)| account);
                }
                Self::Inner { children, .. } => node = &children[usize::from(bit(&path, depth))],
            }
            depth = depth.saturating_add(1);
        }
    }

    /// The largest subtrees with at most `entries_max` entries, in path order. `entries_max` is at
    /// least `LEAF_ENTRIES_MAX`.
    pub(super) fn subtrees(
        self: &Arc<Self>,
        at: PageId,
        entries_max: usize,
    ) -> impl Iterator<Item = (PageId, &Arc<Self>)> {
        let mut stack = vec![(at, self)];
        std::iter::from_fn(move || {
            loop {
                let (at, node) = stack.pop()?;
                match &**node {
                    Self::Inner { count, children: [left, right], .. } if *count > entries_max => {
                        let [left_at, right_at] = at.children();
                        stack.extend([(right_at, right), (left_at, left)]);
                    }
                    _ => return Some((at, node)),
                }
            }
        })
    }

    /// The entries of the subtree at this place, in path order.
    pub(super) fn entries(self: &Arc<Self>, at: PageId) -> impl Iterator<Item = &Entry> {
        self.subtrees(at, LEAF_ENTRIES_MAX).flat_map(|(_, node)| match &**node {
            Self::Leaf { entries, .. } => entries.as_slice(),
            Self::Inner { .. } => {
                unreachable!("an inner node holds more than {LEAF_ENTRIES_MAX} entries")
            }
        })
    }
}

/// Hash of a leaf with these entries.
pub(super) fn leaf_hash(entries: &[Entry]) -> Hash {
    Hash::of(Domain::StatePage, &[&codec::encode(&entries)])
}

/// Hash of an inner node with these children.
pub(crate) fn inner_hash(left: &Hash, right: &Hash) -> Hash {
    Hash::of(Domain::StateInner, &[left.as_bytes(), right.as_bytes()])
}

/// The entries whose path bit at this depth is 0, and the entries whose bit is 1.
fn split(sorted: &[Placed], depth: u16) -> [&[Placed]; 2] {
    let (left, right) = sorted.split_at(sorted.partition_point(|(path, _)| !bit(path, depth)));
    [left, right]
}

/// Sets the account if a leaf with these entries has the key. Returns whether it has.
fn overwrite(entries: &mut [Entry], (key, account): &Entry) -> bool {
    match entries.iter_mut().find(|(held, _)| held == key) {
        Some((_, old)) => {
            *old = *account;
            true
        }
        None => false,
    }
}
