//! The state: an authenticated map from keys to accounts.
//!
//! It is a binary radix tree in memory, whose root commits to every account. Nodes that several
//! copies share are never changed, so a copy takes constant time. Proposers and voters compute the
//! state after a candidate block in a copy of the final state, and readers keep copies as
//! snapshots. Accounts are never removed.

mod account;
mod page_id;
mod pages;
mod proof;
mod subtree;
#[cfg(test)]
pub(crate) mod tests;
mod tiling;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use account::{Account, Entry, Namespace, StateKey};
pub use page_id::PageId;
pub use pages::{PAGE_ENTRIES_MAX, PageChanges};
pub use proof::{AccountProof, ProofError, RangeProof};
pub use subtree::{Subtree, SubtreeError};
pub(crate) use tiling::Tiling;
pub(crate) use tree::inner_hash;

use crate::hash::{Hash, StateRoot};
use tree::{Node, Placed, placed};

/// All accounts at one height. Cloning it takes constant time.
#[derive(Clone)]
pub struct State {
    root: Arc<Node>,
}

impl State {
    /// The state with these entries. Of several entries with one key the first counts.
    #[must_use]
    pub fn from_entries(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut sorted: Vec<Placed> =
            entries.into_iter().map(|(key, account)| placed(&key, &account)).collect();
        sorted.sort_by_key(|(path, _)| *path);
        sorted.dedup_by_key(|(path, _)| *path);
        Self { root: Arc::new(Node::build(&sorted, 0)) }
    }

    /// Sets these accounts. Copies of this state keep their content.
    pub fn apply(&mut self, changes: &BTreeMap<StateKey, Account>) {
        let mut sorted: Vec<Placed> =
            changes.iter().map(|(key, account)| placed(key, account)).collect();
        sorted.sort_unstable_by_key(|(path, _)| *path);
        Node::apply(&mut self.root, &sorted, 0);
    }

    /// A copy of this state with these accounts set.
    #[must_use]
    pub fn with(&self, changes: &BTreeMap<StateKey, Account>) -> Self {
        let mut state = self.clone();
        state.apply(changes);
        state
    }

    /// The account of a key; `None` if it does not exist.
    #[must_use]
    pub fn get(&self, key: &StateKey) -> Option<&Account> {
        self.root.get(key)
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.root.count()
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Commitment to the whole content. Equal contents have equal roots, however they came about.
    #[must_use]
    pub fn root(&self) -> StateRoot {
        StateRoot(self.root.hash())
    }

    /// All entries, in path order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.root.entries(PageId::ROOT)
    }

    /// Proof of the account of a key, or of its absence.
    #[must_use]
    pub fn prove(&self, key: &StateKey) -> AccountProof {
        AccountProof::new(&self.root, key)
    }

    /// Proof of all entries from path `first` to path `last`, both included.
    #[must_use]
    pub fn prove_range(&self, first: &Hash, last: &Hash) -> RangeProof {
        RangeProof::new(&self.root, first, last)
    }

    /// The state cut into pages: the largest subtrees with 1 to `PAGE_ENTRIES_MAX` entries, in path
    /// order.
    pub fn pages(&self) -> impl Iterator<Item = (PageId, Vec<Entry>)> {
        pages::pages(&self.root, PageId::ROOT)
    }

    /// The changes that turn the pages of `since` into the pages of this state. Takes time in
    /// proportion to the difference.
    #[must_use]
    pub fn changed_pages(&self, since: &Self) -> PageChanges {
        let mut changes = PageChanges::default();
        pages::add_changes(&mut changes, &since.root, &self.root, PageId::ROOT);
        changes
    }
}

impl Default for State {
    /// The empty state.
    fn default() -> Self {
        Self::from_entries([])
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("len", &self.len()).field("root", &self.root()).finish()
    }
}
