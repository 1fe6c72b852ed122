//! What the operator's commands do with files. These functions may wait for the disk and for the
//! driver, so they are called on threads that may block.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ledger::file::{FileDescriptor, FileId, HashedFile};
use protocol::swarm::SegmentRanges;
use serde::{Deserialize, Serialize};

use super::chunks::Here;
use super::entry::{Content, Own, everything};
use super::heads::{Heads, list_bytes};
use super::meta::{Meta, Paths};
use super::serving::segments_of;
use super::source::{self, Reading, Stamp};
use super::{
    Entry, FILES_MAX, FileInfo, FileState, FilesError, Hashed, RANGES_MAX, SharedFiles, ToFiles,
    check_length, create, remove, shown,
};
use crate::files::rename;

/// Gives up the hashing of a file when it is dropped, such as when the command disconnects.
#[derive(Default)]
pub(crate) struct Cancel(Arc<Reading>);

impl Cancel {
    /// What [`SharedFiles::share`] watches.
    pub(crate) fn reading(&self) -> Reader {
        Reader(Arc::clone(&self.0))
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

/// Tells whether the hashing of a file was given up.
pub(crate) struct Reader(Arc<Reading>);

/// Refuses to write while the disk is nearly full.
type CheckDisk<'a> = &'a dyn Fn() -> io::Result<()>;

/// A file that was hashed, what the home remembers of it, and where its bytes are.
type Done = (HashedFile, Meta, Content);

/// A file that is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shared {
    /// Its length in bytes.
    pub(crate) bytes: u64,
    /// Number of its chunks.
    pub(crate) chunks: u64,
}

impl SharedFiles {
    /// All files, and those that are being hashed.
    pub(crate) fn list(&self) -> Vec<FileInfo> {
        let mut list: Vec<FileInfo> =
            self.files().iter().map(|(id, entry)| entry.info(id)).collect();
        list.extend(self.readings().values().map(|Hashed { info, reading, .. }| FileInfo {
            have_bytes: reading.done(),
            left_bytes: info.bytes.unwrap_or_default().saturating_sub(reading.done()),
            ..info.clone()
        }));
        list
    }

    /// One file; `None` if there is none with this id.
    pub(crate) fn info(&self, id: &FileId) -> Option<FileInfo> {
        self.files().get(id).map(|entry| entry.info(id))
    }

    /// Shares a file in place. One that was shared before and looks the same is not hashed again.
    ///
    /// # Errors
    /// `NotRegular`, `Changed`, `File`, `TooMany`, `GivenUp`, `Io`; `Reserve` if the hash list has
    /// no room.
    pub(crate) fn share(
        &self,
        file: File,
        name: &str,
        reader: &Reader,
    ) -> Result<(FileId, Shared), FilesError> {
        let stamp = Stamp::of(&file)?;
        check_length(stamp.bytes)?;
        let file = Arc::new(file);
        if let Some(shared) = self.attach(&file, stamp) {
            return Ok(shared);
        }
        self.read(name, stamp.bytes, 0, reader, |paths, reading, check_disk| {
            let heads = Heads::new(create(&paths.heads)?);
            let hashed = source::hash(&file, stamp.bytes, &heads, reading, check_disk)?;
            if Stamp::of(&file)? != stamp {
                return Err(FilesError::Changed);
            }
            let mut meta = Meta::new(shown(name));
            meta.source = Some(stamp);
            Ok((hashed, meta, Content::Shared(Arc::clone(&file))))
        })
    }

    /// Shares a file that was shared before and has the same stamp. `None` if there is none.
    fn attach(&self, file: &Arc<File>, stamp: Stamp) -> Option<(FileId, Shared)> {
        let mut files = self.files();
        let (id, entry) = files.iter_mut().find(|(_, entry)| {
            let is_whole = matches!(entry.content, Content::Shared(_) | Content::Detached);
            is_whole && entry.meta.source == Some(stamp)
        })?;
        let (id, descriptor) = (*id, entry.meta.descriptor()?);
        entry.content = Content::Shared(Arc::clone(file));
        let messages = self.messages(&id, entry);
        drop(files);
        self.tell(messages);
        Some((id, shared(&descriptor)))
    }

