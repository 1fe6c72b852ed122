//! The files of a home that this node serves to others, and those that it fetches.
//!
//! | entry of `files/` | content |
//! |---|---|
//! | `ID` | the bytes of a fetched or private file, sparse while it is fetched |
//! | `ID.chunks` | which chunks of these bytes are here |
//! | `ID.heads` | the hash list, which is on disk to save memory |
//! | `ID.json` | name, length, what is wanted; written last, so only complete entries have it |
//! | `new-N`, `new-N.heads` | a file that is being hashed |
//!
//! A file that is *shared in place* stays where its user has it. The command opens it and passes
//! the descriptor, so this node follows no path, and no name of a file is ever part of one. After a
//! restart of the node such a file is *detached* until it is shared again. That hashes nothing if
//! size, modification time, inode and device are the same. Each chunk is hashed before it is sent:
//! if one differs, the file has changed, and is withdrawn.
//!
//! The operator's commands call [`operator`], and may wait for the disk. The driver of `swarm`
//! calls [`serving`]. Nothing here knows the network.

mod chunks;
mod entry;
mod heads;
mod meta;
mod operator;
mod serving;
mod source;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ledger::file::{FILE_BYTES_MAX, FileError, FileId};
use tokio::sync::mpsc;

use self::chunks::Here;
use self::entry::{Content, Entry};
use self::meta::{Meta, Paths};
use self::source::Reading;
use crate::files::{create_private_dir, names_in, open_in_place, remove_all};
use crate::space::Space;

pub(crate) use self::entry::{FileInfo, FileState};
pub(crate) use self::operator::{Cancel, Reader};
pub(crate) use self::serving::{HeldFile, ReadError, ToFiles};

/// Most files of a home. Each keeps up to two descriptors of this process open.
pub(crate) const FILES_MAX: usize = 128;
/// Most messages that wait for the driver. The operator's commands wait while it is full.
const TO_DRIVER: usize = 64;
/// Most characters of a name that are kept.
const NAME_CHARS_MAX: usize = 255;

/// What the files in the home may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most bytes of all files in the home together. Files that are shared in place take none.
    pub(crate) quota: u64,
    /// Bytes of the disk that files leave free.
    pub(crate) reserve: u64,
}

/// Why a file cannot be shared or fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    /// Not a regular file.
    #[error("it is a folder, a pipe or a device; only regular files can be shared")]
    NotRegular,
    /// The file was written to while it was hashed, or since it was shared.
    #[error("it changed while it was read or shared: share it again when nobody writes to it")]
    Changed,
    /// It is longer than any file may be.
    #[error(transparent)]
    File(#[from] FileError),
    /// There are too many files.
    #[error("this node has {FILES_MAX} files already: `unshare` some")]
    TooMany,
    /// Too many ranges of one file were asked for.
    #[error("too many ranges of one file, expected at most {RANGES_MAX}: fetch all of it")]
    Ranges,
    /// The quota would be exceeded.
    #[error(
        "it needs {needed} bytes, and {used} of the quota of {quota} bytes are taken: `unshare` \
         files, or raise files.quota"
    )]
    Quota {
        /// Bytes that the file takes.
        needed: u64,
        /// Bytes that other files take.
        used: u64,
        /// The quota.
        quota: u64,
    },
    /// The disk would be too full.
    #[error(
        "it needs {needed} bytes; after what is being fetched, the disk has {free} bytes left, of \
         which files.reserve keeps {reserve} free"
    )]
    Reserve {
        /// Bytes that the file takes.
        needed: u64,
        /// Bytes that are free after what is on its way into the home.
        free: u64,
        /// Bytes that stay free.
        reserve: u64,
    },
    /// There is no such file.
    #[error("this node has no file {0}")]
    Unknown(FileId),
    /// The bytes are not here.
    #[error("the bytes of {0} are not here: `files` shows its state")]
    NotHere(FileId),
    /// The command that asked has ended.
    #[error("given up")]
    GivenUp,
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Most ranges of one file, so that `ID.json` stays short.
const RANGES_MAX: usize = 256;

/// The files of a home. Clones are handles of the same files.
#[derive(Clone)]
pub(crate) struct SharedFiles(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    limits: Limits,
    files: Mutex<BTreeMap<FileId, Entry>>,
    /// Files that are being hashed, by their number. Locked after `files` if both are.
    readings: Mutex<BTreeMap<u64, Hashed>>,
    /// Number of the next file that is hashed.
    next: AtomicU64,
    driver: mpsc::Sender<ToFiles>,
}

/// A file that is being hashed.
struct Hashed {
    info: FileInfo,
    reading: Arc<Reading>,
    /// Bytes of it that will be in the home: all, or none if it is shared in place.
    kept: u64,
}

impl Hashed {
    /// Bytes that are still to come into the home.
    fn left(&self) -> u64 {
        self.kept.saturating_sub(self.reading.done())
    }
}

