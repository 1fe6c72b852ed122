//! Files of history: sequences of pages, each with a checksum over its content, its place and the
//! name of its file. A page is written once. No byte of a page that was acknowledged is ever
//! written again, so a torn write cannot damage it.
//!
//! No file stays open between two reads, so the number of eras needs no bound.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::store::schema::{self, CHECKSUM_BYTES};
use crate::store::{StoreError, disk};

/// Bytes of a page, checksum included. It is the block size of most disks. With larger pages short
/// reads would hash more, with smaller ones the checksums would take more room.
pub(super) const PAGE_BYTES: usize = 4 << 10;
/// Bytes of content in a page. Only the last page of a file may have fewer.
pub(super) const CONTENT_BYTES: usize = PAGE_BYTES - CHECKSUM_BYTES;
/// The same as a length in a file.
pub(super) const CONTENT: u64 = CONTENT_BYTES as u64;
/// Number of segments in an era. It is a constant of the protocol: nodes keep and drop whole eras.
pub const ERA_SEGMENTS: u64 = 16;

/// Of a file that lacks pages, or has some that nobody wrote.
const WRONG_LENGTH: &str = "has another length than was written";

/// What a file holds, and of which segment or era.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// The bytes of the blocks of a segment.
    Blocks(u64),
    /// The hashes of a segment, the places of its blocks, and the run of its ids.
    Index(u64),
    /// The filter of the ids in an era.
    Filter(u64),
}

impl Name {
    const fn parts(self) -> (u64, u64, &'static str) {
        match self {
            Self::Blocks(segment) => (segment / ERA_SEGMENTS, segment, "blocks"),
            Self::Index(segment) => (segment / ERA_SEGMENTS, segment, "index"),
            Self::Filter(era) => (era, era, "filter"),
        }
    }

    /// Where the file is below the folder of all eras.
    pub(super) fn path(self, history: &Path) -> PathBuf {
        let (era, number, kind) = self.parts();
        history.join(era.to_string()).join(format!("{number}.{kind}"))
    }

    /// The file at a path; `None` if this module writes no such name.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let number = path.file_stem()?.to_str()?.parse().ok()?;
        let names = [Self::Blocks(number), Self::Index(number), Self::Filter(number)];
        names.into_iter().find(|name| path.ends_with(name.path(Path::new(""))))
    }

    /// What the checksum of a page covers beside its content.
    fn key(self, page: u64) -> Vec<u8> {
        let (_, number, kind) = self.parts();
        [kind.as_bytes(), &number.to_be_bytes(), &page.to_be_bytes()].concat()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocks(segment) => write!(f, "blocks of segment {segment}"),
            Self::Index(segment) => write!(f, "index of segment {segment}"),
            Self::Filter(era) => write!(f, "filter of era {era}"),
        }
    }
}

/// Writes content as the pages of a file from page `from` on, and makes them durable. Whatever the
/// file had after page `from` is lost. The name of a new file is durable only after
/// [`sync_names`].
///
/// # Errors
/// `Corrupt` if the file lacks pages before `from`, and the system's errors.
pub(super) fn write(
    history: &Path,
    name: Name,
    from: u64,
    content: &[u8],
) -> Result<(), StoreError> {
    let path = name.path(history);
    let pages = content.len().div_ceil(CONTENT_BYTES);
    let mut bytes = Vec::with_capacity(pages.saturating_mul(PAGE_BYTES));
    for (page, part) in (from..).zip(content.chunks(CONTENT_BYTES)) {
        bytes.extend_from_slice(&schema::checksum(&name.key(page), part));
        bytes.extend_from_slice(part);
    }
    let start = from.saturating_mul(PAGE_BYTES as u64);
    let write = || {
        if let Some(era) = path.parent().filter(|_| from == 0) {
            fs::create_dir_all(era)?;
        }
        let mut options = OpenOptions::new();
        let mut file = options.create(from == 0).write(true).truncate(false).open(&path)?;
        if file.metadata()?.len() < start {
            return Ok(false);
        }
        file.set_len(start)?;
        file.seek(SeekFrom::Start(start))?;
        file.write_all(&bytes)?;
        file.sync_data().map(|()| true)
    };
    match write() {
        Ok(true) => Ok(()),
        Ok(false) => Err(StoreError::corrupt(name, WRONG_LENGTH)),
        Err(error) if from > 0 && error.kind() == ErrorKind::NotFound => {
            Err(StoreError::corrupt(name, "missing"))
        }
        Err(error) => Err(StoreError::io(&path, error)),
    }
}

