//! The only code that calls sled. Every value carries a checksum, and all writes are durable once
//! `Disk::sync` returns.
//!
//! Four traps of sled 0.34.7 shape this module:
//!
//! - On Linux `flush` returns before the bytes are safe. It calls `sync_file_range`, which makes
//!   neither the file's length nor the disk's own cache durable. So this module opens the same file
//!   itself and syncs it.
//! - sled writes large leaves to files that it never syncs, so all values must be short.
//! - Damaged bytes can make sled panic, so every panic is caught and reported as damage.
//! - sled frees pages only at every 64th access to one of the 256 shards of its cache. Pages that
//!   are written once and never read would fill memory far beyond the cache's limit, so values are
//!   read after they are written.

use std::fs::{self, File, OpenOptions};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::codec::{Decode, Encode, encode};
use crate::store::schema::{self, Key, PIECE_BYTES, VALUE_BYTES_MAX};
use crate::store::{StoreError, unfinished};

/// Size of sled's cache of pages, in bytes.
const CACHE_BYTES: u64 = 24 << 20;
/// After a value is written, it is read once for every full 1 KiB that it has. So at most about 16
/// MiB of pages wait to be freed: 256 shards times 64 accesses times 1 KiB.
const USE_BYTES: usize = 1 << 10;
/// A bulk write applies a batch once it has more than this many bytes. This bounds memory, and the
/// time that readers wait.
const BULK_BYTES: usize = 4 << 20;
/// How often to try to lock the file, and the time between two tries. The tries bridge the moment
/// from the drop of the last handle until sled's threads release the lock.
const LOCK_TRIES: usize = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// An open database.
pub(super) struct Disk {
    db: sled::Db,
    /// The file that sled writes, opened a second time for `sync`.
    file: File,
    path: PathBuf,
    #[cfg(test)]
    refused: std::sync::atomic::AtomicBool,
    /// Something was applied since the last sync.
    #[cfg(test)]
    unsynced: std::sync::atomic::AtomicBool,
}

/// Writes that become visible together, and durable together or not at all.
#[derive(Default)]
pub(super) struct Batch {
    writes: sled::Batch,
    bytes: usize,
    /// Keys to read after the write, and how often to read each.
    uses: Vec<(Vec<u8>, usize)>,
}

impl Batch {
    /// Sets a value.
    ///
    /// # Panics
    /// If the value has more than `VALUE_BYTES_MAX` bytes.
    pub(super) fn put(&mut self, key: Key, content: &[u8]) {
        let key = key.bytes();
        let value = schema::seal(&key, content);
        assert!(
            value.len() <= VALUE_BYTES_MAX,
            "values are short, so that none becomes a file that is never synced"
        );
        self.bytes = self.bytes.saturating_add(key.len()).saturating_add(value.len());
        self.uses.push((key.clone(), value.len() / USE_BYTES));
        self.writes.insert(key, value);
    }

    pub(super) fn put_value(&mut self, key: Key, value: &impl Encode) {
        self.put(key, &encode(value));
    }

    /// Sets a record. A record that it replaces must not have more pieces, since the surplus pieces
    /// would stay.
    pub(super) fn put_record(&mut self, key: impl Fn(u32) -> Key, record: &[u8]) {
        for (number, piece) in schema::pieces(record) {
            self.put(key(number), &piece);
        }
    }

    pub(super) fn remove(&mut self, key: Key) {
        let key = key.bytes();
        self.bytes = self.bytes.saturating_add(key.len());
        self.writes.remove(key);
    }
}

