//! 64-bit numbers as decimal text.

use serde::{Deserialize, Deserializer, Serializer};

/// Writes the number as text.
///
/// # Errors
/// The serializer's errors.
pub fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

/// Reads a number from text.
///
/// # Errors
/// If the text is not a decimal number of up to 64 bits.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    let canonical = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = canonical.then(|| text.parse().ok()).flatten();
    number.ok_or_else(|| {
        serde::de::Error::custom(format!("expected a decimal number as text, got {text:?}"))
    })
}
