//! Damage to any kind of value and to the files is reported, damage to a value by its name. Damaged
//! data is never served.

use std::fs;

use super::*;

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
    assert!(opened.store.segment(0).unwrap().is_some());
    assert!(opened.store.put_evidence(None, b"name", b"content").unwrap());
    drop(opened);
    assert_eq!(verified(&place.path, &maker.chain).problems, []);

    type Read = fn(&Store, &[Committed]) -> Result<(), StoreError>;
    type Row<'a> = (&'a dyn Fn(&Store) -> Key, &'a str, bool, Read);
    let page = |store: &Store| {
        store.shared.disk.scan_keys(&prefix::pages(schema::Slot::A)).next().unwrap().unwrap().0
    };
    let evidence =
        |store: &Store| store.shared.disk.scan_keys(&prefix::EVIDENCE).next().unwrap().unwrap().0;
    let hash = blocks[4].block.hash();
    let rows: [Row; 12] = [
        (&|_| Key::Body(Height(9), 0), "block 9, piece 0", false, |store, _| {
            store.block(Height(9)).map(drop)
        }),
        (&|_| Key::Body(Height(9), 0), "block 9, piece 0", false, |store, _| {
            store.certificate(Height(8)).map(drop)
        }),
        (&|_| Key::Body(Height(9), 0), "block 9, piece 0", false, |store, blocks| {
            store.find_transaction(&blocks[8].block.block().transactions[3].id()).map(drop)
        }),
        (&|_| Key::HeightOf(hash), "height of block", false, |store, blocks| {
            store.height_of(&blocks[4].block.hash()).map(drop)
        }),
        (&|_| Key::Segment(0, 0), "segment 0", true, |store, _| store.segment(0).map(drop)),
        (&|_| Key::RunPiece(0, 0), "run 0, piece 0", false, |store, blocks| {
            let mut all = blocks.iter().flat_map(|one| &one.block.block().transactions);
            all.try_for_each(|one| store.find_transaction(&one.id()).map(drop))
        }),
        (&evidence, "evidence", false, |store, _| store.evidence().map(drop)),
        (&|_| Key::Tip, "tip", true, |_, _| Ok(())),
        (&|_| Key::TipCertificate(0), "certificate of the tip", true, |_, _| Ok(())),
        (&|_| Key::Marker, "marker", true, |_, _| Ok(())),
        (&page, "state page", true, |_, _| Ok(())),
        (&|_| Key::Run(0, 0), "run 0, description", true, |_, _| Ok(())),
    ];
    for (row, (key, name, stops, read)) in rows.into_iter().enumerate() {
        for at in [row, 7, 8, 1_000_003] {
            let damaged = crashed(&place.path);
            let opened = Store::open(&damaged.path, &maker.chain).unwrap();
            let key = key(&opened.store);
            read(&opened.store, &blocks).unwrap();
            flip(&opened.store, key, at);
            if !stops || name.starts_with("segment") {
                corrupt(read(&opened.store, &blocks), name);
            }
            drop(opened);
            let report = verified(&damaged.path, &maker.chain);
            assert!(
                report.problems.iter().any(|problem| problem.what.contains(name)),
                "{name}: {:?}",
                report.problems
            );
            match Store::open(&damaged.path, &maker.chain) {
                Ok(_) => assert!(!stops, "{name} is needed to open"),
                Err(error) => {
                    assert!(stops, "{name}: {error}");
                    corrupt(Err::<(), _>(error), name);
                }
            }
        }
    }
}

type Damage = fn(&Disk);

