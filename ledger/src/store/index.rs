//! The index of transactions by id. It consists of sorted runs of short entries, with many entries
//! in each stored value, called a piece. A stored key for each entry would cost more than all other
//! data together.
//!
//! Entries of blocks after the newest checkpoint are in memory only, since these blocks are applied
//! again anyway when the store is opened. A checkpoint writes the entries as a run. Eight runs of
//! one size class are merged into one of the next class, so that a search reads few runs.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::chain::ValidBlock;
use crate::codec::{Decode, Encode};
use crate::hash::TxId;
use crate::store::StoreError;
use crate::store::disk::{Bulk, Disk};
use crate::store::schema::{self, Key, VALUE_BYTES_MAX, prefix};
use crate::units::Height;

/// Size of an encoded entry, in bytes.
const ENTRY_BYTES: usize = 20;
/// Most entries of a piece: 6,000 bytes.
pub(super) const PIECE_ENTRIES: usize = 300;
const _: () = assert!(PIECE_ENTRIES * ENTRY_BYTES + 16 <= VALUE_BYTES_MAX);
/// Number of runs of one size class that are merged into one. An entry is rewritten about once for
/// each class. A higher number makes searches read more runs, a lower one rewrites entries more
/// often.
const MERGE_RUNS: usize = 8;
/// Runs of this size class, which have at least 8^7 (two million) entries, are not merged. So a
/// merge takes about a second at most. A billion transactions make at most about 500 runs, and a
/// search mostly reads one piece of each.
const CLASS_FINAL: u32 = 7;

/// The place of a transaction: height and index in the block, with `start`, the first eight bytes
/// of its id. Several ids may begin with the same bytes, so a lookup compares the whole id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub(super) struct Entry {
    start: u64,
    pub(super) height: Height,
    pub(super) index: u32,
}

impl Entry {
    fn new(id: &TxId, height: Height, index: u32) -> Self {
        Self { start: id_start(id), height, index }
    }
}

fn id_start(id: &TxId) -> u64 {
    u64::from_be_bytes(id.as_bytes().first_chunk().copied().unwrap_or_default())
}

/// The entries of a block's transactions, sorted.
pub(super) fn entries(block: &ValidBlock) -> Vec<Entry> {
    let transactions = block.block().transactions.iter();
    let mut entries: Vec<Entry> = (0u32..)
        .zip(transactions)
        .map(|(index, one)| Entry::new(&one.id(), block.height(), index))
        .collect();
    entries.sort_unstable();
    entries
}

/// Description of a stored run: the number of its entries, and the `fences`, which are the `start`
/// of the first entry in each of its pieces.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Run {
    pub(super) entries: u64,
    fences: Vec<u64>,
}

impl Run {
    pub(super) fn pieces(&self) -> u32 {
        u32::try_from(self.fences.len()).unwrap_or(u32::MAX)
    }

    /// The size class. A run of class n has 8^n to 8^(n + 1) - 1 entries.
    fn class(&self) -> u32 {
        self.entries.max(1).ilog2() / 3
    }
}

/// All entries: those in memory, and descriptions of the runs on the disk.
#[derive(Default)]
pub(super) struct Index {
    /// Sorted entries of each block after the newest checkpoint.
    recent: Vec<Vec<Entry>>,
    runs: BTreeMap<u64, Run>,
}

/// Runs to add, and the runs that they replace.
pub(super) struct Change {
    pub(super) added: Vec<(u64, Run)>,
    pub(super) removed: Vec<u64>,
}

impl Index {
    /// Reads the descriptions of all runs.
    pub(super) fn load(disk: &Disk) -> Result<Self, StoreError> {
        let mut runs = BTreeMap::new();
        let mut from = Key::Run(0, 0);
        while let Some(Key::Run(id, _)) = disk.key_after(from)? {
            let key = |piece| Key::Run(id, piece);
            let record = disk.record(key)?.ok_or_else(|| StoreError::corrupt(key(0), "missing"))?;
            runs.insert(id, schema::decode(key(0), &record)?);
            from = Key::Run(id.saturating_add(1), 0);
        }
        Ok(Self { recent: Vec::new(), runs })
    }

