//! Chunks of sealed segments, cut from stored blocks.

use super::*;
use crate::history::{HistoryRules, SealedSegment, chunk_hash};

/// A store with several segments. One has a block that is longer than the rest of the segment,
/// another one has many short blocks.
fn filled() -> (Place, Store, Maker, Vec<Committed>) {
    let mut maker = Maker::new(genesis(0));
    let (place, opened) = created(&maker);
    let counts =
        [0, 290, 1, 2, 3, 280, 50, 290, 290].into_iter().chain([0; 100]).chain([270, 30, 290, 290]);
    let blocks: Vec<_> = counts.map(|count| maker.next(count)).collect();
    opened.store.commit(&blocks).unwrap();
    (place, opened.store, maker, blocks)
}

fn sealed(blocks: &[Committed]) -> Vec<SealedSegment> {
    blocks.iter().filter_map(|committed| committed.sealed.clone()).collect()
}

fn joined(blocks: &[Committed], first: Height, last: Height) -> Vec<u8> {
    let within =
        blocks.iter().filter(|committed| (first..=last).contains(&committed.block.height()));
    within.flat_map(|committed| committed.block.bytes().iter().copied()).collect()
}

#[test]
fn chunks_are_those_of_the_joined_blocks() {
    let (_place, store, maker, blocks) = filled();
    let rules = maker.chain.history_rules();
    let segments = sealed(&blocks);
    assert!(segments.len() >= 4, "{}", segments.len());
    for SealedSegment { descriptor, chunks, .. } in &segments {
        let expected = joined(&blocks, descriptor.first, descriptor.last);
        let mut got = Vec::new();
        for (chunk, hash) in (0..).zip(chunks) {
            let bytes = store.chunk(descriptor.index, chunk, &rules).unwrap().unwrap();
            assert_eq!(chunk_hash(&bytes), *hash, "chunk {chunk} of {}", descriptor.index);
            got.extend(bytes);
        }
        assert!(got == expected, "segment {}", descriptor.index);
        for chunk in [chunks.len() as u64, u64::MAX] {
            assert_eq!(store.chunk(descriptor.index, chunk, &rules).unwrap(), None);
        }
        // Chunks of any size, which end at, before and after the ends of pieces.
        for chunk_bytes in [701, 6_127, 6_128, 6_129, 100_000, u64::MAX] {
            let rules = HistoryRules { chunk_bytes, ..rules };
            let chunks =
                (0..).map_while(|chunk| store.chunk(descriptor.index, chunk, &rules).unwrap());
            assert!(chunks.flatten().eq(expected.iter().copied()), "{chunk_bytes}");
        }
    }
    for segment in [segments.len() as u64, u64::MAX] {
        assert_eq!(
            store.chunk(segment, 0, &rules).unwrap(),
            None,
            "the open segment has no chunks"
        );
    }
}

#[test]
fn descriptors_from_an_index_and_below_a_height() {
    let (_place, store, _, blocks) = filled();
    let all: Vec<_> = sealed(&blocks).iter().map(|segment| segment.descriptor).collect();
    let last = all.len() - 1;
    for (from, below, max, expected) in [
        (0, Height(u64::MAX), usize::MAX, &all[..]),
        (1, Height(u64::MAX), 2, &all[1..3]),
        (0, Height(u64::MAX), 0, &[]),
        (0, all[last].last, usize::MAX, &all[..last]),
        (0, all[last].last.next(), usize::MAX, &all),
        (0, Height(0), usize::MAX, &[]),
        (last as u64 + 1, Height(u64::MAX), usize::MAX, &[]),
        (u64::MAX, Height(u64::MAX), usize::MAX, &[]),
    ] {
        assert_eq!(store.descriptors(from, below, max).unwrap(), expected, "{from} {below} {max}");
    }
}

#[test]
fn a_damaged_piece_is_named_and_spoils_only_its_own_chunks() {
    let (place, store, maker, blocks) = filled();
    let rules = maker.chain.history_rules();
    let SealedSegment { descriptor, chunks, .. } = sealed(&blocks)[0].clone();
    let key = Key::Body(Height(2), 4).bytes();
    let whole = store.shared.disk.get_raw(&key).unwrap();
    // Piece 4 of block 2 is in the second chunk.
    let at = joined(&blocks, Height(1), Height(1)).len() + 4 * schema::PIECE_BYTES;
    assert_eq!(
        (at as u64 / rules.chunk_bytes, (at + schema::PIECE_BYTES) as u64 / rules.chunk_bytes),
        (1, 1)
    );
    let mut flipped = whole.clone();
    flipped[999] ^= 1;
    let short = schema::seal(&key, &schema::unseal(&key, &whole).unwrap()[1..]);
    for (is_served, damaged) in [(false, &flipped), (true, &flipped), (true, &short)] {
        let copy = crashed(&place.path);
        let store = Store::open(&copy.path, &maker.chain).unwrap().store;
        if is_served {
            assert!(store.chunk(descriptor.index, 1, &rules).unwrap().is_some());
        }
        store.shared.disk.put_raw(&key, damaged);
        for chunk in 0..chunks.len() as u64 {
            match store.chunk(descriptor.index, chunk, &rules) {
                Err(StoreError::Corrupt { what, .. }) => {
                    assert_eq!((what.as_str(), chunk), ("block 2, piece 4", 1))
                }
                Ok(Some(bytes)) => {
                    assert_eq!((chunk != 1, chunk_hash(&bytes)), (true, chunks[chunk as usize]))
                }
                other => panic!("{other:?}"),
            }
        }
    }
    // Now the block has another length than when the segment was sealed.
    for (piece, content) in schema::pieces(b"short") {
        let key = Key::Body(Height(2), piece).bytes();
        store.shared.disk.put_raw(&key, &schema::seal(&key, &content));
    }
    match store.chunk(descriptor.index, 0, &rules) {
        Err(StoreError::Corrupt { what, .. }) => assert_eq!(what, "block 2, piece 0"),
        result => panic!("{result:?}"),
    }
    // Records of a segment that have a correct checksum but wrong ends of blocks.
    let changes: [fn(&mut Vec<u64>); 4] =
        [|ends| ends.swap(0, 1), |ends| ends[0] += 1, Vec::clear, |ends| ends.truncate(1)];
    for change in changes {
        let copy = crashed(&place.path);
        let store = Store::open(&copy.path, &maker.chain).unwrap().store;
        let mut segment = store.segment(0).unwrap().unwrap();
        change(&mut segment.ends);
        for (piece, content) in schema::pieces(&super::super::commit::segment_record(&segment)) {
            let key = Key::Segment(0, piece).bytes();
            store.shared.disk.put_raw(&key, &schema::seal(&key, &content));
        }
        match store.chunk(0, 0, &rules) {
            Err(StoreError::Corrupt { what, .. }) => {
                assert!(["segment 0, piece 0", "block 1, piece 0"].contains(&&*what))
            }
            result => panic!("{result:?}"),
        }
    }
}
