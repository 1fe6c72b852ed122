//! Which file has which block, and the reads of sealed segments as peers request them: descriptors,
//! chunk hashes, and chunks.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use crate::hash::{BlockHash, Hash};
use crate::history::{HistoryRules, SealedSegment, SegmentDescriptor};
use crate::merkle::{self, MerkleProof};
use crate::store::index::Entry;
use crate::store::kept::{Gaps, Kept};
use crate::store::pages::{self, ERA_SEGMENTS, Name, Pages};
use crate::store::segment_index::{self, SegmentIndex};
use crate::store::{Store, StoreError, filter};
use crate::units::Height;

/// Readers return `StoreError::Corrupt` if stored bytes are not what was written, or
/// `StoreError::Io`.
impl Store {
    /// A sealed segment by its index, from 0.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn segment(&self, index: u64) -> Result<Kept<SealedSegment>, StoreError> {
        self.of_segment(index, |files, descriptor| files.index(descriptor)?.segment())
    }

    /// Descriptors of the sealed segments from index `from` on whose blocks are all below the
    /// height `below`, but at most `max`. They are in memory, also those of segments that are not
    /// kept.
    #[must_use]
    pub fn descriptors(&self, from: u64, below: Height, max: usize) -> Vec<SegmentDescriptor> {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let view = self.read_view();
        let descriptors = view.segments.sealed.iter().skip(from).take(max);
        descriptors.take_while(|descriptor| descriptor.last < below).copied().collect()
    }

    /// Descriptor and chunk hashes of a sealed segment. Reads little more than their bytes.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn chunk_hashes(
        &self,
        index: u64,
    ) -> Result<Kept<(SegmentDescriptor, Vec<Hash>)>, StoreError> {
        self.of_segment(index, |files, descriptor| {
            Ok((*descriptor, files.index(descriptor)?.chunks()?))
        })
    }

    /// The bytes of a chunk of a sealed segment. Reads little more than these bytes. The checksums
    /// of their pages show that they are what was written.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn chunk(
        &self,
        segment: u64,
        chunk: u64,
        rules: &HistoryRules,
    ) -> Result<Kept<Vec<u8>>, StoreError> {
        let bytes = self.of_segment(segment, |files, descriptor| {
            let Some(range) = descriptor.chunk_range(chunk, rules) else { return Ok(None) };
            Pages::open(&files.history, Name::Blocks(segment))?.read(range).map(Some)
        });
        bytes?.try_and_then(|bytes| Ok(bytes.into()))
    }

    /// The hash of a block in a sealed segment, and the proof of it under the segment's
    /// `blocks_root`. Reads and hashes the hashes of all blocks of the segment.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn block_proof(
        &self,
        height: Height,
    ) -> Result<Kept<(BlockHash, MerkleProof)>, StoreError> {
        let place = self.read_view().segments.place(height);
        let Kept::Here(Place::Sealed(descriptor, block)) = place else {
            return Ok(if matches!(place, Kept::NotKept) { Kept::NotKept } else { Kept::Never });
        };
        let segment = self.segment(descriptor.index)?;
        segment.try_and_then(|segment| {
            let block = usize::try_from(block).unwrap_or(usize::MAX);
            let hash = segment.blocks.get(block).map(|hash| BlockHash(*hash));
            Ok(hash.zip(merkle::prove(&segment.blocks, block)).into())
        })
    }

    /// Which sealed segments are kept, as ranges of their indices, in order.
    #[must_use]
    pub fn kept(&self) -> Vec<RangeInclusive<u64>> {
        let view = self.read_view();
        view.segments.gaps.kept(view.segments.sealed.len() as u64)
    }

    /// Which blocks are kept, as ranges of their heights, in order.
    #[must_use]
    pub fn kept_heights(&self) -> Vec<RangeInclusive<Height>> {
        let view = self.read_view();
        view.segments.kept_heights(view.tip.height)
    }

    /// Reads from the files of a sealed segment.
    pub(super) fn of_segment<T>(
        &self,
        index: u64,
        read: impl FnOnce(&Files, &SegmentDescriptor) -> Result<T, StoreError>,
    ) -> Result<Kept<T>, StoreError> {
        let view = self.read_view();
        let descriptor = match view.segments.is_withdrawn(index) {
            true => Kept::NotKept,
            false => view.segments.sealed(index),
        };
        drop(view);
        descriptor.try_and_then(|descriptor| {
            self.unless_dropped(index, read(&self.shared.files, &descriptor))
        })
    }

    /// The result of a read from the files of a segment that was kept when the read began. If the
    /// segment was dropped meanwhile, a failure is no damage. Otherwise damage is remembered.
    pub(super) fn unless_dropped<T>(
        &self,
        segment: u64,
        read: Result<T, StoreError>,
    ) -> Result<Kept<T>, StoreError> {
        match read {
            Err(_) if !self.read_view().segments.gaps.keeps(segment) => Ok(Kept::NotKept),
            Err(error) if error.is_damage() => {
                self.lock_damaged().insert(segment / ERA_SEGMENTS);
                Err(error)
            }
            read => read.map(Kept::Here),
        }
    }

    /// The eras of which a read failed since the last call, because a file is damaged or missing.
    #[must_use]
    pub fn take_damaged_eras(&self) -> BTreeSet<u64> {
        std::mem::take(&mut self.lock_damaged())
    }

    fn lock_damaged(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.shared.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All segments of a chain.
#[derive(Debug, Default)]
pub(super) struct Segments {
    pub(super) sealed: Vec<SegmentDescriptor>,
    pub(super) gaps: Gaps,
    /// Eras that are kept and nobody is shown.
    pub(super) withdrawn: BTreeSet<u64>,
    pub(super) open: Open,
}

/// What is in memory of the open segment.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// Where each of its blocks ends in its bytes.
    pub(super) ends: Vec<u64>,
    /// Its last bytes, which do not fill a page yet. They are in the database, since a page of a
    /// file is written only once.
    pub(super) tail: Vec<u8>,
    /// The entries of its blocks.
    pub(super) entries: BTreeSet<Entry>,
}

