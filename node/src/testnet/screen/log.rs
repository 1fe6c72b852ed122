//! The end of all logs, filtered.

use ratatui_core::layout::Rect;
use tracing::Level;

use super::canvas::{Canvas, Look};
use super::choices::Choices;
use super::filter::{Parts, parts};
use super::heading;
use super::layout::Pane;
use super::nodes::letter;
use super::text::number;
use crate::testnet::overview::{LogLine, Overview};

pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, overview: &Overview, choices: &Choices) {
    let is_chosen = choices.pane == Pane::Log;
    let filter = &choices.filter;
    let lines: Vec<&LogLine> = match &choices.held_log {
        Some(held) => held.iter().filter(|line| filter.admits(line)).collect(),
        None => overview.log.iter().filter(|line| filter.admits(line)).collect(),
    };
    let mut about = vec![match lines.len() {
        1 => "1 line".to_owned(),
        count => format!("{} lines", number(count as u64)),
    }];
    about.extend(filter.describe(overview));
    let rows = usize::from(area.height.saturating_sub(1));
    let end = lines.len().saturating_sub(choices.log_back).max(rows.min(lines.len()));
    if choices.held_log.is_some() {
        about.push(format!("{} newer, End shows them", number((lines.len() - end) as u64)));
    }
    canvas.heading(area, &heading("Log", &about.join(", "), is_chosen), is_chosen);
    if lines.is_empty() {
        let why = match overview.log.is_empty() {
            true => "nothing is logged yet",
            false => "no line passes the filter; c clears it",
        };
        canvas.put(area, (0, 1), why, Look::Dim);
    }
    for (row, line) in (1..).zip(&lines[end.saturating_sub(rows)..end]) {
        draw_line(canvas, area, row, line);
    }
}

fn draw_line(canvas: &mut Canvas<'_>, area: Rect, row: u16, line: &LogLine) {
    let Parts { time, level, message } = parts(&line.text);
    let (word, look) = match level {
        Some(Level::ERROR) => ("ERROR ", Look::Bad),
        Some(Level::WARN) => ("WARN  ", Look::Warning),
        Some(Level::INFO) => ("INFO  ", Look::Good),
        Some(Level::DEBUG) => ("DEBUG ", Look::Dim),
        Some(Level::TRACE) => ("TRACE ", Look::Dim),
        None => ("", Look::Plain),
    };
    let time = if time.is_empty() { String::new() } else { format!("{time} ") };
    canvas.row(
        area,
        row,
        &[
            (&format!("{} ", letter(line.node)), Look::Node(line.node)),
            (&time, Look::Dim),
            (word, look),
            (message, Look::Plain),
        ],
    );
}
