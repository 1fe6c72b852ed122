//! Numbers with a unit, such as `1.5 MiB`, and sizes in bytes.

use serde::{Deserialize, Deserializer, Serializer, de};

/// Units of sizes and their bytes.
const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Parses a size with its unit: `20GiB`, `1.5 TB`. `None` for any other text. A bare number is
/// refused, since it is rather meant as GiB than as bytes.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    text.trim().ends_with('B').then(|| parse_scaled(text, &UNITS))?
}

/// A size as [`parse_size`] reads it.
pub(super) fn size_text(bytes: u64) -> String {
    const POWERS: [(&str, u64); 4] =
        [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = POWERS.into_iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    let (name, unit) = unit.unwrap_or(("B", 1));
    format!("{}{name}", bytes / unit)
}

pub(super) fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&size_text(*bytes))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    let expected = || {
        let shown: String = text.chars().take(200).collect();
        de::Error::custom(format!("{shown:?} is no size, expected such as \"20GiB\" or \"500 GB\""))
    };
    parse_size(&text).ok_or_else(expected)
}

/// A number and one of these units, each with what it stands for: `5 MB`, `1.5MiB`. Without a unit
/// it is a whole number. A part of the smallest unit is dropped. `None` for any other text, and for
/// a number that is too large.
pub(super) fn parse_scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim_start());
    let (whole, part) = number.split_once('.').map_or((number, None), |(a, b)| (a, Some(b)));
    let whole: u64 = whole.parse().ok()?;
    if unit.is_empty() && part.is_none() {
        return Some(whole);
    }
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    let part = part.map_or(Some(0), |digits| fraction(digits, *scale))?;
    whole.checked_mul(*scale)?.checked_add(part)
}

/// The part of a unit that the digits after the point stand for, rounded down.
fn fraction(digits: &str, scale: u64) -> Option<u64> {
    /// A tenth digit of a GiB stands for less than a byte, and nobody needs it of a TiB.
    const DIGITS_MAX: usize = 9;
    if digits.is_empty() || digits.len() > DIGITS_MAX {
        return None;
    }
    let value: u128 = digits.parse().ok()?;
    let steps = digits.bytes().fold(1u128, |steps, _| steps.saturating_mul(10));
    u64::try_from(value.saturating_mul(u128::from(scale)).checked_div(steps)?).ok()
}
