//! The hash list of a file on disk, `ID.heads`: what the heads of its segments are made of.
//!
//! Each segment has a slot of [`SLOT_BYTES`]: its chunk hashes, then the siblings of its path, both
//! filled up with zeros. The slot of a head that is not here is all zeros. The list of a file of 75
//! GB has 21 MB. There are no checksums: a head that is read is verified under the file's id.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use ledger::file::{FileDescriptor, FileHead, HashedFile, SEGMENT_BYTES, SEGMENT_CHUNKS};
use ledger::hash::Hash;
use ledger::merkle::MerkleProof;

const HASH_BYTES: u64 = 32;
/// Most siblings of a path: the longest file has 2^20 segments.
const SIBLINGS_MAX: u64 = 20;
/// Offset of the siblings in a slot.
const SIBLINGS_AT: u64 = SEGMENT_CHUNKS * HASH_BYTES;
const SLOT_BYTES: u64 = SIBLINGS_AT + SIBLINGS_MAX * HASH_BYTES;

/// Bytes of the list of a file of this length.
pub(super) const fn list_bytes(length: u64) -> u64 {
    length.div_ceil(SEGMENT_BYTES).saturating_mul(SLOT_BYTES)
}

/// The list of one file.
pub(super) struct Heads(File);

impl Heads {
    pub(super) const fn new(file: File) -> Self {
        Self(file)
    }

    /// Makes room for all slots of a file.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(super) fn make_room(&self, file: &FileDescriptor) -> io::Result<()> {
        self.0.set_len(file.segments().saturating_mul(SLOT_BYTES))
    }

    /// The head of a segment as it is on disk; `None` if it is not here, or is damaged.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(super) fn read(&self, file: &FileDescriptor, segment: u64) -> io::Result<Option<FileHead>> {
        let Some(range) = file.segment_chunks(segment) else { return Ok(None) };
        let mut slot = [0; SLOT_BYTES as usize];
        match self.0.read_exact_at(&mut slot, segment.saturating_mul(SLOT_BYTES)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let (hashes, _) = slot.as_chunks::<{ HASH_BYTES as usize }>();
        let (chunks, siblings) = hashes.split_at(SEGMENT_CHUNKS as usize);
        let hash = |bytes: &[u8; 32]| Hash(*bytes);
        let count = range.end.saturating_sub(range.start);
        let chunks = chunks.iter().take(usize::try_from(count).unwrap_or(usize::MAX)).map(hash);
        let siblings = siblings.iter().map(hash).take_while(|sibling| *sibling != Hash::ZERO);
        let path =
            MerkleProof { index: segment, count: file.segments(), siblings: siblings.collect() };
        let head = FileHead { descriptor: *file, chunks: chunks.collect(), path };
        Ok(head.verify(&file.id()).is_ok().then_some(head))
    }

    /// The hash of one chunk, unverified: zeros if it is not here.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(super) fn chunk(&self, chunk: u64) -> io::Result<Hash> {
        let mut hash = Hash::ZERO;
        match self.0.read_exact_at(&mut hash.0, place(chunk)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Hash::ZERO),
            read => read.map(|()| hash),
        }
    }

    /// Writes a verified head.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(super) fn write(&self, head: &FileHead) -> io::Result<()> {
        let segment = head.index();
        // The path goes first: without chunk hashes the head is not here.
        self.write_path(segment, &head.path)?;
        self.write_chunks(segment.saturating_mul(SEGMENT_CHUNKS), &head.chunks)
    }

    /// Writes the hashes of chunks that follow each other, from the chunk `first` on.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(super) fn write_chunks(&self, first: u64, hashes: &[Hash]) -> io::Result<()> {
        let mut next = first;
        let mut rest = hashes;
        while !rest.is_empty() {
            let room = SEGMENT_CHUNKS - next % SEGMENT_CHUNKS;
            let count = rest.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let (part, after) = rest.split_at(count);
            let bytes: Vec<u8> = part.iter().flat_map(|hash| hash.0).collect();
            self.0.write_all_at(&bytes, place(next))?;
            (next, rest) = (next.saturating_add(count as u64), after);
        }
        Ok(())
    }

    /// Writes the paths of all segments of a file whose chunk hashes are written, and makes the
    /// list durable.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(super) fn finish(&self, file: &HashedFile) -> io::Result<()> {
        self.make_room(&file.descriptor)?;
        for segment in 0..file.descriptor.segments() {
            let path = usize::try_from(segment).ok().and_then(|index| file.tree.prove(index));
            path.iter().try_for_each(|path| self.write_path(segment, path))?;
        }
        self.0.sync_all()
    }

    fn write_path(&self, segment: u64, path: &MerkleProof) -> io::Result<()> {
        let bytes: Vec<u8> = path.siblings.iter().flat_map(|hash| hash.0).collect();
        self.0.write_all_at(&bytes, segment.saturating_mul(SLOT_BYTES).saturating_add(SIBLINGS_AT))
    }
}

/// Offset of the hash of a chunk.
const fn place(chunk: u64) -> u64 {
    let slot = (chunk / SEGMENT_CHUNKS).saturating_mul(SLOT_BYTES);
    slot.saturating_add(chunk % SEGMENT_CHUNKS * HASH_BYTES)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ledger::file::{CHUNK_BYTES, FileHasher};

    use super::*;

    fn heads() -> Heads {
        Heads::new(tempfile::tempfile().unwrap())
    }

    #[test]
    fn heads_are_read_as_they_were_written_and_damaged_ones_are_not_there() {
        let mut hasher = FileHasher::new();
        let list = heads();
        let mut first = 0;
        for chunk in 0..259 {
            hasher.push(&vec![u8::try_from(chunk % 251).unwrap(); CHUNK_BYTES as usize]);
            if chunk % 50 == 0 {
                let hashes = hasher.take_hashes();
                list.write_chunks(first, &hashes).unwrap();
                first += hashes.len() as u64;
            }
        }
        hasher.push(&[9; 5]);
        let file = hasher.finish().unwrap();
        list.write_chunks(first, &file.hashes).unwrap();
        list.finish(&file).unwrap();
        let copy = heads();
        assert_eq!(copy.read(&file.descriptor, 0).unwrap(), None);
        copy.make_room(&file.descriptor).unwrap();
        for segment in 0..3 {
            let head = list.read(&file.descriptor, segment).unwrap().unwrap();
            head.verify(&file.descriptor.id()).unwrap();
            assert_eq!(copy.read(&file.descriptor, segment).unwrap(), None);
            copy.write(&head).unwrap();
            assert_eq!(copy.read(&file.descriptor, segment).unwrap(), Some(head.clone()));
            assert_eq!(copy.chunk(segment * 128 + 3).unwrap(), head.chunks[3]);
        }
        assert_eq!(list.read(&file.descriptor, 3).unwrap(), None);
        assert_eq!(list.chunk(100_000).unwrap(), Hash::ZERO);
        for offset in [0, SIBLINGS_AT - 1, SIBLINGS_AT, SIBLINGS_AT + 63] {
            let place = SLOT_BYTES + offset;
            let mut byte = [0];
            copy.0.read_exact_at(&mut byte, place).unwrap();
            copy.0.write_all_at(&[!byte[0]], place).unwrap();
            assert_eq!(copy.read(&file.descriptor, 1).unwrap(), None, "{offset}");
            copy.0.write_all_at(&byte, place).unwrap();
        }
        assert!(copy.read(&file.descriptor, 1).unwrap().is_some());
    }
}
