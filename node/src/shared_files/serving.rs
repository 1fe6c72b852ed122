//! What the driver of `swarm` needs of the files. Its thread calls these functions. After
//! [`SharedFiles::begin`] each call reads or writes at most one chunk or head.

use std::io;
use std::sync::Arc;

use ledger::file::{FileDescriptor, FileHead, FileId, SEGMENT_BYTES};
use ledger::units::SegmentIndex;
use protocol::swarm::{SegmentRange, SegmentRanges};

use super::chunks::Here;
use super::entry::{Content, Own, Trouble, everything};
use super::heads::Heads;
use super::{Entry, FilesError, SharedFiles, create, source};
use crate::files::open_in_place;

/// A message to the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ToFiles {
    /// The file is served from now on, with the chunks that are here.
    Have(HeldFile),
    /// Parts of the file are to be fetched. Further ranges of the same file add up.
    Fetch {
        /// The file.
        id: FileId,
        /// The first and the last byte; `None`: all. The range covers whole segments, and may end
        /// beyond the file, whose length is not known at first.
        range: Option<(u64, u64)>,
        /// What is here already.
        held: Option<HeldFile>,
    },
    /// The file is neither served nor fetched any more.
    Gone(FileId),
}

/// The chunks of a file that are here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldFile {
    pub(crate) descriptor: FileDescriptor,
    /// Segments of which all chunks are here.
    pub(crate) whole: SegmentRanges,
    /// Segments of which some chunks are here, with a flag for each chunk.
    pub(crate) open: Vec<(FileHead, Vec<bool>)>,
}

