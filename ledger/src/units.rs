//! Newtypes for the numbers of a chain, so that a height is never added to an amount.

use std::fmt;

use bincode::{Decode, Encode};

macro_rules! number {
    ($($(#[$doc:meta])* $name:ident($inner:ty)),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl $name {
            /// The sum; `None` on overflow.
            #[must_use]
            pub const fn checked_add(self, other: $inner) -> Option<Self> {
                match self.0.checked_add(other) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// The difference; `None` if it is below zero.
            #[must_use]
            pub const fn checked_sub(self, other: $inner) -> Option<Self> {
                match self.0.checked_sub(other) {
                    Some(difference) => Some(Self(difference)),
                    None => None,
                }
            }
        }
    )*};
}

number!(
    /// Position of a block in the chain. The first block has height 1; height 0 is the state of the
    /// genesis.
    Height(u64),
    /// Number of an attempt to agree on the block of one height, from 0.
    Round(u32),
    /// Money in base units (pebbles).
    Amount(u64),
    /// Number of transactions that an account has sent. It is the nonce of the account's next
    /// transaction.
    Nonce(u64),
    /// Milliseconds since 1970-01-01 UTC.
    Timestamp(u64),
    /// Index of a segment in the history, from 0.
    SegmentIndex(u64),
    /// Weight of a validator's vote. The validators of a chain have at most `VOTING_POWER_MAX`
    /// together.
    VotingPower(u64),
);

impl Height {
    /// The height after this one.
    ///
    /// # Panics
    /// At height `u64::MAX`, which a chain of one block a millisecond reaches after 580 million
    /// years.
    #[must_use]
    pub const fn next(self) -> Self {
        match self.0.checked_add(1) {
            Some(next) => Self(next),
            None => panic!("heights stay far below u64::MAX"),
        }
    }

    /// The height before this one; `None` for height 0.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}
