//! The one codec: every byte that is hashed, signed, stored or sent is written and read here.
//!
//! bincode 2 with fixed-width little-endian integers. Variable-width integers would give one number several spellings.
//! A size limit holds before anything is allocated, and no byte may follow a value, so one value has exactly one encoding:
//! `encode(decode(bytes)) == bytes` for all bytes that decode.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
pub use bincode::{Decode, Encode};

/// Most bytes any single value may have: a block of the largest size genesis allows, with its certificate, and room to spare.
pub const VALUE_BYTES_MAX: usize = 32 << 20;

/// Bytes that are not the canonical encoding of the expected value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// More bytes than the caller allows for this value.
    #[error("{got} bytes, expected at most {max}")]
    TooLong {
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The bytes end early, hold an unknown variant, an oversized length or an unsorted set.
    #[error("not a valid encoding: {reason}")]
    Malformed {
        /// What the decoder met.
        reason: String,
    },
    /// Bytes follow the value.
    #[error("{extra} bytes after the end of the value")]
    Trailing {
        /// Bytes left over.
        extra: usize,
    },
}

/// Writes the canonical bytes of a value.
///
/// # Panics
/// Never for the types of this project: encoding into memory fails only for types that bincode cannot represent.
#[must_use]
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    match bincode::encode_to_vec(value, config::<VALUE_BYTES_MAX>().with_no_limit()) {
        Ok(bytes) => bytes,
        Err(error) => panic!("every type of the ledger is encodable: {error}"),
    }
}

/// Reads a value from exactly these bytes, at most `max` of them.
///
/// # Errors
/// `CodecError`, whose fault is always the bytes'.
pub fn decode<T: Decode<()>>(bytes: &[u8], max: usize) -> Result<T, CodecError> {
    if bytes.len() > max {
        return Err(CodecError::TooLong { got: bytes.len(), max });
    }
    let (value, used) = decode_prefix(bytes)?;
    match bytes.len().saturating_sub(used) {
        0 => Ok(value),
        extra => Err(CodecError::Trailing { extra }),
    }
}

/// Reads a value from the start of the bytes and says how many it took. For streams of values, such as history.
///
/// # Errors
/// `CodecError::Malformed`.
pub fn decode_prefix<T: Decode<()>>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    // The limit counts claimed memory, not wire bytes: a list of a few bytes may claim a few times its size, never megabytes.
    let result = match bytes.len() {
        0..=0x1000 => bincode::decode_from_slice(bytes, config::<0x8000>()),
        0x1001..=0x1_0000 => bincode::decode_from_slice(bytes, config::<0x8_0000>()),
        0x1_0001..=0x10_0000 => bincode::decode_from_slice(bytes, config::<0x80_0000>()),
        _ => bincode::decode_from_slice(bytes, config::<{ 8 * VALUE_BYTES_MAX }>()),
    };
    result.map_err(|error| CodecError::Malformed { reason: error.to_string() })
}

const fn config<const MAX: usize>() -> Configuration<LittleEndian, Fixint, Limit<MAX>> {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<MAX>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_long_truncated_and_trailing_bytes() {
        let bytes = encode(&vec![1u64, 2, 3]);
        assert_eq!(decode::<Vec<u64>>(&bytes, 100), Ok(vec![1, 2, 3]));
        assert_eq!(decode::<Vec<u64>>(&bytes, 31), Err(CodecError::TooLong { got: 32, max: 31 }));
        assert!(matches!(decode::<Vec<u64>>(&bytes[..31], 100), Err(CodecError::Malformed { .. })));
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(decode::<Vec<u64>>(&longer, 100), Err(CodecError::Trailing { extra: 1 }));
    }

    #[test]
    fn a_hostile_length_allocates_nothing() {
        let bytes = encode(&(1u64 << 60));
        assert!(matches!(decode::<Vec<u8>>(&bytes, 100), Err(CodecError::Malformed { .. })));
    }
}
