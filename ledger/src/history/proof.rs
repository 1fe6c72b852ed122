//! Proofs from history: any later trusted header proves any sealed segment, and any block in it.
//!
//! A proof of an old block is short. Its verifier needs no keys of the validators of that time.

use crate::codec::{Decode, Encode};
use crate::hash::{BlockHash, Hash, HistoryRoot};
use crate::history::mountain::{self, Place};
use crate::history::{HistoryError, SegmentDescriptor};
use crate::merkle::{MerkleProof, ProofError};
use crate::units::Height;

/// Proves that a descriptor is at its index in the history under a root.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SegmentProof {
    /// Number of segments under the root.
    pub count: u64,
    /// The siblings on the way from the descriptor's leaf to the peak of its mountain, lowest
    /// first; at most 63.
    pub siblings: Vec<Hash>,
    /// The peaks of the other mountains, highest first; at most 63.
    pub peaks: Vec<Hash>,
}

impl SegmentProof {
    /// Verifies that `descriptor` is segment `descriptor.index` of exactly `count` segments under
    /// `root`.
    ///
    /// # Errors
    /// `ProofError`. A valid proof has exactly one form: no hash may be missing or left over.
    pub fn verify(
        &self,
        root: HistoryRoot,
        descriptor: &SegmentDescriptor,
    ) -> Result<(), ProofError> {
        let (index, count) = (descriptor.index, self.count);
        let Some(place) = Place::of(index, count) else {
            return Err(ProofError::Index { index, count });
        };
        let got = self.siblings.len().saturating_add(self.peaks.len());
        let Some((left, right)) = self.split(place) else {
            return Err(ProofError::Length { index, count, got });
        };

        let peak = mountain::peak(index, descriptor.leaf(), &self.siblings);
        let got = mountain::root_node(count, &[left, &[peak], right].concat());
        if got == root { Ok(()) } else { Err(ProofError::Root { expected: root.0, got: got.0 }) }
    }

    /// The peaks to the left and to the right of the leaf's own peak. `None` unless the proof has
    /// exactly as many hashes as the place needs.
    fn split(&self, place: Place) -> Option<(&[Hash], &[Hash])> {
        let others = self.count.count_ones().saturating_sub(1);
        let fits = self.siblings.len() as u64 == u64::from(place.height)
            && self.peaks.len() as u64 == u64::from(others);
        let rank = usize::try_from(place.rank).ok()?;
        fits.then(|| self.peaks.split_at(rank))
    }
}

/// Proves that a block is final: it is in a sealed segment that a trusted header commits to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BlockProof {
    /// The segment that holds the block.
    pub descriptor: SegmentDescriptor,
    /// Proves that the segment is part of history.
    pub segment: SegmentProof,
    /// Proves that the block is part of the segment.
    pub block: MerkleProof,
}

