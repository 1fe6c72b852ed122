//! Files of snapshots: each is there whole or not at all, and no damaged chunk is given out.

use std::time::Duration;

use super::crash::{files, inside_a_namespace};
use super::*;
use crate::snapshot::{Frontier, SnapshotRules};
use crate::state::State;

const NOW: Duration = Duration::from_secs(1_000);

/// A chain with some snapshots, and a folder for their files.
struct Fixture {
    place: TempDir,
    chain: Arc<Chain>,
    made: Vec<Made>,
}

/// What a snapshot is made of.
struct Made {
    header: Header,
    certificate: Certificate,
    state: State,
    frontier: Arc<Frontier>,
    chunks: Vec<Vec<u8>>,
}

fn fixture(accounts: u64, snapshots: usize) -> Fixture {
    let mut maker = Maker::new(genesis(accounts));
    let rules = SnapshotRules::new(maker.chain.limits());
    let make = |_| {
        let committed = maker.next(3);
        let state = committed.block.state().clone();
        let frontier = Arc::new(Frontier::of(&state, &rules).unwrap());
        let chunks = frontier.chunks(&state).collect();
        let (header, certificate) = (committed.block.header().clone(), committed.certificate);
        Made { header, certificate, state, frontier, chunks }
    };
    let made = (0..snapshots).map(make).collect();
    Fixture { place: tempfile::tempdir().unwrap(), chain: maker.chain, made }
}

impl Fixture {
    fn directory(&self) -> PathBuf {
        self.place.path().join("home").join("snapshots")
    }

    fn open(&self) -> Snapshots {
        let (snapshots, problems) = Snapshots::open(&self.directory(), &self.chain);
        assert_eq!(problems, []);
        snapshots
    }

    fn verify(&self) -> VerifyReport {
        verified(&self.directory(), &self.chain)
    }
}

fn verified(directory: &Path, chain: &Arc<Chain>) -> VerifyReport {
    let mut report = VerifyReport::default();
    Snapshots::verify(directory, chain, &mut report).unwrap();
    report
}

impl Made {
    fn begin(&self, snapshots: &Snapshots) -> Result<SnapshotWriter, StoreError> {
        let (header, certificate) = (self.header.clone(), self.certificate.clone());
        snapshots.begin(header, certificate, Arc::clone(&self.frontier))
    }

    /// Writes the whole snapshot, the last chunk first.
    fn write(&self, snapshots: &Snapshots) -> Result<Arc<SnapshotInfo>, StoreError> {
        let mut writer = self.begin(snapshots)?;
        for index in (0..self.chunks.len()).rev() {
            writer.write(index as u64, &self.chunks[index])?;
        }
        writer.finish()
    }

    fn id(&self) -> crate::hash::SnapshotId {
        self.frontier.id(self.header.height)
    }

    /// Checks that a snapshot is there and gives the state.
    fn check(&self, snapshots: &Snapshots) {
        let id = self.id();
        let info = snapshots.list().into_iter().find(|info| info.id == id).unwrap();
        assert_eq!((&info.header, &info.certificate), (&self.header, &self.certificate));
        assert_eq!(info.frontier, self.frontier);
        let chunk = |index| snapshots.chunk(&id, index, NOW).unwrap();
        let count = self.frontier.chunk_count();
        let chunks: Vec<Vec<u8>> = (0..count).map(|index| chunk(index).unwrap()).collect();
        assert_eq!(chunks, self.chunks);
        assert_eq!((chunk(count), chunk(u64::MAX)), (None, None));
        assert_eq!(snapshots.state(&id).unwrap().unwrap().root(), self.state.root());
    }
}

fn heights(snapshots: &Snapshots) -> Vec<u64> {
    snapshots.list().iter().map(|info| info.header.height.0).collect()
}

