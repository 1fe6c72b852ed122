//! The consensus log: what a validator writes down before it says it (write-ahead log).
//!
//! One small append-only file of its own, so that neither the latency nor the damage of a database touches it. Frames of length,
//! CRC-32 and payload; a cut is a frame too, which makes all before it void, and a long file is replaced by a short one. A frame
//! that a crash tore off at the end was never acted on and is dropped; a broken frame with others after it means that durable
//! bytes were lost, and then nothing in the file can be relied on.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ledger::codec;
use ledger::units::Height;
use protocol::message::LogEntry;

use crate::files::write_atomic;

const MAGIC: &[u8; 8] = b"CRNLOG01";
/// A file longer than this is begun anew at the next cut.
const COMPACT_BYTES: u64 = 8 << 20;
/// Length and CRC before each payload.
const FRAME_HEADER: usize = 8;

#[derive(Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
#[allow(clippy::large_enum_variant)] // Made once and handed on: a box would cost more than the move.
enum Frame {
    /// The log begins anew at this height.
    Cut(Height),
    Entry(LogEntry),
}

/// A consensus log that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk refuses.
    #[error("consensus log {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The log of one validator, open for writing.
#[derive(Debug)]
pub struct ConsensusLog {
    path: PathBuf,
    file: File,
    length: u64,
    buffer: Vec<u8>,
}

impl ConsensusLog {
    /// Writes an empty log for height 1, durably: its existence says that nothing was ever signed with this home's key.
    ///
    /// # Errors
    /// `LogError` when the disk refuses.
    pub fn create(path: &Path) -> Result<(), LogError> {
        Self::replace(path, Height(1))
    }

    fn replace(path: &Path, height: Height) -> Result<(), LogError> {
        let mut bytes = MAGIC.to_vec();
        push_frame(&mut bytes, &Frame::Cut(height));
        write_atomic(path, &bytes, 0o600).map_err(|source| LogError::Io { path: path.to_owned(), source })
    }

    /// Opens a log and reads what it holds. [`protocol::Log::Lost`] when it is missing or broken; it is then begun anew.
    ///
    /// # Errors
    /// `LogError` when the disk refuses.
    pub fn open(path: &Path) -> Result<(Self, protocol::Log), LogError> {
        let error = |source| LogError::Io { path: path.to_owned(), source };
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(error(source)),
        };
        let (log, length) = match read(&bytes) {
            Some((height, entries, length)) => (protocol::Log::Intact(height, entries), length),
            None => {
                // Not height 1: that would say that nothing was ever signed.
                Self::replace(path, Height(0))?;
                (protocol::Log::Lost, std::fs::metadata(path).map_err(error)?.len())
            }
        };
        let file = OpenOptions::new().append(true).open(path).map_err(error)?;
        // What a crash tore off must not stand between older and newer frames.
        file.set_len(length).map_err(error)?;
        Ok((Self { path: path.to_owned(), file, length, buffer: Vec::new() }, log))
    }

    /// Begins anew for a height. Durable at the latest with the next [`Self::sync`].
    ///
    /// # Errors
    /// `LogError` when the disk refuses.
    pub fn cut(&mut self, height: Height) -> Result<(), LogError> {
        if self.length > COMPACT_BYTES {
            self.buffer.clear();
            Self::replace(&self.path, height)?;
            self.file = OpenOptions::new().append(true).open(&self.path).map_err(|source| self.error(source))?;
            self.length = self.file.metadata().map_err(|source| self.error(source))?.len();
            return Ok(());
        }
        push_frame(&mut self.buffer, &Frame::Cut(height));
        Ok(())
    }

    /// Appends an entry, in memory until [`Self::sync`].
    pub fn append(&mut self, entry: LogEntry) {
        push_frame(&mut self.buffer, &Frame::Entry(entry));
    }

    /// Makes everything appended durable.
    ///
    /// # Errors
    /// `LogError` when the disk refuses: nothing may be said then that was to be logged.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.file.write_all(&self.buffer).map_err(|source| self.error(source))?;
        self.length += self.buffer.len() as u64;
        self.buffer.clear();
        self.file.sync_data().map_err(|source| self.error(source))
    }

    fn error(&self, source: io::Error) -> LogError {
        LogError::Io { path: self.path.clone(), source }
    }
}

