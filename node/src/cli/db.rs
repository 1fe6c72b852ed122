//! `db`: the chain of a home whose node is stopped.

mod import;

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use ledger::chain::Chain;
use ledger::codec;
use ledger::store::{Opened, Store};
use ledger::units::Height;
use serde_json::json;

use super::HomeArg;
use super::archive::{Contents, Writer};
use crate::home::HomeLock;
use crate::output::{print, print_json};

#[derive(Debug, Subcommand)]
pub(super) enum Db {
    /// Check everything stored: checksums, and every block from the genesis on by all rules
    Verify(Common),
    /// Write all blocks to a file
    Export {
        /// The file to make
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// Validate the blocks of a file and add those that are missing
    Import {
        /// A file made by `db export`
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
pub(super) struct Common {
    #[command(flatten)]
    home: HomeArg,
    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

/// A home that nobody else works on.
struct Held {
    chain: Arc<Chain>,
    db: PathBuf,
    _lock: HomeLock,
}

impl Common {
    fn hold(&self) -> anyhow::Result<Held> {
        let home = self.home.open()?;
        let lock = home.lock()?;
        Ok(Held { chain: Chain::new(home.genesis()?), db: home.db_path(), _lock: lock })
    }
}

impl Held {
    fn open(&self) -> anyhow::Result<Opened> {
        Ok(Store::open(&self.db, &self.chain)?)
    }
}

impl Db {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        match self {
            Self::Verify(common) => verify(&common.hold()?, common.json),
            Self::Export { to, common } => export(&common.hold()?, &to, common.json),
            Self::Import { from, common } => import::import(&common.hold()?, &from, common.json),
        }
    }
}

/// A bar on stderr; nothing when that is no terminal.
fn progress_bar(what: &'static str, length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} blocks, {eta} left");
    let bar = ProgressBar::new(length).with_prefix(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn verify(held: &Held, json: bool) -> anyhow::Result<()> {
    let bar = progress_bar("verify", 0);
    let report = Store::verify(&held.db, &held.chain, &mut |height: Height, tip: Height| {
        bar.set_length(tip.0);
        bar.set_position(height.0);
    });
    bar.finish_and_clear();
    let report = report?;
    let problems = (report.problems.len() as u64).saturating_add(report.more_problems);
    if json {
        let listed: Vec<_> = report.problems.iter().map(|it| json!({ "what": it.what, "reason": it.reason })).collect();
        print_json(&json!({
            "clean": report.is_clean(),
            "height": report.height.to_string(),
            "transactions": report.transactions.to_string(),
            "segments": report.segments.to_string(),
            "values": report.values.to_string(),
            "bytes": report.bytes.to_string(),
            "problems": listed,
            "problem_count": problems.to_string(),
        }))?;
    } else {
        for problem in &report.problems {
            print(&format!("problem: {problem}"))?;
        }
        print(&format!(
            "{}: height {}, {} transactions, {} segments, {} values of {} bytes",
            if report.is_clean() { "clean" } else { "damaged" },
            report.height,
            report.transactions,
            report.segments,
            report.values,
            report.bytes
        ))?;
    }
    ensure!(report.is_clean(), "{} problems in {}", problems, held.db.display());
    Ok(())
}

fn export(held: &Held, to: &Path, json: bool) -> anyhow::Result<()> {
    ensure!(!to.exists(), "{} exists: an export overwrites nothing", to.display());
    let store = held.open()?.store;
    let (last, _) = store.tip();
    ensure!(last > Height(0), "the chain has no block yet");

    // Under its name only once it is whole.
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = write_archive(held, &store, last, &partial).with_context(|| format!("cannot write {}", to.display()));
    let bytes = written.inspect_err(|_| {
        let _ = fs::remove_file(&partial);
    })?;
    fs::rename(&partial, to).with_context(|| format!("cannot write {}", to.display()))?;
    if json {
        return print_json(&json!({ "first": "1", "last": last.to_string(), "bytes": bytes.to_string() }));
    }
    Ok(print(&format!("blocks 1 to {last}, {bytes} bytes"))?)
}

fn write_archive(held: &Held, store: &Store, last: Height, path: &Path) -> anyhow::Result<u64> {
    let bar = progress_bar("export", last.0);
    let contents = Contents { chain: held.chain.id(), first: Height(1), last };
    let mut writer = Writer::new(BufWriter::new(File::create(path)?), contents)?;
    for height in (1..=last.0).map(Height) {
        let Some(bytes) = store.block_bytes(height)? else { bail!("block {height} is not stored") };
        writer.piece(&bytes)?;
        bar.set_position(height.0);
    }
    let Some(certificate) = store.certificate(last)? else { bail!("the certificate of block {last} is not stored") };
    writer.piece(&codec::encode(&certificate))?;
    let file = writer.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.sync_all()?;
    bar.finish_and_clear();
    Ok(file.metadata()?.len())
}

#[cfg(test)]
mod tests;
