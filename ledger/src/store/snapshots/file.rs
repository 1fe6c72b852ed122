//! The format of a snapshot's file, `HEIGHT-ID.snapshot`:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `CRNSNP01` |
//! | 8 | length of the head, little-endian |
//! | 8 | checksum over the file's name and the head |
//! | | the head: chain id, header, certificate, list of subtrees |
//! | | the chunks, one after the other, at the places that the frontier gives |
//!
//! Chunks have no checksum: the frontier's hashes cover them.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SnapshotInfo;
use crate::block::{HEADER_BYTES, Header};
use crate::certificate::{CERTIFICATE_BYTES_MAX, Certificate};
use crate::chain::Chain;
use crate::codec::{self, Decode, Encode};
use crate::hash::{ChainId, SnapshotId};
use crate::snapshot::{
    FRONTIER_BYTES_MAX, Frontier, SnapshotRules, SubtreeDescriptor, VerifiedChunk,
};
use crate::store::StoreError;
use crate::store::positions::read_at;
use crate::store::schema::{self, CHECKSUM_BYTES};
use crate::units::Height;

/// The first bytes of each file, with the version of the format.
const MAGIC: [u8; 8] = *b"CRNSNP01";
/// Bytes before the head.
const PREFIX_BYTES: usize = MAGIC.len() + 8 + CHECKSUM_BYTES;
/// Most bytes of a head.
const HEAD_BYTES_MAX: usize = 32 + HEADER_BYTES + CERTIFICATE_BYTES_MAX + FRONTIER_BYTES_MAX;

const ENDING: &str = ".snapshot";
/// What follows the name of a file that is not finished.
const UNFINISHED: &str = ".part";

/// The name of a snapshot's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    height: Height,
    id: SnapshotId,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}{ENDING}", self.height, self.id)
    }
}

impl Name {
    pub(super) const fn of(info: &SnapshotInfo) -> Self {
        Self { height: info.header.height, id: info.id }
    }

    /// The name, if this module writes such a name.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (height, id) = text.strip_suffix(ENDING)?.split_once('-')?;
        let name = Self { height: Height(height.parse().ok()?), id: id.parse().ok()? };
        (name.to_string() == text).then_some(name)
    }

    /// Whether this is the name of a file that was not finished.
    pub(super) fn is_unfinished(text: &str) -> bool {
        text.strip_suffix(UNFINISHED).is_some_and(|name| Self::parse(name).is_some())
    }

    pub(super) fn path(&self, directory: &Path) -> PathBuf {
        directory.join(self.to_string())
    }

    /// Where the file is until it is finished.
    pub(super) fn unfinished_path(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{self}{UNFINISHED}"))
    }
}

#[derive(Encode, Decode)]
struct Head {
    chain: ChainId,
    header: Header,
    certificate: Certificate,
    subtrees: Vec<SubtreeDescriptor>,
}

/// A file with a whole head and the right length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SnapshotFile {
    pub(super) info: Arc<SnapshotInfo>,
    /// Offset of the first chunk.
    pub(super) start: u64,
}

impl SnapshotFile {
    pub(super) fn name(&self) -> Name {
        Name::of(&self.info)
    }

    /// The bytes of a chunk, which match the frontier; `None` if there is no such chunk. `file` is
    /// this file, opened at `path`.
    ///
    /// # Errors
    /// `Corrupt` if the bytes do not match, and the system's errors.
    pub(super) fn read(
        &self,
        file: &mut File,
        path: &Path,
        index: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.verified(file, path, index)?.map(|(bytes, _)| bytes))
    }

    /// As [`Self::read`], with the subtrees that the chunk has.
    pub(super) fn verified(
        &self,
        file: &mut File,
        path: &Path,
        index: u64,
    ) -> Result<Option<(Vec<u8>, VerifiedChunk)>, StoreError> {
        let frontier = &self.info.frontier;
        let Some(range) = frontier.chunk_range(index) else { return Ok(None) };
        let length = range.end.saturating_sub(range.start);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        match read_at(file, self.start.saturating_add(range.start), &mut bytes) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                let reason = format!("ends before chunk {index} does");
                return Err(StoreError::corrupt(self.name(), reason));
            }
            result => result.map_err(|error| StoreError::io(path, error))?,
        }
        match frontier.verify_chunk(index, &bytes) {
            Ok(chunk) => Ok(Some((bytes, chunk))),
            Err(error) => Err(StoreError::corrupt(self.name(), error)),
        }
    }
}

/// The bytes of a file up to its first chunk.
pub(super) fn head(chain: ChainId, info: &SnapshotInfo) -> Vec<u8> {
    let head = codec::encode(&Head {
        chain,
        header: info.header.clone(),
        certificate: info.certificate.clone(),
        subtrees: info.frontier.descriptors().to_vec(),
    });
    let checksum = schema::checksum(Name::of(info).to_string().as_bytes(), &head);
    [&MAGIC[..], &(head.len() as u64).to_le_bytes(), &checksum, &head].concat()
}

/// Opens a file and checks all of it but the chunks. Its certificate is for its header, but is not
/// verified.
///
/// # Errors
/// `Corrupt` with the file's name, and the system's errors.
pub(super) fn open(path: &Path, name: &Name, chain: &Chain) -> Result<SnapshotFile, StoreError> {
    let io = |error| StoreError::io(path, error);
    let wrong = |reason: &dyn fmt::Display| StoreError::corrupt(name, reason);
    let mut file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let mut prefix = [0; PREFIX_BYTES];
    read(&mut file, &mut prefix).map_err(io)?;
    let (magic, rest) = prefix.split_at(MAGIC.len());
    let (bytes, checksum) = rest.split_at(8);
    if magic != MAGIC {
        return Err(wrong(&"not a snapshot of this format"));
    }
    let bytes = bytes.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
    let Some(head) = usize::try_from(bytes).ok().filter(|bytes| *bytes <= HEAD_BYTES_MAX) else {
        return Err(wrong(&"no plausible length of its head"));
    };
    let mut head = vec![0; head];
    read(&mut file, &mut head).map_err(io)?;
    if schema::checksum(name.to_string().as_bytes(), &head) != checksum {
        return Err(wrong(&"checksum does not match"));
    }
    let head: Head = codec::decode(&head, HEAD_BYTES_MAX).map_err(|error| wrong(&error))?;
    let Head { chain: of, header, certificate, subtrees } = head;
    if of != chain.id() {
        return Err(wrong(&format_args!("is of chain {of}, expected {}", chain.id())));
    }
    if (certificate.height, certificate.block) != (header.height, header.hash()) {
        return Err(wrong(&"its certificate is of another block"));
    }
    let rules = SnapshotRules::new(chain.limits());
    let frontier =
        Frontier::verify(subtrees, header.state_root, &rules).map_err(|error| wrong(&error))?;
    let start = bytes.saturating_add(PREFIX_BYTES as u64);
    if length != start.saturating_add(frontier.chunks_bytes()) {
        return Err(wrong(&"has another length than was written"));
    }
    let id = frontier.id(header.height);
    let info = SnapshotInfo { id, header, certificate, frontier: Arc::new(frontier) };
    Ok(SnapshotFile { info: Arc::new(info), start })
}

/// Reads as many bytes as there are. A file that is too short leaves zeros, which the checks that
/// follow find.
fn read(file: &mut File, bytes: &mut [u8]) -> io::Result<()> {
    match file.read_exact(bytes) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(()),
        result => result,
    }
}
