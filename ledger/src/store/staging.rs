//! Staging: chunks of segments that are being fetched, as plain files in a directory of their own.
//!
//! Chunks are not in the database, which would write their bytes twice and would let its log grow.
//! They arrive in any order and are needed only until their blocks are stored. They may be lost,
//! since peers have them. So staging syncs nothing, and silently removes files that cannot be used.
//! If the process is killed, the operating system still has all that it wrote. After a loss of
//! power, the hashes show which chunks are intact.
//!
//! A segment has two files. `<index>.head` is its [`SegmentHead`] with a checksum. `<index>.data`
//! is its bytes, then one byte for each chunk: 1 if the chunk is there. The file `manifest` holds
//! the manifest that the caller stored. `Staging` keeps no file open, so the number of segments
//! needs no bound.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::codec;
use crate::hash::Hash;
use crate::history::{HistoryRules, SegmentHead, chunk_hash};
use crate::store::positions::{read_at, remove_file, write_at};
use crate::store::{StoreError, schema};

const MANIFEST: &str = "manifest";
/// The mark of a chunk that is there. Any other byte, such as 0 in a hole of the file, means that
/// the chunk is missing.
const THERE: u8 = 1;

/// A segment that an earlier run left, with one flag for each chunk: whether the chunk was written.
pub type Found = (SegmentHead, Vec<bool>);

/// The files of segments that are being fetched. One thread owns them. Other threads read them
/// through a [`SegmentReader`].
#[derive(Debug)]
pub struct Staging {
    directory: PathBuf,
    rules: HistoryRules,
    segments: BTreeMap<u64, Segment>,
}

#[derive(Debug)]
struct Segment {
    head: Arc<SegmentHead>,
    marks: Vec<Mark>,
}

/// What is known of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Missing,
    /// Written by an earlier run, so not checked against its hash yet.
    Unverified,
    /// Written or checked by this run.
    Verified,
}

/// The place of a chunk, and what is known of it.
struct Place {
    number: usize,
    /// Offset of the first byte in the data file.
    start: u64,
    length: usize,
    hash: Hash,
    mark: Mark,
    /// Offset of the mark in the data file.
    mark_at: u64,
}

impl Staging {
    /// An empty staging area for a directory that cannot be opened now. It looks for nothing there.
    /// [`Self::begin`] makes the directory, if that is possible by then.
    #[must_use]
    pub fn new(directory: &Path, rules: HistoryRules) -> Self {
        Self { directory: directory.to_owned(), rules, segments: BTreeMap::new() }
    }

    /// Opens the directory, or creates it. Returns its segments in order of index. Reads no chunk.
    /// Removes files that cannot be used: a head that cannot be read, is damaged, breaks these
    /// rules or has no data, data without a usable head or of a wrong length, and files that were
    /// only half written.
    ///
    /// Heads are as they were given to [`Self::begin`]. The caller decides whether the chain still
    /// needs them.
    ///
    /// # Errors
    /// `StoreError::Io` if the directory cannot be created or read.
    pub fn open(directory: &Path, rules: HistoryRules) -> Result<(Self, Vec<Found>), StoreError> {
        let io = |error| StoreError::io(directory, error);
        fs::create_dir_all(directory).map_err(io)?;
        let mut staging = Self::new(directory, rules);
        let mut names = Vec::new();
        for entry in fs::read_dir(directory).map_err(io)? {
            names.extend(entry.map_err(io)?.file_name().into_string());
        }
        for index in names.iter().filter_map(|name| index_of(name, ".head")) {
            if let Ok(Some(segment)) = staging.find(index) {
                staging.segments.insert(index, segment);
            }
        }
        for name in &names {
            let index = index_of(name, ".head").or_else(|| index_of(name, ".data"));
            let is_lost = index.is_some_and(|index| !staging.segments.contains_key(&index));
            if is_lost || name.ends_with(".new") {
                // What stays is in the way of this segment alone.
                let _ = remove_file(&directory.join(name));
            }
        }
        let found = |segment: &Segment| {
            let is_there = |mark: &Mark| *mark != Mark::Missing;
            ((*segment.head).clone(), segment.marks.iter().map(is_there).collect())
        };
        let found = staging.segments.values().map(found).collect();
        Ok((staging, found))
    }

    /// Creates the files of a segment. Does nothing if they exist with this descriptor. If they
    /// exist with another descriptor, they are removed first.
    ///
    /// # Errors
    /// `StoreError::Io`, as when the disk is full.
    ///
    /// # Panics
    /// If the head does not have one hash for each chunk, is of a longer segment than the rules
    /// allow, or has a certificate of another block. The caller has verified the head, so none of
    /// this can be.
    pub fn begin(&mut self, head: &SegmentHead) -> Result<(), StoreError> {
        let SegmentHead { descriptor, chunks, .. } = head;
        assert!(fits(head, &self.rules), "a head is verified before it is stored: {descriptor:?}");
        let index = descriptor.index;
        match self.segments.get(&index) {
            Some(segment) if segment.head.descriptor == *descriptor => return Ok(()),
            Some(_) => self.remove(index)?,
            None => {}
        }
        // The head is written last, since a head means that the data file exists with its full
        // length.
        let path = self.data(index);
        // If this is refused, so is the file.
        let _ = fs::create_dir(&self.directory);
        let file = File::create(&path).and_then(|file| file.set_len(data_bytes(head)));
        file.map_err(|error| StoreError::io(&path, error))?;
        self.put_sealed(&format!("{index}.head"), &codec::encode(head))?;
        let marks = vec![Mark::Missing; chunks.len()];
        self.segments.insert(index, Segment { head: Arc::new(head.clone()), marks });
        Ok(())
    }

