//! A turn: one input, what the machine needs for it, and the effects that follow.

use ledger::codec;

use super::effect::{Effect, Notice};
use super::input::{Now, Topic};
use crate::budget::Cost;
use crate::ids::{PeerId, RequestId};
use crate::lots::Lots;
use crate::message::{Attempt, Request};

/// What the machine needs for one input, and what follows from the input.
pub(super) struct Turn {
    /// The time of the input.
    pub(super) now: Now,
    /// Random choices.
    pub(super) lots: Lots,
    effects: Vec<Effect>,
    /// What the input has cost, without decoding.
    cost: Cost,
    /// The counter of the last gossip message.
    last_attempt: u64,
    last_request: RequestId,
}

impl Turn {
    pub(super) const fn new(now: Now, lots: Lots) -> Self {
        Self {
            now,
            lots,
            effects: Vec::new(),
            cost: Cost::NONE,
            // The first counter is the time, in milliseconds. So counters are above those of an
            // earlier run, whose messages the peers' gossip may remember.
            last_attempt: now.wall.0,
            last_request: RequestId(0),
        }
    }

    /// An input came.
    pub(super) const fn begin(&mut self, now: Now) {
        self.now = now;
        self.cost = Cost::NONE;
    }

    /// Takes all effects of the input.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(super) const fn cost(&self) -> Cost {
        self.cost
    }

    pub(super) const fn charge(&mut self, cost: Cost) {
        self.cost = self.cost.and(cost);
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.push(Effect::Notice(notice));
    }

    /// Publishes a message. The counter makes it differ from earlier copies, which gossip would
    /// drop.
    pub(super) fn gossip<T: codec::Encode>(&mut self, topic: Topic, message: T) {
        self.last_attempt = self.last_attempt.saturating_add(1);
        let attempt = Attempt { attempt: self.last_attempt, message };
        self.push(Effect::Gossip(topic, codec::encode(&attempt)));
    }

    /// Sends a request. The caller remembers what the request with this number is for.
    pub(super) fn request(&mut self, peer: PeerId, request: &Request) -> RequestId {
        self.last_request = RequestId(self.last_request.0.saturating_add(1));
        self.push(Effect::Request(self.last_request, peer, codec::encode(request)));
        self.last_request
    }
}
