//! Segments below the tip that are put into their place, and eras that are dropped.

use std::collections::BTreeSet;

use super::crash::{files, inside_a_namespace, leave_room, torn};
use super::partial::{adopted, chain};
use super::*;
use crate::history::SegmentHead;
use crate::store::pages::{ERA_SEGMENTS, Name};

/// The segments of a chain: their heads and bytes.
pub(super) fn segments(blocks: &[Committed]) -> Vec<(SegmentHead, Vec<u8>)> {
    let (mut all, mut bytes) = (Vec::new(), Vec::new());
    for Committed { block, certificate, sealed } in blocks {
        bytes.extend_from_slice(block.bytes());
        let Some(sealed) = sealed else { continue };
        let head = SegmentHead {
            descriptor: sealed.descriptor,
            chunks: sealed.chunks.clone(),
            certificate: certificate.clone(),
        };
        all.push((head, std::mem::take(&mut bytes)));
    }
    all
}

/// Checks all readers of a store that lacks these segments, each of three blocks.
fn check_without(store: &Store, maker: &Maker, blocks: &[Committed], lacks: &BTreeSet<u64>) {
    let segment = |height: Height| (height.0 - 1) / 3;
    check_partial(store, &maker.chain, blocks, |height| !lacks.contains(&segment(height)));
    let kept: BTreeSet<u64> = store.kept().into_iter().flatten().collect();
    let sealed = blocks.len() as u64 / 3;
    assert_eq!(kept, (0..sealed).filter(|index| !lacks.contains(index)).collect());
}

fn reopened(place: &Place, store: Store, maker: &Maker) -> Store {
    drop(store);
    let opened = Store::open(&place.path, &maker.chain).unwrap();
    same_state(&opened.state, &maker.state);
    opened.store
}

/// The bytes of all files of history.
fn bytes_on_disk(place: &Place) -> u64 {
    files(&place.path.join("history")).values().map(|bytes| bytes.len() as u64).sum()
}

/// The open segment has no page in its file, so all files are those of sealed segments.
fn check_bytes(place: &Place, store: &Store) {
    assert_eq!(store.history_bytes().unwrap(), bytes_on_disk(place));
    let eras = store.read_view().tip.segments.div_ceil(ERA_SEGMENTS);
    let sum: u64 = (0..eras).map(|era| store.era_bytes(era).unwrap()).sum();
    assert_eq!(sum, bytes_on_disk(place));
}

/// Segments come in any order. In the end the store is the one that replayed the chain, but for
/// what it has executed.
#[test]
fn a_store_that_began_with_a_snapshot_is_filled_from_below() {
    let (maker, blocks) = chain(113, 100);
    let (place, mut store) = adopted(&maker, &blocks, 105);
    let segments = segments(&blocks);
    let mut lacks: BTreeSet<u64> = (0..35).collect();
    for step in 0..35u64 {
        let index = step * 12 % 35;
        let (head, bytes) = &segments[index as usize];
        store.keep_segment(head, bytes).unwrap();
        store.keep_segment(head, bytes).unwrap();
        lacks.remove(&index);
        if step % 5 == 0 || step > 32 {
            check_without(&store, &maker, &blocks, &lacks);
            store = reopened(&place, store, &maker);
            check_without(&store, &maker, &blocks, &lacks);
            check_bytes(&place, &store);
        }
    }
    check_readers(&store, &maker.chain, &blocks);
    assert_eq!(store.executed_to(), Height(0));
    let (full, opened) = created(&maker);
    opened.store.commit(&blocks).unwrap();
    let history = |place: &Place| {
        let root = place.path.join("history");
        files(&root)
            .into_iter()
            .map(|(path, bytes)| (path.strip_prefix(&root).unwrap().to_owned(), bytes))
            .collect::<BTreeMap<_, _>>()
    };
    assert!(history(&place) == history(&full), "the same files, byte for byte");
    drop(store);
    assert_eq!(verified(&place.path, &maker.chain).problems, []);
}

