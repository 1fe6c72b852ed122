//! The log of consensus: what a node finds in it at start, and which bodies it holds. No body is in
//! it twice, and it is shortened when it holds too many that no longer matter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ledger::block::Block;
use ledger::chain::ValidBlock;
use ledger::codec;
use ledger::hash::BlockHash;
use ledger::transaction::{Transaction, VerifiedTransaction, verify_transactions};
use ledger::units::Height;

use crate::live::{Effect, Machine};
use crate::message::LogEntry;

/// The log as found at start.
#[derive(Clone, Debug)]
pub enum Log {
    /// The log of this height, complete.
    Intact(Height, Vec<LogEntry>),
    /// There is no log, or it cannot be read: nobody knows what was signed.
    Lost,
}

/// The log is shortened when it has more bytes of dropped bodies than this many of the largest
/// blocks. With a lower value the kept bodies are written again more often; with a higher one the
/// file grows further.
const DROPPED_BLOCKS_MAX: u64 = 3;

/// The bodies in the log of the height being decided, with their bytes.
#[derive(Debug, Default)]
pub(crate) struct Logged {
    pub(crate) bodies: BTreeMap<BlockHash, u64>,
}

impl Logged {
    /// The log as it was found.
    pub(crate) fn on_replay(&mut self, log: &[LogEntry]) {
        for entry in log {
            if let LogEntry::Body(block) = entry {
                self.bodies.insert(block.header.hash(), codec::encode(block).len() as u64);
            }
        }
    }

    /// Returns the bodies to keep if the log must be shortened now, and forgets the others. `None`
    /// if it need not be shortened.
    fn shorten(
        &mut self,
        is_held: impl Fn(&BlockHash) -> bool,
        bytes_max: u64,
    ) -> Option<BTreeSet<BlockHash>> {
        let dropped = self.bodies.iter().filter(|(block, _)| !is_held(block));
        if dropped.fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes)) <= bytes_max {
            return None;
        }
        self.bodies.retain(|block, _| is_held(block));
        Some(self.bodies.keys().copied().collect())
    }
}

impl Machine {
    /// Logs a block that is not in the log yet. After a restart a vote for a block can be acted on
    /// only if the block is in the log too.
    pub(crate) fn log_body(&mut self, valid: &ValidBlock) {
        if !self.consensus.is_signing() || self.logged.bodies.contains_key(&valid.hash()) {
            return;
        }
        let block = valid.block();
        self.logged.bodies.insert(valid.hash(), valid.bytes().len() as u64);
        self.bodies.note_logged();
        self.turn.push(Effect::Log(LogEntry::Body(Block {
            header: block.header.clone(),
            parent_certificate: block.parent_certificate.clone(),
            transactions: block
                .transactions
                .iter()
                .map(|transaction| transaction.transaction().clone())
                .collect(),
        })));
    }

    /// Shortens the log if it has too many bytes of dropped bodies. All other entries stay, so
    /// replay leads to the same state.
    pub(crate) fn shorten_log(&mut self) {
        let bytes_max =
            self.chain.state.chain().limits().block_bytes_max.saturating_mul(DROPPED_BLOCKS_MAX);
        let bodies = &self.bodies;
        if let Some(kept) = self.logged.shorten(|block| bodies.verdict(block).is_some(), bytes_max)
        {
            self.turn.push(Effect::ShortenLog(kept));
        }
    }

    /// Restores blocks that were found valid before a restart, since the log has votes for them.
    /// Blocks of rounds further back are dropped once the log is replayed.
    pub(crate) fn restore_bodies(&mut self, log: &[LogEntry]) {
        for entry in log {
            match entry {
                LogEntry::Body(block) => {
                    let verified = block.clone().verify(self.chain.state.chain().id());
                    if let Ok(Ok(valid)) = verified.map(|block| self.chain.state.validate(block)) {
                        self.bodies.insert(valid);
                    }
                }
                LogEntry::Proposal(signed) => {
                    self.bodies.on_proposed(signed.proposal.block, signed.proposal.round)
                }
                LogEntry::Known { round, block, .. } => self.bodies.on_proposed(*block, *round),
                LogEntry::Vote(_) | LogEntry::Polka(_) | LogEntry::Timeout(..) => {}
            }
        }
    }

}
