//! Crashes, torn writes and full disks lose nothing that was acknowledged.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

/// After a crash at any stage of a checkpoint, the checkpoint before it is usable, and the
/// half-written one does no harm.
#[test]
fn a_crash_within_a_checkpoint_loses_nothing() {
    let mut maker = Maker::new(genesis(500));
    let (place, opened) = created(&maker);
    let store = opened.store;
    let mut blocks = Vec::new();
    for round in 0..4 {
        for _ in 0..20 {
            let transactions = maker.transfers(3, 20);
            blocks.push(maker.block(transactions));
        }
        store.commit(&blocks[blocks.len() - 20..]).unwrap();
        let disk = &store.shared.disk;
        let crash = |stage: &str| {
            let crash = crashed(&place.path);
            let report = verified(&crash.path, &maker.chain);
            assert_eq!(report.problems, [], "{stage} of checkpoint {round}");
            let opened = Store::open(&crash.path, &maker.chain).unwrap();
            same_state(&opened.state, &maker.state);
            check_readers(&opened.store, &maker.chain, &blocks);
            // The next checkpoint is written over the half-written one.
            opened.store.write(|writer| opened.store.checkpoint(writer)).unwrap();
            drop(opened);
            let report = verified(&crash.path, &maker.chain);
            assert_eq!(report.problems, [], "after {stage} of checkpoint {round}");
        };
        let mut writer = store.shared.writer.lock().unwrap();
        let state = writer.state.clone();
        writer.slots.write(disk, &state).unwrap();
        disk.sync().unwrap();
        crash("pages");
        store.checkpoint(&mut writer).unwrap();
        drop(writer);
        crash("marker");
    }
}

/// The bytes of all files below a folder, by their paths.
pub(super) fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    found
}

/// What is on the disk of a file if of the bytes that changed only this part has reached it.
pub(super) fn torn(before: &[u8], after: &[u8], part: usize, parts: usize) -> Vec<u8> {
    let changed: Vec<usize> =
        (0..after.len()).filter(|at| before.get(*at) != Some(&after[*at])).collect();
    let cut = changed.get(changed.len() * part / parts).copied().unwrap_or(after.len());
    [&after[..cut], before.get(cut..).unwrap_or_default()].concat()
}

/// The machine loses power during a commit: of the bytes that the commit changed in the files, only
/// a first part has reached the disk, in the order in which the files are made durable. Blocks that
/// were acknowledged before must be there, and the next commit must work. The commits append to
/// segments, seal segments, and end an era.
#[test]
fn a_torn_commit_is_there_whole_or_not_at_all() {
    const PARTS: usize = 4;
    let limits = Limits { segment_blocks: 2, ..genesis(0).limits };
    let mut maker = Maker::new(Genesis { limits, ..genesis(10) });
    let (place, opened) = created(&maker);
    let mut blocks = Vec::new();
    for round in 0..33 {
        let before = files(&place.path);
        blocks.push(maker.next(if round % 3 == 0 { 0 } else { 60 }));
        opened.store.commit(&blocks[blocks.len() - 1..]).unwrap();
        let known = blocks.len() as u64 - 1;
        if ![1, 2, 31].contains(&known) {
            continue;
        }
        let after = files(&place.path);
        let history = |path: &PathBuf| path.starts_with(place.path.join("history"));
        let mut changed: Vec<&PathBuf> = after
            .keys()
            .filter(|path| history(path) && before.get(*path) != after.get(*path))
            .collect();
        changed.sort_by_key(|path| {
            ["blocks", "index", "filter"].iter().position(|kind| path.extension().unwrap() == *kind)
        });
        let database = place.path.join("db");
        changed.push(&database);
        for (number, tearing) in changed.iter().enumerate() {
            for part in 0..=PARTS {
                let crash = crashed(&place.path);
                let none = Vec::new();
                for (at, path) in changed.iter().enumerate() {
                    let to = crash.path.join(path.strip_prefix(&place.path).unwrap());
                    let old = before.get(*path);
                    let new = &after[*path];
                    match at.cmp(&number) {
                        Ordering::Less => fs::write(to, new).unwrap(),
                        Ordering::Equal => {
                            fs::write(to, torn(old.unwrap_or(&none), new, part, PARTS)).unwrap();
                        }
                        Ordering::Greater if old.is_none() => fs::remove_file(to).unwrap(),
                        Ordering::Greater => fs::write(to, old.unwrap()).unwrap(),
                    }
                }
                fs::write(crash.path.join("durable"), &before[&place.path.join("durable")])
                    .unwrap();
                let opened = Store::open(&crash.path, &maker.chain).unwrap();
                let tip = opened.store.tip().0.0;
                let is_last = *tearing == &database;
                assert!(tip == known || is_last && tip == known + 1, "{tip} after {known}");
                assert!(is_last && part == PARTS || tip == known || part > 0);
                assert!(!is_last || part < PARTS || tip == known + 1);
                if tip == known {
                    opened.store.commit(&blocks[known as usize..]).unwrap();
                }
                check_readers(&opened.store, &maker.chain, &blocks);
                drop(opened);
                if part == PARTS / 2 {
                    assert_eq!(verified(&crash.path, &maker.chain).problems, []);
                }
            }
        }
    }
    assert!(place.path.join("history/0/0.filter").exists(), "an era ended");
}

