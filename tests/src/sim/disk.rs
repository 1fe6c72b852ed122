//! A node's disk: the store is durable at once, the log once it is synced.

use std::collections::BTreeSet;
use std::sync::Arc;

use ledger::block::{Block, Header};
use ledger::certificate::Certificate;
use ledger::chain::{Chain, ChainState, Committed};
use ledger::hash::BlockHash;
use ledger::transaction::Transaction;
use ledger::units::Height;
use protocol::Log;
use protocol::message::{BLOCKS_BYTES, LogEntry, Response};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::plan::Damage;

/// Most blocks in one response.
const BLOCKS_MAX: usize = 64;

/// A write to the log that the disk has not confirmed.
#[derive(Clone, Debug)]
enum Write {
    Cut(Height),
    Append(Box<LogEntry>),
}

/// Everything that survives a crash.
pub(crate) struct Disk {
    pub(crate) chain: ChainState,
    pub(crate) certificate: Certificate,
    blocks: Vec<Committed>,
    log_height: Height,
    log: Vec<LogEntry>,
    unsynced: Vec<Write>,
    log_lost: bool,
}

impl Disk {
    /// A disk as `init` leaves it: no block, and an empty log of the first height.
    pub(crate) fn new(chain: &Arc<Chain>) -> Self {
        Self {
            chain: ChainState::genesis(Arc::clone(chain)),
            certificate: Certificate::genesis(chain.id()),
            blocks: Vec::new(),
            log_height: Height(1),
            log: Vec::new(),
            unsynced: Vec::new(),
            log_lost: false,
        }
    }

    pub(crate) fn height(&self) -> Height {
        self.chain.tip().height
    }

    pub(crate) fn header(&self) -> Option<Header> {
        self.blocks.last().map(|committed| committed.block.header().clone())
    }

    pub(crate) fn cut_log(&mut self, height: Height) {
        self.unsynced.push(Write::Cut(height));
    }

    pub(crate) fn append(&mut self, entry: LogEntry) {
        self.unsynced.push(Write::Append(Box::new(entry)));
    }

    pub(crate) fn sync_log(&mut self) {
        let writes = std::mem::take(&mut self.unsynced);
        self.write(writes);
    }

    /// Removes all bodies except those of these blocks, in one step and durably.
    pub(crate) fn shorten_log(&mut self, kept: &BTreeSet<BlockHash>) {
        self.sync_log();
        self.log.retain(|entry| match entry {
            LogEntry::Body(block) => kept.contains(&block.header.hash()),
            _ => true,
        });
    }

    fn write(&mut self, writes: impl IntoIterator<Item = Write>) {
        for write in writes {
            match write {
                Write::Cut(height) => {
                    self.log_height = height;
                    self.log.clear();
                    self.log_lost = false;
                }
                Write::Append(entry) => self.log.push(*entry),
            }
        }
    }

    /// Whether the log is as `init` leaves it. If the chain has blocks, such a log counts as lost,
    /// since a home that was created again has one too.
    pub(crate) fn has_unused_log(&self) -> bool {
        self.log_height == Height(1) && self.log.is_empty()
    }

    /// Whether a restarted node would find this in its log.
    pub(crate) fn has_logged(&self, entry: &LogEntry) -> bool {
        self.log.contains(entry)
    }

    /// Drops the unsynced writes, or keeps the first part of them, since an operating system may
    /// write before it is asked to.
    pub(crate) fn crash(&mut self, rng: &mut ChaCha8Rng, damage: Damage) {
        let writes = std::mem::take(&mut self.unsynced);
        let kept = if rng.random_ratio(1, 3) { rng.random_range(0..=writes.len()) } else { 0 };
        self.write(writes.into_iter().take(kept));
        match damage {
            Damage::None => {}
            Damage::LogLost => self.log_lost = true,
            Damage::StoreOld => {
                let kept = rng.random_range(0..=self.blocks.len());
                self.put_back(kept);
            }
        }
    }

    /// Rolls the store back to this many blocks.
    fn put_back(&mut self, blocks: usize) {
        let kept: Vec<Committed> = self.blocks.drain(..).take(blocks).collect();
        self.chain = ChainState::genesis(Arc::clone(self.chain.chain()));
        self.certificate = Certificate::genesis(self.chain.chain().id());
        self.commit(kept);
    }

    pub(crate) fn read_log(&self) -> Log {
        if self.log_lost { Log::Lost } else { Log::Intact(self.log_height, self.log.clone()) }
    }

    pub(crate) fn log_text(&self) -> String {
        match self.log_lost {
            true => "lost".to_owned(),
            false => format!("of height {} with {} entries", self.log_height, self.log.len()),
        }
    }

    pub(crate) fn commit(&mut self, commits: Vec<Committed>) {
        for committed in commits {
            self.chain.advance(&committed.block);
            self.certificate = committed.certificate.clone();
            self.blocks.push(committed);
        }
    }

    /// Final blocks from this height on, within the bounds of a response.
    pub(crate) fn blocks_from(&self, height: Height) -> Response {
        let first = usize::try_from(height.0.saturating_sub(1))
            .unwrap_or(usize::MAX)
            .min(self.blocks.len());
        let mut blocks: Vec<Block<Transaction>> = Vec::new();
        let (mut bytes, mut certificate) = (0, self.certificate.clone());
        for committed in self.blocks[first..].iter().take(BLOCKS_MAX) {
            bytes += committed.block.bytes().len();
            if bytes > BLOCKS_BYTES && !blocks.is_empty() {
                break;
            }
            let block = ledger::codec::decode::<ledger::block::Block>(
                committed.block.bytes(),
                ledger::codec::VALUE_BYTES_MAX,
            );
            blocks.push(
                block.unwrap_or_else(|error| {
                    panic!("a committed block has canonical bytes: {error}")
                }),
            );
            certificate = committed.certificate.clone();
        }
        Response::Blocks(blocks, certificate)
    }
}
