//! Where `get` writes a file: under a temporary name beside its place, until it is whole.

use std::fs::{File, Permissions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tempfile::NamedTempFile;

use crate::holes::{next_data, next_hole};

/// Bytes that are copied at once.
const COPY_BYTES: usize = 1 << 20;

/// A file that is put in its place once it is complete. If it is dropped before, nothing is left.
pub(super) struct Target {
    path: PathBuf,
    is_forced: bool,
    temporary: NamedTempFile,
}

impl Target {
    /// Makes a temporary file in the folder of `path`.
    ///
    /// # Errors
    /// `path` exists and is not to be replaced, or the folder cannot be written to.
    pub(super) fn new(path: &Path, is_forced: bool) -> anyhow::Result<Self> {
        match path.symlink_metadata() {
            Ok(found) if found.is_dir() => bail!("{} is a folder", path.display()),
            Ok(_) if !is_forced => {
                bail!("{} exists already: give --force to replace it", path.display())
            }
            _ => {}
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let temporary = tempfile::Builder::new()
            .prefix(".cairn-get-")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .with_context(|| folder.display().to_string())?;
        Ok(Self { path: path.to_owned(), is_forced, temporary })
    }

    pub(super) fn file(&self) -> &File {
        self.temporary.as_file()
    }

    /// Makes the bytes durable, and gives the file its place.
    ///
    /// # Errors
    /// The disk refuses, or `path` exists by now and is not to be replaced.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        let Self { path, is_forced, temporary } = self;
        temporary.as_file().sync_all().with_context(|| path.display().to_string())?;
        let done = match is_forced {
            true => temporary.persist(&path),
            false => temporary.persist_noclobber(&path),
        };
        done.map_err(|error| error.error).with_context(|| path.display().to_string())?;
        Ok(())
    }
}

/// Copies the bytes of `range` from one file to the same offsets of another. `length` is the length
/// of the first file. Holes are not written. If the range is the whole file, the copy shares its
/// blocks where the file system can do that. `tell` is given the number of bytes copied so far.
///
/// # Errors
/// Those of the operating system.
pub(super) fn copy(
    from: &File,
    to: &File,
    range: Range<u64>,
    length: u64,
    mut tell: impl FnMut(u64),
) -> io::Result<()> {
    if range == (0..length) && clone(from, to) {
        tell(length);
        return Ok(());
    }
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = range.start;
    while at < range.end {
        let data = next_data(from, at)?.unwrap_or(range.end).min(range.end);
        let end = next_hole(from, data)?.clamp(data, range.end);
        at = data;
        while at < end {
            let wanted = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let part = &mut buffer[..wanted];
            from.read_exact_at(part, at)?;
            to.write_all_at(part, at)?;
            at += wanted as u64;
            tell(at - range.start);
        }
    }
    Ok(())
}

/// Makes a copy that shares its blocks. Returns whether the file system could.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn clone(from: &File, to: &File) -> bool {
    rustix::fs::ioctl_ficlone(to, from).is_ok()
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn clone(_from: &File, _to: &File) -> bool {
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_file_comes_to_its_place_whole_and_replaces_only_by_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let write = |is_forced, text: &str| {
            let target = Target::new(&path, is_forced)?;
            target.file().write_all_at(text.as_bytes(), 0)?;
            assert!(!path.exists() || is_forced);
            target.finish()
        };
        write(false, "first").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o111, 0);
        let error = write(false, "second").unwrap_err().to_string();
        assert!(error.contains("--force"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        write(true, "third").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "third");
        // A file that appears meanwhile is not replaced either, and nothing stays beside it.
        fs::remove_file(&path).unwrap();
        let target = Target::new(&path, false).unwrap();
        fs::write(&path, "somebody else's").unwrap();
        assert!(target.finish().is_err());
        drop(Target::new(&path, true).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody else's");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(Target::new(folder.path(), true).is_err(), "a folder is never replaced");
    }

    #[test]
    fn holes_stay_holes_and_only_the_range_is_copied() {
        const MIB: u64 = 1 << 20;
        let from = tempfile::tempfile().unwrap();
        from.set_len(64 * MIB).unwrap();
        from.write_all_at(&[7; 100], 33 * MIB).unwrap();
        for (range, expected) in [(0..64 * MIB, 7), (33 * MIB + 50..40 * MIB, 7), (0..MIB, 0)] {
            let to = tempfile::tempfile().unwrap();
            to.set_len(64 * MIB).unwrap();
            copy(&from, &to, range.clone(), 64 * MIB, |_| {}).unwrap();
            let mut bytes = [1; 100];
            to.read_exact_at(&mut bytes, 33 * MIB).unwrap();
            assert_eq!(bytes[99], expected, "{range:?}");
            assert_eq!(bytes[0], if range.start == 0 { expected } else { 0 }, "{range:?}");
            assert!(to.metadata().unwrap().blocks() * 512 < MIB, "{range:?}");
        }
    }
}
