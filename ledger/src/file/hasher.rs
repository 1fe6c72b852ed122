//! Computes the hashes of a file from its bytes, in order.

use super::{
    CHUNK_BYTES, FILE_BYTES_MAX, FileDescriptor, FileError, SEGMENT_CHUNKS, chunk_hash,
    segment_leaf,
};
use crate::hash::Hash;
use crate::merkle::MerkleTree;

#[allow(clippy::cast_possible_truncation)] // Far below 2^32.
const CHUNK: usize = CHUNK_BYTES as usize;

static ZEROS: [u8; CHUNK] = [0; CHUNK];

/// Takes the bytes of a file in order, and makes its hashes.
///
/// A chunk of zeros is hashed once, however often it comes, so that a sparse file costs little more
/// than its data. Keeps less than one chunk of bytes, 32 bytes for each segment, and the chunk
/// hashes that [`Self::take_hashes`] has not taken: 256 bytes for each MiB.
#[derive(Clone, Debug)]
pub struct FileHasher {
    length: u64,
    /// Bytes after the last full chunk, always fewer than a chunk.
    tail: Vec<u8>,
    /// Hashes of the chunks of the segment that is not full yet.
    segment: Vec<Hash>,
    leaves: Vec<Hash>,
    /// Chunk hashes that were not taken yet.
    hashes: Vec<Hash>,
    /// Hash of a full chunk of zeros.
    zero: Hash,
}

/// A file whose bytes have all been hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedFile {
    /// Its length and root.
    pub descriptor: FileDescriptor,
    /// The tree over the leaves of its segments, which gives the path of each head.
    pub tree: MerkleTree,
    /// The last chunk hashes: those that [`FileHasher::take_hashes`] has not taken.
    pub hashes: Vec<Hash>,
}

impl Default for FileHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl FileHasher {
    /// A hasher before the first byte.
    #[must_use]
    pub fn new() -> Self {
        Self {
            length: 0,
            tail: Vec::new(),
            segment: Vec::new(),
            leaves: Vec::new(),
            hashes: Vec::new(),
            zero: chunk_hash(&ZEROS),
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        self.length = self.length.saturating_add(bytes.len() as u64);
        while let Some((head, rest)) = bytes.split_at_checked(CHUNK.saturating_sub(self.tail.len()))
        {
            if self.tail.is_empty() {
                self.push_chunk(head);
            } else {
                let mut chunk = std::mem::take(&mut self.tail);
                chunk.extend_from_slice(head);
                self.push_chunk(&chunk);
            }
            bytes = rest;
        }
        self.tail.extend_from_slice(bytes);
    }

    /// Takes this many bytes of zeros, such as those of a hole. Each whole chunk among them costs
    /// no hash operation. Holes of many GiB should come in pieces, with [`Self::take_hashes`]
    /// between them.
    pub fn push_zeros(&mut self, mut count: u64) {
        while count > 0 {
            let room = CHUNK.saturating_sub(self.tail.len());
            let part = usize::try_from(count).unwrap_or(CHUNK).min(room);
            self.push(&ZEROS[..part]);
            count = count.saturating_sub(part as u64);
        }
    }

    /// Hashes of the chunks that have become full since the last call, in order.
    #[must_use]
    pub fn take_hashes(&mut self) -> Vec<Hash> {
        std::mem::take(&mut self.hashes)
    }

    /// The file ends here.
    ///
    /// # Errors
    /// `FileError::TooLong`.
    pub fn finish(mut self) -> Result<HashedFile, FileError> {
        let length = self.length;
        if length > FILE_BYTES_MAX {
            return Err(FileError::TooLong { length });
        }
        let tail = std::mem::take(&mut self.tail);
        if !tail.is_empty() {
            self.push_chunk(&tail);
        }
        if !self.segment.is_empty() {
            self.leaves.push(segment_leaf(&self.segment));
        }
        let tree = MerkleTree::new(&self.leaves);
        let descriptor = FileDescriptor { length, root: tree.root() };
        Ok(HashedFile { descriptor, tree, hashes: self.hashes })
    }

    fn push_chunk(&mut self, bytes: &[u8]) {
        let hash = if bytes == ZEROS { self.zero } else { chunk_hash(bytes) };
        self.hashes.push(hash);
        self.segment.push(hash);
        if self.segment.len() as u64 == SEGMENT_CHUNKS {
            self.leaves.push(segment_leaf(&self.segment));
            self.segment.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_above_the_limit_is_refused() {
        let length = FILE_BYTES_MAX.saturating_sub(1);
        let mut hasher = FileHasher { length, ..FileHasher::new() };
        hasher.push(&[1]);
        assert!(hasher.clone().finish().is_ok());
        hasher.push(&[1]);
        let length = FILE_BYTES_MAX.saturating_add(1);
        assert_eq!(hasher.finish(), Err(FileError::TooLong { length }));
    }
}
