//! Damage to any kind of value and to the files is reported, damage to a value by its name. Damaged
//! data is never served.

use std::fs;

use super::*;
use crate::store::pages::{CONTENT, Name, PAGE_BYTES, Pages};
use crate::store::segment_index::SegmentIndex;

/// Flips one bit of a stored value, as a bad disk would.
fn flip(store: &Store, key: Key, at: usize) {
    let key = key.bytes();
    let mut value = store.shared.disk.get_raw(&key).unwrap();
    let at = at % value.len();
    value[at] ^= 1;
    store.shared.disk.put_raw(&key, &value);
}

fn corrupt<T: std::fmt::Debug>(result: Result<T, StoreError>, name: &str) {
    match result {
        Err(StoreError::Corrupt { what, .. }) => {
            assert!(what.contains(name), "{what}, expected {name}")
        }
        other => panic!("{other:?}, expected damage of {name}"),
    }
}

#[test]
fn every_flipped_bit_is_named_and_never_served() {
    let mut maker = Maker::new(genesis(100));
    let (place, opened) = created(&maker);
    let blocks: Vec<_> = (0..70).map(|_| maker.next(10)).collect();
    opened.store.commit(&blocks).unwrap();
    assert!(opened.store.maintain().unwrap());
    assert!(opened.store.segment(0).unwrap().here().is_some());
    assert!(opened.store.put_evidence(None, b"name", b"content").unwrap());
    drop(opened);
    assert_eq!(verified(&place.path, &maker.chain).problems, []);

    let page = |store: &Store| {
        store.shared.disk.scan_keys(&prefix::pages(schema::Slot::A)).next().unwrap().unwrap().0
    };
    let evidence =
        |store: &Store| store.shared.disk.scan_keys(&prefix::EVIDENCE).next().unwrap().unwrap().0;
    type Row<'a> = (&'a dyn Fn(&Store) -> Key, &'a str, bool);
    let rows: [Row; 7] = [
        (&|_| Key::Tip, "tip", true),
        (&|_| Key::TipCertificate(0), "certificate of the tip", true),
        (&|_| Key::Tail, "end of the open segment", true),
        (&|_| Key::Segment(0), "descriptor of segment 0", true),
        (&|_| Key::Marker, "marker", true),
        (&page, "state page", true),
        (&evidence, "evidence", false),
    ];
    for (row, (key, name, stops)) in rows.into_iter().enumerate() {
        for at in [row, 7, 8, 1_000_003] {
            let damaged = crashed(&place.path);
            let opened = Store::open(&damaged.path, &maker.chain).unwrap();
            let key = key(&opened.store);
            flip(&opened.store, key, at);
            if !stops {
                corrupt(opened.store.evidence(), name);
            }
            drop(opened);
            check_damage(&damaged.path, &maker.chain, name, stops);
        }
    }

    // A damaged file spoils only reads that touch the damaged page.
    let (first, last) = (&blocks[0].block, &blocks[69].block);
    let file = |name: Name| name.path(Path::new("history"));
    type Read<'a> = &'a dyn Fn(&Store) -> Result<(), StoreError>;
    let rows: [(Name, usize, bool, Read); 8] = [
        (Name::Blocks(0), 99, false, &|store| store.block(Height(1)).map(drop)),
        (Name::Blocks(0), 99, false, &|store| store.certificate(Height(1)).map(drop)),
        (Name::Blocks(0), 99, false, &|store| store.height_of(&first.hash()).map(drop)),
        (Name::Blocks(0), 99, false, &|store| {
            store.find_transaction(&first.block().transactions[3].id()).map(drop)
        }),
        (Name::Index(0), 9, false, &|store| store.segment(0).map(drop)),
        (Name::Index(0), 9, false, &|store| store.header(Height(1)).map(drop)),
        (Name::Index(0), 9, false, &|store| {
            store.find_transaction(&first.block().transactions[3].id()).map(drop)
        }),
        // The open segment is read when the store is opened.
        (Name::Blocks(2), 9, true, &|store| store.block(last.height()).map(drop)),
    ];
    for (name, at, stops, read) in rows {
        let damaged = crashed(&place.path);
        let path = damaged.path.join(file(name));
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        let opened = Store::open(&damaged.path, &maker.chain).unwrap();
        fs::write(&path, bytes).unwrap();
        // Of the last block some bytes may be in the database.
        if !stops {
            corrupt(read(&opened.store), &name.to_string());
        }
        drop(opened);
        check_damage(&damaged.path, &maker.chain, &name.to_string(), stops);
        fs::remove_file(&path).unwrap();
        check_damage(&damaged.path, &maker.chain, &name.to_string(), stops);
    }
}