/// The last missing segment of an era comes before or after the chain seals the era's last one.
#[test]
fn an_era_gets_its_filter_with_the_last_of_its_segments() {
    for early in [true, false] {
        let (maker, blocks) = chain(60, 0);
        let (place, store) = adopted(&maker, &blocks[..45], 42);
        let segments = segments(&blocks);
        let keep = |range: std::ops::Range<usize>| {
            segments[range]
                .iter()
                .for_each(|(head, bytes)| store.keep_segment(head, bytes).unwrap())
        };
        keep(0..if early { 14 } else { 13 });
        store.commit(&blocks[45..]).unwrap();
        let filter = Name::Filter(0).path(&place.path.join("history"));
        assert_eq!(filter.exists(), early);
        keep(0..14);
        assert!(filter.exists());
        check_readers(&store, &maker.chain, &blocks);
    }
}

#[test]
fn bytes_that_are_not_the_blocks_of_the_segment_change_nothing() {
    let (maker, blocks) = chain(15, 0);
    let (place, store) = adopted(&maker, &blocks, 9);
    let segments = segments(&blocks);
    let before = files(&place.path.join("history"));
    let (head, bytes) = &segments[1];
    let mut flipped = bytes.clone();
    flipped[500] ^= 1;
    for wrong in [&flipped, &segments[2].1, &bytes[1..].to_vec(), &[&bytes[..], &[0]].concat()] {
        let error = store.keep_segment(head, wrong).unwrap_err();
        assert!(matches!(error, StoreError::Segment { index: 1, .. }), "{error}");
    }
    assert!(files(&place.path.join("history")) == before);
    store.keep_segment(head, bytes).unwrap();
    check_without(&store, &maker, &blocks, &[0, 2].into());
}

/// The machine loses power while a segment is put into its place: of the bytes that this changed in
/// the files, only a first part has reached the disk, in the order in which the files are made
/// durable. The segment is not kept, or it is there whole. The one here is the last of its era.
#[test]
fn a_torn_segment_is_kept_whole_or_not_at_all() {
    const PARTS: usize = 3;
    let (maker, blocks) = chain(57, 0);
    let (place, store) = adopted(&maker, &blocks, 54);
    let segments = segments(&blocks);
    for (head, bytes) in segments[..16].iter().filter(|(head, _)| head.descriptor.index != 7) {
        store.keep_segment(head, bytes).unwrap();
    }
    let (before, database) = (files(&place.path), place.path.join("db"));
    let (head, bytes) = &segments[7];
    store.keep_segment(head, bytes).unwrap();
    let after = files(&place.path);
    let history = place.path.join("history");
    let names = [Name::Blocks(7), Name::Index(7), Name::Filter(0)];
    let mut changed: Vec<PathBuf> = names.iter().map(|name| name.path(&history)).collect();
    changed.push(database);
    let (mut absent, mut there) = (0, 0);
    for (number, part) in (0..changed.len()).flat_map(|at| (0..=PARTS).map(move |part| (at, part)))
    {
        let crash = crashed(&place.path);
        for (at, path) in changed.iter().enumerate() {
            let to = crash.path.join(path.strip_prefix(&place.path).unwrap());
            let (old, new) = (before.get(path), &after[path]);
            match (at.cmp(&number), old) {
                (std::cmp::Ordering::Less, _) => fs::write(to, new).unwrap(),
                (std::cmp::Ordering::Equal, _) => {
                    let old = old.map(Vec::as_slice).unwrap_or_default();
                    fs::write(to, torn(old, new, part, PARTS)).unwrap();
                }
                (std::cmp::Ordering::Greater, Some(old)) => fs::write(to, old).unwrap(),
                (std::cmp::Ordering::Greater, None) => fs::remove_file(to).unwrap(),
            }
        }
        let store = Store::open(&crash.path, &maker.chain).unwrap().store;
        let mut lacks: BTreeSet<u64> = [16, 17].into();
        if store.segment(7).unwrap() == Kept::NotKept {
            absent += 1;
            lacks.insert(7);
            assert!(!names.iter().any(|name| name.path(&crash.path.join("history")).exists()));
        } else {
            there += 1;
        }
        check_without(&store, &maker, &blocks, &lacks);
        check_bytes(&crash, &store);
        store.keep_segment(head, bytes).unwrap();
        check_without(&store, &maker, &blocks, &[16, 17].into());
        check_bytes(&crash, &store);
    }
    assert!(absent >= 3 * PARTS && there >= 1, "{absent} absent, {there} there");
}

