//! The consensus log: the write-ahead log of a validator. A message that it signs is durable here
//! before it is sent.
//!
//! It is a separate append-only file, so that neither the latency nor the damage of a database
//! affects it (`docs/adr/0003-consensus-log.md`). All numbers are little-endian.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | name and version, `MAGIC` |
//! | 8 | the file's *secret*, a random number |
//! | | frames |
//!
//! | bytes of a frame | content |
//! |---|---|
//! | 8 | mark: secret plus the frame's offset in the file, modulo 2^64 |
//! | 4 | length of the payload, at least 1 |
//! | 4 | CRC-32 of mark, length and payload |
//! | | payload: a cut or an entry |
//!
//! A cut makes everything before it void, so the file need not be truncated at each height. A long
//! file is replaced by a new one: at a cut, or when bodies of blocks in it no longer matter. A last
//! frame that a crash tore is dropped: the validator never acted on it. If whole frames follow a
//! broken one, durable bytes may have been lost, so nothing in the file is relied on. Payloads hold
//! bytes that strangers chose, such as memos. Nobody who does not know the secret can make such
//! bytes look like a frame. A mark is compared before the bytes that follow it are read, so the
//! search for later frames takes time linear in the length of the file.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ledger::codec;
use ledger::genesis::MADE_BY_0_1;
use ledger::hash::BlockHash;
use ledger::units::Height;
use protocol::message::LogEntry;

use crate::files::write_atomic;

const MAGIC: &[u8; 8] = b"CRNLOG02";
/// The format of cairn 0.1, whose frames had no mark.
const MAGIC_1: &[u8; 8] = b"CRNLOG01";
/// Bytes of magic and secret before the first frame.
const FILE_HEADER: usize = 16;
/// Bytes of mark, length and CRC before each payload.
const FRAME_HEADER: usize = 16;
/// At the next cut, a file longer than this many bytes is replaced by a new one.
const COMPACT_BYTES: u64 = 8 << 20;

#[derive(Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
// A frame is made once and moved once, which costs less than a box.
#[allow(clippy::large_enum_variant)]
enum Frame {
    /// Everything before is void; the log goes on at this height.
    Cut(Height),
    Entry(LogEntry),
}

/// Why a consensus log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The operating system refused.
    #[error("consensus log {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system answered.
        source: io::Error,
    },
    /// The file has the format of an earlier version.
    #[error("consensus log {}: {MADE_BY_0_1}", path.display())]
    Old {
        /// The file.
        path: PathBuf,
    },
}

/// The log of one validator, open for writing.
#[derive(Debug)]
pub struct ConsensusLog {
    path: PathBuf,
    file: File,
    secret: u64,
    /// Length of the file in bytes.
    length: u64,
    /// Frames that are not in the file yet.
    buffer: Vec<u8>,
}

impl ConsensusLog {
    /// Writes an empty log for height 1, durably. This *creation mark* says that nothing was ever
    /// signed from this home. If the tip of the store is above 0, the mark says nothing, since the
    /// key may have signed elsewhere.
    ///
    /// # Errors
    /// `LogError` when the disk refuses.
    pub fn create(path: &Path) -> Result<(), LogError> {
        Self::replace(path, Height(1), []).map(drop)
    }

