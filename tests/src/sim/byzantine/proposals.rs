//! Many proposals in one round: each costs an honest node a validation, and each valid one a write
//! to its log.

use std::collections::BTreeSet;

use ledger::hash::{Hash, StateRoot};
use ledger::units::{Height, Round};
use protocol::message::ConsensusMessage;

use super::{Conduct, Scene, compact};

/// Blocks proposed in one round; every third is invalid.
const COUNT: u64 = 8;

#[derive(Default)]
pub(super) struct ManyProposals {
    done: BTreeSet<(Height, Round)>,
}

impl Conduct for ManyProposals {
    fn act(&mut self, scene: &mut Scene<'_>) {
        let height = scene.height();
        self.done = self.done.split_off(&(height, Round(0)));
        for round in scene.turns() {
            if !self.done.insert((height, round)) {
                continue;
            }
            for number in 0..COUNT {
                let mut compact = compact(&scene.block(number));
                if number % 3 == 1 {
                    compact.header.state_root = StateRoot(Hash([7; 32]));
                }
                let block = compact.header.hash();
                scene.made.insert(block, compact.clone());
                scene.say(ConsensusMessage::Proposal(
                    scene.sign_proposal(round, block),
                    Some(compact),
                ));
            }
        }
    }
}