impl Open {
    /// Length of its bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.ends.last().copied().unwrap_or_default()
    }

    /// The entries with this `start`.
    pub(super) fn find(&self, start: u64) -> Vec<Entry> {
        let least = Entry { start, height: Height(0), index: 0 };
        let same = self.entries.range(least..).take_while(|entry| entry.start == start);
        same.copied().collect()
    }
}

/// What blocks add to the segments.
#[derive(Debug, Default)]
pub(super) struct Growth {
    pub(super) sealed: Vec<SegmentDescriptor>,
    /// With `sealed` empty, what is added to the open segment, with its new tail. Otherwise the new
    /// open segment.
    pub(super) open: Open,
}

/// Where the bytes of a block are.
pub(super) enum Place {
    /// In a sealed segment, as this block of it, from 0.
    Sealed(SegmentDescriptor, u64),
    /// In this range of the open segment, of which `full` bytes are in its file and the others in
    /// `tail`.
    Open { segment: u64, range: Range<u64>, full: u64, tail: Vec<u8> },
}

impl Place {
    pub(super) const fn segment(&self) -> u64 {
        match self {
            Self::Sealed(descriptor, _) => descriptor.index,
            Self::Open { segment, .. } => *segment,
        }
    }
}

impl Segments {
    /// Whether every sealed segment is kept and shown.
    pub(super) fn is_whole(&self) -> bool {
        self.withdrawn.is_empty() && self.gaps.is_empty()
    }

    /// Whether a segment is in a withdrawn era.
    pub(super) fn is_withdrawn(&self, segment: u64) -> bool {
        self.withdrawn.contains(&(segment / ERA_SEGMENTS))
    }

    /// The descriptor of a sealed segment, if the segment is kept.
    fn sealed(&self, index: u64) -> Kept<SegmentDescriptor> {
        let number = usize::try_from(index).ok();
        match number.and_then(|number| self.sealed.get(number)) {
            Some(_) if !self.gaps.keeps(index) => Kept::NotKept,
            found => found.copied().into(),
        }
    }

    /// The sealed segment whose last block is at this height.
    pub(super) fn ending_at(&self, height: Height) -> Option<&SegmentDescriptor> {
        let number = self.sealed.partition_point(|descriptor| descriptor.last < height);
        self.sealed.get(number).filter(|descriptor| descriptor.last == height)
    }