    /// Replaces the file by a new one with a cut for this height and these entries. Returns its
    /// secret and its length in bytes.
    fn replace(
        path: &Path,
        height: Height,
        entries: impl IntoIterator<Item = LogEntry>,
    ) -> Result<(u64, u64), LogError> {
        let error = |source| LogError::Io { path: path.to_owned(), source };
        let secret = getrandom::u64().map_err(|source| error(io::Error::other(source)))?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&secret.to_le_bytes());
        push_frame(&mut bytes, secret, 0, &Frame::Cut(height));
        for entry in entries {
            push_frame(&mut bytes, secret, 0, &Frame::Entry(entry));
        }
        write_atomic(path, &bytes, 0o600).map_err(error)?;
        Ok((secret, bytes.len() as u64))
    }

    /// Whether a log has more than its creation mark. A missing file was never used; a broken one
    /// counts as used.
    ///
    /// # Errors
    /// `LogError` when the disk refuses.
    pub fn was_used(path: &Path) -> Result<bool, LogError> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(!read(&bytes)
                .is_some_and(|whole| whole.height == Height(1) && whole.entries.is_empty())),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(LogError::Io { path: path.to_owned(), source }),
        }
    }

    /// Opens a log and reads it. Returns [`protocol::Log::Lost`] if the file is missing or broken;
    /// it is then replaced by a new one.
    ///
    /// # Errors
    /// `LogError` when the disk refuses, or when the file is of an earlier version.
    pub fn open(path: &Path) -> Result<(Self, protocol::Log), LogError> {
        let error = |source| LogError::Io { path: path.to_owned(), source };
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(error(source)),
        };
        if bytes.starts_with(MAGIC_1) {
            return Err(LogError::Old { path: path.to_owned() });
        }
        let (log, secret, length) = match read(&bytes) {
            Some(whole) => {
                (protocol::Log::Intact(whole.height, whole.entries), whole.secret, whole.length)
            }
            None => {
                // Height 0, not 1: height 1 would say that nothing was ever signed.
                let (secret, length) = Self::replace(path, Height(0), [])?;
                (protocol::Log::Lost, secret, length)
            }
        };
        let file = OpenOptions::new().append(true).open(path).map_err(error)?;
        // A torn frame must not stand between older and newer frames.
        file.set_len(length).map_err(error)?;
        Ok((Self { path: path.to_owned(), file, secret, length, buffer: Vec::new() }, log))
    }

    /// Makes all entries void and begins a height. The cut is durable at the latest with the next
    /// [`Self::sync`].
    ///
    /// # Errors
    /// `LogError` when the disk refuses.
    pub fn cut(&mut self, height: Height) -> Result<(), LogError> {
        if self.length > COMPACT_BYTES {
            self.buffer.clear();
            return self.begin_file(height, []);
        }
        self.push(&Frame::Cut(height));
        Ok(())
    }

    fn begin_file(
        &mut self,
        height: Height,
        entries: impl IntoIterator<Item = LogEntry>,
    ) -> Result<(), LogError> {
        (self.secret, self.length) = Self::replace(&self.path, height, entries)?;
        self.file = OpenOptions::new()
            .append(true)
            .open(&self.path)
            .map_err(|source| self.error(source))?;
        Ok(())
    }

    /// Replaces the file by a new one without the bodies of blocks that are not among `kept`. All
    /// other entries stay in their order, and everything appended before is durable. A crash leaves
    /// the old file or the new one, and each has every message that was signed.
    ///
    /// # Errors
    /// `LogError` when the disk refuses, or no longer gives what was written.
    pub fn shorten(&mut self, kept: &BTreeSet<BlockHash>) -> Result<(), LogError> {
        self.sync()?;
        let bytes = std::fs::read(&self.path).map_err(|source| self.error(source))?;
        let whole =
            read(&bytes).filter(|whole| whole.secret == self.secret && whole.length == self.length);
        let Some(Whole { height, entries, .. }) = whole else {
            let text =
                format!("expected the {} bytes that were written, found others", self.length);
            return Err(self.error(io::Error::new(io::ErrorKind::InvalidData, text)));
        };
        drop(bytes);
        let is_kept = |entry: &LogEntry| match entry {
            LogEntry::Body(block) => kept.contains(&block.header.hash()),
            _ => true,
        };
        self.begin_file(height, entries.into_iter().filter(is_kept))
    }

    /// Appends an entry. It stays in memory until [`Self::sync`].
    pub fn append(&mut self, entry: LogEntry) {
        self.push(&Frame::Entry(entry));
    }

    /// Makes everything appended durable.
    ///
    /// # Errors
    /// `LogError` when the disk refuses. Then no message may be sent whose entry this call was to
    /// make durable.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.file.write_all(&self.buffer).map_err(|source| self.error(source))?;
        self.length += self.buffer.len() as u64;
        self.buffer.clear();
        self.file.sync_data().map_err(|source| self.error(source))
    }

    fn push(&mut self, frame: &Frame) {
        push_frame(&mut self.buffer, self.secret, self.length, frame);
    }

    fn error(&self, source: io::Error) -> LogError {
        LogError::Io { path: self.path.clone(), source }
    }
}

/// Appends a frame to bytes that begin at offset `before` of the file.
fn push_frame(bytes: &mut Vec<u8>, secret: u64, before: u64, frame: &Frame) {
    let mark = secret.wrapping_add(before).wrapping_add(bytes.len() as u64).to_le_bytes();
    let payload = codec::encode(frame);
    let length =
        u32::try_from(payload.len()).unwrap_or_else(|_| panic!("a log entry is at most a block"));
    bytes.extend_from_slice(&mark);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc(&mark, &length.to_le_bytes(), &payload).to_le_bytes());
    bytes.extend_from_slice(&payload);
}

fn crc(mark: &[u8], length: &[u8], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(mark);
    crc.update(length);
    crc.update(payload);
    crc.finalize()
}

/// The content of an intact file.
struct Whole {
    secret: u64,
    height: Height,
    /// Entries since the last cut.
    entries: Vec<LogEntry>,
    /// Bytes up to the end of the last whole frame.
    length: u64,
}

/// Parses a file. `None` if it is not a log, if durable bytes are broken, or if it replaced a lost
/// log and has no cut since.
fn read(bytes: &[u8]) -> Option<Whole> {
    let secret =
        bytes.strip_prefix(MAGIC)?.first_chunk().map(|secret| u64::from_le_bytes(*secret))?;
    let (mut height, mut entries, mut at) = (None, Vec::new(), FILE_HEADER);
    while let Some(payload) = frame_at(bytes, secret, at) {
        match codec::decode::<Frame>(payload, codec::VALUE_BYTES_MAX).ok()? {
            Frame::Cut(begun) => (height, entries) = (Some(begun), Vec::new()),
            Frame::Entry(entry) => entries.push(entry),
        }
        at += FRAME_HEADER + payload.len();
    }
    // Only the end may be torn. A whole frame behind a broken one shows that durable bytes may be
    // lost.
    let is_torn_end = (at + 1..bytes.len()).all(|later| frame_at(bytes, secret, later).is_none());
    // Height 0 marks a log that replaced a lost one. Nothing was signed since.
    let height = height.filter(|height| is_torn_end && *height > Height(0))?;
    Some(Whole { secret, height, entries, length: at as u64 })
}

/// The payload of the frame at this offset; `None` if there is no whole frame.
fn frame_at(bytes: &[u8], secret: u64, at: usize) -> Option<&[u8]> {
    let (mark, rest) = bytes.get(at..)?.split_first_chunk::<8>()?;
    if u64::from_le_bytes(*mark) != secret.wrapping_add(at as u64) {
        return None;
    }
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let payload = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let is_whole = !payload.is_empty() && crc(mark, length, payload) == u32::from_le_bytes(*sum);
    is_whole.then_some(payload)
}

#[cfg(test)]
mod tests;
