//! A filter for the ids in an era: a look-up reads only the runs of eras whose filter says
//! *perhaps*.
//!
//! It is a Bloom filter with 12 bits an id. All bits of an id are in one page of the file, so that
//! a look-up reads one page of each era. Of 300 ids that an era does not have, about one passes.

use std::path::Path;

use crate::store::StoreError;
use crate::store::pages::{self, CONTENT, CONTENT_BYTES, Name, Pages};

/// Bits for each id.
const ID_BITS: u64 = 12;
/// Bits set for each id. Eight is the best number for 12 bits an id.
const PROBES: u32 = 8;
/// Each page begins with the number of pages as `u64`, since a file that lost its end would
/// otherwise answer *no* for ids that it had.
const COUNT_BYTES: usize = 8;
/// Bits in a page.
const PAGE_BITS: u64 = 8 * (CONTENT - COUNT_BYTES as u64);

/// The content of the file for ids that begin with these bytes.
pub(super) fn build(starts: &[u64]) -> Vec<u8> {
    let pages = (starts.len() as u64).saturating_mul(ID_BITS).div_ceil(PAGE_BITS).max(1);
    let length = usize::try_from(pages).unwrap_or(usize::MAX).saturating_mul(CONTENT_BYTES);
    let mut content = vec![0; length];
    let mut all: Vec<(&mut [u8], &mut [u8])> =
        content.chunks_mut(CONTENT_BYTES).map(|page| page.split_at_mut(COUNT_BYTES)).collect();
    for (count, _) in &mut all {
        count.copy_from_slice(&pages.to_le_bytes());
    }
    for start in starts {
        let page = usize::try_from(page_of(*start, pages)).unwrap_or_default();
        for bit in bits(*start) {
            all[page].1[bit / 8] |= 1 << (bit % 8);
        }
    }
    content
}

/// Writes the filter of an era, and makes it durable except for its name.
pub(super) fn write(history: &Path, era: u64, starts: &[u64]) -> Result<(), StoreError> {
    pages::write(history, Name::Filter(era), 0, &build(starts))
}

/// Checks that the filter of an era is the one for these ids. Returns its pages and bytes.
pub(super) fn check(history: &Path, era: u64, starts: &[u64]) -> Result<(u64, u64), StoreError> {
    let (expected, name) = (build(starts), Name::Filter(era));
    let file = Pages::open(history, name)?;
    let bytes = expected.len() as u64;
    let pages = file.check(bytes)?;
    if file.read(0..bytes)? == expected {
        return Ok((pages, bytes));
    }
    Err(StoreError::corrupt(name, "is not the one for the ids of its era"))
}

/// Whether an era may have an id that begins with these bytes. Without a filter, or with a damaged
/// one, it may: a filter only saves work, and `Store::verify` names the damage.
pub(super) fn may_have(history: &Path, era: u64, start: u64) -> Result<bool, StoreError> {
    match read(history, era, start) {
        Err(StoreError::Corrupt { .. }) => Ok(true),
        result => result,
    }
}

fn read(history: &Path, era: u64, start: u64) -> Result<bool, StoreError> {
    let Some(file) = Pages::find(history, Name::Filter(era))? else { return Ok(true) };
    let pages = file.count()?.max(1);
    let from = page_of(start, pages).saturating_mul(CONTENT);
    let page = file.read(from..from.saturating_add(CONTENT))?;
    let (count, page) = page.split_at(COUNT_BYTES);
    if count != pages.to_le_bytes() {
        return Err(StoreError::corrupt(Name::Filter(era), "has another length than was written"));
    }
    Ok(bits(start).all(|bit| page[bit / 8] & 1 << (bit % 8) != 0))
}

/// The page for an id. Ids are hashes, so they spread evenly.
fn page_of(start: u64, pages: u64) -> u64 {
    u64::try_from(u128::from(start).saturating_mul(u128::from(pages)) >> 64).unwrap_or_default()
}

/// The bits of an id in its page, by SplitMix64 from the beginning of the id.
fn bits(start: u64) -> impl Iterator<Item = usize> {
    (1..=u64::from(PROBES)).map(move |probe| {
        let mut mixed = start.wrapping_add(probe.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ mixed >> 31) % PAGE_BITS).unwrap_or_default()
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use crate::hash::{Domain, Hash};

    fn start(number: u64) -> u64 {
        let hash = Hash::of(Domain::StoreValue, &[&number.to_le_bytes()]);
        u64::from_be_bytes(*hash.0.first_chunk().unwrap())
    }

    #[test]
    fn every_id_passes_and_few_others() {
        for count in [0u64, 1, 5_000, 40_000] {
            let folder = tempfile::tempdir().unwrap();
            let starts: Vec<u64> = (0..count).map(start).collect();
            write(folder.path(), 3, &starts).unwrap();
            let may_have = |start| may_have(folder.path(), 3, start).unwrap();
            assert!(starts.iter().all(|start| may_have(*start)), "{count}");
            let wrong = (count..count + 30_000).filter(|other| may_have(start(*other))).count();
            assert!(wrong <= 150, "{wrong} of 30,000 with {count} ids");
            assert!(count < 5_000 || wrong >= 20, "{wrong}: fewer bits would do");
            let bytes = std::fs::metadata(Name::Filter(3).path(folder.path())).unwrap().len();
            assert!(bytes <= count * 3 / 2 + count / 64 + 4_096, "{bytes} for {count}");
        }
    }

    #[test]
    fn a_filter_that_lost_a_page_or_has_a_flipped_bit_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let starts: Vec<u64> = (0..10_000).map(start).collect();
        write(folder.path(), 0, &starts).unwrap();
        let path = Name::Filter(0).path(folder.path());
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, &good[..good.len() - pages::PAGE_BYTES]).unwrap();
        assert!(starts.iter().all(|start| read(folder.path(), 0, *start).is_err()));
        for page in 0..good.len() / pages::PAGE_BYTES {
            let mut bad = good.clone();
            bad[page * pages::PAGE_BYTES + 2_000] ^= 4;
            std::fs::write(&path, &bad).unwrap();
            let errors = starts.iter().filter(|start| read(folder.path(), 0, **start).is_err());
            assert!(errors.count() > 1_000);
            assert!(starts.iter().all(|start| may_have(folder.path(), 0, *start).unwrap()));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(may_have(folder.path(), 0, 1).unwrap(), "without a filter all runs are searched");
        let error = check(folder.path(), 0, &starts).unwrap_err();
        assert_eq!(error.to_string(), "the store is corrupt: filter of era 0: missing");
    }
}
