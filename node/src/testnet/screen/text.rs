//! Text for cells of a terminal: harmless, cut by width, and numbers with units.

use std::time::Duration;

use unicode_width::UnicodeWidthChar;

/// The text without anything that a terminal would obey or join: control characters become visible
/// pictures, and characters that change their neighbours are left out.
///
/// This is needed because logs hold text that strangers chose.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter_map(plain_char).collect()
}

fn plain_char(c: char) -> Option<char> {
    match c {
        '\t' => Some(' '),
        // U+2400 to U+2421 are pictures of the control characters of ASCII.
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(c)),
        '\x7f' => Some('\u{2421}'),
        '\u{80}'..='\u{9f}' => Some('\u{fffd}'),
        // Flags and skin colours join with their neighbours.
        '\u{1f1e6}'..='\u{1f1ff}' | '\u{1f3fb}'..='\u{1f3ff}' => Some('\u{fffd}'),
        // Marks, joiners and the direction of writing have no width.
        _ => match c.width() {
            None | Some(0) => None,
            Some(1 | 2) => Some(c),
            // One letter of Khmer takes three columns.
            Some(_) => Some('\u{fffd}'),
        },
    }
}

/// Columns that the text takes.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// The text made harmless, and cut to this many columns. A cut text ends with an ellipsis, unless
/// only spaces are cut off.
pub(super) fn cut(text: &str, columns: usize) -> String {
    let text = plain(text);
    if width(&text) <= columns {
        return text;
    }
    if width(text.trim_end()) <= columns {
        return head(&text, columns).to_owned();
    }
    let mut kept = head(&text, columns.saturating_sub(1)).to_owned();
    if columns > 0 {
        kept.push('…');
    }
    kept
}

/// The longest beginning that takes at most this many columns.
fn head(text: &str, columns: usize) -> &str {
    let mut taken = 0;
    for (at, c) in text.char_indices() {
        taken += c.width().unwrap_or(0);
        if taken > columns {
            return &text[..at];
        }
    }
    text
}

/// The end of the text that takes at most this many columns; an ellipsis leads a cut text.
pub(super) fn tail(text: &str, columns: usize) -> String {
    let text = plain(text);
    if width(&text) <= columns {
        return text;
    }
    let mut taken = 1;
    let mut from = text.len();
    for (at, c) in text.char_indices().rev() {
        taken += c.width().unwrap_or(0);
        if taken > columns {
            break;
        }
        from = at;
    }
    format!("{}{}", if columns > 0 { "…" } else { "" }, &text[from..])
}

/// A whole number in groups of three digits.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A whole number in this many columns (at least 4): all its digits, or else the first of them and
/// a unit, rounded down.
pub(super) fn short(value: u64, columns: usize) -> String {
    let all = number(value);
    if all.len() <= columns {
        return all;
    }
    let (mut whole, mut unit) = (value, "");
    for next in ["k", "M", "G", "T", "P", "E"] {
        (whole, unit) = (whole / 1_000, next);
        if whole < 1_000 {
            break;
        }
    }
    format!("{whole}{unit}")
}

/// An amount in the largest unit that leaves a digit before the point. It has at most three digits,
/// or four if `step` is 1,024.
fn scaled(value: u64, step: u64, units: &[&str]) -> String {
    let (mut unit, mut size) = (0, 1u64);
    while unit + 1 < units.len() && value / size >= step {
        size = size.saturating_mul(step);
        unit += 1;
    }
    let whole = value / size;
    let tenths = u128::from(value % size) * 10 / u128::from(size);
    match whole < 100 && unit > 0 {
        true => format!("{whole}.{tenths} {}", units[unit]),
        false => format!("{whole} {}", units[unit]),
    }
}

