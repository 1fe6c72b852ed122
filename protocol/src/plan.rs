//! Which heights above the tip come as segments and which as blocks.

use ledger::units::Height;

/// Heights from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeightRange {
    /// The lowest height.
    pub first: Height,
    /// The highest height.
    pub last: Height,
}

/// How the blocks above the tip are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchPlan {
    /// The heights of this range come as segments, and others as blocks.
    Segments(HeightRange),
    /// All heights come as blocks.
    Blocks,
}

impl HeightRange {
    /// Whether a height is in the range.
    #[must_use]
    pub fn contains(self, height: Height) -> bool {
        (self.first..=self.last).contains(&height)
    }
}

impl FetchPlan {
    /// The heights that come as segments, if any do.
    #[must_use]
    pub const fn segments(self) -> Option<HeightRange> {
        match self {
            Self::Segments(range) => Some(range),
            Self::Blocks => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_heights_includes_both_ends() {
        let range = HeightRange { first: Height(3), last: Height(5) };
        let inside: Vec<u64> = (0..9).filter(|height| range.contains(Height(*height))).collect();
        assert_eq!(inside, [3, 4, 5]);
    }
}
