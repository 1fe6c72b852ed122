//! What a store keeps of sealed history. It may lack segments: a store that began with a snapshot
//! has no block up to the snapshot, and a store with a budget drops whole eras.
//!
//! Of a segment that is not kept, its descriptor stays, and perhaps its *end*: the header and the
//! certificate of its last block. The database says which segments are not kept. Files of such a
//! segment are not believed, and are removed when the store is opened.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::Path;

use crate::block::Header;
use crate::certificate::Certificate;
use crate::codec;
use crate::history::SegmentDescriptor;
use crate::store::disk::{Batch, Disk};
use crate::store::pages::{ERA_SEGMENTS, Name};
use crate::store::schema::{self, Key, TipValue, prefix};
use crate::store::{StoreError, disk};

/// Outcome of a read by height, segment, hash or id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept<T> {
    /// It is stored.
    Here(T),
    /// The chain of this store does not have it.
    Never,
    /// It is, or may be, in a part of the chain that this store does not keep. Other nodes may.
    NotKept,
}

impl<T> Kept<T> {
    /// The value, if it is stored.
    pub fn here(self) -> Option<T> {
        match self {
            Self::Here(value) => Some(value),
            Self::Never | Self::NotKept => None,
        }
    }

    /// Applies a function to the value, if it is stored.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Kept<U> {
        match self {
            Self::Here(value) => Kept::Here(change(value)),
            Self::Never => Kept::Never,
            Self::NotKept => Kept::NotKept,
        }
    }

    /// As [`Self::map`], for a function that may fail.
    ///
    /// # Errors
    /// That of the function.
    pub fn try_map<U, E>(self, change: impl FnOnce(T) -> Result<U, E>) -> Result<Kept<U>, E> {
        self.try_and_then(|value| change(value).map(Kept::Here))
    }

    /// As [`Self::map`], for a function that may fail and has an outcome of its own.
    ///
    /// # Errors
    /// That of the function.
    pub fn try_and_then<U, E>(
        self,
        change: impl FnOnce(T) -> Result<Kept<U>, E>,
    ) -> Result<Kept<U>, E> {
        match self {
            Self::Here(value) => change(value),
            Self::Never => Ok(Kept::Never),
            Self::NotKept => Ok(Kept::NotKept),
        }
    }
}

impl<T> From<Option<T>> for Kept<T> {
    /// `None` becomes [`Kept::Never`].
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Never, Self::Here)
    }
}

/// The sealed segments that are not kept: for each era that lacks some, a set of bits. The lowest
/// bit is the era's first segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gaps(BTreeMap<u64, u16>);

/// The bits of an era of which nothing is kept.
const WHOLE_ERA: u16 = u16::MAX;

impl Gaps {
    /// No segment below `segments` is kept.
    pub(super) fn below(segments: u64) -> Self {
        let eras = (0..segments.div_ceil(ERA_SEGMENTS)).map(|era| (era, bits_below(era, segments)));
        Self(eras.collect())
    }

    /// Reads the gaps of a store with this tip.
    pub(super) fn read(disk: &Disk, tip: &TipValue) -> Result<Self, StoreError> {
        let mut gaps = Self::default();
        for item in disk.scan_keys(&prefix::GAPS) {
            let (key, content) = item?;
            let Key::Gap(era) = key else { continue };
            let bits: u16 = schema::decode(key, &content)?;
            if bits == 0 || bits & !bits_below(era, tip.segments) != 0 {
                return Err(StoreError::corrupt(key, "names segments that are not sealed"));
            }
            gaps.0.insert(era, bits);
        }
        Ok(gaps)
    }

    /// The segments of an era that are not kept, as bits.
    pub(super) fn bits(&self, era: u64) -> u16 {
        self.0.get(&era).copied().unwrap_or_default()
    }

    /// Whether every sealed segment is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a sealed segment is kept.
    pub(super) fn keeps(&self, segment: u64) -> bool {
        self.bits(segment / ERA_SEGMENTS) & bit(segment) == 0
    }

    /// Adds all gaps to a batch.
    pub(super) fn put(&self, batch: &mut Batch) {
        self.0.keys().for_each(|era| self.put_era(batch, *era));
    }

