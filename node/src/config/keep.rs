//! How much of history a node keeps, as people write it.

use protocol::archive::Keep;
use serde::{Deserialize, Deserializer, Serializer, de};

use super::size::{parse_size, size_text};

/// The text does not say how much to keep.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} does not say how much to keep, expected \"full\", a size such as \"20GiB\" or \
     \"500 GB\", or \"recent 64 eras\""
)]
pub struct KeepError {
    text: String,
}

/// Parses how much of history to keep: `full`, a number of bytes with a unit, or `recent N eras`.
/// Nothing at all (0) is refused.
///
/// # Errors
/// The text, and what was expected.
pub fn parse_keep(text: &str) -> Result<Keep, KeepError> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let keep = match words[..] {
        ["full"] => Some(Keep::Full),
        ["recent", count, "eras"] | ["recent", count @ "1", "era"] => {
            count.parse().ok().filter(|count| *count > 0).map(Keep::Recent)
        }
        _ => parse_size(text).filter(|bytes| *bytes > 0).map(Keep::Bytes),
    };
    keep.ok_or_else(|| KeepError { text: text.chars().take(200).collect() })
}

/// How much of history to keep, as [`parse_keep`] reads it.
#[must_use]
pub fn keep_text(keep: Keep) -> String {
    match keep {
        Keep::Full => "full".to_owned(),
        Keep::Bytes(bytes) => size_text(bytes),
        Keep::Recent(1) => "recent 1 era".to_owned(),
        Keep::Recent(eras) => format!("recent {eras} eras"),
    }
}

pub(super) fn serialize<S: Serializer>(keep: &Keep, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&keep_text(*keep))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Keep, D::Error> {
    parse_keep(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_amount_is_read_as_it_is_written() {
        for (keep, text) in [
            (Keep::Full, "full"),
            (Keep::Bytes(20 << 30), "20GiB"),
            (Keep::Bytes((20 << 30) + 1_024), "20971521KiB"),
            (Keep::Bytes(1_000), "1000B"),
            (Keep::Bytes(3 << 40), "3TiB"),
            (Keep::Recent(1), "recent 1 era"),
            (Keep::Recent(64), "recent 64 eras"),
        ] {
            assert_eq!(keep_text(keep), text);
            assert_eq!(parse_keep(text), Ok(keep));
        }
    }

    #[test]
    fn full_a_size_or_the_newest_eras() {
        for (text, keep) in [
            ("full", Some(Keep::Full)),
            (" full ", Some(Keep::Full)),
            ("20GiB", Some(Keep::Bytes(20 << 30))),
            ("20 GiB", Some(Keep::Bytes(20 << 30))),
            ("1.5 TiB", Some(Keep::Bytes(3 << 39))),
            ("0.5TB", Some(Keep::Bytes(500_000_000_000))),
            ("123 B", Some(Keep::Bytes(123))),
            ("recent 64 eras", Some(Keep::Recent(64))),
            ("recent  1 era", Some(Keep::Recent(1))),
            ("", None),
            ("Full", None),
            ("20", None),
            ("20 Gib", None),
            ("GiB", None),
            ("-1 GiB", None),
            ("0 GiB", None),
            ("20000000 TiB", None),
            ("recent", None),
            ("recent 64", None),
            ("recent 2 era", None),
            ("recent 0 eras", None),
            ("recent -1 eras", None),
            ("recent 64 GiB", None),
            ("full 64 eras", None),
        ] {
            assert_eq!(parse_keep(text).ok(), keep, "{text:?}");
        }
        let error = KeepError { text: "half".to_owned() }.to_string();
        assert!(error.starts_with("\"half\" does not say how much to keep, expected"), "{error}");
    }
}
