//! Chunks of sealed segments, cut from stored blocks.

use super::*;
use crate::history::{HistoryRules, SealedSegment, chunk_hash};
use crate::store::pages::{Name, PAGE_BYTES};

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
            let bytes = store.chunk(descriptor.index, chunk, &rules).unwrap().here().unwrap();
            assert_eq!(chunk_hash(&bytes), *hash, "chunk {chunk} of {}", descriptor.index);
            got.extend(bytes);
        }
        assert!(got == expected, "segment {}", descriptor.index);
        for chunk in [chunks.len() as u64, u64::MAX] {
            assert_eq!(store.chunk(descriptor.index, chunk, &rules).unwrap(), Kept::Never);
        }
        // Chunks of any size, which end at, before and after the ends of pieces.
        for chunk_bytes in [701, 6_127, 6_128, 6_129, 100_000, u64::MAX] {
            let rules = HistoryRules { chunk_bytes, ..rules };
            let chunks = (0..)
                .map_while(|chunk| store.chunk(descriptor.index, chunk, &rules).unwrap().here());
            assert!(chunks.flatten().eq(expected.iter().copied()), "{chunk_bytes}");
        }
    }
    for segment in [segments.len() as u64, u64::MAX] {
        assert_eq!(
            store.chunk(segment, 0, &rules).unwrap(),
            Kept::Never,
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
        assert_eq!(store.descriptors(from, below, max), expected, "{from} {below} {max}");
    }
}

#[test]
fn a_damaged_page_is_named_and_spoils_only_its_own_chunks() {
    let (place, store, maker, blocks) = filled();
    let rules = maker.chain.history_rules();
    let SealedSegment { descriptor, chunks, .. } = sealed(&blocks)[0].clone();
    // Without a checkpoint all blocks would be read when the store is opened.
    store.write(|writer| store.checkpoint(writer)).unwrap();
    drop(store);
    let path = Name::Blocks(0).path(&place.path.join("history"));
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    // In the second chunk.
    flipped[6 * PAGE_BYTES + 99] ^= 1;
    let short = &good[..good.len() - 1];
    let swapped = [&good[PAGE_BYTES..2 * PAGE_BYTES], &good[..PAGE_BYTES], &good[2 * PAGE_BYTES..]];
    let rows: [(&[u8], &[u64], &str); 3] = [
        (&flipped, &[1], "blocks of segment 0, page 6"),
        (short, &[chunks.len() as u64 - 1], "blocks of segment 0, page"),
        (&swapped.concat(), &[0], "blocks of segment 0, page 0"),
    ];
    for (damaged, spoiled, name) in rows {
        let copy = crashed(&place.path);
        fs::write(Name::Blocks(0).path(&copy.path.join("history")), damaged).unwrap();
        let store = Store::open(&copy.path, &maker.chain).unwrap().store;
        for chunk in 0..chunks.len() as u64 {
            match store.chunk(descriptor.index, chunk, &rules) {
                Err(StoreError::Corrupt { what, .. }) => {
                    assert!(what.starts_with(name) && spoiled.contains(&chunk), "{what} {chunk}")
                }
                Ok(Kept::Here(bytes)) => {
                    assert!(!spoiled.contains(&chunk));
                    assert_eq!(chunk_hash(&bytes), chunks[chunk as usize]);
                }
                other => panic!("{other:?}"),
            }
        }
        drop(store);
        assert!(!verified(&copy.path, &maker.chain).is_clean());
    }
}
