//! Made-up transaction lists. Some are beside proposals of others, whose signatures do not cover
//! them. Others are under headers of the validator's own, whose transactions root covers them.

use std::collections::BTreeSet;

use ledger::block::transactions_root;
use ledger::hash::{BlockHash, Hash, TxHash};
use ledger::units::{Height, Round};
use protocol::message::{CompactBlock, ConsensusMessage, Request, Response};
use rand::RngExt;

use super::{Conduct, Scene, compact};

/// Length of the longest list, as a multiple of the transactions that fit in a block.
const FULL_BLOCKS: usize = 8;
/// Lists sent with one proposal.
const COPIES: usize = 2;

#[derive(Default)]
pub(super) struct MadeUpLists {
    copied: BTreeSet<BlockHash>,
    done: BTreeSet<(Height, Round)>,
}

impl Conduct for MadeUpLists {
    fn hear(&mut self, scene: &mut Scene<'_>, message: &ConsensusMessage) {
        let ConsensusMessage::Proposal(signed, Some(known)) = message else { return };
        if !self.copied.insert(signed.proposal.block) {
            return;
        }
        for _ in 0..COPIES {
            let transactions = names(scene, FULL_BLOCKS);
            let made_up = CompactBlock { transactions, ..known.clone() };
            scene.say(ConsensusMessage::Proposal(signed.clone(), Some(made_up)));
        }
    }

    /// Proposes two lists in each of its rounds. Every node that hears the proposals requests their
    /// transactions. The second list could fit in a block; the first may be longer.
    fn act(&mut self, scene: &mut Scene<'_>) {
        let height = scene.height();
        self.done = self.done.split_off(&(height, Round(0)));
        for round in scene.turns() {
            if !self.done.insert((height, round)) {
                continue;
            }
            let first = if scene.world.rng.random() { FULL_BLOCKS } else { 1 };
            for blocks in [first, 1] {
                let mut compact = compact(&scene.block(0));
                compact.transactions = names(scene, blocks);
                compact.header.transactions_root = transactions_root(&compact.transactions);
                let block = compact.header.hash();
                scene.made.insert(block, compact);
                scene.say(ConsensusMessage::Proposal(scene.sign_proposal(round, block), None));
            }
        }
    }

    /// It has none of the transactions it made up.
    fn answer(&mut self, _: &mut Scene<'_>, request: &Request) -> Option<Response> {
        matches!(request, Request::Transactions(_)).then(|| Response::Transactions(Vec::new()))
    }
}

/// Hashes of transactions that do not exist.
fn names(scene: &mut Scene<'_>, full_blocks: usize) -> Vec<TxHash> {
    let count = scene.full() * full_blocks;
    (0..count).map(|_| TxHash(Hash(scene.world.rng.random()))).collect()
}