/// A segment is put into its place while the disk has room for some pages of 4 KiB. If the disk
/// refuses it, the chain goes on, and the segment is kept at the next try.
#[test]
fn a_disk_that_refuses_a_segment_does_not_end_the_chain() {
    if inside_a_namespace().is_none() {
        return;
    }
    let (maker, blocks) = chain(60, 0);
    let (place, store) = adopted(&maker, &blocks[..57], 54);
    let segments = segments(&blocks);
    for (head, bytes) in &segments[..15] {
        store.keep_segment(head, bytes).unwrap();
    }
    let before = bytes_on_disk(&place);
    let (head, bytes) = &segments[15];
    let (mut refused, rest) = (0, place.path.with_file_name("rest"));
    for pages in 0.. {
        leave_room(&rest, pages);
        let result = store.keep_segment(head, bytes);
        fs::remove_file(&rest).unwrap();
        match result {
            Ok(()) => break,
            Err(StoreError::Io { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        assert_eq!(bytes_on_disk(&place), before, "the room is given back");
        check_without(&store, &maker, &blocks[..57], &[15, 16, 17].into());
    }
    assert!(refused >= 3, "{refused}: one for each file");
    store.commit(&blocks[57..]).unwrap();
    check_without(&store, &maker, &blocks, &[16, 17].into());
    let store = reopened(&place, store, &maker);
    check_without(&store, &maker, &blocks, &[16, 17].into());
}

/// A replayed store with four whole eras, and the next block in an open segment.
fn four_eras() -> (Place, Store, Maker, Vec<Committed>) {
    let (maker, blocks) = chain(4 * 48 + 1, 0);
    let (place, opened) = created(&maker);
    for part in blocks.chunks(10) {
        opened.store.commit(part).unwrap();
        opened.store.maintain().unwrap();
    }
    (place, opened.store, maker, blocks)
}

fn era(number: u64) -> std::ops::Range<u64> {
    number * ERA_SEGMENTS..(number + 1) * ERA_SEGMENTS
}

#[test]
fn a_dropped_era_gives_its_bytes_back_and_leaves_the_ends_of_its_segments() {
    let (place, mut store, maker, blocks) = four_eras();
    let mut lacks = BTreeSet::new();
    // The last era ends at the tip's parent, above the newest checkpoint.
    for number in [1, 0, 3, 2] {
        let (all, bytes) = (bytes_on_disk(&place), store.era_bytes(number).unwrap());
        store.drop_era(number).unwrap();
        assert_eq!(bytes_on_disk(&place), all - bytes);
        assert_eq!(store.era_bytes(number).unwrap(), 0);
        check_bytes(&place, &store);
        assert!(!place.path.join(format!("history/{number}")).exists());
        lacks.extend(era(number));
        check_without(&store, &maker, &blocks, &lacks);
        store.drop_era(number).unwrap();
        store = reopened(&place, store, &maker);
        check_without(&store, &maker, &blocks, &lacks);
        for committed in blocks.iter().filter(|committed| committed.sealed.is_some()) {
            let height = committed.block.height();
            let header = committed.block.header().clone();
            assert_eq!(store.header(height).unwrap(), Kept::Here(header));
            let certificate = committed.certificate.clone();
            assert_eq!(store.certificate(height).unwrap(), Kept::Here(certificate));
        }
    }
    assert_eq!(bytes_on_disk(&place), 0);
    // What was dropped can be fetched again.
    for (head, bytes) in segments(&blocks).iter().rev() {
        store.keep_segment(head, bytes).unwrap();
    }
    check_readers(&store, &maker.chain, &blocks);
    drop(store);
    assert_eq!(verified(&place.path, &maker.chain).problems, []);
}

/// Its files stay, and drop it as any other.
#[test]
fn a_withdrawn_era_is_shown_to_nobody_until_it_is_restored_or_a_restart() {
    let (place, mut store, maker, blocks) = four_eras();
    let rules = maker.chain.history_rules();
    let all = bytes_on_disk(&place);
    for restarts in [false, true] {
        store.withdraw_era(1);
        assert_eq!(bytes_on_disk(&place), all);
        for (height, segment) in [(49, 16), (96, 31)] {
            let committed = &blocks[height as usize - 1];
            assert_eq!(store.block_bytes(Height(height)).unwrap(), Kept::NotKept);
            assert!(store.block_proof(Height(height)).unwrap() == Kept::NotKept);
            assert_eq!(store.height_of(&committed.block.hash()).unwrap(), Kept::NotKept);
            assert_eq!(store.chunk(segment, 0, &rules).unwrap(), Kept::NotKept);
            assert_eq!(store.chunk_hashes(segment).unwrap(), Kept::NotKept);
        }
        for (height, segment) in [(48, 15), (97, 32)] {
            assert!(store.block_bytes(Height(height)).unwrap().here().is_some());
            assert!(store.certificate(Height(height)).unwrap().here().is_some());
            assert!(store.chunk(segment, 0, &rules).unwrap().here().is_some());
        }
        if restarts {
            store = reopened(&place, store, &maker);
        } else {
            store.restore_era(1);
        }
        check_readers(&store, &maker.chain, &blocks);
    }
    store.withdraw_era(1);
    store.drop_era(1).unwrap();
    check_without(&store, &maker, &blocks, &era(1).collect());
    for (head, bytes) in &segments(&blocks)[16..32] {
        store.keep_segment(head, bytes).unwrap();
    }
    check_readers(&store, &maker.chain, &blocks);
}

#[test]
fn what_goes_while_it_is_read_is_not_kept() {
    let (_place, store, _maker, blocks) = four_eras();
    let start = index::hash_start(&blocks[48].block.hash());
    let found = store.find::<()>(start, |_| {
        store.withdraw_era(1);
        Ok(None)
    });
    assert_eq!(found.unwrap(), Kept::NotKept);
}

#[test]
fn only_whole_eras_are_dropped() {
    let (maker, blocks) = chain(47, 0);
    let (_place, opened) = created(&maker);
    opened.store.commit(&blocks).unwrap();
    let drop = || opened.store.drop_era(0);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(drop)).is_err());
    check_readers(&opened.store, &maker.chain, &blocks);
}

/// A damaged block of an era does not keep it from being dropped.
#[test]
fn an_era_with_damage_can_be_dropped() {
    let (place, store, maker, blocks) = four_eras();
    let path = Name::Blocks(5).path(&place.path.join("history"));
    fs::write(path, b"").unwrap();
    store.drop_era(0).unwrap();
    assert_eq!(store.header(Height(18)).unwrap(), Kept::NotKept);
    assert_eq!(store.header(Height(21)).unwrap(), Kept::Here(blocks[20].block.header().clone()));
    check_without(&store, &maker, &blocks, &era(0).collect());
}

#[test]
fn eras_are_named_of_which_a_read_found_damage() {
    let (place, store, maker, _) = four_eras();
    let (history, rules) = (place.path.join("history"), maker.chain.history_rules());
    fs::write(Name::Blocks(20).path(&history), b"").unwrap();
    fs::remove_file(Name::Index(40).path(&history)).unwrap();
    assert!(store.chunk(0, 0, &rules).is_ok());
    assert_eq!(store.take_damaged_eras(), BTreeSet::new());
    assert!(store.chunk(20, 0, &rules).is_err() && store.chunk_hashes(40).is_err());
    assert_eq!(store.take_damaged_eras(), BTreeSet::from([1, 2]));
    assert!(store.block(Height(61)).is_err());
    assert_eq!(store.take_damaged_eras(), BTreeSet::from([1]));
    store.withdraw_era(1);
    assert_eq!(store.chunk(20, 0, &rules).unwrap(), Kept::NotKept);
    assert_eq!(store.take_damaged_eras(), BTreeSet::new());
}

/// The checkpoint is at the last block of the era, and this block is damaged.
#[test]
fn an_era_whose_last_block_is_damaged_can_be_dropped() {
    let (maker, blocks) = chain(49, 0);
    let (place, opened) = created(&maker);
    let store = opened.store;
    store.commit(&blocks[..48]).unwrap();
    store.write(|writer| store.checkpoint(writer)).unwrap();
    store.commit(&blocks[48..]).unwrap();
    let path = Name::Blocks(15).path(&place.path.join("history"));
    fs::write(path, b"").unwrap();
    store.drop_era(0).unwrap();
    let store = reopened(&place, store, &maker);
    assert_eq!(store.tip().0, Height(49));
    assert_eq!(store.header(Height(48)).unwrap(), Kept::NotKept);
}

/// The process is killed after the database says that an era is dropped and before all of its files
/// are removed, or while the database is written. What is left is removed when the store is opened.
#[test]
fn a_kill_while_an_era_is_dropped_leaves_nothing_wrong() {
    const PARTS: usize = 6;
    let (place, store, maker, blocks) = four_eras();
    // The drop changes nothing but this then.
    store.write(|writer| store.checkpoint(writer)).unwrap();
    let (before, whole) = (files(&place.path), crashed(&place.path));
    store.drop_era(2).unwrap();
    let after = files(&place.path);
    let database = place.path.join("db");
    let mut dropped = Vec::new();
    for part in 0..=PARTS {
        let crash = crashed(&whole.path);
        let bytes = torn(&before[&database], &after[&database], part, PARTS);
        fs::write(crash.path.join("db"), bytes).unwrap();
        let store = Store::open(&crash.path, &maker.chain).unwrap().store;
        let is_dropped = store.kept().len() > 1;
        dropped.push(is_dropped);
        assert_eq!(crash.path.join("history/2").exists(), !is_dropped);
        let lacks = if is_dropped { era(2).collect() } else { BTreeSet::new() };
        check_without(&store, &maker, &blocks, &lacks);
        check_bytes(&crash, &store);
    }
    assert!(dropped.is_sorted() && !dropped[0] && dropped[PARTS], "{dropped:?}");
    for removed in [1, 7, 32] {
        let crash = crashed(&whole.path);
        fs::copy(&database, crash.path.join("db")).unwrap();
        let mut names: Vec<_> = files(&crash.path.join("history/2")).into_keys().collect();
        names.truncate(removed);
        names.iter().for_each(|path| fs::remove_file(path).unwrap());
        let store = Store::open(&crash.path, &maker.chain).unwrap().store;
        assert!(!crash.path.join("history/2").exists());
        check_without(&store, &maker, &blocks, &era(2).collect());
    }
}

/// An era is dropped after a reader has looked up where to read, and before it reads.
#[test]
fn a_read_that_an_overtaking_drop_disturbs_finds_no_damage() {
    let (_place, store, maker, blocks) = four_eras();
    let read = store.of_segment(20, |files, descriptor| {
        store.drop_era(1).unwrap();
        files.index(descriptor)?.segment()
    });
    assert_eq!(read.unwrap(), Kept::NotKept);
    let keeps = |segment| {
        let keeps = store.read_view().segments.gaps.keeps(segment);
        // The files go while the search has this answer.
        if segment == 63 {
            store.drop_era(3).unwrap();
        }
        keeps
    };
    let start = index::hash_start(&blocks[191].block.hash());
    let found = store.shared.files.find(start, 64, keeps, |entry| Ok(Some(entry)));
    assert_eq!(found.unwrap(), None);
    check_without(&store, &maker, &blocks, &era(1).chain(era(3)).collect());
}

/// Readers that run while eras are dropped and fetched again see blocks, or that they are not kept.
#[test]
fn readers_see_no_damage_while_eras_come_and_go() {
    let (_place, store, _, blocks) = four_eras();
    let segments = segments(&blocks);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = || {
            let mut number = 0;
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                number = (number + 7) % blocks.len();
                let (height, block) = (Height(number as u64 + 1), &blocks[number].block);
                if let Kept::Here(bytes) = store.block_bytes(height).unwrap() {
                    assert_eq!(bytes, **block.bytes());
                }
                assert_ne!(store.height_of(&block.hash()).unwrap(), Kept::Never);
                assert_ne!(store.certificate(height).unwrap(), Kept::Never);
                drop(store.segment(number as u64 / 3).unwrap());
            }
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        for number in [0, 1, 2, 0, 1] {
            store.drop_era(number).unwrap();
            for index in era(number).rev() {
                let (head, bytes) = &segments[index as usize];
                store.keep_segment(head, bytes).unwrap();
            }
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}
