//! Files that sled leaves unfinished, and takes for damage at each later start.
//!
//! sled 0.34.7 keeps a *snapshot* beside its log, so that it need not read the whole log when it
//! opens. It writes one at each start: it writes and syncs `snap.LSN.generating`, renames that to
//! `snap.LSN`, and removes the older ones. It takes as the newest the last by name of *all* files
//! that begin with `snap.`, renamed or not (`pagecache/snapshot.rs`, `config.rs`). So a kill or a
//! full disk in between leaves a file that makes every later start fail as corruption. The log has
//! everything that a snapshot has: without the unfinished one, sled reads on from the one before,
//! or from the beginning.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::store::StoreError;

/// Bytes after a snapshot's content: its length as `u64` and its CRC-32, little-endian.
const TRAILER_BYTES: usize = 12;

/// Removes snapshots that are not whole. Must be called right before sled opens the directory.
///
/// # Errors
/// `StoreError::Io`: if another process has the database open, as sled's own error, or if the
/// system refuses.
pub(super) fn remove(directory: &Path) -> Result<(), StoreError> {
    let path = directory.join("db");
    let file = match File::open(&path) {
        Ok(file) => file,
        // The database is being created.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io(&path, error)),
    };
    // The lock that sled takes. Another process may be about to finish its snapshot, which must
    // stay.
    file.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => StoreError::io(&path, io::Error::other(LOCKED)),
        fs::TryLockError::Error(error) => StoreError::io(&path, error),
    })?;
    let io = |error| StoreError::io(directory, error);
    for entry in fs::read_dir(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix("snap.")) else {
            continue;
        };
        let is_renamed = rest.len() == 16 && rest.bytes().all(|byte| byte.is_ascii_hexdigit());
        let path = entry.path();
        let whole =
            is_renamed && is_whole(&fs::read(&path).map_err(|error| StoreError::io(&path, error))?);
        if !whole {
            fs::remove_file(&path).map_err(|error| StoreError::io(&path, error))?;
        }
    }
    Ok(())
}

/// Part of sled's error text for a database that is open already, and of our own.
pub(super) const LOCKED: &str = "could not acquire lock";

fn is_whole(bytes: &[u8]) -> bool {
    let Some((content, trailer)) = bytes.split_last_chunk::<TRAILER_BYTES>() else { return false };
    let [.., a, b, c, d] = *trailer;
    !content.is_empty() && crc32fast::hash(content) == u32::from_le_bytes([a, b, c, d])
}
