//! `get`: fetches a file by its link.

use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{anyhow, bail};
use clap::Args;
use ledger::file::CHUNK_BYTES;
use ledger::link::Link;
use rustix::fd::OwnedFd;
use serde_json::{Value, json};

use super::link::{check_name, range, read};
use super::private::{PIECE_BYTES, Pieces};
use super::target::{Target, copy};
use super::{ASK_EVERY, bar, runtime};
use crate::cli::HomeArg;
use crate::control::Client;
use crate::output::{print, print_json};
use crate::screen::say;
use crate::shared_files::{FileInfo, FileState};

#[derive(Debug, Args)]
pub(in crate::cli) struct Get {
    #[command(flatten)]
    home: HomeArg,
    /// The link, a file that holds it, or `-` to read it from stdin, so that no other user of this
    /// machine sees its key
    #[arg(value_name = "LINK|-")]
    link: String,
    /// Where to write the file. Without it the node only keeps and serves the file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Fetch only these bytes, both ends included, into a sparse file; may be repeated
    #[arg(long, value_name = "FIRST-LAST", value_parser = range)]
    range: Vec<(u64, u64)>,
    /// Replace an existing file
    #[arg(long)]
    force: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Get {
    pub(in crate::cli) fn execute(self) -> anyhow::Result<()> {
        let (root, began) = (self.home.root()?, Instant::now());
        let link = read(&self.link)?;
        let target =
            self.output.as_deref().map(|path| Target::new(path, self.force)).transpose()?;
        let name = self.output.as_deref().map_or(Ok(String::new()), check_name)?;
        let (fetched, bytes) = runtime()?.block_on(async {
            let mut client = Client::connect(&root).await?;
            let fetched = self.fetch(&mut client, &link, &name).await?;
            let id = json!({"id": link.id.to_string()});
            let bytes = match &target {
                Some(_) => client.call_with_file::<Value>("files_open", id, None).await?.1,
                None => None,
            };
            Ok::<_, anyhow::Error>((fetched, bytes))
        })?;
        let stored = fetched.bytes.unwrap_or_default();
        let bytes = match target {
            Some(target) => self.write(&link, target, bytes, stored)?,
            None => stored,
        };
        let seconds = began.elapsed().as_secs_f64();
        if self.json {
            let (id, peers) = (link.id.to_string(), fetched.peers);
            return print_json(
                &json!({"id": id, "bytes": bytes, "seconds": seconds, "peers": peers}),
            );
        }
        let place = self
            .output
            .as_ref()
            .map_or_else(String::new, |path| format!(", written to {}", path.display()));
        Ok(print(&format!("{} bytes in {seconds:.1} s{place}", bytes))?)
    }

    /// Tells the node to fetch the file, and waits for the end.
    async fn fetch(
        &self,
        client: &mut Client,
        link: &Link,
        name: &str,
    ) -> anyhow::Result<FileInfo> {
        let id = link.id.to_string();
        let ranges: Vec<(u64, u64)> = match link.key {
            Some(_) => self.range.iter().copied().map(sealed_range).collect(),
            None => self.range.clone(),
        };
        let params = json!({"id": id, "name": name, "ranges": ranges});
        client.call::<Value>("files_get", params).await?;
        let bar = bar("fetching", 0);
        let mut last_reason = None;
        loop {
            let info: FileInfo = client.call("files_info", json!({"id": id})).await?;
            match info.state {
                FileState::Kept | FileState::Partial | FileState::Shared => {
                    bar.finish_and_clear();
                    return Ok(info);
                }
                FileState::Refused => {
                    bar.finish_and_clear();
                    if info.have_bytes == 0 {
                        client.call::<Value>("files_unshare", json!({"id": id})).await?;
                    }
                    bail!("{}", info.reason.unwrap_or_else(|| "there is no room".to_owned()));
                }
                FileState::Detached | FileState::Changed | FileState::Hashing => {
                    bail!("{id} cannot be fetched: `files` shows its state")
                }
                FileState::Fetching | FileState::Paused | FileState::Checking => {}
            }
            if info.reason != last_reason {
                info.reason.iter().for_each(|reason| say(&format!("waiting: {reason}")));
                last_reason.clone_from(&info.reason);
            }
            if info.bytes.is_some() {
                bar.set_length(info.have_bytes.saturating_add(info.left_bytes));
                bar.set_position(info.have_bytes);
            }
            // The node sends no events, so it is asked again.
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Writes the wanted ranges to the target. Returns how many bytes these are.
    fn write(
        &self,
        link: &Link,
        target: Target,
        bytes: Option<OwnedFd>,
        stored: u64,
    ) -> anyhow::Result<u64> {
        let from = File::from(bytes.ok_or_else(|| anyhow!("the node has sent no file"))?);
        let pieces = link.key.as_ref().map(|key| Pieces::of_sealed(key, stored)).transpose()?;
        let length = pieces.as_ref().map_or(stored, Pieces::plain);
        let ranges: Vec<_> = match self.range[..] {
            [] => std::iter::once(0..length).collect(),
            _ => self.range.iter().map(|(first, last)| *first..last.saturating_add(1)).collect(),
        };
        if let Some(range) = ranges.iter().find(|range| range.start >= length && length > 0) {
            bail!("the file has {length} bytes, and ends before byte {}", range.start);
        }
        let bar = bar("writing", length);
        let (to, mut written) = (target.file(), 0u64);
        to.set_len(length)?;
        for range in ranges {
            let range = range.start..range.end.min(length);
            let (size, tell) = (range.end.saturating_sub(range.start), |done| {
                bar.set_position(written.saturating_add(done));
            });
            match &pieces {
                Some(pieces) => pieces.open_range(&from, to, range, tell)?,
                None => copy(&from, to, range, length, tell)?,
            }
            written = written.saturating_add(size);
        }
        bar.finish_and_clear();
        target.finish()?;
        Ok(written)
    }
}

/// The bytes of a sealed file that hold these bytes of its plaintext.
const fn sealed_range((first, last): (u64, u64)) -> (u64, u64) {
    let (first, last) = (first / PIECE_BYTES, last / PIECE_BYTES);
    let end = last.saturating_add(1).saturating_mul(CHUNK_BYTES);
    (first.saturating_mul(CHUNK_BYTES), end.saturating_sub(1))
}
