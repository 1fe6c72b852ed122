//! Snapshots on disk: one file for each, in a folder of their own.
//!
//! A file gets its name only when it is complete, synced and read back. Until then it is called
//! `.part`, and [`Snapshots::open`] removes what a crash left of it. So a kill, a torn write or a
//! full disk at any step leaves the whole snapshot or none. `file.rs` has the format.
//!
//! [`Snapshots`] is a handle, which each thread may clone. It keeps no file open. Every chunk is
//! verified against the frontier before it is given out, since the disk may have damaged it.

mod file;
mod writer;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use writer::{SnapshotReader, SnapshotWriter};

use crate::block::Header;
use crate::certificate::Certificate;
use crate::chain::Chain;
use crate::hash::SnapshotId;
use crate::snapshot::Frontier;
use crate::state::State;
use crate::store::positions::remove_file;
use crate::store::{Problem, StoreError, VerifyReport};
use file::{Name, SnapshotFile};

/// This many of the newest snapshots are always kept. A newcomer that began with the older one can
/// finish while the newer one is announced.
const NEWEST: usize = 2;
/// A snapshot is also kept for this long after a chunk of it was asked for: a newcomer is fetching
/// it.
const IN_USE: Duration = Duration::from_secs(600);
/// Most snapshots that are kept. This bounds what newcomers can make a node keep.
const SNAPSHOTS_MAX: usize = 4;

/// A complete snapshot on this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Name of the snapshot: [`Frontier::id`], which is slow to compute.
    pub id: SnapshotId,
    /// Header of the snapshot's block.
    pub header: Header,
    /// Certificate of this block.
    pub certificate: Certificate,
    /// The frontier, for the `state_root` of the header.
    pub frontier: Arc<Frontier>,
}

/// The snapshots on this disk. Clones share them.
#[derive(Clone, Debug)]
pub struct Snapshots {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    chain: Arc<Chain>,
    /// Newest first.
    kept: Mutex<Vec<Kept>>,
}

#[derive(Debug)]
struct Kept {
    file: SnapshotFile,
    /// When a chunk was last asked for.
    asked: Option<Duration>,
}

impl Snapshots {
    /// Finds the snapshots of a chain in a directory, which need not exist. Reads no chunk. Removes
    /// files that were not finished.
    ///
    /// Also returns what is wrong with other snapshot files: they are damaged, of another chain or
    /// of another format, or the system refuses to read or to remove them. These files stay, and
    /// are not listed. A directory that cannot be read is a problem, too, and then nothing is
    /// listed.
    #[must_use]
    pub fn open(directory: &Path, chain: &Arc<Chain>) -> (Self, Vec<Problem>) {
        let mut kept = Vec::new();
        let mut problems = Vec::new();
        let names = names_in(directory);
        let names = names.unwrap_or_else(|error| {
            problems.push(problem(error));
            Vec::new()
        });
        for name in names {
            let opened = match Name::parse(&name) {
                Some(name) => file::open(&name.path(directory), &name, chain).map(Some),
                None if Name::is_unfinished(&name) => {
                    remove_file(&directory.join(name)).map(|()| None)
                }
                None => Ok(None),
            };
            match opened {
                Ok(file) => kept.extend(file.map(|file| Kept { file, asked: None })),
                Err(error) => problems.push(problem(error)),
            }
        }
        sort(&mut kept);
        let shared = Shared {
            directory: directory.to_owned(),
            chain: Arc::clone(chain),
            kept: Mutex::new(kept),
        };
        (Self { shared: Arc::new(shared) }, problems)
    }

