//! `sync`: shows the progress of a running node's sync, once or until the node is live.

use std::io;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ledger::api::{self, SyncState, SyncStatus};
use serde_json::json;

use super::query::Query;
use crate::output::{OutputError, print, print_json, table};
use crate::progress::{chunks, heights, line, rate, time_left};
use crate::screen::is_drawable;

/// Time between two requests of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Sync {
    #[command(flatten)]
    query: Query,
    /// Ask each second until the node is live
    #[arg(long)]
    watch: bool,
}

impl Sync {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let client = self.query.client()?;
        let ask = || client.call::<SyncStatus>(api::SYNC_STATUS, json!({}));
        if !self.watch {
            let status = ask()?;
            return if self.query.json {
                print_json(&status)
            } else {
                Ok(print(&table(&summary(&status)))?)
            };
        }
        let mut screen = Screen::new(is_drawable(&io::stdout()));
        loop {
            let status = ask()?;
            let is_live = status.state == SyncState::Live;
            match self.query.json {
                true => print_json(&status)?,
                false => screen.show(line(&status), is_live)?,
            }
            if is_live {
                return Ok(());
            }
            std::thread::sleep(WATCH_EVERY);
        }
    }
}

fn summary(status: &SyncStatus) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("state", status.state.to_string()),
        ("height", heights(status)),
        ("segments", format!("{}/{}", status.segments, status.segments_total)),
        ("chunks", chunks(status).unwrap_or_else(|| "none to fetch".to_owned())),
        ("peers", status.peers.len().to_string()),
    ];
    rows.extend(status.rate.map(|bytes| ("rate", rate(bytes))));
    rows.extend(status.eta_ms.map(|ms| ("left", time_left(ms))));
    rows.extend(status.reason.clone().map(|reason| ("waiting", reason)));
    rows
}

/// Where `--watch` shows its line.
enum Screen {
    /// A terminal, where the line is redrawn and cut to the width.
    Live(ProgressBar),
    /// Another output, which gets a line for each change.
    Plain(String),
}

impl Screen {
    fn new(is_drawable: bool) -> Self {
        if !is_drawable {
            return Self::Plain(String::new());
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
        Self::Live(match ProgressStyle::with_template("{wide_msg}") {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        })
    }

    /// Shows a line: on a terminal in place of the previous one, elsewhere only if it is a new one.
    /// The last line stays.
    fn show(&mut self, text: String, is_last: bool) -> Result<(), OutputError> {
        match self {
            Self::Live(bar) if is_last => {
                bar.finish_and_clear();
                return print(&text);
            }
            Self::Live(bar) => {
                bar.set_message(text);
                bar.tick();
            }
            Self::Plain(last) if *last != text => {
                print(&text)?;
                *last = text;
            }
            Self::Plain(_) => {}
        }
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Self::Live(bar) = self {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tests::status;

    #[test]
    fn a_summary_has_what_is_known() {
        let fetching =
            SyncStatus { rate: Some(5_000_000), eta_ms: Some(12_300), ..status(SyncState::Chunks) };
        let stuck = SyncStatus { reason: Some("no peer".to_owned()), ..status(SyncState::Chunks) };
        let live = SyncStatus { chunks_total: 0, chunks_verified: 0, ..status(SyncState::Live) };
        for (status, last) in [
            (
                fetching,
                &[
                    "chunks    199/200 (99%)",
                    "peers     0",
                    "rate      5.00 MB/s",
                    "left      13 s",
                ][..],
            ),
            (stuck, &["chunks    199/200 (99%)", "peers     0", "waiting   no peer"]),
            (live, &["chunks    none to fetch", "peers     0"]),
        ] {
            let text = table(&summary(&status));
            assert!(text.starts_with(&format!("state     {}\nheight    ", status.state)), "{text}");
            assert!(text.ends_with(&format!("{}\n", last.join("\n"))), "{text}");
        }
    }
}