    /// Takes the bytes of a file from a stream into the home, and shares them. The command that
    /// seals a private file is at the other end.
    ///
    /// # Errors
    /// As [`Self::share`], and `Quota` and `Reserve` before the first byte is read.
    pub(crate) fn receive(
        &self,
        from: impl Read,
        length: u64,
        name: &str,
        reader: &Reader,
    ) -> Result<(FileId, Shared), FilesError> {
        check_length(length)?;
        self.read(name, length, length, reader, |paths, reading, check_disk| {
            let heads = Heads::new(create(&paths.heads)?);
            let bytes = create(&paths.bytes)?;
            let hashed = source::receive(from, length, &bytes, &heads, reading, check_disk)?;
            bytes.sync_all()?;
            let (chunks, here) = (create(&paths.chunks)?, Here::all(hashed.descriptor));
            for segment in 0..hashed.descriptor.segments() {
                here.write(&chunks, segment * ledger::file::SEGMENT_CHUNKS)?;
            }
            chunks.sync_all()?;
            let mut meta = Meta::new(shown(name));
            meta.set_wanted(&everything());
            meta.boot = None;
            let own = Own { bytes: Arc::new(bytes), chunks: Arc::new(chunks), here };
            Ok((hashed, meta, Content::Own(own)))
        })
    }

    /// Hashes a file, which is listed as `hashing` meanwhile, and adds it to the files. `kept` of
    /// its bytes will be in the home.
    fn read(
        &self,
        name: &str,
        length: u64,
        kept: u64,
        reader: &Reader,
        work: impl FnOnce(&Paths, &Reading, CheckDisk<'_>) -> Result<Done, FilesError>,
    ) -> Result<(FileId, Shared), FilesError> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let info = FileInfo {
            id: None,
            name: shown(name),
            bytes: Some(length),
            have_bytes: 0,
            left_bytes: length,
            served_bytes: 0,
            peers: 0,
            state: FileState::Hashing,
            reason: None,
        };
        let files = self.files();
        if self.readings().len().saturating_add(files.len()) >= FILES_MAX {
            return Err(FilesError::TooMany);
        }
        if kept > 0 {
            self.check_room(&files, kept)?;
        }
        self.check_free(&files, kept.saturating_add(list_bytes(length)))?;
        self.readings().insert(number, Hashed { info, reading: Arc::clone(&reader.0), kept });
        drop(files);
        let paths = Paths::unfinished(&self.0.folder, number);
        let done = work(&paths, &reader.0, &|| self.check_disk())
            .and_then(|(hashed, meta, content)| self.put(&paths, &hashed, meta, content));
        self.readings().remove(&number);
        if done.is_err() {
            remove(&paths);
        }
        done
    }

    /// Adds a hashed file. It replaces a file with the same id, unless all bytes of that one are in
    /// the home.
    fn put(
        &self,
        paths: &Paths,
        hashed: &HashedFile,
        mut meta: Meta,
        content: Content,
    ) -> Result<(FileId, Shared), FilesError> {
        let id = hashed.descriptor.id();
        let done = (id, shared(&hashed.descriptor));
        let mut files = self.files();
        if let Some(old) = files.get(&id)
            && old.info(&id).state == FileState::Kept
        {
            remove(paths);
            return Ok(done);
        }
        let own = self.paths(&id);
        own.remove()?;
        files.remove(&id);
        rename(&paths.heads, &own.heads)?;
        if matches!(content, Content::Own(_)) {
            rename(&paths.bytes, &own.bytes)?;
            rename(&paths.chunks, &own.chunks)?;
        }
        meta.set_descriptor(&hashed.descriptor);
        meta.write(&own.meta)?;
        let entry = Entry::new(meta, content);
        let messages = self.messages(&id, &entry);
        files.insert(id, entry);
        drop(files);
        self.tell([ToFiles::Gone(id)].into_iter().chain(messages));
        Ok(done)
    }

