//! The file `keystore.json`: its format, the checks when it is read, and how it is replaced as a
//! whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cipher::Sealed;
use super::hexadecimal::Hex;
use super::{KdfParams, KeyName, KeystoreError};
use crate::slip10::Index;

/// The only format so far. A later format gets another number. A program with a later format must
/// still read this one.
pub(super) const FORMAT: u32 = 1;
/// Most keys of a store. A file with this many keys stays below `FILE_BYTES_MAX`.
pub(super) const KEYS_MAX: usize = 1024;
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The whole file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) format: u32,
    pub(super) argon2id: KdfParams,
    pub(super) salt: Hex<[u8; 16]>,
    /// The entropy of the phrase, sealed with the fields above as associated data. So it opens only
    /// if the password is right and these fields are unchanged.
    pub(super) phrase: Sealed,
    pub(super) keys: Vec<Entry>,
    /// An empty secret, sealed with all fields above as associated data. It authenticates the
    /// fields that are not encrypted.
    pub(super) seal: Sealed,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) name: KeyName,
    pub(super) public_key: Hex<[u8; 32]>,
    pub(super) origin: EntryOrigin,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum EntryOrigin {
    Derived { account: Index },
    Imported { secret: Sealed },
}

/// Path of the file in a keystore's directory.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("keystore.json")
}

/// Reads the file and makes all checks that need no password.
pub(super) fn read(dir: &Path) -> Result<Document, KeystoreError> {
    let path = path(dir);
    let fail = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => KeystoreError::NoKeystore { path: path.clone() },
        _ => KeystoreError::Io { action: "read", path: path.clone(), error },
    };
    // This is checked before opening, because opening a pipe would wait forever.
    if !fs::metadata(&path).map_err(fail)?.is_file() {
        return Err(damaged(&path, "not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(fail)?;
    parse(&path, &bytes)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Document, KeystoreError> {
    /// This field is parsed first, so that a later format is reported as such and not as damage.
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(damaged(path, "longer than 1 MiB"));
    }
    let Format { format } =
        serde_json::from_slice(bytes).map_err(|error| damaged(path, &error.to_string()))?;
    if format != FORMAT {
        return Err(KeystoreError::Format { path: path.to_owned(), got: format, expected: FORMAT });
    }
    let document: Document =
        serde_json::from_slice(bytes).map_err(|error| damaged(path, &error.to_string()))?;
    document.argon2id.check().map_err(|error| damaged(path, &error.to_string()))?;
    if document.keys.len() > KEYS_MAX {
        return Err(damaged(path, &format!("{} keys, at most {KEYS_MAX}", document.keys.len())));
    }
    for (i, key) in document.keys.iter().enumerate() {
        if document.keys[..i]
            .iter()
            .any(|other| other.name == key.name || other.public_key == key.public_key)
        {
            return Err(damaged(path, &format!("key {} is there twice", key.name)));
        }
    }
    Ok(document)
}

fn damaged(path: &Path, reason: &str) -> KeystoreError {
    // The reason may quote the file, so it may be very long or hold control characters for a
    // terminal.
    let reason = reason.chars().filter(|c| !c.is_control()).take(200).collect();
    KeystoreError::Damaged { path: path.to_owned(), reason }
}

/// The right to change the keystore in a directory. One process holds it at a time, until dropped.
///
/// It is an advisory lock on a separate file. `keystore.json` itself is replaced, so a lock on it
/// would stay with the old file.
pub(super) struct Lock {
    dir: PathBuf,
    /// The lock lasts while this file is open.
    _file: File,
}

impl Lock {
    /// Waits while another process holds the lock. A process holds it for one write of the file,
    /// never while a password is typed or hashed.
    pub(super) fn take(dir: &Path) -> Result<Self, KeystoreError> {
        let path = dir.join("keystore.lock");
        let file = private(OpenOptions::new().write(true).create(true).truncate(false)).open(&path);
        let locked = file.and_then(|file| file.lock().map(|()| file));
        let file = locked.map_err(|error| KeystoreError::Io { action: "lock", path, error })?;
        Ok(Self { dir: dir.to_owned(), _file: file })
    }

    /// Replaces the file. After a crash at any point, the old or the new file is there as a whole.
    pub(super) fn write(&self, document: &Document) -> Result<(), KeystoreError> {
        let path = path(&self.dir);
        let temporary = self.dir.join(".keystore.json.new");
        let result = self.replace(&temporary, &path, document);
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        result.map_err(|error| KeystoreError::Io { action: "write", path, error })
    }

    fn replace(&self, temporary: &Path, path: &Path, document: &Document) -> io::Result<()> {
        let mut bytes = serde_json::to_vec_pretty(document)?;
        bytes.push(b'\n');
        assert!(bytes.len() as u64 <= FILE_BYTES_MAX, "KEYS_MAX keys fit into FILE_BYTES_MAX");
        // A temporary file here was left by a writer that crashed, since only the holder of the
        // lock makes one.
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = private(OpenOptions::new().write(true).create_new(true)).open(temporary)?;
        file.write_all(&bytes)?;
        // The content is synced before the rename. If a power cut kept the rename but not the
        // bytes, the file would be empty.
        file.sync_all()?;
        fs::rename(temporary, path)?;
        sync_directory(&self.dir)
    }
}

/// Makes the directory for its owner alone. An existing directory must already be closed to others,
/// or be empty. An empty directory is closed to others here, which locks nobody out.
pub(crate) fn prepare(dir: &Path) -> Result<(), KeystoreError> {
    let fail = |error| KeystoreError::Io { action: "create", path: dir.to_owned(), error };
    let Ok(found) = fs::metadata(dir) else {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(dir).map_err(fail)?;
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        return parent.map_or(Ok(()), sync_directory).map_err(fail);
    };
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut permissions = found.permissions();
    let Some(mode) = open_to_others(&permissions) else { return Ok(()) };
    if fs::read_dir(dir).map_err(fail)?.next().is_some() {
        return Err(KeystoreError::Exposed { path: dir.to_owned(), mode });
    }
    #[cfg(unix)]
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o700);
    fs::set_permissions(dir, permissions).map_err(fail)
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// The permission bits, if group or others may enter, read or change the directory.
#[cfg(unix)]
fn open_to_others(permissions: &fs::Permissions) -> Option<u32> {
    let mode = std::os::unix::fs::PermissionsExt::mode(permissions) & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

#[cfg(not(unix))]
fn open_to_others(_: &fs::Permissions) -> Option<u32> {
    None
}

/// Makes a rename durable. Does nothing on Windows, where a directory cannot be opened as a file.
pub(crate) fn sync_directory(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}