fn put(disk: &Disk, key: Key, content: &[u8]) {
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

    let rows: [(&str, Damage); 11] = [
        ("unknown", |disk| disk.put_raw(&[99, 1], &schema::seal(&[99, 1], b"x"))),
        ("beyond the tip", |disk| put(disk, Key::Body(Height(71), 0), b"x")),
        ("beyond the tip", |disk| put(disk, Key::Segment(9, 0), b"x")),
        ("heights by hash: 71, expected 70", |disk| {
            put(disk, Key::HeightOf(BlockHash(Hash::ZERO)), &codec::encode(&Height(3)))
        }),
        ("height of block", |disk| {
            let (key, _) = first(disk, &[6]);
            put(disk, key, &codec::encode(&Height(3_000)));
        }),
        ("differs from the segment that its blocks make", |disk| {
            let mut other = crate::store::segments::segment(disk, 0).unwrap();
            other.chunks[0] = Hash::ZERO;
            let record = super::super::commit::segment_record(&other);
            for (piece, content) in schema::pieces(&record) {
                put(disk, Key::Segment(0, piece), &content);
            }
        }),
        ("other entries", |disk| {
            let (key, content) = first(disk, &prefix::pages(schema::Slot::A));
            let mut entries: Vec<crate::state::Entry> = codec::decode(&content, 10_000).unwrap();
            entries[0].1.balance = Amount(1);
            put(disk, key, &codec::encode(&entries));
        }),
        ("pages, expected", |disk| {
            let (Key::Page(slot, mut page), content) = first(disk, &prefix::pages(schema::Slot::A))
            else {
                panic!()
            };
            page.depth += 1;
            put(disk, Key::Page(slot, page), &content);
        }),
        ("transaction index", |disk| {
            let mut entries: Vec<index::Entry> = disk.value(Key::RunPiece(0, 0)).unwrap().unwrap();
            entries[5].index += 1;
            put(disk, Key::RunPiece(0, 0), &codec::encode(&entries));
        }),
        ("its entries are not sorted", |disk| {
            let mut entries: Vec<index::Entry> = disk.value(Key::RunPiece(0, 1)).unwrap().unwrap();
            entries.swap(3, 4);
            put(disk, Key::RunPiece(0, 1), &codec::encode(&entries));
        }),
        ("signature of transaction 9 does not hold", |disk| {
            let mut bytes = block_bytes(disk, Height(5)).unwrap();
            let last = bytes.len() - 1;
            bytes[last - 40] ^= 1;
            for (piece, content) in schema::pieces(&bytes) {
                put(disk, Key::Body(Height(5), piece), &content);
            }
        }),
    ];
    for (name, damage) in rows {
        let damaged = crashed(&place.path);
        let disk = Disk::open(&damaged.path).unwrap();
        damage(&disk);
        disk.sync().unwrap();
        drop(disk);
        let report = verified(&damaged.path, &maker.chain);
        assert!(!report.is_clean());
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

/// One bit of sled's file is flipped. sled itself may return an error, panic, or end its log at
/// that bit, which would lose final blocks. The store reports the damage or serves the whole chain,
/// never a shorter or different one.
#[test]
fn damage_to_the_file_is_an_error_and_no_panic() {
    let mut maker = Maker::new(genesis(100));
    let (place, opened) = created(&maker);
    let blocks: Vec<_> = (0..70).map(|_| maker.next(40)).collect();
    opened.store.commit(&blocks[..60]).unwrap();
    opened.store.commit(&blocks[60..]).unwrap();
    opened.store.maintain().unwrap();
    drop(opened);
    let mut found = 0;
    for reopened in [false, true] {
        if reopened {
            // The store was opened a second time, so sled has a snapshot now. It reads the log
            // before the snapshot only when needed.
            drop(Store::open(&place.path, &maker.chain).unwrap());
        }
        let good = fs::read(place.path.join("db")).unwrap();
        for part in 0..48 {
            let damaged = crashed(&place.path);
            let mut bytes = good.clone();
            bytes[good.len() * part / 48 + 100] ^= 0x10;
            fs::write(damaged.path.join("db"), &bytes).unwrap();
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
                match opened.store.block_bytes(committed.block.height()) {
                    Ok(bytes) => assert_eq!(bytes.as_ref(), Some(&**committed.block.bytes())),
                    Err(StoreError::Corrupt { .. }) => found += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    assert!(found > 48, "{found}");
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
