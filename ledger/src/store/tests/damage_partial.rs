//! What `Store::verify` says of a store that lacks blocks.

use super::archive::segments;
use super::damage::put;
use super::partial::{adopted, chain};
use super::*;
use crate::store::pages::Name;
use crate::store::segment_index::SegmentIndex;

fn report(place: &Place, maker: &Maker) -> VerifyReport {
    Store::verify(&place.path, &maker.chain, &mut |_, _| {}).unwrap()
}

/// A store that began with the snapshot of block 54, then got blocks up to 112 and the segments of
/// these numbers. Its checkpoint is at block 110.
fn filled(numbers: &[usize]) -> (Place, Maker, Vec<Committed>) {
    let (maker, blocks) = chain(112, 100);
    let (place, store) = adopted(&maker, &blocks[..110], 54);
    store.write(|writer| store.checkpoint(writer)).unwrap();
    store.commit(&blocks[110..]).unwrap();
    let segments = segments(&blocks);
    numbers.iter().for_each(|number| {
        let (head, bytes) = &segments[*number];
        store.keep_segment(head, bytes).unwrap();
    });
    (place, maker, blocks)
}

#[test]
fn a_store_that_lacks_blocks_is_clean_if_what_it_keeps_is_right() {
    let transactions = |blocks: &[Committed]| {
        blocks.iter().map(|one| one.block.block().transactions.len()).sum::<usize>()
    };
    for (numbers, height, kept, by_hash, executed, checked) in [
        (&[][..], 0, vec![55..=112], 56, 0, 0),
        (&[3, 4, 17], 0, vec![10..=15, 52..=112], 65, 9, 9),
        (&[0, 1, 5], 6, vec![1..=6, 16..=18, 55..=112], 59, 3, 6),
        (&[0, 1, 5], 6, vec![1..=6, 16..=18, 55..=112], 59, 54, 112),
    ] {
        let (place, maker, blocks) = filled(numbers);
        let opened = Store::open(&place.path, &maker.chain).unwrap();
        opened.store.set_executed_to(Height(executed)).unwrap();
        drop(opened);
        let report = report(&place, &maker);
        assert_eq!(report.problems, []);
        let heights =
            |kept: std::ops::RangeInclusive<u64>| Height(*kept.start())..=Height(*kept.end());
        assert_eq!(report.kept, kept.into_iter().map(heights).collect::<Vec<_>>());
        assert_eq!((report.height, report.by_hash), (Height(height), by_hash));
        assert_eq!(report.segments, 19 + numbers.len() as u64);
        let expected = transactions(&blocks[..height as usize]) + transactions(&blocks[110..]);
        assert_eq!(report.transactions, expected as u64);
        let opened = Store::open(&place.path, &maker.chain).unwrap();
        assert_eq!(opened.store.kept_heights(), report.kept);
        let said = (report.executed_to, report.checked_by_hash_to);
        assert_eq!(said, (opened.store.executed_to(), opened.store.checked_by_hash_to()));
        assert_eq!(said, (Height(if executed < 54 { executed } else { 112 }), Height(checked)));
    }
    // The snapshot's block is the tip.
    let (maker, blocks) = chain(54, 100);
    let (place, store) = adopted(&maker, &blocks, 54);
    drop(store);
    let report = report(&place, &maker);
    assert_eq!((report.problems, report.kept, report.by_hash), (vec![], vec![], 0));
}

