#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]

use proptest::prelude::*;

use super::*;
use crate::codec;
use crate::genesis::{Genesis, Limits};
use crate::hash::Domain;

const RULES: HistoryRules = HistoryRules { segment_bytes: 20, segment_blocks: 4, chunk_bytes: 8 };

type Block = (Height, BlockHash, Vec<u8>);

/// Blocks of these lengths from height 1, no two alike.
fn blocks(lengths: &[usize]) -> Vec<Block> {
    let block = |(height, length): (u64, &usize)| {
        let hash = BlockHash(Hash::of(Domain::Block, &[&height.to_le_bytes()]));
        (Height(height), hash, hash.0.0.iter().copied().cycle().take(*length).collect())
    };
    (1..).zip(lengths).map(block).collect()
}

fn push_all(history: &mut History, blocks: &[Block]) -> Vec<SealedSegment> {
    blocks.iter().filter_map(|(height, hash, bytes)| history.push(*height, *hash, bytes)).collect()
}

fn descriptors(sealed: &[SealedSegment]) -> Vec<SegmentDescriptor> {
    sealed.iter().map(|segment| segment.descriptor).collect()
}

#[test]
fn a_segment_closes_after_the_block_that_fills_it() {
    let check = |lengths: &[usize], expected: &[(u64, u64, u64)], open_first: u64| {
        let mut history = History::new(RULES);
        let sealed = push_all(&mut history, &blocks(lengths));
        let got: Vec<_> =
            descriptors(&sealed).iter().map(|d| (d.first.0, d.last.0, d.bytes)).collect();
        assert_eq!(got, expected, "{lengths:?}");
        assert_eq!(history.segments(), expected.len() as u64);
        assert_eq!(history.open_first(), Height(open_first));
        assert_eq!(history.tip(), Height(lengths.len() as u64));
    };
    check(&[], &[], 1);
    check(&[19], &[], 1);
    check(&[20], &[(1, 1, 20)], 2);
    check(&[100], &[(1, 1, 100)], 2);
    check(&[19, 1, 5], &[(1, 2, 20)], 3);
    check(&[19, 50, 5], &[(1, 2, 69)], 3);
    check(&[1, 1, 1], &[], 1);
    check(&[1, 1, 1, 1], &[(1, 4, 4)], 5);
    check(&[1, 1, 1, 16, 20], &[(1, 4, 19), (5, 5, 20)], 6);
}

#[test]
#[should_panic(expected = "in order of height")]
fn a_gap_in_heights_is_never_taken() {
    let blocks = blocks(&[1, 1]);
    let _ = push_all(&mut History::new(RULES), &blocks[1..]);
}

#[test]
#[should_panic(expected = "in order of height")]
fn a_block_is_never_taken_twice() {
    let blocks = blocks(&[1]);
    let mut history = History::new(RULES);
    let _ = push_all(&mut history, &blocks);
    let _ = push_all(&mut history, &blocks);
}

#[test]
fn restore_refuses_what_does_not_follow() {
    let sealed = push_all(&mut History::new(RULES), &blocks(&[20, 10, 10, 1, 1, 1, 1, 20]));
    let good = descriptors(&sealed);
    assert_eq!(good.len(), 4);
    let check = |change: fn(&mut Vec<SegmentDescriptor>), expected: fn(&HistoryError) -> bool| {
        let mut list = good.clone();
        change(&mut list);
        let error = History::restore(RULES, list).unwrap_err();
        assert!(expected(&error), "{error}");
    };
    let is_index = |error: &HistoryError| matches!(error, HistoryError::Index { .. });
    let is_first = |error: &HistoryError| matches!(error, HistoryError::First { .. });
    let is_closing = |error: &HistoryError| matches!(error, HistoryError::Closing { .. });
    check(|list| drop(list.drain(1..2)), is_index);
    check(|list| list.swap(0, 1), is_index);
    check(|list| list[3].index = u64::MAX, is_index);
    check(|list| list[0].first = Height(0), is_first);
    check(|list| list[1].first = Height(1), is_first);
    check(|list| list[2].last = Height(6), is_closing);
    check(|list| list[2].last = Height(8), is_closing);
    check(|list| list[3].last = Height(7), is_closing);
    check(|list| list[1].bytes = 19, is_closing);
    check(|list| list[1].last = Height(u64::MAX), is_closing);
    // Without a root to compare with, no check can find that these lengths are wrong.
    let longer = good.iter().map(|d| SegmentDescriptor { bytes: d.bytes + 20, ..*d });
    let roots =
        [good.clone(), longer.collect()].map(|list| History::restore(RULES, list).unwrap().root());
    assert_ne!(roots[0], roots[1]);
}

#[test]
fn restore_refuses_a_last_height_that_nothing_follows() {
    let rules = HistoryRules { segment_blocks: u64::MAX, ..RULES };
    let segment = push_all(&mut History::new(rules), &blocks(&[20]))[0].descriptor;
    let endless = SegmentDescriptor { last: Height(u64::MAX), ..segment };
    assert!(matches!(History::restore(rules, [endless]), Err(HistoryError::Closing { .. })));
}