fn push_frame(bytes: &mut Vec<u8>, frame: &Frame) {
    let payload = codec::encode(frame);
    let length = u32::try_from(payload.len()).unwrap_or_else(|_| panic!("a log entry is at most a block"));
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    bytes.extend_from_slice(&payload);
}

/// Height, entries since the last cut, and the length of what is whole; nothing if it is not a log or durable bytes are broken.
fn read(bytes: &[u8]) -> Option<(Height, Vec<LogEntry>, u64)> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let (mut height, mut entries) = (None, Vec::new());
    while let Some((payload, next)) = split_frame(rest) {
        match codec::decode::<Frame>(payload, codec::VALUE_BYTES_MAX).ok()? {
            Frame::Cut(at) => (height, entries) = (Some(at), Vec::new()),
            Frame::Entry(entry) => entries.push(entry),
        }
        rest = next;
    }
    // Only the end may be broken: frames after a broken one were written after it was durable.
    let is_torn_end = (1..rest.len()).all(|skip| rest.get(skip..).and_then(split_frame).is_none());
    // Height 0 is the mark of a log that was lost and begun anew, and nothing was signed since.
    let height = height.filter(|height| is_torn_end && *height > Height(0))?;
    Some((height, entries, (bytes.len() - rest.len()) as u64))
}

/// The first frame and what follows, if it is whole.
fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, rest) = bytes.split_at_checked(FRAME_HEADER)?;
    let length = u32::from_le_bytes(header[..4].try_into().ok()?);
    let crc = u32::from_le_bytes(header[4..].try_into().ok()?);
    let (payload, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    (length > 0 && crc32fast::hash(payload) == crc).then_some((payload, rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ledger::units::Round;
    use protocol::Log;

    use super::*;

    fn entry(round: u32) -> LogEntry {
        LogEntry::Timeout(0, Round(round))
    }

    /// Height and entries, or nothing when lost.
    fn reopen(path: &Path) -> Option<(u64, Vec<LogEntry>)> {
        match ConsensusLog::open(path).unwrap().1 {
            Log::Intact(height, entries) => Some((height.0, entries)),
            Log::Lost => None,
        }
    }

    fn written(path: &Path) {
        ConsensusLog::create(path).unwrap();
        let (mut log, _) = ConsensusLog::open(path).unwrap();
        log.append(entry(1));
        log.cut(Height(7)).unwrap();
        log.append(entry(2));
        log.append(entry(3));
        log.sync().unwrap();
        log.append(entry(4)); // never synced
    }

    #[test]
    fn holds_what_was_synced_since_the_last_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        ConsensusLog::create(&path).unwrap();
        assert_eq!(reopen(&path), Some((1, vec![])));
        written(&path);
        assert_eq!(reopen(&path), Some((7, vec![entry(2), entry(3)])));
    }

    #[test]
    fn a_torn_end_is_dropped_and_writing_goes_on_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        written(&path);
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..16 {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            assert_eq!(reopen(&path), Some((7, vec![entry(2)])), "{cut}");
            let (mut log, _) = ConsensusLog::open(&path).unwrap();
            log.append(entry(9));
            log.sync().unwrap();
            assert_eq!(reopen(&path), Some((7, vec![entry(2), entry(9)])), "{cut}");
        }
    }

    #[test]
    fn broken_durable_bytes_and_a_missing_file_mean_a_lost_log_also_the_next_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert_eq!(reopen(&path), None);
        assert_eq!(reopen(&path), None);
        written(&path);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() / 2 {
            let mut broken = whole.clone();
            broken[at] ^= 0x10;
            std::fs::write(&path, &broken).unwrap();
            assert_eq!(reopen(&path), None, "byte {at}");
        }
    }

    #[test]
    fn a_long_log_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        written(&path);
        let (mut log, _) = ConsensusLog::open(&path).unwrap();
        log.length = COMPACT_BYTES + 1;
        log.cut(Height(8)).unwrap();
        log.append(entry(5));
        log.sync().unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < 200);
        assert_eq!(reopen(&path), Some((8, vec![entry(5)])));
    }
}
