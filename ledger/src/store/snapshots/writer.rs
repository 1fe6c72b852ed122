//! Writes a snapshot's file chunk by chunk, in any order.

use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::sync::Arc;

use super::file::{self, Name, SnapshotFile};
use super::{Kept, Shared, SnapshotInfo, Snapshots, sort};
use crate::block::Header;
use crate::certificate::Certificate;
use crate::snapshot::Frontier;
use crate::store::positions::{remove_file, write_at};
use crate::store::{StoreError, disk};

/// The file is synced whenever this many bytes were written. The sync of a block may have to wait
/// for all bytes that the system has not written yet, so this bounds how long a snapshot delays a
/// block.
const SYNC_BYTES: u64 = 4 << 20;

/// A snapshot that is being written. Dropped before it is finished, it removes its file.
#[derive(Debug)]
pub struct SnapshotWriter {
    snapshots: Snapshots,
    written: SnapshotFile,
    pub(in crate::store) file: File,
    path: PathBuf,
    marks: Vec<Mark>,
    /// Bytes written since the last sync.
    unsynced: u64,
}

/// Reads the chunks that were written, also while another thread finishes the snapshot, and even if
/// finishing fails.
#[derive(Debug)]
pub struct SnapshotReader {
    written: SnapshotFile,
    file: File,
    path: PathBuf,
}

impl SnapshotReader {
    /// What is being written.
    #[must_use]
    pub const fn info(&self) -> &Arc<SnapshotInfo> {
        &self.written.info
    }

    /// The bytes of a chunk, verified. `None` if the bytes in the file are wrong.
    ///
    /// # Errors
    /// `StoreError::Io`.
    pub fn read(&mut self, chunk: u64) -> Result<Option<Vec<u8>>, StoreError> {
        match self.written.read(&mut self.file, &self.path, chunk) {
            Err(StoreError::Corrupt { .. }) => Ok(None),
            read => read,
        }
    }
}

/// What is known of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Missing,
    Written,
    /// Read back from the file and verified.
    Checked,
}

impl Snapshots {
    /// Begins to write a snapshot. At most one writer may write a snapshot at a time. The caller
    /// has verified the certificate and, against the header, the frontier.
    ///
    /// # Errors
    /// `StoreError::Io`, as when the disk is full.
    ///
    /// # Panics
    /// If the certificate or the frontier is not of this header.
    pub fn begin(
        &self,
        header: Header,
        certificate: Certificate,
        frontier: Arc<Frontier>,
    ) -> Result<SnapshotWriter, StoreError> {
        assert!(
            (certificate.height, certificate.block) == (header.height, header.hash())
                && frontier.root() == header.state_root,
            "a snapshot is written with the certificate and the frontier of its block"
        );
        let directory = &self.shared.directory;
        if !directory.exists() {
            fs::create_dir_all(directory).map_err(|error| StoreError::io(directory, error))?;
            if let Some(parent) = directory.parent() {
                disk::sync_directory(parent)?;
            }
        }
        let chunks = usize::try_from(frontier.chunk_count()).unwrap_or(usize::MAX);
        let id = frontier.id(header.height);
        let info = SnapshotInfo { id, header, certificate, frontier };
        let path = Name::of(&info).unfinished_path(directory);
        let head = file::head(self.shared.chain.id(), &info);
        let io = |error| StoreError::io(&path, error);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path);
        let start = head.len() as u64;
        let mut writer = SnapshotWriter {
            snapshots: self.clone(),
            written: SnapshotFile { info: Arc::new(info), start },
            file: file.map_err(io)?,
            path: path.clone(),
            marks: vec![Mark::Missing; chunks],
            unsynced: 0,
        };
        write_at(&mut writer.file, 0, &head).map_err(io)?;
        let length = start.saturating_add(writer.written.info.frontier.chunks_bytes());
        // The head is durable from here on, so that only chunks can be lost by a failed sync.
        writer.file.set_len(length).and_then(|()| writer.file.sync_data()).map_err(io)?;
        Ok(writer)
    }
}

impl SnapshotWriter {
    /// What is being written.
    #[must_use]
    pub const fn info(&self) -> &Arc<SnapshotInfo> {
        &self.written.info
    }

    /// Reads the chunks from another thread than the one that finishes the snapshot.
    ///
    /// # Errors
    /// `StoreError::Io`.
    pub fn reader(&self) -> Result<SnapshotReader, StoreError> {
        let path = self.path.clone();
        let file = File::open(&path).map_err(|error| StoreError::io(&path, error))?;
        Ok(SnapshotReader { written: self.written.clone(), file, path })
    }

