//! Values on the command line of a network: durations, groups and pairs of nodes.

use std::time::Duration;

/// Reads a duration: a number and its unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{text:?} is no duration: expected a number and ms, s or m, as in 100ms");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => number / 1_000.0,
        "s" => number,
        "m" => number * 60.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// The milliseconds of a latency, at most [`LATENCY_MAX`].
pub(super) fn latency(text: &str) -> Result<u32, String> {
    let delay = duration(text)?;
    u32::try_from(delay.as_millis())
        .ok()
        .filter(|_| delay <= LATENCY_MAX)
        .ok_or_else(|| format!("{text} is too long: expected at most {} s", LATENCY_MAX.as_secs()))
}

/// Longest latency of a link. With it, a question and its answer take 20 s together. Nodes give up
/// on a peer that takes much longer.
pub(super) const LATENCY_MAX: Duration = Duration::from_secs(10);

/// Groups of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Groups(pub(super) Vec<Vec<String>>);

/// Reads groups: names with commas between them, groups with slashes between them.
pub(super) fn groups(text: &str) -> Result<Groups, String> {
    let groups: Vec<Vec<String>> = text
        .split('/')
        .map(|group| group.split(',').map(|name| name.trim().to_owned()).collect())
        .collect();
    let names: Vec<&String> = groups.iter().flatten().collect();
    if names.iter().any(|name| name.is_empty()) || groups.len() < 2 {
        return Err(format!(
            "{text:?} is no partition: expected two or more groups, as in node1,node2/node3,node4"
        ));
    }
    match names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        Some((_, twice)) => Err(format!("{twice} is named twice: a node is in one group at most")),
        None => Ok(Groups(groups)),
    }
}

/// Two nodes, or all pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Between(pub(super) Option<(String, String)>);

/// Reads a pair: `all`, or two names with a hyphen between them.
pub(super) fn between(text: &str) -> Result<Between, String> {
    if text == "all" {
        return Ok(Between(None));
    }
    match text.split_once('-') {
        Some((a, b)) if a == b => Err(format!("{a} has no link to itself: expected two nodes")),
        Some((a, b)) if !a.is_empty() && !b.is_empty() && !b.contains('-') => {
            Ok(Between(Some((a.to_owned(), b.to_owned()))))
        }
        _ => Err(format!("{text:?} is no pair of nodes: expected node1-node2, or all")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, ms) in [
            ("100ms", Some(100)),
            ("0ms", Some(0)),
            ("2s", Some(2_000)),
            ("0.5s", Some(500)),
            ("1.5m", Some(90_000)),
            ("100", None),
            ("ms", None),
            ("-1s", None),
            ("1 s", None),
            ("1h", None),
            ("1.2.3s", None),
            ("99999999999999999999s", None),
            ("", None),
        ] {
            let read = duration(text).ok().map(|read| u64::try_from(read.as_millis()).unwrap());
            assert_eq!(read, ms, "{text:?}");
        }
        assert_eq!(latency("10s"), Ok(10_000));
        assert!(latency("11s").unwrap_err().contains("at most 10 s"));
    }

    #[test]
    fn groups_name_each_node_once() {
        let read = groups("node1,node2/node3").unwrap();
        assert_eq!(read.0, [vec!["node1", "node2"], vec!["node3"]]);
        for (text, says) in [
            ("", "two or more groups"),
            ("node1,node2", "two or more groups"),
            ("node1/", "two or more groups"),
            ("node1,/node2", "two or more groups"),
            ("node1,node2/node2", "node2 is named twice"),
            ("node1,node1/node2", "node1 is named twice"),
        ] {
            let error = groups(text).unwrap_err();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }

    #[test]
    fn pairs_are_two_nodes_or_all() {
        assert_eq!(between("all"), Ok(Between(None)));
        assert_eq!(between("a-b"), Ok(Between(Some(("a".into(), "b".into())))));
        for text in ["", "a", "a-", "-b", "a-b-c", "a-a"] {
            assert!(between(text).is_err(), "{text:?}");
        }
    }
}
