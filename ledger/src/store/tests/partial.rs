//! Stores that began with a snapshot.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::crash::{files, inside_a_namespace, leave_room, torn};
use super::*;
use crate::history::SegmentDescriptor;
use crate::state::State;
use crate::store::pages::Name;

/// A chain whose segments have three blocks, with this many blocks.
pub(super) fn chain(length: usize, accounts: u64) -> (Maker, Vec<Committed>) {
    let limits = Limits { segment_blocks: 3, ..genesis(0).limits };
    let mut maker = Maker::new(Genesis { limits, ..genesis(accounts) });
    let counts = [0, 1, 7, 30, 2].into_iter().cycle().take(length);
    let blocks = counts.map(|count| maker.next(count)).collect();
    (maker, blocks)
}

pub(super) type Snapshot = (Header, Certificate, Vec<SegmentDescriptor>, State);

/// The snapshot after the last of these blocks, which sealed a segment.
pub(super) fn snapshot(blocks: &[Committed]) -> Snapshot {
    let last = blocks.last().unwrap();
    assert!(last.sealed.is_some());
    let sealed = blocks.iter().filter_map(|committed| committed.sealed.as_ref());
    (
        last.block.header().clone(),
        last.certificate.clone(),
        sealed.map(|sealed| sealed.descriptor).collect(),
        last.block.state().clone(),
    )
}

pub(super) fn adopt(
    store: &Store,
    (header, certificate, descriptors, state): Snapshot,
) -> Result<ChainState, StoreError> {
    store.adopt(&header, certificate, &descriptors, state)
}

/// A store that began with the snapshot after this many blocks and has all blocks after it.
pub(super) fn adopted(maker: &Maker, blocks: &[Committed], at: usize) -> (Place, Store) {
    let (place, opened) = created(maker);
    adopt(&opened.store, snapshot(&blocks[..at])).unwrap();
    blocks[at..].iter().for_each(|committed| {
        opened.store.commit(std::slice::from_ref(committed)).unwrap();
    });
    (place, opened.store)
}

#[test]
fn a_snapshot_becomes_the_content_of_an_empty_store() {
    // The snapshot is in the middle of the second era, then at the end of the first one.
    for at in [60, 48] {
        let (maker, blocks) = chain(110, 300);
        let (place, opened) = created(&maker);
        let mut state = adopt(&opened.store, snapshot(&blocks[..at])).unwrap();
        let mut store = opened.store;
        let snapshot_height = Height(at as u64);
        for (number, committed) in blocks.iter().enumerate().skip(at) {
            assert_eq!(store.tip().0, Height(number as u64));
            check_partial(&store, &maker.chain, &blocks[..number], |height| {
                height > snapshot_height
            });
            assert_eq!(store.executed_to(), Height(0));
            if number % 7 == 4 {
                drop(store);
                let opened = Store::open(&place.path, &maker.chain).unwrap();
                same_state(&opened.state, &state);
                assert_eq!(opened.certificate, blocks[number - 1].certificate);
                store = opened.store;
            }
            // The rules accept the chain's own block on this state, with the same segments.
            let valid = state.validate(committed.block.block().clone()).unwrap();
            let next = state.commit(valid, committed.certificate.clone());
            assert_eq!(next.sealed, committed.sealed);
            store.commit(&[next]).unwrap();
            store.maintain().unwrap();
        }
        assert_eq!(store.kept(), [at as u64 / 3..=35]);
        let first_whole = (at as u64 / 3).div_ceil(16);
        for era in 0..=2 {
            let filter = place.path.join(format!("history/{era}/{era}.filter"));
            assert_eq!(filter.exists(), (first_whole..2).contains(&era), "{era} after {at}");
        }
        drop(store);
        let opened = Store::open(&place.path, &maker.chain).unwrap();
        same_state(&opened.state, &maker.state);
        check_partial(&opened.store, &maker.chain, &blocks, |height| height > snapshot_height);
    }
}

#[test]
fn header_and_certificate_of_the_snapshot_stay() {
    let (maker, blocks) = chain(66, 0);
    let (place, store) = adopted(&maker, &blocks, 60);
    let store = {
        drop(store);
        Store::open(&place.path, &maker.chain).unwrap().store
    };
    let last = &blocks[59];
    assert_eq!(store.header(Height(60)).unwrap(), Kept::Here(last.block.header().clone()));
    assert_eq!(store.certificate(Height(60)).unwrap(), Kept::Here(last.certificate.clone()));
    assert_eq!(store.header(Height(57)).unwrap(), Kept::NotKept);
}