proptest! {
    #[test]
    fn chunks_and_blocks_are_those_of_the_joined_bytes(
        lengths in prop::collection::vec(0..60usize, 0..40),
        (segment_bytes, segment_blocks, chunk_bytes) in (1..100u64, 1..8u64, 1..40u64),
    ) {
        let rules = HistoryRules { segment_bytes, segment_blocks, chunk_bytes };
        let blocks = blocks(&lengths);
        let mut history = History::new(rules);
        let mut first = 0;
        for segment in push_all(&mut history, &blocks) {
            let SealedSegment { descriptor, chunks, blocks: hashes, ends } = segment;
            let last = usize::try_from(descriptor.last.0).unwrap();
            let part = &blocks[first..last];
            let joined: Vec<u8> = part.iter().flat_map(|(_, _, bytes)| bytes.clone()).collect();
            let parts = joined.chunks(usize::try_from(chunk_bytes).unwrap());
            let expected: Vec<Hash> = parts.map(chunk_hash).collect();
            prop_assert_eq!(&chunks, &expected);
            prop_assert_eq!(descriptor.verify_chunks(&rules, &chunks), Ok(()));
            for (i, chunk) in (0..).zip(&chunks) {
                let range = descriptor.chunk_range(i, &rules).unwrap();
                let [start, end] =
                    [range.start, range.end].map(|at| usize::try_from(at).unwrap());
                prop_assert_eq!(chunk_hash(&joined[start..end]), *chunk);
            }
            prop_assert_eq!(descriptor.bytes, joined.len() as u64);
            prop_assert_eq!(descriptor.block_count(), Some(part.len() as u64));
            prop_assert_eq!(descriptor.last_block, part[part.len() - 1].1);
            prop_assert_eq!(&hashes, &part.iter().map(|(_, hash, _)| hash.0).collect::<Vec<_>>());
            prop_assert_eq!(descriptor.blocks_root, merkle::root(&hashes));
            let mut rest = &joined[..];
            for ((_, _, bytes), end) in part.iter().zip(&ends) {
                rest = rest.strip_prefix(&bytes[..]).unwrap();
                prop_assert_eq!(*end, (joined.len() - rest.len()) as u64);
            }
            prop_assert_eq!(ends.len(), part.len());
            first = last;
        }
        prop_assert_eq!(history.open_first(), Height(first as u64 + 1));
    }

    #[test]
    fn a_restored_history_is_the_one_that_never_stopped(
        lengths in prop::collection::vec(0..30usize, 1..120),
        stop in any::<prop::sample::Index>(),
    ) {
        let blocks = blocks(&lengths);
        let stop = stop.index(blocks.len() + 1);
        let mut live = History::new(RULES);
        let before = push_all(&mut live, &blocks[..stop]);

        let mut restored = History::restore(RULES, descriptors(&before)).unwrap();
        let root = live.root();
        prop_assert_eq!(restored.root(), root);
        let open_first = usize::try_from(restored.open_first().0).unwrap();
        prop_assert_eq!(push_all(&mut restored, &blocks[open_first - 1..stop]), vec![]);
        prop_assert_eq!(&restored, &live);

        let after = push_all(&mut live, &blocks[stop..]);
        prop_assert_eq!(&push_all(&mut restored, &blocks[stop..]), &after);
        prop_assert_eq!(&restored, &live);
        prop_assert_eq!(restored.root_at(before.len() as u64), Some(root));
    }
}

/// If one of these values changes, the protocol has changed.
#[test]
fn frozen_vectors() {
    let mut history = History::new(RULES);
    let mut roots = vec![history.root()];
    let mut sealed = Vec::new();
    for block in blocks(&[20, 7, 7, 7, 1, 1, 1, 1, 45, 33, 20, 20]) {
        for segment in push_all(&mut history, &[block]) {
            roots.push(history.root());
            sealed.push(segment);
        }
    }
    let frozen = [
        "5b281abd6c37dabdb5d3a1166db645e51d4efc92f06b1e91d060a9e5afde6af2",
        "c4e8bed6196efad2a3f82fbb6002d3cfbf175bce93dcb1010ae169f3e35de9ad",
        "65b9c40f16e570faac8ee71da64939a89c9e938361c62424a3642659c113573c",
        "d42a765b4a6a28d9e621cdb3dead0068706f0677941799d6e2b150bae6e86044",
        "0f6c8bdf418b4a187646d5f3144302ed80e795093c4a0a9750f800d94008ab88",
        "7dd9bfce0031b56314091e78c2491da7d100b7aaf081f937b19ac60af029da42",
        "dc6ddd910cf31e7f3f56ea75c8c14cd1f17665f3a5cf0e4de2148a2d77780ef1",
        "4232bee7c95e3b0a2830f96bb92d861e18695ac0dc34a39919ab05ec6b14329d",
    ];
    assert_eq!(roots.iter().map(ToString::to_string).collect::<Vec<_>>(), frozen);
    let encoding = [
        // index, first, last, bytes
        "0100000000000000020000000000000004000000000000001500000000000000",
        // chunks_root, blocks_root, last_block
        "99d0d994c8ef4d8c3a9f36fc03e88d83638ec4c622262d9eb33d052da0d0173f",
        "82c980df843b18d14a061aad97a7a82ba1982bf0895792331a3f55c02cf0c13b",
        "5eb5cac3d6a000fd116a3c6fd2a74bbc2a6bf01940650d205b71d85f14bd6ad9",
    ]
    .concat();
    assert_eq!(hex::encode(codec::encode(&sealed[1].descriptor)), encoding);
}

/// The checks of segments rely on `BLOCK_BYTES_MAX`, so it must hold for every genesis.
#[test]
fn no_genesis_allows_a_larger_block() {
    let template = include_bytes!("../../../genesis.json");
    let genesis = Genesis::from_json(template).unwrap();
    let is_allowed = |block_bytes_max| {
        let limits = Limits { block_bytes_max, ..Limits::default() };
        Genesis { limits, ..genesis.clone() }.problems().is_empty()
    };
    let largest = BLOCK_BYTES_MAX - crate::block::BLOCK_OVERHEAD_MAX as u64;
    assert!(is_allowed(largest) && !is_allowed(largest + 1));
}
