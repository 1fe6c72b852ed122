//! Private files: the command seals a file before the node gets a byte of it, and opens it after.
//!
//! The plaintext is cut into *pieces* of [`PIECE_BYTES`], and each piece is sealed into exactly one
//! chunk by XChaCha20-Poly1305. So any piece can be opened alone, once its chunk is here. The last
//! piece may be shorter; an empty file has one empty piece. The nonce is the number of the piece
//! and a flag that marks the last one, and the associated data is the version and the length of the
//! plaintext. So a piece that was changed, moved or taken from another file does not open, and a
//! file that was cut or extended has no piece that opens. Nonces repeat only under the same key,
//! and each file has a new key.
//!
//! Format: `docs/protocol/links.md`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ledger::file::CHUNK_BYTES;
use ledger::link::LinkKey;

/// Bytes by which a sealed piece is longer than its plaintext.
const TAG_BYTES: u64 = 16;
/// Bytes of a piece, so that a sealed one has the length of a chunk.
pub(super) const PIECE_BYTES: u64 = CHUNK_BYTES - TAG_BYTES;
/// Version of the format, which is part of the associated data.
const VERSION: u8 = 1;

/// Why a file cannot be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SealError {
    /// No sealed file can have this length.
    #[error("no private file has {sealed} bytes: is this link's key for another file?")]
    Length {
        /// Bytes of the file.
        sealed: u64,
    },
    /// A piece does not open.
    #[error("piece {index} does not open: the key of the link is wrong")]
    Piece {
        /// Number of the piece, from 0.
        index: u64,
    },
}

/// The pieces of one file, under its key.
pub(super) struct Pieces {
    cipher: XChaCha20Poly1305,
    /// Bytes of the plaintext.
    plain: u64,
}

impl Pieces {
    /// The pieces of a plaintext that is `plain` bytes long.
    pub(super) fn of_plain(key: &LinkKey, plain: u64) -> Self {
        Self { cipher: XChaCha20Poly1305::new((&key.0).into()), plain }
    }

    /// The pieces of a sealed file that is `sealed` bytes long.
    ///
    /// # Errors
    /// `SealError::Length`.
    pub(super) fn of_sealed(key: &LinkKey, sealed: u64) -> Result<Self, SealError> {
        let tags = sealed.div_ceil(CHUNK_BYTES).saturating_mul(TAG_BYTES);
        let pieces = sealed.checked_sub(tags).map(|plain| Self::of_plain(key, plain));
        pieces.filter(|pieces| pieces.sealed() == sealed).ok_or(SealError::Length { sealed })
    }

    /// Bytes of the plaintext.
    pub(super) const fn plain(&self) -> u64 {
        self.plain
    }

    /// Number of pieces, which is the number of chunks of the sealed file.
    pub(super) fn count(&self) -> u64 {
        self.plain.div_ceil(PIECE_BYTES).max(1)
    }

    /// Bytes of the sealed file.
    pub(super) fn sealed(&self) -> u64 {
        self.plain.saturating_add(self.count().saturating_mul(TAG_BYTES))
    }

    /// Seals the plaintext of a piece in place.
    ///
    /// # Panics
    /// If the plaintext has more bytes than a piece.
    pub(super) fn seal(&self, index: u64, piece: &mut Vec<u8>) {
        assert!(piece.len() as u64 <= PIECE_BYTES, "a piece fits into a chunk");
        match self.cipher.encrypt_in_place(&self.nonce(index), &self.data(), piece) {
            Ok(()) => {}
            Err(_) => panic!("the cipher refuses only texts of 256 GiB and more"),
        }
    }

    /// Opens a sealed piece in place. Its tag is checked before a byte is decrypted.
    ///
    /// # Errors
    /// `SealError::Piece`; then `piece` holds no plaintext.
    pub(super) fn open(&self, index: u64, piece: &mut Vec<u8>) -> Result<(), SealError> {
        let opened = self.cipher.decrypt_in_place(&self.nonce(index), &self.data(), piece);
        opened.map_err(|_| SealError::Piece { index })
    }

    /// Seals a whole file, piece after piece. `sealed` is given the number of bytes of plaintext
    /// sealed so far.
    ///
    /// # Errors
    /// Those of reading and writing; `InvalidData` if the plaintext has another length.
    pub(super) fn seal_all(
        &self,
        mut from: impl Read,
        mut to: impl Write,
        mut sealed: impl FnMut(u64),
    ) -> io::Result<()> {
        let changed = || io::Error::new(io::ErrorKind::InvalidData, "it changed while it was read");
        let mut piece = Vec::new();
        let mut done = 0;
        for index in 0..self.count() {
            piece.clear();
            let wanted = PIECE_BYTES.min(self.plain.saturating_sub(done));
            from.by_ref().take(wanted).read_to_end(&mut piece)?;
            if piece.len() as u64 != wanted {
                return Err(changed());
            }
            self.seal(index, &mut piece);
            to.write_all(&piece)?;
            done = done.saturating_add(wanted);
            sealed(done);
        }
        if from.read(&mut [0])? > 0 { Err(changed()) } else { Ok(()) }
    }

