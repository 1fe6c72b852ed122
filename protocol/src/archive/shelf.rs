//! The eras of this node: which are here, in which order it keeps them, and how many fit into the
//! budget.

use std::time::Duration;

use ledger::hash::Hash;

use super::input::{Keep, WholeEra};
use super::places::place_hash;
use crate::eras::{Announcement, Era, EraRanges};

/// Whether an era is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It is not here.
    Absent,
    /// It is being fetched.
    Fetching,
    /// It is here.
    Kept,
    /// It is here, and not announced any more, since it is about to be dropped.
    Leaving,
    /// It is here, and cannot be read whole. It is not announced any more since this time.
    Damaged(Duration),
}

/// An era as this node sees it.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) bytes: u64,
    pub(super) presence: Presence,
    place_hash: Hash,
    /// Nothing is begun with it before this time, since the last attempt was in vain.
    pub(super) retry_at: Duration,
    /// How often in a row it could not be fetched.
    pub(super) failures: u32,
    /// It was fetched not long ago, and is not dropped before this time.
    pub(super) held_until: Duration,
    /// Since when too few copies are known and none is here.
    pub(super) short_since: Option<Duration>,
}

/// All whole eras of the chain.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    id: Box<[u8]>,
    pub(super) keep: Keep,
    slots: Vec<Slot>,
}

impl Shelf {
    pub(super) fn new(id: Box<[u8]>, keep: Keep, eras: Vec<WholeEra>) -> Self {
        let mut shelf = Self { id, keep, slots: Vec::new() };
        eras.into_iter().for_each(|era| shelf.push(era));
        shelf
    }

    /// Adds the next era of the chain.
    pub(super) fn push(&mut self, WholeEra { bytes, is_kept }: WholeEra) {
        self.slots.push(Slot {
            bytes,
            presence: if is_kept { Presence::Kept } else { Presence::Absent },
            place_hash: place_hash(Era::at(self.slots.len()), &self.id),
            retry_at: Duration::ZERO,
            failures: 0,
            held_until: Duration::ZERO,
            short_since: None,
        });
    }

    /// Number of whole eras.
    pub(super) const fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = (Era, &Slot)> {
        self.slots.iter().enumerate().map(|(index, slot)| (Era::at(index), slot))
    }

    /// Every era may be dropped again.
    pub(super) fn release(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.held_until = Duration::ZERO);
    }

    /// Whether an era was fetched not long ago.
    pub(super) fn is_held(&self, era: Era, now: Duration) -> bool {
        self.slots.get(era.index()).is_some_and(|slot| slot.held_until > now)
    }

    pub(super) fn slot_mut(&mut self, era: Era) -> Option<&mut Slot> {
        self.slots.get_mut(era.index())
    }

    pub(super) fn bytes(&self, era: Era) -> u64 {
        self.slots.get(era.index()).map_or(0, |slot| slot.bytes)
    }

    pub(super) fn is(&self, era: Era, presence: Presence) -> bool {
        self.slots.get(era.index()).is_some_and(|slot| slot.presence == presence)
    }

    /// Whether an era may be fetched or dropped again.
    pub(super) fn is_due(&self, era: Era, now: Duration) -> bool {
        self.slots.get(era.index()).is_some_and(|slot| slot.retry_at <= now)
    }

    /// Moves an era from one presence to another. Returns whether it had the first one.
    pub(super) fn turn(&mut self, era: Era, from: Presence, to: Presence) -> bool {
        let slot = self.slot_mut(era).filter(|slot| slot.presence == from);
        slot.map(|slot| slot.presence = to).is_some()
    }

    /// The hash by which this node is ordered for an era. Beyond the last era it is the highest.
    pub(super) fn place_hash(&self, era: Era) -> Hash {
        self.slots.get(era.index()).map_or(Hash([u8::MAX; 32]), |slot| slot.place_hash)
    }

    /// Number of eras with this presence.
    pub(super) fn count(&self, presence: Presence) -> usize {
        self.slots.iter().filter(|slot| slot.presence == presence).count()
    }

    /// Bytes of all eras that are here or being fetched.
    pub(super) fn used(&self) -> u64 {
        let here = self.slots.iter().filter(|slot| slot.presence != Presence::Absent);
        here.fold(0, |sum, slot| sum.saturating_add(slot.bytes))
    }

    /// The budget in bytes.
    pub(super) fn limit(&self) -> u64 {
        match self.keep {
            Keep::Full => u64::MAX,
            Keep::Bytes(bytes) => bytes,
            Keep::Recent(count) => {
                let newest =
                    self.slots.iter().rev().take(usize::try_from(count).unwrap_or(usize::MAX));
                newest.fold(0, |sum, slot| sum.saturating_add(slot.bytes))
            }
        }
    }

    /// All eras, those to keep first at the front: by this node's place, or the newest.
    pub(super) fn order(&self, places: &[usize]) -> Vec<Era> {
        let mut order: Vec<Era> = (0..self.slots.len()).map(Era::at).collect();
        match self.keep {
            Keep::Recent(_) => order.reverse(),
            Keep::Full | Keep::Bytes(_) => {
                order.sort_by_key(|era| (places.get(era.index()).copied(), self.place_hash(*era)))
            }
        }
        order
    }

    /// How many eras at the front of the order fit into the budget.
    pub(super) fn fits(&self, order: &[Era]) -> usize {
        let limit = self.limit();
        let mut sum = 0u64;
        let fits = |era: &&Era| {
            sum = sum.saturating_add(self.bytes(**era));
            sum <= limit
        };
        order.iter().take_while(fits).count()
    }

    /// What this node says of its eras.
    pub(super) fn announcement(&self) -> Announcement {
        let kept = self.slots().filter(|(_, slot)| slot.presence == Presence::Kept);
        Announcement {
            is_archive: !matches!(self.keep, Keep::Recent(_)),
            eras: EraRanges::of(kept.map(|(era, _)| era)),
        }
    }
}