/// Bytes of memory.
pub(super) fn bytes(bytes: u64) -> String {
    scaled(bytes, 1_024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// Bytes per second, in at most 8 columns.
pub(super) fn rate(bytes: u64) -> String {
    let rate = scaled(bytes, 1_000, &["B/s", "kB/s", "MB/s", "GB/s", "TB/s", "PB/s", "EB/s"]);
    // 31.5 MB/s becomes 31 MB/s.
    match rate.split_once('.') {
        Some((whole, rest)) if whole.len() > 1 => format!("{whole}{}", &rest[1..]),
        _ => rate,
    }
}

/// A time span in at most 6 columns: one number and its unit.
pub(super) fn span(span: Duration) -> String {
    let (ms, seconds) = (span.as_millis(), span.as_secs());
    match seconds {
        0 => format!("{ms} ms"),
        1..10 => format!("{seconds}.{} s", ms % 1_000 / 100),
        10..100 => format!("{seconds} s"),
        100..6_000 => format!("{} min", seconds / 60),
        6_000..360_000 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", short(seconds / 86_400, 4)),
    }
}

/// How far a clock is ahead, or behind with a minus.
pub(super) fn offset(ms: i64) -> String {
    let sign = if ms < 0 { '-' } else { '+' };
    format!("{sign}{}", span(Duration::from_millis(ms.unsigned_abs())))
}

/// How long something has lasted, in at most two numbers.
pub(super) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3_600);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes} min {} s", seconds % 60),
        (1..48, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} days", number(hours / 24)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        for (text, shown) in [
            ("plain text, ä € 語", "plain text, ä € 語"),
            ("\x1b[2J\x1b]0;title\x07", "␛[2J␛]0;title␇"),
            ("a\tb\nc\rd\0", "a b␊c␍d␀"),
            ("\u{9b}31mred\u{7f}", "\u{fffd}31mred␡"),
            // The direction of writing, a zero width joiner, an accent that would be drawn over.
            ("x\u{202e}y\u{200d}z\u{301}", "xyz"),
            ("\u{1f1e9}\u{1f1ea}", "\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(plain(text), shown, "{text:?}");
        }
        for c in (0..0x11_0000).filter_map(char::from_u32) {
            let shown = plain(&c.to_string());
            assert!(shown.chars().all(|c| !c.is_control()), "{c:?}");
            assert!(shown.chars().count() <= 1 && width(&shown) <= 2, "{c:?}");
        }
    }

    #[test]
    fn a_cut_text_has_its_width_and_an_ellipsis() {
        for (text, columns, shown) in [
            ("node1", 5, "node1"),
            ("node1", 4, "nod…"),
            ("node1", 1, "…"),
            ("node1", 0, ""),
            ("語語語", 6, "語語語"),
            // Half of a wide character does not exist.
            ("語語語", 5, "語語…"),
            ("語語語", 4, "語…"),
            ("", 0, ""),
            ("ab    ", 4, "ab  "),
            ("ab    c", 4, "ab …"),
            ("\x1b\x1b\x1b", 2, "␛…"),
        ] {
            assert_eq!(cut(text, columns), shown, "{text:?} {columns}");
            assert!(width(&cut(text, columns)) <= columns);
        }
        for (text, columns, shown) in
            [("node1", 5, "node1"), ("node1", 4, "…de1"), ("語語語", 4, "…語"), ("ab", 0, "")]
        {
            assert_eq!(tail(text, columns), shown, "{text:?} {columns}");
        }
    }

    #[test]
    fn numbers_have_units_and_stay_short() {
        for (value, all) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(number(value), all);
        }
        for (value, columns, text) in [
            (1_234_567, 9, "1,234,567"),
            (12_345_678, 9, "12M"),
            (999_999, 6, "999k"),
            (u64::MAX, 9, "18E"),
            (12_345, 5, "12k"),
        ] {
            assert_eq!(short(value, columns), text);
        }
        for (value, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (20_132_659, "19.1 MiB"),
            (1_072_693_248, "1023 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(bytes(value), text);
            assert!(width(&bytes(value)) <= 8);
        }
        for (value, text) in [
            (0, "0 B/s"),
            (999, "999 B/s"),
            (4_812_345, "4.8 MB/s"),
            (31_500_000, "31 MB/s"),
            (999_999, "999 kB/s"),
            (u64::MAX, "18 EB/s"),
        ] {
            assert_eq!(rate(value), text);
            assert!(width(&rate(value)) <= 8);
        }
    }

    #[test]
    fn times_are_short() {
        for (ms, text) in [
            (0, "0 ms"),
            (387, "387 ms"),
            (1_000, "1.0 s"),
            (9_999, "9.9 s"),
            (10_000, "10 s"),
            (100_000, "1 min"),
            (5_999_000, "99 min"),
            (6_000_000, "1 h"),
            (u64::MAX, "213G d"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), text);
            assert!(width(&span(Duration::from_millis(ms))) <= 6);
        }
        for (ms, text) in [(0, "+0 ms"), (-3, "-3 ms"), (1_500, "+1.5 s"), (i64::MIN, "-106G d")] {
            assert_eq!(offset(ms), text);
        }
        for (seconds, text) in [(0, "0 s"), (192, "3 min 12 s"), (7_260, "2 h 1 min")] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }
}
