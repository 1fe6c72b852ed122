//! The network: which nodes hear each other, after what delay, and which messages are lost.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ledger::transaction::VerifiedTransaction;
use protocol::Topic;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// A gossip message. Its transactions are verified once for all receivers, since the verdict is the
/// same everywhere.
pub(crate) struct Gossip {
    pub(crate) topic: Topic,
    pub(crate) bytes: Vec<u8>,
    pub(crate) transactions: Vec<Option<Arc<VerifiedTransaction>>>,
    /// Whether a node that accepts it passes it on. An honest node's message reaches every
    /// reachable node directly. A byzantine validator's message may be sent to a few nodes only,
    /// which pass it on to the others.
    pub(crate) spreads: bool,
}

/// A full mesh with at most one partition at a time.
pub(crate) struct Network {
    delay: RangeInclusive<u64>,
    loss_percent: u32,
    split: Option<Split>,
    splits: u64,
}

struct Split {
    number: u64,
    side: BTreeSet<usize>,
    noticed: bool,
}

impl Network {
    pub(crate) const fn new(delay: RangeInclusive<u64>, loss_percent: u32) -> Self {
        Self { delay, loss_percent, split: None, splits: 0 }
    }

    /// Splits the network, in place of any earlier split, and returns the new split's number.
    pub(crate) fn split(&mut self, side: BTreeSet<usize>, noticed: bool) -> u64 {
        self.splits += 1;
        self.split = Some(Split { number: self.splits, side, noticed });
        self.splits
    }

    /// Ends this split, unless another one has taken its place.
    pub(crate) fn join(&mut self, number: u64) {
        self.split = self.split.take().filter(|split| split.number != number);
    }

    /// Ends the split and all message loss.
    pub(crate) fn heal(&mut self) {
        self.split = None;
        self.loss_percent = 0;
    }

    /// Whether messages get through.
    pub(crate) fn reaches(&self, from: usize, to: usize) -> bool {
        self.split
            .as_ref()
            .is_none_or(|split| split.side.contains(&from) == split.side.contains(&to))
    }

    /// Whether the connection is open, which it may be even if no message gets through.
    pub(crate) fn connects(&self, from: usize, to: usize) -> bool {
        self.reaches(from, to) || self.split.as_ref().is_some_and(|split| !split.noticed)
    }

    pub(crate) fn delay(&self, rng: &mut ChaCha8Rng) -> Duration {
        Duration::from_millis(rng.random_range(self.delay.clone()))
            + Duration::from_micros(rng.random_range(0..1_000))
    }

    /// When a message arrives; `None` if it is lost.
    pub(crate) fn send(&self, rng: &mut ChaCha8Rng, from: usize, to: usize) -> Option<Duration> {
        let delay = self.delay(rng);
        let lost = rng.random_ratio(self.loss_percent, 100);
        (!lost && self.reaches(from, to)).then_some(delay)
    }
}
