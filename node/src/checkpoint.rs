//! A checkpoint: a block that the operator knows to be in the chain.
//!
//! Whoever controls the keys of more than two thirds of the validators, such as old keys that were
//! sold, can make another chain from the same genesis. A node without blocks cannot tell which of
//! the two is right. With a checkpoint from a source that it trusts, it refuses the other one.

use std::fmt;
use std::str::FromStr;

use ledger::hash::BlockHash;
use ledger::units::Height;

/// A block that the chain must contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its height, at least 1.
    pub height: Height,
    /// Its hash.
    pub hash: BlockHash,
}

/// The chain has another block at the height of the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this chain has block {got} at height {}, expected the checkpoint {}: its peers follow another \
     chain of the same genesis, or the checkpoint is wrong",
    checkpoint.height, checkpoint.hash
)]
pub struct OtherChain {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Hash of the chain's block at this height.
    pub got: BlockHash,
}

impl Checkpoint {
    /// Checks a block of the chain.
    ///
    /// # Errors
    /// `OtherChain`: the block has the height of the checkpoint and another hash.
    pub fn check(self, height: Height, hash: BlockHash) -> Result<(), OtherChain> {
        let is_other = height == self.height && hash != self.hash;
        if is_other { Err(OtherChain { checkpoint: self, got: hash }) } else { Ok(()) }
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.height, self.hash)
    }
}

impl FromStr for Checkpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            || format!("{text:?}: expected HEIGHT:HASH, such as 1000:5f2c.. with 64 digits");
        let (height, hash) = text.split_once(':').ok_or_else(wrong)?;
        let height = height.parse().ok().filter(|height| *height > 0).ok_or_else(wrong)?;
        let hash = hash.parse().map_err(|_| wrong())?;
        Ok(Self { height: Height(height), hash })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_a_height_and_a_hash() {
        let hash = "ab".repeat(32);
        let checkpoint: Checkpoint = format!("12:{hash}").parse().unwrap();
        assert_eq!(checkpoint.to_string(), format!("12:{hash}"));
        for text in ["", "12", ":", &format!("0:{hash}"), &format!("-1:{hash}"), "12:ab", &hash] {
            let error = text.parse::<Checkpoint>().unwrap_err();
            assert!(error.contains("expected HEIGHT:HASH"), "{error}");
        }
    }

    #[test]
    fn only_another_block_of_its_height_contradicts_it() {
        let hash = |byte: u8| format!("{byte:02x}").repeat(32).parse::<BlockHash>().unwrap();
        let checkpoint = Checkpoint { height: Height(5), hash: hash(1) };
        for (height, block, is_right) in
            [(5, hash(1), true), (5, hash(2), false), (4, hash(2), true), (6, hash(2), true)]
        {
            assert_eq!(checkpoint.check(Height(height), block).is_ok(), is_right);
        }
    }
}
