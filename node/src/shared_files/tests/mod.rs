#![allow(clippy::unwrap_used)]

mod reboot;
mod room;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ledger::file::{CHUNK_BYTES, FileDescriptor, FileHead, SEGMENT_BYTES};
use ledger::units::SegmentIndex;
use protocol::swarm::{SegmentRange, SegmentRanges};
use tempfile::TempDir;

use super::serving::{HeldFile, ReadError};
use super::*;

const CHUNK: usize = CHUNK_BYTES as usize;
const ROOMY: Limits = Limits { quota: 1 << 40, reserve: 0 };

/// The files of a home, and what they tell the driver.
struct Home {
    folder: TempDir,
    files: SharedFiles,
    messages: mpsc::Receiver<ToFiles>,
}

impl Home {
    fn new(limits: Limits) -> Self {
        Self::open(tempfile::tempdir().unwrap(), limits)
    }

    fn open(folder: TempDir, limits: Limits) -> Self {
        let (files, messages, problems) =
            SharedFiles::open(&folder.path().join("files"), limits).unwrap();
        assert_eq!(problems, Vec::<String>::new());
        Self { folder, files, messages }
    }

    /// The process ends and another one begins.
    fn restart(self) -> Self {
        Self::open(self.folder, ROOMY)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    fn share(&self, path: &Path) -> Result<FileId, FilesError> {
        let cancel = Cancel::default();
        let name = path.file_name().unwrap().to_string_lossy();
        self.files.share(File::open(path)?, &name, &cancel.reading()).map(|(id, _)| id)
    }

    fn told(&mut self) -> Vec<ToFiles> {
        std::iter::from_fn(|| self.messages.try_recv().ok()).collect()
    }

    fn state(&self, id: &FileId) -> FileState {
        self.files.info(id).unwrap().state
    }

    /// The names in the folder of files.
    fn names(&self) -> Vec<String> {
        let names = names_in(&self.path("files")).unwrap();
        let mut names: Vec<_> = names.into_iter().map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Fetches parts of a file from another home, as the driver does.
    fn fetch(&self, from: &Self, id: &FileId, chunks: std::ops::Range<u64>) {
        for chunk in chunks {
            let head = from.files.read_head(id, chunk / 128).unwrap().unwrap();
            self.files.begin_segment(&head).unwrap();
            let bytes = from.files.read_chunk(id, chunk).unwrap().unwrap();
            self.files.write_chunk(id, chunk, &bytes).unwrap();
        }
    }
}

/// Bytes in which no two chunks are the same.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(((at / CHUNK) * 7 + at % 251) % 256).unwrap()).collect()
}

fn whole(file: &FileDescriptor) -> SegmentRanges {
    SegmentRanges::before(SegmentIndex(file.segments()))
}

#[test]
fn a_file_is_shared_in_place_and_served_with_proofs() {
    let mut home = Home::new(ROOMY);
    let content = bytes(130 * CHUNK + 5);
    let id = home.share(&home.write("a", &content)).unwrap();
    let info = home.files.info(&id).unwrap();
    assert_eq!(
        (info.name.as_str(), info.state, info.have_bytes),
        ("a", FileState::Shared, 17_039_365)
    );
    let told = home.told();
    let [ToFiles::Gone(_), ToFiles::Have(held)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((held.descriptor.id(), &held.open), (id, &Vec::new()));
    assert_eq!(held.whole, whole(&held.descriptor));
    assert_eq!(home.files.begin(), [ToFiles::Have(held.clone())]);
    for chunk in 0..131 {
        let head: FileHead = home.files.read_head(&id, chunk / 128).unwrap().unwrap();
        head.verify(&id).unwrap();
        let got = home.files.read_chunk(&id, chunk).unwrap().unwrap();
        let place = usize::try_from(chunk).unwrap() * CHUNK;
        assert_eq!(got, content[place..(place + CHUNK).min(content.len())]);
    }
    assert!(home.files.read_chunk(&id, 131).unwrap().is_none());
    assert!(home.files.read_head(&id, 2).unwrap().is_none());
    assert_eq!(home.files.info(&id).unwrap().served_bytes, content.len() as u64);
    // Nothing of it is in the home but the list of hashes.
    assert_eq!(home.names(), [format!("{id}.heads"), format!("{id}.json")]);
    home.files.unshare(&id).unwrap();
    assert_eq!((home.told(), home.names().len()), (vec![ToFiles::Gone(id)], 0));
    assert!(matches!(home.files.unshare(&id), Err(FilesError::Unknown(_))));
    assert!(home.path("a").exists(), "the user's file stays");
}

#[test]
fn a_shared_file_is_detached_after_a_restart_until_it_is_shared_again() {
    let home = Home::new(ROOMY);
    let path = home.write("a", &bytes(3 * CHUNK));
    let id = home.share(&path).unwrap();
    let mut home = home.restart();
    assert_eq!(home.state(&id), FileState::Detached);
    assert_eq!(home.files.begin(), []);
    assert!(home.files.read_chunk(&id, 0).unwrap().is_none());
    assert!(matches!(home.files.open_bytes(&id), Err(FilesError::NotHere(_))));
    // Hashing would have another result, so nothing is hashed.
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    file.set_modified(time).unwrap();
    assert_eq!(home.share(&path).unwrap(), id);
    assert_eq!(home.state(&id), FileState::Shared);
    assert!(matches!(&home.told()[..], [ToFiles::Have(_)]));
    // The change shows when the chunk is to leave. That ends the file, and no peer gets the bytes.
    assert!(home.files.read_chunk(&id, 1).unwrap().is_some());
    assert!(matches!(home.files.read_chunk(&id, 0), Err(ReadError::Changed)));
    assert_eq!(home.state(&id), FileState::Changed);
    assert!(home.files.read_chunk(&id, 1).unwrap().is_none());
    // Then it is hashed anew, and has another id.
    let other = home.share(&path).unwrap();
    assert_ne!(other, id);
    assert_eq!(home.state(&other), FileState::Shared);
}

#[test]
fn a_file_that_does_not_look_the_same_is_hashed_anew() {
    let home = Home::new(ROOMY);
    let path = home.write("a", &bytes(2 * CHUNK));
    let id = home.share(&path).unwrap();
    for (change, content) in [("longer", bytes(2 * CHUNK + 1)), ("another", bytes(2 * CHUNK))] {
        fs::remove_file(&path).unwrap();
        fs::write(home.path("occupies the inode"), "").unwrap();
        fs::write(&path, content).unwrap();
        let again = home.share(&path).unwrap();
        assert_eq!(again == id, change == "another", "{change}");
    }
    // A file that is cut after it was shared, and one that is gone.
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(10).unwrap();
    assert!(matches!(home.files.open_bytes(&id), Err(FilesError::Changed)));
    assert_eq!(home.state(&id), FileState::Changed);
    let other = home.write("b", &bytes(CHUNK));
    let gone = home.share(&other).unwrap();
    fs::remove_file(other).unwrap();
    assert!(home.files.read_chunk(&gone, 0).unwrap().is_some(), "its descriptor is open");
}

#[test]
fn only_regular_files_are_shared_and_names_are_shown_harmless() {
    let home = Home::new(ROOMY);
    for path in [home.folder.path().to_owned(), PathBuf::from("/dev/null")] {
        assert!(matches!(home.share(&path), Err(FilesError::NotRegular)), "{path:?}");
    }
    let path = home.write("a", b"bytes");
    let cancel = Cancel::default();
    for (name, expected) in [
        ("../../etc/passwd", "../../etc/passwd"),
        ("it's \"so\"", "it's \"so\""),
        ("\u{1b}[2J\r\n\u{9b}x\u{202e}", "\\u{1b}[2J\\r\\n\\u{9b}x\\u{202e}"),
        ("Bär.txt", "Bär.txt"),
        (&"x".repeat(5_000), &"x".repeat(255)),
    ] {
        let file = File::open(&path).unwrap();
        let id = home.files.share(file, name, &cancel.reading()).unwrap().0;
        assert_eq!(home.files.info(&id).unwrap().name, expected);
        assert_eq!(home.names(), [format!("{id}.heads"), format!("{id}.json")]);
        home.files.unshare(&id).unwrap();
    }
}

#[test]
fn a_file_is_fetched_in_parts_and_survives_the_end_of_the_process() {
    let content = bytes(300 * CHUNK - 9);
    let source = Home::new(ROOMY);
    let id = source.share(&source.write("a", &content)).unwrap();
    let mut home = Home::new(ROOMY);
    home.files.get(id, &[(SEGMENT_BYTES, SEGMENT_BYTES)], "b").unwrap();
    let bounds = (SEGMENT_BYTES, 2 * SEGMENT_BYTES - 1);
    let fetch = ToFiles::Fetch { id, range: Some(bounds), held: None };
    assert_eq!(home.told(), std::slice::from_ref(&fetch));
    assert_eq!((home.state(&id), home.files.begin()), (FileState::Fetching, vec![fetch]));
    let home = home.restart();
    assert_eq!(home.files.info(&id).unwrap().bytes, None);
    home.fetch(&source, &id, 128..140);
    let home = home.restart();
    let info = home.files.info(&id).unwrap();
    assert_eq!((info.have_bytes, info.left_bytes), (12 * CHUNK_BYTES, 116 * CHUNK_BYTES));
    let begun = home.files.begin();
    let [ToFiles::Fetch { range, held: Some(HeldFile { whole, open, .. }), .. }] = &begun[..]
    else {
        panic!("{begun:?}")
    };
    assert_eq!((*range, whole), (Some(bounds), &SegmentRanges::default()));
    assert_eq!((open.len(), open[0].0.index()), (1, 1));
    assert!(open[0].1.iter().enumerate().all(|(chunk, is_here)| *is_here == (chunk < 12)));
    home.fetch(&source, &id, 140..256);
    assert_eq!(home.state(&id), FileState::Partial);
    home.files.get(id, &[], "").unwrap();
    assert_eq!(
        (home.state(&id), home.files.info(&id).unwrap().name.as_str()),
        (FileState::Fetching, "b")
    );
    home.fetch(&source, &id, 0..128);
    home.fetch(&source, &id, 256..300);
    assert_eq!(home.state(&id), FileState::Kept);
    let mut home = home.restart();
    let begun = home.files.begin();
    assert!(matches!(&begun[..], [ToFiles::Have(held)] if held.whole == whole_of(held)));
    assert_eq!(fs::read(home.path("files").join(id.to_string())).unwrap(), content);
    let mut copy = Vec::new();
    std::io::Read::read_to_end(&mut home.files.open_bytes(&id).unwrap(), &mut copy).unwrap();
    assert!(copy == content);
    // Asking again fetches nothing.
    home.files.get(id, &[], "").unwrap();
    assert!(matches!(&home.told()[..], [ToFiles::Have(_)]));
}

fn whole_of(held: &HeldFile) -> SegmentRanges {
    whole(&held.descriptor)
}

#[test]
fn a_damaged_chunk_in_the_home_is_fetched_again() {
    let source = Home::new(ROOMY);
    let id = source.share(&source.write("a", &bytes(5 * CHUNK))).unwrap();
    let home = Home::new(ROOMY);
    home.files.get(id, &[], "").unwrap();
    home.fetch(&source, &id, 0..5);
    let path = home.path("files").join(id.to_string());
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[255], 2 * CHUNK_BYTES + 7).unwrap();
    assert!(matches!(home.files.read_chunk(&id, 2), Err(ReadError::Damaged)));
    assert!(home.files.read_chunk(&id, 2).unwrap().is_none());
    let home = home.restart();
    assert_eq!(home.files.info(&id).unwrap().left_bytes, CHUNK_BYTES);
    home.fetch(&source, &id, 2..3);
    assert!(home.files.read_chunk(&id, 2).unwrap().is_some());
}

#[test]
fn bytes_that_a_command_sends_are_kept_in_the_home() {
    let home = Home::new(ROOMY);
    let content = bytes(3 * CHUNK + 16);
    let send = |length: u64| {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let bytes = content.clone();
        let sender = std::thread::spawn(move || ours.write_all(&bytes));
        let cancel = Cancel::default();
        let done = home.files.receive(theirs, length, "sealed", &cancel.reading());
        (done, sender.join().unwrap())
    };
    let length = content.len() as u64;
    let (id, shared) = send(length).0.unwrap();
    assert_eq!((shared.bytes, shared.chunks), (length, 4));
    assert_eq!(fs::read(home.path("files").join(id.to_string())).unwrap(), content);
    for (wrong, part) in [(length + 1, "changed"), (length - 1, "changed")] {
        let error = send(wrong).0.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(home.names().len(), 4, "{:?}", home.names());
    let home = home.restart();
    assert_eq!(home.state(&id), FileState::Kept);
}

#[test]
fn whoever_asked_may_go_away_while_a_file_is_hashed() {
    let home = Home::new(ROOMY);
    let path = home.write("a", &bytes(CHUNK));
    let cancel = Cancel::default();
    let reader = cancel.reading();
    drop(cancel);
    let file = File::open(&path).unwrap();
    assert!(matches!(home.files.share(file, "a", &reader), Err(FilesError::GivenUp)));
    // The sender of a private file sends nothing, and its command is gone.
    let (_ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    assert!(matches!(home.files.receive(theirs, 5, "a", &reader), Err(FilesError::GivenUp)));
    assert_eq!((home.names().len(), home.files.list().len()), (0, 0));
}

#[test]
fn sparse_files_are_hashed_by_their_data_and_stay_sparse() {
    const GIB: u64 = 1 << 30;
    let source = Home::new(ROOMY);
    let path = source.path("a");
    let file = File::create(&path).unwrap();
    file.set_len(4 * GIB + 5).unwrap();
    file.write_all_at(b"data", 3 * GIB).unwrap();
    let id = source.share(&path).unwrap();
    let home = Home::new(ROOMY);
    home.files.get(id, &[(3 * GIB, 3 * GIB), (4 * GIB, u64::MAX)], "").unwrap();
    let first = 3 * GIB / CHUNK_BYTES;
    home.fetch(&source, &id, first..first + 128);
    home.fetch(&source, &id, 4 * GIB / CHUNK_BYTES..4 * GIB / CHUNK_BYTES + 1);
    let info = home.files.info(&id).unwrap();
    assert_eq!((info.state, info.have_bytes), (FileState::Partial, SEGMENT_BYTES + 5));
    let stored = home.path("files").join(id.to_string());
    let found = fs::metadata(&stored).unwrap();
    assert_eq!(found.len(), 4 * GIB + 5);
    assert!(found.blocks() * 512 < 1 << 20, "{} blocks", found.blocks());
    let mut data = [0; 4];
    File::open(&stored).unwrap().read_exact_at(&mut data, 3 * GIB).unwrap();
    assert_eq!(&data, b"data");
}

#[test]
fn an_empty_file_is_whole_at_once() {
    let home = Home::new(ROOMY);
    let id = FileDescriptor::empty().id();
    home.files.get(id, &[], "").unwrap();
    assert_eq!(home.state(&id), FileState::Kept);
    let other = Home::new(ROOMY);
    assert_eq!(other.share(&other.write("a", b"")).unwrap(), id);
    assert_eq!(other.restart().state(&id), FileState::Detached);
}

#[test]
fn a_file_that_is_shared_while_it_is_fetched_is_fetched_no_more() {
    let source = Home::new(ROOMY);
    let id = source.share(&source.write("a", &bytes(3 * CHUNK))).unwrap();
    let mut home = Home::new(ROOMY);
    home.files.get(id, &[], "").unwrap();
    home.fetch(&source, &id, 0..1);
    home.told();
    assert_eq!(home.share(&home.write("b", &bytes(3 * CHUNK))).unwrap(), id);
    assert!(matches!(&home.told()[..], [ToFiles::Gone(_), ToFiles::Have(_)]));
    assert_eq!(home.state(&id), FileState::Shared);
    assert!(home.files.write_chunk(&id, 0, &bytes(CHUNK)).is_err(), "a user's file is not written");
    // A detached file may be fetched instead.
    let home = home.restart();
    home.files.get(id, &[], "").unwrap();
    assert_eq!(home.state(&id), FileState::Fetching);
}

#[test]
fn leftovers_are_removed_and_foreign_files_left_alone() {
    let home = Home::new(ROOMY);
    let id = home.share(&home.write("a", b"bytes")).unwrap();
    let folder = home.path("files");
    let other = FileDescriptor { length: 9, ..FileDescriptor::empty() }.id();
    for name in ["new-0", "new-17.heads", &other.to_string(), &format!("{other}.chunks")] {
        fs::write(folder.join(name), "leftover").unwrap();
    }
    fs::write(folder.join("notes"), "mine").unwrap();
    fs::write(folder.join(format!("{other}.json")), "{}").unwrap();
    symlink("/etc/passwd", folder.join(format!("{other}.heads"))).unwrap();
    let (files, _, problems) = SharedFiles::open(&folder, ROOMY).unwrap();
    assert!(problems.len() == 1 && problems[0].contains(&other.to_string()), "{problems:?}");
    assert!(files.info(&id).is_some() && files.info(&other).is_none());
    assert!(folder.join("notes").exists() && !folder.join("new-0").exists());
    assert!(!folder.join("new-17.heads").exists());
    // The bytes of an entry that cannot be read are left, as its list may be repaired.
    assert!(folder.join(other.to_string()).exists());
}

#[test]
fn ranges_are_bounded() {
    let Home { folder, files, mut messages } = Home::new(ROOMY);
    let driver = std::thread::spawn(move || while messages.blocking_recv().is_some() {});
    let id = FileDescriptor { length: 9, ..FileDescriptor::empty() }.id();
    let range = |index: u64| (2 * index * SEGMENT_BYTES, 2 * index * SEGMENT_BYTES);
    let many: Vec<(u64, u64)> = (0..256).map(range).collect();
    files.get(id, &many, "").unwrap();
    assert!(matches!(files.get(id, &[range(256)], ""), Err(FilesError::Ranges)));
    drop(files);
    driver.join().unwrap();
    let home = Home::open(folder, ROOMY);
    assert_eq!(home.files.begin().len(), 256);
    home.files.get(id, &[], "").unwrap();
    let all = SegmentRange { first: SegmentIndex(0), last: SegmentIndex(u64::MAX) };
    assert_eq!(home.files.files()[&id].meta.wanted().iter().collect::<Vec<_>>(), [all]);
}
