//! The manifest: the segments that are known to be part of the chain, whether or not this node has
//! applied them.

use std::collections::VecDeque;

use crate::certificate::Certificate;
use crate::codec::{Decode, Encode};
use crate::hash::{Hash, HistoryRoot};
use crate::history::mountain::MountainRange;
use crate::history::{History, HistoryError, HistoryRules, SegmentDescriptor};
use crate::units::Height;

/// A segment's descriptor, chunk hashes and last certificate: enough to verify every byte of the
/// segment and to commit its last block.
///
/// A head from a peer proves nothing until its descriptor is in a [`Manifest`], `verify_chunks`
/// succeeds and the certificate is verified.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SegmentHead {
    /// The segment as history commits to it.
    pub descriptor: SegmentDescriptor,
    /// Hash of each chunk.
    pub chunks: Vec<Hash>,
    /// Proves that the block at `descriptor.last` is final. The certificate of each other block of
    /// the segment is in the block after it.
    pub certificate: Certificate,
}

/// Descriptors of segments. Each is proved by the `history_root` of a certified header, or was
/// sealed by the chain of this node.
///
/// Keeps 64 bytes for each segment from 0 on, as [`History`] does, and 128 for each descriptor that
/// is not forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    rules: HistoryRules,
    /// Leaves of all segments from 0 on, since the root covers segments with forgotten descriptors
    /// too.
    leaves: MountainRange,
    /// The descriptors that are not forgotten, in order.
    descriptors: VecDeque<SegmentDescriptor>,
    next_height: Height,
}

impl Manifest {
    /// The manifest of the blocks that this node has applied. It covers all their sealed segments,
    /// and has no descriptors.
    #[must_use]
    pub fn after(history: &History) -> Self {
        Self {
            rules: history.rules,
            leaves: history.sealed.clone(),
            descriptors: VecDeque::new(),
            next_height: history.open_first(),
        }
    }

