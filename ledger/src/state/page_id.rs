//! Place of a subtree: the bits with which all paths below it begin.

use crate::codec::{Decode, Encode};
use crate::hash::Hash;

/// Number of bits of a path. It is also the greatest depth of a subtree.
pub(super) const PATH_BITS: u16 = 256;

/// The bit of a path by which an inner node at this depth splits. Depth 0 is the highest bit of the
/// first byte.
///
/// # Panics
/// At depth 256 or more. Distinct keys have distinct paths, so no inner node is that deep.
pub(super) fn bit(path: &Hash, depth: u16) -> bool {
    assert!(depth < PATH_BITS, "distinct keys have distinct paths of {PATH_BITS} bits");
    path.0[usize::from(depth / 8)] & bit_mask(depth) != 0
}

/// Mask of the bit for this depth, within its byte.
const fn bit_mask(depth: u16) -> u8 {
    // The shift is below 8, so the bit stays within the byte.
    0x80 >> (depth % 8)
}

/// Place of a subtree. If the subtree is a page, this is also the name under which a checkpoint
/// stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct PageId {
    /// Number of bits that all paths of the subtree share, 0 to 256.
    pub depth: u16,
    /// The shared bits, then zeros: the lowest path that the subtree can hold.
    pub prefix: Hash,
}

impl PageId {
    /// The whole tree.
    pub const ROOT: Self = Self { depth: 0, prefix: Hash::ZERO };

    /// The highest path that the subtree can hold: the shared bits, then ones.
    #[must_use]
    pub fn last(&self) -> Hash {
        let mut path = self.prefix;
        for (byte, bits_before) in path.0.iter_mut().zip((0u16..).step_by(8)) {
            *byte |=
                0xff_u8.checked_shr(self.depth.saturating_sub(bits_before).into()).unwrap_or(0);
        }
        path
    }

    /// Whether the subtree can hold a path from `first` to `last`, both included.
    #[must_use]
    pub fn meets(&self, first: &Hash, last: &Hash) -> bool {
        self.prefix <= *last && *first <= self.last()
    }

    /// The two halves of the subtree.
    ///
    /// # Panics
    /// At depth 256, where a subtree is a single path.
    pub(crate) fn children(&self) -> [Self; 2] {
        assert!(self.depth < PATH_BITS, "a single path has no halves");
        let depth = self.depth.saturating_add(1);
        let left = Self { depth, prefix: self.prefix };
        let mut right = left;
        right.prefix.0[usize::from(self.depth / 8)] |= bit_mask(self.depth);
        [left, right]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::PublicKey;
    use crate::state::StateKey;

    /// On the way down to a path, the two halves at each depth touch, and the path is in the half
    /// that its bit names. The last place holds only the path itself.
    #[test]
    fn a_path_leads_through_halves_to_itself() {
        for path in [
            Hash::ZERO,
            Hash([0xff; 32]),
            Hash([0xa5; 32]),
            StateKey::account(PublicKey([7; 32])).path(),
        ] {
            let mut at = PageId::ROOT;
            assert_eq!(at.last(), Hash([0xff; 32]));
            for depth in 0..PATH_BITS {
                let [left, right] = at.children();
                assert_eq!((left.prefix, right.last()), (at.prefix, at.last()));
                assert!(left.last() < right.prefix);
                let mut next = left.last();
                next.0.iter_mut().rev().find_map(|byte| {
                    *byte = byte.wrapping_add(1);
                    (*byte != 0).then_some(())
                });
                assert_eq!(next, right.prefix, "nothing lies between the halves");
                assert_eq!([left.meets(&path, &path), right.meets(&path, &path)], {
                    let goes_right = bit(&path, depth);
                    [!goes_right, goes_right]
                });
                at = if bit(&path, depth) { right } else { left };
            }
            assert_eq!((at.prefix, at.last(), at.depth), (path, path, PATH_BITS));
        }
    }

    #[test]
    fn ranges_meet_at_their_ends() {
        let [left, right] = PageId::ROOT.children();
        let (a, b) = (left.last(), right.prefix);
        for (first, last, met) in [
            (Hash::ZERO, a, [true, false]),
            (a, a, [true, false]),
            (a, b, [true, true]),
            (b, b, [false, true]),
            (b, Hash([0xff; 32]), [false, true]),
        ] {
            assert_eq!([left, right].map(|half| half.meets(&first, &last)), met, "{first} {last}");
        }
    }
}