    /// All snapshots, newest first.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<SnapshotInfo>> {
        self.kept().iter().map(|kept| Arc::clone(&kept.file.info)).collect()
    }

    /// The bytes of a chunk, which match the frontier; `None` if there is no such snapshot or
    /// chunk. `now` is the time since any fixed moment, the same for all calls on all clones.
    ///
    /// # Errors
    /// `StoreError::Corrupt` if the chunk is damaged, `StoreError::Io`. The caller should then stop
    /// offering the snapshot, and [`Self::remove`] it.
    pub fn chunk(
        &self,
        id: &SnapshotId,
        index: u64,
        now: Duration,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(asked) = self.ask(id, now) else { return Ok(None) };
        let (mut file, path) = self.open_file(&asked)?;
        asked.read(&mut file, &path, index)
    }

    /// The state that a snapshot has; `None` if there is no such snapshot.
    ///
    /// # Errors
    /// `StoreError::Corrupt` if a chunk is damaged, `StoreError::Io`.
    pub fn state(&self, id: &SnapshotId) -> Result<Option<State>, StoreError> {
        let found =
            self.kept().iter().find(|kept| kept.file.info.id == *id).map(|kept| kept.file.clone());
        let Some(snapshot) = found else { return Ok(None) };
        let (mut file, path) = self.open_file(&snapshot)?;
        let frontier = &snapshot.info.frontier;
        let mut chunks = Vec::new();
        for index in 0..frontier.chunk_count() {
            chunks.extend(snapshot.verified(&mut file, &path, index)?.map(|(_, chunk)| chunk));
        }
        let state = frontier.assemble(chunks);
        let state = state.ok_or_else(|| StoreError::corrupt(snapshot.name(), "lacks a chunk"))?;
        Ok(Some(state))
    }

    fn open_file(&self, snapshot: &SnapshotFile) -> Result<(File, PathBuf), StoreError> {
        let path = snapshot.name().path(&self.shared.directory);
        match File::open(&path) {
            Ok(file) => Ok((file, path)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(StoreError::corrupt(snapshot.name(), "missing"))
            }
            Err(error) => Err(StoreError::io(&path, error)),
        }
    }

    /// Removes a snapshot and its file. Does nothing if there is no such snapshot.
    ///
    /// # Errors
    /// `StoreError::Io`. The snapshot is not listed any more, but is found again by
    /// [`Self::open`].
    pub fn remove(&self, id: &SnapshotId) -> Result<(), StoreError> {
        let removed = {
            let mut kept = self.kept();
            let at = kept.iter().position(|kept| kept.file.info.id == *id);
            at.map(|at| kept.remove(at))
        };
        let Some(Kept { file, .. }) = removed else { return Ok(()) };
        remove_file(&file.name().path(&self.shared.directory))
    }

    /// Removes all snapshots that need not be kept. The newest two stay, and of the others those of
    /// which a chunk was asked for in the last ten minutes, up to four in all. `now` is as for
    /// [`Self::chunk`].
    ///
    /// # Errors
    /// `StoreError::Io`.
    pub fn prune(&self, now: Duration) -> Result<(), StoreError> {
        let dropped: Vec<SnapshotId> = {
            let kept = self.kept();
            let asked: Vec<_> = kept.iter().map(|kept| kept.asked).collect();
            let stays = stays(&asked, now);
            kept.iter()
                .zip(stays)
                .filter(|(_, stays)| !stays)
                .map(|(kept, _)| kept.file.info.id)
                .collect()
        };
        dropped.iter().try_for_each(|id| self.remove(id))
    }

    /// Checks all snapshots in a directory: heads, certificates, and each chunk. Adds to a report
    /// what is wrong. Changes nothing. A file that was not finished is no problem.
    ///
    /// # Errors
    /// `StoreError::Io`.
    pub fn verify(
        directory: &Path,
        chain: &Arc<Chain>,
        report: &mut VerifyReport,
    ) -> Result<(), StoreError> {
        for name in names_in(directory)?.iter().filter_map(|name| Name::parse(name)) {
            let path = name.path(directory);
            let opened = file::open(&path, &name, chain);
            let Some(opened) = report.note(opened)? else { continue };
            let SnapshotInfo { header, certificate, frontier, .. } = &*opened.info;
            let (height, validators) = (header.height, chain.validators(header.height));
            let verified = certificate.verify(chain.id(), validators, height, header.hash());
            if let Err(error) = verified {
                report.add(name, error);
                continue;
            }
            let mut file = File::open(&path).map_err(|error| StoreError::io(&path, error))?;
            let mut is_clean = true;
            for index in 0..frontier.chunk_count() {
                is_clean &= report.note(opened.read(&mut file, &path, index))?.is_some();
            }
            report.snapshots = report.snapshots.saturating_add(u64::from(is_clean));
        }
        Ok(())
    }

    /// A snapshot of which a chunk is asked for now.
    fn ask(&self, id: &SnapshotId, now: Duration) -> Option<SnapshotFile> {
        let mut kept = self.kept();
        let one = kept.iter_mut().find(|kept| kept.file.info.id == *id)?;
        one.asked = Some(now);
        Some(one.file.clone())
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn problem(error: StoreError) -> Problem {
    match error {
        StoreError::Corrupt { what, reason } => Problem { what, reason },
        StoreError::Io { path, source } => {
            Problem { what: path.display().to_string(), reason: source.to_string() }
        }
        error => Problem { what: "snapshots".to_owned(), reason: error.to_string() },
    }
}

/// Newest first. The id decides between snapshots of one height, of which only one can be complete.
fn sort(kept: &mut [Kept]) {
    kept.sort_by(|a, b| {
        let key = |kept: &Kept| (kept.file.info.header.height, kept.file.info.id);
        key(b).cmp(&key(a))
    });
}

/// Which snapshots stay, given when a chunk of each was last asked for, newest snapshot first. If
/// too many are in use, the newest stay, so that all nodes keep the same ones.
fn stays(asked: &[Option<Duration>], now: Duration) -> Vec<bool> {
    let mut left = SNAPSHOTS_MAX;
    let stays = |(rank, asked): (usize, &Option<Duration>)| {
        let is_in_use = asked.is_some_and(|asked| now.saturating_sub(asked) < IN_USE);
        let stays = rank < NEWEST || (is_in_use && left > 0);
        left = left.saturating_sub(usize::from(stays));
        stays
    };
    asked.iter().enumerate().map(stays).collect()
}

/// The names in a directory, sorted; none if it does not exist.
fn names_in(directory: &Path) -> Result<Vec<String>, StoreError> {
    let io = |error| StoreError::io(directory, error);
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(io)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_two_stay_and_those_in_use_up_to_four() {
        let now = Duration::from_secs(10_000);
        let ago = |seconds| Some(now.saturating_sub(Duration::from_secs(seconds)));
        for (asked, expected) in [
            (&[][..], &[][..]),
            (&[None], &[true]),
            (&[None, None, None], &[true, true, false]),
            // In use is less than ten minutes ago.
            (&[None, None, ago(599)], &[true, true, true]),
            (&[None, None, ago(600)], &[true, true, false]),
            (&[None, None, None, ago(0), None], &[true, true, false, true, false]),
            // Four at most, the newest of those in use.
            (&[ago(0), ago(0), ago(9), ago(0), ago(0)], &[true, true, true, true, false]),
            (&[None, None, ago(1), None, ago(1), ago(0)], &[true, true, true, false, true, false]),
            // Asked after `now`, by a thread that read the clock later.
            (&[None, None, now.checked_add(Duration::from_secs(1))], &[true, true, true]),
        ] {
            assert_eq!(stays(asked, now), expected, "{asked:?}");
        }
    }
}
