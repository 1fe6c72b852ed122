//! The index file of a sealed segment: all that is stored about the segment beside its blocks. It
//! is written once, when the segment is sealed.
//!
//! | Part | Bytes |
//! |---|---|
//! | descriptor | 128 |
//! | number of chunks, number of entries | 8 each |
//! | hash of each chunk | 32 each |
//! | where each block ends in the bytes of the segment | 8 each |
//! | hash of each block | 32 each |
//! | fences: `start` of every 256th entry, beginning with the first | 8 each |
//! | run: sorted entries, as `start`, block of the segment from 0, index in the block | 16 each |
//!
//! All numbers are little-endian. A search reads the fences and one piece of the run.

use std::ops::Range;
use std::path::Path;

use crate::codec;
use crate::hash::Hash;
use crate::history::{SealedSegment, SegmentDescriptor};
use crate::store::index::Entry;
use crate::store::pages::{self, Name, Pages};
use crate::store::{StoreError, schema};
use crate::units::Height;

const DESCRIPTOR_BYTES: u64 = 128;
const HEAD_BYTES: u64 = DESCRIPTOR_BYTES + 16;
const HASH_BYTES: u64 = 32;
const NUMBER_BYTES: u64 = 8;
const ENTRY_BYTES: usize = 16;
/// Entries between two fences: those of a page. With fewer the fences of a segment would take more
/// pages, with more a search would read more of the run.
const FENCE_ENTRIES: usize = 256;

/// Writes the index file of a segment and makes it durable except for its name. `run` has the
/// entries of all blocks of the segment, sorted.
pub(super) fn write(
    history: &Path,
    segment: &SealedSegment,
    run: &[Entry],
) -> Result<(), StoreError> {
    let SealedSegment { descriptor, chunks, blocks, ends } = segment;
    let mut content = codec::encode(descriptor);
    content.extend((chunks.len() as u64).to_le_bytes());
    content.extend((run.len() as u64).to_le_bytes());
    content.extend(chunks.iter().flat_map(|hash| hash.0));
    content.extend(ends.iter().flat_map(|end| end.to_le_bytes()));
    content.extend(blocks.iter().flat_map(|hash| hash.0));
    content.extend(run.iter().step_by(FENCE_ENTRIES).flat_map(|entry| entry.start.to_le_bytes()));
    for entry in run {
        let block = entry.height.0.saturating_sub(descriptor.first.0);
        let block = u32::try_from(block).unwrap_or(u32::MAX);
        content.extend(entry.start.to_le_bytes());
        content.extend(block.to_le_bytes());
        content.extend(entry.index.to_le_bytes());
    }
    pages::write(history, Name::Index(descriptor.index), 0, &content)
}

/// An open index file.
pub(super) struct SegmentIndex {
    file: Pages,
    name: Name,
    descriptor: SegmentDescriptor,
    chunks: u64,
    blocks: u64,
    entries: u64,
}

impl SegmentIndex {
    pub(super) fn open(history: &Path, segment: u64) -> Result<Self, StoreError> {
        let name = Name::Index(segment);
        let file = Pages::open(history, name)?;
        let head = file.read(0..HEAD_BYTES)?;
        let (descriptor, chunks, entries): (SegmentDescriptor, u64, u64) =
            schema::decode(name, &head)?;
        match descriptor.block_count() {
            Some(blocks) if descriptor.index == segment => {
                Ok(Self { file, name, descriptor, chunks, blocks, entries })
            }
            _ => Err(StoreError::corrupt(name, "is of another segment")),
        }
    }

    pub(super) const fn descriptor(&self) -> &SegmentDescriptor {
        &self.descriptor
    }

    /// Where a block lies in the bytes of the segment; `block` counts from 0.
    pub(super) fn block_range(&self, block: u64) -> Result<Range<u64>, StoreError> {
        let before = block.saturating_sub(1);
        let part = self.ends();
        let from = part.start.saturating_add(before.saturating_mul(NUMBER_BYTES));
        let to = part.start.saturating_add(block.saturating_add(1).saturating_mul(NUMBER_BYTES));
        let range = match numbers(&self.file.read(from..to)?)[..] {
            [end] => Some(0..end),
            [start, end] => Some(start..end),
            _ => None,
        };
        range
            .filter(|range| range.start <= range.end && range.end <= self.descriptor.bytes)
            .ok_or_else(|| {
                StoreError::corrupt(self.name, format_args!("block {block} has no place"))
            })
    }

