//! What is in sight: frames of made networks, as text.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use ratatui_core::backend::TestBackend;
use ratatui_core::style::Color;
use ratatui_core::terminal::Terminal;
use ratatui_crossterm::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::choices::Choices;
use super::draw::draw;
use super::layout::Pane;
use super::sample;
use crate::testnet::overview::{AccountView, LoadView, Overview};

/// Draws a frame and returns its rows.
fn rows(overview: &Overview, choices: &Choices, (width, height): (u16, u16)) -> Vec<String> {
    let terminal = drawn(overview, choices, (width, height));
    let buffer = terminal.backend().buffer();
    (0..height)
        .map(|y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>())
        .map(|row| row.trim_end().to_owned())
        .collect()
}

fn drawn(
    overview: &Overview,
    choices: &Choices,
    (width, height): (u16, u16),
) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, overview, choices)).unwrap();
    terminal
}

fn choices() -> Choices {
    Choices { now_ms: sample::NOW_MS, ..Choices::new(true) }
}

fn press(choices: &mut Choices, overview: &Overview, keys: &str) {
    for c in keys.chars() {
        choices.on_key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE), overview);
    }
}

/// Asserts that all texts are in sight.
#[track_caller]
fn sees(rows: &[String], texts: &[&str]) {
    let all = rows.join("\n");
    for text in texts {
        assert!(all.contains(text), "{text:?} is not in\n{all}");
    }
}

/// The whole screen at its smallest. Spaces at the ends of rows do not count.
#[test]
fn five_nodes_at_the_smallest_size() {
    let choices = Choices { node: 4, ..choices() };
    let rows = rows(&sample::syncing(), &choices, (80, 24));
    assert_eq!(rows.join("\n"), SMALLEST, "{}", rows.join("\n"));
}

const SMALLEST: &str = "\
Cairn  4 of 5 nodes run  height 1,234  block 400 ms ago  50 transfers/s
Load 50/s: 12,345 sent, 12,300 final, half within 387 ms, 99% within 1.2 s
[Nodes]    role state        height round peers      history   memory    clock
 A node1   val  running       1,234     0     3            - 19.1 MiB    +3 ms
 B node2   val  running       1,234     0     3            - 19.1 MiB    +3 ms
 C node3   val  running       1,234     0     3            - 19.1 MiB    +3 ms
 D node4   val  killed            -     -     -            -        -        -
>E node5   full chunks          310     0     4  in 4.8 MB/s 19.1 MiB        -
Links   A     B     C     D     E        Blocks   transfers  final    age by
A node1 ·     100ms cut   off   ok          1,234        25 187 ms 400 ms node1
B node2 100ms ·     cut   off   ok          1,233        25 188 ms 900 ms node2
C node3 cut   cut   ·     off   ok          1,232        25 189 ms  1.4 s node3
D node4 off   off   off   ·     off         1,231        25 190 ms  1.9 s node4
E node5 ok    ok    ok    off   ·           1,230        25 191 ms  2.4 s node1
History of E node5: 8 of 20 segments, 160 of 340 chunks, 4.8 MB/s, 12 s left
#AAABBC*cb+.........
A node1  B node2  C node3  abc+ arriving  * other peer  # own  . missing
Accounts  alice 1,000,010 CRN   bob 999,874.125 CRN   … 2 more
Log 40 lines
D 11:06:38.123 INFO  a height is final, line 38
E 11:06:39.123 INFO  a height is final, line 39
node4 was killed
p partition  i isolate  h heal  t latency  k kill  r restart  a add  l load
f faucet  Tab pane  Up Down node  Enter zoom  / find in log  ? help  q quit";

#[test]
fn numbers_without_end_break_nothing() {
    let mut overview = sample::syncing();
    overview.rate = u64::MAX;
    overview.uptime = Duration::MAX;
    overview.load = Some(LoadView {
        per_second: u32::MAX,
        sent: u64::MAX,
        final_: u64::MAX,
        p50_ms: u64::MAX,
        p99_ms: u64::MAX,
    });
    for node in &mut overview.nodes {
        node.memory_bytes = Some(u64::MAX);
        node.name = "语".repeat(60);
        if let Some(status) = &mut node.status {
            (status.height, status.time, status.round, status.peers) =
                (u64::MAX, u64::MAX, u32::MAX, u32::MAX);
            status.clock_offset_ms = Some(i64::MIN);
        }
        if let Some(sync) = &mut node.sync {
            (sync.segments, sync.segments_total) = (u64::MAX, u64::MAX);
            (sync.chunks_total, sync.rate, sync.eta_ms) =
                (u64::MAX, Some(u64::MAX), Some(u64::MAX));
            sync.peers.iter_mut().for_each(|peer| peer.fetch_rate = u64::MAX);
        }
    }
    for block in &mut overview.blocks {
        (block.height, block.time, block.transfers) = (u64::MAX, 0, u32::MAX);
        block.finality = Some(Duration::MAX);
    }
    overview.latency = vec![(0, 1, u32::MAX)];
    for size in [(80, 24), (160, 50)] {
        let rows = rows(&overview, &choices(), size);
        sees(&rows, &["18E", "15.9 EiB", "-106G d", "quit"]);
    }
}

#[test]
fn a_small_terminal_is_told_what_is_needed() {
    for size in [(79, 24), (80, 23), (30, 5)] {
        let rows = rows(&sample::four(), &choices(), size);
        sees(&rows, &["the screen needs 80 by 24", &format!("has {} by {}", size.0, size.1)]);
    }
    for size in [(1, 1), (0, 0), (5, 2)] {
        rows(&sample::four(), &choices(), size);
    }
}