/// Why a chunk that should be here cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The user's file has changed, and is withdrawn: it is neither served nor fetched any more.
    #[error("the file has changed since it was shared")]
    Changed,
    /// The bytes in the home are damaged. The chunk is not here any more, and is to be fetched
    /// again.
    #[error("the chunk is damaged on disk")]
    Damaged,
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl SharedFiles {
    /// The messages that the driver begins with: all files that are served or fetched.
    pub(crate) fn begin(&self) -> Vec<ToFiles> {
        let files = self.files();
        files.iter().flat_map(|(id, entry)| self.messages(id, entry)).collect()
    }

    /// What the driver must know of a file.
    pub(super) fn messages(&self, id: &FileId, entry: &Entry) -> Vec<ToFiles> {
        let held = match &entry.content {
            Content::Awaited => None,
            Content::Own(_) | Content::Shared(_) => self.held(id, entry),
            Content::Doubtful(_) | Content::Detached | Content::Changed => return Vec::new(),
        };
        let is_fetched = matches!(entry.content, Content::Awaited) || entry.left() > 0;
        if !is_fetched {
            return held.map(ToFiles::Have).into_iter().collect();
        }
        let bytes = |range: SegmentRange| {
            let end = range.last.0.saturating_add(1).saturating_mul(SEGMENT_BYTES);
            (range.first.0.saturating_mul(SEGMENT_BYTES), end.saturating_sub(1))
        };
        let wanted = entry.meta.wanted();
        let fetch = |range: SegmentRange| ToFiles::Fetch {
            id: *id,
            range: (wanted != everything()).then(|| bytes(range)),
            held: held.clone(),
        };
        wanted.iter().map(fetch).collect()
    }

    /// What is here of a file. Leaves out begun segments whose heads cannot be read.
    fn held(&self, id: &FileId, entry: &Entry) -> Option<HeldFile> {
        let descriptor = entry.meta.descriptor()?;
        let here = match &entry.content {
            Content::Own(own) => own.here.clone(),
            _ => Here::all(descriptor),
        };
        let head = |(segment, flags)| Some((self.head(id, segment, &descriptor).ok()??, flags));
        Some(HeldFile {
            descriptor,
            whole: here.whole(),
            open: here.begun().filter_map(head).collect(),
        })
    }

    /// Remembers how the fetch of a file goes, to be shown: how many peers sent chunks of it, and
    /// why nothing arrives.
    pub(crate) fn note_fetch(&self, id: &FileId, peers: u64, waits: Option<&str>) {
        if let Some(entry) = self.files().get_mut(id) {
            entry.peers = peers;
            entry.waits = waits.map(str::to_owned);
        }
    }

    /// The head of a segment, verified; `None` if it is not here.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn read_head(&self, id: &FileId, segment: u64) -> io::Result<Option<FileHead>> {
        let descriptor = self.files().get(id).and_then(|entry| match entry.content {
            Content::Own(_) | Content::Shared(_) => entry.meta.descriptor(),
            _ => None,
        });
        descriptor.map_or(Ok(None), |descriptor| self.head(id, segment, &descriptor))
    }

    fn head(
        &self,
        id: &FileId,
        segment: u64,
        descriptor: &FileDescriptor,
    ) -> io::Result<Option<FileHead>> {
        self.heads(id)?.read(descriptor, segment)
    }

    pub(super) fn heads(&self, id: &FileId) -> io::Result<Heads> {
        let mut options = std::fs::OpenOptions::new();
        Ok(Heads::new(open_in_place(options.read(true).write(true), &self.paths(id).heads)?))
    }

    /// The bytes of a chunk, counted from the file's beginning, which have its hash; `None` if it
    /// is not here.
    ///
    /// # Errors
    /// `ReadError`.
    pub(crate) fn read_chunk(&self, id: &FileId, chunk: u64) -> Result<Option<Vec<u8>>, ReadError> {
        let (file, descriptor) = {
            let files = self.files();
            let Some(entry) = files.get(id) else { return Ok(None) };
            let file = match &entry.content {
                Content::Shared(file) => file,
                Content::Own(own) if own.here.has(chunk) => &own.bytes,
                _ => return Ok(None),
            };
            let Some(descriptor) = entry.meta.descriptor() else { return Ok(None) };
            (Arc::clone(file), descriptor)
        };
        let Some(range) = descriptor.chunk_range(chunk) else { return Ok(None) };
        let hash = self.heads(id)?.chunk(chunk)?;
        let bytes = source::chunk(&file, &range, hash)?;
        let mut files = self.files();
        let Some(entry) = files.get_mut(id) else { return Ok(None) };
        match (bytes, &mut entry.content) {
            (Some(bytes), _) => {
                entry.served = entry.served.saturating_add(bytes.len() as u64);
                Ok(Some(bytes))
            }
            (None, Content::Shared(_)) => {
                tracing::warn!("file {id} has changed since it was shared, and is withdrawn");
                entry.content = Content::Changed;
                Err(ReadError::Changed)
            }
            (None, Content::Own(own)) => {
                tracing::warn!("chunk {chunk} of file {id} was damaged on disk");
                own.here.set(chunk, false);
                own.here.write(&own.chunks, chunk)?;
                Err(ReadError::Damaged)
            }
            (None, _) => Ok(None),
        }
    }

    /// Stores a verified head. The first one of a file makes the file, if there is room for it.
    ///
    /// # Errors
    /// `Quota` and `Reserve`; `Unknown` for a file that is not fetched; `Io`. Another attempt may
    /// succeed later.
    pub(crate) fn begin_segment(&self, head: &FileHead) -> Result<(), FilesError> {
        let id = head.descriptor.id();
        let mut files = self.files();
        let done = match files.get(&id).map(|entry| &entry.content) {
            Some(Content::Awaited) => self.make(&mut files, &id, &head.descriptor),
            Some(Content::Own(_)) => Ok(()),
            _ => return Err(FilesError::Unknown(id)),
        };
        let done = done.and_then(|()| Ok(self.heads(&id)?.write(head)?));
        if let Some(entry) = files.get_mut(&id) {
            entry.note(&done);
        }
        done
    }

    /// Makes the sparse file of an awaited entry.
    pub(super) fn make(
        &self,
        files: &mut std::collections::BTreeMap<FileId, Entry>,
        id: &FileId,
        descriptor: &FileDescriptor,
    ) -> Result<(), FilesError> {
        let wanted = files.get(id).map(|entry| entry.meta.wanted()).unwrap_or_default();
        self.check_room(files, super::chunks::bytes_of(descriptor, &wanted))?;
        let paths = self.paths(id);
        let bytes = create(&paths.bytes)?;
        bytes.set_len(descriptor.length)?;
        let chunks = create(&paths.chunks)?;
        Heads::new(create(&paths.heads)?).make_room(descriptor)?;
        let Some(entry) = files.get_mut(id) else { return Err(FilesError::Unknown(*id)) };
        let mut meta = entry.meta.clone();
        meta.set_descriptor(descriptor);
        meta.write(&paths.meta)?;
        entry.meta = meta;
        let here = Here::none(*descriptor);
        entry.content =
            Content::Own(Own { bytes: Arc::new(bytes), chunks: Arc::new(chunks), here });
        Ok(())
    }

    /// Stores a chunk whose bytes were verified.
    ///
    /// # Errors
    /// `Unknown` for a file that is not fetched; `Io` if the disk refuses. Another attempt may
    /// succeed later.
    pub(crate) fn write_chunk(
        &self,
        id: &FileId,
        chunk: u64,
        bytes: &[u8],
    ) -> Result<(), FilesError> {
        let (file, start) = {
            let files = self.files();
            let entry = files.get(id).ok_or(FilesError::Unknown(*id))?;
            let Content::Own(own) = &entry.content else { return Err(FilesError::Unknown(*id)) };
            let range = entry.meta.descriptor().and_then(|file| file.chunk_range(chunk));
            let range = range.filter(|range| range.end - range.start == bytes.len() as u64);
            let range = range.ok_or_else(|| io::Error::other("the chunk has another length"))?;
            (Arc::clone(&own.bytes), range.start)
        };
        let written = self.check_disk().and_then(|()| source::write_chunk(&file, start, bytes));
        let mut files = self.files();
        let entry = files.get_mut(id).ok_or(FilesError::Unknown(*id))?;
        let done = written.map_err(FilesError::from).and_then(|()| {
            let Content::Own(own) = &mut entry.content else {
                return Err(FilesError::Unknown(*id));
            };
            // After a check, all that was here is durable. What comes now is not.
            let mut meta = entry.meta.clone();
            if meta.begin_writing() {
                meta.write(&self.paths(id).meta)?;
                entry.meta = meta;
            }
            own.here.set(chunk, true);
            own.here.write(&own.chunks, chunk).map_err(FilesError::from)
        });
        entry.note(&done);
        done
    }
}

impl Entry {
    /// Remembers whether the disk accepts what is fetched.
    fn note(&mut self, done: &Result<(), FilesError>) {
        self.trouble = match done {
            Ok(()) => None,
            Err(error @ (FilesError::Quota { .. } | FilesError::Reserve { .. })) => {
                Some(Trouble::Refused(error.to_string()))
            }
            Err(error) => Some(Trouble::Paused(error.to_string())),
        };
    }
}

/// The segments that hold the bytes from the first to the last one.
pub(super) fn segments_of((first, last): (u64, u64)) -> SegmentRange {
    SegmentRange {
        first: SegmentIndex(first / SEGMENT_BYTES),
        last: SegmentIndex(last / SEGMENT_BYTES),
    }
}
