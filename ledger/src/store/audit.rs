//! The audit of blocks, for a store that began with a snapshot.
//!
//! A node that loads a snapshot believes a quorum for one thing more than order: that the state was
//! made by the rules. The audit executes the blocks before the snapshot, from the genesis on, in a
//! second state, by the same rules as any other block. When it has reached the snapshot, the node
//! has executed its whole chain.

use std::sync::Arc;

use crate::block::{Block, Header, SignatureError, verify_blocks};
use crate::certificate::Certificate;
use crate::chain::{BlockError, Chain, ChainState, Tip};
use crate::history::{History, SealedSegment, SegmentDescriptor};
use crate::state::State;
use crate::store::schema;
use crate::store::{Kept, Store, StoreError};
use crate::transaction::verify_in_batches;
use crate::units::Height;

/// A step ends after this many bytes of blocks: some 2,000 transfers, a twentieth of a second. A
/// larger step would delay the end of a node that stops, a smaller one would verify fewer
/// signatures in one batch.
const STEP_BYTES: u64 = 512 << 10;

/// Executes the blocks before the snapshot that a store began with.
pub struct Audit {
    store: Store,
    /// The second state.
    pub(super) state: ChainState,
    /// Height of the snapshot.
    until: Height,
}

/// The outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditStep {
    /// Blocks were executed.
    Executed {
        /// Bytes of these blocks.
        bytes: u64,
    },
    /// The next block is not kept yet.
    Waits,
    /// Every block up to the snapshot was executed, and led to the state of the snapshot.
    Done,
}

/// Why the audit cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The disk refuses, or a block on it is damaged. This says nothing of the chain.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Validators certified what the rules forbid.
    #[error(
        "block {height} is certified, but {fault}: more than a third of the voting power lied, or \
         this program is wrong. The state of this node, which came from a snapshot, cannot be \
         trusted"
    )]
    Chain {
        /// Height of the block.
        height: Height,
        /// What is wrong with it.
        fault: Fault,
    },
}

