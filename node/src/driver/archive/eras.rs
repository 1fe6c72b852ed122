//! Eras of the store.

use ledger::history::SegmentDescriptor;
use ledger::store::{ERA_SEGMENTS, Store};
use ledger::units::Height;
use protocol::archive::WholeEra;

use crate::view::TipView;

/// The number of eras all of whose segments are sealed.
pub(super) fn whole_eras(tip: &TipView) -> u64 {
    tip.state.history().segments() / ERA_SEGMENTS
}

/// The segments of an era.
pub(super) fn segments(era: u64) -> std::ops::Range<u64> {
    let first = era.saturating_mul(ERA_SEGMENTS);
    first..first.saturating_add(ERA_SEGMENTS)
}

pub(super) fn descriptors(store: &Store, era: u64) -> Vec<SegmentDescriptor> {
    let range = segments(era);
    let count = usize::try_from(ERA_SEGMENTS).unwrap_or(usize::MAX);
    store.descriptors(range.start, Height(u64::MAX), count)
}

/// Bytes of the files of an era that is here. They are an estimate if the system does not tell how
/// long the files are.
pub(super) fn era_bytes(store: &Store, era: u64) -> u64 {
    let measured = store.era_bytes(era).inspect_err(|error| {
        tracing::warn!("era {era} cannot be measured: {error}");
    });
    measured.unwrap_or_else(|_| estimate(store, era))
}

fn estimate(store: &Store, era: u64) -> u64 {
    let blocks: u64 = descriptors(store, era).iter().map(|one| one.bytes).sum();
    // The indexes take about an eighth of the bytes of the blocks.
    blocks.saturating_add(blocks / 8)
}

/// A whole era as the machine sees it.
pub(super) fn whole_era(store: &Store, era: u64) -> WholeEra {
    let kept = store.kept();
    let is_kept = segments(era).all(|one| kept.iter().any(|range| range.contains(&one)));
    let bytes = if is_kept { era_bytes(store, era) } else { estimate(store, era) };
    WholeEra { bytes, is_kept }
}

/// Drops the eras of which only a part is here, since an earlier run began to fetch them. A node
/// with a budget fetches each era that it is to keep as a whole. A refusal by the disk is logged.
pub(crate) fn drop_parts(store: &Store, tip: &TipView) {
    let kept = store.kept();
    let is_here = |one: u64| kept.iter().any(|range| range.contains(&one));
    for era in 0..whole_eras(tip) {
        let count = segments(era).filter(|one| is_here(*one)).count() as u64;
        if count > 0
            && count < ERA_SEGMENTS
            && let Err(error) = store.drop_era(era)
        {
            tracing::error!("era {era} of history was not dropped whole: {error}");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;
    use crate::driver::made::Made;

    /// A part of an era is dropped at the start of a node, and a file of it cannot be removed.
    #[test]
    fn a_part_of_an_era_is_dropped_although_a_file_stays() {
        let made = Made::new(35, 6);
        let store = &made.store;
        assert_eq!(store.kept(), [3..=16]);

        // A folder cannot be removed as a file.
        let stays = made.folder.path().join("db/history/0/9.blocks");
        fs::remove_file(&stays).unwrap();
        fs::create_dir(&stays).unwrap();
        drop_parts(store, &made.tip);
        assert_eq!(store.kept(), [16..=16]);
        assert!(stays.exists());
    }
}
