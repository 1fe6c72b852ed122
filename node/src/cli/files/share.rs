//! `share`: serves a file to everybody who has its link.

use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use indicatif::ProgressBar;
use ledger::file::FileId;
use ledger::link::{Link, LinkKey};
use serde::Deserialize;
use serde_json::json;

use super::link::check_name;
use super::private::Pieces;
use super::{ASK_EVERY, bar, runtime};
use crate::cli::HomeArg;
use crate::control::{Client, ControlError};
use crate::output::{print, print_json};
use crate::screen::{is_drawable, say};
use crate::shared_files::{FileInfo, FileState};

#[derive(Debug, Args)]
pub(in crate::cli) struct Share {
    #[command(flatten)]
    home: HomeArg,
    /// The file. Without --private it is not copied, so do not change it while it is shared
    file: PathBuf,
    /// Seal (encrypt) the file, so that only those who have the link can read it. The node keeps
    /// the sealed copy
    #[arg(long)]
    private: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What the node answers.
#[derive(Deserialize)]
struct Answer {
    id: String,
    bytes: u64,
    chunks: u64,
}

impl Share {
    pub(in crate::cli) fn execute(self) -> anyhow::Result<()> {
        let (root, path) = (self.home.root()?, &self.file);
        let name = check_name(path)?;
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let runtime = runtime()?;
        let (answer, key, bytes) = match self.private {
            true => {
                let bytes = regular(&file, path)?;
                let mut key = LinkKey([0; 32]);
                getrandom::fill(&mut key.0).context("no randomness from the operating system")?;
                let pieces = Pieces::of_plain(&key, bytes);
                let answer = runtime.block_on(seal(&root, &name, file, pieces))?;
                (answer, Some(key), bytes)
            }
            false => {
                let answer = runtime.block_on(share(&root, &name, &file))?;
                let bytes = answer.bytes;
                (answer, None, bytes)
            }
        };
        let id: FileId = answer.id.parse().context("the node's answer has no id")?;
        if key.is_some() {
            say("whoever has this link can read the file, for ever; it is shown only now");
        }
        let link = Link { id, key };
        if self.json {
            return print_json(&json!({
                "link": link.to_string(),
                "id": id.to_string(),
                "bytes": bytes,
                "chunks": answer.chunks,
            }));
        }
        Ok(print(&link.to_string())?)
    }
}

/// The length of a regular file.
fn regular(file: &File, path: &Path) -> anyhow::Result<u64> {
    let found = file.metadata().with_context(|| path.display().to_string())?;
    match found.is_file() {
        true => Ok(found.len()),
        false => Err(anyhow!("{} is a folder, a pipe or a device", path.display())),
    }
}

/// Tells the node to share the file in place, and shows how far it has hashed it.
async fn share(root: &Path, name: &str, file: &File) -> anyhow::Result<Answer> {
    let mut client = Client::connect(root).await?;
    let params = json!({"name": name});
    let call = client.call_with_file("files_share", params, Some(file.as_fd()));
    let shared = async { Ok::<_, ControlError>(call.await?.0) };
    let bytes = file.metadata().map_or(0, |found| found.len());
    tokio::select! {
        answer = shared => Ok(answer?),
        error = watch(root, bytes) => Err(error),
    }
}

/// Shows how far the file is hashed until it is dropped. Returns only with an error.
async fn watch(root: &Path, bytes: u64) -> anyhow::Error {
    if !is_drawable(&io::stderr()) {
        return std::future::pending().await;
    }
    let bar = Clearing(bar("hashing", bytes));
    let mut client = match Client::connect(root).await {
        Ok(client) => client,
        Err(error) => return error.into(),
    };
    loop {
        // The node sends no events, so it is asked again.
        tokio::time::sleep(ASK_EVERY).await;
        match client.call::<Vec<FileInfo>>("files_list", json!({})).await {
            Ok(files) => {
                let is_it = |file: &&FileInfo| {
                    file.state == FileState::Hashing && file.bytes == Some(bytes)
                };
                let done = files.iter().find(is_it).map(|file| file.have_bytes);
                done.iter().for_each(|done| bar.0.set_position(*done));
            }
            Err(error) => return error.into(),
        }
    }
}

/// A bar that goes away when it is dropped.
struct Clearing(ProgressBar);

impl Drop for Clearing {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Seals the file on a thread, and sends the sealed bytes to the node.
async fn seal(root: &Path, name: &str, file: File, pieces: Pieces) -> anyhow::Result<Answer> {
    let mut client = Client::connect(root).await?;
    let (ours, theirs) = UnixStream::pair()?;
    let end = ours.try_clone()?;
    let params = json!({"name": name, "sealed_bytes": pieces.sealed()});
    let sealing = std::thread::spawn(move || {
        let bar = Clearing(bar("sealing", pieces.plain()));
        pieces.seal_all(file, &ours, |done| bar.0.set_position(done))?;
        // The node reads until the end of the stream, to notice bytes too many.
        ours.shutdown(Shutdown::Write)
    });
    let called = client.call_with_file("files_share", params, Some(theirs.as_fd())).await;
    // If the node has refused, this ends the thread. After a success all bytes were sent.
    let _closed = end.shutdown(Shutdown::Both);
    let sealed = sealing.join().map_err(|_| anyhow!("the sealing has panicked"))?;
    match (called, sealed) {
        // The node could only say that the file ends early.
        (Err(_), Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        (called, _) => Ok(called?.0),
    }
}
