//! The frontier: how a state is cut into subtrees, and these into chunks.

use std::ops::Range;

use crate::codec::{self, CodecError, Decode, Encode};
use crate::hash::{Domain, Hash, SnapshotId, StateRoot};
use crate::snapshot::SnapshotRules;
use crate::snapshot::rules::{CHUNK_HEAD_BYTES, ENTRY_BYTES};
use crate::state::{PageId, State, Subtree, Tiling, inner_hash};
use crate::units::Height;

/// Most bytes of a frontier. It is enough for 300 million accounts, and keeps a stranger's frontier
/// from filling memory.
pub const FRONTIER_BYTES_MAX: usize = 16 << 20;
/// Most subtrees of a frontier. Whoever collects its pages stops here.
pub const FRONTIER_SUBTREES_MAX: usize = (FRONTIER_BYTES_MAX - 8) / SubtreeDescriptor::BYTES;
/// Subtrees in a page of a frontier; the last page may have fewer. A page has 608 KiB, so it fits
/// into one message of a link.
pub const FRONTIER_PAGE_SUBTREES: usize = 16 << 10;
const _: () = assert!(8 + FRONTIER_PAGE_SUBTREES * SubtreeDescriptor::BYTES < 1_000_000);

/// What a frontier says of a subtree. Its place follows from the depths of the subtrees before it.
/// Its encoding has 38 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SubtreeDescriptor {
    /// Number of bits that all paths of the subtree share, 0 to 256.
    pub depth: u16,
    /// Number of entries. Only the subtree itself can prove it.
    pub count: u32,
    /// Hash of the subtree. The `state_root` covers it.
    pub hash: Hash,
}

impl SubtreeDescriptor {
    const BYTES: usize = 2 + 4 + 32;
}

/// Subtrees that are no frontier of a state. Their sender is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrontierError {
    /// Bytes that do not decode.
    #[error("the frontier is invalid: {0}")]
    Bytes(#[from] CodecError),
    /// More subtrees than `FRONTIER_BYTES_MAX` allows.
    #[error("{got} subtrees, expected at most {FRONTIER_SUBTREES_MAX}")]
    TooMany {
        /// Subtrees given.
        got: usize,
    },
    /// A subtree has more entries than a chunk.
    #[error("subtree {index} has {count} entries, expected at most {entries_max}")]
    TooCoarse {
        /// The subtree, from 0.
        index: usize,
        /// Entries that it claims to have.
        count: u32,
        /// Entries allowed.
        entries_max: u32,
    },
    /// No subtree of this depth begins where the one before it ends, or the tree is covered
    /// already.
    #[error("subtree {index} cannot have depth {depth} after the subtrees before it")]
    Depth {
        /// The subtree, from 0.
        index: usize,
        /// Its depth.
        depth: u16,
    },
    /// An inner node has so few entries that it would itself be a subtree of the frontier.
    #[error(
        "a node at depth {depth} has {count} entries in several subtrees, expected one subtree for \
         at most {entries_max}"
    )]
    TooFine {
        /// Depth of the node.
        depth: u16,
        /// Entries below it, as its subtrees claim.
        count: u64,
        /// Most entries of a subtree.
        entries_max: u32,
    },
    /// The subtrees do not cover the tree.
    #[error("{got} subtrees end before the tree does")]
    Incomplete {
        /// Subtrees given.
        got: usize,
    },
    /// The subtrees are of another state.
    #[error("the subtrees have root {got}, expected {expected}")]
    OtherRoot {
        /// Root of the subtrees.
        got: StateRoot,
        /// Root in the header of the snapshot's block.
        expected: StateRoot,
    },
}

/// The largest subtrees of a state with at most `entries_max` entries, in path order, packed into
/// chunks.
///
/// A chunk is a run of neighbouring subtrees that have at most `entries_max` entries together. Each
/// run takes as many as it can, from the first subtree on. So any two neighbouring chunks have more
/// than `entries_max` entries together, even where many accounts lie below one long prefix and most
/// subtrees are empty.
///
/// Holds about 80 bytes for each subtree. The entries of a stranger's frontier are mere claims, of
/// up to some 460 GB, until their chunks are there: allocate nothing for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontier {
    pub(super) root: StateRoot,
    pub(super) entries_max: u32,
    descriptors: Vec<SubtreeDescriptor>,
    /// The place of each subtree.
    places: Vec<PageId>,
    pub(super) runs: Vec<Run>,
}