    pub(super) const fn runs(&self) -> &BTreeMap<u64, Run> {
        &self.runs
    }

    /// Adds the entries of a committed block.
    pub(super) fn push(&mut self, entries: Vec<Entry>) {
        if !entries.is_empty() {
            self.recent.push(entries);
        }
    }

    /// Every place where a transaction with this id may be: usually one or none. If a block holds
    /// the transaction, its place is among them.
    pub(super) fn find(&self, disk: &Disk, id: &TxId) -> Result<Vec<Entry>, StoreError> {
        let start = id_start(id);
        let mut found = Vec::new();
        for block in &self.recent {
            found.extend_from_slice(equal(block, start));
        }
        for (run, description) in &self.runs {
            // Entries with the same `start` may lie in several pieces. So the piece before the
            // first fence that equals `start` may hold some too.
            let fences = &description.fences;
            let first = fences.partition_point(|fence| *fence < start).saturating_sub(1);
            let candidates =
                (0u32..).zip(fences).skip(first).take_while(|(_, fence)| **fence <= start);
            for (piece, _) in candidates {
                found.extend_from_slice(equal(&read_piece(disk, *run, piece)?, start));
            }
        }
        Ok(found)
    }

    /// Writes the entries in memory as a run, and makes one merge if one is due. Nothing refers to
    /// the new pieces until the caller has stored their descriptions and called `replace`.
    pub(super) fn write(&self, disk: &Disk) -> Result<Change, StoreError> {
        let mut next = self.runs.last_key_value().map_or(0, |(id, _)| id.saturating_add(1));
        let mut change = Change { added: Vec::new(), removed: Vec::new() };
        if !self.recent.is_empty() {
            let mut recent: Vec<Entry> = self.recent.concat();
            recent.sort_unstable();
            let mut writer = RunWriter::new(disk, next);
            recent.into_iter().try_for_each(|entry| writer.push(entry))?;
            change.added.push((next, writer.finish()?));
            next = next.saturating_add(1);
        }
        if let Some(ids) = self.merge_due() {
            let mut merged =
                Merge::new(disk, ids.iter().filter_map(|id| Some((*id, self.runs.get(id)?))));
            let mut writer = RunWriter::new(disk, next);
            while let Some(entry) = merged.next()? {
                writer.push(entry)?;
            }
            change.added.push((next, writer.finish()?));
            change.removed = ids;
        }
        Ok(change)
    }

    /// The oldest runs of the smallest class that has enough of them to merge.
    fn merge_due(&self) -> Option<Vec<u64>> {
        (0..CLASS_FINAL).find_map(|class| {
            let same = self.runs.iter().filter(|(_, run)| run.class() == class);
            let ids: Vec<u64> = same.map(|(id, _)| *id).take(MERGE_RUNS).collect();
            (ids.len() == MERGE_RUNS).then_some(ids)
        })
    }

    /// Puts the result of `write` into use.
    pub(super) fn replace(&mut self, change: Change) {
        self.recent.clear();
        for id in &change.removed {
            self.runs.remove(id);
        }
        self.runs.extend(change.added);
    }

    /// Removes pieces that belong to no run: those of merged runs, and those that a crash left
    /// behind.
    pub(super) fn sweep(&self, disk: &Disk) -> Result<(), StoreError> {
        let mut from = Key::RunPiece(0, 0);
        while let Some(Key::RunPiece(id, _)) = disk.key_after(from)? {
            if !self.runs.contains_key(&id) {
                let mut bulk = disk.bulk();
                for item in disk.scan(&[&prefix::RUN_PIECE[..], &id.to_be_bytes()].concat()) {
                    if let Some(key) = Key::parse(&item?.0) {
                        bulk.remove(key)?;
                    }
                }
                bulk.finish()?;
            }
            from = Key::RunPiece(id.saturating_add(1), 0);
        }
        Ok(())
    }
}