#[test]
fn a_snapshot_is_written_in_any_order_and_found_again() {
    let fixture = fixture(2_000, 2);
    let [first, second] = &fixture.made[..] else { unreachable!() };
    assert!(first.chunks.len() > 8);
    let snapshots = fixture.open();
    assert_eq!(snapshots.list(), []);
    assert!(!fixture.directory().exists(), "the folder is made with the first snapshot");

    // Chunks are read while others are still missing. Nothing is listed before the end.
    let mut writer = second.begin(&snapshots).unwrap();
    assert_eq!(writer.info().id, second.id());
    for (index, bytes) in (0..).zip(&second.chunks).skip(3) {
        writer.write(index, bytes).unwrap();
        writer.write(index, bytes).unwrap();
    }
    for (index, bytes) in (0..).zip(&second.chunks) {
        let expected = (index >= 3).then_some(bytes);
        assert_eq!(writer.read(index).unwrap().as_ref(), expected, "{index}");
    }
    assert_eq!(writer.read(u64::MAX).unwrap(), None);
    assert_eq!(snapshots.list(), []);
    assert_eq!(snapshots.chunk(&second.id(), 5, NOW).unwrap(), None);
    for (index, bytes) in (0..).zip(&second.chunks).take(3) {
        writer.write(index, bytes).unwrap();
    }
    let mut reader = writer.reader().unwrap();
    assert_eq!(reader.info(), writer.info());
    let mut read = || -> Vec<Vec<u8>> {
        let count = second.frontier.chunk_count();
        (0..count).map(|index| reader.read(index).unwrap().unwrap()).collect()
    };
    assert_eq!(read(), second.chunks);
    let info = writer.finish().unwrap();
    assert_eq!(snapshots.list(), [info]);
    assert_eq!(read(), second.chunks, "under its new name too");
    first.write(&snapshots).unwrap();
    // Once more the same one.
    second.write(&snapshots).unwrap();

    for snapshots in [snapshots, fixture.open()] {
        assert_eq!(heights(&snapshots), [2, 1]);
        first.check(&snapshots);
        second.check(&snapshots);
    }
    let report = fixture.verify();
    assert_eq!((report.problems, report.snapshots), (vec![], 2));
    assert_eq!(files(&fixture.directory()).len(), 2);

    let snapshots = fixture.open();
    snapshots.remove(&second.id()).unwrap();
    snapshots.remove(&second.id()).unwrap();
    assert_eq!((heights(&snapshots), heights(&fixture.open())), (vec![1], vec![1]));
    assert_eq!(snapshots.chunk(&second.id(), 0, NOW).unwrap(), None);
}

#[test]
fn an_empty_state_is_a_snapshot_too() {
    let mut fixture = fixture(0, 1);
    let made = &mut fixture.made[0];
    made.state = State::default();
    made.header.state_root = made.state.root();
    made.certificate.block = made.header.hash();
    let rules = SnapshotRules::new(fixture.chain.limits());
    made.frontier = Arc::new(Frontier::of(&made.state, &rules).unwrap());
    made.chunks = made.frontier.chunks(&made.state).collect();
    fixture.made[0].write(&fixture.open()).unwrap();
    fixture.made[0].check(&fixture.open());
    // Nobody signed this block.
    let report = fixture.verify();
    assert_eq!((report.problems.len(), report.snapshots), (1, 0), "{report:?}");
}

/// After a kill at any step the snapshot is there whole or not at all, and can be written again.
#[test]
fn a_kill_leaves_a_whole_snapshot_or_none() {
    let fixture = fixture(700, 2);
    let [old, new] = &fixture.made[..] else { unreachable!() };
    let snapshots = fixture.open();
    old.write(&snapshots).unwrap();
    let killed = |step: &str, is_finished: bool| {
        let place = crashed(&fixture.directory());
        assert_eq!(verified(&place.path, &fixture.chain).problems, [], "{step}");
        let before = files(&place.path).len();
        let (again, problems) = Snapshots::open(&place.path, &fixture.chain);
        assert_eq!(problems, [], "{step}");
        assert_eq!(heights(&again), if is_finished { vec![2, 1] } else { vec![1] }, "{step}");
        assert_eq!(files(&place.path).len(), heights(&again).len(), "{step}: nothing is left");
        old.check(&again);
        new.write(&again).unwrap();
        new.check(&again);
        before
    };
    let mut writer = new.begin(&snapshots).unwrap();
    assert_eq!(killed("begun", false), 2);
    for (index, bytes) in (0..).zip(&new.chunks) {
        writer.write(index, bytes).unwrap();
        killed(&format!("chunk {index}"), false);
    }
    writer.finish().unwrap();
    killed("finished", true);

    // A writer that is given up leaves nothing.
    new.begin(&snapshots).unwrap().write(0, &new.chunks[0]).unwrap();
    assert_eq!(files(&fixture.directory()).len(), 2);
    new.check(&snapshots);
}

