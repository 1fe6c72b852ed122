//! `share`, `get`, `unshare` and `files`: commands for the files that nodes share. They use the
//! socket of the node that runs in a home.
//!
//! The command opens files and passes their descriptors, so the node follows no path. Only the
//! command has the key of a private file, never the node.

mod get;
mod link;
mod private;
mod share;
mod target;

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

pub(super) use self::get::Get;
pub(super) use self::link::id_of;
pub(super) use self::share::Share;
use super::HomeArg;
use crate::control::Client;
use crate::output::{print, print_json};
use crate::screen::draw_target;
use crate::shared_files::{FileInfo, FileState};

/// How often a command asks its node how far a file has come. The node's socket sends no events.
const ASK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct Unshare {
    #[command(flatten)]
    home: HomeArg,
    /// The link or the id of the file, a file that holds the link, or `-` for stdin
    #[arg(value_name = "LINK|-")]
    link: String,
}

impl Unshare {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let (root, id) = (self.home.root()?, id_of(&self.link)?);
        runtime()?.block_on(async {
            let mut client = Client::connect(&root).await?;
            client.call::<Value>("files_unshare", json!({"id": id.to_string()})).await
        })?;
        Ok(print(&format!("{id} is neither shared nor fetched any more"))?)
    }
}

#[derive(Debug, Args)]
pub(super) struct Files {
    #[command(flatten)]
    home: HomeArg,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Files {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let root = self.home.root()?;
        let files: Vec<FileInfo> = runtime()?.block_on(async {
            let mut client = Client::connect(&root).await?;
            client.call("files_list", json!({})).await
        })?;
        if self.json {
            return print_json(&files);
        }
        let lines: Vec<String> = files.iter().map(line).collect();
        Ok(print(&if lines.is_empty() { "no files".to_owned() } else { lines.join("\n") })?)
    }
}

/// A file in one line. If nothing arrives, a second line says why.
fn line(file: &FileInfo) -> String {
    let bytes = file.bytes.map_or_else(|| "?".to_owned(), |bytes| DecimalBytes(bytes).to_string());
    let part = match file.bytes {
        Some(bytes) if bytes == file.have_bytes => bytes_text(bytes),
        _ => format!("{} of {bytes}", DecimalBytes(file.have_bytes)),
    };
    let id = file.id.as_deref().unwrap_or("no id yet");
    let reason = file.reason.iter().map(|reason| format!("\n  {reason}")).collect::<String>();
    format!(
        "{:9}  {part:>22}  served {:>11}  {id}  {}{reason}",
        state(file.state),
        bytes_text(file.served_bytes),
        file.name
    )
}

fn bytes_text(bytes: u64) -> String {
    DecimalBytes(bytes).to_string()
}

fn state(state: FileState) -> &'static str {
    match state {
        FileState::Hashing => "hashing",
        FileState::Shared => "shared",
        FileState::Detached => "detached",
        FileState::Changed => "changed",
        FileState::Fetching => "fetching",
        FileState::Paused => "paused",
        FileState::Refused => "refused",
        FileState::Partial => "partial",
        FileState::Kept => "kept",
        FileState::Checking => "checking",
    }
}

/// The runtime of a command. One thread is enough.
fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio cannot start")
}

/// A bar on stderr, or nowhere if stderr is no terminal.
fn bar(word: &'static str, bytes: u64) -> ProgressBar {
    let template =
        "{prefix} {wide_bar} {decimal_bytes}/{decimal_total_bytes}, {decimal_bytes_per_sec}, {eta}";
    let bar = ProgressBar::with_draw_target(Some(bytes), draw_target()).with_prefix(word);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
