//! Backfill on disk: history below the tip, which is fetched only to be kept.
//!
//! What the disk refuses here pauses backfill and is logged. It never ends the node. A segment is
//! written twice, as staged chunks and as files of the store: a page of the store begins with its
//! checksum and may span two chunks, so a staged file cannot become a stored one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use ledger::history::{HistoryRules, SegmentHead};
use ledger::store::{ERA_SEGMENTS, Found, Kept, SegmentReader, Staging, Store, StoreError};
use ledger::units::{Height, SegmentIndex};
use protocol::swarm::message::ChunkId;
use protocol::swarm::{Input, SegmentRange, SegmentRanges};
use tokio::sync::Notify;

use super::{Done, Shell, warn_damaged};
use crate::checkpoint::{Checkpoint, OtherChain};
use crate::space::Space;

/// What the archive tells `swarm`.
pub(crate) enum ToSwarm {
    /// The eras to fetch, in place of those that were said before. A node that keeps all of history
    /// fetches whatever it lacks.
    Fetch(BTreeSet<u64>),
    /// An era was dropped, or is served to nobody for now.
    Dropped(u64),
    /// An era is served again.
    Restored(u64),
    /// Number of bytes that went out as answers to audits.
    Uploaded(u64),
}

/// Backfill's part of the shell.
pub(crate) struct Backfill {
    folder: PathBuf,
    pub(super) staging: Staging,
    /// What an earlier run staged, until the machine hears of it.
    found: Vec<Found>,
    /// Segments that the machine has begun and the disk has not.
    unbegun: BTreeMap<SegmentIndex, SegmentHead>,
    /// The eras to fetch, besides the one that is not whole yet. `None`: all.
    wanted: Option<BTreeSet<u64>>,
    /// Wakes the audit when a segment is in its place.
    kept: Arc<Notify>,
    /// The disk has refused, and has accepted nothing since. The log has said so.
    is_refused: bool,
}

impl Backfill {
    /// Opens the folder in which chunks are staged. If the disk refuses, nothing is fetched until
    /// it accepts the folder. `kept` is notified of each segment that is put in its place. A node
    /// that `keeps_all` fetches every segment that it lacks.
    pub(crate) fn open(
        folder: PathBuf,
        rules: HistoryRules,
        kept: Arc<Notify>,
        keeps_all: bool,
    ) -> Self {
        let (staging, found) = Staging::open(&folder, rules).unwrap_or_else(|error| {
            tracing::warn!("no older blocks are fetched while the disk refuses: {error}");
            (Staging::new(&folder, rules), Vec::new())
        });
        let unbegun = BTreeMap::new();
        let wanted = (!keeps_all).then(BTreeSet::new);
        Self { folder, staging, found, unbegun, wanted, kept, is_refused: false }
    }

    /// Makes room for the chunks of a segment. If the disk refuses, it is tried again when a chunk
    /// has arrived.
    pub(super) fn begin(&mut self, head: SegmentHead) {
        let index = SegmentIndex(head.descriptor.index);
        match self.staging.begin(&head) {
            Ok(()) => drop(self.unbegun.remove(&index)),
            Err(error) => {
                self.on_refused(&error);
                self.unbegun.insert(index, head);
            }
        }
    }

    /// Stores a chunk. Returns what the machine must hear if the disk refuses.
    pub(super) fn store(&mut self, id: ChunkId, bytes: &[u8]) -> Option<Input> {
        let index = id.segment.index;
        if Space::of(&self.folder).is_some_and(Space::is_low) {
            self.on_refused(&"it is nearly full");
            return Some(Input::Refused(id));
        }
        if let Some(head) = self.unbegun.get(&index).cloned() {
            self.begin(head);
            if self.unbegun.contains_key(&index) {
                return Some(Input::Refused(id));
            }
        }
        let written = self.staging.write(index.0, u64::from(id.chunk), bytes);
        written.err().map(|error| {
            self.on_refused(&error);
            Input::Refused(id)
        })
    }

    /// Warns of the first refusal, since each pause ends with another attempt.
    fn on_refused(&mut self, reason: &dyn Display) {
        if !std::mem::replace(&mut self.is_refused, true) {
            tracing::warn!("fetching older blocks pauses, since the disk refuses: {reason}");
        }
    }

    pub(super) fn release(&mut self, index: SegmentIndex) {
        self.unbegun.remove(&index);
        if let Err(error) = self.staging.remove(index.0) {
            tracing::warn!("segment {index} stays in staging: {error}");
        }
    }
}

impl Shell {
    pub(super) fn on_archive(&mut self, message: ToSwarm) -> anyhow::Result<()> {
        match message {
            ToSwarm::Fetch(eras) => {
                self.backfill.wanted = self.backfill.wanted.take().map(|_| eras);
                self.begin_backfill()
            }
            ToSwarm::Dropped(era) => self.give(Input::Dropped(segments(era))),
            ToSwarm::Uploaded(bytes) => self.give(Input::Uploaded(bytes)),
            ToSwarm::Restored(era) => self.give(Input::Kept(segments(era))),
        }
    }

