//! The archive: a chain in one file, for `db export` and `db import`.
//!
//! The header has magic, chain id, and first and last height as `u64`. Pieces follow: each block in
//! order, then the certificate of the last block. A piece is its length as `u32` and its canonical
//! bytes. At the end stands SHA-256 of everything before. Numbers are little-endian. The hash finds
//! damage but proves nothing: an import validates every block.

use std::io::{self, Read, Write};

use ledger::codec::VALUE_BYTES_MAX;
use ledger::genesis::MADE_BY_0_1;
use ledger::hash::{ChainId, Hash};
use ledger::units::Height;
use sha2::{Digest, Sha256};

/// First bytes of an archive: name and version.
const MAGIC: &[u8; 16] = b"cairn archive 2\n";
/// First bytes of an archive of cairn 0.1, whose blocks follow other rules.
const MAGIC_1: &[u8; 16] = b"cairn archive 1\n";

/// The content of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The chain of its blocks.
    pub chain: ChainId,
    /// Height of the first block.
    pub first: Height,
    /// Height of the last block, not below the first.
    pub last: Height,
}

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Reading failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Other first bytes.
    #[error("not an archive: it does not begin as a file of `db export` does")]
    Foreign,
    /// The format of an earlier version.
    #[error("{MADE_BY_0_1}")]
    Old,
    /// No block, or a first height of 0.
    #[error(
        "it claims blocks {first} to {last}, expected at least one block and a first height of at \
         least 1"
    )]
    Heights { first: Height, last: Height },
    /// Bytes are missing at the end.
    #[error("it ends in the middle, at byte {at}: the file was cut off")]
    Truncated { at: u64 },
    /// A piece is longer than [`VALUE_BYTES_MAX`].
    #[error(
        "a piece of {length} bytes at byte {at}, expected at most {VALUE_BYTES_MAX}: the file is \
         damaged"
    )]
    Length { at: u64, length: u32 },
    /// The hash at the end is not that of the bytes before it.
    #[error("its checksum does not match: the file is damaged")]
    Checksum,
    /// Bytes after the hash.
    #[error("bytes follow its end: the file is damaged")]
    Trailing,
}

/// Writes an archive.
pub struct Writer<W> {
    to: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins an archive of this content.
    pub fn new(to: W, contents: Contents) -> io::Result<Self> {
        let mut writer = Self { to, hash: Sha256::new(), bytes: 0 };
        writer.put(MAGIC)?;
        writer.put(contents.chain.as_bytes())?;
        writer.put(&contents.first.0.to_le_bytes())?;
        writer.put(&contents.last.0.to_le_bytes())?;
        Ok(writer)
    }

    /// Adds the next block, or after all blocks the certificate of the last one.
    pub fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len())
            .map_err(|_| io::Error::other("a block of more than 4 GiB"))?;
        self.put(&length.to_le_bytes())?;
        self.put(bytes)
    }

    /// Ends the archive. Also returns its length in bytes.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        let hash = self.hash.finalize();
        self.to.write_all(&hash)?;
        self.to.flush()?;
        Ok((self.to, self.bytes + hash.len() as u64))
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.to.write_all(bytes)
    }
}

/// Reads an archive, with one piece in memory at a time.
pub struct Reader<R> {
    from: R,
    hash: Sha256,
    at: u64,
    contents: Contents,
}

impl<R: Read> Reader<R> {
    /// Reads the header of an archive.
    pub fn new(from: R) -> Result<Self, ArchiveError> {
        let nothing = Contents { chain: ChainId(Hash::ZERO), first: Height(0), last: Height(0) };
        let mut reader = Self { from, hash: Sha256::new(), at: 0, contents: nothing };
        match reader.take::<16>() {
            Ok(magic) if magic == *MAGIC => {}
            Ok(magic) if magic == *MAGIC_1 => return Err(ArchiveError::Old),
            Err(ArchiveError::Io(error)) => return Err(error.into()),
            Ok(_) | Err(_) => return Err(ArchiveError::Foreign),
        }
        let chain = ChainId(Hash(reader.take()?));
        let first = Height(u64::from_le_bytes(reader.take()?));
        let last = Height(u64::from_le_bytes(reader.take()?));
        if first == Height(0) || first > last {
            return Err(ArchiveError::Heights { first, last });
        }
        reader.contents = Contents { chain, first, last };
        Ok(reader)
    }

