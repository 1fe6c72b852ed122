//! Replays: anyone can send a signed message again under another attempt counter, which makes it a
//! different gossip message.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use ledger::codec;
use protocol::message::ConsensusMessage;
use rand::RngExt;

use super::{Conduct, Scene};

/// Copies of a message sent at once.
const COPIES: usize = 3;
/// Most old messages that are remembered.
const OLD_MAX: usize = 64;
/// Old messages repeated at a time.
const OLD_AT_A_TIME: usize = 4;
/// Interval between repeats of old messages.
const AGAIN: Duration = Duration::from_millis(700);

#[derive(Default)]
pub(super) struct Replays {
    known: BTreeSet<Vec<u8>>,
    old: VecDeque<ConsensusMessage>,
    at: Duration,
}

impl Conduct for Replays {
    fn hear(&mut self, scene: &mut Scene<'_>, message: &ConsensusMessage) {
        // A message is repeated here only when it is heard for the first time. Otherwise two
        // validators with this behaviour would answer each other's copies with ever more copies.
        if !self.known.insert(codec::encode(message)) || scene.world.rng.random() {
            return;
        }
        (0..COPIES).for_each(|_| scene.say(message.clone()));
        self.old.push_back(message.clone());
        if self.old.len() > OLD_MAX {
            self.old.pop_front();
        }
    }

    fn act(&mut self, scene: &mut Scene<'_>) {
        if self.at > scene.world.time || self.old.is_empty() {
            return;
        }
        self.at = scene.world.time + AGAIN;
        for _ in 0..OLD_AT_A_TIME {
            let place = scene.world.rng.random_range(0..self.old.len());
            scene.say(self.old[place].clone());
        }
    }
}
