//! `db`: the chain of a home whose node is stopped.

mod import;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use ledger::chain::Chain;
use ledger::codec;
use ledger::store::{Kept, Opened, Snapshots, Store, VerifyReport};
use ledger::units::Height;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::HomeArg;
use super::archive::{Contents, Writer};
use crate::files::{copy_dir, rename};
use crate::home::{Home, HomeLock, ReadLock};
use crate::output::{OutputError, print, print_json};
use crate::screen::{draw_target, say};
use import::{Source, import};

#[derive(Debug, Subcommand)]
pub(super) enum Db {
    /// Check everything stored: checksums, every block from the genesis on by all rules, snapshots
    Verify(Common),
    /// Write blocks to a file or a pipe
    Export {
        /// The file to make, a pipe, or - for stdout
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        #[command(flatten)]
        range: Range,
        #[command(flatten)]
        common: Common,
    },
    /// Validate the blocks of a file or a pipe and add those that are missing
    Import {
        /// A file made by `db export`, a pipe, or - for stdin
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        #[command(flatten)]
        common: Common,
    },
}

/// Which blocks are exported.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct Range {
    /// The first block to write; without it block 1
    #[arg(long, value_name = "HEIGHT")]
    first: Option<u64>,
    /// The last block to write; without it the last one of the chain
    #[arg(long, value_name = "HEIGHT")]
    last: Option<u64>,
}

impl Range {
    /// The range as heights.
    ///
    /// # Errors
    /// If it has no block, or one that the store does not keep.
    fn of(self, store: &Store) -> anyhow::Result<RangeInclusive<Height>> {
        let (tip, _) = store.tip();
        ensure!(tip > Height(0), "the chain has no block yet");
        let (first, last) = (Height(self.first.unwrap_or(1)), self.last.map_or(tip, Height));
        ensure!(
            Height(1) <= first && first <= last && last <= tip,
            "blocks {first} to {last} are no range of this chain, which has blocks 1 to {tip}"
        );
        let kept = store.kept_heights();
        ensure!(
            kept.iter().any(|kept| kept.contains(&first) && kept.contains(&last)),
            "this home does not keep all of blocks {first} to {last}: it keeps {}; choose a range \
             by --first and --last, or export from a node that keeps the whole chain",
            blocks(&kept)
        );
        Ok(first..=last)
    }
}

/// Ranges of blocks as text.
fn blocks(ranges: &[RangeInclusive<Height>]) -> String {
    let one = |range: &RangeInclusive<Height>| format!("{} to {}", range.start(), range.end());
    match ranges {
        [] => "no block".to_owned(),
        ranges => format!("blocks {}", ranges.iter().map(one).collect::<Vec<_>>().join(", ")),
    }
}

/// Ranges of blocks for scripts: pairs of the first and the last height.
fn pairs(ranges: &[RangeInclusive<Height>]) -> Vec<[String; 2]> {
    ranges.iter().map(|range| [range.start().to_string(), range.end().to_string()]).collect()
}

#[derive(Debug, Args)]
pub(super) struct Common {
    #[command(flatten)]
    home: HomeArg,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// A home that is locked against other processes.
struct Held {
    chain: Arc<Chain>,
    db: PathBuf,
    /// A copy of the store, used if the original is read-only.
    _copy: Option<TempDir>,
    _lock: Lock,
}

/// Held while the home is used.
#[expect(dead_code, reason = "held, never read")]
enum Lock {
    ToWrite(HomeLock),
    ToRead(ReadLock),
}

impl Held {
    fn to_write(home: &Home) -> anyhow::Result<Self> {
        let lock = Lock::ToWrite(home.lock()?);
        Ok(Self {
            chain: Chain::new(home.genesis()?),
            db: home.db_path(),
            _copy: None,
            _lock: lock,
        })
    }

