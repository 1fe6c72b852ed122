//! Messages of the flood query, by which nodes search without an index.

use bincode::de::Decoder;
use bincode::error::DecodeError;
use bincode::{Decode, Encode};
use ledger::hash::Hash;

use crate::eras::Era;
use crate::holder::Holder;

/// Most hops of a query or an answer. If each node asks six peers, a query reaches most of 100,000
/// nodes.
pub const HOPS_MAX: u8 = 7;

/// What a search is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Wanted {
    /// An era of history.
    Era(Era),
    /// A file, by its id.
    File(Hash),
}

/// Names a query. The node that searches chooses it at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct QueryId(pub [u8; 16]);

/// A number of hops between nodes, from 1 to [`HOPS_MAX`]. Others do not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode)]
pub struct Hops(u8);

impl Hops {
    /// One hop.
    pub const ONE: Self = Self(1);
    /// As many as there may be.
    pub const MOST: Self = Self(HOPS_MAX);

    /// One fewer. `None` if no hop is left then.
    #[must_use]
    pub fn fewer(self) -> Option<Self> {
        self.0.checked_sub(1).filter(|hops| *hops > 0).map(Self)
    }

    /// One more. `None` beyond [`HOPS_MAX`].
    #[must_use]
    pub fn more(self) -> Option<Self> {
        self.0.checked_add(1).filter(|hops| *hops <= HOPS_MAX).map(Self)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl<Context> Decode<Context> for Hops {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        match u8::decode(decoder)? {
            hops @ 1..=HOPS_MAX => Ok(Self(hops)),
            _ => Err(DecodeError::Other("a message with no hops, or with too many")),
        }
    }
}

bincode::impl_borrow_decode!(Hops);

/// A message of the flood query.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum FloodMessage {
    /// Who has it? The receiver passes the query on if more than one hop is left.
    Query {
        /// Names the query.
        id: QueryId,
        /// What is wanted.
        wanted: Wanted,
        /// Hops that the query may make, with the one to the receiver.
        left: Hops,
    },
    /// A node has it. The receiver passes the answer on to the peer from which the query came.
    Hit {
        /// The query.
        id: QueryId,
        /// Hops that the answer has made, with the one to the receiver.
        crossed: Hops,
        /// The node.
        holder: Holder,
    },
}