/// Of a file of which only a part reached the disk, nothing is used.
#[test]
fn other_lengths_and_damaged_heads_are_reported_and_stay() {
    let fixture = fixture(300, 2);
    let [one, other] = &fixture.made[..] else { unreachable!() };
    let snapshots = fixture.open();
    one.write(&snapshots).unwrap();
    let [(path, good)] = &Vec::from_iter(files(&fixture.directory()))[..] else { unreachable!() };
    let name = path.file_name().unwrap().to_str().unwrap();
    let chunks: usize = one.chunks.iter().map(Vec::len).sum();
    let head = good.len() - chunks;
    let reported = |bytes: &[u8], name: &str, what: &str| {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(name);
        fs::write(&path, bytes).unwrap();
        let (found, problems) = Snapshots::open(place.path(), &fixture.chain);
        assert_eq!(found.list(), [], "{what}");
        let [problem] = &problems[..] else { panic!("{what}: {problems:?}") };
        assert_eq!((&problem.what[..], fs::read(&path).unwrap().len()), (name, bytes.len()));
        assert_eq!(verified(place.path(), &fixture.chain).problems, problems, "{what}");
        // A new one takes its place.
        one.write(&found).unwrap();
        one.check(&found);
        problem.reason.clone()
    };
    for length in [0, 1, 8, 24, head / 2, head - 1, head, head + 1, good.len() - 1] {
        reported(&good[..length], name, &format!("{length} bytes"));
    }
    reported(&[&good[..], &[0]].concat(), name, "a byte too many");
    for at in (0..head).step_by(head / 40).chain([0, 7, 8, 15, 16, 23, 24, head - 1]) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        reported(&bytes, name, &format!("a flipped bit at {at}"));
    }
    let mut bytes = good.clone();
    bytes[7] = b'2';
    assert!(reported(&bytes, name, "a later format").contains("format"));
    for other in [format!("2-{}.snapshot", one.id()), format!("1-{}.snapshot", other.id())] {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join(&other), good).unwrap();
        let (found, problems) = Snapshots::open(place.path(), &fixture.chain);
        assert_eq!((found.list().len(), problems.len()), (0, 1), "{other}");
    }

    // Of another chain.
    let chain = Chain::new(genesis(301));
    let (found, problems) = Snapshots::open(&fixture.directory(), &chain);
    assert_eq!((found.list().len(), problems.len()), (0, 1));
    assert!(problems[0].reason.contains("is of chain"), "{problems:?}");

    // What is not ours is left alone.
    let names = ["notes.txt", "01-x.snapshot", "x.part", &format!("0{name}"), &name.to_uppercase()];
    for name in names {
        fs::write(fixture.directory().join(name), "x").unwrap();
    }
    fs::write(fixture.directory().join(format!("{name}.part")), "half").unwrap();
    let snapshots = fixture.open();
    assert_eq!(heights(&snapshots), [1]);
    one.check(&snapshots);
    assert_eq!(files(&fixture.directory()).len(), 1 + names.len());
}

#[test]
fn a_damaged_chunk_is_not_given_out() {
    let fixture = fixture(700, 1);
    let one = &fixture.made[0];
    let snapshots = fixture.open();
    one.write(&snapshots).unwrap();
    let [(path, good)] = &Vec::from_iter(files(&fixture.directory()))[..] else { unreachable!() };
    let chunks: usize = one.chunks.iter().map(Vec::len).sum();
    let start = good.len() - chunks;
    let count = one.chunks.len() as u64;
    for index in 0..count {
        let range = one.frontier.chunk_range(index).unwrap();
        for at in [range.start, range.start + 8, range.end - 1] {
            let mut bytes = good.clone();
            bytes[start + at as usize] ^= 1;
            fs::write(path, bytes).unwrap();
            for snapshots in [&snapshots, &fixture.open()] {
                let damaged: Vec<u64> = (0..count)
                    .filter(|index| {
                        let result = snapshots.chunk(&one.id(), *index, NOW);
                        let is_corrupt = matches!(result, Err(StoreError::Corrupt { .. }));
                        assert!(is_corrupt || result.unwrap().is_some());
                        is_corrupt
                    })
                    .collect();
                assert_eq!(damaged, [index]);
                let state = snapshots.state(&one.id());
                assert!(matches!(state, Err(StoreError::Corrupt { .. })));
            }
            let report = fixture.verify();
            assert_eq!((report.problems.len(), report.snapshots), (1, 0), "{report:?}");
        }
    }
    // The file is cut, and then gone, while the snapshot is offered.
    fs::write(path, &good[..good.len() - 1]).unwrap();
    let last = || snapshots.chunk(&one.id(), count - 1, NOW);
    assert!(matches!(last(), Err(StoreError::Corrupt { .. })));
    fs::remove_file(path).unwrap();
    assert!(matches!(last(), Err(StoreError::Corrupt { .. })));
    snapshots.remove(&one.id()).unwrap();
    assert!(last().unwrap().is_none() && snapshots.state(&one.id()).unwrap().is_none());
}