    /// Height of the first block of the open segment.
    pub(super) fn open_first(&self) -> Height {
        self.sealed.last().map_or(Height(1), |last| last.last.next())
    }

    /// Adds what blocks added. Returns the open segment before it, if that one was sealed: to free
    /// its entries takes milliseconds.
    pub(super) fn grow(&mut self, grown: Growth) -> Option<Open> {
        if grown.sealed.is_empty() {
            self.open.ends.extend(grown.open.ends);
            self.open.entries.extend(grown.open.entries);
            self.open.tail = grown.open.tail;
            return None;
        }
        self.sealed.extend(grown.sealed);
        Some(std::mem::replace(&mut self.open, grown.open))
    }

    /// Height up to which no block is missing. All are executed up to `executed`, here or not.
    pub(super) fn checked_by_hash_to(&self, tip: Height, executed: Height) -> Height {
        let missing = self.sealed.iter().find(|one| !self.gaps.keeps(one.index));
        let before = missing.map(|one| Height(one.first.0.saturating_sub(1)));
        before.unwrap_or(tip).max(executed)
    }

    /// The ranges of heights up to the tip whose blocks are kept, in order.
    pub(super) fn kept_heights(&self, tip: Height) -> Vec<RangeInclusive<Height>> {
        let sealed = self.sealed.len() as u64;
        let segment = |index: u64| usize::try_from(index).ok().and_then(|at| self.sealed.get(at));
        // The open segment is kept too, and is empty right after a seal.
        let is_open = tip >= self.open_first();
        let kept = self.gaps.kept(sealed.saturating_add(is_open.into()));
        let range = |kept: RangeInclusive<u64>| {
            let first = segment(*kept.start()).map_or(self.open_first(), |segment| segment.first);
            first..=segment(*kept.end()).map_or(tip, |segment| segment.last)
        };
        kept.into_iter().map(range).collect()
    }

    /// Where a block is. Above the tip and at height 0 there never was one.
    pub(super) fn place(&self, height: Height) -> Kept<Place> {
        if height == Height(0) {
            return Kept::Never;
        }
        if let Some(number) = height.0.checked_sub(self.open_first().0) {
            return self.open_place(number).into();
        }
        let number = self.sealed.partition_point(|descriptor| descriptor.last < height);
        self.sealed(number as u64).map(|descriptor| {
            let block = height.0.saturating_sub(descriptor.first.0);
            Place::Sealed(descriptor, block)
        })
    }

    /// Where a block of the open segment is; `number` counts from 0.
    fn open_place(&self, number: u64) -> Option<Place> {
        let number = usize::try_from(number).ok()?;
        let end = *self.open.ends.get(number)?;
        let start = number.checked_sub(1).map_or(0, |before| self.open.ends[before]);
        Some(Place::Open {
            segment: self.sealed.len() as u64,
            range: start..end,
            full: self.open.bytes().saturating_sub(self.open.tail.len() as u64),
            tail: self.open.tail.clone(),
        })
    }
}

/// The files of history: a folder for each era.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) history: PathBuf,
}

impl Files {
    pub(super) fn of(store: &Path) -> Self {
        Self { history: store.join("history") }
    }

    /// Length of a block, and its first `bytes` bytes, or all if it has fewer.
    pub(super) fn block_start(
        &self,
        place: &Place,
        bytes: usize,
    ) -> Result<(usize, Vec<u8>), StoreError> {
        let found = match place {
            Place::Sealed(descriptor, block) => self.index(descriptor)?.block_range(*block)?,
            Place::Open { range, .. } => range.clone(),
        };
        let length = usize::try_from(found.end.saturating_sub(found.start)).unwrap_or(usize::MAX);
        let part = found.start..found.start.saturating_add(length.min(bytes) as u64);
        let (segment, full, tail) = match place {
            Place::Sealed(descriptor, _) => (descriptor.index, descriptor.bytes, &[][..]),
            Place::Open { segment, full, tail, .. } => (*segment, *full, &tail[..]),
        };
        let mut content = Vec::new();
        if part.start < full && !part.is_empty() {
            let blocks = Pages::open(&self.history, Name::Blocks(segment))?;
            content = blocks.read(part.start..part.end.min(full))?;
        }
        let within = |at: u64| {
            usize::try_from(at.saturating_sub(full)).unwrap_or(usize::MAX).min(tail.len())
        };
        content.extend_from_slice(&tail[within(part.start)..within(part.end)]);
        Ok((length, content))
    }