#[test]
fn logs_cannot_write_elsewhere() {
    let mut overview = sample::four();
    let hostile = "2026-11-18T11:06:40.123456Z  INFO \u{1b}[2J\u{1b}[1;1Hgone\r\u{9b}31m";
    overview.log.back_mut().unwrap().text = format!("{hostile}{}", "\u{202e}语".repeat(100));
    overview.nodes[0].name = "\u{1b}[31m\n".to_owned();
    overview.notes.push_back("\u{1b}]0;title\u{7}".to_owned());
    let terminal = drawn(&overview, &choices(), (80, 24));
    for cell in terminal.backend().buffer().content() {
        assert!(!cell.symbol().chars().any(char::is_control), "{:?}", cell.symbol());
    }
    let rows = rows(&overview, &choices(), (80, 24));
    sees(&rows, &["␛[2J␛[1;1Hgone␍\u{fffd}31m", "␛]0;title␇", "␛[31m␊"]);
}

#[test]
fn everything_can_be_read_without_colours() {
    let mut overview = sample::syncing();
    overview.nodes[1].status.as_mut().unwrap().quorum.ok = false;
    let plain = Choices { has_colours: false, ..choices() };
    for size in [(80, 24), (160, 50)] {
        let terminal = drawn(&overview, &plain, size);
        let cells = terminal.backend().buffer().content();
        assert!(cells.iter().all(|cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset)));
        assert_eq!(rows(&overview, &plain, size), rows(&overview, &choices(), size));
    }
}

/// Sixteen nodes with all links, blocks, addresses and log at once.
#[test]
fn sixteen_nodes_on_a_large_terminal() {
    let mut overview = sample::many(16);
    overview.cut = vec![(0, 1), (3, 9)];
    overview.latency = vec![(0, 4, 100), (0, 5, 1_500)];
    let shown = rows(&overview, &choices(), (160, 50));
    let row = |start: &str| shown.iter().find(|row| row.starts_with(start)).unwrap();
    assert!(row(">A node1 ").contains("running"), "{}", shown.join("\n"));
    assert!(row(" P node16 ").contains("running"), "{}", shown.join("\n"));
    assert!(row("A node1 ").starts_with("A node1  ·   cut ok  ok  100 1s  ok  "));
    assert!(row("D node4 ").contains(" cut "), "{}", shown.join("\n"));
    assert!(
        row("Links ").contains("A   B   C   D   E   F   G   H   I   J   K   L   M   N   O   P")
    );
    sees(&shown, &["chain 1c631d811c631d811c6…", "[Nodes]", "1,234        25 187 ms 400 ms"]);
    sees(&shown, &[&overview.accounts[0].address, "1,000,010 CRN", "line 39"]);
    assert!(!shown[1..].join("").contains('…'), "nothing is cut:\n{}", shown.join("\n"));
}

/// Whatever is chosen, the keys are in sight, and all that is cut has an ellipsis.
#[test]
fn the_keys_are_always_in_sight() {
    for overview in [Overview::default(), sample::four(), sample::syncing(), sample::many(16)] {
        for size in [(80, 24), (100, 30), (160, 50)] {
            for pane in Pane::ALL {
                for is_zoomed in [false, true] {
                    let mut choices = Choices { pane, is_zoomed, ..choices() };
                    let shown = rows(&overview, &choices, size);
                    sees(&shown, &["p partition", "f faucet", "? help", "q quit"]);
                    sees(&shown, &[&format!("[{pane:?}]")]);
                    press(&mut choices, &overview, "?");
                    let shown = rows(&overview, &choices, size);
                    sees(&shown, &["kill a node at once", "an earlier run", "q quit"]);
                    assert!(!shown[2..].join("").contains('…'), "{}", shown.join("\n"));
                }
            }
        }
    }
}

#[test]
fn a_prompt_shows_its_answer_and_how_to_answer() {
    let overview = sample::four();
    let mut choices = choices();
    press(&mut choices, &overview, "p");
    let shown = rows(&overview, &choices, (80, 24));
    sees(&shown, &["Partition into groups: node1,node2/node3,node4", "Enter do it", "slashes"]);
    press(&mut choices, &overview, "x");
    choices.on_key(KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE), &overview);
    let shown = rows(&overview, &choices, (80, 24));
    sees(&shown, &["Partition into groups: x", "\"x\" is no partition"]);
    press(&mut choices, &overview, &"a,b/".repeat(100));
    let mut terminal = drawn(&overview, &choices, (80, 24));
    let cursor = terminal.get_cursor_position().unwrap();
    assert_eq!((cursor.x, cursor.y), (79, 21), "the end of a long answer is in sight");
    sees(&rows(&overview, &choices, (80, 24)), &["…", "a,b/a,b/"]);
}

#[test]
fn accounts_that_do_not_fit_are_counted() {
    let mut overview = sample::four();
    overview.accounts = (0..30)
        .map(|at| AccountView {
            name: format!("account{at}"),
            address: "crn1".to_owned() + &"q".repeat(60),
            balance: "18,446,744,073.709551615 CRN".to_owned(),
        })
        .collect();
    let first = "[Accounts]  account0 18,446,744,073.709551615 CRN";
    let chosen = Choices { pane: Pane::Accounts, ..choices() };
    sees(&rows(&overview, &chosen, (80, 24)), &[first, "… 29 more"]);
    let zoomed = Choices { is_zoomed: true, ..chosen };
    sees(&rows(&overview, &zoomed, (80, 24)), &["account17 18,446", "… 12 more"]);
    // An address that a row does not hold has a row of its own.
    overview.accounts.truncate(4);
    sees(&rows(&overview, &zoomed, (80, 24)), &[&overview.accounts[3].address]);
}