    /// Opens the pieces that hold a range of the plaintext, and writes the range to its place in
    /// `to`. `opened` is given the number of bytes written so far.
    ///
    /// # Errors
    /// Those of reading and writing; `InvalidData` with a [`SealError`] for a piece that does not
    /// open.
    pub(super) fn open_range(
        &self,
        from: &File,
        to: &File,
        range: Range<u64>,
        mut opened: impl FnMut(u64),
    ) -> io::Result<()> {
        let end = range.end.min(self.plain);
        // The one piece of an empty file is opened too: it proves that the key is right.
        let pieces = range.start / PIECE_BYTES..end.div_ceil(PIECE_BYTES).max(1);
        let mut done = 0;
        for index in pieces {
            let start = index.saturating_mul(PIECE_BYTES);
            let length = PIECE_BYTES.min(self.plain.saturating_sub(start));
            let mut piece = vec![0; usize::try_from(length + TAG_BYTES).unwrap_or(usize::MAX)];
            from.read_exact_at(&mut piece, index.saturating_mul(CHUNK_BYTES))?;
            self.open(index, &mut piece)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let first = range.start.max(start);
            let part = start.abs_diff(first)..start.abs_diff(end.min(start + length));
            let bytes = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
            let part = &piece[bytes(part.start)..bytes(part.end)];
            to.write_all_at(part, first)?;
            done += part.len() as u64;
            opened(done);
        }
        Ok(())
    }

    /// Number of the piece, little-endian, then 1 for the last piece, then zeros.
    fn nonce(&self, index: u64) -> XNonce {
        let mut nonce = [0; 24];
        nonce[..8].copy_from_slice(&index.to_le_bytes());
        nonce[8] = u8::from(index.saturating_add(1) == self.count());
        XNonce::from(nonce)
    }