    /// Adds the gap of an era to a batch, or the removal of its key if it has no gap.
    pub(super) fn put_era(&self, batch: &mut Batch, era: u64) {
        match self.0.get(&era) {
            Some(bits) => batch.put_value(Key::Gap(era), bits),
            None => batch.remove(Key::Gap(era)),
        }
    }

    /// A segment is kept from now on.
    pub(super) fn close(&mut self, segment: u64) {
        let era = segment / ERA_SEGMENTS;
        match self.bits(era) & !bit(segment) {
            0 => self.0.remove(&era),
            bits => self.0.insert(era, bits),
        };
    }

    /// Nothing of a whole era is kept from now on. Returns whether something was.
    pub(super) fn open(&mut self, era: u64) -> bool {
        self.0.insert(era, WHOLE_ERA) != Some(WHOLE_ERA)
    }

    /// The ranges of segments below `segments` that are kept, in order.
    pub(super) fn kept(&self, segments: u64) -> Vec<RangeInclusive<u64>> {
        let mut kept = Vec::new();
        let mut from = 0u64;
        for (era, bits) in &self.0 {
            let first = era.saturating_mul(ERA_SEGMENTS);
            for segment in
                (first..first.saturating_add(ERA_SEGMENTS)).filter(|s| bits & bit(*s) > 0)
            {
                kept.extend(range(from, segment));
                from = segment.saturating_add(1);
            }
        }
        kept.extend(range(from, segments));
        kept
    }
}

/// The segments from `from` to the one before `end`; `None` if there are none.
fn range(from: u64, end: u64) -> Option<RangeInclusive<u64>> {
    let last = end.checked_sub(1)?;
    (from <= last).then_some(from..=last)
}

/// The bit of a segment in its era.
const fn bit(segment: u64) -> u16 {
    1 << (segment % ERA_SEGMENTS)
}

/// The bits of the segments of an era that are below `segments`.
fn bits_below(era: u64, segments: u64) -> u16 {
    let count = segments.saturating_sub(era.saturating_mul(ERA_SEGMENTS));
    u32::try_from(count)
        .ok()
        .and_then(|count| 1u16.checked_shl(count))
        .map_or(WHOLE_ERA, |end| end.saturating_sub(1))
}

/// Header and certificate of the last block of a segment.
pub(super) type End = (Header, Certificate);

/// Reads the end of a segment; `None` if it is not stored.
pub(super) fn read_end(
    disk: &Disk,
    descriptor: &SegmentDescriptor,
) -> Result<Option<End>, StoreError> {
    let key = |piece| Key::End(descriptor.index, piece);
    let Some(record) = disk.record(key)? else { return Ok(None) };
    let (header, certificate): End = schema::decode(key(0), &record)?;
    if header.hash() != descriptor.last_block || certificate.block != descriptor.last_block {
        return Err(StoreError::corrupt(key(0), "is of another block"));
    }
    Ok(Some((header, certificate)))
}

/// Adds the end of a segment to a batch.
pub(super) fn put_end(batch: &mut Batch, segment: u64, header: &Header, certificate: &Certificate) {
    let end = codec::encode(&(header, certificate));
    batch.put_record(|piece| Key::End(segment, piece), &end);
}

/// Removes the files of segments that are not kept, and the filters of their eras. A kill may have
/// left them. Nothing reads them, so a file that cannot be removed stays until the next start.
pub(super) fn remove_leftovers(history: &Path, gaps: &Gaps) {
    for era in gaps.0.keys() {
        let _ = remove_gap(history, gaps, *era);
    }
}

/// Removes the files of segments of an era that are not kept, its filter, and its folder if nothing
/// is left in it.
pub(super) fn remove_gap(history: &Path, gaps: &Gaps, era: u64) -> Result<(), StoreError> {
    let folder = history.join(era.to_string());
    let io = |error| StoreError::io(&folder, error);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
    };
    let mut is_empty = true;
    for entry in entries {
        let path = entry.map_err(io)?.path();
        let kept = match Name::of(&path) {
            Some(Name::Blocks(segment) | Name::Index(segment)) => gaps.keeps(segment),
            Some(Name::Filter(_)) => false,
            None => true,
        };
        is_empty &= !kept;
        if !kept {
            fs::remove_file(&path).map_err(|error| StoreError::io(&path, error))?;
        }
    }
    if is_empty {
        fs::remove_dir(&folder).map_err(io)?;
        return disk::sync_directory(history);
    }
    disk::sync_directory(&folder)
}
