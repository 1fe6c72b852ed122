//! Checks a whole store. Trusts nothing but the genesis that the caller gives.
//!
//! Blocks from the genesis on are checked by all rules, up to the first one that is not kept. What
//! follows is in `partial`.

mod partial;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use crate::block::Block;
use crate::chain::{Chain, ChainState, ValidBlock};
use crate::codec;
use crate::history::SealedSegment;
use crate::state::State;
use crate::store::disk::{self, Disk};
use crate::store::index::{self, Entry};
use crate::store::kept::Kept;
use crate::store::pages::{ERA_SEGMENTS, Name, Pages};
use crate::store::recover::{
    block_bytes, check_witness, open_for, read_open, read_sealed, read_tip,
};
use crate::store::schema::{self, Joined, Key, Marker, TipValue, prefix};
use crate::store::segments::{Files, Segments};
use crate::store::{Store, StoreError, evidence, filter};
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
    /// Which blocks are kept, as ranges of their heights, in order.
    pub kept: Vec<RangeInclusive<Height>>,
    /// Number of kept blocks that were checked by hash alone: a quorum signed them, and whether
    /// they follow the rules was not checked. They come after a block that is not kept.
    pub by_hash: u64,
    /// As [`Store::executed_to`].
    pub executed_to: Height,
    /// As [`Store::checked_by_hash_to`].
    pub checked_by_hash_to: Height,
    /// Number of transactions in the blocks that were checked by all rules. Every signature was
    /// verified.
    pub transactions: u64,
    /// Number of sealed segments that were checked.
    pub segments: u64,
    /// Number of snapshots without a problem, if snapshots were checked.
    pub snapshots: u64,
    /// Number of stored values and pages of files. Every checksum was compared.
    pub values: u64,
    /// Bytes of the keys and contents of the values and pages that are not damaged.
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

    pub(super) fn add(&mut self, what: impl ToString, reason: impl ToString) {
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

    /// Counts the pages and bytes of a file that was checked.
    fn count(&mut self, checked: Result<(u64, u64), StoreError>) -> Result<(), StoreError> {
        if let Some((pages, bytes)) = self.note(checked)? {
            self.values = self.values.saturating_add(pages);
            self.bytes = self.bytes.saturating_add(bytes);
        }
        Ok(())
    }

    /// Turns a damaged value into a problem. An error of the system ends the check.
    pub(super) fn note<T>(
        &mut self,
        result: Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
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
    /// keys, in the database and in the files of sealed segments. Then it checks every block from
    /// the genesis on by all rules, with every signature and certificate, and that the other data,
    /// except evidence, follow from the blocks. All this takes longer than to sync the chain from
    /// peers.
    ///
    /// A store that lacks blocks is clean if all that it keeps is right. Kept blocks after the
    /// first missing one are checked by hash, and those after the checkpoint by all rules.
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
        let files = Files::of(directory);
        let mut report = VerifyReport::default();
        let blobs = disk::blobs(directory)?;
        if blobs > 0 {
            report
                .add("directory blobs", format!("{blobs} files, which may never have been synced"));
        }
        let tip = report.note(read_tip(&disk, chain.id()))?;
        check_values(&disk, tip.as_ref().map(|(tip, _)| tip), &mut report)?;
        if let Some((tip, certificate)) = tip {
            let validators = chain.validators(tip.height);
            if tip.height > Height(0)
                && let Err(error) = certificate.verify(chain.id(), validators, tip.height, tip.hash)
            {
                report.add("certificate of the tip", error);
            }
            let Some(mut segments) = report.note(read_sealed(&disk, &tip))? else {
                report.add("history", "not checked, because a descriptor is missing or damaged");
                return Ok(report);
            };
            let open = read_open(&disk, &files, chain.id(), &tip, segments.open_first());
            segments.open = report.note(open)?.unwrap_or_default();
            report.note(check_witness(directory, &files, &segments, &tip))?;
            report.kept = segments.kept_heights(tip.height);
            let joined: Option<Option<Joined>> = report.note(disk.value(Key::Joined))?;
            // A damaged value says nothing of what was executed.
            let executed = joined.map(|joined| joined.map_or(tip.height, |joined| joined.executed));
            report.executed_to = executed.unwrap_or_default();
            report.checked_by_hash_to = segments.checked_by_hash_to(tip.height, report.executed_to);
            let history = Stored { disk: &disk, files: &files, segments: &segments };
            history.check_files(chain, &mut report)?;
            history.check(chain, &tip, &mut report, progress)?;
        }
        Ok(report)
    }
}

