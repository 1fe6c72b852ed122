//! The target for the consensus log, as a file in a validator's home.

use std::collections::BTreeSet;
use std::path::Path;

use ledger::codec;
use ledger::units::{Height, Round};
use node::consensus_log::{ConsensusLog, LogError};
use protocol::Log;
use protocol::message::LogEntry;
use tempfile::TempDir;

use super::stream::Stream;

/// Name and version of the format.
const MAGIC: &[u8] = b"CRNLOG02";
/// The random number of a log file. Here it is the same for each file.
const SECRET: u64 = 0x0123_4567_89ab_cdef;
/// An entry that this target appends.
const ADDED: LogEntry = LogEntry::Timeout(2, Round(77));

/// If the first byte is 0, the other bytes are a whole file. Otherwise they are the payloads of
/// frames. This target adds the frames' marks and checksums, so that a log reads the payloads, and
/// it checks that the log holds what the payloads mean. In both cases a log that is intact stays
/// intact, and takes entries.
pub fn consensus_log(data: &[u8]) -> bool {
    let Some((kind, rest)) = data.split_first() else { return false };
    let folder = folder();
    let path = folder.path().join("log");
    if *kind == 0 {
        return on_file(&path, rest).is_some();
    }
    let payloads = payloads(rest);
    let found = on_file(&path, &file(&payloads));
    assert_eq!(found, expected(&payloads), "a log holds the entries since the last cut");
    // A frame whose last byte is missing was never durable, so it may be dropped.
    if let Some((_, before)) = payloads.split_last() {
        let whole = file(&payloads);
        let torn = on_file(&path, &whole[..whole.len() - 1]);
        assert_eq!(torn, expected(before), "a torn frame is dropped");
    }
    found.is_some()
}

/// A temporary folder. On Linux it is in memory, since a log is synced often.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a temporary folder")
}

/// Payloads from the bytes of an input. A frame is never empty, so empty payloads are left out.
fn payloads(bytes: &[u8]) -> Vec<&[u8]> {
    let mut stream = Stream(bytes);
    let mut payloads = Vec::new();
    while !stream.0.is_empty() {
        payloads.push(stream.bytes());
    }
    payloads.retain(|payload| !payload.is_empty());
    payloads
}

/// A file with a whole frame for each payload.
pub(super) fn file(payloads: &[&[u8]]) -> Vec<u8> {
    let mut file = [MAGIC, &SECRET.to_le_bytes()].concat();
    for payload in payloads {
        let mark = SECRET.wrapping_add(file.len() as u64).to_le_bytes();
        let length = u32::try_from(payload.len()).expect("at most 64 KiB").to_le_bytes();
        let sum = crc32fast::hash(&[&mark[..], &length, payload].concat()).to_le_bytes();
        file = [&file[..], &mark, &length, &sum, payload].concat();
    }
    file
}

/// The height and entries that these payloads mean; `None` if the log is lost.
fn expected(payloads: &[&[u8]]) -> Option<(Height, Vec<LogEntry>)> {
    let (mut height, mut entries) = (None, Vec::new());
    for payload in payloads {
        // Variant 0 is a cut, variant 1 an entry.
        match codec::decode::<(u32, Height)>(payload, codec::VALUE_BYTES_MAX) {
            Ok((0, begun)) => (height, entries) = (Some(begun), Vec::new()),
            _ => match codec::decode::<(u32, LogEntry)>(payload, codec::VALUE_BYTES_MAX) {
                Ok((1, entry)) => entries.push(entry),
                _ => return None,
            },
        }
    }
    height.filter(|height| *height > Height(0)).map(|height| (height, entries))
}

/// Opens a file as it is, once more, after an entry was added, and after the bodies were dropped.
fn on_file(path: &Path, bytes: &[u8]) -> Option<(Height, Vec<LogEntry>)> {
    std::fs::write(path, bytes).expect("a temporary file");
    let first = match ConsensusLog::open(path) {
        Ok((_, log)) => intact(log),
        Err(LogError::Old { .. }) => return None,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(open(path).1, first, "a log has the same content at the next start");
    let (mut log, _) = open(path);
    log.append(ADDED);
    log.sync().expect("a temporary file");
    let longer = first.clone().map(|(height, entries)| (height, [&entries[..], &[ADDED]].concat()));
    let (mut log, found) = open(path);
    assert_eq!(found, longer, "entries go on after the last whole frame");
    // Only an intact log is shortened.
    if let Some((height, entries)) = longer {
        log.shorten(&BTreeSet::new()).expect("a temporary file");
        let is_kept = |entry: &LogEntry| !matches!(entry, LogEntry::Body(_));
        let kept = entries.into_iter().filter(is_kept).collect();
        assert_eq!(open(path).1, Some((height, kept)), "a shorter log lacks bodies alone");
    }
    first
}

fn open(path: &Path) -> (ConsensusLog, Option<(Height, Vec<LogEntry>)>) {
    let (log, found) = ConsensusLog::open(path).unwrap_or_else(|error| panic!("{error}"));
    (log, intact(found))
}

fn intact(log: Log) -> Option<(Height, Vec<LogEntry>)> {
    match log {
        Log::Intact(height, entries) => Some((height, entries)),
        Log::Lost => None,
    }
}
