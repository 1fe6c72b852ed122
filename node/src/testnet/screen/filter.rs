//! Lines of a node's log: their parts, and which of them the user wants to see.

use tracing::Level;

use crate::testnet::overview::{LogLine, Overview};

/// A line of a node's log in parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    /// The time of day with milliseconds, UTC; empty if the line has none.
    pub(super) time: &'a str,
    pub(super) level: Option<Level>,
    pub(super) message: &'a str,
}

/// Splits `2026-11-28T15:04:05.123456Z  INFO message`. A line may lack the time, the level or both.
pub(super) fn parts(line: &str) -> Parts<'_> {
    let (first, rest) = line.trim_start().split_once(' ').unwrap_or((line, ""));
    let is_time = first.len() >= 20 && first.ends_with('Z') && first.get(10..11) == Some("T");
    let time = match (is_time, first.get(11..23), first.get(11..19)) {
        (true, Some(time), _) | (true, None, Some(time)) => time,
        _ => "",
    };
    let rest = if time.is_empty() { line } else { rest };
    let (word, message) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
    match word {
        "ERROR" | "WARN" | "INFO" | "DEBUG" | "TRACE" => {
            Parts { time, level: word.parse().ok(), message }
        }
        _ => Parts { time, level: None, message: rest },
    }
}

/// Which lines are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// Only lines of the node at this position.
    pub(super) node: Option<usize>,
    /// Only lines of this level or worse. Lines without a level are shown, such as those of a
    /// panic.
    pub(super) least: Level,
    /// Only lines with this text, whatever the capitals. If it is empty, all lines.
    pub(super) text: String,
}

impl Default for Filter {
    fn default() -> Self {
        Self { node: None, least: Level::TRACE, text: String::new() }
    }
}

impl Filter {
    pub(super) fn admits(&self, line: &LogLine) -> bool {
        let has_text = || line.text.to_lowercase().contains(&self.text.to_lowercase());
        self.node.is_none_or(|node| node == line.node)
            && parts(&line.text).level.is_none_or(|level| level <= self.least)
            && (self.text.is_empty() || has_text())
    }

    /// The filter in words; empty if all lines are shown.
    pub(super) fn describe(&self, overview: &Overview) -> Vec<String> {
        let node = self.node.and_then(|node| overview.nodes.get(node));
        let mut words = Vec::new();
        words.extend(node.map(|node| format!("only {}", node.name)));
        if self.least < Level::DEBUG {
            words.push(match self.least {
                Level::ERROR => "only ERROR".to_owned(),
                least => format!("{least} and worse"),
            });
        }
        if !self.text.is_empty() {
            words.push(format!("with {:?}", self.text));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_time_level_and_message() {
        let full = "2026-11-28T15:04:05.123456Z  INFO node::run: listening";
        let expected = Parts {
            time: "15:04:05.123",
            level: Some(Level::INFO),
            message: "node::run: listening",
        };
        assert_eq!(parts(full), expected);
        for line in [
            "",
            " ",
            "thread 'main' panicked at x.rs:1:",
            "2026-11-28T15:04:05.123456Z",
            "ERRORS happen",
            "2026-11-28Té15:04:05.1234Z x",
            "語語語語語語語語語語Z INFO",
        ] {
            assert_eq!(parts(line).level, None, "{line:?}");
        }
        let short = parts("2026-11-28T15:04:05Z ERROR broken");
        assert_eq!((short.time, short.level), ("15:04:05", Some(Level::ERROR)));
        assert_eq!(parts("WARN x").level, Some(Level::WARN));
    }

    #[test]
    fn filters_are_by_node_level_and_text() {
        let line = |node, text: &str| LogLine { node, text: text.to_owned() };
        let lines = [
            line(0, "2026-11-28T15:04:05.123456Z  INFO Sync begins"),
            line(1, "2026-11-28T15:04:05.123456Z ERROR sync broke"),
            line(1, "2026-11-28T15:04:05.123456Z DEBUG vote"),
            line(1, "thread 'sync' panicked"),
        ];
        let all = Filter::default;
        for (filter, shown) in [
            (all(), &[0, 1, 2, 3][..]),
            (Filter { node: Some(1), ..all() }, &[1, 2, 3]),
            (Filter { least: Level::INFO, ..all() }, &[0, 1, 3]),
            (Filter { least: Level::ERROR, ..all() }, &[1, 3]),
            (Filter { text: "SYNC".to_owned(), ..all() }, &[0, 1, 3]),
            (Filter { node: Some(0), text: "vote".to_owned(), ..all() }, &[]),
        ] {
            let admitted: Vec<usize> =
                (0..lines.len()).filter(|at| filter.admits(&lines[*at])).collect();
            assert_eq!(admitted, shown, "{filter:?}");
        }
    }
}
