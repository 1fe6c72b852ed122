//! Removes files that sled left unfinished. sled would take them for damage at each later start.
//!
//! sled 0.34.7 keeps a *snapshot* beside its log, so that it need not read the whole log when it
//! opens. At each start it makes a new snapshot: it writes and syncs `snap.LSN.generating`, renames
//! this file to `snap.LSN`, and removes the older snapshots. When it opens, it uses the file whose
//! name sorts last among *all* files that begin with `snap.`, renamed or not
//! (`pagecache/snapshot.rs`, `config.rs`). So if the process is killed or the disk is full before
//! the rename, a file is left with which every later start fails as if the data were corrupt. The
//! log has everything that a snapshot has. Without the unfinished snapshot, sled reads the log from
//! where the snapshot before it ends, or from the beginning.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::store::StoreError;

/// Bytes after a snapshot's content: its length as `u64` and its CRC-32, little-endian.
const TRAILER_BYTES: usize = 12;

/// Removes snapshots that are not whole or not renamed yet. Must be called right before sled opens
/// the directory.
///
/// # Errors
/// `StoreError::Io`: if another process has the database open, with the text of sled's own error,
/// or if the system refuses.
pub(super) fn remove(directory: &Path) -> Result<(), StoreError> {
    let path = directory.join("db");
    let file = match File::open(&path) {
        Ok(file) => file,
        // There is no database yet: sled is about to create it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io(&path, error)),
    };
    // This is the lock that sled takes. If another process has it, that process may be about to
    // finish its snapshot, which must stay.
    file.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => StoreError::io(&path, io::Error::other(LOCKED)),
        fs::TryLockError::Error(error) => StoreError::io(&path, error),
    })?;
    // A process that was killed may have written to the log what it never synced. It can be read,
    // so it would count as acknowledged, and a snapshot may refer to it.
    file.sync_data().map_err(|error| StoreError::io(&path, error))?;
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

/// Part of the error text for a database that is open already, in sled and in this module.
pub(super) const LOCKED: &str = "could not acquire lock";

fn is_whole(bytes: &[u8]) -> bool {
    let Some((content, trailer)) = bytes.split_last_chunk::<TRAILER_BYTES>() else { return false };
    let [.., a, b, c, d] = *trailer;
    !content.is_empty() && crc32fast::hash(content) == u32::from_le_bytes([a, b, c, d])
}