    /// The chunks that are not written.
    #[must_use]
    pub fn missing(&self) -> Vec<u64> {
        let marks = (0..).zip(&self.marks);
        marks.filter(|(_, mark)| **mark == Mark::Missing).map(|(chunk, _)| chunk).collect()
    }

    /// Writes a chunk. Writing it a second time does no harm.
    ///
    /// # Errors
    /// `StoreError::Io`, as when the disk is full. The chunk then counts as missing, and so do all
    /// others if the file could not be synced.
    ///
    /// # Panics
    /// If there is no such chunk, or it has another length. The caller has verified the bytes.
    pub fn write(&mut self, chunk: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let range = self.written.info.frontier.chunk_range(chunk);
        let Some(range) = range.filter(|it| it.end.saturating_sub(it.start) == bytes.len() as u64)
        else {
            panic!("chunks are verified before they are written, and chunk {chunk} cannot be");
        };
        self.set_mark(chunk, Mark::Missing);
        let io = |error| StoreError::io(&self.path, error);
        write_at(&mut self.file, self.written.start.saturating_add(range.start), bytes)
            .map_err(io)?;
        self.unsynced = self.unsynced.saturating_add(bytes.len() as u64);
        if self.unsynced >= SYNC_BYTES {
            let synced = self.file.sync_data().map_err(io);
            // The system reports a failed sync once, and may then read back bytes that the disk
            // does not have.
            synced.inspect_err(|_| self.marks.fill(Mark::Missing))?;
            self.unsynced = 0;
        }
        self.set_mark(chunk, Mark::Written);
        Ok(())
    }

    /// The bytes of a chunk, read back and verified. `None` if it is missing. If the bytes in the
    /// file are wrong, it is missing from now on.
    ///
    /// # Errors
    /// `StoreError::Io`.
    pub fn read(&mut self, chunk: u64) -> Result<Option<Vec<u8>>, StoreError> {
        if self.mark(chunk) == Mark::Missing {
            return Ok(None);
        }
        let bytes = match self.written.read(&mut self.file, &self.path, chunk) {
            Err(StoreError::Corrupt { .. }) => None,
            read => read?,
        };
        self.set_mark(chunk, if bytes.is_some() { Mark::Checked } else { Mark::Missing });
        Ok(bytes)
    }

    /// Makes the snapshot durable and lists it. Chunks that were not read back since they were
    /// written are read back now.
    ///
    /// # Errors
    /// `StoreError::Corrupt` if the file has other bytes than were written, `StoreError::Io`. There
    /// is then no snapshot.
    ///
    /// # Panics
    /// If a chunk was never written.
    pub fn finish(mut self) -> Result<Arc<SnapshotInfo>, StoreError> {
        assert!(
            !self.marks.contains(&Mark::Missing),
            "a snapshot is finished when all of its chunks are there"
        );
        self.file.sync_all().map_err(|error| StoreError::io(&self.path, error))?;
        let name = self.written.name();
        for chunk in 0..self.written.info.frontier.chunk_count() {
            if self.mark(chunk) != Mark::Checked && self.read(chunk)?.is_none() {
                let reason = format!("chunk {chunk} reads back as other bytes than were written");
                return Err(StoreError::corrupt(name, reason));
            }
        }
        let Shared { directory, chain, .. } = &*self.snapshots.shared;
        if file::open(&self.path, &name, chain)? != self.written {
            return Err(StoreError::corrupt(name, "its head reads back as another one"));
        }
        let path = name.path(directory);
        fs::rename(&self.path, &path).map_err(|error| StoreError::io(&path, error))?;
        disk::sync_directory(directory).inspect_err(|_| {
            // What cannot be removed is found by the next start, as a whole snapshot.
            let _ = remove_file(&path);
        })?;
        let mut kept = self.snapshots.kept();
        kept.retain(|kept| kept.file.info.id != self.written.info.id);
        kept.push(Kept { file: self.written.clone(), asked: None });
        sort(&mut kept);
        drop(kept);
        Ok(Arc::clone(&self.written.info))
    }

    fn mark(&self, chunk: u64) -> Mark {
        let mark = usize::try_from(chunk).ok().and_then(|chunk| self.marks.get(chunk));
        mark.copied().unwrap_or(Mark::Missing)
    }

    fn set_mark(&mut self, chunk: u64, mark: Mark) {
        let place = usize::try_from(chunk).ok().and_then(|chunk| self.marks.get_mut(chunk));
        if let Some(place) = place {
            *place = mark;
        }
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        // A finished file has its name by now. What cannot be removed is removed by the next start.
        let _ = remove_file(&self.path);
    }
}
