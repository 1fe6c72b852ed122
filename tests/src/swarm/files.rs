//! Made-up files: hashes that prove each other, with no bytes behind them.

use std::collections::{BTreeMap, BTreeSet};

use ledger::file::{FILE_BYTES_MAX, FileDescriptor, FileHead, SEGMENT_CHUNKS, segment_leaf};
use ledger::hash::{Domain, FileId, Hash};
use ledger::merkle::MerkleTree;
use ledger::units::SegmentIndex;
use protocol::swarm::message::ChunkId;
use protocol::swarm::{ByteRange, HeldFile, SegmentRange, SegmentRanges, file_chunk};

/// A made-up file.
#[derive(Debug)]
pub struct MadeFile {
    /// Its name.
    pub id: FileId,
    /// Its length and root.
    pub descriptor: FileDescriptor,
    hashes: Vec<Hash>,
    tree: MerkleTree,
}

impl MadeFile {
    /// A file of this length. Another number gives another file.
    ///
    /// # Panics
    /// When the file is longer than files may be.
    #[must_use]
    pub fn new(length: u64, number: u64) -> Self {
        assert!(length <= FILE_BYTES_MAX, "a file of {length} bytes");
        let chunks = FileDescriptor { length, root: Hash::ZERO }.chunks();
        let hash = |at: u64| Hash::of(Domain::Chunk, &[&number.to_le_bytes(), &at.to_le_bytes()]);
        let hashes: Vec<Hash> = (0..chunks).map(hash).collect();
        let leaves: Vec<Hash> = hashes.chunks(SEGMENT_CHUNKS as usize).map(segment_leaf).collect();
        let tree = MerkleTree::new(&leaves);
        let descriptor = FileDescriptor { length, root: tree.root() };
        Self { id: descriptor.id(), descriptor, hashes, tree }
    }

    /// The head of a segment; `None` if there is no such segment.
    #[must_use]
    pub fn head(&self, segment: SegmentIndex) -> Option<FileHead> {
        let range = self.descriptor.segment_chunks(segment.0)?;
        let chunks = self.hashes[range.start as usize..range.end as usize].to_vec();
        let path = self.tree.prove(usize::try_from(segment.0).ok()?)?;
        Some(FileHead { descriptor: self.descriptor, chunks, path })
    }

    /// Hash and length of a chunk; `None` if there is no such chunk.
    #[must_use]
    pub fn chunk(&self, id: ChunkId) -> Option<(Hash, u64)> {
        let chunk = file_chunk(id)?;
        let hash = self.hashes.get(usize::try_from(chunk).ok()?)?;
        Some((*hash, self.descriptor.chunk_bytes(chunk)))
    }

    /// What a node holds that has all of it.
    #[must_use]
    pub fn whole(&self) -> HeldFile {
        let whole = SegmentRanges::before(SegmentIndex(self.descriptor.segments()));
        HeldFile { id: self.id, descriptor: Some(self.descriptor), whole, begun: Vec::new() }
    }

    /// The chunks that a part of it needs.
    #[must_use]
    pub fn chunks_of(&self, range: ByteRange) -> BTreeSet<u64> {
        let segments = self.descriptor.segments_of(range.first, range.last).unwrap_or(0..0);
        segments.filter_map(|segment| self.descriptor.segment_chunks(segment)).flatten().collect()
    }
}

/// A file on a node's disk.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) heads: BTreeMap<u64, FileHead>,
    pub(super) here: BTreeSet<u64>,
    /// Whether the machine has said that all that was wanted is here, since it started.
    pub(super) is_done: bool,
}

impl Part {
    /// What the node holds of a file after a start.
    pub(super) fn held(&self, id: FileId) -> HeldFile {
        let descriptor = self.heads.values().next().map(|head| head.descriptor);
        let mut held = HeldFile { id, descriptor, whole: SegmentRanges::default(), begun: vec![] };
        for (index, head) in &self.heads {
            let first = index * SEGMENT_CHUNKS;
            let here: Vec<bool> =
                (first..).take(head.chunks.len()).map(|chunk| self.here.contains(&chunk)).collect();
            let segment = SegmentIndex(*index);
            match here.iter().all(|is_here| *is_here) {
                true => held.whole.insert(SegmentRange { first: segment, last: segment }),
                false => held.begun.push((head.clone(), here)),
            }
        }
        held
    }
}
