//! Folders of the bench: one for the chains it keeps, and one for each run.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use super::{say, stop};

/// Interval between two attempts to lock the chains.
const TICK: Duration = Duration::from_millis(20);

/// The bench folder in cargo's target directory: TARGET/bench, if `bench` is TARGET/PROFILE/bench.
pub(super) fn folder(bench: &Path) -> anyhow::Result<PathBuf> {
    let target = bench.ancestors().nth(2).context("cargo puts programs two levels deep")?;
    Ok(target.join("bench"))
}

/// Waits until no other bench makes or copies a chain, and keeps others waiting until the returned
/// file is dropped. A store can be opened only once, and must not change while it is copied.
pub(super) fn take_turn(folder: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(folder)?;
    let file = File::create(folder.join("lock"))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => stop::pause(TICK)?,
            Err(TryLockError::Error(error)) => {
                return Err(error).context("chains cannot be locked");
            }
        }
    }
}

/// Gives `work` a temporary folder. The folder is removed at the end, also after an interrupt. It
/// is kept if the work fails for another reason, or if the user wants to keep it.
pub(super) fn in_folder<T>(
    folder: &Path,
    keep: bool,
    work: impl FnOnce(&Path) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    fs::create_dir_all(folder)?;
    let folder: TempDir = tempfile::Builder::new().prefix("run-").tempdir_in(folder)?;
    let result = work(folder.path());
    let interrupted = result.as_ref().is_err_and(|error| error.is::<stop::Interrupted>());
    if keep || (result.is_err() && !interrupted) {
        say!("homes and logs are in {}", folder.keep().display());
    }
    result
}
