//! Eras of the store.

use ledger::history::SegmentDescriptor;
use ledger::store::{ERA_SEGMENTS, Store, StoreError};
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

/// A whole era as the machine sees it. Its bytes are an estimate if it is not here, or if the
/// system does not tell how long its files are.
pub(super) fn whole_era(store: &Store, era: u64) -> WholeEra {
    let kept = store.kept();
    let is_kept = segments(era).all(|one| kept.iter().any(|range| range.contains(&one)));
    let measured = is_kept.then(|| store.era_bytes(era)).and_then(|bytes| {
        bytes.inspect_err(|error| tracing::warn!("era {era} cannot be measured: {error}")).ok()
    });
    let bytes = measured.unwrap_or_else(|| {
        let blocks: u64 = descriptors(store, era).iter().map(|one| one.bytes).sum();
        // The indexes take about an eighth of the bytes of the blocks.
        blocks.saturating_add(blocks / 8)
    });
    WholeEra { bytes, is_kept }
}

/// Drops the eras of which only a part is here, which an earlier run began to fetch. A node with a
/// budget fetches them as a whole, if it is to keep them.
///
/// # Errors
/// As [`Store::drop_era`].
pub(crate) fn drop_parts(store: &Store, tip: &TipView) -> Result<(), StoreError> {
    let kept = store.kept();
    let is_here = |one: u64| kept.iter().any(|range| range.contains(&one));
    for era in 0..whole_eras(tip) {
        let count = segments(era).filter(|one| is_here(*one)).count() as u64;
        if count > 0 && count < ERA_SEGMENTS {
            store.drop_era(era)?;
        }
    }
    Ok(())
}
