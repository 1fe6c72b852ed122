//! A block that consensus decided: committed at once if its body is here, else fetched first.
//!
//! Consensus knows blocks by their hashes. It may decide one whose body was dropped, for example
//! when late precommits of an earlier round arrive. The honest validators that precommitted the
//! block are locked on it and hold its body, so they give it.

use ledger::certificate::Certificate;
use ledger::chain::ValidBlock;
use ledger::hash::BlockHash;

use super::{Effect, Machine, Notice, Phase, Source};
use crate::live::bodies::Verdict;

impl Machine {
    pub(super) fn on_decided(&mut self, certificate: Certificate) {
        let block = certificate.block;
        let other = self
            .catchup
            .next_header(self.chain.tip().height)
            .filter(|other| other.header.hash() != block);
        if let Some(other) = other.cloned() {
            return self.on_fork(certificate.height, block, &other);
        }
        match self.bodies.verdict(&block) {
            Some(Verdict::Valid(valid)) => {
                let valid = valid.clone();
                self.commit_decided(valid, certificate);
            }
            None if self.consensus.verdict(&block) == Some(true) => {
                self.effects.push(Effect::Notice(Notice::Fetching(certificate.height, block)));
                self.decided = Some(certificate);
                self.phase = Phase::Fetching;
                self.bodies.want_decided(block);
            }
            _ => self.halt(format!("block {block} was decided but is not valid here")),
        }
    }

    /// Commits a block that was just judged, if it is the decided one.
    pub(super) fn on_fetched(&mut self, block: BlockHash, verdict: &Verdict) {
        let Some(certificate) = self.decided.take_if(|certificate| certificate.block == block)
        else {
            return;
        };
        match verdict {
            Verdict::Valid(valid) => self.commit_decided(valid.clone(), certificate),
            Verdict::Invalid => {
                self.halt(format!("block {block} was decided and valid here, and is no longer"))
            }
        }
    }

    fn commit_decided(&mut self, valid: ValidBlock, certificate: Certificate) {
        let mut after = self.chain.clone();
        let commit = after.commit(valid, certificate);
        self.commit(vec![commit], after, Source::Consensus);
    }
}
