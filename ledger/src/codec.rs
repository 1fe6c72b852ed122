//! The only binary codec: this module encodes and decodes all values that are hashed, signed,
//! stored or sent to peers.
//!
//! It is bincode 2 with fixed-width little-endian integers. Variable-width integers would give one
//! number several encodings. Sizes are checked before anything is allocated, and no byte may follow
//! a value. So one value has exactly one encoding: `encode(decode(bytes)) == bytes` for all bytes
//! that decode.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::error::DecodeError;
pub use bincode::{Decode, Encode};

/// Most bytes of one encoded value, where the caller knows no lower limit. It leaves room above the
/// largest genesis, whose file has at most 16 MiB, and the largest block, which has about 2 MiB.
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
    /// The bytes end early or break a rule of the expected type: for example, they hold an unknown
    /// variant, a length that is too large, or a set of validators that is not sorted.
    #[error("not a valid encoding: {reason}")]
    Malformed {
        /// What the decoder found.
        reason: String,
    },
    /// Bytes follow the value.
    #[error("{extra} bytes after the end of the value")]
    Trailing {
        /// Number of bytes left over.
        extra: usize,
    },
}

/// Encodes a value into its canonical bytes.
///
/// # Panics
/// Never for the types of this project: encoding into memory fails only for types that bincode
/// cannot represent.
#[must_use]
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    match bincode::encode_to_vec(value, config::<VALUE_BYTES_MAX>().with_no_limit()) {
        Ok(bytes) => bytes,
        Err(error) => panic!("every type of the ledger is encodable: {error}"),
    }
}

/// Decodes a value from exactly these bytes. More than `max` bytes are an error.
///
/// # Errors
/// `CodecError`: the bytes are always at fault.
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

/// Decodes a value from the start of the bytes. Returns the value and the number of bytes used.
/// Meant for streams of values, such as history.
///
/// # Errors
/// `CodecError::Malformed`.
pub fn decode_prefix<T: Decode<()>>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    // bincode's limit must be known at compile time. It counts the bytes read, and it counts the
    // items of a list by their size in memory before they are read. The items of a valid list take
    // less than 8 times as many bytes in memory as in their encoding. So the limit of each row is 8
    // times the longest input of the row. The rows grow by a factor of 4, so no length can claim
    // more than 32 times the bytes given, or 32 KiB if that is more.
    let result = match bytes.len() {
        0..=0x1000 => bincode::decode_from_slice(bytes, config::<{ 8 * 0x1000 }>()),
        0x1001..=0x4000 => bincode::decode_from_slice(bytes, config::<{ 8 * 0x4000 }>()),
        0x4001..=0x1_0000 => bincode::decode_from_slice(bytes, config::<{ 8 * 0x1_0000 }>()),
        0x1_0001..=0x4_0000 => bincode::decode_from_slice(bytes, config::<{ 8 * 0x4_0000 }>()),
        0x4_0001..=0x10_0000 => bincode::decode_from_slice(bytes, config::<{ 8 * 0x10_0000 }>()),
        0x10_0001..=0x40_0000 => bincode::decode_from_slice(bytes, config::<{ 8 * 0x40_0000 }>()),
        0x40_0001..=0x100_0000 => bincode::decode_from_slice(bytes, config::<{ 8 * 0x100_0000 }>()),
        _ => bincode::decode_from_slice(bytes, config::<{ 8 * VALUE_BYTES_MAX }>()),
    };
    result.map_err(|error| CodecError::Malformed { reason: explain(error) })
}

/// Says in words what is wrong with the bytes. The errors of bincode that have no text of their own
/// concern types that this project does not have.
fn explain(error: DecodeError) -> String {
    match error {
        DecodeError::UnexpectedEnd { .. } => "the bytes end before the value does".to_owned(),
        DecodeError::LimitExceeded => {
            "a length is larger than the bytes that follow can hold".to_owned()
        }
        DecodeError::UnexpectedVariant { found, .. } => {
            format!("{found} is not the number of a variant")
        }
        DecodeError::InvalidBooleanValue(found) => {
            format!("{found} is not a boolean, expected 0 or 1")
        }
        DecodeError::Utf8 { .. } => "a text is not UTF-8".to_owned(),
        DecodeError::OutsideUsizeRange(length) => {
            format!("the length {length} is too large for this machine")
        }
        DecodeError::OtherString(reason) => reason,
        DecodeError::Other(reason) => reason.to_owned(),
        _ => "a value is outside the range of its type".to_owned(),
    }
}

const fn config<const MAX: usize>() -> Configuration<LittleEndian, Fixint, Limit<MAX>> {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<MAX>()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
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

    #[test]
    fn a_length_claims_at_most_a_small_multiple_of_the_bytes_given() {
        const LEAST: usize = 32 << 10;
        let refused = |bytes: &[u8]| match decode_prefix::<Vec<u8>>(bytes) {
            Err(CodecError::Malformed { reason }) => reason.contains("a length is larger"),
            other => panic!("{other:?}"),
        };
        for size in [8, 4_096, 4_097, 70_000, 1 << 20, (1 << 20) + 1, 5 << 20, (16 << 20) + 1] {
            let claim = |length: usize| {
                let mut bytes = encode(&(length as u64));
                bytes.resize(size, 0);
                bytes
            };
            assert!(refused(&claim((32 * size).max(LEAST) + 1)), "{size}");
            assert!(!refused(&claim(7 * size)), "{size}: what items in memory may need");
            let honest = encode(&vec![7u8; size]);
            assert_eq!(decode::<Vec<u8>>(&honest, VALUE_BYTES_MAX), Ok(vec![7; size]));
        }
    }

    #[test]
    fn errors_are_for_people() {
        let rows: [(Result<(), CodecError>, &str); 6] = [
            (
                decode::<u64>(&[1], 9).map(drop),
                "not a valid encoding: the bytes end before the value does",
            ),
            (
                decode::<Option<u8>>(&[2, 0], 9).map(drop),
                "not a valid encoding: 2 is not the number of a variant",
            ),
            (
                decode::<bool>(&[2], 9).map(drop),
                "not a valid encoding: 2 is not a boolean, expected 0 or 1",
            ),
            (
                decode::<Vec<u8>>(&[255; 8], 9).map(drop),
                "not a valid encoding: a length is larger than the bytes that follow can hold",
            ),
            (
                decode::<String>(&encode(&vec![0xffu8]), 9).map(drop),
                "not a valid encoding: a text is not UTF-8",
            ),
            (decode::<u8>(&[1, 2], 9).map(drop), "1 bytes after the end of the value"),
        ];
        for (result, expected) in rows {
            assert_eq!(result.unwrap_err().to_string(), expected);
        }
    }
}
