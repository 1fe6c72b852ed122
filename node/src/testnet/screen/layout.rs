//! Which pane is where.

use ratatui_core::layout::Rect;

/// The smallest terminal that shows everything.
pub(super) const WIDTH_MIN: u16 = 80;
pub(super) const HEIGHT_MIN: u16 = 24;

/// Columns and rows of a terminal from which on there are two columns of panes.
const TWO_COLUMNS: (u16, u16) = (150, 36);
/// Rows that a pane has at least, its heading included. Together with the rows around the panes and
/// six rows of nodes these are 24.
const LINKS_MIN: u16 = 6;
const HISTORY_MIN: u16 = 3;
const ACCOUNTS_MIN: u16 = 1;
const LOG_MIN: u16 = 3;
/// With two columns of panes: rows planned for history, least rows of the log, and least rows of
/// all panes above the log.
const HISTORY_LARGE: u16 = 6;
const LOG_LARGE: u16 = 8;
const UPPER_MIN: u16 = 20;
/// Least columns of the links beside the blocks. A matrix of four nodes fits with units, and one of
/// six nodes without.
const LINKS_COLUMNS: u16 = 32;

/// A part of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pane {
    Nodes,
    Links,
    Blocks,
    History,
    Accounts,
    Log,
}

impl Pane {
    /// In the order of Tab.
    pub(super) const ALL: [Self; 6] =
        [Self::Nodes, Self::Links, Self::Blocks, Self::History, Self::Accounts, Self::Log];

    /// The pane `steps` further, in a circle.
    pub(super) fn step(self, steps: usize) -> Self {
        let at = Self::ALL.iter().position(|pane| *pane == self).unwrap_or(0);
        Self::ALL[(at + steps) % Self::ALL.len()]
    }
}

/// What the layout depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) nodes: usize,
    pub(super) accounts: usize,
    pub(super) has_load: bool,
    /// The pane that has all the room.
    pub(super) zoomed: Option<Pane>,
}

/// The areas of a frame. None overlaps another.
#[derive(Clone, Debug)]
pub(super) struct Areas {
    pub(super) title: Rect,
    pub(super) load: Rect,
    pub(super) panes: Vec<(Pane, Rect)>,
    /// All panes together.
    pub(super) body: Rect,
    pub(super) note: Rect,
    pub(super) help: Rect,
}

/// Divides a frame; `None` if it is too small.
pub(super) fn areas(frame: Rect, wanted: Wanted) -> Option<Areas> {
    if frame.width < WIDTH_MIN || frame.height < HEIGHT_MIN {
        return None;
    }
    let mut rest = frame;
    let title = take(&mut rest, 1);
    let load = take(&mut rest, u16::from(wanted.has_load));
    let body_height = rest.height - 3;
    let body = take(&mut rest, body_height);
    let note = take(&mut rest, 1);
    let panes = match wanted.zoomed {
        Some(pane) => vec![(pane, body)],
        None if frame.width >= TWO_COLUMNS.0 && frame.height >= TWO_COLUMNS.1 => {
            two_columns(body, wanted)
        }
        None => stack(body, wanted),
    };
    Some(Areas { title, load, panes, body, note, help: rest })
}

/// Rows for a heading and for this many entries.
fn rows(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX).saturating_add(1)
}

fn stack(mut body: Rect, wanted: Wanted) -> Vec<(Pane, Rect)> {
    let least = LINKS_MIN + HISTORY_MIN + ACCOUNTS_MIN + LOG_MIN;
    let nodes = rows(wanted.nodes).clamp(2, body.height - least);
    let mut spare = body.height - least - nodes;
    let mut more = |most: u16, share: u16| {
        let taken = most.min(spare / share);
        spare -= taken;
        taken
    };
    // The log gets a few rows more before any other pane grows.
    let log = LOG_MIN + more(4, 1);
    let links = LINKS_MIN + more(rows(wanted.nodes).max(9).saturating_sub(LINKS_MIN), 2);
    let history = HISTORY_MIN + more(4, 3);
    let accounts = ACCOUNTS_MIN + more(rows(wanted.accounts).saturating_sub(ACCOUNTS_MIN), 2);
    let columns = links_columns(body.width, wanted.nodes, links);
    let nodes = take(&mut body, nodes);
    let (links, blocks) = split(take(&mut body, links), columns);
    let history = take(&mut body, history);
    let accounts = take(&mut body, accounts);
    debug_assert!(body.height >= log, "the log has what is left");
    vec![
        (Pane::Nodes, nodes),
        (Pane::Links, links),
        (Pane::Blocks, blocks),
        (Pane::History, history),
        (Pane::Accounts, accounts),
        (Pane::Log, body),
    ]
}

