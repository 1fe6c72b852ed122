//! Which chunks of a file are here.

use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;

use ledger::file::{CHUNK_BYTES, FileDescriptor, SEGMENT_CHUNKS};
use ledger::units::SegmentIndex;
use protocol::swarm::{SegmentRange, SegmentRanges};

/// Bytes on disk of a segment's bits, one for each chunk, little-endian.
const SEGMENT_BITS_BYTES: u64 = SEGMENT_CHUNKS / 8;

/// Which chunks of a file are here: 128 bits for each segment, so 1 bit for 128 KiB.
///
/// `ID.chunks` on disk has the same bits. A bit is written after the bytes of its chunk, and each
/// write is one call, so a crash of the process loses neither. A crash of the machine may lose
/// either: see [`Meta::boot`](super::meta::Meta::boot).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Here {
    file: FileDescriptor,
    segments: Vec<u128>,
}

impl Here {
    /// No chunk of a file.
    pub(super) fn none(file: FileDescriptor) -> Self {
        let segments = vec![0; usize::try_from(file.segments()).unwrap_or(usize::MAX)];
        Self { file, segments }
    }

    /// All chunks of a file.
    pub(super) fn all(file: FileDescriptor) -> Self {
        let mut all = Self::none(file);
        (0..).zip(&mut all.segments).for_each(|(segment, bits)| *bits = existing(&file, segment));
        all
    }

    /// Reads the bits from disk. Chunks whose bits are missing there are not here.
    pub(super) fn read(from: &File, file: FileDescriptor) -> io::Result<Self> {
        let mut here = Self::none(file);
        for (segment, bits) in (0..).zip(&mut here.segments) {
            let mut bytes = [0; SEGMENT_BITS_BYTES as usize];
            match from.read_exact_at(&mut bytes, segment * SEGMENT_BITS_BYTES) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                read => read?,
            }
            *bits = u128::from_le_bytes(bytes) & existing(&file, segment);
        }
        Ok(here)
    }

    /// Writes the bits of the segment that holds a chunk.
    pub(super) fn write(&self, to: &File, chunk: u64) -> io::Result<()> {
        let segment = chunk / SEGMENT_CHUNKS;
        to.write_all_at(&self.segment(segment).to_le_bytes(), segment * SEGMENT_BITS_BYTES)
    }

    /// The chunks of a segment that are here: bit `n` is its chunk `n`.
    fn segment(&self, segment: u64) -> u128 {
        let index = usize::try_from(segment).unwrap_or(usize::MAX);
        self.segments.get(index).copied().unwrap_or_default()
    }

    pub(super) fn has(&self, chunk: u64) -> bool {
        self.segment(chunk / SEGMENT_CHUNKS) & bit(chunk) != 0
    }

    /// Sets whether a chunk is here. Ignores a chunk that the file does not have.
    pub(super) fn set(&mut self, chunk: u64, is_here: bool) {
        let index = usize::try_from(chunk / SEGMENT_CHUNKS).unwrap_or(usize::MAX);
        let Some(bits) = self.segments.get_mut(index).filter(|_| chunk < self.file.chunks()) else {
            return;
        };
        match is_here {
            true => *bits |= bit(chunk),
            false => *bits &= !bit(chunk),
        }
    }

    /// The segments of which all chunks are here.
    pub(super) fn whole(&self) -> SegmentRanges {
        let mut whole = SegmentRanges::default();
        for (segment, bits) in (0..).zip(&self.segments) {
            if *bits == existing(&self.file, segment) {
                let segment = SegmentIndex(segment);
                whole.insert(SegmentRange { first: segment, last: segment });
            }
        }
        whole
    }

    /// The segments of which some chunks are here, with a flag for each of their chunks.
    pub(super) fn begun(&self) -> impl Iterator<Item = (u64, Vec<bool>)> {
        (0..).zip(&self.segments).filter_map(|(segment, bits)| {
            let chunks = self.file.segment_chunks(segment)?;
            let is_begun = *bits != 0 && *bits != existing(&self.file, segment);
            is_begun.then(|| (segment, chunks.map(|chunk| bits & bit(chunk) != 0).collect()))
        })
    }

    /// Bytes of the chunks that are here and in these segments.
    pub(super) fn bytes(&self, within: &SegmentRanges) -> u64 {
        let bytes = |segment: u64| {
            let bits = self.segment(segment);
            let full = u64::from(bits.count_ones()).saturating_mul(CHUNK_BYTES);
            // Only the last chunk of the file may be shorter.
            let last = self.file.chunks().saturating_sub(1);
            let has_last = last / SEGMENT_CHUNKS == segment && bits & bit(last) != 0;
            let short = CHUNK_BYTES - self.file.chunk_bytes(last);
            if has_last { full - short } else { full }
        };
        segments(&self.file, within).flatten().map(bytes).sum()
    }
}