    /// Locks a home for a command that changes nothing. The database writes to its files whenever
    /// it is opened, so on a read-only volume a copy is used.
    fn to_read(home: &Home) -> anyhow::Result<Self> {
        let lock = home.lock_to_read()?;
        let chain = Chain::new(home.genesis()?);
        if !lock.is_read_only {
            return Ok(Self { chain, db: home.db_path(), _copy: None, _lock: Lock::ToRead(lock) });
        }
        let copy = tempfile::Builder::new()
            .prefix("cairn-")
            .tempdir()
            .context("no folder for a copy of the store")?;
        let db = copy.path().join("db");
        say(&format!(
            "{} is read-only: using a copy in {}",
            home.root().display(),
            copy.path().display()
        ));
        copy_dir(&home.db_path(), &db)
            .with_context(|| format!("cannot copy the store to {}", db.display()))?;
        Ok(Self { chain, db, _copy: Some(copy), _lock: Lock::ToRead(lock) })
    }

    fn open(&self) -> anyhow::Result<Opened> {
        Ok(Store::open(&self.db, &self.chain)?)
    }
}

impl Db {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        match self {
            Self::Verify(common) => {
                let home = common.home.open()?;
                verify(&Held::to_read(&home)?, &home.snapshots_path(), common.json)
            }
            // Opening a pipe waits for its other end, so the home is locked only after that.
            Self::Export { to, range, common } => {
                let home = common.home.open()?;
                let target = Target::open(&to)?;
                export(&Held::to_read(&home)?, target, range, common.json)
            }
            Self::Import { from, common } => {
                let home = common.home.open()?;
                let source = Source::open(&from)?;
                import(&Held::to_write(&home)?, source, common.json)
            }
        }
    }
}

