//! The space that a home takes and the space that is free on its disk, with a warning before the
//! disk is full.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

/// Time between two checks. A node writes at most some MiB per second, so it fills little of the
/// reserve meanwhile. A check walks the home, which has some hundred files.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// A disk is nearly full if fewer bytes are free than this, or than the size of the disk divided by
/// [`RESERVE_PART`], whichever is less.
const RESERVE_BYTES: u64 = 2 << 30;
const RESERVE_PART: u64 = 20;

/// How many levels of folders below a measured one are counted. A home has three.
const DEPTH_MAX: u32 = 4;

/// What a home takes and has left, as of the last check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that the files of the home take on disk.
    pub used: u64,
    /// Of these, bytes of the files of history.
    pub history: u64,
    /// Bytes that this node may still write; `None` if the system cannot say.
    pub free: Option<u64>,
}

impl Disk {
    /// Measures a home. It reads all its folders.
    #[must_use]
    pub fn of(home: &Path) -> Self {
        let history = disk_bytes(&home.join("db").join("history"));
        Self { used: disk_bytes(home), history, free: Space::of(home).map(|space| space.free) }
    }
}

/// Bytes on disk of a file or folder. That is less than the length of its files if these have
/// holes. A file that was removed meanwhile counts 0.
pub(crate) fn disk_bytes(path: &Path) -> u64 {
    bytes_below(path, DEPTH_MAX)
}

fn bytes_below(path: &Path, depth: u32) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    // `blocks` counts units of 512 bytes on every file system.
    let own = metadata.blocks().saturating_mul(512);
    if !metadata.is_dir() || depth == 0 {
        return own;
    }
    let Ok(entries) = fs::read_dir(path) else { return own };
    entries
        .flatten()
        .map(|entry| bytes_below(&entry.path(), depth.saturating_sub(1)))
        .fold(own, u64::saturating_add)
}

/// The size of a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    /// Bytes that this user may still write.
    pub(crate) free: u64,
    /// Size of the file system.
    pub(crate) total: u64,
}

impl Space {
    /// The space of the file system of a path; `None` if the system cannot say.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let found = rustix::fs::statvfs(path).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Some(Self { free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
    }

    /// The space after so many more bytes are written.
    pub(crate) const fn after(self, bytes: u64) -> Self {
        Self { free: self.free.saturating_sub(bytes), ..self }
    }

    /// Refuses so many more bytes if the disk is nearly full after them.
    pub(crate) fn check_room(self, bytes: u64) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.after(bytes).is_low(),
            "of {} MiB of disk {} are free, too few for {} more",
            self.total >> 20,
            self.free >> 20,
            bytes >> 20
        );
        Ok(())
    }

    /// Whether the disk is nearly full.
    pub(crate) fn is_low(self) -> bool {
        self.free < RESERVE_BYTES.min(self.total / RESERVE_PART)
    }
}

/// Measures the home every [`LOOK_EVERY`]. Warns once each time that its disk becomes nearly full,
/// and says when it has room again. Ends when `stop` does.
pub(crate) async fn watch(
    home: PathBuf,
    shows: watch::Sender<Disk>,
    stop: impl Future<Output = ()>,
) {
    tokio::pin!(stop);
    let mut was_low = false;
    loop {
        let measured = home.clone();
        let measuring = tokio::task::spawn_blocking(move || Disk::of(&measured));
        tokio::select! {
            () = &mut stop => return,
            measured = measuring => drop(measured.map(|disk| shows.send_replace(disk))),
        }
        if let Some(space) = Space::of(&home) {
            if space.is_low() && !was_low {
                tracing::warn!(
                    "the disk of {} is nearly full: {} MiB are free; a node stops when it cannot \
                     write",
                    home.display(),
                    space.free >> 20
                );
            } else if was_low && !space.is_low() {
                tracing::info!(
                    "the disk of {} has room again: {} MiB are free",
                    home.display(),
                    space.free >> 20
                );
            }
            was_low = space.is_low();
        }
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn low_is_two_gibibytes_or_a_twentieth() {
        const GIB: u64 = 1 << 30;
        for (free, total, is_low) in [
            (2 * GIB, 1_000 * GIB, false),
            (2 * GIB - 1, 1_000 * GIB, true),
            (GIB, 20 * GIB, false),
            (GIB - 1, 20 * GIB, true),
            (0, 20 * GIB, true),
            // Some network and pseudo file systems report no size.
            (0, 0, false),
        ] {
            let space = Space { free, total };
            assert_eq!(space.is_low(), is_low, "{free} of {total}");
            let before = Space { free: free + GIB, total };
            assert_eq!(before.after(GIB), space);
        }
    }

    #[test]
    fn what_is_written_leaves_the_reserve_of_the_disk_free() {
        const MIB: u64 = 1 << 20;
        let space = |free| Space { free: free * MIB, total: 10_000 * MIB };
        for (free, bytes, is_room) in
            [(600, 100, true), (599, 100, false), (500, 0, true), (499, 0, false), (50, 100, false)]
        {
            assert_eq!(space(free).check_room(bytes * MIB).is_ok(), is_room, "{free} {bytes}");
        }
    }

    #[test]
    fn a_home_is_measured_with_its_folders() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("db").join("blobs");
        fs::create_dir_all(&below).unwrap();
        let empty = Disk::of(folder.path());
        fs::write(below.join("file"), vec![1; 1 << 20]).unwrap();
        let full = Disk::of(folder.path());
        assert!(full.used >= empty.used + (1 << 20), "{empty:?} {full:?}");
        assert!(full.free.is_some());
        assert_eq!(Disk::of(&folder.path().join("none")), Disk::default());
    }

    #[tokio::test]
    async fn the_first_measurement_comes_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (shows, mut shown) = watch::channel(Disk::default());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let watching = tokio::spawn(watch(folder.path().to_owned(), shows, async {
            let _ = stopped.await;
        }));
        shown.changed().await.unwrap();
        assert!(shown.borrow().used > 0);
        drop(stop);
        watching.await.unwrap();
    }

    #[test]
    fn the_system_tells_the_space_of_a_folder_that_exists() {
        let folder = tempfile::tempdir().unwrap();
        let space = Space::of(folder.path()).unwrap();
        assert!(space.free > 0 && space.free <= space.total, "{space:?}");
        assert_eq!(Space::of(&folder.path().join("none")), None);
    }
}
