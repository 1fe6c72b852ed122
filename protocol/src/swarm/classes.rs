//! How collections share what this node uploads, and what it asks of each peer.

use std::collections::BTreeMap;

/// A share of what this node uploads, and of what it asks of a peer. A class gets chunks in
/// proportion to its weight, as long as its chunks are wanted. What it does not use, the others
/// get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Snapshots: a newcomer waits for one before it can do anything.
    Snapshot,
    /// History, for nodes that follow the chain from its start.
    History,
    /// History that a node fetches only to keep it.
    Backfill,
    /// Files.
    File,
}

impl Class {
    /// Its weight among the classes.
    #[must_use]
    pub const fn weight(self) -> u64 {
        match self {
            Self::Snapshot => 8,
            Self::History => 4,
            Self::Backfill => 2,
            Self::File => 1,
        }
    }
}

/// The classes' turns, by start-time fair queueing (Goyal, Vin, Cheng 1996).
#[derive(Debug)]
pub(in crate::swarm) struct Turns {
    /// Virtual time: when the turn of the chunk that was chosen last began.
    time: u64,
    /// When the last turn of each class ends. The lower its weight, the longer its turns.
    ends: BTreeMap<Class, u64>,
}

impl Turns {
    /// Length of a chunk's turn at weight 1. Each weight divides it.
    const LENGTH: u64 = 8;

    pub(in crate::swarm) const fn new() -> Self {
        Self { time: 0, ends: BTreeMap::new() }
    }

    /// When a class has its next turn. The class with the lowest number goes first. A class that
    /// had no chunk has saved up no turns.
    pub(in crate::swarm) fn next(&self, class: Class) -> u64 {
        self.ends.get(&class).copied().unwrap_or(0).max(self.time)
    }

    /// A class takes its turn.
    pub(in crate::swarm) fn take(&mut self, class: Class) {
        self.time = self.next(class);
        let length = Self::LENGTH.checked_div(class.weight()).unwrap_or(Self::LENGTH);
        self.ends.insert(class, self.time.saturating_add(length));
    }
}
