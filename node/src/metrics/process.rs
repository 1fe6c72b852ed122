//! Measurements of this process, for the metrics that Prometheus' own clients also export.

use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::space::disk_bytes;

/// Facts that do not change while the process runs.
pub(crate) struct Process {
    /// When the process started, in seconds since 1970.
    pub(crate) started: f64,
    /// Files and folders of the node, each with the name of its part.
    pub(crate) disk: Vec<(&'static str, PathBuf)>,
}

impl Process {
    /// For this process, which has just started.
    pub(crate) fn new(disk: Vec<(&'static str, PathBuf)>) -> Self {
        let started =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        Self { started, disk }
    }

    /// Bytes that each part takes on disk. That is less than the length of its files if these have
    /// holes.
    pub(crate) fn disk_bytes(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.disk.iter().map(|(part, path)| (*part, disk_bytes(path)))
    }
}

/// CPU time that all threads have used, in seconds.
pub(crate) fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Resident memory of the process in bytes; `None` on systems without `/proc`.
pub(crate) fn resident_bytes() -> Option<u64> {
    let pages: u64 =
        fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Number of open files; `None` on systems without `/proc`.
pub(crate) fn open_files() -> Option<u64> {
    // Reading this folder opens one file, which is not counted.
    fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1) as u64)
}

/// Most files that may be open; `None` means unlimited.
pub(crate) fn files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
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
        let empty = disk_bytes(dir.path());
        fs::write(below.join("file"), vec![1; 1 << 20]).unwrap();
        let process = Process::new(vec![
            ("store", dir.path().to_owned()),
            ("none", dir.path().join("nothing")),
        ]);
        let [store, none] = process.disk_bytes().collect::<Vec<_>>().try_into().unwrap();
        assert!(store.1 >= empty + (1 << 20) && none == ("none", 0), "{store:?}");
        assert!(
            process.started > 1.6e9 && cpu_seconds() > 0.0 && resident_bytes().unwrap() > 1 << 20
        );
        // Other tests open files too.
        assert!(before > 2 && files_max().is_none_or(|max| max > before));
    }
}
