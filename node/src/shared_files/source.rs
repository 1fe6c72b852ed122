//! Reads whole files: hashes them, skips their holes, and notices when they change.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ledger::file::{CHUNK_BYTES, FileHasher, HashedFile, SEGMENT_BYTES, chunk_hash};
use ledger::hash::Hash;
use serde::{Deserialize, Serialize};

use super::FilesError;
use super::heads::Heads;
use crate::holes::{next_data, next_hole};

/// Bytes that are read at once: whole chunks, so that the hasher copies none.
const READ_BYTES: usize = 8 * CHUNK_BYTES as usize;

/// What the system says of a file on disk. A file with the same stamp counts as unchanged until the
/// hash of one of its chunks differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) bytes: u64,
    /// Modification time, as seconds and nanoseconds.
    modified: (i64, i64),
    device: u64,
    inode: u64,
}

impl Stamp {
    /// # Errors
    /// `NotRegular` for a folder, a pipe or a device; `Io`.
    pub(super) fn of(file: &File) -> Result<Self, FilesError> {
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(FilesError::NotRegular);
        }
        let modified = (found.mtime(), found.mtime_nsec());
        let (bytes, device, inode) = (found.len(), found.dev(), found.ino());
        Ok(Self { bytes, modified, device, inode })
    }
}

/// How far the reading of a file has come, and whether it was given up. Shared with the code that
/// shows this and the code that gives it up.
#[derive(Debug, Default)]
pub(super) struct Reading {
    done: AtomicU64,
    is_given_up: AtomicBool,
}

impl Reading {
    /// Bytes that were read so far.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends the reading soon.
    pub(super) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// # Errors
    /// `GivenUp`.
    pub(super) fn check(&self) -> Result<(), FilesError> {
        match self.is_given_up.load(Ordering::Relaxed) {
            true => Err(FilesError::GivenUp),
            false => Ok(()),
        }
    }
}

/// Hashes a file in order, and writes the hashes to the list on disk.
struct Hashing<'a> {
    hasher: FileHasher,
    heads: &'a Heads,
    reading: &'a Reading,
    /// Fails if the disk has no room.
    check_disk: &'a dyn Fn() -> io::Result<()>,
    /// Chunk hashes that are on disk.
    written: u64,
}

impl<'a> Hashing<'a> {
    fn new(
        heads: &'a Heads,
        reading: &'a Reading,
        check_disk: &'a dyn Fn() -> io::Result<()>,
    ) -> Self {
        Self { hasher: FileHasher::new(), heads, reading, check_disk, written: 0 }
    }

    /// `bytes` more were hashed. Writes their hashes to disk, so that these do not fill memory.
    fn drain(&mut self, bytes: u64) -> Result<(), FilesError> {
        self.reading.check()?;
        (self.check_disk)()?;
        let hashes = self.hasher.take_hashes();
        self.heads.write_chunks(self.written, &hashes)?;
        self.written += hashes.len() as u64;
        self.reading.advance(bytes);
        Ok(())
    }

    fn finish(mut self) -> Result<HashedFile, FilesError> {
        self.drain(0)?;
        let file = self.hasher.finish()?;
        self.heads.write_chunks(self.written, &file.hashes)?;
        self.heads.finish(&file)?;
        Ok(file)
    }
}

/// Hashes a file of `length` bytes, and writes its hash list. Holes are not read.
///
/// # Errors
/// `Changed` if the file ends early, `GivenUp`, `Io`, `File` for one that is too long.
pub(super) fn hash(
    file: &File,
    length: u64,
    heads: &Heads,
    reading: &Reading,
    check_disk: &dyn Fn() -> io::Result<()>,
) -> Result<HashedFile, FilesError> {
    let mut hashing = Hashing::new(heads, reading, check_disk);
    let (mut at, mut buffer) = (0, vec![0; READ_BYTES]);
    while at < length {
        let data = next_data(file, at)?.unwrap_or(length).min(length);
        while at < data {
            let zeros = SEGMENT_BYTES.min(data - at);
            hashing.hasher.push_zeros(zeros);
            hashing.drain(zeros)?;
            at += zeros;
        }
        let end = next_hole(file, at)?.clamp(at, length);
        while at < end {
            let wanted = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let part = &mut buffer[..wanted];
            file.read_exact_at(part, at).map_err(ended_early)?;
            hashing.hasher.push(part);
            hashing.drain(wanted as u64)?;
            at += wanted as u64;
        }
    }
    hashing.finish()
}

/// Copies exactly `length` bytes to a file, and hashes them on the way.
///
/// # Errors
/// `Changed` if there are fewer or more bytes, `GivenUp`, `Io`.
pub(super) fn receive(
    mut from: impl Read,
    length: u64,
    to: &File,
    heads: &Heads,
    reading: &Reading,
    check_disk: &dyn Fn() -> io::Result<()>,
) -> Result<HashedFile, FilesError> {
    let mut hashing = Hashing::new(heads, reading, check_disk);
    let (mut at, mut buffer) = (0, vec![0; READ_BYTES]);
    loop {
        // One byte more than the length is asked for, so that a longer source is noticed.
        let rest = usize::try_from(length.saturating_add(1) - at).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(rest);
        let part = match from.read(&mut buffer[..wanted]) {
            Ok(0) => break,
            Ok(count) => &buffer[..count],
            // The source waits for its sender.
            Err(error) if is_pause(&error) => {
                reading.check()?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if at + part.len() as u64 > length {
            return Err(FilesError::Changed);
        }
        check_disk()?;
        to.write_all_at(part, at)?;
        hashing.hasher.push(part);
        hashing.drain(part.len() as u64)?;
        at += part.len() as u64;
    }
    if at < length {
        return Err(FilesError::Changed);
    }
    hashing.finish()
}

fn is_pause(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

fn ended_early(error: io::Error) -> FilesError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => FilesError::Changed,
        _ => error.into(),
    }
}

/// Reads a chunk. `None` if its bytes do not have this hash.
///
/// # Errors
/// Those of the operating system. A file that ends inside or before the chunk gives `None`.
pub(super) fn chunk(
    file: &File,
    range: &std::ops::Range<u64>,
    hash: Hash,
) -> io::Result<Option<Vec<u8>>> {
    let length = range.end.saturating_sub(range.start);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    match file.read_exact_at(&mut bytes, range.start) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        read => read.map(|()| (chunk_hash(&bytes) == hash).then_some(bytes)),
    }
}

/// Writes a chunk to its place. Zeros become a hole, so that a sparse file stays sparse.
///
/// # Errors
/// Those of the operating system.
pub(super) fn write_chunk(file: &File, start: u64, bytes: &[u8]) -> io::Result<()> {
    const ZEROS: [u8; 4_096] = [0; 4_096];
    let is_zero = bytes.chunks(ZEROS.len()).all(|part| *part == ZEROS[..part.len()]);
    if is_zero && punch(file, start, bytes.len() as u64) {
        return Ok(());
    }
    file.write_all_at(bytes, start)
}

/// Makes a hole, and returns whether the file system could.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn punch(file: &File, start: u64, length: u64) -> bool {
    use rustix::fs::FallocateFlags;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file, flags, start, length).is_ok()
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn punch(_file: &File, _start: u64, _length: u64) -> bool {
    false
}
