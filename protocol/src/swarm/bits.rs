//! Sets of chunks of a segment, as bits.

use bincode::{Decode, Encode};

/// A row of bits. The first is the lowest bit of the first byte. Bits beyond the end read as unset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Bits(Vec<u8>);

impl Bits {
    /// `count` bits, rounded up to whole bytes, all unset.
    #[must_use]
    pub fn new(count: u64) -> Self {
        Self(vec![0; usize::try_from(count.div_ceil(8)).unwrap_or(usize::MAX)])
    }

    /// Length in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Whether a bit is set.
    #[must_use]
    pub fn get(&self, index: u32) -> bool {
        let (byte, bit) = place(index);
        self.0.get(byte).is_some_and(|byte| byte & bit != 0)
    }

    /// Sets a bit, and makes the row longer if needed. Returns whether the bit was unset.
    pub fn set(&mut self, index: u32) -> bool {
        let (byte, bit) = place(index);
        if self.0.len() <= byte {
            self.0.resize(byte.saturating_add(1), 0);
        }
        let was_unset = self.0[byte] & bit == 0;
        self.0[byte] |= bit;
        was_unset
    }

    /// Unsets a bit.
    pub fn unset(&mut self, index: u32) {
        let (byte, bit) = place(index);
        if let Some(byte) = self.0.get_mut(byte) {
            *byte &= !bit;
        }
    }

    /// Number of set bits.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0, |count, byte| count.saturating_add(u64::from(byte.count_ones())))
    }

    /// The set bits, in order.
    pub fn ones(&self) -> impl Iterator<Item = u32> {
        let bits = u32::try_from(self.0.len().saturating_mul(8)).unwrap_or(u32::MAX);
        (0..bits).filter(|index| self.get(*index))
    }
}

const fn place(index: u32) -> (usize, u8) {
    ((index / 8) as usize, 1 << (index % 8))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_set_and_unset_one_by_one() {
        let mut bits = Bits::new(10);
        assert_eq!((bits.bytes(), bits.count()), (2, 0));
        for index in [0, 7, 8, 9, 21] {
            assert!(!bits.get(index));
            assert!(bits.set(index) && !bits.set(index) && bits.get(index), "{index}");
        }
        assert_eq!(bits.ones().collect::<Vec<_>>(), [0, 7, 8, 9, 21]);
        bits.unset(7);
        bits.unset(1_000);
        assert_eq!(bits.count(), 4);
        assert!(!bits.get(7) && !bits.get(1_000));
    }
}
