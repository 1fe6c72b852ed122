//! The process in numbers, by the names that Prometheus' own clients use.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Deepest folder below those that are measured: the store's are two deep.
const DEPTH_MAX: u32 = 4;

/// What is known once and for all.
pub(crate) struct Process {
    /// Seconds since 1970.
    pub(crate) started: f64,
    /// Files and folders of the node, by what they are for.
    pub(crate) disk: Vec<(&'static str, PathBuf)>,
}

impl Process {
    /// Of this process, which has just been started.
    pub(crate) fn new(disk: Vec<(&'static str, PathBuf)>) -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        Self { started, disk }
    }

    /// Bytes that each part takes on disk, which is less than its files' length where these have holes.
    pub(crate) fn disk_bytes(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.disk.iter().map(|(part, path)| (*part, disk_bytes(path, DEPTH_MAX)))
    }
}

/// Seconds of CPU that all threads have used.
pub(crate) fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Bytes of memory that the process holds, where the system tells.
pub(crate) fn resident_bytes() -> Option<u64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Files that are open, where the system tells.
pub(crate) fn open_files() -> Option<u64> {
    // The folder that is read is one of them.
    fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1) as u64)
}

/// Files that may be open; none is no limit.
pub(crate) fn files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// A file may go while it is looked at, and then has no bytes.
fn disk_bytes(path: &Path, depth: u32) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    // The unit of `blocks`, whatever the file system's is.
    let own = metadata.blocks() * 512;
    if !metadata.is_dir() || depth == 0 {
        return own;
    }
    let Ok(entries) = fs::read_dir(path) else { return own };
    entries.flatten().map(|entry| disk_bytes(&entry.path(), depth - 1)).fold(own, u64::saturating_add)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_process_and_its_files_are_measured() {
        let before = open_files().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a").join("b");
        fs::create_dir_all(&below).unwrap();
        let empty = disk_bytes(dir.path(), DEPTH_MAX);
        fs::write(below.join("file"), vec![1; 1 << 20]).unwrap();
        let process = Process::new(vec![("store", dir.path().to_owned()), ("none", dir.path().join("nothing"))]);
        let [store, none] = process.disk_bytes().collect::<Vec<_>>().try_into().unwrap();
        assert!(store.1 >= empty + (1 << 20) && none == ("none", 0), "{store:?}");
        assert!(process.started > 1.6e9 && cpu_seconds() > 0.0 && resident_bytes().unwrap() > 1 << 20);
        // Other tests open files too.
        assert!(before > 2 && files_max().is_none_or(|max| max > before));
    }
}