impl BlockProof {
    /// Verifies that the block at `height` has this hash in the history under `root`.
    ///
    /// # Errors
    /// `HistoryError::Height` or `Position` if the proof is for another height, otherwise `Proof`.
    pub fn verify(
        &self,
        root: HistoryRoot,
        height: Height,
        hash: BlockHash,
    ) -> Result<(), HistoryError> {
        let SegmentDescriptor { first, last, blocks_root, .. } = self.descriptor;
        let position = height.0.checked_sub(first.0).filter(|_| height <= last);
        let (Some(index), Some(count)) = (position, self.descriptor.block_count()) else {
            return Err(HistoryError::Height { height, first, last });
        };
        if (self.block.index, self.block.count) != (index, count) {
            return Err(HistoryError::Position {
                height,
                index: self.block.index,
                count: self.block.count,
            });
        }
        self.segment.verify(root, &self.descriptor)?;
        self.block.verify(blocks_root, hash.0)?;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use crate::codec;
    use crate::hash::Domain;
    use crate::history::{History, HistoryRules, SealedSegment};

    const COUNT_MAX: u64 = 70;

    /// Segments of one, two and three blocks.
    fn history() -> (History, Vec<SealedSegment>) {
        let mut history =
            History::new(HistoryRules { segment_bytes: 30, segment_blocks: 3, chunk_bytes: 8 });
        let mut sealed = Vec::new();
        while history.segments() < COUNT_MAX {
            let height = history.tip().next();
            let bytes = vec![7; 10 + usize::try_from(height.0 % 5).unwrap() * 10];
            sealed.extend(history.push(height, block_hash(height), &bytes));
        }
        (history, sealed)
    }

    fn block_hash(height: Height) -> BlockHash {
        BlockHash(Hash::of(Domain::Block, &[&height.0.to_le_bytes()]))
    }

    #[test]
    fn every_segment_is_proved_under_every_root_and_no_changed_proof_holds() {
        let (history, sealed) = history();
        for count in 1..=COUNT_MAX {
            let root = history.root_at(count).unwrap();
            for index in 0..count {
                let descriptor = &sealed[usize::try_from(index).unwrap()].descriptor;
                let proof = history.prove_segment(index, count).unwrap();
                assert_eq!(proof.verify(root, descriptor), Ok(()), "{index} of {count}");

                let refuse = |what: &str,
                              proof: &SegmentProof,
                              root,
                              descriptor: &SegmentDescriptor| {
                    assert!(proof.verify(root, descriptor).is_err(), "{what}: {index} of {count}");
                };
                refuse("root", &proof, history.root_at(count - 1).unwrap(), descriptor);
                refuse(
                    "index",
                    &proof,
                    root,
                    &SegmentDescriptor { index: index ^ 1, ..*descriptor },
                );
                refuse(
                    "bytes",
                    &proof,
                    root,
                    &SegmentDescriptor { bytes: descriptor.bytes + 1, ..*descriptor },
                );
                for other in (0..COUNT_MAX + 2).chain([u64::MAX]).filter(|other| *other != count) {
                    refuse(
                        "count",
                        &SegmentProof { count: other, ..proof.clone() },
                        root,
                        descriptor,
                    );
                }
                let lists: [fn(&mut SegmentProof) -> &mut Vec<Hash>; 2] =
                    [|proof| &mut proof.siblings, |proof| &mut proof.peaks];
                for list in lists {
                    let mut longer = proof.clone();
                    list(&mut longer).push(Hash::ZERO);
                    refuse("extra hash", &longer, root, descriptor);
                    for at in 0..list(&mut proof.clone()).len() {
                        let mut changed = proof.clone();
                        list(&mut changed)[at].0[0] ^= 0x80;
                        refuse("changed hash", &changed, root, descriptor);
                        list(&mut changed).remove(at);
                        refuse("missing hash", &changed, root, descriptor);
                    }
                }
            }
            assert_eq!(history.prove_segment(count, count), None);
        }
        assert_eq!(history.prove_segment(0, COUNT_MAX + 1), None);
    }

    #[test]
    fn every_block_is_proved_at_its_height_only() {
        let (history, sealed) = history();
        let root = history.root();
        for SealedSegment { descriptor, blocks, .. } in &sealed {
            for height in (descriptor.first.0..=descriptor.last.0).map(Height) {
                let proof =
                    history.prove_block(height, descriptor, blocks, history.segments()).unwrap();
                assert_eq!(codec::decode(&codec::encode(&proof), 4096), Ok(proof.clone()));
                for other in (0..=history.tip().0).chain([u64::MAX]).map(Height) {
                    assert_eq!(
                        proof.verify(root, other, block_hash(height)).is_ok(),
                        other == height,
                        "{other}"
                    );
                }
                assert!(matches!(
                    proof.verify(root, height, block_hash(height.next())),
                    Err(HistoryError::Proof(ProofError::Root { .. }))
                ));
            }
            for outside in [descriptor.first.0 - 1, descriptor.last.0 + 1].map(Height) {
                assert_eq!(
                    history.prove_block(outside, descriptor, blocks, history.segments()),
                    None
                );
            }
        }
    }

    #[test]
    fn a_block_proof_is_refused_for_what_is_wrong_with_it() {
        let (history, sealed) = history();
        let SealedSegment { descriptor, blocks, .. } =
            sealed.iter().find(|sealed| sealed.blocks.len() == 2).unwrap();
        let height = descriptor.last;
        let proof = history.prove_block(height, descriptor, blocks, COUNT_MAX).unwrap();
        let check = |change: fn(&mut BlockProof), expected: fn(&HistoryError) -> bool| {
            let mut changed = proof.clone();
            change(&mut changed);
            let error = changed.verify(history.root(), height, block_hash(height)).unwrap_err();
            assert!(expected(&error), "{error}");
        };
        let is_height = |error: &HistoryError| matches!(error, HistoryError::Height { .. });
        let is_position = |error: &HistoryError| matches!(error, HistoryError::Position { .. });
        let is_root =
            |error: &HistoryError| matches!(error, HistoryError::Proof(ProofError::Root { .. }));
        check(|proof| proof.descriptor.last.0 -= 1, is_height);
        check(|proof| proof.descriptor.first.0 += 2, is_height);
        check(
            |proof| (proof.descriptor.first.0, proof.descriptor.last.0) = (0, u64::MAX),
            is_height,
        );
        check(|proof| proof.descriptor.last.0 += 1, is_position);
        check(|proof| proof.descriptor.first.0 += 1, is_position);
        check(|proof| proof.block.index = 0, is_position);
        check(|proof| proof.block.count = 3, is_position);
        // If the descriptor and the block proof are shifted together, the descriptor is not the one
        // that the root commits to.
        check(
            |proof| {
                proof.descriptor.first.0 -= 1;
                (proof.block.index, proof.block.count) = (2, 3);
            },
            is_root,
        );
        check(|proof| proof.descriptor.last_block.0.0[0] ^= 1, is_root);
    }

    #[test]
    fn absurd_proofs_are_refused_without_work() {
        let (_, sealed) = history();
        let hashes = |count| vec![Hash::ZERO; count];
        let verdict = |index, count, siblings, peaks| {
            let descriptor = SegmentDescriptor { index, ..sealed[0].descriptor };
            let proof = SegmentProof { count, siblings: hashes(siblings), peaks: hashes(peaks) };
            proof.verify(HistoryRoot::default(), &descriptor).unwrap_err()
        };
        for (index, count) in [(0, 0), (5, 5), (u64::MAX, u64::MAX)] {
            assert_eq!(verdict(index, count, 0, 0), ProofError::Index { index, count });
        }
        for (index, count, siblings, peaks) in [
            (0, 1, 0, 0),
            (0, u64::MAX, 63, 63),
            (u64::MAX - 1, u64::MAX, 0, 63),
            (5, 1 << 63, 63, 0),
        ] {
            assert!(
                matches!(verdict(index, count, siblings, peaks), ProofError::Root { .. }),
                "{index} of {count}"
            );
            for (siblings, peaks) in [
                (siblings + 1, peaks),
                (siblings, peaks + 1),
                (100_000, peaks),
                (siblings, 100_000),
            ] {
                let got = siblings + peaks;
                assert_eq!(
                    verdict(index, count, siblings, peaks),
                    ProofError::Length { index, count, got }
                );
            }
        }
    }
}
