//! The table of nodes, and their letters.

use std::time::Duration;

use ledger::api::{SyncState, SyncStatus};
use ratatui_core::layout::Rect;

use super::canvas::{Canvas, Look, padded};
use super::choices::Choices;
use super::layout::Pane;
use super::text::{bytes, number, offset, rate, short, width};
use super::{heading, window};
use crate::testnet::overview::{NodeView, Overview, State};

/// Columns of the table, without the name.
const STATE: usize = 9;
const ROLE: usize = 4;
const HEIGHT: usize = 9;
const ROUND: usize = 5;
const PEERS: usize = 5;
const HISTORY: usize = 12;
const MEMORY: usize = 8;
const CLOCK: usize = 8;
/// All of them, with a space before each.
const FIXED: usize = STATE + ROLE + HEIGHT + ROUND + PEERS + HISTORY + MEMORY + CLOCK + 8;
/// The mark of the chosen node, the letter and a space.
const MARK: usize = 3;
/// Least columns of a name. With them the heading `[Nodes] 11 more` fits.
const NAME_MIN: usize = 7;
/// A longer name is cut even if there is room.
const NAME_MAX: usize = 24;

/// The letter of a node. It stands for the node in the links and in history.
pub(super) fn letter(position: usize) -> char {
    u8::try_from(position)
        .ok()
        .filter(|position| *position < 26)
        .map_or('?', |position| char::from(b'A' + position))
}

/// What a node does, in one word.
pub(super) fn condition(node: &NodeView) -> (&'static str, Look) {
    match (node.state, &node.status, &node.sync) {
        (State::Starting, ..) => ("starting", Look::Warning),
        (State::Killed, ..) => ("killed", Look::Bad),
        (State::Ended, ..) => ("ended", Look::Bad),
        (State::Running, None, _) => ("no answer", Look::Warning),
        (State::Running, Some(status), _) if !status.quorum.ok => ("no quorum", Look::Warning),
        (State::Running, Some(_), Some(sync)) => match sync.state {
            SyncState::Live => ("running", Look::Good),
            SyncState::Idle => ("idle", Look::Warning),
            SyncState::Manifest => ("manifest", Look::Warning),
            SyncState::Chunks => ("chunks", Look::Warning),
            SyncState::Applying => ("applying", Look::Warning),
            SyncState::Snapshot => ("snapshot", Look::Warning),
            SyncState::Tail => ("catch-up", Look::Warning),
        },
        (State::Running, Some(status), None) if status.syncing => ("catch-up", Look::Warning),
        (State::Running, Some(_), None) => ("running", Look::Good),
    }
}

/// The rate at which history comes to a node, or else leaves it.
fn history_rate(sync: &SyncStatus) -> Option<String> {
    let sum = |rates: &mut dyn Iterator<Item = u64>| rates.fold(0, u64::saturating_add);
    let is_fetching =
        matches!(sync.state, SyncState::Manifest | SyncState::Chunks | SyncState::Snapshot);
    let received = sum(&mut sync.peers.iter().map(|peer| peer.fetch_rate));
    let sent = sum(&mut sync.peers.iter().map(|peer| peer.serve_rate));
    match (received, sent) {
        (1.., _) if is_fetching => Some(format!("in {}", rate(received))),
        (_, 1..) => Some(format!("out {}", rate(sent))),
        _ => None,
    }
}

pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, overview: &Overview, choices: &Choices) {
    let chosen = choices.chosen(overview);
    let is_chosen = choices.pane == Pane::Nodes;
    let rows = usize::from(area.height.saturating_sub(1));
    let shown = window(overview.nodes.len(), rows, chosen);
    let hidden = overview.nodes.len() - shown.len();
    let longest = overview.nodes.iter().map(|node| width(&node.name)).max().unwrap_or(0);
    let room = usize::from(area.width).saturating_sub(FIXED + MARK);
    let name = longest.clamp(NAME_MIN, NAME_MAX).min(room);
    // Where nodes are hidden, their number takes the place of the label `role`.
    let mut text = match hidden {
        0 => padded(&heading("Nodes", "", is_chosen), MARK + name, false) + " role",
        _ => {
            let about = format!("{hidden} more");
            padded(&heading("Nodes", &about, is_chosen), MARK + name + 1 + ROLE, false)
        }
    };
    for (label, columns, is_right) in [
        ("state", STATE, false),
        ("height", HEIGHT, true),
        ("round", ROUND, true),
        ("peers", PEERS, true),
        ("history", HISTORY, true),
        ("memory", MEMORY, true),
        ("clock", CLOCK, true),
    ] {
        text += &format!(" {}", padded(label, columns, is_right));
    }
    canvas.heading(area, &text, is_chosen);
    for (row, position) in (1..).zip(shown) {
        let node = &overview.nodes[position];
        draw_node(canvas, area, row, (position, node), name, position == chosen);
    }
    if overview.nodes.is_empty() {
        canvas.put(area, (0, 1), "no node yet", Look::Dim);
    }
}

fn draw_node(
    canvas: &mut Canvas<'_>,
    area: Rect,
    row: u16,
    (position, node): (usize, &NodeView),
    name: usize,
    is_chosen: bool,
) {
    let (condition, look) = condition(node);
    let status = node.status.as_ref();
    let is_up = node.state == State::Running;
    let number_or_dash = |value: Option<String>, columns| {
        format!(" {}", padded(&value.filter(|_| is_up).unwrap_or("-".to_owned()), columns, true))
    };
    let height = status.map(|status| short(status.height, HEIGHT));
    let round = status.map(|status| short(u64::from(status.round), ROUND));
    let peers = status.map(|status| short(u64::from(status.peers), PEERS));
    let history = node.sync.as_ref().and_then(history_rate);
    let memory = node.memory_bytes.map(bytes);
    let clock = status.and_then(|status| status.clock_offset_ms).map(offset);
    let rest = [
        number_or_dash(height, HEIGHT),
        number_or_dash(round, ROUND),
        number_or_dash(peers, PEERS),
        number_or_dash(history, HISTORY),
        number_or_dash(memory, MEMORY),
        number_or_dash(clock, CLOCK),
    ]
    .concat();
    let mark = if is_chosen { ">" } else { " " };
    let look_of_name = if is_chosen { Look::Bold } else { Look::Plain };
    canvas.row(
        area,
        row,
        &[
            (mark, Look::Bold),
            (&letter(position).to_string(), Look::Node(position)),
            (&format!(" {}", padded(&node.name, name, false)), look_of_name),
            (
                &format!(" {}", padded(if node.validator { "val" } else { "full" }, ROLE, false)),
                Look::Plain,
            ),
            (&format!(" {}", padded(condition, STATE, false)), look),
            (&rest, Look::Plain),
        ],
    );
}

/// Where a node can be found.
pub(super) fn identity(node: &NodeView) -> String {
    let process = node.pid.map_or_else(String::new, |pid| format!(", process {pid}"));
    format!("{}{process}, RPC {}", node.name, node.rpc)
}

/// The highest height that any node has, for the title.
pub(super) fn highest(overview: &Overview) -> Option<String> {
    let statuses = overview.nodes.iter().filter_map(|node| node.status.as_ref());
    statuses.map(|status| status.height).max().map(number)
}

/// Number of nodes that run, and of all.
pub(super) fn running(overview: &Overview) -> (String, Look) {
    let all = overview.nodes.len();
    let running = overview.nodes.iter().filter(|node| node.state == State::Running).count();
    let look = if running < all { Look::Warning } else { Look::Plain };
    (format!("{running} of {all} nodes run"), look)
}

/// The age of the last final block that any node has.
pub(super) fn last_block(overview: &Overview, now_ms: u64) -> Option<Duration> {
    let statuses = overview.nodes.iter().filter_map(|node| node.status.as_ref());
    let last = statuses.filter(|status| status.height > 0).map(|status| status.time).max()?;
    Some(Duration::from_millis(now_ms.saturating_sub(last)))
}