#[test]
fn a_store_with_blocks_takes_no_snapshot() {
    let (maker, blocks) = chain(9, 0);
    let (_place, opened) = created(&maker);
    opened.store.commit(&blocks[..3]).unwrap();
    let error = adopt(&opened.store, snapshot(&blocks[..6])).unwrap_err();
    assert!(matches!(error, StoreError::NotEmpty { height: Height(3) }), "{error}");
    opened.store.commit(&blocks[3..]).unwrap();
    check_readers(&opened.store, &maker.chain, &blocks);
    assert_eq!(opened.store.executed_to(), Height(9));
}

#[test]
fn parts_of_different_snapshots_are_our_bug() {
    let (maker, blocks) = chain(9, 0);
    let (_place, opened) = created(&maker);
    let (good, other) = (snapshot(&blocks[..6]), snapshot(&blocks[..9]));
    type Change<'a> = &'a dyn Fn(&mut Snapshot);
    let rows: [(&str, Change); 6] = [
        ("header", &|one| one.0 = other.0.clone()),
        ("certificate", &|one| one.1 = other.1.clone()),
        ("one descriptor more", &|one| one.2 = other.2.clone()),
        ("one descriptor fewer", &|one| one.2.truncate(1)),
        ("another descriptor", &|one| one.2[0].chunks_root = Hash::ZERO),
        ("state", &|one| one.3 = other.3.clone()),
    ];
    for (name, change) in rows {
        let mut wrong = good.clone();
        change(&mut wrong);
        let result = catch_unwind(AssertUnwindSafe(|| adopt(&opened.store, wrong).map(drop)));
        assert!(result.is_err(), "{name}");
    }
    adopt(&opened.store, good).unwrap();
}

/// Until the audit ends, the blocks up to the snapshot count as not executed.
#[test]
fn how_far_blocks_were_executed_is_durable() {
    let (maker, blocks) = chain(9, 0);
    let (place, mut store) = adopted(&maker, &blocks, 6);
    for (set, expected) in [(None, 0), (Some(4), 4), (Some(5), 5), (Some(6), 9), (Some(3), 9)] {
        if let Some(set) = set {
            store.set_executed_to(Height(set)).unwrap();
        }
        assert_eq!(store.executed_to(), Height(expected));
        drop(store);
        store = Store::open(&place.path, &maker.chain).unwrap().store;
        assert_eq!(store.executed_to(), Height(expected));
    }
}

/// Opens a store that may or may not have the snapshot, and takes it to the end of the chain.
fn finish(place: &Place, maker: &Maker, blocks: &[Committed], at: usize) -> bool {
    let opened = Store::open(&place.path, &maker.chain).unwrap();
    let has_it = opened.store.tip().0 > Height(0);
    if !has_it {
        assert_eq!(opened.store.kept(), []);
        adopt(&opened.store, snapshot(&blocks[..at])).unwrap();
    }
    opened.store.commit(&blocks[at..]).unwrap();
    opened.store.write(|writer| opened.store.checkpoint(writer)).unwrap();
    drop(opened);
    let opened = Store::open(&place.path, &maker.chain).unwrap();
    same_state(&opened.state, &maker.state);
    check_partial(&opened.store, &maker.chain, blocks, |height| height > Height(at as u64));
    has_it
}

/// The machine loses power while a snapshot is adopted: of the bytes that the database writes, only
/// a first part has reached the disk. The store has the whole snapshot or no block, and goes on
/// either way, also by a full replay.
#[test]
fn a_torn_snapshot_is_there_whole_or_not_at_all() {
    const PARTS: usize = 12;
    let (maker, blocks) = chain(15, 300);
    let (place, opened) = created(&maker);
    let (before, database) = (files(&place.path), place.path.join("db"));
    adopt(&opened.store, snapshot(&blocks[..9])).unwrap();
    let after = files(&place.path);
    let mut there = Vec::new();
    for part in 0..=PARTS {
        for replay in [false, true] {
            let crash = crashed(&place.path);
            let bytes = torn(&before[&database], &after[&database], part, PARTS);
            fs::write(crash.path.join("db"), bytes).unwrap();
            fs::write(crash.path.join("durable"), &before[&place.path.join("durable")]).unwrap();
            if !replay {
                there.push(finish(&crash, &maker, &blocks, 9));
                continue;
            }
            let opened = Store::open(&crash.path, &maker.chain).unwrap();
            if opened.store.tip().0 == Height(0) {
                opened.store.commit(&blocks).unwrap();
                check_readers(&opened.store, &maker.chain, &blocks);
                opened.store.write(|writer| opened.store.checkpoint(writer)).unwrap();
                drop(opened);
                assert_eq!(verified(&crash.path, &maker.chain).problems, []);
            }
        }
    }
    assert!(there.is_sorted() && !there[0] && there[PARTS], "{there:?}");
}

