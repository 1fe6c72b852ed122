//! Subtrees in path order that together cover the tree: where each of them lies, and how they are
//! joined into the nodes above them.

use super::page_id::{PATH_BITS, PageId};

/// Joins subtrees, which come in path order, into the whole tree. Each has a value of type `T`,
/// such as its hash. A node gets its value when both of its halves have one.
///
/// Holds at most one value for each depth, whatever subtrees come.
#[derive(Debug)]
pub(crate) struct Tiling<T> {
    /// The left halves whose right halves are still missing, from the top down, each deeper than
    /// the one before. At the end: the root alone.
    left: Vec<(PageId, T)>,
}

impl<T> Tiling<T> {
    pub(crate) const fn new() -> Self {
        Self { left: Vec::new() }
    }

    /// The place of the next subtree if it has this depth; `None` if no subtree of this depth
    /// begins where the last one ended, or if the tree is covered.
    pub(crate) fn place(&self, depth: u16) -> Option<PageId> {
        let largest = match self.left.last() {
            None => PageId::ROOT,
            Some((left, _)) => {
                let parent = PageId { depth: left.depth.checked_sub(1)?, ..*left };
                let [_, right] = parent.children();
                right
            }
        };
        (largest.depth..=PATH_BITS).contains(&depth).then_some(PageId { depth, ..largest })
    }

    /// Adds the next subtree, at a place that [`Self::place`] returned. `join` makes the value of a
    /// node from the node's place and the values of its halves.
    pub(crate) fn push<E>(
        &mut self,
        mut at: PageId,
        mut value: T,
        join: impl Fn(PageId, T, T) -> Result<T, E>,
    ) -> Result<(), E> {
        while let Some((left_at, left)) = self.left.pop_if(|(left, _)| left.depth == at.depth) {
            at = PageId { depth: left_at.depth.saturating_sub(1), ..left_at };
            value = join(at, left, value)?;
        }
        self.left.push((at, value));
        Ok(())
    }

    /// The value of the root; `None` unless the subtrees cover the tree.
    pub(crate) fn finish(mut self) -> Option<T> {
        self.left.pop().filter(|(at, _)| *at == PageId::ROOT).map(|(_, value)| value)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Adds subtrees of these depths; the value of each is 1. Returns their places, and the sum of
    /// all values if they cover the tree. `Err` is the index of the first depth that does not fit.
    fn tile(depths: &[u16]) -> Result<(Vec<PageId>, Option<usize>), usize> {
        let mut tiling = Tiling::new();
        let mut places = Vec::new();
        for (index, depth) in depths.iter().enumerate() {
            let at = tiling.place(*depth).ok_or(index)?;
            let Ok(()) = tiling.push(at, 1, |_, left, right| Ok::<_, Infallible>(left + right));
            places.push(at);
        }
        Ok((places, tiling.finish()))
    }

    #[test]
    fn depths_cover_the_tree_or_are_refused() {
        let deep: Vec<u16> = (1..=256).chain([256]).collect();
        let too_deep: Vec<u16> = (1..=257).chain([257]).collect();
        for (depths, expected) in [
            (&[][..], Ok(None)),
            (&[0], Ok(Some(1))),
            (&[1, 1], Ok(Some(2))),
            (&[1, 2, 3, 3], Ok(Some(4))),
            (&[3, 3, 2, 1], Ok(Some(4))),
            (&[2, 3, 3, 1], Ok(Some(4))),
            (&[1], Ok(None)),
            (&[1, 2], Ok(None)),
            (&deep, Ok(Some(257))),
            (&too_deep, Err(256)),
            (&[257], Err(0)),
            (&[0, 0], Err(1)),
            (&[0, 1], Err(1)),
            (&[2, 1], Err(1)),
            (&[1, 0], Err(1)),
            (&[1, 2, 1], Err(2)),
            (&[1, 1, 1], Err(2)),
            (&[u16::MAX], Err(0)),
        ] {
            let got = tile(depths).map(|(_, sum)| sum);
            assert_eq!(got, expected, "{:?}", &depths[..depths.len().min(9)]);
        }
    }

    /// Each place begins right after the end of the one before.
    #[test]
    fn places_touch() {
        let (places, _) = tile(&[2, 4, 4, 3, 3, 3, 3, 4, 4]).unwrap();
        let prefixes: Vec<u8> = places.iter().map(|at| at.prefix.0[0]).collect();
        assert_eq!(prefixes, [0x00, 0x40, 0x50, 0x60, 0x80, 0xa0, 0xc0, 0xe0, 0xf0]);
        assert_eq!(
            places.iter().map(|at| at.depth).collect::<Vec<_>>(),
            [2, 4, 4, 3, 3, 3, 3, 4, 4]
        );
        // Down the right edge of the tree, to its last two paths.
        let (deep, _) = tile(&(1..=256).chain([256]).collect::<Vec<_>>()).unwrap();
        let ends = [255, 256].map(|index: usize| (deep[index].depth, deep[index].prefix.0[31]));
        assert_eq!(ends, [(256, 0xfe), (256, 0xff)]);
    }
}