    /// The content, as the header says.
    pub fn contents(&self) -> Contents {
        self.contents
    }

    /// Bytes read so far.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Reads the next block, or after all blocks the certificate of the last one.
    pub fn piece(&mut self) -> Result<Vec<u8>, ArchiveError> {
        let at = self.at;
        let length = u32::from_le_bytes(self.take()?);
        if length as usize > VALUE_BYTES_MAX {
            return Err(ArchiveError::Length { at, length });
        }
        // The buffer grows with the bytes that arrive, not with the claimed length.
        let mut bytes = Vec::new();
        let read = (&mut self.from).take(length.into()).read_to_end(&mut bytes)?;
        self.at += read as u64;
        self.hash.update(&bytes);
        if read < length as usize {
            Err(ArchiveError::Truncated { at: self.at })
        } else {
            Ok(bytes)
        }
    }

    /// Checks the hash and the end, once all pieces are read.
    pub fn finish(mut self) -> Result<(), ArchiveError> {
        let expected: [u8; 32] = self.hash.clone().finalize().into();
        if self.take::<32>()? != expected {
            return Err(ArchiveError::Checksum);
        }
        match self.from.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(ArchiveError::Trailing),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ArchiveError> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveError::Truncated { at: self.at },
            _ => error.into(),
        })?;
        self.at += N as u64;
        self.hash.update(bytes);
        Ok(bytes)
    }
}

/// Reads a whole archive to check it for damage. Returns its content.
pub fn check(from: impl Read) -> Result<Contents, ArchiveError> {
    let mut reader = Reader::new(from)?;
    let contents = reader.contents();
    // One piece for each block, and the certificate.
    for _ in contents.first.0..=contents.last.0 {
        reader.piece()?;
    }
    reader.piece()?;
    reader.finish()?;
    Ok(contents)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const CONTENTS: Contents =
        Contents { chain: ChainId(Hash([7; 32])), first: Height(3), last: Height(4) };

    fn archive() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), CONTENTS).unwrap();
        for piece in [&b"block three"[..], b"block four", b"certificate"] {
            writer.piece(piece).unwrap();
        }
        let (archive, bytes) = writer.finish().unwrap();
        assert_eq!(bytes, archive.len() as u64);
        archive
    }

    #[test]
    fn reads_what_was_written() {
        let bytes = archive();
        assert_eq!(check(&bytes[..]).unwrap(), CONTENTS);
        let mut reader = Reader::new(&bytes[..]).unwrap();
        assert_eq!(reader.piece().unwrap(), b"block three");
        assert_eq!(reader.at(), 16 + 32 + 16 + 4 + 11);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_found() {
        let bytes = archive();
        for length in 0..bytes.len() {
            assert!(matches!(
                check(&bytes[..length]),
                Err(ArchiveError::Truncated { .. } | ArchiveError::Foreign)
            ));
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert!(check(&bad[..]).is_err(), "byte {at} bit {bit}");
            }
        }
        assert!(matches!(check(&[&bytes[..], &[0]].concat()[..]), Err(ArchiveError::Trailing)));
        let mut old = bytes;
        old[14] = b'1';
        assert!(check(&old[..]).unwrap_err().to_string().contains("made by cairn 0.1"));
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let mut bytes = archive();
        bytes[64..68].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(
            check(&bytes[..]),
            Err(ArchiveError::Length { at: 64, length: u32::MAX })
        ));
    }
}
