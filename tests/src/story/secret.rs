//! Looks for a secret in files and in the memory of a process.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes in a row that count as a part of the secret.
const PART: usize = 16;
/// Any [`PART`] bytes hold a whole word of this many bytes whose offset is a multiple of it.
const WORD: usize = PART / 2;
/// Bytes that are looked at together.
const BLOCK: u64 = 1 << 20;

/// A secret, in each form in which it could appear.
pub struct Secret {
    forms: Vec<Vec<u8>>,
    /// The first two bytes of all words of all forms.
    starts: Vec<bool>,
}

impl Secret {
    /// A secret of these bytes: raw, and as hexadecimal digits.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let forms =
            vec![bytes.to_vec(), hex::encode(bytes).into(), hex::encode_upper(bytes).into()];
        let mut starts = vec![false; 1 << 16];
        forms
            .iter()
            .flat_map(|form| form.windows(WORD))
            .for_each(|word| starts[start(word)] = true);
        Self { forms, starts }
    }

    /// Whether any 16 bytes in a row of any form are in there.
    #[must_use]
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        let offsets = (0..).step_by(WORD).zip(bytes.chunks_exact(WORD));
        let mut words = offsets.filter(|(_, word)| self.starts[start(word)]);
        words.any(|(offset, _)| self.forms.iter().any(|form| is_around(form, bytes, offset)))
    }

    /// The files below a folder that have a part of the secret. Those that go away meanwhile are
    /// left out.
    ///
    /// # Panics
    /// When a folder or file cannot be read.
    #[must_use]
    pub fn files(&self, folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).expect("a folder of our own").flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => found.extend(self.files(&path)),
                Ok(kind) if kind.is_file() => match File::open(&path) {
                    Ok(file) if self.is_in_range(&file, 0, u64::MAX) => found.push(path),
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        panic!("{}: {error}", path.display())
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        found
    }

    /// Whether a part of the secret is in the memory of a process, in its arguments or in its
    /// environment.
    ///
    /// # Panics
    /// When its memory cannot be read.
    #[must_use]
    pub fn is_in_process(&self, pid: u32) -> bool {
        let proc = Path::new("/proc").join(pid.to_string());
        let read = |name: &str| {
            fs::read(proc.join(name)).unwrap_or_else(|error| panic!("{name} of {pid}: {error}"))
        };
        let maps = String::from_utf8(read("maps")).expect("maps are text");
        let memory = File::open(proc.join("mem")).expect("the memory of our own process");
        let ranges = maps.lines().filter_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-').filter(|_| rest.starts_with('r'))?;
            let number = |text| u64::from_str_radix(text, 16).ok();
            number(start).zip(number(end))
        });
        let mut ranges = ranges.map(|(start, end)| self.is_in_range(&memory, start, end));
        ranges.any(|is_in| is_in)
            || ["cmdline", "environ"].iter().any(|name| self.is_in(&read(name)))
    }

    /// Looks at a part of a file. It ends where nothing can be read.
    fn is_in_range(&self, file: &File, mut start: u64, end: u64) -> bool {
        // A part that the end of a block cuts is whole in a block with this much more.
        let more = self.forms.iter().map(Vec::len).max().unwrap_or(0) as u64;
        let mut block = vec![0; (BLOCK + more) as usize];
        while start < end {
            let wanted = (BLOCK + more).min(end - start) as usize;
            match file.read_at(&mut block[..wanted], start) {
                Ok(0) | Err(_) => return false,
                Ok(count) if self.is_in(&block[..count]) => return true,
                Ok(count) => start += (count as u64).min(BLOCK),
            }
        }
        false
    }
}

fn start(word: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([word[0], word[1]]))
}

/// Whether [`PART`] bytes of a form, of which a word is at this offset, are there.
fn is_around(form: &[u8], bytes: &[u8], offset: usize) -> bool {
    let is_equal = |(a, b): &(&u8, &u8)| a == b;
    (0..=form.len() - WORD).any(|at| {
        let after = form[at..].iter().zip(&bytes[offset..]).take_while(is_equal).count();
        let before = form[..at].iter().rev().zip(bytes[..offset].iter().rev());
        after >= WORD && after + before.take_while(is_equal).count() >= PART
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::*;

    fn secret() -> (Vec<u8>, Secret) {
        let bytes: Vec<u8> = (0..32).map(|at| at * 7 + 1).collect();
        let secret = Secret::new(&bytes);
        (bytes, secret)
    }

    #[test]
    fn sixteen_bytes_of_any_form_are_found_anywhere() {
        let (bytes, secret) = secret();
        for form in [bytes.clone(), hex::encode(&bytes).into(), hex::encode_upper(&bytes).into()] {
            for offset in 0..24 {
                for part in form.windows(PART) {
                    let place = |part: &[u8]| [&vec![9; offset], part, &[9; 11]].concat();
                    assert!(secret.is_in(&place(part)), "{offset}");
                    assert!(!secret.is_in(&place(&part[1..])), "{offset}");
                }
            }
        }
    }

    #[test]
    fn parts_are_found_in_files_and_in_memory() {
        let (bytes, secret) = secret();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        for before in [0, (BLOCK - 8) as usize, BLOCK as usize + 3] {
            let path = folder.path().join("inner").join(before.to_string());
            let mut file = File::create(&path).unwrap();
            file.write_all(&vec![0; before]).unwrap();
            assert!(secret.files(folder.path()).is_empty());
            file.write_all(&bytes[4..20]).unwrap();
            assert_eq!(secret.files(folder.path()), std::slice::from_ref(&path));
            fs::remove_file(path).unwrap();
        }
        if cfg!(target_os = "linux") {
            assert!(secret.is_in_process(std::process::id()));
        }
    }
}