    /// Visits the entries of kept segments that begin with these bytes, newest era first, until
    /// `visit` finds what it looks for. Opens only eras whose filter says *perhaps*. `keeps` says
    /// of a sealed segment whether it is kept now.
    pub(super) fn find<T>(
        &self,
        start: u64,
        sealed: u64,
        keeps: impl Fn(u64) -> bool,
        mut visit: impl FnMut(Entry) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        for era in (0..sealed.div_ceil(ERA_SEGMENTS)).rev() {
            let first = era.saturating_mul(ERA_SEGMENTS);
            let next = first.saturating_add(ERA_SEGMENTS);
            // An era gets its filter once it is whole.
            if next <= sealed && !filter::may_have(&self.history, era, start)? {
                continue;
            }
            for segment in (first..next.min(sealed)).rev().filter(|segment| keeps(*segment)) {
                let index = SegmentIndex::open(&self.history, segment);
                let entries = match index.and_then(|index| index.find(start)) {
                    // It was dropped meanwhile.
                    Err(_) if !keeps(segment) => continue,
                    entries => entries?,
                };
                for entry in entries {
                    if let Some(found) = visit(entry)? {
                        return Ok(Some(found));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Makes more whole pages of the open segment durable.
    pub(super) fn extend(&self, segment: u64, from: u64, pages: &[u8]) -> Result<(), StoreError> {
        if pages.is_empty() {
            return Ok(());
        }
        pages::write(&self.history, Name::Blocks(segment), from, pages)?;
        if from == 0 { pages::sync_names(&self.history, segment) } else { Ok(()) }
    }

    /// Makes the files of a segment whole and durable: the rest of its blocks from page `from` on,
    /// its index, and the filter of its era if it is the last one there and `is_whole`: no other
    /// segment of the era is missing. `run` has the entries of all its blocks, sorted.
    pub(super) fn seal(
        &self,
        segment: &SealedSegment,
        from: u64,
        rest: &[u8],
        run: &[Entry],
        is_whole: bool,
    ) -> Result<(), StoreError> {
        let index = segment.descriptor.index;
        pages::write(&self.history, Name::Blocks(index), from, rest)?;
        segment_index::write(&self.history, segment, run)?;
        if index.saturating_add(1).is_multiple_of(ERA_SEGMENTS) && is_whole {
            self.write_filter(index / ERA_SEGMENTS)?;
        }
        pages::sync_names(&self.history, index)
    }

    /// Writes the filter of a whole era.
    pub(super) fn write_filter(&self, era: u64) -> Result<(), StoreError> {
        let first = era.saturating_mul(ERA_SEGMENTS);
        match self.starts(first..first.saturating_add(ERA_SEGMENTS)) {
            Ok(starts) => filter::write(&self.history, era, &starts),
            // What happened to an older segment must not end the chain. An era without a filter is
            // searched, and `Store::verify` names what is damaged.
            Err(_) => pages::remove(&self.history, Name::Filter(era)),
        }
    }

    /// The beginnings of all ids in these segments.
    pub(super) fn starts(&self, segments: Range<u64>) -> Result<Vec<u64>, StoreError> {
        let mut starts = Vec::new();
        for segment in segments {
            let run = SegmentIndex::open(&self.history, segment)?.run()?;
            starts.extend(run.iter().map(|entry| entry.start));
        }
        Ok(starts)
    }

    /// The index file of a segment with this descriptor.
    pub(super) fn index(&self, descriptor: &SegmentDescriptor) -> Result<SegmentIndex, StoreError> {
        let file = SegmentIndex::open(&self.history, descriptor.index)?;
        if file.descriptor() != descriptor {
            let name = Name::Index(descriptor.index);
            return Err(StoreError::corrupt(name, "is of another segment"));
        }
        Ok(file)
    }
}