    pub(super) fn chunks(&self) -> Result<Vec<Hash>, StoreError> {
        Ok(hashes(&self.file.read(self.chunk_hashes())?))
    }

    /// The whole segment, without its run.
    pub(super) fn segment(&self) -> Result<SealedSegment, StoreError> {
        Ok(SealedSegment {
            descriptor: self.descriptor,
            chunks: self.chunks()?,
            ends: numbers(&self.file.read(self.ends())?),
            blocks: hashes(&self.file.read(self.block_hashes())?),
        })
    }

    /// All entries of the run.
    pub(super) fn run(&self) -> Result<Vec<Entry>, StoreError> {
        self.part_of_run(0, self.entries)
    }

    /// The entries with this `start`.
    pub(super) fn find(&self, start: u64) -> Result<Vec<Entry>, StoreError> {
        let fences: Vec<u64> = numbers(&self.file.read(self.fences())?);
        // Entries with the same `start` may lie on both sides of a fence.
        let first = fences.partition_point(|fence| *fence < start).saturating_sub(1);
        let last = fences.partition_point(|fence| *fence <= start);
        let place = |fence: usize| (fence.saturating_mul(FENCE_ENTRIES) as u64).min(self.entries);
        let mut found = self.part_of_run(place(first), place(last))?;
        found.retain(|entry| entry.start == start);
        Ok(found)
    }

    /// Checks every page, and that the fences are those of the run. Returns the number of pages
    /// and bytes.
    pub(super) fn check(&self) -> Result<(u64, u64), StoreError> {
        let bytes = self.entries_at(self.entries);
        let pages = self.file.check(bytes)?;
        let fences: Vec<u64> = numbers(&self.file.read(self.fences())?);
        let run = self.run()?;
        if !run.iter().step_by(FENCE_ENTRIES).map(|entry| entry.start).eq(fences) {
            return Err(StoreError::corrupt(self.name, "its fences are not those of its run"));
        }
        Ok((pages, bytes))
    }

    fn part_of_run(&self, first: u64, last: u64) -> Result<Vec<Entry>, StoreError> {
        let bytes = self.file.read(self.entries_at(first)..self.entries_at(last))?;
        let (entries, _) = bytes.as_chunks::<ENTRY_BYTES>();
        let entry = |bytes: &[u8; ENTRY_BYTES]| {
            let [a, b, c, d, e, f, g, h, block @ .., i, j, k, l] = *bytes;
            let block = u32::from_le_bytes(block);
            Entry {
                start: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
                height: Height(self.descriptor.first.0.saturating_add(block.into())),
                index: u32::from_le_bytes([i, j, k, l]),
            }
        };
        Ok(entries.iter().map(entry).collect())
    }

    fn chunk_hashes(&self) -> Range<u64> {
        part(HEAD_BYTES, self.chunks, HASH_BYTES)
    }

    fn ends(&self) -> Range<u64> {
        part(self.chunk_hashes().end, self.blocks, NUMBER_BYTES)
    }

    fn block_hashes(&self) -> Range<u64> {
        part(self.ends().end, self.blocks, HASH_BYTES)
    }

    fn fences(&self) -> Range<u64> {
        let fences = self.entries.div_ceil(FENCE_ENTRIES as u64);
        part(self.block_hashes().end, fences, NUMBER_BYTES)
    }

    /// Where entry `number` begins.
    fn entries_at(&self, number: u64) -> u64 {
        part(self.fences().end, number, ENTRY_BYTES as u64).end
    }
}

fn part(start: u64, count: u64, bytes: u64) -> Range<u64> {
    start..start.saturating_add(count.saturating_mul(bytes))
}

fn numbers(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|number| u64::from_le_bytes(*number)).collect()
}

fn hashes(bytes: &[u8]) -> Vec<Hash> {
    bytes.as_chunks().0.iter().map(|hash| Hash(*hash)).collect()
}
