//! One file of a home: where its bytes are, and how it is shown.

use std::fs::File;
use std::sync::Arc;

use ledger::file::{FileDescriptor, FileId};
use ledger::units::SegmentIndex;
use protocol::swarm::{SegmentRange, SegmentRanges};
use serde::{Deserialize, Serialize};

use super::chunks::{Here, bytes_of};
use super::meta::Meta;

/// A file that this node serves or fetches.
pub(super) struct Entry {
    pub(super) meta: Meta,
    pub(super) content: Content,
    /// Bytes that were read for peers since the node started.
    pub(super) served: u64,
    /// Why nothing is written, if the disk or a limit is the reason.
    pub(super) trouble: Option<Trouble>,
    /// How many peers sent chunks of it.
    pub(super) peers: u64,
    /// Why nothing arrives from peers.
    pub(super) waits: Option<String>,
}

/// Why nothing is written.
pub(super) enum Trouble {
    /// There was no room for the file before its first byte.
    Refused(String),
    /// The disk refuses for now.
    Paused(String),
}

/// Where the bytes of a file are.
pub(super) enum Content {
    /// Nowhere yet: no head has come.
    Awaited,
    /// In the home.
    Own(Own),
    /// In the home. The machine was rebooted since they were written, so they are being hashed.
    Doubtful(Own),
    /// In the user's file.
    Shared(Arc<File>),
    /// In the user's file, which is not open since the node restarted.
    Detached,
    /// Gone: the user's file has changed.
    Changed,
}

/// Bytes in the home.
pub(super) struct Own {
    pub(super) bytes: Arc<File>,
    /// The file of [`Here`].
    pub(super) chunks: Arc<File>,
    pub(super) here: Here,
}

/// All segments, however many there are.
pub(super) fn everything() -> SegmentRanges {
    let (first, last) = (SegmentIndex(0), SegmentIndex(u64::MAX));
    SegmentRanges::unchecked(vec![SegmentRange { first, last }])
}

impl Entry {
    pub(super) const fn new(meta: Meta, content: Content) -> Self {
        Self { meta, content, served: 0, trouble: None, peers: 0, waits: None }
    }

    /// Bytes of the quota that the file takes: those of all wanted segments, here or not.
    pub(super) fn reserved(&self) -> u64 {
        self.own().map_or(0, |(file, _)| bytes_of(&file, &self.meta.wanted()))
    }

    /// Bytes that are wanted and not here.
    pub(super) fn left(&self) -> u64 {
        let left = |(file, own): (FileDescriptor, &Own)| {
            let wanted = self.meta.wanted();
            bytes_of(&file, &wanted).saturating_sub(own.here.bytes(&wanted))
        };
        self.own().map_or(0, left)
    }

    fn own(&self) -> Option<(FileDescriptor, &Own)> {
        let (Content::Own(own) | Content::Doubtful(own)) = &self.content else { return None };
        Some((self.meta.descriptor()?, own))
    }

    fn have(&self) -> u64 {
        match &self.content {
            Content::Shared(_) => self.meta.descriptor().map_or(0, |file| file.length),
            _ => self.own().map_or(0, |(_, own)| own.here.bytes(&everything())),
        }
    }

    fn state(&self) -> FileState {
        let is_fetching = match &self.content {
            Content::Shared(_) => return FileState::Shared,
            Content::Detached => return FileState::Detached,
            Content::Changed => return FileState::Changed,
            Content::Doubtful(_) => return FileState::Checking,
            Content::Awaited => true,
            Content::Own(_) => self.left() > 0,
        };
        match &self.trouble {
            Some(Trouble::Refused(_)) if is_fetching => FileState::Refused,
            Some(Trouble::Paused(_)) if is_fetching => FileState::Paused,
            _ if is_fetching => FileState::Fetching,
            _ if self.meta.descriptor().is_some_and(|file| self.have() < file.length) => {
                FileState::Partial
            }
            _ => FileState::Kept,
        }
    }

    /// The file as `files` shows it.
    pub(super) fn info(&self, id: &FileId) -> FileInfo {
        let state = self.state();
        let reason = match (&self.trouble, state) {
            (Some(Trouble::Refused(reason) | Trouble::Paused(reason)), _) => Some(reason.clone()),
            (None, FileState::Fetching) => self.waits.clone(),
            (None, _) => None,
        };
        FileInfo {
            id: Some(id.to_string()),
            name: self.meta.name.clone(),
            bytes: self.meta.descriptor().map(|file| file.length),
            have_bytes: self.have(),
            left_bytes: self.left(),
            served_bytes: self.served,
            peers: self.peers,
            state,
            reason,
        }
    }
}

/// A file as `files` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileInfo {
    /// The content id; null while the file is hashed.
    pub(crate) id: Option<String>,
    /// For people, without control characters; may be empty.
    pub(crate) name: String,
    /// Length of the file; null until a peer has told it.
    pub(crate) bytes: Option<u64>,
    /// Bytes that are here, or that are hashed so far.
    pub(crate) have_bytes: u64,
    /// Bytes that are wanted and not here.
    pub(crate) left_bytes: u64,
    /// Bytes that were read for peers since the node started.
    pub(crate) served_bytes: u64,
    /// How many peers sent chunks of it since the node started.
    pub(crate) peers: u64,
    /// What happens to it.
    pub(crate) state: FileState,
    /// Why nothing arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// What happens to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FileState {
    /// It is hashed before it is shared.
    Hashing,
    /// It is served from where its user has it.
    Shared,
    /// It was shared in place before the node restarted, and is not served until `share` is run
    /// again.
    Detached,
    /// The user's file has changed, so it is not served any more.
    Changed,
    /// Parts of it are being fetched. What is here is served.
    Fetching,
    /// As `fetching`, but it cannot be written for now.
    Paused,
    /// It has no room in the home.
    Refused,
    /// The ranges that were asked for are here, and served.
    Partial,
    /// All of it is in the home, and served.
    Kept,
    /// The machine was rebooted since it was written: what is here is being hashed.
    Checking,
}
