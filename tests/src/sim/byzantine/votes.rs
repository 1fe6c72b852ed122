//! Double votes: for the proposed block, for nil, and for a block that no validator proposed.

use std::collections::BTreeSet;

use ledger::certificate::{Vote, VoteKind};
use ledger::hash::{BlockHash, Hash};
use ledger::units::{Height, Round};
use protocol::message::ConsensusMessage;
use rand::RngExt;

use super::{Conduct, Scene};

#[derive(Default)]
pub(super) struct DoubleVotes {
    done: BTreeSet<(Height, Round, VoteKind)>,
}

impl Conduct for DoubleVotes {
    fn act(&mut self, scene: &mut Scene<'_>) {
        let height = scene.height();
        self.done = self.done.split_off(&(height, Round(0), VoteKind::Prevote));
        let proposed = scene.talk.proposals(height);
        let prevotes = proposed
            .map(|(signed, _)| (signed.proposal.round, VoteKind::Prevote, signed.proposal.block));
        // It precommits a block only once another validator has, which shows that a quorum prevoted
        // it.
        let precommits = scene.talk.votes(height, VoteKind::Precommit);
        let precommits = precommits.map(|(round, block, _)| (round, VoteKind::Precommit, block));
        let due: Vec<(Round, VoteKind, BlockHash)> = prevotes.chain(precommits).collect();
        for (round, kind, block) in due {
            if self.done.insert((height, round, kind)) {
                vote(scene, round, kind, block);
            }
        }
    }
}

fn vote(scene: &mut Scene<'_>, round: Round, kind: VoteKind, block: BlockHash) {
    let mut ballots = vec![Some(block), None];
    if scene.world.rng.random() {
        ballots.reverse();
    }
    if scene.world.rng.random_ratio(1, 3) {
        ballots.push(Some(BlockHash(Hash(scene.world.rng.random()))));
    }
    for block in ballots {
        let vote =
            Vote { kind, height: scene.height(), round, block, validator: scene.key.public() };
        let signed = scene.sign_vote(scene.key, vote);
        scene.say(ConsensusMessage::Vote(signed));
    }
}
