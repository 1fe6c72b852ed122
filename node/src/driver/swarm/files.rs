//! Files: performs what the machine decides about them with the files of the home.
//!
//! What the disk refuses here pauses one file and is logged. It never ends the node.

use std::collections::BTreeMap;

use ledger::file::{FileHead, FileId};
use ledger::units::SegmentIndex;
use protocol::PeerId;
use protocol::budget::Cost;
use protocol::swarm::message::{ChunkId, SyncMessage};
use protocol::swarm::{ByteRange, FileReport, HeldFile, Input, SegmentRanges, file_chunk};

use super::Shell;
use crate::shared_files::{self, FilesError, ReadError, SharedFiles, ToFiles};

/// The part of the shell for files.
pub(super) struct Files {
    /// `None` if this node neither shares nor fetches files.
    home: Option<SharedFiles>,
    /// Segments that the machine has begun and the disk has not.
    unbegun: BTreeMap<(FileId, SegmentIndex), FileHead>,
    /// Files that turned out to have changed: they are served to nobody any more.
    changed: Vec<FileId>,
    /// The disk has refused, and has accepted nothing since. The log has said so.
    is_refused: bool,
}

impl Files {
    pub(super) const fn new(home: Option<SharedFiles>) -> Self {
        Self { home, unbegun: BTreeMap::new(), changed: Vec::new(), is_refused: false }
    }

    /// Makes room for the chunks of a segment. If the disk refuses, it is tried again when a chunk
    /// has arrived.
    pub(super) fn begin(&mut self, id: FileId, head: FileHead) {
        let Some(home) = &self.home else { return };
        let segment = SegmentIndex(head.index());
        match home.begin_segment(&head) {
            Ok(()) => drop(self.unbegun.remove(&(id, segment))),
            Err(error) => {
                self.unbegun.insert((id, segment), head);
                self.on_refused(&id, &error);
            }
        }
    }

    /// Stores a chunk. Returns what the machine must hear if the disk refuses.
    pub(super) fn store(&mut self, file: FileId, id: ChunkId, bytes: &[u8]) -> Option<Input> {
        let segment = id.segment.index;
        if let Some(head) = self.unbegun.get(&(file, segment)).cloned() {
            self.begin(file, head);
            if self.unbegun.contains_key(&(file, segment)) {
                return Some(Input::Refused(id));
            }
        }
        let (home, chunk) = (self.home.as_ref()?, file_chunk(id)?);
        match home.write_chunk(&file, chunk, bytes) {
            Ok(()) => self.is_refused = false,
            Err(error) => {
                self.on_refused(&file, &error);
                return Some(Input::Refused(id));
            }
        }
        None
    }

    /// Tells the home how fetches go, for those who wait for them.
    pub(super) fn note(&self, files: &[FileReport]) {
        let Some(home) = &self.home else { return };
        for FileReport { id, peers, reason, .. } in files {
            home.note_fetch(id, *peers, reason.as_deref());
        }
    }

    /// Warns of the first refusal, since each pause ends with another attempt.
    fn on_refused(&mut self, id: &FileId, error: &FilesError) {
        if !std::mem::replace(&mut self.is_refused, true) {
            tracing::warn!("fetching file {id} pauses: {error}");
        }
    }

    /// The file is not fetched any more.
    fn forget(&mut self, id: &FileId) {
        self.unbegun.retain(|(file, _), _| file != id);
    }
}

impl Shell {
    /// Tells the machine which files this node serves and fetches.
    pub(super) fn begin_files(&mut self) -> anyhow::Result<()> {
        let messages = self.files.home.as_ref().map(SharedFiles::begin).unwrap_or_default();
        messages.into_iter().try_for_each(|message| self.on_files(message))
    }

    pub(super) fn on_files(&mut self, message: ToFiles) -> anyhow::Result<()> {
        let input = match message {
            ToFiles::Have(held) => Input::FileHeld(known(held.descriptor.id(), Some(held))),
            ToFiles::Fetch { id, range, held } => {
                let range = range.map_or(ByteRange::ALL, |(first, last)| ByteRange { first, last });
                Input::FileWanted(known(id, held), range)
            }
            ToFiles::Gone(id) => {
                self.files.forget(&id);
                Input::FileGone(id)
            }
        };
        self.give(input)
    }

    /// Tells the machine of snapshots that are damaged and of files that have changed.
    pub(super) fn withdraw(&mut self) -> anyhow::Result<()> {
        self.remove_damaged()?;
        while let Some(id) = self.files.changed.pop() {
            self.give(Input::FileGone(id))?;
        }
        Ok(())
    }

    /// Sends the head of a segment of a file.
    pub(super) fn send_file_head(&self, peer: PeerId, id: FileId, segment: SegmentIndex) {
        let home = self.files.home.as_ref().filter(|_| self.admits(peer));
        let head = home.and_then(|home| {
            let read = home.read_head(&id, segment.0);
            read.inspect_err(|error| tracing::error!(%error, "a file cannot be read for a peer"))
                .ok()?
        });
        self.charge(peer, &Cost::look_ups(0, 2));
        self.send_message(peer, &SyncMessage::FileHead(id, segment, head));
    }

    /// Sends a chunk of a file, whose hash is checked when it is read. One that is damaged does not
    /// leave, and is no fault of the peer.
    pub(super) fn send_of_file(
        &mut self,
        peer: PeerId,
        file: &FileId,
        id: ChunkId,
        name: ChunkId,
    ) -> Option<Input> {
        let unsent = Some(Input::Unsent(peer, id));
        let Some(home) = &self.files.home else { return unsent };
        let Some(chunk) = file_chunk(id) else { return Some(Input::Impossible(peer, id)) };
        match home.read_chunk(file, chunk) {
            Ok(Some(bytes)) => {
                self.send_bytes(peer, name, &bytes);
                return None;
            }
            Ok(None) | Err(ReadError::Damaged) => {}
            Err(ReadError::Changed) => self.files.changed.push(*file),
            Err(ReadError::Io(error)) => {
                tracing::error!(%error, "a file cannot be read for a peer");
                return Some(Input::Unread(peer, id));
            }
        }
        unsent
    }
}

/// What the home has of a file, as the machine knows it.
fn known(id: FileId, held: Option<shared_files::HeldFile>) -> HeldFile {
    let none = HeldFile { id, descriptor: None, whole: SegmentRanges::default(), begun: vec![] };
    held.map_or(none, |held| HeldFile {
        id,
        descriptor: Some(held.descriptor),
        whole: held.whole,
        begun: held.open,
    })
}
