//! What a home remembers of a file: `ID.json`, which is written last, so that only complete entries
//! have it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ledger::file::{FileDescriptor, FileId};
use ledger::hash::Hash;
use ledger::units::SegmentIndex;
use protocol::swarm::{SegmentRange, SegmentRanges};
use serde::{Deserialize, Serialize};

use super::source::Stamp;
use crate::files::{remove_all, write_atomic};

/// Version of the file.
const VERSION: u8 = 1;
/// Most bytes of the file. It has at most 256 ranges of up to 44 characters, and a name.
const BYTES_MAX: u64 = 64 << 10;

/// What is remembered of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Meta {
    version: u8,
    /// For people, without control characters. Empty if nobody has named the file.
    pub(super) name: String,
    /// Length and root; `None` until a head has come.
    descriptor: Option<(u64, String)>,
    /// The user's file, for one that is shared in place. Otherwise the bytes are in the home.
    pub(super) source: Option<Stamp>,
    /// The segments that somebody has asked for: the first and the last of each range.
    wanted: Vec<(u64, u64)>,
    /// The boot of the machine in which the bytes in the home were written. After another boot some
    /// of them may be lost, so all are hashed. `None` once they are durable.
    pub(super) boot: Option<String>,
}

impl Meta {
    pub(super) fn new(name: String) -> Self {
        Self {
            version: VERSION,
            name,
            descriptor: None,
            source: None,
            wanted: Vec::new(),
            boot: Some(boot()),
        }
    }

    pub(super) fn descriptor(&self) -> Option<FileDescriptor> {
        let (length, root) = self.descriptor.as_ref()?;
        Some(FileDescriptor { length: *length, root: root.parse::<Hash>().ok()? })
    }

    pub(super) fn set_descriptor(&mut self, file: &FileDescriptor) {
        self.descriptor = Some((file.length, file.root.to_string()));
    }

    /// The segments that somebody has asked for. They may lie beyond the end of the file, since its
    /// length is not known at first.
    pub(super) fn wanted(&self) -> SegmentRanges {
        let mut wanted = SegmentRanges::default();
        for (first, last) in self.wanted.iter().filter(|(first, last)| first <= last) {
            wanted.insert(SegmentRange { first: SegmentIndex(*first), last: SegmentIndex(*last) });
        }
        wanted
    }

    pub(super) fn set_wanted(&mut self, wanted: &SegmentRanges) {
        self.wanted = wanted.iter().map(|range| (range.first.0, range.last.0)).collect();
    }

    /// Notes that bytes are written in this boot. Returns whether `ID.json` does not say so yet.
    pub(super) fn begin_writing(&mut self) -> bool {
        let is_durable = self.boot.is_none();
        self.boot.get_or_insert_with(boot);
        is_durable
    }

    /// Whether the bytes in the home may lack some that were written.
    pub(super) fn is_doubtful(&self) -> bool {
        self.boot.as_ref().is_some_and(|written| *written != boot() || written.is_empty())
    }

    /// # Errors
    /// `InvalidData` for a file that this module has not written, and those of the system.
    pub(super) fn read(path: &Path, id: &FileId) -> io::Result<Self> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        if fs::symlink_metadata(path)?.len() > BYTES_MAX {
            return Err(invalid(format!("more than {BYTES_MAX} bytes")));
        }
        let meta: Self =
            serde_json::from_slice(&fs::read(path)?).map_err(|error| invalid(error.to_string()))?;
        if meta.version != VERSION {
            return Err(invalid(format!("version {}, expected {VERSION}", meta.version)));
        }
        match meta.descriptor() {
            Some(file) if file.id() != *id => Err(invalid("it describes another file".into())),
            None if meta.descriptor.is_some() => Err(invalid("the root is not a hash".into())),
            _ => Ok(meta),
        }
    }

    /// # Errors
    /// Those of the system. Then the file has its old content.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        write_atomic(path, &serde_json::to_vec(self)?, 0o600)
    }
}

/// Id of the machine's current boot; empty if the system does not say.
fn boot() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// The paths of one file's entries in the folder.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    /// `ID`: the bytes.
    pub(super) bytes: PathBuf,
    /// `ID.heads`: the hash list.
    pub(super) heads: PathBuf,
    /// `ID.chunks`: which chunks are here.
    pub(super) chunks: PathBuf,
    /// `ID.json`: everything else.
    pub(super) meta: PathBuf,
}

impl Paths {
    pub(super) fn of(folder: &Path, id: &FileId) -> Self {
        Self::named(folder, &id.to_string())
    }

    /// The paths of a file that is being hashed, whose id is not known yet.
    pub(super) fn unfinished(folder: &Path, number: u64) -> Self {
        Self::named(folder, &format!("new-{number}"))
    }

    fn named(folder: &Path, name: &str) -> Self {
        let path = |ending: &str| folder.join(format!("{name}{ending}"));
        Self {
            bytes: path(""),
            heads: path(".heads"),
            chunks: path(".chunks"),
            meta: path(".json"),
        }
    }

    /// Removes all of them, `ID.json` first: without it the others are leftovers.
    pub(super) fn remove(&self) -> io::Result<()> {
        [&self.meta, &self.bytes, &self.heads, &self.chunks]
            .into_iter()
            .try_for_each(|path| remove_all(path))
    }
}

/// The id in the name of an `ID.json`.
pub(super) fn id_of(name: &str) -> Option<FileId> {
    let id: FileId = name.strip_suffix(".json")?.parse().ok()?;
    (format!("{id}.json") == name).then_some(id)
}

/// Whether a name is one that this module gives to entries of files.
pub(super) fn is_ours(name: &str) -> bool {
    let stem = name.split_once('.').map_or(name, |(stem, _)| stem);
    let is_id = stem.parse::<FileId>().is_ok_and(|id| id.to_string() == stem);
    is_id || stem.strip_prefix("new-").is_some_and(|number| number.parse::<u64>().is_ok())
}