/// Checks that damage is reported by its name, and stops the store from opening if it must.
fn check_damage(path: &Path, chain: &Arc<Chain>, name: &str, stops: bool) {
    let report = verified(path, chain);
    assert!(
        report.problems.iter().any(|problem| problem.what.contains(name)),
        "{name}: {:?}",
        report.problems
    );
    match Store::open(path, chain) {
        Ok(_) => assert!(!stops, "{name} is needed to open"),
        Err(error) => {
            assert!(stops, "{name}: {error}");
            corrupt(Err::<(), _>(error), name);
        }
    }
}

type Damage = fn(&Disk, &Path);

pub(super) fn put(disk: &Disk, key: Key, content: &[u8]) {
    let key = key.bytes();
    disk.put_raw(&key, &schema::seal(&key, content));
}

fn first(disk: &Disk, prefix: &[u8]) -> (Key, Vec<u8>) {
    disk.scan_keys(prefix).next().unwrap().unwrap()
}

/// Stores values that have a correct checksum but a wrong content.
#[test]
fn verify_finds_values_that_do_not_belong() {
    let mut maker = Maker::new(genesis(300));
    let (place, opened) = created(&maker);
    let blocks: Vec<_> = (0..70).map(|_| maker.next(10)).collect();
    opened.store.commit(&blocks).unwrap();
    opened.store.maintain().unwrap();
    drop(opened);

    let rows: [(&str, Damage); 6] = [
        ("unknown", |disk, _| disk.put_raw(&[99, 1], &schema::seal(&[99, 1], b"x"))),
        ("beyond the tip", |disk, _| put(disk, Key::Segment(9), b"x")),
        ("other entries", |disk, _| {
            let (key, content) = first(disk, &prefix::pages(schema::Slot::A));
            let mut entries: Vec<crate::state::Entry> = codec::decode(&content, 10_000).unwrap();
            entries[0].1.balance = Amount(1);
            put(disk, key, &codec::encode(&entries));
        }),
        ("pages, expected", |disk, _| {
            let (Key::Page(slot, mut page), content) = first(disk, &prefix::pages(schema::Slot::A))
            else {
                panic!()
            };
            page.depth += 1;
            put(disk, Key::Page(slot, page), &content);
        }),
        ("index of segment 0: has another length", |_, history| {
            let path = Name::Index(0).path(history);
            let longer = [&fs::read(&path).unwrap()[..], &[0; PAGE_BYTES]].concat();
            fs::write(path, longer).unwrap();
        }),
        ("signature of transaction 9 does not hold", |_, history| {
            let file = Pages::open(history, Name::Blocks(0)).unwrap();
            let end = SegmentIndex::open(history, 0).unwrap().block_range(4).unwrap().end;
            let page = end / CONTENT - 1;
            let start = page * CONTENT;
            let descriptor = *SegmentIndex::open(history, 0).unwrap().descriptor();
            let mut bytes = file.read(start..descriptor.bytes).unwrap();
            bytes[(end - start) as usize - 40] ^= 1;
            pages::write(history, Name::Blocks(0), page, &bytes).unwrap();
        }),
    ];
    for (name, damage) in rows {
        let damaged = crashed(&place.path);
        let disk = Disk::open(&damaged.path).unwrap();
        damage(&disk, &damaged.path.join("history"));
        disk.sync().unwrap();
        drop(disk);
        let report = verified(&damaged.path, &maker.chain);
        assert!(!report.is_clean());
        let named = report.problems.iter().any(|problem| problem.to_string().contains(name));
        assert!(named, "{name}: {:?}", report.problems);
    }
    // Files of segments whose pages have correct checksums.
    let history = |place: &Place| place.path.join("history");
    let run = |index: &SegmentIndex| index.run().unwrap();
    type Change = fn(&mut crate::history::SealedSegment, &mut Vec<index::Entry>);
    let changes: [(&str, Change); 4] = [
        ("differs from the one that its blocks make", |segment, _| segment.chunks[0] = Hash::ZERO),
        ("differs from the one that its blocks make", |segment, _| segment.blocks[0] = Hash::ZERO),
        ("has other ids or places than its blocks", |_, run| run[5].index ^= 1),
        ("has other ids or places than its blocks", |_, run| run.truncate(7)),
    ];
    for (name, change) in changes {
        let damaged = crashed(&place.path);
        let index = SegmentIndex::open(&history(&damaged), 0).unwrap();
        let (mut segment, mut run) = (index.segment().unwrap(), run(&index));
        change(&mut segment, &mut run);
        segment_index::write(&history(&damaged), &segment, &run).unwrap();
        let report = verified(&damaged.path, &maker.chain);
        let named = report.problems.iter().any(|problem| problem.to_string().contains(name));
        assert!(named, "{name}: {:?}", report.problems);
    }
    fs::write(place.path.join("blobs/123"), b"").unwrap();
    let report = verified(&place.path, &maker.chain);
    assert!(
        matches!(&report.problems[..], [problem] if problem.what.contains("blobs")),
        "{:?}",
        report.problems
    );
}