    /// Tells the machine which sealed segments this node lacks and is to keep.
    pub(super) fn begin_backfill(&mut self) -> anyhow::Result<()> {
        let kept = self.store.kept();
        let is_kept = |index: u64| kept.iter().any(|range| range.contains(&index));
        let sealed = self.store.descriptors(0, Height(u64::MAX), usize::MAX);
        let eras = sealed.len() as u64 / ERA_SEGMENTS;
        let is_wanted = |era: u64| match &self.backfill.wanted {
            Some(wanted) => era >= eras || wanted.contains(&era),
            None => true,
        };
        let missing = sealed.into_iter().filter(|descriptor| {
            !is_kept(descriptor.index) && is_wanted(descriptor.index / ERA_SEGMENTS)
        });
        let missing = missing.collect();
        let staged = std::mem::take(&mut self.backfill.found);
        self.give(Input::Missing { missing, staged })
    }

    /// Puts a complete segment in its place, on a thread of low priority.
    pub(super) fn keep(&mut self, index: SegmentIndex) -> Option<Input> {
        let reader = match self.backfill.staging.reader(index.0) {
            Ok(Some(reader)) => reader,
            // The disk has refused a chunk since the machine counted it.
            Ok(None) => return Some(Input::NotPlaced(index, Vec::new())),
            Err(error) => {
                self.backfill.on_refused(&error);
                return Some(Input::NotPlaced(index, Vec::new()));
            }
        };
        let (store, results) = (self.store.clone(), self.results.clone());
        self.assembly.spawn(move || {
            let placed = Done::Placed(index, place(&store, reader));
            // If the sync thread has gone, the node is stopping.
            let _gone = results.blocking_send(Ok(placed));
        });
        None
    }

    /// A segment is in its place, or could not be put there.
    ///
    /// # Errors
    /// The segment is certified, but its bytes are not blocks by the rules. More than a third of
    /// the voting power is dishonest, or this code is too old or wrong, and the node must stop.
    /// Likewise if it has another block at the height of the checkpoint.
    pub(super) fn on_placed(
        &mut self,
        index: SegmentIndex,
        placed: Result<Vec<u32>, StoreError>,
    ) -> anyhow::Result<()> {
        match placed {
            Ok(damaged) if damaged.is_empty() => {
                self.backfill.is_refused = false;
                check_placed(&self.store, &mut self.unchecked)?;
                if drop_late(&self.store, self.backfill.wanted.as_ref(), index) {
                    return self.give(Input::Dropped(segments(index.0 / ERA_SEGMENTS)));
                }
                self.backfill.kept.notify_one();
                self.give(Input::Kept(SegmentRange { first: index, last: index }))
            }
            Ok(damaged) => {
                for chunk in &damaged {
                    warn_damaged(index, *chunk);
                    let forgotten = self.backfill.staging.forget(index.0, u64::from(*chunk));
                    forgotten.unwrap_or_else(|error| self.backfill.on_refused(&error));
                }
                self.give(Input::NotPlaced(index, damaged))
            }
            Err(error @ StoreError::Segment { .. }) => Err(error)
                .with_context(|| format!("segment {index} is certified, but breaks the rules")),
            Err(error) => {
                self.backfill.on_refused(&error);
                self.give(Input::NotPlaced(index, Vec::new()))
            }
        }
    }
}

/// The segments of an era.
fn segments(era: u64) -> SegmentRange {
    let first = era.saturating_mul(ERA_SEGMENTS);
    let last = SegmentIndex(first.saturating_add(ERA_SEGMENTS - 1));
    SegmentRange { first: SegmentIndex(first), last }
}

/// Compares the checkpoint once its block is here.
fn check_placed(store: &Store, unchecked: &mut Option<Checkpoint>) -> Result<(), OtherChain> {
    if let Some(checkpoint) = *unchecked
        && let Ok(Kept::Here(hash)) = store.block_hash(checkpoint.height)
    {
        checkpoint.check(checkpoint.height, hash)?;
        tracing::info!("the chain contains the checkpoint {checkpoint}");
        *unchecked = None;
    }
    Ok(())
}

/// Drops the era of a segment that came into its place after the archive had dropped the era:
/// nobody waits for the rest of it. A part of an era is not announced, and would count in no
/// budget. Returns whether it did so. `wanted` are the eras to fetch, `None` all.
fn drop_late(store: &Store, wanted: Option<&BTreeSet<u64>>, index: SegmentIndex) -> bool {
    let era = index.0 / ERA_SEGMENTS;
    let is_wanted = wanted.is_none_or(|wanted| wanted.contains(&era));
    let is_here = store.kept_eras().iter().any(|eras| eras.contains(&era));
    // The newest era is fetched unasked.
    let is_newest = store.descriptors(segments(era).last.0, Height(u64::MAX), 1).is_empty();
    if is_wanted || is_here || is_newest {
        return false;
    }
    if let Err(error) = store.drop_era(era) {
        tracing::error!("era {era} of history was not dropped whole: {error}");
    }
    true
}

