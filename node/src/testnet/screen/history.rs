//! History of the chosen node: one cell for each segment, with the letter and colour of the peer
//! that supplied most of its chunks.

use std::ops::Range;

use ledger::api::{SyncState, SyncStatus};
use ratatui_core::layout::Rect;

use super::canvas::{Canvas, Look};
use super::choices::Choices;
use super::heading;
use super::layout::Pane;
use super::nodes::letter;
use super::text::{age, number, rate};
use crate::testnet::overview::{NodeView, Overview};

/// A segment as the node has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    /// Applied. `None`: no peer sent chunks of it since the node's start.
    Held(Option<Supplier>),
    /// Some of its chunks have arrived.
    Fetching(Option<Supplier>),
    Missing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Supplier {
    /// The node at this position.
    Node(usize),
    /// A peer outside of this network.
    Other,
}

impl Cell {
    fn sign(self) -> (char, Look) {
        match self {
            Self::Held(None) => ('#', Look::Plain),
            Self::Held(Some(Supplier::Node(node))) => (letter(node), Look::Node(node)),
            Self::Held(Some(Supplier::Other)) => ('*', Look::Plain),
            Self::Fetching(Some(Supplier::Node(node))) => {
                (letter(node).to_ascii_lowercase(), Look::Node(node))
            }
            Self::Fetching(_) => ('+', Look::Plain),
            Self::Missing => ('.', Look::Dim),
        }
    }
}

/// The cells of the segments in a range, in order.
fn cells(sync: &SyncStatus, nodes: &[NodeView], shown: &Range<u64>) -> Vec<Cell> {
    let supplier = |peer: &str| {
        let position = nodes.iter().position(|node| node.peer_id == peer);
        position.map_or(Supplier::Other, Supplier::Node)
    };
    let mut cells: Vec<Cell> = shown
        .clone()
        .map(|index| if index < sync.segments { Cell::Held(None) } else { Cell::Missing })
        .collect();
    let mut set = |index: u64, cell: Cell| {
        let at = index.checked_sub(shown.start).and_then(|at| usize::try_from(at).ok());
        if let Some(place) = at.and_then(|at| cells.get_mut(at)) {
            *place = cell;
        }
    };
    for run in &sync.suppliers {
        let Some(peer) = &run.peer else { continue };
        let cell = Cell::Held(Some(supplier(peer)));
        // The counts are another process's word.
        let end = run.first.saturating_add(run.segments).min(shown.end);
        (run.first.max(shown.start)..end).for_each(|index| set(index, cell));
    }
    for segment in &sync.segment_list {
        if segment.index >= sync.segments && segment.verified > 0 {
            set(segment.index, Cell::Fetching(segment.supplier.as_deref().map(supplier)));
        }
    }
    cells
}

/// The segments in sight: all, or else those around the first one that is not applied.
fn shown(sync: &SyncStatus, room: u64) -> Range<u64> {
    let total = sync.segments_total.max(sync.segments);
    if total <= room {
        return 0..total;
    }
    let start = sync.segments.saturating_sub(room / 4 * 3).min(total - room);
    start..start + room
}

pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, overview: &Overview, choices: &Choices) {
    let is_chosen = choices.pane == Pane::History;
    let chosen = choices.chosen(overview);
    let Some(node) = overview.nodes.get(chosen) else {
        canvas.heading(area, &heading("History", "", is_chosen), is_chosen);
        canvas.put(area, (0, 1), "no node yet", Look::Dim);
        return;
    };
    let of = format!("of {} {}", letter(chosen), node.name);
    let Some(sync) = &node.sync else {
        canvas.heading(area, &heading("History", &of, is_chosen), is_chosen);
        canvas.put(area, (0, 1), "the node does not answer", Look::Dim);
        return;
    };
    let summary = format!("{of}: {}", summary(sync));
    canvas.heading(area, &heading("History", &summary, is_chosen), is_chosen);
    if sync.segments_total.max(sync.segments) == 0 {
        canvas.put(area, (0, 1), "no segment is sealed yet", Look::Dim);
        return;
    }
    // The last row explains the signs.
    let rows = area.height.saturating_sub(2);
    let room = u64::from(area.width) * u64::from(rows);
    let shown = shown(sync, room);
    let cells = cells(sync, &overview.nodes, &shown);
    for (at, cell) in (0u32..).zip(&cells) {
        let (column, row) = (at % u32::from(area.width), at / u32::from(area.width));
        let place = (u16::try_from(column).unwrap_or(0), u16::try_from(row + 1).unwrap_or(0));
        let (sign, look) = cell.sign();
        canvas.put(Rect { width: place.0 + 1, ..area }, place, &sign.to_string(), look);
    }
    let end = sync.segments_total.max(sync.segments);
    if shown.start > 0 {
        canvas.put(Rect { width: 1, ..area }, (0, 1), "…", Look::Plain);
    }
    if shown.end < end && rows > 0 {
        canvas.put(area, (area.width - 1, rows), "…", Look::Plain);
    }
    let used = u16::try_from(cells.len().div_ceil(usize::from(area.width))).unwrap_or(rows);
    draw_legend(canvas, area, used + 1, overview, &cells);
}