impl SharedFiles {
    /// Opens the folder of a locked home, and removes what an ended process left unfinished. What
    /// cannot be used is left alone, and named in the list of problems. Also returns the receiver
    /// for the driver, which first calls [`Self::begin`].
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub(crate) fn open(
        folder: &Path,
        limits: Limits,
    ) -> io::Result<(Self, mpsc::Receiver<ToFiles>, Vec<String>)> {
        create_private_dir(folder)?;
        let (mut files, mut problems) = (BTreeMap::new(), Vec::new());
        let names: Vec<String> =
            names_in(folder)?.into_iter().filter_map(|name| name.into_string().ok()).collect();
        for id in names.iter().filter_map(|name| meta::id_of(name)) {
            match open_entry(&Paths::of(folder, &id), &id) {
                Ok(entry) => drop(files.insert(id, entry)),
                Err(error) => problems.push(format!("{id}: {error}")),
            }
        }
        let has_meta = |name: &str| {
            let stem = name.split_once('.').map_or(name, |(stem, _)| stem);
            names.iter().any(|other| other.strip_suffix(".json") == Some(stem))
        };
        for name in names.iter().filter(|name| meta::is_ours(name) && !has_meta(name)) {
            remove_all(&folder.join(name))?;
        }
        let (driver, events) = mpsc::channel(TO_DRIVER);
        let inner = Inner {
            folder: folder.to_owned(),
            limits,
            files: Mutex::new(files),
            readings: Mutex::default(),
            next: AtomicU64::new(0),
            driver,
        };
        Ok((Self(Arc::new(inner)), events, problems))
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<FileId, Entry>> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readings(&self) -> MutexGuard<'_, BTreeMap<u64, Hashed>> {
        self.0.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn paths(&self, id: &FileId) -> Paths {
        Paths::of(&self.0.folder, id)
    }

    /// Refuses if `needed` more bytes would exceed the quota, or leave too little free space.
    fn check_room(&self, files: &BTreeMap<FileId, Entry>, needed: u64) -> Result<(), FilesError> {
        let quota = self.0.limits.quota;
        let hashed: u64 = self.readings().values().map(|hashed| hashed.kept).sum();
        let used = files.values().map(Entry::reserved).fold(hashed, u64::saturating_add);
        if used.saturating_add(needed) > quota {
            return Err(FilesError::Quota { needed, used, quota });
        }
        self.check_free(files, needed)
    }

    /// Refuses if `needed` more bytes would leave too little free space, beside all that is on its
    /// way into the home.
    fn check_free(&self, files: &BTreeMap<FileId, Entry>, needed: u64) -> Result<(), FilesError> {
        let reserve = self.0.limits.reserve;
        let Some(space) = Space::of(&self.0.folder) else { return Ok(()) };
        let hashed: u64 = self.readings().values().map(Hashed::left).sum();
        let left = files.values().map(Entry::left).fold(hashed, u64::saturating_add);
        let free = space.after(left).free;
        if free.saturating_sub(needed) < reserve {
            return Err(FilesError::Reserve { needed, free, reserve });
        }
        Ok(())
    }

    /// Refuses to write while the disk has less free space than the reserve.
    fn check_disk(&self) -> io::Result<()> {
        match Space::of(&self.0.folder) {
            Some(space) if space.free < self.0.limits.reserve => {
                Err(io::Error::other("the disk is nearly full (files.reserve)"))
            }
            _ => Ok(()),
        }
    }

    /// Tells the driver, unless the node is stopping. Must not be called by the driver, nor with
    /// the files locked.
    fn tell(&self, messages: impl IntoIterator<Item = ToFiles>) {
        for message in messages {
            let _stopping = self.0.driver.blocking_send(message);
        }
    }
}

/// Opens what a home has of a file.
fn open_entry(paths: &Paths, id: &FileId) -> io::Result<Entry> {
    let meta = Meta::read(&paths.meta, id)?;
    let content = match meta.descriptor() {
        _ if meta.source.is_some() => Content::Detached,
        None => Content::Awaited,
        Some(file) => {
            let bytes = open_in_place(OpenOptions::new().read(true).write(true), &paths.bytes)?;
            if bytes.metadata()?.len() != file.length {
                return Err(io::Error::other("its bytes have another length than the file"));
            }
            let chunks = open_in_place(OpenOptions::new().read(true).write(true), &paths.chunks)?;
            let here = Here::read(&chunks, file)?;
            let own = entry::Own { bytes: Arc::new(bytes), chunks: Arc::new(chunks), here };
            if meta.is_doubtful() { Content::Doubtful(own) } else { Content::Own(own) }
        }
    };
    Ok(Entry::new(meta, content))
}

/// A new file in the folder, in place of a leftover.
fn create(path: &Path) -> io::Result<File> {
    remove_all(path)?;
    open_in_place(OpenOptions::new().read(true).write(true).create_new(true), path)
}

/// A name as it is kept and shown: without control characters and others that could deceive, which
/// are written as `\u{..}`, and cut at [`NAME_CHARS_MAX`]. It is for people, and never part of a
/// path.
fn shown(name: &str) -> String {
    let escaped = name.chars().flat_map(|char| {
        let is_plain = matches!(char, '\'' | '"') || char.escape_debug().count() == 1;
        let plain = is_plain.then_some(char);
        plain.into_iter().chain((!is_plain).then(|| char.escape_debug()).into_iter().flatten())
    });
    escaped.take(NAME_CHARS_MAX).collect()
}

/// The length of a file that may be shared.
fn check_length(length: u64) -> Result<(), FilesError> {
    match length {
        0..=FILE_BYTES_MAX => Ok(()),
        _ => Err(FileError::TooLong { length }.into()),
    }
}

/// Removes a file's entries. If that fails, the next start of the node removes them.
fn remove(paths: &Paths) {
    if let Err(error) = paths.remove() {
        tracing::warn!("{} cannot be removed: {error}", paths.bytes.display());
    }
}
