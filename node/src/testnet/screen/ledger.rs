//! The last blocks and the accounts.

use std::time::Duration;

use ratatui_core::layout::Rect;

use super::canvas::{Canvas, Look, padded};
use super::choices::Choices;
use super::heading;
use super::layout::Pane;
use super::text::{cut, number, short, span, width};
use crate::testnet::overview::{AccountView, BlockView, Overview};

/// Columns of the table of blocks, without the proposer.
const HEIGHT: usize = 8;
const TRANSFERS: usize = 9;
const FINALITY: usize = 6;
const AGE: usize = 6;
/// Columns between two accounts in one row.
const GAP: usize = 3;

pub(super) fn draw_blocks(
    canvas: &mut Canvas<'_>,
    area: Rect,
    overview: &Overview,
    choices: &Choices,
) {
    let is_chosen = choices.pane == Pane::Blocks;
    let mut title = padded(&heading("Blocks", "", is_chosen), HEIGHT, false);
    for (label, columns) in [("transfers", TRANSFERS), ("final", FINALITY), ("age", AGE)] {
        title += &format!(" {}", padded(label, columns, true));
    }
    canvas.heading(area, &format!("{title} by"), is_chosen);
    if overview.blocks.is_empty() {
        canvas.put(area, (0, 1), "no block yet", Look::Dim);
        return;
    }
    let scrolled = if is_chosen { choices.scrolled } else { 0 };
    let rows = usize::from(area.height.saturating_sub(1));
    let first = scrolled.min(overview.blocks.len().saturating_sub(rows));
    for (row, block) in (1..area.height).zip(overview.blocks.iter().skip(first)) {
        canvas.put(area, (0, row), &block_text(block, choices.now_ms), Look::Plain);
    }
}

fn block_text(block: &BlockView, now_ms: u64) -> String {
    let age = span(Duration::from_millis(now_ms.saturating_sub(block.time)));
    format!(
        "{} {} {} {} {}",
        padded(&short(block.height, HEIGHT), HEIGHT, true),
        padded(&short(u64::from(block.transfers), TRANSFERS), TRANSFERS, true),
        padded(&block.finality.map_or_else(|| "-".to_owned(), span), FINALITY, true),
        padded(&age, AGE, true),
        block.proposer
    )
}

pub(super) fn draw_accounts(
    canvas: &mut Canvas<'_>,
    area: Rect,
    overview: &Overview,
    choices: &Choices,
) {
    let is_chosen = choices.pane == Pane::Accounts;
    let accounts = &overview.accounts;
    let title = heading("Accounts", "", is_chosen);
    if area.height == 1 {
        let text =
            format!("{title}  {}", flow(accounts, usize::from(area.width) - width(&title) - 2));
        return canvas.heading(area, &text, is_chosen);
    }
    canvas.heading(area, &title, is_chosen);
    if accounts.is_empty() {
        canvas.put(area, (0, 1), "no account yet", Look::Dim);
    } else {
        draw_account_rows(canvas, area, accounts, if is_chosen { choices.scrolled } else { 0 });
    }
}

/// A row for each account, or two where a row does not hold its address.
fn draw_account_rows(
    canvas: &mut Canvas<'_>,
    area: Rect,
    accounts: &[AccountView],
    scrolled: usize,
) {
    let longest = |of: fn(&AccountView) -> &str, most| {
        accounts.iter().map(|account| width(of(account))).max().unwrap_or(0).min(most)
    };
    let name = longest(|account| &account.name, 16);
    let balance = longest(|account| &account.balance, 32);
    let address = longest(|account| &account.address, 80);
    let is_wide = name + 1 + balance + 2 + address <= usize::from(area.width);
    let rows = usize::from(area.height.saturating_sub(1));
    let rows_each = if is_wide || rows < 2 * accounts.len() { 1 } else { 2 };
    let room = rows / rows_each;
    let first = scrolled.min(accounts.len().saturating_sub(room));
    let mut shown = &accounts[first..accounts.len().min(first + room)];
    let hidden = accounts.len() - first - shown.len();
    if hidden > 0 && shown.len() > 1 {
        shown = &shown[..shown.len() - 1];
        let more = format!("… {} more", number(hidden as u64 + 1));
        canvas.put(area, (0, area.height - 1), &more, Look::Dim);
    }
    for (row, account) in (1..).step_by(rows_each).zip(shown) {
        let text = format!(
            "{} {}  ",
            padded(&account.name, name, false),
            padded(&account.balance, balance, true)
        );
        match rows_each {
            1 => canvas.row(area, row, &[(&text, Look::Plain), (&account.address, Look::Dim)]),
            _ => {
                canvas.put(area, (0, row), &text, Look::Plain);
                canvas.put(area, (2, row + 1), &account.address, Look::Dim);
            }
        }
    }
}

/// As many accounts as a row of this width holds, and the number of the others.
fn flow(accounts: &[AccountView], columns: usize) -> String {
    let mut text = String::new();
    for (at, account) in accounts.iter().enumerate() {
        let next = format!("{} {}", cut(&account.name, 16), cut(&account.balance, 32));
        let more = format!("… {} more", number((accounts.len() - at) as u64));
        let is_last = at + 1 == accounts.len();
        let reserve = if is_last { 0 } else { GAP + width(&more) };
        if width(&text) + width(&next) + reserve > columns {
            return text + &more;
        }
        text += &next;
        text += &" ".repeat(if is_last { 0 } else { GAP });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_without_finality_has_none_yet() {
        let block = BlockView {
            height: 1_234,
            time: 5_000,
            transfers: 12,
            proposer: "node3".to_owned(),
            finality: Some(Duration::from_millis(387)),
        };
        let text = block_text(&block, 7_400);
        assert_eq!(text, "   1,234        12 387 ms  2.4 s node3");
        let text = block_text(&BlockView { finality: None, ..block }, 0);
        assert_eq!(text, "   1,234        12      -   0 ms node3");
    }
}