/// Removes a file, if there is one.
pub(super) fn remove(history: &Path, name: Name) -> Result<(), StoreError> {
    let path = name.path(history);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StoreError::io(&path, error)),
        _ => Ok(()),
    }
}

/// Length of a file with its checksums; 0 if there is none.
pub(super) fn length(history: &Path, name: Name) -> Result<u64, StoreError> {
    let path = name.path(history);
    match fs::metadata(&path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(StoreError::io(&path, error)),
    }
}

/// Makes the names of a segment's files durable, and those of the folders above them. Any segment
/// may be the first one in its folder: a snapshot may end in the middle of an era.
pub(super) fn sync_names(history: &Path, segment: u64) -> Result<(), StoreError> {
    let file = Name::Blocks(segment).path(history);
    // The folders of the era, of all eras and of the store.
    file.ancestors().skip(1).take(3).try_for_each(disk::sync_directory)
}

/// An open file.
pub(super) struct Pages {
    file: File,
    path: PathBuf,
    name: Name,
}

impl Pages {
    /// Opens a file that must be there.
    pub(super) fn open(history: &Path, name: Name) -> Result<Self, StoreError> {
        Self::find(history, name)?.ok_or_else(|| StoreError::corrupt(name, "missing"))
    }

    /// Opens a file; `None` if there is none.
    pub(super) fn find(history: &Path, name: Name) -> Result<Option<Self>, StoreError> {
        let path = name.path(history);
        match File::open(&path) {
            Ok(file) => Ok(Some(Self { file, path, name })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io(&path, error)),
        }
    }

    /// Number of pages, of which the last one may be short.
    pub(super) fn count(&self) -> Result<u64, StoreError> {
        let metadata = self.file.metadata().map_err(|error| StoreError::io(&self.path, error))?;
        Ok(metadata.len().div_ceil(PAGE_BYTES as u64))
    }

    /// A part of the content. Reads and checks all pages that the part touches.
    pub(super) fn read(&self, part: Range<u64>) -> Result<Vec<u8>, StoreError> {
        if part.is_empty() {
            return Ok(Vec::new());
        }
        let first = part.start / CONTENT;
        let pages = part.end.div_ceil(CONTENT).saturating_sub(first);
        let mut bytes = Vec::new();
        let mut file = &self.file;
        let read =
            file.seek(SeekFrom::Start(first.saturating_mul(PAGE_BYTES as u64))).and_then(|_| {
                file.take(pages.saturating_mul(PAGE_BYTES as u64)).read_to_end(&mut bytes)
            });
        read.map_err(|error| StoreError::io(&self.path, error))?;
        // The checksums are cut out in place.
        let mut length = 0usize;
        for (number, start) in (first..).zip((0..bytes.len()).step_by(PAGE_BYTES)) {
            let end = start.saturating_add(PAGE_BYTES).min(bytes.len());
            let content = schema::unseal(&self.name.key(number), &bytes[start..end])
                .map_err(|_| self.damaged(number))?
                .len();
            bytes.copy_within(end.saturating_sub(content)..end, length);
            length = length.saturating_add(content);
        }
        bytes.truncate(length);
        let start = part.start.saturating_sub(first.saturating_mul(CONTENT));
        let end = start.saturating_add(part.end.saturating_sub(part.start));
        let (start, end) = (usize::try_from(start), usize::try_from(end));
        let (Ok(start), Ok(end)) = (start, end) else { return Err(self.short()) };
        if end > bytes.len() {
            return Err(self.short());
        }
        bytes.truncate(end);
        bytes.drain(..start);
        Ok(bytes)
    }