/// Stores values and files that have correct checksums but a wrong content.
#[test]
fn what_does_not_belong_to_a_store_that_lacks_blocks_is_named() {
    let (place, maker, blocks) = filled(&[3, 4]);
    assert_eq!(report(&place, &maker).problems, []);
    let history = |place: &Path| place.join("history");
    type Damage<'a> = &'a dyn Fn(&Disk, &Path);
    let rewrite = |home: &Path, segment: u64, at: usize| {
        let name = Name::Blocks(segment);
        let descriptor = *SegmentIndex::open(&history(home), segment).unwrap().descriptor();
        let file = pages::Pages::open(&history(home), name).unwrap();
        let mut bytes = file.read(0..descriptor.bytes).unwrap();
        bytes[at] ^= 1;
        pages::write(&history(home), name, 0, &bytes).unwrap();
    };
    let rows: [(&str, Damage); 11] = [
        ("blocks of segment 3: chunk hashes", &|_, home| rewrite(home, 3, 700)),
        ("blocks of segment 30: chunk hashes", &|_, home| rewrite(home, 30, 700)),
        ("index of segment 4: has other ids", &|_, home| {
            let index = SegmentIndex::open(&history(home), 4).unwrap();
            let (segment, mut run) = (index.segment().unwrap(), index.run().unwrap());
            run[0].index ^= 1;
            segment_index::write(&history(home), &segment, &run).unwrap();
        }),
        ("segments: are not those that the header of the tip", &|disk, _| {
            let mut descriptor: crate::history::SegmentDescriptor =
                disk.value(Key::Segment(2)).unwrap().unwrap();
            descriptor.chunks_root = Hash::ZERO;
            put(disk, Key::Segment(2), &codec::encode(&descriptor));
        }),
        ("at the end of segment 17, piece 0: is of another block", &|disk, _| {
            let end = (blocks[50].block.header(), &blocks[50].certificate);
            put_end(disk, 17, &codec::encode(&end));
        }),
        ("at the end of segment 17, piece 0: ", &|disk, _| {
            let last = &blocks[53];
            let mut signatures = last.certificate.clone();
            signatures.round = Round(7);
            put_end(disk, 17, &codec::encode(&(last.block.header(), &signatures)));
        }),
        ("checkpoint: state root", &|disk, _| {
            let (key, content) = first_page(disk);
            let mut entries: Vec<crate::state::Entry> = codec::decode(&content, 10_000).unwrap();
            entries[0].1.balance = Amount(1);
            put(disk, key, &codec::encode(&entries));
        }),
        ("checkpoint marker: missing", &|disk, _| remove(disk, Key::Marker)),
        ("blocks of segment 5: missing", &|disk, _| {
            put(disk, Key::Gap(0), &codec::encode(&!0b11_1000u16));
        }),
        ("segments of era 2 that are not kept: names segments that are not sealed", &|disk, _| {
            put(disk, Key::Gap(2), &codec::encode(&(1u16 << 12)));
        }),
        ("at the end of segment 37, piece 0: beyond the tip", &|disk, _| put_end(disk, 37, b"x")),
    ];
    for (name, damage) in rows {
        let damaged = crashed(&place.path);
        let disk = Disk::open(&damaged.path).unwrap();
        damage(&disk, &damaged.path);
        disk.sync().unwrap();
        drop(disk);
        let report = report(&damaged, &maker);
        let named = report.problems.iter().any(|problem| problem.to_string().contains(name));
        assert!(named, "{name}: {:?}", report.problems);
    }
}

/// The open segment has two blocks, and the checkpoint is at the second one. So no rule is checked
/// for them.
#[test]
fn a_wrong_block_of_the_open_segment_before_the_checkpoint_is_named() {
    let (maker, blocks) = chain(113, 0);
    let (place, store) = adopted(&maker, &blocks, 54);
    store.write(|writer| store.checkpoint(writer)).unwrap();
    drop(store);
    assert_eq!(report(&place, &maker).problems, []);
    for (at, name) in [(30, "block 112: does not follow"), (1_500, "block 113: transactions_root")]
    {
        let damaged = crashed(&place.path);
        let disk = Disk::open(&damaged.path).unwrap();
        let mut tail = disk.get(Key::Tail).unwrap().unwrap();
        tail[at] ^= 1;
        put(&disk, Key::Tail, &tail);
        disk.sync().unwrap();
        drop(disk);
        let report = report(&damaged, &maker);
        let named = report.problems.iter().any(|problem| problem.to_string().contains(name));
        assert!(named, "{name}: {:?}", report.problems);
    }
}

fn put_end(disk: &Disk, segment: u64, content: &[u8]) {
    for (piece, content) in schema::pieces(content) {
        put(disk, Key::End(segment, piece), &content);
    }
}

fn remove(disk: &Disk, key: Key) {
    let mut batch = disk::Batch::default();
    batch.remove(key);
    disk.apply(batch).unwrap();
}

/// The first page of the newest checkpoint.
fn first_page(disk: &Disk) -> (Key, Vec<u8>) {
    let marker: schema::Marker = disk.value(Key::Marker).unwrap().unwrap();
    disk.scan_keys(&prefix::pages(marker.slot)).next().unwrap().unwrap()
}
