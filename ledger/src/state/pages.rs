//! The state cut into pages for the store: a checkpoint writes the pages that changed.

use std::sync::Arc;

use super::account::Entry;
use super::page_id::PageId;
use super::tree::{LEAF_ENTRIES_MAX, Node};

/// Most entries of a page. An entry has 81 bytes, so a page stays under 6 KiB, the largest value of
/// the store.
pub const PAGE_ENTRIES_MAX: usize = 64;
const _: () = assert!(PAGE_ENTRIES_MAX >= LEAF_ENTRIES_MAX);

/// The changes that turn the pages of an older state into those of a newer one. No page is named
/// twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageChanges {
    /// New pages and pages whose entries changed, each with all its entries, in path order.
    pub written: Vec<(PageId, Vec<Entry>)>,
    /// Pages that no longer exist, in path order.
    pub removed: Vec<PageId>,
}

/// The largest subtrees with 1 to `PAGE_ENTRIES_MAX` entries, in path order.
pub(super) fn pages(node: &Arc<Node>, at: PageId) -> impl Iterator<Item = (PageId, Vec<Entry>)> {
    node.subtrees(at, PAGE_ENTRIES_MAX)
        .filter(|(_, page)| page.count() > 0)
        .map(|(at, page)| (at, page.entries(at).copied().collect()))
}

/// Adds the changes of one subtree. Visits only nodes that differ.
pub(super) fn add_changes(changes: &mut PageChanges, old: &Arc<Node>, new: &Arc<Node>, at: PageId) {
    if Arc::ptr_eq(old, new) || old.hash() == new.hash() {
        return;
    }
    match (&**old, &**new) {
        (
            Node::Inner { children: [old_left, old_right], count: old_count, .. },
            Node::Inner { children: [new_left, new_right], count: new_count, .. },
        ) if *old_count.min(new_count) > PAGE_ENTRIES_MAX => {
            let [left_at, right_at] = at.children();
            add_changes(changes, old_left, new_left, left_at);
            add_changes(changes, old_right, new_right, right_at);
        }
        _ => {
            let written: Vec<_> = pages(new, at).collect();
            let removed = pages(old, at)
                .map(|(id, _)| id)
                .filter(|id| written.iter().all(|(kept, _)| kept != id));
            changes.removed.extend(removed);
            changes.written.extend(written);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::codec::encode;
    use crate::state::State;
    use crate::state::tests::{KEYS, account, entries, key, model};

    type Pages = BTreeMap<PageId, Vec<Entry>>;

    /// Applies changes to pages, as the store does. Asserts that removed pages existed and that
    /// written pages differ from the old ones.
    fn write(pages: &mut Pages, changes: PageChanges) {
        for id in changes.removed {
            assert!(pages.remove(&id).is_some(), "{id:?} was no page");
        }
        for (id, entries) in changes.written {
            assert_ne!(pages.insert(id, entries.clone()), Some(entries), "{id:?} is unchanged");
        }
    }

    #[test]
    fn pages_are_as_large_as_they_may_be() {
        for (accounts, pages_min) in [(0, 0), (1, 1), (64, 1), (65, 2), (5_000, 79)] {
            let state = State::from_entries(entries(0..accounts));
            let cut: Vec<_> = state.pages().collect();
            let paths: Vec<_> = state.iter().map(|(key, _)| key.path()).collect();
            let held_below = |at: &PageId| paths.iter().filter(|path| at.meets(path, path)).count();
            assert!(cut.len() >= pages_min);
            for (id, page) in &cut {
                assert!(
                    (1..=PAGE_ENTRIES_MAX).contains(&page.len()) && encode(page).len() < 6 << 10
                );
                assert_eq!(held_below(id), page.len(), "{id:?}");
                let parent = (0..id.depth).fold((PageId::ROOT, PageId::ROOT), |(at, _), _| {
                    let [left, right] = at.children();
                    (if right.prefix <= id.prefix { right } else { left }, at)
                });
                assert_eq!(parent.0, *id);
                assert!(id.depth == 0 || held_below(&parent.1) > PAGE_ENTRIES_MAX, "{id:?}");
            }
            assert!(cut.iter().flat_map(|(_, page)| page).eq(state.iter()));
        }
    }

    #[test]
    fn an_overwritten_account_writes_one_page() {
        let state = State::from_entries(entries(0..5_000));
        let next = state.with(&[(key(7), account(8))].into());
        let changes = next.changed_pages(&state);
        assert_eq!((changes.written.len(), changes.removed.len()), (1, 0));
        assert_eq!(state.changed_pages(&state.clone()), PageChanges::default());
        // A state with equal content that shares no node.
        assert_eq!(
            State::from_entries(entries(0..5_000)).changed_pages(&state),
            PageChanges::default()
        );
    }

    proptest! {
        /// If the changes between two states are applied to the pages of the older state, the pages
        /// of the newer one result. This also holds for forks, and for a state with fewer entries.
        #[test]
        fn changes_lead_from_pages_to_pages(
            batches in prop::collection::vec(
                prop::collection::btree_map(0..KEYS.len(), 0u64..9, 0..90),
                1..5,
            ),
        ) {
            let base = State::default();
            let fork = base.with(&model(&batches[0]));
            let mut states = vec![base.clone(), fork];
            let mut state = base;
            for batch in &batches {
                state.apply(&model(batch));
                states.push(state.clone());
            }
            let pairs = states.iter().flat_map(|old| states.iter().map(move |new| (old, new)));
            for (old, new) in pairs {
                let mut pages: Pages = old.pages().collect();
                write(&mut pages, new.changed_pages(old));
                prop_assert_eq!(pages, new.pages().collect::<Pages>());
            }
        }
    }
}