/// The place of a chunk in the list of subtrees, and in the bytes of all chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) subtrees: Range<usize>,
    pub(super) bytes: Range<u64>,
}

impl Frontier {
    /// The frontier of a state.
    ///
    /// # Errors
    /// `FrontierError::TooMany`: the state is too large for a snapshot.
    pub fn of(state: &State, rules: &SnapshotRules) -> Result<Self, FrontierError> {
        let describe = |subtree: Subtree| SubtreeDescriptor {
            depth: subtree.at().depth,
            // At most `entries_max`, which is a `u32`.
            count: u32::try_from(subtree.len()).unwrap_or(u32::MAX),
            hash: subtree.hash(),
        };
        let entries_max = usize::try_from(rules.entries_max()).unwrap_or(usize::MAX);
        let descriptors = state.subtrees(entries_max).map(describe).collect();
        Self::verify(descriptors, state.root(), rules)
    }

    /// Verifies that these subtrees can be the frontier of the state with this root, which the
    /// caller takes from a certified header: their depths cover the tree, their hashes fold to the
    /// root, no subtree has more than `entries_max` entries, and each node above them has more.
    ///
    /// A count is still only a claim: the hashes do not cover it. If all chunks of the frontier
    /// verify, then the counts are true, and this is the frontier that [`Self::of`] makes.
    ///
    /// Costs at most one hash for each subtree.
    ///
    /// # Errors
    /// `FrontierError`, but not `Bytes`.
    pub fn verify(
        descriptors: Vec<SubtreeDescriptor>,
        root: StateRoot,
        rules: &SnapshotRules,
    ) -> Result<Self, FrontierError> {
        let mut beginning = FrontierBeginning::new(rules);
        beginning.extend(descriptors)?;
        beginning.finish(root)
    }

    /// Decodes a frontier from its canonical bytes, and verifies it as [`Self::verify`] does.
    ///
    /// # Errors
    /// `FrontierError`.
    pub fn decode(
        bytes: &[u8],
        root: StateRoot,
        rules: &SnapshotRules,
    ) -> Result<Self, FrontierError> {
        Self::verify(codec::decode(bytes, FRONTIER_BYTES_MAX)?, root, rules)
    }

    /// The canonical bytes: the list of descriptors.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        codec::encode(&self.descriptors)
    }

    /// All subtrees, in path order.
    #[must_use]
    pub fn descriptors(&self) -> &[SubtreeDescriptor] {
        &self.descriptors
    }

    /// The descriptors in pages of `FRONTIER_PAGE_SUBTREES`; the last page may have fewer.
    pub fn pages(&self) -> impl ExactSizeIterator<Item = &[SubtreeDescriptor]> {
        self.descriptors.chunks(FRONTIER_PAGE_SUBTREES)
    }

    /// Root of the state.
    #[must_use]
    pub const fn root(&self) -> StateRoot {
        self.root
    }

    /// Name of the snapshot with this frontier at a height.
    ///
    /// Frontiers with different counts can be accepted for one state root, and at most one of them
    /// is true. So each has a name of its own, and only peers that announced a name are asked for
    /// its chunks.
    #[must_use]
    pub fn id(&self, height: Height) -> SnapshotId {
        let parts: [&[u8]; 3] = [&height.0.to_le_bytes(), self.root.as_bytes(), &self.bytes()];
        SnapshotId(Hash::of(Domain::Snapshot, &parts))
    }

    /// The subtrees of a run, with their places.
    pub(super) fn subtrees(&self, run: &Run) -> impl Iterator<Item = (PageId, &SubtreeDescriptor)> {
        let places = self.places.get(run.subtrees.clone()).unwrap_or_default();
        let descriptors = self.descriptors.get(run.subtrees.clone()).unwrap_or_default();
        places.iter().copied().zip(descriptors)
    }
}