/// One bit of a file is flipped. With its own file sled may return an error, panic, or end its log
/// at that bit, which would lose final blocks. The store reports the damage or serves the whole
/// chain, never a shorter or different one.
#[test]
fn damage_to_a_file_is_an_error_and_no_panic() {
    let mut maker = Maker::new(genesis(100));
    let (place, opened) = created(&maker);
    let blocks: Vec<_> = (0..70).map(|_| maker.next(40)).collect();
    opened.store.commit(&blocks[..60]).unwrap();
    opened.store.commit(&blocks[60..]).unwrap();
    opened.store.maintain().unwrap();
    drop(opened);
    let history = Path::new("history");
    let files = [Name::Blocks(0), Name::Index(0), Name::Blocks(1)].map(|name| name.path(history));
    let database = PathBuf::from("db");
    for reopened in [false, true] {
        if reopened {
            // The store was opened a second time, so sled has a snapshot now. It reads the log
            // before the snapshot only when needed.
            drop(Store::open(&place.path, &maker.chain).unwrap());
        }
        for file in files.iter().chain([&database]) {
            let good = fs::read(place.path.join(file)).unwrap();
            let mut found = 0;
            for part in 0..24 {
                let damaged = crashed(&place.path);
                let mut bytes = good.clone();
                bytes[good.len() * part / 24 + 100] ^= 0x10;
                fs::write(damaged.path.join(file), &bytes).unwrap();
                let opened = match Store::open(&damaged.path, &maker.chain) {
                    Ok(opened) => opened,
                    Err(StoreError::Corrupt { .. }) => {
                        found += 1;
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                assert_eq!(opened.store.tip().0, Height(70));
                for committed in &blocks {
                    let one = committed.block.block().transactions[7].id();
                    let place = opened.store.find_transaction(&one);
                    match (opened.store.block_bytes(committed.block.height()), place) {
                        (Ok(bytes), Ok(place)) => {
                            assert_eq!(bytes, Kept::Here(committed.block.bytes().to_vec()));
                            assert_eq!(place, Kept::Here((committed.block.height(), 7)));
                        }
                        (Err(StoreError::Corrupt { .. }), _)
                        | (_, Err(StoreError::Corrupt { .. })) => found += 1,
                        other => panic!("{other:?}"),
                    }
                }
            }
            // Most of sled's file is values that were replaced.
            assert!(*file == database || found > 24, "{found} in {}", file.display());
        }
    }
}

/// The witness file holds its content twice. Damage to one copy does no harm, and damage to both is
/// reported.
#[test]
fn the_witness_stands_for_the_tip() {
    let mut maker = Maker::new(genesis(0));
    let (place, opened) = created(&maker);
    opened.store.commit(&[maker.next(1), maker.next(1)]).unwrap();
    opened.store.commit(&[maker.next(1), maker.next(1)]).unwrap();
    drop(opened);
    let good = fs::read(place.path.join("durable")).unwrap();
    for (damage, opens) in [(&[3][..], true), (&[515], true), (&[3, 515], false)] {
        let mut bytes = good.clone();
        damage.iter().for_each(|at: &usize| bytes[*at] ^= 1);
        fs::write(place.path.join("durable"), bytes).unwrap();
        let result = Store::open(&place.path, &maker.chain).map(drop);
        if opens {
            result.unwrap();
        } else {
            corrupt(result, "durable");
        }
    }
    let other = schema::seal(b"durable", &codec::encode(&(Height(5), BlockHash(Hash::ZERO))));
    fs::write(place.path.join("durable"), &other).unwrap();
    corrupt(Store::open(&place.path, &maker.chain).map(drop), "database");
    assert!(!verified(&place.path, &maker.chain).is_clean());
}