/// Reads a whole run and checks it: order, fences, number of entries.
pub(super) fn check_run(
    disk: &Disk,
    id: u64,
    run: &Run,
    mut visit: impl FnMut(Entry),
) -> Result<(), StoreError> {
    let mut last: Option<Entry> = None;
    let mut count = 0u64;
    for (piece, fence) in (0u32..).zip(&run.fences) {
        let entries = read_piece(disk, id, piece)?;
        if entries.first().map(|entry| entry.start) != Some(*fence) {
            return Err(StoreError::corrupt(
                Key::RunPiece(id, piece),
                "its first entry is not the one in the run's description",
            ));
        }
        for entry in entries {
            if last.is_some_and(|last| last >= entry) {
                return Err(StoreError::corrupt(
                    Key::RunPiece(id, piece),
                    "its entries are not sorted",
                ));
            }
            last = Some(entry);
            count = count.saturating_add(1);
            visit(entry);
        }
    }
    if count != run.entries {
        return Err(StoreError::corrupt(
            Key::Run(id, 0),
            format!("{count} entries, expected {}", run.entries),
        ));
    }
    Ok(())
}

fn equal(sorted: &[Entry], start: u64) -> &[Entry] {
    let first = sorted.partition_point(|entry| entry.start < start);
    let count = sorted[first..].partition_point(|entry| entry.start == start);
    &sorted[first..][..count]
}

fn read_piece(disk: &Disk, run: u64, piece: u32) -> Result<Vec<Entry>, StoreError> {
    let key = Key::RunPiece(run, piece);
    disk.value(key)?.ok_or_else(|| StoreError::corrupt(key, "missing"))
}

/// Stores sorted entries as the pieces of one run.
struct RunWriter<'a> {
    id: u64,
    bulk: Bulk<'a>,
    run: Run,
    piece: Vec<Entry>,
}

impl<'a> RunWriter<'a> {
    fn new(disk: &'a Disk, id: u64) -> Self {
        Self {
            id,
            bulk: disk.bulk(),
            run: Run { entries: 0, fences: Vec::new() },
            piece: Vec::new(),
        }
    }

    fn push(&mut self, entry: Entry) -> Result<(), StoreError> {
        if self.piece.len() == PIECE_ENTRIES {
            self.end_piece()?;
        }
        self.piece.push(entry);
        Ok(())
    }

    fn end_piece(&mut self) -> Result<(), StoreError> {
        let Some(first) = self.piece.first() else { return Ok(()) };
        let number = self.run.pieces();
        self.run.fences.push(first.start);
        self.run.entries = self.run.entries.saturating_add(self.piece.len() as u64);
        self.bulk.put_value(Key::RunPiece(self.id, number), &self.piece)?;
        self.piece.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Run, StoreError> {
        self.end_piece()?;
        self.bulk.finish()?;
        Ok(self.run)
    }
}

/// Merges sorted runs, with one piece of each in memory.
struct Merge<'a> {
    disk: &'a Disk,
    sources: Vec<Source>,
}

struct Source {
    run: u64,
    pieces: Range<u32>,
    entries: std::vec::IntoIter<Entry>,
}

impl<'a> Merge<'a> {
    fn new<'r>(disk: &'a Disk, runs: impl IntoIterator<Item = (u64, &'r Run)>) -> Self {
        let source = |(run, description): (u64, &Run)| Source {
            run,
            pieces: 0..description.pieces(),
            entries: Vec::new().into_iter(),
        };
        Self { disk, sources: runs.into_iter().map(source).collect() }
    }

    fn next(&mut self) -> Result<Option<Entry>, StoreError> {
        let mut least: Option<(Entry, usize)> = None;
        for (at, source) in self.sources.iter_mut().enumerate() {
            if source.entries.as_slice().is_empty()
                && let Some(piece) = source.pieces.next()
            {
                source.entries = read_piece(self.disk, source.run, piece)?.into_iter();
            }
            if let Some(entry) = source.entries.as_slice().first()
                && least.is_none_or(|(least, _)| *entry < least)
            {
                least = Some((*entry, at));
            }
        }
        Ok(least.and_then(|(_, at)| self.sources.get_mut(at)?.entries.next()))
    }
}