/// Columns of the links beside the blocks: those of a matrix of all nodes, if that has room.
fn links_columns(width: u16, nodes: usize, height: u16) -> u16 {
    let matrix = rows(nodes).saturating_mul(6).saturating_add(4);
    match rows(nodes) <= height && matrix <= width / 2 {
        true => matrix.max(LINKS_COLUMNS),
        false => LINKS_COLUMNS,
    }
}

/// Nodes, links and history beside blocks and accounts, and the log below in full width.
fn two_columns(mut body: Rect, wanted: Wanted) -> Vec<(Pane, Rect)> {
    let table = rows(wanted.nodes);
    let (nodes, links) = (table.max(2), table.max(LINKS_MIN));
    let upper = nodes.saturating_add(links).saturating_add(HISTORY_LARGE);
    let upper = upper.clamp(UPPER_MIN, body.height - LOG_LARGE);
    let (mut left, mut right) = split(take(&mut body, upper), WIDTH_MIN);
    let most = (upper - HISTORY_MIN) / 2;
    let nodes = take(&mut left, nodes.min(most));
    let links = take(&mut left, links.min(most));
    let accounts = rows(wanted.accounts.saturating_mul(2)).clamp(ACCOUNTS_MIN, upper / 2);
    let blocks = take(&mut right, upper - accounts);
    vec![
        (Pane::Nodes, nodes),
        (Pane::Links, links),
        (Pane::Blocks, blocks),
        (Pane::History, left),
        (Pane::Accounts, right),
        (Pane::Log, body),
    ]
}

/// Takes rows from the top of an area.
fn take(from: &mut Rect, height: u16) -> Rect {
    let height = height.min(from.height);
    let taken = Rect { height, ..*from };
    *from = Rect { y: from.y + height, height: from.height - height, ..*from };
    taken
}

/// Divides an area into a left part with this many columns and the rest, with a column between
/// them.
fn split(area: Rect, columns: u16) -> (Rect, Rect) {
    let columns = columns.min(area.width.saturating_sub(1));
    let left = Rect { width: columns, ..area };
    let right = Rect { x: area.x + columns + 1, width: area.width - columns - 1, ..area };
    (left, right)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_areas_overlap_and_none_is_lost_at_any_size() {
        for (width, height) in
            [(80, 24), (80, 25), (81, 30), (149, 36), (150, 36), (160, 50), (300, 100)]
        {
            for nodes in [0, 1, 4, 5, 16, 99] {
                for accounts in [0, 4, 50] {
                    for has_load in [false, true] {
                        let wanted = Wanted { nodes, accounts, has_load, zoomed: None };
                        check(Rect::new(0, 0, width, height), wanted);
                    }
                }
            }
        }
        let frame = Rect::new(0, 0, 80, 24);
        for pane in Pane::ALL {
            let wanted = Wanted { nodes: 16, accounts: 4, has_load: true, zoomed: Some(pane) };
            let areas = areas(frame, wanted).unwrap();
            assert_eq!(areas.panes, [(pane, areas.body)]);
            // A heading and sixteen nodes.
            assert!(areas.body.height >= 17, "{areas:?}");
        }
        for (width, height) in [(79, 24), (80, 23), (0, 0), (1, 1)] {
            let wanted = Wanted { nodes: 4, accounts: 4, has_load: false, zoomed: None };
            assert!(areas(Rect::new(0, 0, width, height), wanted).is_none());
        }
    }

    fn check(frame: Rect, wanted: Wanted) {
        let areas = areas(frame, wanted).unwrap();
        let mut all = vec![areas.title, areas.load, areas.note, areas.help];
        all.extend(areas.panes.iter().map(|(_, area)| *area));
        let panes: Vec<Pane> = areas.panes.iter().map(|(pane, _)| *pane).collect();
        assert_eq!(panes, Pane::ALL);
        for (at, area) in all.iter().enumerate() {
            assert_eq!(area.intersection(frame), *area, "{area:?} leaves {frame:?}: {wanted:?}");
            let overlaps = all[at + 1..].iter().any(|other| area.intersects(*other));
            assert!(!overlaps, "{all:?} for {wanted:?}");
        }
        assert_eq!(areas.help.height, 2);
        let height = |pane| areas.panes.iter().find(|(other, _)| *other == pane).unwrap().1.height;
        for (pane, least) in [
            (Pane::Nodes, 2),
            (Pane::Links, LINKS_MIN),
            (Pane::Blocks, LINKS_MIN),
            (Pane::History, HISTORY_MIN),
            (Pane::Accounts, ACCOUNTS_MIN),
            (Pane::Log, LOG_MIN),
        ] {
            assert!(height(pane) >= least, "{pane:?} in {frame:?}: {wanted:?}");
        }
        if wanted.nodes <= 5 {
            assert!(usize::from(height(Pane::Nodes)) > wanted.nodes, "all nodes are in sight");
        }
    }
}