/// Bytes of the segments of a file that are in these ranges.
pub(super) fn bytes_of(file: &FileDescriptor, within: &SegmentRanges) -> u64 {
    segments(file, within).flatten().map(|segment| file.segment_bytes(segment)).sum()
}

/// The segments that a file has and that are in these ranges.
fn segments(
    file: &FileDescriptor,
    within: &SegmentRanges,
) -> impl Iterator<Item = RangeInclusive<u64>> {
    let last = file.segments().checked_sub(1);
    let cut = move |range: SegmentRange| {
        let last = range.last.0.min(last?);
        (range.first.0 <= last).then_some(range.first.0..=last)
    };
    within.iter().filter_map(cut)
}

const fn bit(chunk: u64) -> u128 {
    1 << (chunk % SEGMENT_CHUNKS)
}

/// The bits of the chunks that a segment has.
fn existing(file: &FileDescriptor, segment: u64) -> u128 {
    let count = file.segment_chunks(segment).map_or(0, |chunks| chunks.end - chunks.start);
    match SEGMENT_CHUNKS.checked_sub(count) {
        Some(missing @ 0..SEGMENT_CHUNKS) => u128::MAX >> missing,
        _ => 0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ledger::hash::Hash;

    use super::*;

    fn file(length: u64) -> FileDescriptor {
        FileDescriptor { length, root: Hash::ZERO }
    }

    fn range(first: u64, last: u64) -> SegmentRanges {
        let range = SegmentRange { first: SegmentIndex(first), last: SegmentIndex(last) };
        SegmentRanges::unchecked(vec![range])
    }

    #[test]
    fn bytes_here_are_counted_within_segments() {
        let long = file(300 * CHUNK_BYTES - 5);
        let mut here = Here::none(long);
        assert_eq!(here.bytes(&range(0, u64::MAX)), 0);
        for chunk in [0, 127, 128, 255, 299, 300, 383, u64::MAX] {
            here.set(chunk, true);
        }
        for (segments, bytes) in [
            (range(0, u64::MAX), 5 * CHUNK_BYTES - 5),
            (range(0, 0), 2 * CHUNK_BYTES),
            (range(1, 1), 2 * CHUNK_BYTES),
            (range(1, 2), 3 * CHUNK_BYTES - 5),
            (range(2, 9), CHUNK_BYTES - 5),
            (range(3, 9), 0),
        ] {
            assert_eq!(here.bytes(&segments), bytes, "{segments:?}");
        }
        here.set(128, false);
        assert!(here.has(127) && !here.has(128) && !here.has(300));
        assert_eq!(Here::all(long).bytes(&range(0, 2)), long.length);
        assert_eq!(bytes_of(&long, &range(0, u64::MAX)), long.length);
        assert_eq!(bytes_of(&long, &range(2, 2)), 44 * CHUNK_BYTES - 5);
        let empty = file(0);
        assert_eq!(Here::all(empty), Here::none(empty));
        assert_eq!((Here::all(empty).bytes(&range(0, 9)), bytes_of(&empty, &range(0, 9))), (0, 0));
    }

    #[test]
    fn segments_are_whole_or_begun_or_not_there() {
        let mut here = Here::none(file(258 * CHUNK_BYTES));
        (128..256).for_each(|chunk| here.set(chunk, true));
        assert_eq!((here.whole(), here.begun().count()), (range(1, 1), 0));
        here.set(256, true);
        here.set(5, true);
        let begun: Vec<_> = here.begun().collect();
        assert_eq!(begun.len(), 2);
        assert_eq!(begun[0].1.iter().filter(|is_here| **is_here).count(), 1);
        assert_eq!(begun[1], (2, vec![true, false]));
        here.set(257, true);
        assert_eq!(here.whole(), range(1, 2));
    }

    #[test]
    fn bits_on_disk_are_read_back_without_those_that_the_file_lacks() {
        let (long, disk) = (file(130 * CHUNK_BYTES), tempfile::tempfile().unwrap());
        let mut here = Here::none(long);
        for chunk in [5, 127, 129] {
            here.set(chunk, true);
            here.write(&disk, chunk).unwrap();
        }
        assert_eq!(Here::read(&disk, long).unwrap(), here);
        disk.write_all_at(&[0xff; 32], 0).unwrap();
        assert_eq!(Here::read(&disk, long).unwrap(), Here::all(long));
        disk.set_len(20).unwrap();
        let cut = Here::read(&disk, long).unwrap();
        assert!(cut.has(0) && !cut.has(128));
    }
}