/// The disk damages the file before it is finished.
#[test]
fn a_snapshot_is_read_back_before_it_counts() {
    let fixture = fixture(700, 1);
    let one = &fixture.made[0];
    let snapshots = fixture.open();
    let mut writer = one.begin(&snapshots).unwrap();
    for (index, bytes) in (0..).zip(&one.chunks) {
        writer.write(index, bytes).unwrap();
    }
    let [path] = &Vec::from_iter(files(&fixture.directory()).into_keys())[..] else { panic!() };
    let mut bytes = fs::read(path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(path, &bytes).unwrap();
    // A chunk that is found to be wrong can be written again.
    let index = one.frontier.chunk_count() - 1;
    assert_eq!(writer.read(index).unwrap(), None);
    writer.write(index, &one.chunks[index as usize]).unwrap();
    assert!(writer.read(index).unwrap().is_some());
    bytes[last] ^= 1;
    bytes[last - one.chunks[index as usize].len()] ^= 1;
    fs::write(path, &bytes).unwrap();
    let mut reader = writer.reader().unwrap();
    assert!(matches!(writer.finish(), Err(StoreError::Corrupt { .. })));
    assert_eq!(snapshots.list(), []);
    assert!(files(&fixture.directory()).is_empty());
    let read = [0, index - 1, index].map(|chunk| reader.read(chunk).unwrap().is_some());
    assert_eq!(read, [true, false, true], "what was damaged is not served");

    let mut writer = one.begin(&snapshots).unwrap();
    for (index, bytes) in (0..).zip(&one.chunks) {
        writer.write(index, bytes).unwrap();
    }
    bytes = fs::read(path).unwrap();
    bytes[40] ^= 1;
    fs::write(path, &bytes).unwrap();
    assert!(matches!(writer.finish(), Err(StoreError::Corrupt { .. })), "the head too");
}

/// The system reports a failed sync once, and may have lost anything written since the sync before.
#[test]
#[cfg(target_os = "linux")]
fn after_a_failed_sync_all_chunks_are_written_again() {
    let fixture = fixture(700, 1);
    let one = &fixture.made[0];
    let snapshots = fixture.open();
    let mut writer = one.begin(&snapshots).unwrap();
    for (index, bytes) in (0..).zip(&one.chunks) {
        writer.write(index, bytes).unwrap();
    }
    assert!(writer.missing().is_empty());
    // This device takes any bytes, and refuses to sync.
    let refuses = fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
    let file = std::mem::replace(&mut writer.file, refuses);
    let error = (0..10_000).find_map(|_| writer.write(0, &one.chunks[0]).err());
    assert!(matches!(error, Some(StoreError::Io { .. })), "{error:?}");
    writer.file = file;
    assert_eq!(writer.missing(), Vec::from_iter(0..one.frontier.chunk_count()));
    for (index, bytes) in (0..).zip(&one.chunks) {
        writer.write(index, bytes).unwrap();
    }
    writer.finish().unwrap();
    one.check(&snapshots);
}

/// A snapshot whose name the disk does not make durable does not stay as a file that is not listed.
#[test]
fn a_snapshot_whose_name_is_refused_leaves_no_file() {
    let fixture = fixture(700, 1);
    let one = &fixture.made[0];
    let snapshots = fixture.open();
    one.write(&snapshots).unwrap();
    snapshots.remove(&one.id()).unwrap();
    disk::refuse_names(true);
    let refused = one.write(&snapshots);
    disk::refuse_names(false);
    assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
    assert_eq!((snapshots.list(), files(&fixture.directory()).len()), (vec![], 0));
    one.write(&snapshots).unwrap();
    one.check(&snapshots);
}

/// A file that cannot be read, and one that cannot be removed, do not hide the others.
#[test]
fn a_file_that_the_disk_refuses_is_a_problem_of_its_own() {
    let fixture = fixture(700, 2);
    let [one, other] = &fixture.made[..] else { unreachable!() };
    one.write(&fixture.open()).unwrap();
    let name = format!("{}-{}.snapshot", other.header.height, other.id());
    for refused in [name.clone(), format!("{name}.part")] {
        // A folder can neither be read nor be removed as a file.
        let path = fixture.directory().join(&refused);
        fs::create_dir(&path).unwrap();
        let (snapshots, problems) = Snapshots::open(&fixture.directory(), &fixture.chain);
        assert_eq!(problems.len(), 1, "{refused}: {problems:?}");
        assert!(problems[0].what.contains(&refused), "{problems:?}");
        one.check(&snapshots);
        fs::remove_dir(path).unwrap();
    }
}

/// A file has the name of the folder.
#[test]
fn a_folder_that_cannot_be_read_is_a_problem() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("snapshots");
    fs::write(&path, "").unwrap();
    let (snapshots, problems) = Snapshots::open(&path, &Chain::new(genesis(0)));
    assert_eq!((problems.len(), snapshots.list().len()), (1, 0), "{problems:?}");
    assert_eq!(problems[0].what, path.display().to_string());
}