/// Checks every key, checksum and piece of evidence, and that no segment is stored beyond the tip.
fn check_values(
    disk: &Disk,
    tip: Option<&TipValue>,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    for item in disk.scan(&[]) {
        let Some((key, content)) = report.note(item)? else { break };
        report.values = report.values.saturating_add(1);
        if let Some(content) = report.note(content)? {
            let length = key.len().saturating_add(content.len());
            report.bytes = report.bytes.saturating_add(length as u64);
        }
        match Key::parse(&key) {
            None => report.add(format!("key {}", hex::encode(&key)), "unknown"),
            Some(key @ (Key::Segment(index) | Key::End(index, _)))
                if tip.is_some_and(|tip| index >= tip.segments) =>
            {
                report.add(key, "beyond the tip");
            }
            Some(Key::Evidence(hash, 0)) => {
                let record = disk.record(|piece| Key::Evidence(hash, piece));
                report.note(
                    record.and_then(|record| evidence::decode(hash, &record.unwrap_or_default())),
                )?;
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The parts of a store that is not open.
struct Stored<'a> {
    disk: &'a Disk,
    files: &'a Files,
    segments: &'a Segments,
}

impl Stored<'_> {
    /// Checks every block from the genesis on, and the data that follow from the blocks: segments,
    /// their runs and filters, and the checkpoint.
    fn check(
        &self,
        chain: &Arc<Chain>,
        tip: &TipValue,
        report: &mut VerifyReport,
        progress: &mut dyn FnMut(Height, Height),
    ) -> Result<(), StoreError> {
        let marker: Option<Marker> = report.note(self.disk.value(Key::Marker))?.flatten();
        let mut state = ChainState::genesis(Arc::clone(chain));
        let mut run = BTreeSet::new();
        while state.tip().height < tip.height {
            let height = state.tip().height.next();
            if let Kept::NotKept = self.segments.place(height) {
                let from = state.tip().height;
                return self.check_partial(chain, tip, marker, from, report, progress);
            }
            let Some(block) = report.note(self.check_block(&state, height))? else {
                report.add(
                    format!("blocks after {}", state.tip().height),
                    "not checked, because the first of them is missing or wrong",
                );
                return Ok(());
            };
            run.extend(index::entries(&block));
            let transactions = block.block().transactions.len() as u64;
            report.transactions = report.transactions.saturating_add(transactions);
            report.height = height;
            if let Some(sealed) = state.advance(&block) {
                self.check_segment(&sealed, std::mem::take(&mut run), report)?;
                report.segments = report.segments.saturating_add(1);
            }
            if let Some(marker) = marker.filter(|marker| marker.height == height) {
                if marker.hash != block.hash() {
                    report.add(
                        Key::Marker,
                        format!("is for block {}, expected {}", marker.hash, block.hash()),
                    );
                }
                check_pages(self.disk, &marker, block.state(), report)?;
            }
            progress(height, tip.height);
        }
        if state.tip().hash != tip.hash || state.history().segments() != tip.segments {
            let (height, hash) = (tip.height, state.tip().hash);
            let found =
                TipValue { height, hash, segments: state.history().segments(), bytes: tip.bytes };
            report.add(Key::Tip, format!("the blocks lead to {found}, expected {tip}"));
        }
        if let Some(marker) = marker.filter(|marker| marker.height > tip.height) {
            let reason = format!("is at height {}, the tip at {}", marker.height, tip.height);
            report.add(Key::Marker, reason);
        }
        Ok(())
    }

    /// Checks a block by all rules.
    fn check_block(&self, state: &ChainState, height: Height) -> Result<ValidBlock, StoreError> {
        let wrong = |reason: &dyn ToString| {
            StoreError::corrupt(format_args!("block {height}"), reason.to_string())
        };
        let bytes = block_bytes(self.files, self.segments, height)?;
        let block: Block = schema::decode(format_args!("block {height}"), &bytes)?;
        let block = block.verify(state.chain().id()).map_err(|error| wrong(&error))?;
        let valid = state.validate(block).map_err(|error| wrong(&error))?;
        if **valid.bytes() == bytes { Ok(valid) } else { Err(wrong(&"not its canonical bytes")) }
    }

    /// Checks each page of each file of sealed segments and whole eras, so that all damage is found
    /// at once, and the ends of segments.
    fn check_files(&self, chain: &Chain, report: &mut VerifyReport) -> Result<(), StoreError> {
        let history = &self.files.history;
        let gaps = &self.segments.gaps;
        for descriptor in &self.segments.sealed {
            let era = descriptor.index / ERA_SEGMENTS;
            report.note(self.check_end(chain, descriptor))?;
            if !gaps.keeps(descriptor.index) {
                continue;
            }
            let bytes = descriptor.bytes;
            let blocks = Pages::open(history, Name::Blocks(descriptor.index))
                .and_then(|file| Ok((file.check(bytes)?, bytes)));
            report.count(blocks)?;
            let index = self.files.index(descriptor).and_then(|file| file.check());
            report.count(index)?;
            let next = descriptor.index.saturating_add(1);
            if next.is_multiple_of(ERA_SEGMENTS) && gaps.bits(era) == 0 {
                let starts = self.files.starts(next.saturating_sub(ERA_SEGMENTS)..next);
                report.count(starts.and_then(|starts| filter::check(history, era, &starts)))?;
            }
        }
        Ok(())
    }

    /// Checks that the index file of a segment is the one that its blocks make.
    fn check_segment(
        &self,
        expected: &SealedSegment,
        run: impl IntoIterator<Item = Entry>,
        report: &mut VerifyReport,
    ) -> Result<(), StoreError> {
        let index = expected.descriptor.index;
        let Some(file) = report.note(self.files.index(&expected.descriptor))? else {
            return Ok(());
        };
        if let Some(stored) = report.note(file.segment())?
            && stored != *expected
        {
            report.add(Name::Index(index), "differs from the one that its blocks make");
        }
        if let Some(stored) = report.note(file.run())?
            && !run.into_iter().eq(stored)
        {
            report.add(Name::Index(index), "has other ids or places than its blocks");
        }
        Ok(())
    }
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
