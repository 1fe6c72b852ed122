//! Files that are written as a whole or not at all, and directories for the owner alone.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Replaces a file in one step, durably: after a crash it has the old content or the new. `mode`
/// has an effect on Unix only.
///
/// # Errors
/// Those of the operating system.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file name"))?;
    let mut temporary = name.to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder(path).join(temporary);
    let written = (|| {
        let mut file = create_new(&temporary, mode)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Gives a file, whose bytes are durable, another name in the same folder, durably.
///
/// # Errors
/// Those of the operating system. The file may then have either name.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_dir(folder(to))
}

/// The folder that a path is in.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a directory and its missing parents, for the owner alone. An existing directory is left as
/// it is.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// The user of this process.
#[cfg(unix)]
pub(crate) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Opens a file that is written in place, and creates it for the owner alone if `options` say so.
///
/// # Errors
/// Refuses a link and a file of another user. If other users can write to the folder, they could
/// put a link there, and this process would write to the file that the link names.
pub(crate) fn open_in_place(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

        use rustix::fs::OFlags;

        // Without NONBLOCK the opening of a pipe would wait for its other end.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
        options.mode(0o600).custom_flags(i32::from_ne_bytes(flags.to_ne_bytes()));
        let file = options.open(path).map_err(|error| {
            if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
                io::Error::other("it is a link, expected a file")
            } else {
                error
            }
        })?;
        let (found, own) = (file.metadata()?, own_uid());
        if !found.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        if found.uid() != own && own != 0 {
            let text = format!("it belongs to user {}, expected user {own}", found.uid());
            return Err(io::Error::other(text));
        }
        Ok(file)
    }
    #[cfg(not(unix))]
    options.open(path)
}

fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    match options.open(path) {
        // The file was left by a killed process that had our pid.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)
        }
        other => other,
    }
}

/// Name of the file that a process locks while it works on a directory.
pub(crate) const LOCK: &str = "LOCK";
/// Name of a folder that a new file system of the ext family has at its top.
const LOST_AND_FOUND: &str = "lost+found";

/// The names in a directory, except [`LOCK`] and [`LOST_AND_FOUND`].
pub(crate) fn names_in(path: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let is_volume = entry.file_name() == LOST_AND_FOUND && entry.file_type()?.is_dir();
        if entry.file_name() != LOCK && !is_volume {
            names.push(entry.file_name());
        }
    }
    Ok(names)
}

/// Removes a file, or a folder with its content. A missing path is not an error.
pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed
        .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Copies a folder with its content to a new folder.
pub(crate) fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            // Only the bytes are copied: a copied mode might forbid writing.
            io::copy(&mut File::open(entry.path())?, &mut File::create(&target)?)?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn sync_dir(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    SYNCED.with_borrow_mut(|synced| synced.push(path.to_owned()));
    File::open(path)?.sync_all()
}

#[cfg(not(unix))]
fn sync_dir(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
thread_local! {
    /// The folders whose names this thread has made durable.
    pub(crate) static SYNCED: std::cell::RefCell<Vec<std::path::PathBuf>> =
        const { std::cell::RefCell::new(Vec::new()) };
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn writing_replaces_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for text in ["old, and longer", "new"] {
            write_atomic(&path, text.as_bytes(), 0o600).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_somebody_else_chose_is_not_written_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let open = |name| open_in_place(OpenOptions::new().append(true).create(true), &path(name));
        fs::write(path("key"), "secret").unwrap();
        std::os::unix::fs::symlink(path("key"), path("link")).unwrap();
        assert!(open("link").unwrap_err().to_string().contains("a link"));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        assert!(open("pipe").is_err());
        assert_eq!(fs::read_to_string(path("key")).unwrap(), "secret");
        open("new").unwrap();
        open("key").unwrap();
    }
}