impl Disk {
    /// Opens the database in a directory, or creates one.
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        let config =
            sled::Config::new().path(directory).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let path = directory.join("db");
        let mut tries = 0usize;
        let db = loop {
            tries = tries.saturating_add(1);
            let opened =
                unfinished::remove(directory).and_then(|()| caught(&path, || config.open()));
            match opened {
                Err(StoreError::Io { source, .. }) if is_lock(&source) && tries < LOCK_TRIES => {
                    std::thread::sleep(LOCK_PAUSE);
                }
                result => break result?,
            }
        };
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.map_err(|error| StoreError::io(&path, error))?;
        Ok(Self {
            db,
            file,
            path,
            #[cfg(test)]
            refused: false.into(),
            #[cfg(test)]
            unsynced: false.into(),
        })
    }

    /// Whether a directory has a database.
    pub(super) fn exists(directory: &Path) -> bool {
        directory.join("db").is_file()
    }

    /// The content of the value at a key; `None` if there is none.
    pub(super) fn get(&self, key: Key) -> Result<Option<Vec<u8>>, StoreError> {
        let key = key.bytes();
        match caught(&self.path, || self.db.get(&key))? {
            Some(value) => schema::unseal(&key, &value).map(|content| Some(content.to_vec())),
            None => Ok(None),
        }
    }

    pub(super) fn value<T: Decode<()>>(&self, key: Key) -> Result<Option<T>, StoreError> {
        self.get(key)?.map(|content| schema::decode(key, &content)).transpose()
    }

    /// A whole record; `None` if there is none.
    pub(super) fn record(&self, key: impl Fn(u32) -> Key) -> Result<Option<Vec<u8>>, StoreError> {
        let Some((length, record)) = self.record_prefix(&key, usize::MAX)? else { return Ok(None) };
        if record.len() != length {
            return Err(StoreError::corrupt(
                key(0),
                format!("{} bytes in its pieces, expected {length}", record.len()),
            ));
        }
        Ok(Some(record))
    }

    /// The length of a record, and its beginning: at least `bytes` bytes, or the whole record if it
    /// is shorter. `None` if there is no record.
    pub(super) fn record_prefix(
        &self,
        key: impl Fn(u32) -> Key,
        bytes: usize,
    ) -> Result<Option<(usize, Vec<u8>)>, StoreError> {
        let Some(piece) = self.get(key(0))? else { return Ok(None) };
        let (length, first) = schema::first_piece(key(0), &piece)?;
        let mut record = Vec::with_capacity(length.min(bytes.saturating_add(PIECE_BYTES)));
        record.extend_from_slice(first);
        for number in 1.. {
            if record.len() >= length.min(bytes) {
                break;
            }
            let piece = self.get(key(number))?.filter(|piece| !piece.is_empty());
            record.extend_from_slice(
                &piece.ok_or_else(|| StoreError::corrupt(key(number), "missing"))?,
            );
        }
        Ok(Some((length, record)))
    }

    /// All keys with a prefix, in order, each with its content. If a value is damaged, its item
    /// holds an error and the scan goes on. An error of sled ends the scan.
    pub(super) fn scan(&self, prefix: &[u8]) -> impl Iterator<Item = Result<Scanned, StoreError>> {
        let mut values = self.db.scan_prefix(prefix);
        let mut failed = false;
        std::iter::from_fn(move || {
            if failed {
                return None;
            }
            let item = caught(&self.path, || values.next().transpose()).transpose()?;
            failed = item.is_err();
            Some(item.map(|(key, value)| {
                let content = schema::unseal(&key, &value).map(<[u8]>::to_vec);
                (key.to_vec(), content)
            }))
        })
    }

    /// As [`Self::scan`], but with decoded keys. A key that the schema does not know is an error.
    pub(super) fn scan_keys(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Key, Vec<u8>), StoreError>> {
        self.scan(prefix).map(|item| {
            let (key, content) = item?;
            let known = Key::parse(&key)
                .ok_or_else(|| StoreError::corrupt(hex::encode(key), "unknown key"))?;
            Ok((known, content?))
        })
    }

    /// Makes a batch visible to `get` and `scan`. The batch is not durable before `sync`.
    pub(super) fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        #[cfg(test)]
        self.check_order(&batch);
        caught(&self.path, || self.db.apply_batch(batch.writes))?;
        let mut keys = batch.uses.iter().flat_map(|(key, times)| std::iter::repeat_n(key, *times));
        caught(&self.path, || keys.try_for_each(|key| self.db.contains_key(key).map(drop)))
    }

    /// Returns once everything that was applied is on the disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        #[cfg(test)]
        if self.refused.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(StoreError::io(&self.path, std::io::ErrorKind::StorageFull.into()));
        }
        caught(&self.path, || self.db.flush())?;
        self.file.sync_data().map_err(|error| StoreError::io(&self.path, error))?;
        #[cfg(test)]
        self.unsynced.store(false, std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }

    /// Between two syncs the disk may write in any order. So the pages of a checkpoint must be
    /// durable before the marker that names them is applied.
    #[cfg(test)]
    fn check_order(&self, batch: &Batch) {
        let has_marker = batch.uses.iter().any(|(key, _)| *key == Key::Marker.bytes());
        let is_unsynced = self.unsynced.swap(true, std::sync::atomic::Ordering::SeqCst);
        assert!(!has_marker || !is_unsynced, "a marker may be durable before its pages");
    }

    /// Starts a write of any size, which is applied in many batches. A crash may leave a part of
    /// it, so it is meant only for data that nothing refers to before the write is complete.
    pub(super) fn bulk(&self) -> Bulk<'_> {
        Bulk { disk: self, batch: Batch::default() }
    }

    /// Makes each `sync` fail, or succeed again.
    #[cfg(test)]
    pub(super) fn refuse_writes(&self, refuse: bool) {
        self.refused.store(refuse, std::sync::atomic::Ordering::SeqCst);
    }

    /// Stores any bytes as a value, with or without a correct checksum.
    #[cfg(test)]
    pub(super) fn put_raw(&self, key: &[u8], value: &[u8]) {
        self.db.insert(key, value).expect("an insert in a test");
    }

    #[cfg(test)]
    pub(super) fn get_raw(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.db.get(key).expect("a read in a test").map(|value| value.to_vec())
    }
}

