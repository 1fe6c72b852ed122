//! Splits the bytes of a whole segment into its blocks.

use crate::block::{Block, ContentError};
use crate::codec::{self, CodecError};
use crate::hash::{BlockHash, ChainId, Hash};
use crate::history::{BLOCK_BYTES_MAX, HistoryRules, SegmentDescriptor};
use crate::merkle;
use crate::units::Height;

/// Most bytes of a block.
#[allow(clippy::cast_possible_truncation)]
const BLOCK_BYTES: usize = BLOCK_BYTES_MAX as usize;

/// Bytes that are not the blocks of their segment.
///
/// If the bytes matched all chunk hashes of a certified manifest, their senders are not to blame.
/// In that case a quorum has signed a false header, or this code is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Too few or too many bytes.
    #[error("{got} bytes, expected {expected}")]
    Length {
        /// Bytes of the segment.
        expected: u64,
        /// Bytes given.
        got: u64,
    },
    /// There is no block where one must be, or bytes follow the last block.
    #[error("block {height}: {error}")]
    Block {
        /// Height of the missing block, or of the last block.
        height: Height,
        /// What is wrong with the bytes.
        error: CodecError,
    },
    /// The height in a header does not fit the place of the block.
    #[error("a block of height {got} in the place of height {expected}")]
    Height {
        /// Height that belongs to the place.
        expected: Height,
        /// Height in the header.
        got: Height,
    },
    /// A block's hash differs from the parent hash in its child. For the last block, it differs
    /// from `last_block` in the descriptor.
    #[error("block {height} is {got}, expected {expected}")]
    Link {
        /// Height of the block.
        height: Height,
        /// Hash that the child or the descriptor names.
        expected: BlockHash,
        /// Hash of the block.
        got: BlockHash,
    },
    /// A block's content differs from a commitment in its header.
    #[error("block {height} has {field} {got}, expected {expected}")]
    Commitment {
        /// Height of the block.
        height: Height,
        /// Field of the header.
        field: &'static str,
        /// Value in the header.
        expected: Hash,
        /// Value computed from the content.
        got: Hash,
    },
    /// The descriptor commits to another list of blocks.
    #[error("the blocks have root {got}, expected {expected}")]
    BlocksRoot {
        /// Root in the descriptor.
        expected: Hash,
        /// Root of the blocks.
        got: Hash,
    },
    /// The rules close the segment before its last block.
    #[error(
        "by the rules the segment ends before height {last}, since {bytes} bytes come before that \
         block"
    )]
    Closing {
        /// Last height in the descriptor.
        last: Height,
        /// Bytes before that block.
        bytes: u64,
    },
}

/// Splits the bytes of a segment into its blocks while the bytes arrive. Beyond the blocks it
/// buffers at most a few times the size of the largest block.
///
/// Once [`Self::finish`] returns `Ok`, the blocks are those that the descriptor commits to, and the
/// content of each matches its header. If the bytes also matched the chunk hashes, a chain that
/// takes these blocks seals this very segment. The caller must still check the signatures, the
/// certificates, the parent of the first block, and the rules of the state.
#[derive(Debug)]
pub struct SegmentSplitter<'a> {
    chain: ChainId,
    rules: HistoryRules,
    descriptor: &'a SegmentDescriptor,
    /// The bytes that were pushed last. The blocks from the first `cut` of them are in `blocks`
    /// already.
    tail: Vec<u8>,
    cut: usize,
    got: u64,
    last_bytes: usize,
    blocks: Vec<Block>,
}

impl<'a> SegmentSplitter<'a> {
    /// A splitter for the segment of a descriptor, on this chain and under its rules.
    #[must_use]
    pub const fn new(
        chain: ChainId,
        rules: HistoryRules,
        descriptor: &'a SegmentDescriptor,
    ) -> Self {
        Self {
            chain,
            rules,
            descriptor,
            tail: Vec::new(),
            cut: 0,
            got: 0,
            last_bytes: 0,
            blocks: Vec::new(),
        }
    }