/// A snapshot is adopted while the disk has room for some pages of 4 KiB. Whichever write the disk
/// refuses, the store has no block or the whole snapshot once there is room again.
#[test]
fn a_full_disk_leaves_a_whole_snapshot_or_none() {
    if inside_a_namespace().is_none() {
        return;
    }
    // More accounts than the database has room for in the file that it has already.
    let (maker, blocks) = chain(15, 10_000);
    let (place, opened) = created(&maker);
    drop(opened);
    let (mut refused, mut accepted) = (0, 0);
    for pages in (0..640).step_by(40) {
        let copy = crashed(&place.path);
        let rest = place.path.with_file_name("rest");
        let opened = Store::open(&copy.path, &maker.chain).unwrap();
        leave_room(&rest, pages);
        match adopt(&opened.store, snapshot(&blocks[..9])) {
            Ok(_) => accepted += 1,
            Err(StoreError::Io { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        drop(opened);
        fs::remove_file(rest).unwrap();
        finish(&copy, &maker, &blocks, 9);
    }
    assert!(refused >= 5 && accepted > 0, "{refused} refused, {accepted} accepted");
}

/// The first segment after a snapshot may be in the middle of an era, whose folder is new then. No
/// block in it is acknowledged before the folder has a durable name.
#[test]
fn the_folders_of_the_first_files_after_a_snapshot_are_durable() {
    let (maker, blocks) = chain(20, 0);
    let (place, opened) = created(&maker);
    adopt(&opened.store, snapshot(&blocks[..15])).unwrap();
    let history = place.path.join("history");
    assert!(!history.exists());
    disk::SYNCED.take();
    opened.store.commit(&blocks[15..19]).unwrap();
    let synced = disk::SYNCED.take();
    for folder in [&place.path, &history, &history.join("0")] {
        assert!(synced.contains(folder), "{} of {synced:?}", folder.display());
    }
}

/// Writes the files of the whole history of these blocks into a folder.
fn write_history(history: &Path, maker: &Maker, blocks: &[Committed]) {
    let (full, opened) = created(maker);
    opened.store.commit(blocks).unwrap();
    for (path, bytes) in files(&full.path.join("history")) {
        let to = history.join(path.strip_prefix(full.path.join("history")).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, bytes).unwrap();
    }
}

/// Files of segments that are not kept are not believed, and the next start removes them. If it
/// cannot remove one, it is a start nevertheless.
#[test]
fn leftovers_of_segments_that_are_not_kept_are_removed() {
    let (maker, blocks) = chain(66, 0);
    let (place, store) = adopted(&maker, &blocks, 60);
    drop(store);
    let history = place.path.join("history");
    let before = files(&history);
    write_history(&history, &maker, &blocks);
    assert!(files(&history).len() > before.len() + 32);
    let opened = Store::open(&place.path, &maker.chain).unwrap();
    assert_eq!(files(&history), before);
    assert!(!history.join("0").exists());
    check_partial(&opened.store, &maker.chain, &blocks, |height| height > Height(60));
    drop(opened);
    // A folder cannot be removed as a file.
    fs::create_dir_all(Name::Blocks(3).path(&history).join("folder")).unwrap();
    let opened = Store::open(&place.path, &maker.chain).unwrap();
    check_partial(&opened.store, &maker.chain, &blocks, |height| height > Height(60));
}

/// A database that lost its newest writes says that segments are not kept that were. Nothing is
/// removed on the word of a database that is damaged.
#[test]
fn a_database_that_is_older_than_its_witness_has_nothing_removed() {
    let (maker, blocks) = chain(66, 0);
    let (place, store) = adopted(&maker, &blocks[..63], 60);
    drop(store);
    let damaged = crashed(&place.path);
    let opened = Store::open(&place.path, &maker.chain).unwrap();
    opened.store.commit(&blocks[63..]).unwrap();
    drop(opened);
    fs::copy(place.path.join("durable"), damaged.path.join("durable")).unwrap();
    let history = damaged.path.join("history");
    write_history(&history, &maker, &blocks);
    let names = || Vec::from_iter(files(&history).into_keys());
    let before = names();
    let error = Store::open(&damaged.path, &maker.chain).map(drop).unwrap_err();
    assert!(error.to_string().contains("the database is damaged"), "{error}");
    assert_eq!(names(), before);
}
