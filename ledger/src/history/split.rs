//! Splits the bytes of a whole segment into its blocks.

use crate::block::{Block, ContentError};
use crate::chain::Chain;
use crate::codec::{self, CodecError};
use crate::hash::{BlockHash, Hash};
use crate::history::{BLOCK_BYTES_MAX, SegmentDescriptor};
use crate::merkle;
use crate::units::Height;

/// Most bytes of a block.
#[allow(clippy::cast_possible_truncation)]
const BLOCK_BYTES: usize = BLOCK_BYTES_MAX as usize;

/// Bytes that are not the blocks of their segment.
///
/// If the bytes matched all chunk hashes of a certified manifest, their senders are not to blame:
/// then a quorum has signed a false header, or this code is wrong.
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
    /// There is no block where one must be, or bytes follow the last one.
    #[error("block {height}: {error}")]
    Block {
        /// Height of that block, or of the last one.
        height: Height,
        /// What is wrong with the bytes.
        error: CodecError,
    },
    /// A block has another height than its place.
    #[error("a block of height {got} in the place of height {expected}")]
    Height {
        /// Height of the place.
        expected: Height,
        /// Height in the header.
        got: Height,
    },
    /// A block's hash is not the one that its child names, or for the last block the descriptor.
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
    #[error("the segment ends before height {last}: there are {bytes} bytes before it")]
    Closing {
        /// Last height in the descriptor.
        last: Height,
        /// Bytes before that block.
        bytes: u64,
    },
}

/// Splits the bytes of a segment into its blocks while they are read. Beyond the blocks it buffers
/// at most a few times the size of the largest block.
///
/// Once [`Self::finish`] returns `Ok`, the blocks are those that the descriptor commits to, and the
/// content of each matches its header. If the bytes also matched the chunk hashes, a chain that
/// takes these blocks seals this very segment. Not checked yet are signatures, certificates, the
/// link of the first block to its parent, and the rules of the state.
#[derive(Debug)]
pub struct SegmentSplitter<'a> {
    chain: &'a Chain,
    descriptor: &'a SegmentDescriptor,
    /// The bytes that were pushed last. The first `cut` of them are in `blocks` already.
    tail: Vec<u8>,
    cut: usize,
    got: u64,
    last_bytes: usize,
    blocks: Vec<Block>,
}