    /// Takes the next bytes, however many.
    ///
    /// # Errors
    /// `SegmentError::Length`, `Block` or `Height`. The splitter is of no use after an error.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), SegmentError> {
        self.got = self.got.saturating_add(bytes.len() as u64);
        if self.got > self.descriptor.bytes {
            return Err(self.length());
        }
        if self.cut >= BLOCK_BYTES {
            self.tail.drain(..self.cut);
            self.cut = 0;
        }
        self.tail.extend_from_slice(bytes);
        // Every block fits into `BLOCK_BYTES`. So if this many bytes do not begin with a block,
        // they are wrong, not incomplete.
        while self.rest().len() >= BLOCK_BYTES {
            if !self.cut_block()? {
                return Err(self.trailing());
            }
        }
        Ok(())
    }

    /// Returns the blocks once all bytes were pushed.
    ///
    /// # Errors
    /// `SegmentError`: what does not match the descriptor or a header.
    pub fn finish(mut self) -> Result<Vec<Block>, SegmentError> {
        if self.got != self.descriptor.bytes {
            return Err(self.length());
        }
        while self.cut_block()? {}
        if !self.rest().is_empty() {
            return Err(self.trailing());
        }
        let bytes_before = self.got.saturating_sub(self.last_bytes as u64);
        if bytes_before >= self.rules.segment_bytes {
            return Err(SegmentError::Closing { last: self.descriptor.last, bytes: bytes_before });
        }
        check_names(self.descriptor, &self.blocks)?;
        self.blocks.iter().try_for_each(|block| check_content(self.chain, block))?;
        Ok(self.blocks)
    }

    /// Cuts off the next block; `false` if the segment has no more.
    fn cut_block(&mut self) -> Result<bool, SegmentError> {
        let height = Height(self.descriptor.first.0.saturating_add(self.blocks.len() as u64));
        if height > self.descriptor.last {
            return Ok(false);
        }
        let rest = self.rest();
        let head = &rest[..rest.len().min(BLOCK_BYTES)];
        let (block, used) = codec::decode_prefix::<Block>(head)
            .map_err(|error| SegmentError::Block { height, error })?;
        if block.header.height != height {
            return Err(SegmentError::Height { expected: height, got: block.header.height });
        }
        (self.cut, self.last_bytes) = (self.cut.saturating_add(used), used);
        self.blocks.push(block);
        Ok(true)
    }

    fn rest(&self) -> &[u8] {
        &self.tail[self.cut..]
    }

    /// The error for bytes after the last block. It also counts the bytes that are still to be
    /// pushed.
    fn trailing(&self) -> SegmentError {
        let to_come =
            usize::try_from(self.descriptor.bytes.saturating_sub(self.got)).unwrap_or(usize::MAX);
        let error = CodecError::Trailing { extra: self.rest().len().saturating_add(to_come) };
        SegmentError::Block { height: self.descriptor.last, error }
    }

    const fn length(&self) -> SegmentError {
        SegmentError::Length { expected: self.descriptor.bytes, got: self.got }
    }
}

/// Checks that each block has the hash that its child names, that the last block has the hash in
/// the descriptor, and that the descriptor commits to all of these hashes.
fn check_names(descriptor: &SegmentDescriptor, blocks: &[Block]) -> Result<(), SegmentError> {
    let names: Vec<Hash> = blocks.iter().map(|block| block.header.hash().0).collect();
    let expected =
        blocks.iter().skip(1).map(|child| child.header.parent).chain([descriptor.last_block]);
    for ((block, got), expected) in blocks.iter().zip(&names).zip(expected) {
        let (height, got) = (block.header.height, BlockHash(*got));
        if got != expected {
            return Err(SegmentError::Link { height, expected, got });
        }
    }
    let (expected, got) = (descriptor.blocks_root, merkle::root(&names));
    if got == expected { Ok(()) } else { Err(SegmentError::BlocksRoot { expected, got }) }
}

fn check_content(chain: ChainId, block: &Block) -> Result<(), SegmentError> {
    block.check_content(chain).map_err(|ContentError { field, expected, got }| {
        SegmentError::Commitment { height: block.header.height, field, expected, got }
    })
}

#[cfg(test)]
mod tests;