    /// Version, then the length of the plaintext, little-endian.
    fn data(&self) -> [u8; 9] {
        let mut data = [VERSION; 9];
        data[1..].copy_from_slice(&self.plain.to_le_bytes());
        data
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde::Deserialize;
    use sha2::{Digest, Sha256};

    use super::*;

    const PIECE: usize = PIECE_BYTES as usize;
    const CHUNK: usize = CHUNK_BYTES as usize;

    fn key() -> LinkKey {
        LinkKey([7; 32])
    }

    /// The plaintext of the vectors.
    fn plaintext(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 31 % 251) as u8).collect()
    }

    fn sealed(key: &LinkKey, plain: &[u8]) -> Vec<u8> {
        let pieces = Pieces::of_plain(key, plain.len() as u64);
        let (mut sealed, mut told) = (Vec::new(), 0);
        pieces.seal_all(plain, &mut sealed, |done| told = done).unwrap();
        assert_eq!((told, sealed.len() as u64), (plain.len() as u64, pieces.sealed()));
        sealed
    }

    fn file(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    fn content(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    /// The plaintext of a sealed file, or why it does not open.
    fn opened(key: &LinkKey, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let pieces =
            Pieces::of_sealed(key, bytes.len() as u64).map_err(|error| error.to_string())?;
        let to = file(&[]);
        pieces
            .open_range(&file(bytes), &to, 0..pieces.plain(), |_| {})
            .map_err(|error| error.to_string())?;
        Ok(content(&to))
    }

    /// The vectors were made by `tests/vectors/private.py`, an independent implementation.
    #[test]
    fn sealed_files_are_those_of_the_vectors() {
        #[derive(Deserialize)]
        struct Row {
            key: String,
            plain_bytes: String,
            sealed_sha256: Vec<String>,
            sealed: Option<String>,
        }
        let rows: Vec<Row> =
            serde_json::from_str(include_str!("../../../../tests/vectors/private.json")).unwrap();
        assert_eq!(rows.len(), 6);
        for row in rows {
            let key = LinkKey(hex::decode(row.key).unwrap().try_into().unwrap());
            let plain = plaintext(row.plain_bytes.parse().unwrap());
            let sealed = sealed(&key, &plain);
            let hashes = sealed.chunks(CHUNK).map(|chunk| hex::encode(Sha256::digest(chunk)));
            assert_eq!(hashes.collect::<Vec<_>>(), row.sealed_sha256, "{}", plain.len());
            row.sealed.iter().for_each(|text| assert_eq!(hex::encode(&sealed), *text));
            assert_eq!(opened(&key, &sealed), Ok(plain));
        }
    }

    #[test]
    fn a_piece_has_the_length_of_a_chunk_and_lengths_say_how_many_there_are() {
        let piece = PIECE_BYTES;
        for (plain, sealed, count) in [
            (0, 16, 1),
            (1, 17, 1),
            (piece, CHUNK_BYTES, 1),
            (piece + 1, CHUNK_BYTES + 17, 2),
            (75_000_000_000, 75_000_000_000 + 16 * 572_275, 572_275),
        ] {
            for pieces in
                [Pieces::of_plain(&key(), plain), Pieces::of_sealed(&key(), sealed).unwrap()]
            {
                let found = (pieces.plain(), pieces.sealed(), pieces.count());
                assert_eq!(found, (plain, sealed, count));
            }
        }
        for sealed in [0, 1, 15, CHUNK_BYTES + 1, CHUNK_BYTES + 16, 2 * CHUNK_BYTES + 16] {
            let error = Pieces::of_sealed(&key(), sealed).err();
            assert_eq!(error, Some(SealError::Length { sealed }));
        }
    }

    #[test]
    fn a_range_comes_to_its_place_and_nothing_else() {
        let plain = plaintext(3 * PIECE + 9);
        let sealed = sealed(&key(), &plain);
        let pieces = Pieces::of_sealed(&key(), sealed.len() as u64).unwrap();
        for (first, end) in [
            (0, 1),
            (5, PIECE),
            (PIECE - 1, PIECE + 1),
            (PIECE, 2 * PIECE),
            (PIECE + 7, 3 * PIECE + 9),
            (3 * PIECE + 8, 3 * PIECE + 9),
        ] {
            let (to, mut told) = (file(&[]), 0);
            // Pieces that the range does not touch may be missing.
            let mut partly = vec![0; sealed.len()];
            let touched = first / PIECE * CHUNK..(end.div_ceil(PIECE) * CHUNK).min(sealed.len());
            partly[touched.clone()].copy_from_slice(&sealed[touched]);
            let range = first as u64..end as u64;
            pieces.open_range(&file(&partly), &to, range, |done| told = done).unwrap();
            assert_eq!(told, (end - first) as u64);
            let got = content(&to);
            assert_eq!((&got[first..], got.len()), (&plain[first..end], end));
            assert!(got[..first].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn changed_swapped_cut_and_extended_files_do_not_open() {
        let plain = plaintext(3 * PIECE + 100);
        let good = sealed(&key(), &plain);
        assert_eq!(opened(&key(), &good), Ok(plain.clone()));
        let refused = |what: &str, bytes: &[u8]| {
            let error = opened(&key(), bytes).expect_err(what);
            let is_named = error.contains("does not open") || error.contains("no private file");
            assert!(is_named, "{what}: {error}");
        };
        for at in [0, 1, CHUNK - 17, CHUNK - 16, CHUNK - 1, CHUNK, good.len() - 1] {
            let mut changed = good.clone();
            changed[at] ^= 1;
            refused("changed", &changed);
        }
        let mut swapped = good.clone();
        swapped[..2 * CHUNK].rotate_left(CHUNK);
        refused("swapped", &swapped);
        refused("without its last piece", &good[..3 * CHUNK]);
        refused("with a shorter last piece", &good[..good.len() - 1]);
        refused("without its first piece", &good[CHUNK..]);
        refused("with a byte more", &[&good[..], &[0]].concat());
        refused("with a piece twice", &[&good[..CHUNK], &good[..]].concat());
        let other = sealed(&key(), &plaintext(3 * PIECE + 101));
        refused("with a piece of another file", &[&other[..CHUNK], &good[CHUNK..]].concat());
        assert!(opened(&LinkKey([8; 32]), &good).unwrap_err().contains("the key"));
        // An empty file proves its key too.
        let empty = sealed(&key(), &[]);
        assert_eq!(opened(&key(), &empty), Ok(Vec::new()));
        assert!(opened(&LinkKey([8; 32]), &empty).is_err());
    }

    #[test]
    fn a_file_that_changes_its_length_while_it_is_read_is_refused() {
        let pieces = Pieces::of_plain(&key(), 100);
        for length in [99, 101] {
            let error = pieces.seal_all(&plaintext(length)[..], Vec::new(), |_| {}).unwrap_err();
            assert!(error.to_string().contains("changed"), "{length}");
        }
    }
}