impl<'a> SegmentSplitter<'a> {
    /// A splitter for the segment of a descriptor.
    #[must_use]
    pub const fn new(chain: &'a Chain, descriptor: &'a SegmentDescriptor) -> Self {
        Self {
            chain,
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
        // Every block fits into `BLOCK_BYTES`, so bytes that do not decode are wrong and not
        // incomplete.
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
        if bytes_before >= self.chain.history_rules().segment_bytes {
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

    /// The error for bytes after the last block; it counts the bytes still to come too.
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

/// Checks that each block has the hash that its child names, and the last one that of the
/// descriptor.
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

fn check_content(chain: &Chain, block: &Block) -> Result<(), SegmentError> {
    block.check_content(chain.id()).map_err(|ContentError { field, expected, got }| {
        SegmentError::Commitment { height: block.header.height, field, expected, got }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::block::transactions_root;
    use crate::certificate::Certificate;
    use crate::chain::ChainState;
    use crate::genesis::{Genesis, Limits, template_key};
    use crate::history::{History, SealedSegment};
    use crate::transaction::{Body, Output, Transfer, transaction_hash};
    use crate::units::{Amount, Nonce, Round, Timestamp};

    fn chain() -> Arc<Chain> {
        let genesis = Genesis::from_json(include_bytes!("../../../genesis.json")).unwrap();
        let limits = Limits {
            segment_bytes: 3_000,
            segment_blocks: 100,
            chunk_bytes: 500,
            ..genesis.limits.clone()
        };
        Chain::new(Genesis { limits, ..genesis })
    }

    /// Linked blocks from height 1 with these numbers of transactions. Their certificates have no
    /// signatures.
    fn blocks(chain: &Arc<Chain>, counts: &[u64]) -> Vec<Block> {
        let id = chain.id();
        let empty = ChainState::genesis(Arc::clone(chain));
        let alice = template_key("alice").unwrap();
        let first =
            empty.propose(alice.public(), Timestamp(1), Certificate::genesis(id), Vec::new());
        let mut blocks: Vec<Block> = Vec::new();
        for (height, count) in (1..).zip(counts) {
            let transfer = |nonce| Transfer {
                sender: alice.public(),
                nonce: Nonce(nonce),
                outputs: vec![Output { account: alice.public(), amount: Amount(1) }],
                fee: Amount(height),
                expires_at: Timestamp(1),
                memo: Vec::new(),
            };
            let transactions: Vec<_> =
                (0..*count).map(|nonce| Body::Transfer(transfer(nonce)).sign(id, &alice)).collect();
            let hashes: Vec<_> = transactions.iter().map(|one| transaction_hash(id, one)).collect();
            let mut header = first.header().clone();
            let mut parent_certificate = Certificate::genesis(id);
            if let Some(parent) = blocks.last() {
                header.parent = parent.header.hash();
                (parent_certificate.height, parent_certificate.block) =
                    (parent.header.height, header.parent);
                parent_certificate.round = Round(1);
            }
            header.height = Height(height);
            header.parent_certificate = parent_certificate.hash();
            header.transactions_root = transactions_root(&hashes);
            blocks.push(Block { header, parent_certificate, transactions });
        }
        blocks
    }

    fn joined(blocks: &[Block]) -> Vec<u8> {
        blocks.iter().flat_map(codec::encode).collect()
    }

    /// Pushes `at_once` bytes at a time.
    fn split(
        chain: &Chain,
        descriptor: &SegmentDescriptor,
        bytes: &[u8],
        at_once: usize,
    ) -> Result<Vec<Block>, SegmentError> {
        let mut splitter = SegmentSplitter::new(chain, descriptor);
        bytes.chunks(at_once).try_for_each(|part| splitter.push(part))?;
        splitter.finish()
    }

    /// The segments that the chain would seal.
    fn sealed(chain: &Chain, blocks: &[Block]) -> Vec<SealedSegment> {
        let mut history = History::new(chain.history_rules());
        let push = |block: &Block| {
            history.push(block.header.height, block.header.hash(), &codec::encode(block))
        };
        blocks.iter().filter_map(push).collect()
    }

    #[test]
    fn gives_the_blocks_that_were_sealed() {
        let chain = chain();
        let all = blocks(&chain, &[0, 3, 1, 0, 0, 0, 40, 2, 0, 9, 9, 9, 50]);
        let segments = sealed(&chain, &all);
        assert!(segments.len() >= 3);
        let mut rest = &all[..];
        for SealedSegment { descriptor, .. } in segments {
            let expected;
            (expected, rest) =
                rest.split_at(usize::try_from(descriptor.block_count().unwrap()).unwrap());
            for at_once in [1, 500, usize::MAX] {
                assert_eq!(
                    split(&chain, &descriptor, &joined(expected), at_once).as_deref(),
                    Ok(expected)
                );
            }
        }
    }

    #[test]
    fn large_segments_are_cut_while_they_are_read() {
        let genesis = Genesis::from_json(include_bytes!("../../../genesis.json")).unwrap();
        let limits =
            Limits { segment_bytes: 16 << 20, segment_blocks: 100, ..genesis.limits.clone() };
        let chain = Chain::new(Genesis { limits, ..genesis });
        let all = blocks(&chain, &[3_000; 12]);
        let bytes = joined(&all);
        assert!(bytes.len() > 2 * BLOCK_BYTES);
        let names: Vec<Hash> = all.iter().map(|block| block.header.hash().0).collect();
        let descriptor = SegmentDescriptor {
            index: 0,
            first: Height(1),
            last: Height(12),
            bytes: bytes.len() as u64,
            chunks_root: Hash::ZERO,
            blocks_root: merkle::root(&names),
            last_block: BlockHash(names[11]),
        };
        let mut splitter = SegmentSplitter::new(&chain, &descriptor);
        for part in bytes.chunks(64 << 10) {
            splitter.push(part).unwrap();
            assert!(splitter.tail.len() <= 2 * BLOCK_BYTES + part.len());
            assert!(splitter.rest().len() < BLOCK_BYTES);
        }
        assert!(!splitter.blocks.is_empty());
        assert_eq!(splitter.push(&[0]).unwrap_err(), splitter.length());
        splitter.got -= 1;
        assert_eq!(splitter.finish(), Ok(all.clone()));
        // Bytes after the last block are refused before the end.
        let early = SegmentDescriptor { last: Height(1), ..descriptor };
        let mut splitter = SegmentSplitter::new(&chain, &early);
        let error = bytes.chunks(64 << 10).find_map(|part| splitter.push(part).err()).unwrap();
        let extra = bytes.len() - codec::encode(&all[0]).len();
        assert_eq!(
            error,
            SegmentError::Block { height: Height(1), error: CodecError::Trailing { extra } }
        );
        assert!(splitter.got < 2 * BLOCK_BYTES as u64);
    }

    #[test]
    fn nothing_but_the_very_blocks_is_accepted() {
        let chain = chain();
        let all = blocks(&chain, &[0, 3, 1, 2, 20]);
        let good = sealed(&chain, &all)[0].descriptor;
        assert_eq!((good.first, good.last), (Height(1), Height(5)));
        type Change = fn(&mut Vec<Block>, &mut SegmentDescriptor);
        type Expected = fn(&SegmentError) -> bool;
        let rows: [(&str, Change, Expected); 14] = [
            ("length", |_, d| d.bytes += 1, |e| matches!(e, SegmentError::Length { .. })),
            (
                "a block too few",
                |b, _| drop(b.pop()),
                |e| {
                    matches!(
                        e,
                        SegmentError::Block {
                            height: Height(5),
                            error: CodecError::Malformed { .. }
                        }
                    )
                },
            ),
            (
                "a block too many",
                |b, _| b.push(b[4].clone()),
                |e| {
                    matches!(
                        e,
                        SegmentError::Block {
                            height: Height(5),
                            error: CodecError::Trailing { .. }
                        }
                    )
                },
            ),
            (
                "absurd heights",
                |_, d| d.last = Height(u64::MAX),
                |e| matches!(e, SegmentError::Block { height: Height(6), .. }),
            ),
            (
                "order",
                |b, _| b.swap(1, 2),
                |e| *e == SegmentError::Height { expected: Height(2), got: Height(3) },
            ),
            (
                "another height",
                |b, _| b[0].header.height = Height(0),
                |e| matches!(e, SegmentError::Height { .. }),
            ),
            (
                "last block",
                |_, d| d.last_block = BlockHash(Hash::ZERO),
                |e| matches!(e, SegmentError::Link { height: Height(5), .. }),
            ),
            (
                "last header",
                |b, _| b[4].header.time.0 += 1,
                |e| matches!(e, SegmentError::Link { height: Height(5), .. }),
            ),
            (
                "a header",
                |b, _| b[1].header.state_root.0 = Hash::ZERO,
                |e| matches!(e, SegmentError::Link { height: Height(2), .. }),
            ),
            (
                "a link",
                |b, d| {
                    b[4].header.parent = BlockHash(Hash::ZERO);
                    d.last_block = b[4].header.hash();
                },
                |e| matches!(e, SegmentError::Link { height: Height(4), .. }),
            ),
            (
                "blocks root",
                |_, d| d.blocks_root = Hash::ZERO,
                |e| matches!(e, SegmentError::BlocksRoot { .. }),
            ),
            (
                "a signature",
                |b, _| b[1].transactions[2].signature.0[0] ^= 1,
                |e| {
                    matches!(
                        e,
                        SegmentError::Commitment {
                            height: Height(2),
                            field: "transactions_root",
                            ..
                        }
                    )
                },
            ),
            (
                "order of transactions",
                |b, _| b[4].transactions.swap(0, 1),
                |e| {
                    matches!(
                        e,
                        SegmentError::Commitment {
                            height: Height(5),
                            field: "transactions_root",
                            ..
                        }
                    )
                },
            ),
            (
                "certificate",
                |b, _| b[3].parent_certificate.round = Round(7),
                |e| {
                    matches!(
                        e,
                        SegmentError::Commitment {
                            height: Height(4),
                            field: "parent_certificate",
                            ..
                        }
                    )
                },
            ),
        ];
        for (name, change, expected) in rows {
            let (mut list, mut descriptor) = (all.clone(), good);
            change(&mut list, &mut descriptor);
            let bytes = joined(&list);
            if name != "length" {
                descriptor.bytes = bytes.len() as u64;
            }
            let error = split(&chain, &descriptor, &bytes, 500).unwrap_err();
            assert!(expected(&error), "{name}: {error}");
        }
    }

    #[test]
    fn a_segment_that_the_chain_would_have_closed_before_is_refused() {
        let chain = chain();
        let all = blocks(&chain, &[30, 0]);
        let names: Vec<Hash> = all.iter().map(|block| block.header.hash().0).collect();
        let bytes = joined(&all);
        let descriptor = SegmentDescriptor {
            last: Height(2),
            bytes: bytes.len() as u64,
            blocks_root: merkle::root(&names),
            last_block: BlockHash(names[1]),
            ..sealed(&chain, &all)[0].descriptor
        };
        let error = split(&chain, &descriptor, &bytes, 500).unwrap_err();
        assert!(matches!(error, SegmentError::Closing { last: Height(2), .. }), "{error}");
    }
}
