//! Staging: chunks of an earlier run are found again. Only damaged chunks, and segments that break
//! the rules, are lost.

use super::*;
use crate::hash::ChainId;
use crate::history::{History, HistoryRules, SegmentHead, chunk_hash};

const RULES: HistoryRules =
    HistoryRules { segment_bytes: 100, segment_blocks: 10, chunk_bytes: 16 };
const CHUNKS: u64 = 7;

/// Heads and bytes of segments with seven chunks each, the last chunk shorter.
fn segments(count: u64) -> Vec<(SegmentHead, Vec<u8>)> {
    let mut history = History::new(RULES);
    let segment = |height: u64| {
        let hash = Hash::of(crate::hash::Domain::Block, &[&height.to_le_bytes()]);
        let bytes: Vec<u8> = hash.0.iter().copied().cycle().take(105).collect();
        let (height, block) = (Height(height), BlockHash(hash));
        let sealed = history.push(height, block, &bytes).unwrap();
        let certificate = Certificate { height, block, ..Certificate::genesis(ChainId(hash)) };
        (SegmentHead { descriptor: sealed.descriptor, chunks: sealed.chunks, certificate }, bytes)
    };
    (1..=count).map(segment).collect()
}

fn part(bytes: &[u8], chunk: u64) -> &[u8] {
    bytes.chunks(16).nth(chunk as usize).unwrap()
}

