//! Checkpoints: all accounts at one height, so that only the blocks after this height are applied
//! when the store is opened.
//!
//! There are two slots. The marker, a stored value, names the slot of the newest checkpoint. The
//! other slot holds the checkpoint before it. The next checkpoint replaces the older one, and only
//! the pages that differ are written. The marker moves last, after all pages are durable. So the
//! marked slot is whole whenever a crash comes.

use std::collections::BTreeSet;

use crate::state::{Entry, PageId, State};
use crate::store::StoreError;
use crate::store::disk::{Batch, Disk};
use crate::store::schema::{self, Key, Marker, Slot, prefix};
use crate::units::Height;

/// A checkpoint is due after this many blocks. A lower number would cost more writes, a higher one
/// would make opening slower.
pub(super) const CHECKPOINT_BLOCKS: u64 = 64;
/// If a commit would leave more than this many blocks without a checkpoint, it makes one first.
/// This bounds memory and the time to open.
pub(super) const CHECKPOINT_BLOCKS_MAX: u64 = 4 * CHECKPOINT_BLOCKS;

/// The state of the two slots.
pub(super) struct Slots {
    /// The slot of the newest checkpoint; `B` if there is none, so that `A` is written first.
    marked: Slot,
    /// Height of the newest checkpoint; 0 if there is none.
    pub(super) height: Height,
    /// Accounts in the marked slot; `None` if there is no checkpoint.
    marked_state: Option<State>,
    /// Accounts in the other slot; `None` if they are not known, as after opening or a failed
    /// write.
    other_state: Option<State>,
}

impl Slots {
    /// The slots of a newly opened store.
    pub(super) fn new(marker: Option<&Marker>, state: &State) -> Self {
        Self {
            marked: marker.map_or(Slot::B, |marker| marker.slot),
            height: marker.map_or(Height(0), |marker| marker.height),
            marked_state: marker.map(|_| state.clone()),
            other_state: None,
        }
    }

    /// The slot of the next checkpoint.
    pub(super) const fn next(&self) -> Slot {
        self.marked.other()
    }

    /// Makes the unmarked slot hold these accounts. If its old content is known, only the pages
    /// that differ are written. Nothing refers to this slot before the marker moves to it.
    pub(super) fn write(&mut self, disk: &Disk, state: &State) -> Result<(), StoreError> {
        let slot = self.next();
        let mut bulk = disk.bulk();
        // `other_state` is taken out: from here on, an error leaves the slot half-written.
        match self.other_state.take() {
            Some(before) => {
                let changes = state.changed_pages(&before);
                for page in changes.removed {
                    bulk.remove(Key::Page(slot, page))?;
                }
                for (page, entries) in changes.written {
                    bulk.put_value(Key::Page(slot, page), &entries)?;
                }
            }
            None => {
                let pages: BTreeSet<PageId> = state.pages().map(|(page, _)| page).collect();
                for item in disk.scan(&prefix::pages(slot)) {
                    if let Some(Key::Page(slot, page)) = Key::parse(&item?.0)
                        && !pages.contains(&page)
                    {
                        bulk.remove(Key::Page(slot, page))?;
                    }
                }
                for (page, entries) in state.pages() {
                    bulk.put_value(Key::Page(slot, page), &entries)?;
                }
            }
        }
        bulk.finish()
    }

    /// Adds the marker that makes the written slot the newest checkpoint.
    pub(super) fn put_marker(batch: &mut Batch, marker: &Marker) {
        batch.put_value(Key::Marker, marker);
    }

    /// Records that the marker is durable.
    pub(super) fn mark(&mut self, marker: &Marker, state: &State) {
        self.other_state = self.marked_state.replace(state.clone());
        self.marked = marker.slot;
        self.height = marker.height;
    }
}

/// Reads all accounts of a checkpoint. The caller must compare their root with a header.
pub(super) fn load(disk: &Disk, slot: Slot) -> Result<State, StoreError> {
    let mut entries: Vec<Entry> = Vec::new();
    for item in disk.scan_keys(&prefix::pages(slot)) {
        let (key, content) = item?;
        entries.extend(schema::decode::<Vec<Entry>>(key, &content)?);
    }
    Ok(State::from_entries(entries))
}