    /// Writes a chunk. Does nothing if the chunk is there and known to be right.
    ///
    /// # Errors
    /// `StoreError::Io`, as when the disk is full. What is known of the chunk then stays as it was.
    ///
    /// # Panics
    /// If there is no such chunk or it has another length. The caller began the segment and
    /// verified the bytes, so neither can be.
    pub fn write(&mut self, segment: u64, chunk: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let Some(place) = self.place(segment, chunk) else {
            panic!("only chunks of segments that were begun are written, not {chunk} of {segment}");
        };
        assert!(
            bytes.len() == place.length,
            "the bytes of a chunk are verified before they are stored"
        );
        if place.mark == Mark::Verified {
            return Ok(());
        }
        let path = self.data(segment);
        let written = OpenOptions::new().write(true).open(&path).and_then(|mut file| {
            write_at(&mut file, place.start, bytes)?;
            write_at(&mut file, place.mark_at, &[THERE])
        });
        written.map_err(|error| StoreError::io(&path, error))?;
        self.set_mark(segment, &place, Mark::Verified);
        Ok(())
    }

    /// The bytes of a chunk, which match its hash. `None` if the chunk is missing. If its bytes do
    /// not match, it counts as missing from now on.
    ///
    /// # Errors
    /// `StoreError::Io`.
    pub fn read(&mut self, segment: u64, chunk: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(place) = self.place(segment, chunk).filter(|place| place.mark != Mark::Missing)
        else {
            return Ok(None);
        };
        let path = self.data(segment);
        let mut bytes = vec![0; place.length];
        let read =
            File::open(&path).and_then(|mut file| read_at(&mut file, place.start, &mut bytes));
        read.map_err(|error| StoreError::io(&path, error))?;
        // The disk may have damaged the file since it was written.
        if chunk_hash(&bytes) != place.hash {
            self.forget(segment, chunk)?;
            return Ok(None);
        }
        self.set_mark(segment, &place, Mark::Verified);
        Ok(Some(bytes))
    }

    /// A reader for a whole segment, usable on any thread; `None` if a chunk is missing.
    ///
    /// # Errors
    /// `StoreError::Io`.
    pub fn reader(&self, segment: u64) -> Result<Option<SegmentReader>, StoreError> {
        let Some(Segment { head, marks }) = self.segments.get(&segment) else { return Ok(None) };
        if marks.contains(&Mark::Missing) {
            return Ok(None);
        }
        let path = self.data(segment);
        let file = File::open(&path).map_err(|error| StoreError::io(&path, error))?;
        Ok(Some(SegmentReader { file, path, head: Arc::clone(head), rules: self.rules }))
    }

    /// Marks a chunk as missing because its bytes are wrong. Does nothing if there is no such
    /// chunk.
    ///
    /// # Errors
    /// `StoreError::Io`.
    pub fn forget(&mut self, segment: u64, chunk: u64) -> Result<(), StoreError> {
        let Some(place) = self.place(segment, chunk) else { return Ok(()) };
        self.set_mark(segment, &place, Mark::Missing);
        let path = self.data(segment);
        let file = OpenOptions::new().write(true).open(&path);
        let written = file.and_then(|mut file| write_at(&mut file, place.mark_at, &[0]));
        written.map_err(|error| StoreError::io(&path, error))
    }

    /// Removes a segment with all its chunks. Does nothing if there is no such segment.
    ///
    /// # Errors
    /// `StoreError::Io`.
    pub fn remove(&mut self, segment: u64) -> Result<(), StoreError> {
        self.segments.remove(&segment);
        remove_file(&self.directory.join(format!("{segment}.head")))?;
        remove_file(&self.data(segment))
    }

    /// Stores the manifest in place of an earlier one. Only up to `codec::VALUE_BYTES_MAX` bytes
    /// can be read back.
    ///
    /// # Errors
    /// `StoreError::Io`.
    pub fn put_manifest(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.put_sealed(MANIFEST, bytes)
    }

    /// The bytes last given to `put_manifest`, also by an earlier run; `None` if there are none or
    /// they are damaged.
    ///
    /// # Errors
    /// `StoreError::Io`.
    pub fn manifest(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.sealed(MANIFEST)
    }

