//! Free space of the disk that a home is on, and a warning before it is full.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time between two checks. A node writes at most some MiB per second.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// A disk is nearly full if fewer bytes are free than this, or than the size of the disk divided by
/// [`RESERVE_PART`], whichever is less.
const RESERVE_BYTES: u64 = 2 << 30;
const RESERVE_PART: u64 = 20;

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

    /// Whether the disk is nearly full.
    pub(crate) fn is_low(self) -> bool {
        self.free < RESERVE_BYTES.min(self.total / RESERVE_PART)
    }
}

/// Warns once each time that the disk of a home becomes nearly full. Ends when `stop` does.
pub(crate) async fn watch(home: PathBuf, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    let mut was_low = false;
    loop {
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
            assert_eq!(Space { free, total }.is_low(), is_low, "{free} of {total}");
        }
    }

    #[test]
    fn the_system_tells_the_space_of_a_folder_that_exists() {
        let folder = tempfile::tempdir().unwrap();
        let space = Space::of(folder.path()).unwrap();
        assert!(space.free > 0 && space.free <= space.total, "{space:?}");
        assert_eq!(Space::of(&folder.path().join("none")), None);
    }
}
