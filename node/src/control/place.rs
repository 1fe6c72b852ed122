//! Where the socket lies: its folder, the checks of the folder's owner and mode, and the removal of
//! a stale socket.
//!
//! The socket is `run/control` in the home. The system bounds the length of a socket's path. If the
//! home's path is too long, the socket lies in a folder of its own below `$XDG_RUNTIME_DIR` or the
//! system's temporary folder. Then `run/control` is a regular file that holds the socket's path.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use super::ControlError;
use crate::files::{own_uid, remove_all, write_atomic};

/// Most bytes of a socket's path. Linux takes 107, macOS 103.
pub(super) const PATH_BYTES_MAX: usize = 100;
/// The folder of the socket.
const RUN: &str = "run";
/// The socket, or the file that names it.
const CONTROL: &str = "control";
/// Most bytes of the file that names the socket.
const NAME_BYTES_MAX: u64 = 4096;

/// The bound socket. Dropping it removes its files.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(super) listener: UnixListener,
    files: Vec<Bound>,
}

/// A file or an empty folder that this process made.
#[derive(Debug)]
struct Bound {
    path: PathBuf,
    /// Device and inode: a later process may have replaced the file.
    id: (u64, u64),
}

impl Bound {
    fn new(path: PathBuf) -> Result<Self, ControlError> {
        let found = fs::symlink_metadata(&path).map_err(failed_at(&path))?;
        Ok(Self { path, id: (found.dev(), found.ino()) })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let Ok(found) = fs::symlink_metadata(&self.path) else { return };
        if (found.dev(), found.ino()) == self.id {
            // If this fails, the next start removes it.
            let _ = match found.is_dir() {
                true => fs::remove_dir(&self.path),
                false => fs::remove_file(&self.path),
            };
        }
    }
}

impl Listener {
    /// Binds the socket of a home or of a network's directory, in place of a stale one. The caller
    /// holds the directory's lock. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// `Io`, `Unsafe` or `TooLong`.
    pub(crate) fn bind(root: &Path) -> Result<Self, ControlError> {
        Self::bind_in(root, &user_folders())
    }

    /// As [`bind`](Self::bind), with the folders in which the socket may lie if the path of the
    /// home is long.
    pub(super) fn bind_in(root: &Path, folders: &[PathBuf]) -> Result<Self, ControlError> {
        let root = fs::canonicalize(root).map_err(failed_at(root))?;
        let run = root.join(RUN);
        make_folder(&run)?;
        let control = run.join(CONTROL);
        remove_stale(&control)?;
        if is_short(&control) {
            let listener = bind_at(&control)?;
            return Ok(Self { listener, files: vec![Bound::new(control)?] });
        }
        let socket = socket_elsewhere(&control, folders)?;
        let listener = bind_at(&socket)?;
        let mut files = vec![Bound::new(socket.clone())?];
        if let Some(folder) = socket.parent() {
            files.push(Bound::new(folder.to_owned())?);
        }
        write_atomic(&control, socket.as_os_str().as_bytes(), 0o600)
            .map_err(failed_at(&control))?;
        files.push(Bound::new(control)?);
        Ok(Self { listener, files })
    }

    /// The path of the socket.
    pub(super) fn socket(&self) -> &Path {
        &self.files[0].path
    }
}

/// The path of the socket at which the process of a home listens. If that process was killed, the
/// path may have remained.
///
/// # Errors
/// [`ControlError::Absent`]; `Io` and `Unsafe` if the files cannot be read or trusted.
pub(super) fn socket_of(root: &Path) -> Result<PathBuf, ControlError> {
    let absent = || ControlError::Absent { root: root.to_owned() };
    let is_missing = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    };
    let canonical = match fs::canonicalize(root) {
        Err(error) if is_missing(&error) => return Err(absent()),
        found => found.map_err(failed_at(root))?,
    };
    let run = canonical.join(RUN);
    let control = run.join(CONTROL);
    let found = match fs::symlink_metadata(&control) {
        Err(error) if is_missing(&error) => return Err(absent()),
        found => found.map_err(failed_at(&control))?,
    };
    let folder = fs::symlink_metadata(&run).map_err(failed_at(&run))?;
    let owner = if own_uid() == 0 { folder.uid() } else { own_uid() };
    if found.file_type().is_socket() {
        // Another user could listen at a socket in a folder that is open to others.
        check_folder(&run, &folder, owner)?;
        return Ok(control);
    }
    if !found.is_file() {
        return Err(untrusted(&control, "neither a socket nor a file that names one"));
    }
    let socket = named_in(&control)?;
    let folder = socket.parent().ok_or_else(|| untrusted(&control, "it names no socket"))?;
    match fs::symlink_metadata(folder) {
        Err(error) if is_missing(&error) => return Err(absent()),
        found => check_folder(folder, &found.map_err(failed_at(folder))?, owner)?,
    }
    Ok(socket)
}

