//! New lines of a file that a process writes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

/// Most bytes that are read at once.
const READ_MAX: u64 = 64 << 10;
/// Most bytes of a line. A longer one is cut.
const LINE_BYTES_MAX: usize = 2_000;

/// A place in a file from which new lines are read.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    at: u64,
    /// The beginning of a line whose end is not written yet.
    begun: Vec<u8>,
}

impl Tail {
    /// Reads lines after the first `at` bytes.
    pub(super) const fn from(path: PathBuf, at: u64) -> Self {
        Self { path, at, begun: Vec::new() }
    }

    /// How many bytes were read so far.
    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    /// How many bytes the file has. A missing file has none.
    pub(super) fn end(&self) -> io::Result<u64> {
        match std::fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            file => Ok(file?.len()),
        }
    }

    /// The complete lines that were written since the last call, at most 64 KiB of them. A missing
    /// file has none.
    pub(super) fn read(&mut self) -> io::Result<Vec<String>> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file?,
        };
        if file.metadata()?.len() < self.at {
            // Somebody emptied the file.
            self.at = 0;
            self.begun.clear();
        }
        file.seek(SeekFrom::Start(self.at))?;
        let mut bytes = Vec::new();
        let read = file.take(READ_MAX).read_to_end(&mut bytes)?;
        self.at = self.at.saturating_add(u64::try_from(read).unwrap_or_default());
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            let room = LINE_BYTES_MAX.saturating_sub(self.begun.len());
            self.begun.extend_from_slice(&text[..text.len().min(room)]);
            if part.ends_with(b"\n") {
                lines.push(String::from_utf8_lossy(&std::mem::take(&mut self.begun)).into_owned());
            }
        }
        Ok(lines)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_come_once_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.log");
        let mut tail = Tail::from(path.clone(), 4);
        assert!(tail.read().unwrap().is_empty(), "there is no file yet");
        let mut file = File::create(&path).unwrap();
        for (text, expected) in [
            ("old\none\ntw", &["one"][..]),
            ("", &[]),
            ("o\n\nthree", &["two", ""]),
            ("\n", &["three"]),
        ] {
            file.write_all(text.as_bytes()).unwrap();
            assert_eq!(tail.read().unwrap(), expected, "{text:?}");
        }
        file.write_all(&[b"x".repeat(5_000), b"\n".to_vec()].concat()).unwrap();
        assert_eq!(tail.read().unwrap(), ["x".repeat(LINE_BYTES_MAX)]);
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(tail.read().unwrap(), ["new"]);
    }
}