    /// Number of segments covered, from segment 0.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.leaves.count()
    }

    /// Height after the last block covered.
    #[must_use]
    pub const fn next_height(&self) -> Height {
        self.next_height
    }

    /// Commitment to all segments covered.
    #[must_use]
    pub fn root(&self) -> HistoryRoot {
        self.leaves.root()
    }

    /// Descriptor of a segment; `None` if the segment is not covered, was covered by
    /// [`Self::after`] already, or is forgotten.
    #[must_use]
    pub fn get(&self, index: u64) -> Option<&SegmentDescriptor> {
        self.descriptors.get(usize::try_from(index.checked_sub(self.base())?).ok()?)
    }

    /// Descriptor of the segment with the block of this height; `None` as for [`Self::get`].
    #[must_use]
    pub fn segment_of(&self, height: Height) -> Option<&SegmentDescriptor> {
        let at = self.descriptors.partition_point(|descriptor| descriptor.last < height);
        self.descriptors.get(at).filter(|descriptor| descriptor.first <= height)
    }

    /// All descriptors that are not forgotten, in order.
    pub fn descriptors(&self) -> impl Iterator<Item = &SegmentDescriptor> {
        self.descriptors.iter()
    }

    /// Adds the descriptors of the next segments, all or none. They are checked as by
    /// `History::restore`. With them, the root of the manifest must equal `root`, which the caller
    /// takes from a certified header. Costs some hashes for each descriptor, even if the root is
    /// wrong.
    ///
    /// # Errors
    /// `HistoryError::Index`, `First` or `Closing` for the first descriptor that does not follow;
    /// `HistoryError::Root`.
    pub fn extend(
        &mut self,
        descriptors: &[SegmentDescriptor],
        root: HistoryRoot,
    ) -> Result<(), HistoryError> {
        let before = self.segments();
        let mut next_height = self.next_height;
        for (index, descriptor) in (before..).zip(descriptors) {
            next_height = descriptor.validate_at(index, next_height, &self.rules)?;
        }
        descriptors.iter().for_each(|descriptor| self.leaves.push(descriptor.leaf()));
        let got = self.leaves.root();
        if got != root {
            self.leaves.truncate(before);
            return Err(HistoryError::Root { expected: root, got });
        }
        self.descriptors.extend(descriptors);
        self.next_height = next_height;
        Ok(())
    }

    /// Adds the next segment, which the chain itself sealed. Does nothing if the segment is
    /// covered.
    ///
    /// # Panics
    /// If the segment leaves a gap, or contradicts a certified header that proved another one.
    pub fn sealed(&mut self, descriptor: &SegmentDescriptor) {
        let SegmentDescriptor { index, .. } = *descriptor;
        if let Some(known) = self.leaves.leaf(index) {
            assert!(
                *known == descriptor.leaf(),
                "a certified header proves another segment {index} than {descriptor:?}"
            );
            return;
        }
        match descriptor.validate_at(self.segments(), self.next_height, &self.rules) {
            Ok(next_height) => self.next_height = next_height,
            Err(error) => panic!("the chain seals its segments in order and by the rules: {error}"),
        }
        self.leaves.push(descriptor.leaf());
        self.descriptors.push_back(*descriptor);
    }

    /// Forgets the descriptors of the segments below `index`, once these are applied. Their leaves
    /// stay.
    pub fn forget_below(&mut self, index: u64) {
        while self.descriptors.front().is_some_and(|descriptor| descriptor.index < index) {
            self.descriptors.pop_front();
        }
    }

    /// Index of the first descriptor that is not forgotten; `segments` if there is none.
    fn base(&self) -> u64 {
        self.descriptors.front().map_or(self.segments(), |descriptor| descriptor.index)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use crate::hash::{BlockHash, Domain};
    use crate::history::BLOCK_BYTES_MAX;

    const RULES: HistoryRules =
        HistoryRules { segment_bytes: 20, segment_blocks: 4, chunk_bytes: 8 };

    /// A history with one block of 20 bytes in each segment, all its descriptors, and the roots:
    /// before the first segment and after each.
    fn history(segments: u64) -> (History, Vec<SegmentDescriptor>, Vec<HistoryRoot>) {
        let mut history = History::new(RULES);
        let mut roots = vec![history.root()];
        let mut descriptors = Vec::new();
        for height in 1..=segments {
            let hash = Hash::of(Domain::Block, &[&height.to_le_bytes()]);
            descriptors.extend(
                history
                    .push(Height(height), BlockHash(hash), &hash.0[..20])
                    .map(|one| one.descriptor),
            );
            roots.push(history.root());
        }
        (history, descriptors, roots)
    }

    #[test]
    fn grows_to_each_proved_root_from_each_start() {
        let (_, all, roots) = history(12);
        for start in 0..=12 {
            for middle in start..=12 {
                let mut manifest = Manifest::after(&history(start as u64).0);
                assert_eq!(
                    (manifest.segments(), manifest.next_height()),
                    (start as u64, Height(start as u64 + 1))
                );
                manifest.extend(&all[start..middle], roots[middle]).unwrap();
                // The same segments again, as the chain seals them.
                all[..middle].iter().for_each(|descriptor| manifest.sealed(descriptor));
                manifest.extend(&all[middle..], roots[12]).unwrap();
                let mut sealed = Manifest::after(&history(start as u64).0);
                all.iter().for_each(|descriptor| sealed.sealed(descriptor));
                assert_eq!(manifest, sealed);
                assert_eq!(
                    (manifest.segments(), manifest.next_height(), manifest.root()),
                    (12, Height(13), roots[12])
                );
                assert!(manifest.descriptors().eq(&all[start..]));

                manifest.forget_below(middle as u64);
                assert!(manifest.descriptors().eq(&all[middle..]));
                for (index, descriptor) in (0..).zip(&all) {
                    assert_eq!(
                        manifest.get(index),
                        (index >= middle as u64).then_some(descriptor),
                        "{index}"
                    );
                }
                assert_eq!(manifest.get(12), None);
                // Each segment has one block.
                for height in 0..=14 {
                    let index = u64::wrapping_sub(height, 1);
                    assert_eq!(manifest.segment_of(Height(height)), manifest.get(index));
                }
                manifest.forget_below(u64::MAX);
                assert_eq!((manifest.descriptors().count(), manifest.segments()), (0, 12));
            }
        }
    }

    #[test]
    fn a_list_that_is_not_proved_changes_nothing() {
        let (_, all, roots) = history(9);
        let mut manifest = Manifest::after(&history(3).0);
        manifest.extend(&all[3..5], roots[5]).unwrap();
        let before = manifest.clone();
        let mut check = |change: fn(&mut Vec<SegmentDescriptor>),
                         root: HistoryRoot,
                         expected: fn(&HistoryError) -> bool| {
            let mut list = all[5..].to_vec();
            change(&mut list);
            let error = manifest.extend(&list, root).unwrap_err();
            assert!(expected(&error), "{error}");
            assert_eq!(manifest, before, "{error}");
        };
        let is_index = |error: &HistoryError| matches!(error, HistoryError::Index { .. });
        let is_first = |error: &HistoryError| matches!(error, HistoryError::First { .. });
        let is_closing = |error: &HistoryError| matches!(error, HistoryError::Closing { .. });
        let is_root = |error: &HistoryError| matches!(error, HistoryError::Root { .. });
        check(|list| drop(list.drain(..1)), roots[9], is_index);
        check(|list| drop(list.drain(1..2)), roots[9], is_index);
        check(|list| list[1] = list[0], roots[9], is_index);
        check(|list| list[0].first = Height(5), roots[9], is_first);
        check(|list| list[1].first = Height(u64::MAX), roots[9], is_first);
        check(|list| list[3].last = Height(u64::MAX), roots[9], is_closing);
        check(|list| list[3].last = Height(0), roots[9], is_closing);
        check(|list| list[3].bytes = 19, roots[9], is_closing);
        check(|list| list[3].bytes = u64::MAX, roots[9], is_closing);
        check(|list| list[3].bytes = 1 + BLOCK_BYTES_MAX, roots[9], is_closing);
        check(|list| list[3].bytes = BLOCK_BYTES_MAX, roots[9], is_root);
        // With two blocks, the second begins at byte 19 at the latest. So the segment may have 19
        // bytes more than a segment of one block.
        check(
            |list| (list[3].last, list[3].bytes) = (Height(10), 20 + BLOCK_BYTES_MAX),
            roots[9],
            is_closing,
        );
        check(
            |list| (list[3].last, list[3].bytes) = (Height(10), 19 + BLOCK_BYTES_MAX),
            roots[9],
            is_root,
        );
        check(|list| list[2].chunks_root = Hash::ZERO, roots[9], is_root);
        check(|list| list.truncate(3), roots[9], is_root);
        check(Vec::clear, roots[9], is_root);
        check(|_| (), roots[8], is_root);
        check(|_| (), HistoryRoot(Hash::ZERO), is_root);
        manifest.extend(&[], roots[5]).unwrap();
        assert_eq!(manifest, before);
        manifest.extend(&all[5..], roots[9]).unwrap();
    }

    #[test]
    #[should_panic(expected = "a certified header proves another segment 1")]
    fn a_sealed_segment_that_contradicts_a_header_is_never_taken() {
        let (history, all, _) = history(2);
        Manifest::after(&history).sealed(&SegmentDescriptor { blocks_root: Hash::ZERO, ..all[1] });
    }

    #[test]
    #[should_panic(expected = "in order")]
    fn a_sealed_segment_after_a_gap_is_never_taken() {
        Manifest::after(&history(1).0).sealed(&history(3).1[2]);
    }
}
