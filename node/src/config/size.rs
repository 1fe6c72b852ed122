//! Numbers with a unit, such as `1.5 MiB`.

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