    /// Checks all pages of a file that must have content of this length. Returns their number.
    pub(super) fn check(&self, length: u64) -> Result<u64, StoreError> {
        let pages = length.div_ceil(CONTENT);
        if self.count()? != pages {
            return Err(self.short());
        }
        // A page at a time, so that memory does not depend on the length.
        for page in 0..pages {
            let start = page.saturating_mul(CONTENT);
            self.read(start..start.saturating_add(CONTENT).min(length))?;
        }
        Ok(pages)
    }

    fn damaged(&self, page: u64) -> StoreError {
        StoreError::corrupt(format_args!("{}, page {page}", self.name), "checksum does not match")
    }

    fn short(&self) -> StoreError {
        StoreError::corrupt(self.name, WRONG_LENGTH)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    const NAME: Name = Name::Blocks(17);

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at / 7) as u8).collect()
    }

    #[test]
    fn any_part_is_read_back_and_pages_after_the_first_written_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let all = content(3 * CONTENT_BYTES + 100);
        write(folder.path(), NAME, 0, &all[..2 * CONTENT_BYTES]).unwrap();
        // A write that was never acknowledged.
        write(folder.path(), NAME, 2, &[9; 4 * CONTENT_BYTES]).unwrap();
        write(folder.path(), NAME, 2, &all[2 * CONTENT_BYTES..]).unwrap();
        sync_names(folder.path(), 17).unwrap();
        assert_eq!(NAME.path(folder.path()), folder.path().join("1").join("17.blocks"));
        let file = Pages::open(folder.path(), NAME).unwrap();
        assert_eq!(file.check(all.len() as u64).unwrap(), 4);
        let page = CONTENT_BYTES;
        for (start, end) in [
            (0, 0),
            (0, 1),
            (0, page),
            (page - 1, page + 1),
            (page, 2 * page),
            (5, all.len()),
            (3 * page, 3 * page + 100),
        ] {
            let part = file.read(start as u64..end as u64).unwrap();
            assert!(part == all[start..end], "{start} to {end}");
        }
        for (start, end) in [(0, all.len() + 1), (4 * page, 4 * page + 1), (9 * page, 10 * page)] {
            assert!(file.read(start as u64..end as u64).is_err(), "{start} to {end}");
        }
        for length in [3 * page, 4 * page + 1] {
            assert!(file.check(length as u64).is_err(), "{length}");
        }
    }

    #[test]
    fn nothing_is_appended_to_a_file_that_lacks_pages() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), NAME, 0, &content(3 * CONTENT_BYTES)).unwrap();
        let path = NAME.path(folder.path());
        let cut = fs::read(&path).unwrap()[..3 * PAGE_BYTES - 1].to_vec();
        fs::write(&path, &cut).unwrap();
        let error = write(folder.path(), NAME, 3, &content(10)).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), cut);
        fs::remove_file(&path).unwrap();
        let error = write(folder.path(), NAME, 3, &content(10)).unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn a_flipped_bit_a_page_elsewhere_and_another_file_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), NAME, 0, &content(3 * CONTENT_BYTES)).unwrap();
        let path = NAME.path(folder.path());
        let good = fs::read(&path).unwrap();
        let damage = |bytes: &[u8], spoiled: &[u64]| {
            fs::write(&path, bytes).unwrap();
            let file = Pages::open(folder.path(), NAME).unwrap();
            for page in 0..3 {
                let read = file.read(page * CONTENT..(page + 1) * CONTENT);
                assert_eq!(read.is_err(), spoiled.contains(&page), "{page}");
            }
        };
        for at in [0, 7, 8, PAGE_BYTES, PAGE_BYTES + 4_000, 3 * PAGE_BYTES - 1] {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            damage(&flipped, &[(at / PAGE_BYTES) as u64]);
        }
        let page = |number: usize| &good[number * PAGE_BYTES..][..PAGE_BYTES];
        damage(&[page(1), page(0), page(2)].concat(), &[0, 1]);
        damage(&good[..good.len() - 1], &[2]);
        fs::write(&path, &good).unwrap();
        for other in [Name::Blocks(18), Name::Index(17)] {
            fs::copy(&path, other.path(folder.path())).unwrap();
            let file = Pages::open(folder.path(), other).unwrap();
            assert!(file.read(0..1).is_err(), "{other}");
        }
    }
}