/// Makes the folder of a home's socket, for the owner alone.
fn make_folder(run: &Path) -> Result<(), ControlError> {
    match DirBuilder::new().mode(0o700).create(run) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed_at(run)(error));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(run).map_err(failed_at(run))?;
    let own = own_uid();
    if found.is_dir() && (found.uid() == own || own == 0) && is_open_to_others(&found) {
        // The node made this folder itself, so it may correct the mode, which a copy of a home
        // loses.
        fs::set_permissions(run, Permissions::from_mode(0o700)).map_err(failed_at(run))?;
    }
    let found = fs::symlink_metadata(run).map_err(failed_at(run))?;
    check_folder(run, &found, if own == 0 { found.uid() } else { own })
}

/// Checks that a path is a folder and no link, belongs to `owner`, and is closed to all others.
fn check_folder(folder: &Path, found: &Metadata, owner: u32) -> Result<(), ControlError> {
    let reason = if !found.is_dir() {
        "it is not a folder; expected a folder of this user with mode 0700".to_owned()
    } else if found.uid() != owner {
        format!("it belongs to user {}, expected user {owner}", found.uid())
    } else if is_open_to_others(found) {
        format!("its mode is {:04o}, expected 0700", found.mode() & 0o7777)
    } else {
        return Ok(());
    };
    Err(untrusted(folder, reason))
}

fn is_open_to_others(found: &Metadata) -> bool {
    found.mode() & 0o077 != 0
}

/// Removes what an earlier process of this home has left.
fn remove_stale(control: &Path) -> Result<(), ControlError> {
    let found = match fs::symlink_metadata(control) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed_at(control))?,
    };
    if found.is_dir() {
        return Err(untrusted(control, "it is a folder, expected a socket: remove it"));
    }
    if found.is_file()
        && let Ok(socket) = named_in(control)
    {
        let named = fs::symlink_metadata(&socket);
        if named.is_ok_and(|named| named.file_type().is_socket() && named.uid() == own_uid()) {
            remove_all(&socket).map_err(failed_at(&socket))?;
            // It stays if another process has put something there.
            let _ = socket.parent().map(fs::remove_dir);
        }
    }
    remove_all(control).map_err(failed_at(control))
}

/// The socket's path in a file that names it.
fn named_in(control: &Path) -> Result<PathBuf, ControlError> {
    let mut bytes = Vec::new();
    let file = File::open(control).map_err(failed_at(control))?;
    file.take(NAME_BYTES_MAX).read_to_end(&mut bytes).map_err(failed_at(control))?;
    let socket = PathBuf::from(std::ffi::OsStr::from_bytes(&bytes));
    if socket.is_absolute() && is_short(&socket) {
        Ok(socket)
    } else {
        Err(untrusted(control, "it names no socket"))
    }
}

/// The path of a new socket in a new folder, which is made in the first of these folders where the
/// path is short enough. The name of the new folder is random, so no other user can take it first.
fn socket_elsewhere(control: &Path, folders: &[PathBuf]) -> Result<PathBuf, ControlError> {
    let random = getrandom::u64().map_err(|error| failed_at(control)(io::Error::other(error)))?;
    let place = |folder: &PathBuf| folder.join(format!("cairn-{random:016x}")).join(CONTROL);
    let places: Vec<PathBuf> = folders.iter().map(place).collect();
    let Some(socket) = places.iter().find(|socket| is_short(socket)) else {
        let shortest = places.into_iter().min_by_key(|socket| socket.as_os_str().len());
        return Err(ControlError::TooLong { path: shortest.unwrap_or_else(|| control.to_owned()) });
    };
    if let Some(folder) = socket.parent() {
        DirBuilder::new().mode(0o700).create(folder).map_err(failed_at(folder))?;
    }
    Ok(socket.clone())
}

/// Binds a socket in a folder that only the owner can enter.
fn bind_at(socket: &Path) -> Result<UnixListener, ControlError> {
    let listener = UnixListener::bind(socket).map_err(failed_at(socket))?;
    fs::set_permissions(socket, Permissions::from_mode(0o600)).map_err(failed_at(socket))?;
    Ok(listener)
}

/// The folders in which a socket may have its folder, in order of preference.
fn user_folders() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|folder| folder.is_absolute() && folder.is_dir());
    runtime.into_iter().chain([std::env::temp_dir()]).collect()
}

fn is_short(path: &Path) -> bool {
    path.as_os_str().len() <= PATH_BYTES_MAX
}

fn untrusted(path: &Path, reason: impl Into<String>) -> ControlError {
    ControlError::Unsafe { path: path.to_owned(), reason: reason.into() }
}

pub(super) fn failed_at(path: &Path) -> impl Fn(io::Error) -> ControlError {
    move |error| ControlError::Io { path: path.to_owned(), error }
}