    /// A segment that an earlier run left; `None` if it cannot be used.
    fn find(&self, index: u64) -> Result<Option<Segment>, StoreError> {
        let Some(content) = self.sealed(&format!("{index}.head"))? else { return Ok(None) };
        let Ok(head) = codec::decode::<SegmentHead>(&content, codec::VALUE_BYTES_MAX) else {
            return Ok(None);
        };
        let SegmentHead { descriptor, chunks, .. } = &head;
        if descriptor.index != index
            || !fits(&head, &self.rules)
            || descriptor.verify_chunks(&self.rules, chunks).is_err()
        {
            return Ok(None);
        }
        let path = self.data(index);
        let read = File::open(&path).and_then(|mut file| {
            let mut marks = vec![0; chunks.len()];
            let is_whole = file.metadata()?.len() == data_bytes(&head);
            if is_whole {
                read_at(&mut file, descriptor.bytes, &mut marks)?;
            }
            Ok(is_whole.then_some(marks))
        });
        let marks = match read {
            Ok(Some(marks)) => marks,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io(&path, error)),
        };
        let mark = |byte: &u8| if *byte == THERE { Mark::Unverified } else { Mark::Missing };
        Ok(Some(Segment { marks: marks.iter().map(mark).collect(), head: Arc::new(head) }))
    }

    /// The place of a chunk; `None` if the segment was not begun or has no such chunk.
    fn place(&self, segment: u64, chunk: u64) -> Option<Place> {
        let Segment { head, marks } = self.segments.get(&segment)?;
        let range = head.descriptor.chunk_range(chunk, &self.rules)?;
        let number = usize::try_from(chunk).ok()?;
        Some(Place {
            number,
            start: range.start,
            length: usize::try_from(range.end.saturating_sub(range.start)).ok()?,
            hash: *head.chunks.get(number)?,
            mark: *marks.get(number)?,
            mark_at: head.descriptor.bytes.saturating_add(chunk),
        })
    }

    fn set_mark(&mut self, segment: u64, place: &Place, mark: Mark) {
        if let Some(known) =
            self.segments.get_mut(&segment).and_then(|one| one.marks.get_mut(place.number))
        {
            *known = mark;
        }
    }

    fn data(&self, index: u64) -> PathBuf {
        self.directory.join(format!("{index}.data"))
    }

    /// Replaces a small file atomically. Its checksum covers the name too.
    fn put_sealed(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let path = self.directory.join(name);
        let new = self.directory.join(format!("{name}.new"));
        let written = fs::write(&new, schema::seal(name.as_bytes(), content))
            .and_then(|()| fs::rename(&new, &path));
        written.map_err(|error| StoreError::io(&path, error))
    }

    /// The content of a small file; `None` if it is missing, damaged or too long.
    fn sealed(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.directory.join(name);
        let max = codec::VALUE_BYTES_MAX.saturating_add(schema::CHECKSUM_BYTES) as u64;
        let mut value = Vec::new();
        match File::open(&path).and_then(|file| file.take(max).read_to_end(&mut value)) {
            Ok(_) => Ok(schema::unseal(name.as_bytes(), &value).ok().map(<[u8]>::to_vec)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io(&path, error)),
        }
    }
}

/// Reads a segment of which no chunk was missing when the reader was made. The reader works even if
/// the segment is removed meanwhile.
#[derive(Debug)]
pub struct SegmentReader {
    file: File,
    path: PathBuf,
    head: Arc<SegmentHead>,
    rules: HistoryRules,
}

impl SegmentReader {
    /// The segment's head, as it was given to [`Staging::begin`].
    #[must_use]
    pub fn head(&self) -> &SegmentHead {
        &self.head
    }

    /// The bytes of a chunk; `None` if there is no such chunk, or if its bytes do not match its
    /// hash. If they do not match, call [`Staging::forget`].
    ///
    /// # Errors
    /// `StoreError::Io`.
    pub fn read(&mut self, chunk: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let SegmentHead { descriptor, chunks, .. } = &*self.head;
        let (number, range) =
            (usize::try_from(chunk).ok(), descriptor.chunk_range(chunk, &self.rules));
        let Some((hash, range)) = number.and_then(|number| chunks.get(number)).zip(range) else {
            return Ok(None);
        };
        let length = range.end.saturating_sub(range.start);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        read_at(&mut self.file, range.start, &mut bytes)
            .map_err(|error| StoreError::io(&self.path, error))?;
        Ok((chunk_hash(&bytes) == *hash).then_some(bytes))
    }
}

/// Whether a head is consistent: the segment is no longer than the rules allow, there is one hash
/// for each chunk, and the certificate is for the last block.
fn fits(head: &SegmentHead, rules: &HistoryRules) -> bool {
    let SegmentHead { descriptor, chunks, certificate } = head;
    descriptor.bytes < rules.segment_bytes_max()
        && descriptor.chunk_count(rules) == chunks.len() as u64
        && (certificate.height, certificate.block) == (descriptor.last, descriptor.last_block)
}

/// Length of a data file: the bytes of the segment, and one byte for each chunk.
fn data_bytes(head: &SegmentHead) -> u64 {
    head.descriptor.bytes.saturating_add(head.chunks.len() as u64)
}

/// The index in a file's name, if this module writes such a name.
fn index_of(name: &str, ending: &str) -> Option<u64> {
    let index = name.strip_suffix(ending)?.parse().ok()?;
    (format!("{index}{ending}") == name).then_some(index)
}