/// A progress bar on stderr. It is hidden if stderr is not a terminal.
fn progress_bar(what: &'static str, length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} blocks, {eta} left");
    let bar = ProgressBar::with_draw_target(Some(length), draw_target()).with_prefix(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn verify(held: &Held, snapshots: &Path, json: bool) -> anyhow::Result<()> {
    let bar = progress_bar("verify", 0);
    let report = Store::verify(&held.db, &held.chain, &mut |height: Height, tip: Height| {
        bar.set_length(tip.0);
        bar.set_position(height.0);
    });
    bar.finish_and_clear();
    let mut report = report?;
    Snapshots::verify(snapshots, &held.chain, &mut report)?;
    let problems = (report.problems.len() as u64).saturating_add(report.more_problems);
    let printed = print_report(&report, problems, json);
    // The exit code tells the result even if stdout is closed.
    ensure!(
        report.is_clean(),
        "{problems} problems in {} and {}",
        held.db.display(),
        snapshots.display()
    );
    printed
}

fn report_json(report: &VerifyReport, problems: u64) -> Value {
    let listed: Vec<_> =
        report.problems.iter().map(|it| json!({ "what": it.what, "reason": it.reason })).collect();
    json!({
        "clean": report.is_clean(),
        "height": report.height.to_string(),
        "transactions": report.transactions.to_string(),
        "segments": report.segments.to_string(),
        "snapshots": report.snapshots.to_string(),
        "values": report.values.to_string(),
        "bytes": report.bytes.to_string(),
        "kept": pairs(&report.kept),
        "checked_by_hash": report.by_hash.to_string(),
        "executed_to": report.executed_to.to_string(),
        "checked_by_hash_to": report.checked_by_hash_to.to_string(),
        "problems": listed,
        "problem_count": problems.to_string(),
    })
}

fn print_report(report: &VerifyReport, problems: u64, json: bool) -> anyhow::Result<()> {
    if json {
        print_json(&report_json(report, problems))?;
    } else {
        for problem in &report.problems {
            print(&format!("problem: {problem}"))?;
        }
        print(&format!(
            "{}: height {}, {} transactions, {} segments, {} snapshots, {} values of {} bytes",
            if report.is_clean() { "clean" } else { "damaged" },
            report.height,
            report.transactions,
            report.segments,
            report.snapshots,
            report.values,
            report.bytes
        ))?;
        // A full store keeps one range that begins with block 1.
        if report.height < report.kept.last().map_or(Height(0), |last| *last.end()) {
            print(&format!(
                "it keeps {}: {} of them were checked by hash alone, the others by all rules",
                blocks(&report.kept),
                report.by_hash
            ))?;
            print(&format!(
                "executed_to: {}, checked_by_hash_to: {}",
                report.executed_to, report.checked_by_hash_to
            ))?;
        }
    }
    Ok(())
}

/// Where an export goes.
enum Target {
    /// A new file.
    File(PathBuf),
    /// An open pipe or device.
    Stream(String, Box<dyn Write>),
    Stdout,
}

impl Target {
    /// Opens the target. Waits until a pipe has a reader.
    fn open(to: &Path) -> anyhow::Result<Self> {
        let name = || to.display().to_string();
        if to == Path::new("-") {
            ensure!(
                !io::stdout().is_terminal(),
                "stdout is a terminal: give a file, or send the output to a program"
            );
            return Ok(Self::Stdout);
        }
        match fs::metadata(to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::File(to.to_owned())),
            Err(error) => Err(error).with_context(name),
            Ok(found) if found.is_file() => {
                bail!("{} exists: an export overwrites nothing", to.display())
            }
            Ok(found) if found.is_dir() => {
                bail!("{} is a directory, expected a new file or a pipe", to.display())
            }
            Ok(_) => {
                let stream = OpenOptions::new().write(true).open(to).with_context(name)?;
                Ok(Self::Stream(name(), Box::new(stream)))
            }
        }
    }
}

fn export(held: &Held, target: Target, range: Range, json: bool) -> anyhow::Result<()> {
    let store = held.open()?.store;
    let range = range.of(&store)?;
    let (first, last) = (*range.start(), *range.end());
    let to_stdout = matches!(target, Target::Stdout);
    let bytes = match target {
        Target::File(to) => write_file(held, &store, range, &to)
            .with_context(|| format!("cannot write {}", to.display()))?,
        Target::Stream(name, to) => {
            write_archive(held, &store, range, to)
                .with_context(|| format!("cannot write {name}"))?
                .1
        }
        Target::Stdout => {
            write_archive(held, &store, range, io::stdout().lock())
                .map_err(|error| match error.downcast::<io::Error>() {
                    Ok(error) => OutputError::from(error).into(),
                    Err(error) => error,
                })?
                .1
        }
    };
    let text = match json {
        true => {
            let (first, last) = (first.to_string(), last.to_string());
            json!({ "first": first, "last": last, "bytes": bytes.to_string() }).to_string()
        }
        false => format!("blocks {first} to {last}, {bytes} bytes"),
    };
    if to_stdout {
        say(&text);
        return Ok(());
    }
    Ok(print(&text)?)
}

/// Writes an archive to a new file, which gets its name only once it is complete. It is durable
/// when this returns.
fn write_file(
    held: &Held,
    store: &Store,
    range: RangeInclusive<Height>,
    to: &Path,
) -> anyhow::Result<u64> {
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written =
        write_archive(held, store, range, File::create(&partial)?).and_then(|(file, bytes)| {
            file.sync_all()?;
            rename(&partial, to)?;
            Ok(bytes)
        });
    written.inspect_err(|_| {
        let _ = fs::remove_file(&partial);
    })
}

/// Writes an archive. Also returns its length in bytes.
fn write_archive<W: Write>(
    held: &Held,
    store: &Store,
    range: RangeInclusive<Height>,
    to: W,
) -> anyhow::Result<(W, u64)> {
    let (first, last) = (*range.start(), *range.end());
    let bar = progress_bar("export", last.0);
    let contents = Contents { chain: held.chain.id(), first, last };
    let mut writer = Writer::new(BufWriter::new(to), contents)?;
    for height in (first.0..=last.0).map(Height) {
        let Kept::Here(bytes) = store.block_bytes(height)? else {
            bail!("block {height} is not stored")
        };
        writer.piece(&bytes)?;
        bar.set_position(height.0);
    }
    let Kept::Here(certificate) = store.certificate(last)? else {
        bail!("the certificate of block {last} is not stored")
    };
    writer.piece(&codec::encode(&certificate))?;
    let (buffer, bytes) = writer.finish()?;
    bar.finish_and_clear();
    Ok((buffer.into_inner().map_err(io::IntoInnerError::into_error)?, bytes))
}

#[cfg(test)]
mod tests;
