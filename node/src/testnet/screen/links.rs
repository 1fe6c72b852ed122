//! The mesh: which nodes are connected, which links are cut, and which have latency.

use ratatui_core::layout::Rect;

use super::canvas::{Canvas, Look, padded};
use super::choices::Choices;
use super::heading;
use super::layout::Pane;
use super::nodes::letter;
use super::text::width;
use crate::testnet::overview::{Overview, State};

/// Columns of a cell with its gap, where there is room for units, and where there is not.
const WIDE: usize = 6;
const NARROW: usize = 4;
/// Letter, name and gap of a row.
const LABEL_MIN: usize = 8;
const LABEL_MAX: usize = 16;

/// The state of a link, seen from the first node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// One of the nodes does not run.
    Down,
    Cut,
    /// Connected, with this latency in milliseconds each way.
    Connected(u32),
    Missing,
}

fn link(overview: &Overview, from: usize, to: usize) -> Link {
    let pair = (from.min(to), from.max(to));
    let is_up = |node: usize| overview.nodes[node].state == State::Running;
    let slow = overview.latency.iter().find(|(one, other, _)| (*one, *other) == pair);
    if !is_up(from) || !is_up(to) {
        Link::Down
    } else if overview.cut.contains(&pair) {
        Link::Cut
    } else if overview.nodes[from].peers.contains(&to) {
        Link::Connected(slow.map_or(0, |(.., ms)| *ms))
    } else {
        Link::Missing
    }
}

impl Link {
    const fn look(self) -> Look {
        match self {
            Self::Connected(0) => Look::Good,
            Self::Connected(_) => Look::Warning,
            Self::Cut => Look::Bad,
            Self::Down | Self::Missing => Look::Dim,
        }
    }

    /// The text of a link, in at most three columns, or in five with units.
    fn text(self, is_wide: bool) -> String {
        match self {
            Self::Connected(0) => "ok".to_owned(),
            Self::Connected(ms @ 1..1_000) if is_wide => format!("{ms}ms"),
            Self::Connected(ms @ 1..1_000) => ms.to_string(),
            Self::Connected(ms @ 1_000..100_000) => format!("{}s", ms / 1_000),
            Self::Connected(_) => "99+".to_owned(),
            Self::Cut => "cut".to_owned(),
            Self::Down => "off".to_owned(),
            Self::Missing => "no".to_owned(),
        }
    }
}

pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, overview: &Overview, choices: &Choices) {
    let count = overview.nodes.len();
    let longest = overview.nodes.iter().map(|node| width(&node.name) + 3).max().unwrap_or(0);
    let columns = usize::from(area.width);
    let cell = match columns >= LABEL_MIN + count * WIDE {
        true => WIDE,
        false => NARROW,
    };
    let has_room = usize::from(area.height) > count && columns >= LABEL_MIN + count * cell;
    if !has_room || count < 2 {
        return draw_chosen(canvas, area, overview, choices);
    }
    let label = longest.clamp(LABEL_MIN, LABEL_MAX).min(columns - count * cell);
    draw_matrix(canvas, area, overview, choices, (label, cell));
}

/// A row for each node and a column for each node.
fn draw_matrix(
    canvas: &mut Canvas<'_>,
    area: Rect,
    overview: &Overview,
    choices: &Choices,
    (label, cell): (usize, usize),
) {
    let is_chosen = choices.pane == Pane::Links;
    let mut text = padded(&heading("Links", "", is_chosen), label, false);
    for to in 0..overview.nodes.len() {
        text += &padded(&letter(to).to_string(), cell, false);
    }
    let is_wide = cell == WIDE;
    let has_slow = overview.latency.iter().any(|(.., ms)| *ms > 0);
    let unit = " numbers are ms";
    if has_slow && !is_wide && usize::from(area.width) >= width(&text) + unit.len() {
        text += unit;
    }
    canvas.heading(area, &text, is_chosen);
    let chosen = choices.chosen(overview);
    for (row, (from, node)) in (1..).zip(overview.nodes.iter().enumerate()) {
        let look = if from == chosen { Look::Bold } else { Look::Plain };
        let name = padded(&format!("{} {}", letter(from), node.name), label - 1, false);
        canvas.put(area, (0, row), &name, look);
        for to in 0..overview.nodes.len() {
            let column = u16::try_from(label + to * cell).unwrap_or(u16::MAX);
            let (text, look) = match from == to {
                true => ("·".to_owned(), Look::Dim),
                false => {
                    let link = link(overview, from, to);
                    (link.text(is_wide), link.look())
                }
            };
            canvas.put(area, (column, row), &text, look);
        }
    }
}

/// The links of the chosen node, where the matrix has no room.
fn draw_chosen(canvas: &mut Canvas<'_>, area: Rect, overview: &Overview, choices: &Choices) {
    let is_chosen = choices.pane == Pane::Links;
    let chosen = choices.chosen(overview);
    let Some(node) = overview.nodes.get(chosen) else {
        canvas.heading(area, &heading("Links", "", is_chosen), is_chosen);
        canvas.put(area, (0, 1), "no node yet", Look::Dim);
        return;
    };
    let title = heading("Links", &format!("of {} {}", letter(chosen), node.name), is_chosen);
    canvas.heading(area, &title, is_chosen);
    let others = (0..overview.nodes.len()).filter(|other| *other != chosen);
    let links: Vec<(usize, Link)> =
        others.map(|other| (other, link(overview, chosen, other))).collect();
    let letters = |is: &dyn Fn(Link) -> bool| -> String {
        links.iter().filter(|(_, link)| is(*link)).map(|(other, _)| letter(*other)).collect()
    };
    let pairs = overview.nodes.len() * overview.nodes.len().saturating_sub(1) / 2;
    let cut = overview.cut.len();
    let rows = [
        ("linked to ", letters(&|link| matches!(link, Link::Connected(_))), Look::Good),
        ("cut from  ", letters(&|link| link == Link::Cut), Look::Bad),
        ("slow to   ", letters(&|link| matches!(link, Link::Connected(1..))), Look::Warning),
        ("all links ", format!("{cut} of {pairs} pairs are cut"), Look::Plain),
    ];
    for (row, (label, text, look)) in (1..).zip(rows) {
        let (text, look) = match text.is_empty() {
            true => ("none", Look::Dim),
            false => (&*text, look),
        };
        canvas.row(area, row, &[(label, Look::Dim), (text, look)]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_cut_link_is_cut_whatever_its_latency() {
        let mut overview = sample::four();
        overview.cut = vec![(0, 2)];
        overview.latency = vec![(0, 1, 100), (0, 2, 100)];
        assert_eq!(link(&overview, 0, 1), Link::Connected(100));
        assert_eq!(link(&overview, 1, 0), Link::Connected(100));
        assert_eq!(link(&overview, 2, 0), Link::Cut);
        assert_eq!(link(&overview, 2, 1), Link::Connected(0));
        overview.nodes[1].peers.clear();
        assert_eq!(link(&overview, 1, 2), Link::Missing);
        overview.nodes[1].state = State::Killed;
        assert_eq!(link(&overview, 2, 1), Link::Down);
    }

    #[test]
    fn texts_fit_their_cells() {
        for ms in [0, 1, 999, 1_000, 99_999, 100_000, u32::MAX] {
            assert!(width(&Link::Connected(ms).text(false)) < NARROW);
            assert!(width(&Link::Connected(ms).text(true)) < WIDE);
        }
        assert_eq!(Link::Connected(999).text(true), "999ms");
        assert_eq!(Link::Connected(99_999).text(true), "99s");
    }
}
