//! Draws a frame: a function of what there is and of what the user has chosen.

use ratatui_core::layout::Rect;
use ratatui_core::terminal::Frame;

use super::canvas::{Canvas, Look, columns};
use super::choices::Choices;
use super::help;
use super::layout::{Areas, HEIGHT_MIN, Pane, WIDTH_MIN, Wanted, areas};
use super::prompt::Prompt;
use super::text::{age, cut, number, span, tail, width};
use super::{history, ledger, links, log, nodes};
use crate::testnet::overview::{LoadView, Overview};

/// Least number of columns for the answer of a prompt.
const ANSWER_MIN: usize = 30;

/// Draws a frame.
pub(super) fn draw(frame: &mut Frame<'_>, overview: &Overview, choices: &Choices) {
    let area = frame.area();
    let wanted = Wanted {
        nodes: overview.nodes.len(),
        accounts: overview.accounts.len(),
        has_load: overview.load.is_some(),
        zoomed: choices.is_zoomed.then_some(choices.pane),
    };
    let Some(areas) = areas(area, wanted) else {
        return draw_too_small(&mut Canvas::new(frame.buffer_mut(), choices.has_colours), area);
    };
    let canvas = &mut Canvas::new(frame.buffer_mut(), choices.has_colours);
    draw_title(canvas, areas.title, overview, choices);
    if let Some(load) = &overview.load {
        draw_load(canvas, areas.load, load);
    }
    match choices.shows_help {
        true => help::draw_page(canvas, areas.body),
        false => draw_panes(canvas, &areas, overview, choices),
    }
    let cursor = draw_foot(canvas, &areas, overview, choices);
    if let Some(column) = cursor {
        frame.set_cursor_position((areas.note.x + column, areas.note.y));
    }
}

fn draw_panes(canvas: &mut Canvas<'_>, areas: &Areas, overview: &Overview, choices: &Choices) {
    for (pane, area) in &areas.panes {
        let draw = match pane {
            Pane::Nodes => nodes::draw,
            Pane::Links => links::draw,
            Pane::Blocks => ledger::draw_blocks,
            Pane::History => history::draw,
            Pane::Accounts => ledger::draw_accounts,
            Pane::Log => log::draw,
        };
        draw(canvas, *area, overview, choices);
    }
}

/// The state of the network, the most important part first. Parts without room are left out.
fn draw_title(canvas: &mut Canvas<'_>, area: Rect, overview: &Overview, choices: &Choices) {
    let mut parts = vec![("Cairn".to_owned(), Look::Bold), nodes::running(overview)];
    match nodes::highest(overview) {
        Some(height) => parts.push((format!("height {height}"), Look::Bold)),
        None => parts.push(("no node answers".to_owned(), Look::Warning)),
    }
    if let Some(last) = nodes::last_block(overview, choices.now_ms) {
        parts.push((format!("block {} ago", span(last)), Look::Plain));
    }
    parts.push((format!("{} transfers/s", number(overview.rate)), Look::Plain));
    parts.push((format!("up {}", age(overview.uptime)), Look::Dim));
    if !overview.chain.is_empty() {
        parts.push((format!("chain {}", cut(&overview.chain, 20)), Look::Dim));
    }
    let mut column = 0;
    for (text, look) in parts {
        if column + columns(&text) <= area.width {
            column = canvas.put(area, (column, 0), &text, look) + 2;
        }
    }
}

fn draw_load(canvas: &mut Canvas<'_>, area: Rect, load: &LoadView) {
    let ms = |ms| span(std::time::Duration::from_millis(ms));
    let text = format!(
        "Load {}/s: {} sent, {} final, half within {}, 99% within {}",
        number(u64::from(load.per_second)),
        number(load.sent),
        number(load.final_),
        ms(load.p50_ms),
        ms(load.p99_ms)
    );
    canvas.put(area, (0, 0), &text, Look::Warning);
}

/// The note or the prompt, and the keys. Returns the column of the cursor, if something is typed.
fn draw_foot(
    canvas: &mut Canvas<'_>,
    areas: &Areas,
    overview: &Overview,
    choices: &Choices,
) -> Option<u16> {
    if let Some(prompt) = &choices.prompt {
        help::draw_prompt_keys(canvas, areas.help, prompt);
        return Some(draw_prompt(canvas, areas.note, prompt));
    }
    let node = overview.nodes.get(choices.chosen(overview));
    match choices.note.as_ref().or_else(|| overview.notes.back()) {
        Some(note) => canvas.put(areas.note, (0, 0), note, Look::Bold),
        None => canvas.put(
            areas.note,
            (0, 0),
            &node.map(nodes::identity).unwrap_or_default(),
            Look::Dim,
        ),
    };
    help::draw_keys(canvas, areas.help);
    None
}

/// Draws the question, and as much of the answer as there is room for around the cursor. Returns
/// the column of the cursor.
fn draw_prompt(canvas: &mut Canvas<'_>, area: Rect, prompt: &Prompt) -> u16 {
    let label = format!("{}: ", prompt.question.label());
    let room = usize::from(area.width).saturating_sub(width(&label)).max(ANSWER_MIN);
    let before: String = prompt.text.chars().take(prompt.cursor).collect();
    let after: String = prompt.text.chars().skip(prompt.cursor).collect();
    // A column stays free for the cursor.
    let before = tail(&before, room - 1);
    let after = cut(&after, (room - 1).saturating_sub(width(&before)));
    let look = if prompt.is_proposal { Look::Chosen } else { Look::Plain };
    canvas.row(area, 0, &[(&label, Look::Bold), (&before, look), (&after, look)]);
    columns(&label) + columns(&before)
}

fn draw_too_small(canvas: &mut Canvas<'_>, area: Rect) {
    let size = format!("this terminal has {} by {}", area.width, area.height);
    let needs = format!("the screen needs {WIDTH_MIN} by {HEIGHT_MIN}");
    for (row, text) in (0..).zip([&*needs, &size, "make it larger,", "or press q and use --plain"])
    {
        canvas.put(area, (0, row), text, Look::Plain);
    }
}