#[test]
fn old_snapshots_go_unless_they_are_in_use() {
    let fixture = fixture(0, 6);
    let snapshots = fixture.open();
    fixture.made.iter().for_each(|made| drop(made.write(&snapshots).unwrap()));
    let ask = |index: usize| fixture.made[index].check(&snapshots);
    // Written in any order, newest first.
    assert_eq!(heights(&snapshots), [6, 5, 4, 3, 2, 1]);
    (0..3).for_each(ask);
    snapshots.prune(NOW).unwrap();
    assert_eq!(heights(&snapshots), [6, 5, 3, 2]);
    snapshots.prune(NOW + Duration::from_secs(599)).unwrap();
    assert_eq!(heights(&snapshots), [6, 5, 3, 2]);
    snapshots.prune(NOW + Duration::from_secs(600)).unwrap();
    assert_eq!((heights(&snapshots), heights(&fixture.open())), (vec![6, 5], vec![6, 5]));
}

/// Writes a snapshot while the disk has room for some pages of 4 KiB. Whichever step the disk
/// refuses, there is no half of it, and once there is room it can be written.
#[test]
fn a_full_disk_leaves_no_half_of_a_snapshot() {
    if inside_a_namespace().is_none() {
        return;
    }
    let fixture = fixture(700, 2);
    let [old, new] = &fixture.made[..] else { unreachable!() };
    let snapshots = fixture.open();
    old.write(&snapshots).unwrap();
    let rest = fixture.place.path().join("rest");
    let (mut refused, mut accepted) = (0, 0);
    for pages in 0..30 {
        fs::write(&rest, vec![0; 24 << 20]).unwrap_err();
        let file = fs::File::options().write(true).open(&rest).unwrap();
        file.set_len(file.metadata().unwrap().len() - pages * 4_096).unwrap();
        match new.write(&snapshots) {
            Ok(_) => accepted += 1,
            Err(StoreError::Io { .. }) => {
                refused += 1;
                assert_eq!(heights(&snapshots), [1]);
                assert_eq!(files(&fixture.directory()).len(), 1, "{pages}");
            }
            Err(error) => panic!("{error}"),
        }
        snapshots.remove(&new.id()).unwrap();
        fs::remove_file(&rest).unwrap();
        old.check(&snapshots);
    }
    assert!(refused >= 5 && accepted > 0, "{refused} refused, {accepted} accepted");
    new.write(&snapshots).unwrap();
    new.check(&fixture.open());
}

#[test]
#[should_panic(expected = "verified before they are written")]
fn a_chunk_of_another_length_is_never_written_to_a_snapshot() {
    let fixture = fixture(700, 1);
    let made = &fixture.made[0];
    let mut writer = made.begin(&fixture.open()).unwrap();
    let _ = writer.write(0, &made.chunks[0][1..]);
}

#[test]
#[should_panic(expected = "finished when all of its chunks are there")]
fn a_snapshot_that_lacks_a_chunk_is_never_finished() {
    let fixture = fixture(700, 1);
    let made = &fixture.made[0];
    let mut writer = made.begin(&fixture.open()).unwrap();
    for index in 1..made.chunks.len() {
        writer.write(index as u64, &made.chunks[index]).unwrap();
    }
    let _ = writer.finish();
}