/// Draws what each sign in sight stands for.
fn draw_legend(canvas: &mut Canvas<'_>, area: Rect, row: u16, overview: &Overview, cells: &[Cell]) {
    let mut texts: Vec<(String, Look)> = Vec::new();
    let mut name =
        |sign: &str, meaning: &str, look| texts.push((format!("{sign} {meaning}  "), look));
    let has = |cell: &dyn Fn(&Cell) -> bool| cells.iter().any(cell);
    for (position, node) in overview.nodes.iter().enumerate() {
        let is_its = |cell: &Cell| match cell {
            Cell::Held(supplier) | Cell::Fetching(supplier) => {
                *supplier == Some(Supplier::Node(position))
            }
            Cell::Missing => false,
        };
        if has(&is_its) {
            name(&letter(position).to_string(), &node.name, Look::Node(position));
        }
    }
    let is_lettered = |cell: &Cell| matches!(cell, Cell::Fetching(Some(Supplier::Node(_))));
    let is_other = |cell: &Cell| matches!(cell, Cell::Fetching(None | Some(Supplier::Other)));
    let arriving = match (has(&is_lettered), has(&is_other)) {
        (true, true) => "abc+",
        (true, false) => "abc",
        (false, _) => "+",
    };
    for (is_there, sign, meaning) in [
        (has(&is_lettered) || has(&is_other), arriving, "arriving"),
        (has(&|cell| *cell == Cell::Held(Some(Supplier::Other))), "*", "other peer"),
        (has(&|cell| *cell == Cell::Held(None)), "#", "own"),
        (has(&|cell| *cell == Cell::Missing), ".", "missing"),
    ] {
        if is_there {
            name(sign, meaning, Look::Plain);
        }
    }
    let texts: Vec<(&str, Look)> = texts.iter().map(|(text, look)| (&**text, *look)).collect();
    canvas.row(area, row, &texts);
}

/// How much of history is here, and how fast the rest comes.
fn summary(sync: &SyncStatus) -> String {
    let total = sync.segments_total.max(sync.segments);
    let mut parts = vec![match sync.segments < total {
        true => format!("{} of {} segments", number(sync.segments), number(total)),
        false => format!("{} segments", number(total)),
    }];
    if matches!(sync.state, SyncState::Manifest | SyncState::Chunks | SyncState::Applying) {
        if sync.chunks_total > 0 {
            let (verified, all) = (number(sync.chunks_verified), number(sync.chunks_total));
            parts.push(format!("{verified} of {all} chunks"));
        }
        parts.extend(sync.rate.map(rate));
        let left = |ms: u64| format!("{} left", age(std::time::Duration::from_millis(ms)));
        parts.extend(sync.eta_ms.map(left));
        parts.extend(sync.reason.clone());
    }
    parts.join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::sample;
    use super::*;

    fn signs(sync: &SyncStatus, nodes: &[NodeView], shown: Range<u64>) -> String {
        cells(sync, nodes, &shown).iter().map(|cell| cell.sign().0).collect()
    }

    #[test]
    fn each_segment_has_the_letter_of_its_supplier() {
        let overview = sample::syncing();
        let sync = overview.nodes[4].sync.clone().unwrap();
        assert_eq!(signs(&sync, &overview.nodes, 0..20), "#AAABBC*cb+.........");
        assert_eq!(signs(&sync, &overview.nodes, 3..9), "ABBC*c");
        // A claim without end costs nothing.
        let mut sync = sync;
        sync.suppliers[0].segments = u64::MAX;
        sync.suppliers[1].first = u64::MAX;
        sync.suppliers[1].segments = u64::MAX;
        signs(&sync, &overview.nodes, 0..20);
    }

    #[test]
    fn the_segments_that_are_fetched_are_in_sight() {
        let overview = sample::syncing();
        let mut sync = overview.nodes[4].sync.clone().unwrap();
        for (segments, total, room, expected) in [
            (8, 20, 80, 0..20),
            (8, 20, 20, 0..20),
            (8, 200, 20, 0..20),
            (100, 200, 20, 85..105),
            (199, 200, 20, 180..200),
            (200, 200, 20, 180..200),
            (200, 0, 20, 180..200),
            (5, 9, 0, 5..5),
            (u64::MAX, u64::MAX, 80, u64::MAX - 80..u64::MAX),
        ] {
            (sync.segments, sync.segments_total) = (segments, total);
            assert_eq!(shown(&sync, room), expected, "{segments} {total} {room}");
        }
    }
}
