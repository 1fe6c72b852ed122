//! Rates of traffic, in bytes a second: a plain number, or text with a unit.

use std::fmt;

use serde::{Deserializer, Serializer, de};

use super::SyncConfig;
use super::size::parse_scaled;

/// What a rate may be, for error messages.
const EXPECTED: &str = "a whole number of bytes a second, or a number with B/s, kB/s, MB/s, GB/s, \
                        KiB/s, MiB/s or GiB/s, such as \"5 MB/s\"";
/// Units and their bytes a second.
const UNITS: [(&str, u64); 7] = [
    ("B/s", 1),
    ("kB/s", 1_000),
    ("MB/s", 1_000_000),
    ("GB/s", 1_000_000_000),
    ("KiB/s", 1 << 10),
    ("MiB/s", 1 << 20),
    ("GiB/s", 1 << 30),
];

/// The text is not a rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {EXPECTED}")]
pub(crate) struct RateError;

/// Parses a rate, in bytes a second: `5000000`, `5 MB/s`, `1.5MiB/s`. A part of a byte is dropped.
///
/// # Errors
/// What was expected.
pub(crate) fn parse_rate(text: &str) -> Result<u64, RateError> {
    parse_scaled(text, &UNITS).ok_or(RateError)
}

pub(super) fn serialize<S: Serializer>(
    rate: &Option<u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    // 0 means unlimited. It is written, so that the key is seen.
    serializer.serialize_u64(rate.unwrap_or(0))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    deserializer.deserialize_any(Rate).map(SyncConfig::limit)
}

struct Rate;

impl de::Visitor<'_> for Rate {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
        Ok(number)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
        u64::try_from(number).map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        parse_rate(text).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_with_or_without_a_unit() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("5000000", Some(5_000_000)),
            ("5 MB/s", Some(5_000_000)),
            ("5MB/s", Some(5_000_000)),
            (" 20 kB/s ", Some(20_000)),
            ("1 GB/s", Some(1_000_000_000)),
            ("64 KiB/s", Some(65_536)),
            ("1.5 MiB/s", Some(1_572_864)),
            ("2 GiB/s", Some(2 << 30)),
            ("0.000001 MB/s", Some(1)),
            ("123 B/s", Some(123)),
            ("0 MB/s", Some(0)),
            ("", None),
            ("MB/s", None),
            ("5 MB", None),
            ("5 Mb/s", None),
            ("5 mb/s", None),
            ("5 MBit/s", None),
            ("5 M", None),
            ("-5 MB/s", None),
            ("1.5", None),
            (".5 MB/s", None),
            ("1. MB/s", None),
            ("1.2.3 MB/s", None),
            ("1,5 MB/s", None),
            ("1e6", None),
            ("0.1234567890 MB/s", None),
            ("99999999999 GB/s", None),
            ("18446744073709551616", None),
        ] {
            assert_eq!(parse_rate(text).ok(), bytes, "{text:?}");
        }
        assert!(RateError.to_string().contains("KiB/s, MiB/s or GiB/s"), "{RateError}");
    }
}
