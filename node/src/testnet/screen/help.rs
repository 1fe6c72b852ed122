//! The keys: two rows that are always in sight, and a page.

use ratatui_core::layout::Rect;

use super::canvas::{Canvas, Look};
use super::prompt::Prompt;

/// The rows that are always in sight.
const KEYS: [&[(&str, &str)]; 2] = [
    &[
        ("p", "partition"),
        ("i", "isolate"),
        ("h", "heal"),
        ("t", "latency"),
        ("k", "kill"),
        ("r", "restart"),
        ("a", "add"),
        ("l", "load"),
    ],
    &[
        ("f", "faucet"),
        ("Tab", "pane"),
        ("Up Down", "node"),
        ("Enter", "zoom"),
        ("/", "find in log"),
        ("?", "help"),
        ("q", "quit"),
    ],
];

/// The page: a key and what it does.
const PAGE: [(&str, &str); 19] = [
    ("p", "partition: cut all links between groups of nodes"),
    ("i", "isolate: cut all links of a node"),
    ("h", "heal: take away all cuts and all latency"),
    ("t", "latency: delay what two nodes, or all, send to each other"),
    ("k", "kill a node at once, as by kill -9"),
    ("r", "restart a node, also with another binary"),
    ("a", "add a full node; choose it and watch its history come"),
    ("l", "load: send transfers at a steady rate, until 0"),
    ("f", "faucet: pay an amount to an address or an account"),
    ("q, Ctrl-C", "stop the network and quit; the same command resumes it"),
    ("Tab, Left, Right", "choose a pane; Enter gives it all the room, Esc takes it back"),
    ("Up, Down, PageUp", "choose a node, or move in blocks, accounts and log"),
    ("/ n v c", "log: with a text, of the chosen node, by level; clear all"),
    ("Ctrl-L, Ctrl-Z", "draw all again; suspend this program (fg brings it back)"),
    ("Nodes", "history: chunks in or out; clock: ahead of its peers' median"),
    ("Links", "100ms: latency each way; no: not connected; off: not running"),
    ("Blocks", "final: from a block's time until a node reported it final"),
    ("History", "a letter for each segment: the node that sent most of it;"),
    ("", "abc: arriving; .: missing; #: own, or from an earlier run"),
];

/// Columns of the keys in the page.
const KEY_COLUMNS: u16 = 18;

pub(super) fn draw_keys(canvas: &mut Canvas<'_>, area: Rect) {
    for (row, keys) in (0..).zip(KEYS) {
        let mut texts = Vec::new();
        for (key, meaning) in keys {
            texts.extend([(*key, Look::Bold), (" ", Look::Plain), (*meaning, Look::Plain)]);
            texts.push(("  ", Look::Plain));
        }
        texts.pop();
        canvas.row(area, row, &texts);
    }
}

/// How to answer a prompt, or why an answer was refused.
pub(super) fn draw_prompt_keys(canvas: &mut Canvas<'_>, area: Rect, prompt: &Prompt) {
    match &prompt.refusal {
        Some(refusal) => canvas.put(area, (0, 0), refusal, Look::Bad),
        None => canvas.put(area, (0, 0), prompt.question.hint(), Look::Plain),
    };
    let keys = [("Enter", Look::Bold), (" do it  ", Look::Plain), ("Esc", Look::Bold)];
    canvas.row(area, 1, &[&keys[..], &[(" leave it", Look::Plain)]].concat());
}

pub(super) fn draw_page(canvas: &mut Canvas<'_>, area: Rect) {
    for (row, (key, meaning)) in (0..).zip(PAGE) {
        canvas.put(Rect { width: KEY_COLUMNS - 1, ..area }, (0, row), key, Look::Bold);
        canvas.put(area, (KEY_COLUMNS, row), meaning, Look::Plain);
    }
}
