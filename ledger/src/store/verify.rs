//! Checks a whole store. Trusts nothing but the genesis that the caller gives.

use std::path::Path;
use std::sync::Arc;

use crate::block::Block;
use crate::chain::{Chain, ChainState, ValidBlock};
use crate::codec;
use crate::hash::{Domain, Hash};
use crate::history::SealedSegment;
use crate::state::State;
use crate::store::disk::{self, Disk};
use crate::store::index::{self, Index};
use crate::store::recover::{check_witness, open_for, read_tip};
use crate::store::schema::{self, Key, Marker, TipValue, prefix};
use crate::store::segments::segment;
use crate::store::{Store, StoreError, block_bytes, evidence};
use crate::units::Height;

/// Most problems that a report names. Further problems are only counted.
const PROBLEMS_MAX: usize = 1_000;

/// One thing that is wrong with a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The value or file.
    pub what: String,
    /// What is wrong with it.
    pub reason: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.reason)
    }
}

/// What was checked, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Height of the last block that follows from the genesis by all rules.
    pub height: Height,
    /// Number of transactions up to this height. Every signature was verified.
    pub transactions: u64,
    /// Number of sealed segments up to this height.
    pub segments: u64,
    /// Number of stored values. Every checksum was compared.
    pub values: u64,
    /// Bytes of the keys and contents of the values that are not damaged.
    pub bytes: u64,
    /// The first problems, at most 1,000.
    pub problems: Vec<Problem>,
    /// Number of further problems.
    pub more_problems: u64,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    fn add(&mut self, what: impl ToString, reason: impl ToString) {
        if self.problems.len() < PROBLEMS_MAX {
            let problem = Problem { what: what.to_string(), reason: reason.to_string() };
            // Several checks may read one damaged value and report it. It is listed once.
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        } else {
            self.more_problems = self.more_problems.saturating_add(1);
        }
    }

    /// Turns a damaged value into a problem. An error of the system ends the check.
    fn note<T>(&mut self, result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::Corrupt { what, reason }) => {
                self.add(what, reason);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Store {
    /// Checks everything in a store, which must not be open. First it checks all checksums and
    /// keys. Then it checks every block from the genesis on by all rules, with every signature and
    /// certificate, and that the other data, except evidence, follow from the blocks. All this
    /// takes longer than to sync the chain from peers.
    ///
    /// Changes nothing that is stored. An unfinished checkpoint, which a crash may leave, is no
    /// problem. After each block `progress` is called with its height and the height of the tip.
    /// The database opens only files that it may write, so a store on a read-only volume has to be
    /// copied first.
    ///
    /// # Errors
    /// As [`Self::open`], if the store cannot be read at all. Damage inside is in the report.
    pub fn verify(
        directory: &Path,
        chain: &Arc<Chain>,
        progress: &mut dyn FnMut(Height, Height),
    ) -> Result<VerifyReport, StoreError> {
        let disk = open_for(directory, chain)?;
        let mut report = VerifyReport::default();
        let blobs = disk::blobs(directory)?;
        if blobs > 0 {
            report
                .add("directory blobs", format!("{blobs} files, which may never have been synced"));
        }
        let tip = report.note(read_tip(&disk, chain.id()))?;
        check_values(&disk, tip.as_ref().map(|(tip, _)| tip), &mut report)?;
        if let Some((tip, certificate)) = tip {
            report.note(check_witness(directory, &disk, &tip))?;
            let validators = chain.validators(tip.height);
            if tip.height > Height(0)
                && let Err(error) = certificate.verify(chain.id(), validators, tip.height, tip.hash)
            {
                report.add("certificate of the tip", error);
            }
            check_blocks(&disk, chain, &tip, &mut report, progress)?;
        }
        Ok(report)
    }
}

/// Checks every key, checksum and piece of evidence, that no block or segment is stored beyond the
/// tip, and that there are as many heights by hash as blocks.
fn check_values(
    disk: &Disk,
    tip: Option<&TipValue>,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    let mut heights = 0u64;
    for item in disk.scan(&[]) {
        let Some((key, content)) = report.note(item)? else { break };
        report.values = report.values.saturating_add(1);
        if let Some(content) = report.note(content)? {
            let length = key.len().saturating_add(content.len());
            report.bytes = report.bytes.saturating_add(length as u64);
        }
        let beyond = match Key::parse(&key) {
            None => {
                report.add(format!("key {}", hex::encode(&key)), "unknown");
                false
            }
            Some(Key::HeightOf(_)) => {
                heights = heights.saturating_add(1);
                false
            }
            Some(Key::Body(height, _)) => {
                tip.is_some_and(|tip| height > tip.height || height == Height(0))
            }
            Some(Key::Segment(index, _)) => tip.is_some_and(|tip| index >= tip.segments),
            Some(Key::Evidence(hash, 0)) => {
                let record = disk.record(|piece| Key::Evidence(hash, piece));
                report.note(
                    record.and_then(|record| evidence::decode(hash, &record.unwrap_or_default())),
                )?;
                false
            }
            Some(_) => false,
        };
        if beyond && let Some(known) = Key::parse(&key) {
            report.add(known, "beyond the tip");
        }
    }
    if let Some(tip) = tip.filter(|tip| tip.height.0 != heights) {
        report.add("heights by hash", format!("{heights}, expected {}", tip.height));
    }
    Ok(())
}

/// Checks every block from the genesis on, and the data that follow from the blocks: heights by
/// hash, segments, checkpoint and index.
fn check_blocks(
    disk: &Disk,
    chain: &Arc<Chain>,
    tip: &TipValue,
    report: &mut VerifyReport,
    progress: &mut dyn FnMut(Height, Height),
) -> Result<(), StoreError> {
    let marker: Option<Marker> = report.note(disk.value(Key::Marker))?.flatten();
    let indexed = marker.map_or(Height(0), |marker| marker.height);
    let mut expected = Fingerprint::default();
    let mut state = ChainState::genesis(Arc::clone(chain));
    while state.tip().height < tip.height {
        let height = state.tip().height.next();
        let Some(block) = report.note(check_block(disk, &state, height))? else {
            report.add(
                format!("blocks after {}", state.tip().height),
                "not checked, because the first of them is missing or wrong",
            );
            return Ok(());
        };
        if height <= indexed {
            index::entries(&block).iter().for_each(|entry| expected.add(entry));
        }
        let transactions = block.block().transactions.len() as u64;
        report.transactions = report.transactions.saturating_add(transactions);
        report.height = height;
        if let Some(sealed) = state.advance(&block) {
            check_segment(disk, &sealed, report)?;
            report.segments = report.segments.saturating_add(1);
        }
        if let Some(marker) = marker.filter(|marker| marker.height == height) {
            if marker.hash != block.hash() {
                report.add(
                    Key::Marker,
                    format!("is for block {}, expected {}", marker.hash, block.hash()),
                );
            }
            check_pages(disk, &marker, block.state(), report)?;
        }
        progress(height, tip.height);
    }
    if state.tip().hash != tip.hash || state.history().segments() != tip.segments {
        let (height, hash, segments) = (tip.height, state.tip().hash, state.history().segments());
        report.add(
            Key::Tip,
            format!("the blocks lead to {}, expected {tip}", TipValue { height, hash, segments }),
        );
    }
    if indexed > tip.height {
        report.add(Key::Marker, format!("is at height {indexed}, the tip at {}", tip.height));
    }
    check_index(disk, &expected, report)
}

/// Checks a block by all rules, and the height that is stored under its hash.
fn check_block(disk: &Disk, state: &ChainState, height: Height) -> Result<ValidBlock, StoreError> {
    let wrong = |reason: &dyn ToString| {
        StoreError::corrupt(format_args!("block {height}"), reason.to_string())
    };
    let bytes = block_bytes(disk, height)?;
    let block: Block = schema::decode(format_args!("block {height}"), &bytes)?;
    let block = block.verify(state.chain().id()).map_err(|error| wrong(&error))?;
    let valid = state.validate(block).map_err(|error| wrong(&error))?;
    if **valid.bytes() != bytes {
        return Err(wrong(&"not its canonical bytes"));
    }
    let key = Key::HeightOf(valid.hash());
    match disk.value::<Height>(key)? {
        Some(found) if found == height => Ok(valid),
        Some(found) => Err(StoreError::corrupt(key, format!("{found}, expected {height}"))),
        None => Err(StoreError::corrupt(key, format!("missing, expected {height}"))),
    }
}

fn check_segment(
    disk: &Disk,
    expected: &SealedSegment,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    let index = expected.descriptor.index;
    if let Some(stored) = report.note(segment(disk, index))?
        && stored != *expected
    {
        report.add(format!("segment {index}"), "differs from the segment that its blocks make");
    }
    Ok(())
}

/// Checks that the pages of the newest checkpoint are exactly those of the state.
fn check_pages(
    disk: &Disk,
    marker: &Marker,
    state: &State,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    let mut missing_or_wrong = false;
    let mut expected = 0u64;
    for (page, entries) in state.pages() {
        let key = Key::Page(marker.slot, page);
        expected = expected.saturating_add(1);
        let stored = report.note(disk.get(key))?;
        if let Some(stored) = stored
            && stored.as_ref() != Some(&codec::encode(&entries))
        {
            report.add(
                key,
                if stored.is_some() { "other entries than the blocks give" } else { "missing" },
            );
            missing_or_wrong = true;
        }
    }
    let stored = disk.scan(&prefix::pages(marker.slot)).count() as u64;
    if stored != expected && !missing_or_wrong {
        report.add("checkpoint", format!("{stored} pages, expected {expected}"));
    }
    Ok(())
}

/// Checks that the index has exactly the transactions of the blocks up to the checkpoint.
fn check_index(
    disk: &Disk,
    expected: &Fingerprint,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    let Some(index) = report.note(Index::load(disk))? else { return Ok(()) };
    let mut found = Fingerprint::default();
    let before = report.problems.len();
    for (id, run) in index.runs() {
        report.note(index::check_run(disk, *id, run, |entry| found.add(&entry)))?;
    }
    if found != *expected && report.problems.len() == before {
        let reason = format!(
            "{} entries, expected {}, or others than those of the blocks",
            found.count, expected.count
        );
        report.add("transaction index", reason);
    }
    Ok(())
}

/// Stands for a set of index entries, in constant memory: their number and the sum of their hashes.
/// Lost or damaged entries change these two numbers. Entries forged on purpose may go unnoticed,
/// which is harmless: a reader checks each entry against its block.
#[derive(Default, PartialEq, Eq)]
struct Fingerprint {
    count: u64,
    sum: u128,
}

impl Fingerprint {
    fn add(&mut self, entry: &index::Entry) {
        let hash = Hash::of(Domain::StoreValue, &[&codec::encode(entry)]);
        self.count = self.count.saturating_add(1);
        self.sum = self
            .sum
            .wrapping_add(u128::from_le_bytes(hash.0.first_chunk().copied().unwrap_or_default()));
    }
}