#[test]
fn a_refused_write_is_invisible_and_the_last() {
    let mut maker = Maker::new(genesis(10));
    let (place, opened) = created(&maker);
    let store = opened.store;
    let first = maker.next(5);
    store.commit(std::slice::from_ref(&first)).unwrap();
    store.shared.disk.refuse_writes(true);
    let second = maker.next(5);
    assert!(matches!(store.commit(std::slice::from_ref(&second)), Err(StoreError::Io { .. })));
    check_readers(&store, &maker.chain, std::slice::from_ref(&first));
    assert_eq!(
        store.find_transaction(&second.block.block().transactions[0].id()).unwrap(),
        Kept::Never
    );
    store.shared.disk.refuse_writes(false);
    assert!(matches!(store.commit(&[second]), Err(StoreError::Failed { .. })));
    assert!(matches!(store.maintain(), Err(StoreError::Failed { .. })));
    assert!(matches!(store.put_evidence(None, b"a", b"b"), Err(StoreError::Failed { .. })));
    drop(store);
    assert!(Store::open(&place.path, &maker.chain).unwrap().store.tip().0 >= Height(1));
}

/// Runs the calling test again, in a process with a namespace where it may mount file systems. The
/// temporary folder of this inner run is a file system of 24 MiB. In the inner run the function
/// returns a folder outside the small file system. In the outer run it returns `None`, after the
/// inner run has passed or if this machine allows no such namespace.
pub(super) fn inside_a_namespace() -> Option<PathBuf> {
    const ROOMY: &str = "CAIRN_TEST_ROOMY";
    if let Some(roomy) = std::env::var_os(ROOMY) {
        return Some(roomy.into());
    }
    let (small, roomy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mount = "mount -t tmpfs -o size=24m small \"$TMPDIR\"";
    let inside = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare
            .args(["-rm", "sh", "-c", command])
            .env("TMPDIR", small.path())
            .env(ROOMY, roomy.path());
        unshare
    };
    if !inside(mount).output().is_ok_and(|output| output.status.success()) {
        eprintln!(
            "not tried: this machine lets nobody mount a file system in a namespace of their own"
        );
        return None;
    }
    let test = std::env::current_exe().unwrap();
    let run = format!(
        "{mount} && exec '{}' --exact {} --nocapture",
        test.display(),
        std::thread::current().name().unwrap()
    );
    let output = inside(&run).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    None
}

/// The files with sled's snapshots of its log.
fn snapshots(store: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("snap.")).collect()
}

/// If the process is killed while the database opens, it may leave a snapshot that is not renamed
/// yet or not complete. Everything committed must still be there.
#[test]
fn an_unfinished_snapshot_of_the_database_is_no_damage() {
    let mut maker = Maker::new(genesis(300));
    let (place, opened) = created(&maker);
    let blocks: Vec<_> = (0..70).map(|count| maker.next(count % 7)).collect();
    let mut store = opened.store;
    for part in blocks.chunks(10) {
        store.commit(part).unwrap();
        store.maintain().unwrap();
        drop(store);
        store = Store::open(&place.path, &maker.chain).unwrap().store;
    }
    drop(store);
    let [current] = &snapshots(&place.path)[..] else { panic!("{:?}", snapshots(&place.path)) };
    let (whole, own) = (fs::read(current).unwrap(), current.file_name().unwrap().to_str().unwrap());
    let names = [
        "snap.FFFFFFFFFFFFFFFF.generating",
        "snap.FFFFFFFFFFFFFFFF",
        "snap.0000000000000000.generating",
        own,
    ];
    for name in names {
        for length in [0, 1, 12, 13, whole.len() / 2, whole.len() - 1, whole.len()] {
            let crash = crashed(&place.path);
            fs::write(crash.path.join(name), &whole[..length]).unwrap();
            assert_eq!(
                verified(&crash.path, &maker.chain).problems,
                [],
                "{name} of {length} bytes"
            );
            let opened = Store::open(&crash.path, &maker.chain).unwrap();
            same_state(&opened.state, &maker.state);
            check_readers(&opened.store, &maker.chain, &blocks);
            drop(opened);
            assert!(
                snapshots(&crash.path).iter().all(|path| path.extension().unwrap() != "generating"),
                "{name}"
            );
        }
    }
    // A flipped bit in the current snapshot does no harm, since the log has the same content.
    let crash = crashed(&place.path);
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(crash.path.join(own), flipped).unwrap();
    assert_eq!(verified(&crash.path, &maker.chain).problems, []);
}