    /// Fetches a file, or more of it. Each of `ranges` is a first and a last byte, and is rounded
    /// out to whole segments. No ranges mean the whole file.
    ///
    /// # Errors
    /// `TooMany`, `Ranges`, `Quota`, `Reserve`, `Io`. The last three also come later, when the
    /// length is known: [`FileInfo::state`] says so.
    pub(crate) fn get(
        &self,
        id: FileId,
        ranges: &[(u64, u64)],
        name: &str,
    ) -> Result<(), FilesError> {
        let mut files = self.files();
        let old = files.get(&id);
        if let Some(Content::Shared(_)) = old.map(|entry| &entry.content) {
            return Ok(());
        }
        if old.is_none() && files.len() >= FILES_MAX {
            return Err(FilesError::TooMany);
        }
        // A fetch does not continue a file that was shared in place and is not open any more.
        let old = old.filter(|entry| entry.meta.source.is_none());
        let mut meta = old.map_or_else(|| Meta::new(shown(name)), |entry| entry.meta.clone());
        let mut wanted = meta.wanted();
        add(&mut wanted, ranges);
        if wanted.iter().count() > RANGES_MAX {
            return Err(FilesError::Ranges);
        }
        meta.set_wanted(&wanted);
        if let (Some(file), Some(entry)) = (meta.descriptor(), old) {
            let more = super::chunks::bytes_of(&file, &wanted).saturating_sub(entry.reserved());
            self.check_room(&files, more)?;
        }
        let paths = self.paths(&id);
        if files.get(&id).is_none_or(|entry| entry.meta.source.is_some()) {
            paths.remove()?;
            files.insert(id, Entry::new(meta.clone(), Content::Awaited));
        }
        meta.write(&paths.meta)?;
        let empty = FileDescriptor::empty();
        let Some(entry) = files.get_mut(&id) else { return Err(FilesError::Unknown(id)) };
        (entry.meta, entry.trouble) = (meta, None);
        if id == empty.id() && matches!(entry.content, Content::Awaited) {
            // The empty file has no segment, so no head will come.
            self.make(&mut files, &id, &empty)?;
        }
        let messages = files.get(&id).map(|entry| self.messages(&id, entry)).unwrap_or_default();
        drop(files);
        self.tell(messages);
        Ok(())
    }

    /// Opens the bytes of a file for reading. It has holes where chunks are missing.
    ///
    /// # Errors
    /// `Unknown`, `NotHere`, `Io`; `Changed` for a user's file with another stamp, which is
    /// withdrawn.
    pub(crate) fn open_bytes(&self, id: &FileId) -> Result<File, FilesError> {
        let mut files = self.files();
        let entry = files.get_mut(id).ok_or(FilesError::Unknown(*id))?;
        let file = match &entry.content {
            Content::Own(_) => return Ok(File::open(self.paths(id).bytes)?),
            Content::Shared(file) => Arc::clone(file),
            _ => return Err(FilesError::NotHere(*id)),
        };
        if Some(Stamp::of(&file)?) != entry.meta.source {
            entry.content = Content::Changed;
            drop(files);
            self.tell([ToFiles::Gone(*id)]);
            return Err(FilesError::Changed);
        }
        Ok(file.try_clone()?)
    }

    /// Forgets a file, and removes its bytes from the home. A user's file stays as it is.
    ///
    /// # Errors
    /// `Unknown`, `Io`.
    pub(crate) fn unshare(&self, id: &FileId) -> Result<(), FilesError> {
        let mut files = self.files();
        if !files.contains_key(id) {
            return Err(FilesError::Unknown(*id));
        }
        self.paths(id).remove()?;
        files.remove(id);
        drop(files);
        self.tell([ToFiles::Gone(*id)]);
        Ok(())
    }

