//! Assembles the chunks of a segment into its blocks, with all signatures verified, on all cores.

use std::sync::Arc;

use anyhow::Context;
use ledger::block::{VerifiedBlock, verify_blocks};
use ledger::certificate::Certificate;
use ledger::chain::Chain;
use ledger::hash::ChainId;
use ledger::history::SegmentSplitter;
use ledger::store::SegmentReader;
use ledger::transaction::{Transaction, VerifiedTransaction, verify_in_batches};
use ledger::units::SegmentIndex;
use protocol::swarm::Input;
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::{Done, Shell, warn_damaged};

/// A segment that is ready to be applied. If chunks were damaged on disk, `damaged` lists their
/// numbers and `blocks` is empty.
#[derive(Debug)]
pub(crate) struct Assembled {
    pub(crate) index: SegmentIndex,
    pub(crate) damaged: Vec<u32>,
    pub(crate) blocks: Vec<VerifiedBlock>,
    pub(crate) certificate: Certificate,
}

impl Shell {
    /// A segment is assembled, or chunks of it are damaged.
    pub(super) fn on_assembled(&mut self, assembled: Assembled) -> anyhow::Result<()> {
        let index = assembled.index;
        let damaged = assembled.damaged.clone();
        for chunk in &damaged {
            warn_damaged(index, *chunk);
            self.staging.forget(index.0, u64::from(*chunk))?;
        }
        // The segment may have been applied block by block meanwhile.
        if damaged.is_empty() && index >= self.sealed {
            self.assembled.insert(index, assembled);
        }
        self.give(Input::Assembled(index, damaged))
    }

    /// Begins to assemble a complete segment on another thread.
    pub(super) fn assemble(&mut self, index: SegmentIndex) -> anyhow::Result<()> {
        let reader = self.staging.reader(index.0)?;
        let reader =
            reader.with_context(|| format!("segment {index} is complete, but not on disk"))?;
        let (chain, results) = (Arc::clone(&self.chain), self.results.clone());
        self.assembly.spawn(move || {
            // If the sync thread has gone, the node is stopping.
            let done = assemble(&chain, index, reader).map(Done::Assembled);
            let _gone = results.blocking_send(done);
        });
        Ok(())
    }
}

/// Reads a segment, splits it into blocks and verifies their signatures.
///
/// # Errors
/// The disk refuses, or bytes that a certified header proves turn out not to be blocks with valid
/// signatures. In the second case more than a third of the voting power is dishonest, or this code
/// is too old or wrong, and the node must stop.
fn assemble(
    chain: &Chain,
    index: SegmentIndex,
    mut reader: SegmentReader,
) -> anyhow::Result<Assembled> {
    let certificate = reader.head().certificate.clone();
    let descriptor = reader.head().descriptor;
    let context = || format!("segment {index} is certified, but breaks the rules");
    let mut splitter = SegmentSplitter::new(chain.id(), chain.history_rules(), &descriptor);
    let mut damaged = Vec::new();
    for (chunk, number) in (0..descriptor.chunk_count(&chain.history_rules())).zip(0u32..) {
        match reader.read(chunk)? {
            Some(bytes) if damaged.is_empty() => splitter.push(&bytes).with_context(context)?,
            Some(_) => {}
            None => damaged.push(number),
        }
    }
    if !damaged.is_empty() {
        return Ok(Assembled { index, damaged, blocks: Vec::new(), certificate });
    }
    let blocks = splitter.finish().with_context(context)?;
    let blocks = verify_blocks(blocks, |transactions| verify(chain.id(), transactions));
    let heights = descriptor.first.0..;
    let blocks = heights.zip(blocks).map(|(height, block)| {
        block.with_context(|| format!("block {height}")).with_context(context)
    });
    let blocks = blocks.collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Assembled { index, damaged: Vec::new(), blocks, certificate })
}

/// Verifies signatures in batches, on all threads of the current pool. Keeps the order.
fn verify(
    chain: ChainId,
    mut transactions: Vec<Transaction>,
) -> Vec<Option<Arc<VerifiedTransaction>>> {
    let share = transactions.len().div_ceil(rayon::current_num_threads()).max(1);
    let mut shares = Vec::new();
    while transactions.len() > share {
        let rest = transactions.split_off(share);
        shares.push(std::mem::replace(&mut transactions, rest));
    }
    shares.push(transactions);
    let verified: Vec<_> =
        shares.into_par_iter().map(|share| verify_in_batches(chain, share)).collect();
    verified.into_iter().flatten().collect()
}
