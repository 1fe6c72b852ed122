//! Optional 64-bit numbers as decimal text.

use serde::{Deserialize, Deserializer, Serializer};

/// Writes the number as text, or null.
///
/// # Errors
/// The serializer's errors.
pub fn serialize<S: Serializer>(number: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => serializer.collect_str(number),
        None => serializer.serialize_none(),
    }
}

/// Reads a number from text, or null.
///
/// # Errors
/// If the text is not a decimal number of up to 64 bits.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    struct Number(#[serde(with = "super::decimal")] u64);
    Ok(Option::<Number>::deserialize(deserializer)?.map(|number| number.0))
}
