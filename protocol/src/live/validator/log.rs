//! The log of consensus: the entries that a node finds at start, and the bodies of blocks that the
//! log holds. No body is logged twice. The log is shortened when bodies that no longer matter take
//! too many bytes.

use std::collections::{BTreeMap, BTreeSet};

use ledger::block::Block;
use ledger::chain::ValidBlock;
use ledger::codec;
use ledger::hash::BlockHash;
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

/// The log as it is on the disk.
#[derive(Debug, Default)]
pub(crate) struct Logged {
    /// The height of the log; none while there is no log. All below is of this height.
    height: Option<Height>,
    /// Entries of an earlier run, until the height begins.
    replay: Vec<LogEntry>,
    /// Bodies that this run has written or replayed, with their sizes in bytes.
    pub(crate) bodies: BTreeMap<BlockHash, u64>,
}

impl Logged {
    /// The log as found at start; `next` is the height after the tip. Entries of a final height are
    /// of no use.
    pub(crate) fn new(log: Log, next: Height) -> Self {
        match log {
            // The entries of a log that is ahead of the store wait until the store has caught up.
            Log::Intact(height, replay) => Self {
                height: Some(height),
                replay: if height >= next { replay } else { Vec::new() },
                bodies: BTreeMap::new(),
            },
            Log::Lost => Self::default(),
        }
    }

    /// A height begins. Returns the entries to replay, and whether to cut the log first. If the
    /// node does not sign, the entries are kept, since the height may be begun again to sign in it.
    pub(crate) fn begin(&mut self, height: Height, sign: bool) -> (Vec<LogEntry>, bool) {
        if self.height != Some(height) {
            if sign {
                self.cut(height);
            }
            return (Vec::new(), sign);
        }
        if !sign {
            return (self.replay.clone(), false);
        }
        let replay = std::mem::take(&mut self.replay);
        for entry in &replay {
            if let LogEntry::Body(block) = entry {
                self.bodies.insert(block.header.hash(), codec::encode(block).len() as u64);
            }
        }
        (replay, false)
    }

    /// The log is emptied and starts over, for this height.
    pub(crate) fn cut(&mut self, height: Height) {
        *self = Self { height: Some(height), ..Self::default() };
    }

    /// Blocks up to this height are final. The next height has no use for their log entries.
    pub(crate) fn on_final(&mut self, tip: Height) {
        if self.height.is_none_or(|height| height <= tip) {
            self.replay.clear();
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
    /// If this node signs, logs a block that is not in the log yet. After a restart a vote for a
    /// block can be acted on only if the block is in the log too.
    pub(crate) fn log_body(&mut self, valid: &ValidBlock) {
        if !self.consensus.is_signing() || self.validator.log.bodies.contains_key(&valid.hash()) {
            return;
        }
        let block = valid.block();
        self.validator.log.bodies.insert(valid.hash(), valid.bytes().len() as u64);
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
        if let Some(kept) =
            self.validator.log.shorten(|block| bodies.verdict(block).is_some(), bytes_max)
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