fn open(directory: &Path) -> (Staging, Vec<Found>) {
    Staging::open(directory, RULES).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Two segments of an earlier run: the first is complete, the second has chunks 0, 3 and 6.
fn staged() -> (TempDir, Vec<(SegmentHead, Vec<u8>)>) {
    let directory = tempfile::tempdir().unwrap();
    let all = segments(2);
    let (mut staging, found) = open(directory.path());
    assert_eq!(found, []);
    for (head, bytes) in &all {
        staging.begin(head).unwrap();
        let index = head.descriptor.index;
        for chunk in (0..CHUNKS).rev().filter(|chunk| index == 0 || chunk.is_multiple_of(3)) {
            staging.write(index, chunk, part(bytes, chunk)).unwrap();
            staging.begin(head).unwrap();
        }
    }
    // Nothing is closed or flushed, as after a kill.
    std::mem::forget(staging);
    (directory, all)
}

fn damage(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// All bytes of a segment, or the numbers of the chunks that do not match their hashes.
fn read_all(mut reader: SegmentReader) -> Result<Vec<u8>, Vec<u64>> {
    let read: Vec<_> = (0..CHUNKS).map(|chunk| (chunk, reader.read(chunk).unwrap())).collect();
    assert_eq!(reader.read(CHUNKS).unwrap(), None);
    let bad: Vec<u64> =
        read.iter().filter(|(_, bytes)| bytes.is_none()).map(|(chunk, _)| *chunk).collect();
    if bad.is_empty() {
        Ok(read.into_iter().filter_map(|(_, bytes)| bytes).flatten().collect())
    } else {
        Err(bad)
    }
}

#[test]
fn what_was_written_is_there_after_a_kill() {
    let (directory, all) = staged();
    fs::write(directory.path().join("0.head.new"), "half").unwrap();
    fs::write(directory.path().join("notes.txt"), "not ours").unwrap();
    let (mut staging, found) = open(directory.path());
    let is_there = |index: u64, chunk: u64| index == 0 || chunk.is_multiple_of(3);
    for ((index, (head, chunks)), (expected, bytes)) in (0..).zip(found).zip(&all) {
        assert_eq!(head, *expected);
        assert_eq!(chunks, (0..CHUNKS).map(|chunk| is_there(index, chunk)).collect::<Vec<_>>());
        for _ in 0..2 {
            for chunk in 0..CHUNKS {
                let expected = is_there(index, chunk).then(|| part(bytes, chunk).to_vec());
                assert_eq!(staging.read(index, chunk).unwrap(), expected, "{chunk} of {index}");
            }
        }
        assert_eq!(staging.read(index, CHUNKS).unwrap(), None);
        assert_eq!(staging.read(index, u64::MAX).unwrap(), None);
    }
    assert_eq!(staging.read(2, 0).unwrap(), None);
    assert_eq!(names(directory.path()), ["0.data", "0.head", "1.data", "1.head", "notes.txt"]);

    // The second segment is completed and read on another thread, then both are removed.
    for chunk in 0..CHUNKS {
        staging.write(1, chunk, part(&all[1].1, chunk)).unwrap();
        assert_eq!(staging.reader(1).unwrap().is_some(), chunk >= 5);
    }
    let reader = staging.reader(1).unwrap().unwrap();
    assert_eq!(*reader.head(), all[1].0);
    (0..3).for_each(|index| staging.remove(index).unwrap());
    let read = std::thread::spawn(move || read_all(reader)).join().unwrap();
    assert_eq!(read.as_ref(), Ok(&all[1].1));
    assert!(staging.reader(1).unwrap().is_none());
    assert_eq!(staging.read(1, 0).unwrap(), None);
    assert_eq!(names(directory.path()), ["notes.txt"]);
    assert_eq!(open(directory.path()).1, []);
}

#[test]
fn damaged_bytes_of_an_earlier_run_cost_only_their_chunk() {
    let (directory, all) = staged();
    // Damages a bit of chunk 2 of segment 0, and the mark of chunk 1 of segment 1, which was never
    // written.
    damage(&directory.path().join("0.data"), 40);
    damage(&directory.path().join("1.data"), 105 + 1);
    let (mut staging, found) = open(directory.path());
    assert!(found[0].1.iter().all(|is_there| *is_there), "nothing is read when staging is opened");
    assert_eq!(read_all(staging.reader(0).unwrap().unwrap()), Err(vec![2]));
    assert!(found[1].1[1]);
    assert_eq!(staging.read(1, 1).unwrap(), None);
    let (bytes, others) = (&all[0].1, [0, 1, 3, 4, 5, 6]);
    assert_eq!(staging.read(0, 2).unwrap(), None);
    for chunk in others {
        assert_eq!(staging.read(0, chunk).unwrap().as_deref(), Some(part(bytes, chunk)));
    }
    assert!(staging.reader(0).unwrap().is_none());
    drop(staging);
    // From now on both chunks are known to be missing.
    let (mut staging, found) = open(directory.path());
    let missing = |index: usize| {
        (0..CHUNKS).filter(|chunk| !found[index].1[*chunk as usize]).collect::<Vec<_>>()
    };
    assert_eq!((missing(0), missing(1)), (vec![2], vec![1, 2, 4, 5]));
    staging.write(0, 2, part(bytes, 2)).unwrap();
    assert_eq!(read_all(staging.reader(0).unwrap().unwrap()).as_ref(), Ok(bytes));
    // The owner forgets a chunk that a reader found to be wrong.
    staging.forget(0, 5).unwrap();
    assert_eq!(staging.read(0, 5).unwrap(), None);
    assert!(staging.reader(0).unwrap().is_none());
    drop(staging);
    assert!(!open(directory.path()).1[0].1[5]);
}

/// The disk may damage a chunk after this run has written and checked it.
#[test]
fn a_chunk_is_checked_each_time_that_it_is_read() {
    let (directory, all) = staged();
    let (mut staging, _) = open(directory.path());
    let right = part(&all[0].1, 2);
    for _ in 0..2 {
        assert_eq!(staging.read(0, 2).unwrap().as_deref(), Some(right));
        damage(&directory.path().join("0.data"), 40);
        assert_eq!(staging.read(0, 2).unwrap(), None);
        assert!(staging.reader(0).unwrap().is_none(), "the chunk is missing now");
        staging.write(0, 2, right).unwrap();
    }
}

#[test]
fn what_does_not_fit_is_removed() {
    type Change = fn(&Path);
    let cases: [(&str, Change); 9] = [
        ("a truncated data file", |at| fs::write(at.join("0.data"), vec![1; 111]).unwrap()),
        ("a longer data file", |at| fs::write(at.join("0.data"), vec![1; 113]).unwrap()),
        ("no data file", |at| fs::remove_file(at.join("0.data")).unwrap()),
        ("no head", |at| fs::remove_file(at.join("0.head")).unwrap()),
        ("an empty head", |at| fs::write(at.join("0.head"), "").unwrap()),
        ("garbage for a head", |at| fs::write(at.join("0.head"), [7; 500]).unwrap()),
        ("a damaged head", |at| damage(&at.join("0.head"), 60)),
        ("the head of another segment", |at| {
            assert!(fs::copy(at.join("1.head"), at.join("0.head")).is_ok())
        }),
        ("another spelling", |at| {
            fs::rename(at.join("0.data"), at.join("00.data")).unwrap();
            fs::rename(at.join("0.head"), at.join("00.head")).unwrap();
        }),
    ];
    for (name, change) in cases {
        let (directory, all) = staged();
        change(directory.path());
        let (mut staging, found) = open(directory.path());
        assert_eq!(
            found.iter().map(|(head, _)| head.descriptor.index).collect::<Vec<_>>(),
            [1],
            "{name}"
        );
        let mut left = names(directory.path());
        left.retain(|name| !name.starts_with("00."));
        assert_eq!(left, ["1.data", "1.head"], "{name}");
        // The segment begins again, without chunks.
        staging.begin(&all[0].0).unwrap();
        assert_eq!(staging.read(0, 0).unwrap(), None, "{name}");
        drop(staging);
        assert_eq!(open(directory.path()).1[0].1, [false; CHUNKS as usize], "{name}");
    }
}

#[test]
fn heads_of_other_rules_are_removed_and_another_descriptor_begins_anew() {
    let (directory, all) = staged();
    let mut other = all[0].0.clone();
    other.chunks[2] = chunk_hash(b"x");
    other.descriptor.chunks_root = crate::merkle::root(&other.chunks);
    let (mut staging, _) = open(directory.path());
    staging.begin(&other).unwrap();
    assert_eq!(staging.read(0, 0).unwrap(), None);
    assert!(staging.read(1, 0).unwrap().is_some());
    drop(staging);
    assert_eq!(open(directory.path()).1[0], (other, vec![false; 7]));

    let (_, found) =
        Staging::open(directory.path(), HistoryRules { chunk_bytes: 8, ..RULES }).unwrap();
    assert_eq!(found, []);
    assert_eq!(names(directory.path()), [""; 0]);
}

#[test]
fn the_manifest_is_replaced_whole_and_a_damaged_one_is_none() {
    let (directory, _) = staged();
    let (mut staging, _) = open(directory.path());
    assert_eq!(staging.manifest().unwrap(), None);
    for bytes in [&b"one"[..], &[7; 100_000], b""] {
        staging.put_manifest(bytes).unwrap();
        assert_eq!(staging.manifest().unwrap().as_deref(), Some(bytes));
        assert_eq!(open(directory.path()).0.manifest().unwrap().as_deref(), Some(bytes));
    }
    staging.put_manifest(b"content").unwrap();
    let path = directory.path().join("manifest");
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        damage(&path, at);
        assert_eq!(staging.manifest().unwrap(), None, "{at}");
        fs::write(&path, &whole[..at]).unwrap();
        assert_eq!(staging.manifest().unwrap(), None, "{at}");
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
#[should_panic(expected = "verified before they are stored")]
fn a_chunk_of_another_length_is_never_written() {
    let (directory, all) = staged();
    let (mut staging, _) = open(directory.path());
    let _ = staging.write(0, 6, part(&all[0].1, 0));
}

#[test]
fn a_disk_that_refuses_is_an_error() {
    let (directory, all) = staged();
    let (mut staging, _) = open(directory.path());
    fs::remove_dir_all(directory.path()).unwrap();
    fs::write(directory.path(), "").unwrap();
    let is_io = |result: Result<(), StoreError>| {
        assert!(matches!(result, Err(StoreError::Io { .. })), "{result:?}")
    };
    is_io(staging.write(1, 1, part(&all[1].1, 1)));
    is_io(staging.read(0, 0).map(drop));
    is_io(staging.reader(0).map(drop));
    is_io(staging.put_manifest(b"x"));
    is_io(staging.begin(&segments(3)[2].0));
    assert_eq!(staging.read(1, 1).unwrap(), None, "a chunk whose write failed is missing");
    fs::remove_file(directory.path()).unwrap();
}

/// The directory cannot be made at first.
#[test]
fn a_directory_that_can_be_made_later_is_used_then() {
    let (place, all) = (tempfile::tempdir().unwrap(), segments(1));
    let directory = place.path().join("staging");
    fs::write(&directory, "").unwrap();
    assert!(Staging::open(&directory, RULES).is_err());
    let mut staging = Staging::new(&directory, RULES);
    assert!(matches!(staging.begin(&all[0].0), Err(StoreError::Io { .. })));
    fs::remove_file(&directory).unwrap();
    staging.begin(&all[0].0).unwrap();
    staging.write(0, 0, part(&all[0].1, 0)).unwrap();
    assert_eq!(open(&directory).1.len(), 1);
}

/// A file that cannot be read, and one that cannot be removed, cost only their segment.
#[test]
fn files_that_the_disk_refuses_do_not_hide_the_others() {
    for refused in ["1.head", "1.data", "9.head", "9.data", "manifest.new"] {
        let (directory, all) = staged();
        // A folder can neither be read nor be removed as a file.
        let path = directory.path().join(refused);
        let _ = fs::remove_file(&path);
        fs::create_dir(&path).unwrap();
        let (mut staging, found) = open(directory.path());
        let whole = if refused.starts_with('1') { 1 } else { 2 };
        assert_eq!(found.len(), whole, "{refused}");
        assert_eq!(staging.read(0, 2).unwrap().as_deref(), Some(part(&all[0].1, 2)), "{refused}");
    }
}