/// The sealed segments that are here.
pub(super) fn kept(store: &Store) -> SegmentRanges {
    let mut kept = SegmentRanges::default();
    for range in store.kept() {
        let (first, last) = (SegmentIndex(*range.start()), SegmentIndex(*range.end()));
        kept.insert(SegmentRange { first, last });
    }
    kept
}

/// Puts a complete segment in its place, unless chunks of it are damaged. Returns these.
fn place(store: &Store, mut reader: SegmentReader) -> Result<Vec<u32>, StoreError> {
    let (mut bytes, mut damaged) = (Vec::new(), Vec::new());
    for chunk in (0u32..).take(reader.head().chunks.len()) {
        match reader.read(u64::from(chunk))? {
            Some(part) => bytes.extend(part),
            None => damaged.push(chunk),
        }
    }
    if damaged.is_empty() {
        store.keep_segment(reader.head(), &bytes)?;
    }
    Ok(damaged)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use ledger::chain::Committed;
    use ledger::genesis::Limits;

    use super::*;
    use crate::driver::made::Made;

    /// A store that began with the snapshot at the end of segment 2, and has sealed segment 16.
    fn joined() -> Made {
        Made::new(35, 6)
    }

    /// The head and the bytes of a segment.
    fn segment(blocks: &[Committed], index: usize) -> (SegmentHead, Vec<u8>) {
        let blocks = &blocks[2 * index..][..2];
        let (sealed, certificate) = (blocks[1].sealed.as_ref().unwrap(), &blocks[1].certificate);
        let (descriptor, chunks) = (sealed.descriptor, sealed.chunks.clone());
        let head = SegmentHead { descriptor, chunks, certificate: certificate.clone() };
        (head, blocks.iter().flat_map(|one| one.block.bytes().to_vec()).collect())
    }

    /// Puts a segment in its place.
    fn place(store: &Store, blocks: &[Committed], index: usize) {
        let (head, bytes) = segment(blocks, index);
        store.keep_segment(&head, &bytes).unwrap();
    }

    #[test]
    fn a_segment_that_comes_after_its_era_was_dropped_goes_too() {
        let Made { folder: _folder, store, blocks, .. } = joined();
        let (none, first) = (BTreeSet::new(), BTreeSet::from([0]));
        assert_eq!(store.kept(), [3..=16]);
        store.drop_era(0).unwrap();
        place(&store, &blocks, 5);
        for (wanted, index) in [(None, 5), (Some(&first), 5), (Some(&none), 16)] {
            assert!(!drop_late(&store, wanted, SegmentIndex(index)));
            assert_eq!(store.kept(), [5..=5, 16..=16]);
        }
        assert!(drop_late(&store, Some(&none), SegmentIndex(5)));
        assert_eq!(store.kept(), [16..=16]);
        // An era that is whole is not fetched any more, and stays.
        (0..16).for_each(|index| place(&store, &blocks, index));
        assert!(!drop_late(&store, Some(&none), SegmentIndex(5)));
        assert_eq!(store.kept(), [0..=16]);
    }

    #[test]
    fn a_checkpoint_below_a_snapshot_is_checked_when_its_block_has_come() {
        let Made { folder: _folder, store, blocks, .. } = joined();
        let checkpoint = |at: usize, hash: usize| Checkpoint {
            height: Height(at as u64),
            hash: blocks[hash - 1].block.hash(),
        };
        let mut right = Some(checkpoint(3, 3));
        let mut wrong = Some(checkpoint(3, 4));
        for unchecked in [&mut right, &mut wrong] {
            check_placed(&store, unchecked).unwrap();
            assert!(unchecked.is_some(), "block 3 is not here");
        }
        place(&store, &blocks, 1);
        check_placed(&store, &mut right).unwrap();
        assert!(right.is_none());
        let error = check_placed(&store, &mut wrong).unwrap_err();
        assert_eq!((error.checkpoint.height, error.got), (Height(3), blocks[2].block.hash()));
        // The last block of a segment is proved without the segment.
        let ends = check_placed(&store, &mut Some(checkpoint(2, 3)));
        assert!(ends.is_err());
    }

    /// A file has the name of the folder.
    #[test]
    fn a_folder_that_cannot_be_made_only_pauses_backfill() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("backfill");
        fs::write(&folder, "").unwrap();
        let Made { blocks, .. } = joined();
        let Limits { segment_bytes, chunk_bytes, .. } = Limits::default();
        let rules = HistoryRules { segment_bytes, segment_blocks: 2, chunk_bytes };
        let mut backfill = Backfill::open(folder.clone(), rules, Arc::default(), true);
        let (head, bytes) = segment(&blocks, 0);
        backfill.begin(head);
        let id = protocol::swarm::BACKFILL.segment(SegmentIndex(0)).chunk(0);
        assert!(matches!(backfill.store(id, &bytes), Some(Input::Refused(_))));
        fs::remove_file(&folder).unwrap();
        assert!(backfill.store(id, &bytes).is_none());
        assert_eq!(backfill.staging.read(0, 0).unwrap(), Some(bytes));
    }
}