/// Leaves room for this many pages of 4 KiB on the small file system of [`inside_a_namespace`]: the
/// file `rest` takes the other ones. Removing it makes room again.
pub(super) fn leave_room(rest: &Path, pages: u64) {
    fs::write(rest, vec![0; 24 << 20]).unwrap_err();
    let file = fs::File::options().write(true).open(rest).unwrap();
    file.set_len(file.metadata().unwrap().len() - pages * 4_096).unwrap();
}

/// Opens the store while the disk has room for four pages of 4 KiB, which is less than the database
/// may need. Whatever write the disk refuses, the store is whole once there is room again.
#[test]
fn a_start_on_a_full_disk_is_no_damage() {
    if inside_a_namespace().is_none() {
        return;
    }
    let mut maker = Maker::new(genesis(1_000));
    let (place, opened) = created(&maker);
    let blocks: Vec<_> = (0..20).map(|_| maker.next(150)).collect();
    opened.store.commit(&blocks).unwrap();
    drop(opened);
    let rest = place.path.with_file_name("rest");
    let start = || {
        leave_room(&rest, 4);
        if let Err(error) = Store::open(&place.path, &maker.chain) {
            assert!(matches!(error, StoreError::Io { .. }), "{error}");
        }
    };
    (0..20).for_each(|_| start());
    fs::remove_file(rest).unwrap();
    let opened = Store::open(&place.path, &maker.chain).unwrap();
    same_state(&opened.state, &maker.state);
    check_readers(&opened.store, &maker.chain, &blocks);
    drop(opened);
    assert_eq!(verified(&place.path, &maker.chain).problems, []);
}

/// A block that seals a segment and ends an era is committed while the disk has room for some pages
/// of 4 KiB. Whichever write the disk refuses, all acknowledged blocks are there once there is room
/// again, and the chain goes on.
#[test]
fn a_full_disk_at_the_end_of_an_era_loses_nothing() {
    if inside_a_namespace().is_none() {
        return;
    }
    let limits = Limits { segment_blocks: 1, ..genesis(0).limits };
    let mut maker = Maker::new(Genesis { limits, ..genesis(10) });
    let (place, opened) = created(&maker);
    let blocks: Vec<_> = (0..16).map(|_| maker.next(60)).collect();
    opened.store.commit(&blocks[..15]).unwrap();
    drop(opened);
    let next = [maker.next(60)];
    let all = [&blocks[..], &next].concat();
    let (mut refused, mut accepted) = (0, 0);
    for pages in 0..12 {
        let copy = crashed(&place.path);
        let rest = place.path.with_file_name("rest");
        let opened = Store::open(&copy.path, &maker.chain).unwrap();
        leave_room(&rest, pages);
        let result = opened.store.commit(&blocks[15..]);
        match &result {
            Ok(()) => accepted += 1,
            Err(StoreError::Io { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        drop(opened);
        fs::remove_file(rest).unwrap();
        let opened = Store::open(&copy.path, &maker.chain).unwrap();
        let tip = opened.store.tip().0.0;
        assert!(tip == 16 || tip == 15 && result.is_err(), "{tip} with {pages} pages");
        check_readers(&opened.store, &maker.chain, &blocks[..tip as usize]);
        opened.store.commit(&all[tip as usize..]).unwrap();
        check_readers(&opened.store, &maker.chain, &all);
        drop(opened);
        assert_eq!(verified(&copy.path, &maker.chain).problems, []);
    }
    assert!(refused >= 5 && accepted > 0, "{refused} refused, {accepted} accepted");
}

/// Fills the small file system of [`inside_a_namespace`] with blocks. A copy of the store on a
/// larger disk has all acknowledged blocks.
#[test]
fn a_full_disk_loses_nothing() {
    let Some(roomy) = inside_a_namespace() else { return };
    let roomy = roomy.join("copy");
    let mut maker = Maker::new(genesis(1_000));
    let (place, opened) = created(&maker);
    let mut blocks = Vec::new();
    let error = loop {
        blocks.push(maker.next(150));
        let result =
            opened.store.commit(&blocks[blocks.len() - 1..]).and_then(|()| opened.store.maintain());
        if let Err(error) = result {
            break error;
        }
    };
    eprintln!("after {} blocks: {error}", blocks.len());
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    let tip = opened.store.tip().0.0 as usize;
    match opened.store.block_bytes(Height(1)) {
        Ok(bytes) => assert_eq!(bytes, Kept::Here(blocks[0].block.bytes().to_vec())),
        Err(error) => assert!(matches!(error, StoreError::Io { .. }), "{error}"),
    }
    drop(opened);
    copy(&place.path, &roomy);
    let opened = Store::open(&roomy, &maker.chain).unwrap();
    let found = opened.store.tip().0.0 as usize;
    assert!(found >= tip, "{found} of {tip} acknowledged");
    check_readers(&opened.store, &maker.chain, &blocks[..found]);
    drop(opened);
    let report = verified(&roomy, &maker.chain);
    assert_eq!(report.problems, []);
}
