#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use super::*;
use crate::block::transactions_root;
use crate::certificate::Certificate;
use crate::chain::{Chain, ChainState};
use crate::genesis::{Genesis, Limits, template_key};
use crate::history::{History, SealedSegment};
use crate::transaction::{Body, Output, Transfer, transaction_hash};
use crate::units::{Amount, Nonce, Round, Timestamp};

fn chain() -> Arc<Chain> {
    let genesis = Genesis::from_json(include_bytes!("../../../../genesis.json")).unwrap();
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
    let first = empty.propose(alice.public(), Timestamp(1), Certificate::genesis(id), Vec::new());
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
    let mut splitter = SegmentSplitter::new(chain.id(), chain.history_rules(), descriptor);
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
    let genesis = Genesis::from_json(include_bytes!("../../../../genesis.json")).unwrap();
    let limits = Limits { segment_bytes: 16 << 20, segment_blocks: 100, ..genesis.limits.clone() };
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
    let mut splitter = SegmentSplitter::new(chain.id(), chain.history_rules(), &descriptor);
    for part in bytes.chunks(64 << 10) {
        splitter.push(part).unwrap();
        assert!(splitter.tail.len() <= 2 * BLOCK_BYTES + part.len());
        assert!(splitter.rest().len() < BLOCK_BYTES);
    }
    assert!(!splitter.blocks.is_empty());
    assert_eq!(splitter.push(&[0]).unwrap_err(), splitter.length());
    splitter.got -= 1;
    assert_eq!(splitter.finish(), Ok(all.clone()));
    // Bytes after the last block are refused before all bytes are pushed.
    let early = SegmentDescriptor { last: Height(1), ..descriptor };
    let mut splitter = SegmentSplitter::new(chain.id(), chain.history_rules(), &early);
    let error = bytes.chunks(64 << 10).find_map(|part| splitter.push(part).err()).unwrap();
    let extra = bytes.len() - codec::encode(&all[0]).len();
    assert_eq!(
        error,
        SegmentError::Block { height: Height(1), error: CodecError::Trailing { extra } }
    );
    assert!(splitter.got < 2 * BLOCK_BYTES as u64);
}

type Change = fn(&mut Vec<Block>, &mut SegmentDescriptor);
type Expected = fn(&SegmentError) -> bool;

/// For each row, changes a valid segment of five blocks and expects the row's error.
fn check(rows: &[(&str, Change, Expected)]) {
    let chain = chain();
    let all = blocks(&chain, &[0, 3, 1, 2, 20]);
    let good = sealed(&chain, &all)[0].descriptor;
    assert_eq!((good.first, good.last), (Height(1), Height(5)));
    for (name, change, expected) in rows {
        let (mut list, mut descriptor) = (all.clone(), good);
        change(&mut list, &mut descriptor);
        let bytes = joined(&list);
        if *name != "length" {
            descriptor.bytes = bytes.len() as u64;
        }
        let error = split(&chain, &descriptor, &bytes, 500).unwrap_err();
        assert!(expected(&error), "{name}: {error}");
    }
}

#[test]
fn bytes_that_are_not_the_segments_blocks_are_refused() {
    check(&[
        ("length", |_, d| d.bytes += 1, |e| matches!(e, SegmentError::Length { .. })),
        (
            "a block too few",
            |b, _| drop(b.pop()),
            |e| {
                matches!(
                    e,
                    SegmentError::Block { height: Height(5), error: CodecError::Malformed { .. } }
                )
            },
        ),
        (
            "a block too many",
            |b, _| b.push(b[4].clone()),
            |e| {
                matches!(
                    e,
                    SegmentError::Block { height: Height(5), error: CodecError::Trailing { .. } }
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
    ]);
}

#[test]
fn blocks_with_other_hashes_are_refused() {
    check(&[
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
    ]);
}

#[test]
fn content_that_its_header_does_not_commit_to_is_refused() {
    check(&[
        (
            "a signature",
            |b, _| b[1].transactions[2].signature.0[0] ^= 1,
            |e| {
                matches!(
                    e,
                    SegmentError::Commitment { height: Height(2), field: "transactions_root", .. }
                )
            },
        ),
        (
            "order of transactions",
            |b, _| b[4].transactions.swap(0, 1),
            |e| {
                matches!(
                    e,
                    SegmentError::Commitment { height: Height(5), field: "transactions_root", .. }
                )
            },
        ),
        (
            "certificate",
            |b, _| b[3].parent_certificate.round = Round(7),
            |e| {
                matches!(
                    e,
                    SegmentError::Commitment { height: Height(4), field: "parent_certificate", .. }
                )
            },
        ),
    ]);
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