/// A stored key with its content, or with an error if the content is damaged.
pub(super) type Scanned = (Vec<u8>, Result<Vec<u8>, StoreError>);

/// A write in many batches: see `Disk::bulk`.
pub(super) struct Bulk<'a> {
    disk: &'a Disk,
    batch: Batch,
}

impl Bulk<'_> {
    pub(super) fn put_value(&mut self, key: Key, value: &impl Encode) -> Result<(), StoreError> {
        self.batch.put_value(key, value);
        self.apply_above(BULK_BYTES)
    }

    pub(super) fn remove(&mut self, key: Key) -> Result<(), StoreError> {
        self.batch.remove(key);
        self.apply_above(BULK_BYTES)
    }

    /// Applies the last batch.
    pub(super) fn finish(mut self) -> Result<(), StoreError> {
        self.apply_above(0)
    }

    fn apply_above(&mut self, bytes: usize) -> Result<(), StoreError> {
        if self.batch.bytes > bytes {
            self.disk.apply(std::mem::take(&mut self.batch))?;
        }
        Ok(())
    }
}

/// Number of files in which sled stored large values beside its log. There must be none, since sled
/// never syncs them.
pub(super) fn blobs(directory: &Path) -> Result<usize, StoreError> {
    let path = directory.join("blobs");
    match fs::read_dir(&path) {
        Ok(entries) => Ok(entries.count()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(StoreError::io(&path, error)),
    }
}

/// Makes the names of the files in a directory durable. On Unix this takes a call. On other systems
/// nothing is done: the file system is trusted to journal names itself.
pub(super) fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    #[cfg(test)]
    {
        if NAMES_REFUSED.get() {
            return Err(StoreError::io(directory, std::io::ErrorKind::StorageFull.into()));
        }
        SYNCED.with_borrow_mut(|synced| synced.push(directory.to_owned()));
    }
    if cfg!(unix) {
        let synced = File::open(directory).and_then(|handle| handle.sync_all());
        synced.map_err(|error| StoreError::io(directory, error))?;
    }
    Ok(())
}

#[cfg(test)]
thread_local! {
    /// The directories whose names this thread has made durable.
    pub(super) static SYNCED: std::cell::RefCell<Vec<PathBuf>> =
        const { std::cell::RefCell::new(Vec::new()) };
    /// Whether `sync_directory` fails on this thread.
    static NAMES_REFUSED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Makes each `sync_directory` of this thread fail, or succeed again.
#[cfg(test)]
pub(super) fn refuse_names(refuse: bool) {
    NAMES_REFUSED.set(refuse);
}

/// Runs a call into sled. Returns a panic as `StoreError::Corrupt`, since sled panics at unexpected
/// bytes. The panic leaves sled's locks free and our data untouched. After a panic in a write, the
/// store takes no more writes.
fn caught<T>(path: &Path, call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| match error {
            sled::Error::Io(source) => StoreError::io(path, source),
            error => StoreError::corrupt(path.display(), error),
        }),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref().copied());
            Err(StoreError::corrupt(path.display(), text.unwrap_or("the database cannot read it")))
        }
    }
}

fn is_lock(error: &std::io::Error) -> bool {
    error.to_string().contains(unfinished::LOCKED)
}