/// The first subtrees of a frontier, whose pages come one by one. Each page is verified as far as
/// the pages before it allow: only the root is compared at the end.
///
/// Holds about 80 bytes for each subtree, and of at most [`FRONTIER_SUBTREES_MAX`].
#[derive(Debug)]
pub struct FrontierBeginning {
    entries_max: u32,
    tiling: Tiling<(u64, Hash)>,
    descriptors: Vec<SubtreeDescriptor>,
    places: Vec<PageId>,
}

impl FrontierBeginning {
    /// No subtree yet.
    #[must_use]
    pub fn new(rules: &SnapshotRules) -> Self {
        let (tiling, descriptors, places) = (Tiling::new(), Vec::new(), Vec::new());
        Self { entries_max: rules.entries_max(), tiling, descriptors, places }
    }

    /// Adds the next subtrees. Costs at most one hash for each of them.
    ///
    /// # Errors
    /// `FrontierError::TooMany`, `TooCoarse`, `Depth`, `TooFine`. Nothing may follow.
    pub fn extend(&mut self, descriptors: Vec<SubtreeDescriptor>) -> Result<(), FrontierError> {
        let (before, entries_max) = (self.descriptors.len(), self.entries_max);
        let got = before.saturating_add(descriptors.len());
        if got > FRONTIER_SUBTREES_MAX {
            return Err(FrontierError::TooMany { got });
        }
        let join = |at: PageId, left: (u64, Hash), right: (u64, Hash)| {
            let count = left.0.saturating_add(right.0);
            if count <= u64::from(entries_max) {
                return Err(FrontierError::TooFine { depth: at.depth, count, entries_max });
            }
            Ok((count, inner_hash(&left.1, &right.1)))
        };
        self.places.reserve(descriptors.len());
        for (index, SubtreeDescriptor { depth, count, hash }) in (before..).zip(&descriptors) {
            let (depth, count) = (*depth, *count);
            if count > entries_max {
                return Err(FrontierError::TooCoarse { index, count, entries_max });
            }
            let at = self.tiling.place(depth).ok_or(FrontierError::Depth { index, depth })?;
            self.tiling.push(at, (u64::from(count), *hash), join)?;
            self.places.push(at);
        }
        match before {
            0 => self.descriptors = descriptors,
            _ => self.descriptors.extend(descriptors),
        }
        Ok(())
    }

    /// The frontier, if all subtrees were added and they have this root.
    ///
    /// # Errors
    /// `FrontierError::Incomplete`, `OtherRoot`.
    pub fn finish(self, root: StateRoot) -> Result<Frontier, FrontierError> {
        let Self { entries_max, tiling, descriptors, places } = self;
        let got = descriptors.len();
        let (_, top) = tiling.finish().ok_or(FrontierError::Incomplete { got })?;
        if top != root.0 {
            return Err(FrontierError::OtherRoot { got: StateRoot(top), expected: root });
        }
        let runs = pack(&descriptors, entries_max);
        Ok(Frontier { root, entries_max, descriptors, places, runs })
    }
}

/// Packs subtrees into chunks. No subtree has more than `entries_max` entries.
fn pack(descriptors: &[SubtreeDescriptor], entries_max: u32) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut entries = 0u32;
    for (index, SubtreeDescriptor { count, .. }) in descriptors.iter().enumerate() {
        entries = entries.saturating_add(*count);
        let mut run = match runs.pop() {
            Some(run) if entries <= entries_max => run,
            full => {
                let start = full.as_ref().map_or(0, |run| run.bytes.end);
                runs.extend(full);
                entries = *count;
                Run { subtrees: index..index, bytes: start..start }
            }
        };
        let bytes = CHUNK_HEAD_BYTES.saturating_add(u64::from(entries).saturating_mul(ENTRY_BYTES));
        run.subtrees.end = index.saturating_add(1);
        run.bytes.end = run.bytes.start.saturating_add(bytes);
        runs.push(run);
    }
    runs
}
