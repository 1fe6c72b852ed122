//! A node that has what somebody searches, as others name it.

use std::sync::Arc;

use bincode::de::Decoder;
use bincode::error::DecodeError;
use bincode::{Decode, Encode};

/// Most bytes of a peer id. Those of nodes have 38.
pub const HOLDER_ID_BYTES_MAX: usize = 64;
/// Most addresses of a holder.
pub const HOLDER_ADDRESSES_MAX: usize = 4;
/// Most bytes of an address.
pub const HOLDER_ADDRESS_BYTES_MAX: usize = 128;

/// A node that says, or of which others say, that it has an object. Nothing proves it.
///
/// Its bytes are within the limits of this module. Others do not decode.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode)]
pub struct Holder {
    id: Arc<[u8]>,
    addresses: Vec<Box<[u8]>>,
}

impl Holder {
    /// A holder by the bytes of its peer id and of its addresses. Addresses that are too long, and
    /// those after the first [`HOLDER_ADDRESSES_MAX`], are left out. `None` if the id is too long.
    #[must_use]
    pub fn new(id: &[u8], addresses: impl IntoIterator<Item = Box<[u8]>>) -> Option<Self> {
        let fitting =
            addresses.into_iter().filter(|address| address.len() <= HOLDER_ADDRESS_BYTES_MAX);
        let addresses = fitting.take(HOLDER_ADDRESSES_MAX).collect();
        (id.len() <= HOLDER_ID_BYTES_MAX).then(|| Self { id: id.into(), addresses })
    }

    /// The bytes of its peer id.
    #[must_use]
    pub const fn id(&self) -> &Arc<[u8]> {
        &self.id
    }

    /// Where it says that it can be reached.
    #[must_use]
    pub fn addresses(&self) -> &[Box<[u8]>] {
        &self.addresses
    }
}

impl<Context> Decode<Context> for Holder {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let id = Vec::<u8>::decode(decoder)?;
        let addresses = Vec::<Box<[u8]>>::decode(decoder)?;
        let count = addresses.len();
        match Self::new(&id, addresses) {
            Some(holder) if holder.addresses.len() == count => Ok(holder),
            _ => Err(DecodeError::Other("a holder with too long an id or too many addresses")),
        }
    }
}

bincode::impl_borrow_decode!(Holder);

#[cfg(test)]
mod tests {
    use ledger::codec;

    use super::*;

    #[test]
    fn a_holder_has_bounded_bytes() {
        let address = |bytes: usize| vec![7; bytes].into_boxed_slice();
        let holder = |id: usize, addresses: &[usize]| {
            Holder::new(&vec![1; id], addresses.iter().map(|bytes| address(*bytes)))
        };
        assert_eq!(holder(65, &[]), None);
        assert_eq!(holder(64, &[129, 128, 1, 200, 2, 3, 4]), holder(64, &[128, 1, 2, 3]));
        for (id, addresses, decodes) in [
            (64, vec![128; 4], true),
            (0, vec![], true),
            (65, vec![], false),
            (64, vec![129], false),
            (64, vec![1; 5], false),
        ] {
            let raw =
                (vec![1_u8; id], addresses.iter().map(|one| vec![7_u8; *one]).collect::<Vec<_>>());
            let bytes = codec::encode(&raw);
            let decoded = codec::decode::<Holder>(&bytes, 1 << 16);
            assert_eq!(
                decoded.ok(),
                holder(id, &addresses).filter(|_| decodes),
                "{id} {addresses:?}"
            );
        }
    }
}