    /// Hashes the bytes in the home that may be lost, since the machine was rebooted after they
    /// were written. Lost chunks are fetched again. A file that cannot be checked is not served.
    ///
    /// # Errors
    /// `GivenUp`.
    pub(crate) fn check(&self, reader: &Reader) -> Result<(), FilesError> {
        let is_doubtful = |entry: &Entry| matches!(entry.content, Content::Doubtful(_));
        let doubtful: Vec<FileId> = {
            let files = self.files();
            files.iter().filter(|(_, entry)| is_doubtful(entry)).map(|(id, _)| *id).collect()
        };
        for id in doubtful {
            match self.check_file(&id, reader) {
                Err(FilesError::GivenUp) => return Err(FilesError::GivenUp),
                Err(error) => tracing::warn!("file {id} cannot be checked: {error}"),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn check_file(&self, id: &FileId, reader: &Reader) -> Result<(), FilesError> {
        let found = self.files().get(id).and_then(|entry| {
            let Content::Doubtful(own) = &entry.content else { return None };
            Some((entry.meta.descriptor()?, Arc::clone(&own.bytes), own.here.clone()))
        });
        let Some((file, bytes, mut here)) = found else { return Ok(()) };
        self.check_chunks(id, &file, &bytes, &mut here, reader)?;
        let mut files = self.files();
        let Some(entry) = files.get_mut(id) else { return Ok(()) };
        let Content::Doubtful(own) = &entry.content else { return Ok(()) };
        for segment in 0..file.segments() {
            here.write(&own.chunks, segment * ledger::file::SEGMENT_CHUNKS)?;
        }
        own.chunks.sync_all()?;
        let mut meta = entry.meta.clone();
        meta.boot = None;
        meta.write(&self.paths(id).meta)?;
        let (bytes, chunks) = (Arc::clone(&own.bytes), Arc::clone(&own.chunks));
        (entry.meta, entry.content) = (meta, Content::Own(Own { bytes, chunks, here }));
        let messages = self.messages(id, entry);
        drop(files);
        self.tell(messages);
        Ok(())
    }

    fn check_chunks(
        &self,
        id: &FileId,
        file: &FileDescriptor,
        bytes: &File,
        here: &mut Here,
        reader: &Reader,
    ) -> Result<(), FilesError> {
        let heads = match self.heads(id) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let heads = Heads::new(create(&self.paths(id).heads)?);
                heads.make_room(file)?;
                heads
            }
            heads => heads?,
        };
        let mut lost = 0u64;
        for segment in 0..file.segments() {
            // A head that cannot be read counts as lost.
            let head = heads.read(file, segment).ok().flatten();
            for chunk in file.segment_chunks(segment).unwrap_or_default() {
                reader.0.check()?;
                let place = usize::try_from(chunk % ledger::file::SEGMENT_CHUNKS);
                let hash = head.as_ref().and_then(|head| head.chunks.get(place.ok()?));
                let range = file.chunk_range(chunk).filter(|_| here.has(chunk));
                let is_lost = match (range, hash) {
                    (None, _) => continue,
                    (Some(range), Some(hash)) => {
                        !matches!(source::chunk(bytes, &range, *hash), Ok(Some(_)))
                    }
                    (Some(_), None) => true,
                };
                if is_lost {
                    here.set(chunk, false);
                    lost += 1;
                }
            }
        }
        if lost > 0 {
            tracing::warn!("{lost} chunks of file {id} were lost; they are fetched again");
        }
        Ok(bytes.sync_all()?)
    }
}

fn shared(file: &FileDescriptor) -> Shared {
    Shared { bytes: file.length, chunks: file.chunks() }
}

fn add(wanted: &mut SegmentRanges, ranges: &[(u64, u64)]) {
    match ranges {
        [] => *wanted = everything(),
        _ => ranges.iter().for_each(|range| wanted.insert(segments_of(*range))),
    }
}