/// What is wrong with a certified block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It breaks a rule.
    #[error("breaks the rules: {0}")]
    Rules(#[from] BlockError),
    /// A signature does not hold.
    #[error("breaks the rules: {0}")]
    Signature(#[from] SignatureError),
    /// The segment that it closes is another one than the header after the snapshot commits to.
    #[error("closes another segment {0} than the chain commits to")]
    Segment(u64),
    /// It is the block of the snapshot, and what was executed leads to another state or history.
    #[error("the blocks up to it lead to another state than the snapshot")]
    Snapshot,
}

impl Audit {
    /// The audit that a store needs; `None` if its node has executed every block.
    ///
    /// It begins at the genesis, or goes on from a former [`Self::checkpoint`]. The caller has
    /// compared the accounts of a checkpoint with its header. A checkpoint that is not of a block
    /// of this chain does not count.
    ///
    /// # Errors
    /// `StoreError::Corrupt` if the descriptors do not follow from each other.
    pub fn begin(
        store: &Store,
        checkpoint: Option<(&Header, State)>,
    ) -> Result<Option<Self>, StoreError> {
        let joined = store.read_view().joined;
        let Some(until) = joined.map(|joined| joined.height) else { return Ok(None) };
        let chain = &store.shared.chain;
        let resumed = match checkpoint {
            Some((header, state)) => resume(store, chain, header, state)?,
            None => None,
        };
        let state = resumed.unwrap_or_else(|| ChainState::genesis(Arc::clone(chain)));
        Ok(Some(Self { store: store.clone(), state, until }))
    }

    /// Height up to which every block was executed, from the genesis on.
    #[must_use]
    pub const fn height(&self) -> Height {
        self.state.tip().height
    }

    /// Executes the next blocks that are kept: half a megabyte of them, or up to the end of a
    /// segment.
    ///
    /// # Errors
    /// `AuditError`. After `Store` another call goes on where this one began.
    pub fn step(&mut self) -> Result<AuditStep, AuditError> {
        if self.height() >= self.until {
            self.check_end()?;
            return Ok(AuditStep::Done);
        }
        let (blocks, bytes) = self.next_blocks()?;
        if blocks.is_empty() {
            return Ok(AuditStep::Waits);
        }
        let chain = self.state.chain().id();
        let verified = verify_blocks(blocks, |transactions| verify_in_batches(chain, transactions));
        for block in verified {
            let height = self.height().next();
            let wrong = |fault| AuditError::Chain { height, fault };
            let block = block.map_err(|error| wrong(error.into()))?;
            let block = self.state.validate(block).map_err(|error| wrong(error.into()))?;
            if let Some(sealed) = self.state.advance(&block) {
                self.check_segment(&sealed)?;
            }
        }
        Ok(AuditStep::Executed { bytes })
    }

    /// What a later [`Self::begin`] can go on from: a block, its certificate and the accounts after
    /// it. `None` unless the last block that was executed sealed a segment.
    ///
    /// # Errors
    /// `StoreError`.
    pub fn checkpoint(&self) -> Result<Option<(Header, Certificate, State)>, StoreError> {
        let height = self.height();
        if height == Height(0) || self.state.history().open_first() != height.next() {
            return Ok(None);
        }
        let (header, certificate) = (self.store.header(height)?, self.store.certificate(height)?);
        let both = header.here().zip(certificate.here());
        Ok(both.map(|(header, certificate)| (header, certificate, self.state.state().clone())))
    }

    /// Number of accounts in the second state.
    #[must_use]
    pub fn accounts(&self) -> usize {
        self.state.state().len()
    }

    /// The next blocks that are kept, of one segment, and their bytes.
    fn next_blocks(&self) -> Result<(Vec<Block>, u64), StoreError> {
        let mut blocks = Vec::new();
        let mut bytes = 0u64;
        let mut height = self.height().next();
        let last = self.descriptor().map_or(self.until, |descriptor| descriptor.last);
        while height <= last && bytes < STEP_BYTES {
            let Kept::Here(block) = self.store.block_bytes(height)? else { break };
            blocks.push(schema::decode(format_args!("block {height}"), &block)?);
            bytes = bytes.saturating_add(block.len() as u64);
            height = height.next();
        }
        Ok((blocks, bytes))
    }

    /// The descriptor of the segment that the next block belongs to.
    fn descriptor(&self) -> Option<SegmentDescriptor> {
        let next = self.state.history().segments();
        self.store.descriptors(next, self.until.next(), 1).first().copied()
    }

    /// Compares a segment that the blocks made with the one that the chain commits to.
    fn check_segment(&self, sealed: &SealedSegment) -> Result<(), AuditError> {
        let SegmentDescriptor { index, last, .. } = sealed.descriptor;
        if self.store.descriptors(index, self.until.next(), 1).first() == Some(&sealed.descriptor) {
            return Ok(());
        }
        Err(AuditError::Chain { height: last, fault: Fault::Segment(index) })
    }

    /// Compares the state that the blocks led to with the snapshot.
    fn check_end(&self) -> Result<(), AuditError> {
        let until = self.until;
        let Some(header) = self.store.header(until)?.here() else {
            let error = StoreError::corrupt(format_args!("header {until}"), "missing");
            return Err(error.into());
        };
        let descriptors = self.store.descriptors(0, until.next(), usize::MAX);
        let history = History::restore(self.state.chain().history_rules(), descriptors)
            .map_err(|error| StoreError::corrupt("segments", error))?;
        let expected = (header.hash(), header.state_root, history.root());
        let (state_root, history_root) = self.state.roots();
        if (self.state.tip().hash, state_root, history_root) == expected {
            return Ok(());
        }
        Err(AuditError::Chain { height: until, fault: Fault::Snapshot })
    }
}

/// The state at a checkpoint; `None` if its header is not that of the last block of a segment of
/// this chain, or if the accounts are not those of the header.
fn resume(
    store: &Store,
    chain: &Arc<Chain>,
    header: &Header,
    state: State,
) -> Result<Option<ChainState>, StoreError> {
    let (height, hash) = (header.height, header.hash());
    let descriptors = store.descriptors(0, height.next(), usize::MAX);
    let is_end = descriptors.last().is_some_and(|last| last.last_block == hash);
    if !is_end || state.root() != header.state_root {
        return Ok(None);
    }
    let history = History::restore(chain.history_rules(), descriptors)
        .map_err(|error| StoreError::corrupt("segments", error))?;
    let tip = Tip { height, hash, time: header.time };
    Ok(Some(ChainState::restored(Arc::clone(chain), tip, state, history)))
}
