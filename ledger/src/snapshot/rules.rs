//! Which blocks are snapshots, and how many entries a chunk may have.

use crate::genesis::Limits;
use crate::state::PAGE_ENTRIES_MAX;
use crate::units::Timestamp;

/// Of the blocks in one window of block time at most one is a snapshot, so that a chain under full
/// load does not keep its nodes writing snapshots. Milliseconds; windows begin at its multiples.
pub const SNAPSHOT_WINDOW_MS: u64 = 30_000;

/// Bytes of an entry in a chunk: namespace, key, balance, nonce, activity.
pub(super) const ENTRY_BYTES: u64 = 1 + 32 + 8 + 8 + 32;
/// Bytes before the entries of a chunk: their number.
pub(super) const CHUNK_HEAD_BYTES: u64 = 8;

/// The rules of snapshots. All nodes of a network agree on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotRules {
    segments: u64,
    entries_max: u32,
}

impl SnapshotRules {
    /// The rules of a genesis.
    ///
    /// # Panics
    /// If the limits are none of a genesis: `snapshot_segments` is zero, or a page of the state
    /// does not fit into a chunk.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let entries = limits.chunk_bytes.saturating_sub(CHUNK_HEAD_BYTES) / ENTRY_BYTES;
        let entries_max = u32::try_from(entries).unwrap_or(u32::MAX);
        let segments = limits.snapshot_segments;
        assert!(
            segments > 0 && entries >= PAGE_ENTRIES_MAX as u64,
            "a genesis has neither snapshots every 0 segments nor chunks of {entries} entries"
        );
        Self { segments, entries_max }
    }

    /// Most entries of a subtree in a frontier, and of a chunk: as many as `chunk_bytes` allows.
    #[must_use]
    pub const fn entries_max(&self) -> u32 {
        self.entries_max
    }

    /// Whether the state after the last block of segment `index` can be a snapshot: it seals every
    /// `snapshot_segments`-th segment.
    #[must_use]
    pub const fn is_candidate(&self, index: u64) -> bool {
        match index.checked_add(1) {
            Some(sealed) => sealed.is_multiple_of(self.segments),
            None => false,
        }
    }

    /// The candidate before the candidate `index`; `None` for the first one.
    #[must_use]
    pub const fn candidate_before(&self, index: u64) -> Option<u64> {
        index.checked_sub(self.segments)
    }

    /// Whether the state after the last block of segment `index` is a snapshot: it is a candidate,
    /// and the first one in its window of block time.
    ///
    /// `time` is the time of that block. `before` is the time of the last block of the segment
    /// [`candidate_before`](Self::candidate_before), if there is one. Times increase from block to
    /// block, so an earlier candidate in the same window means that the last one is in it too.
    #[must_use]
    pub fn is_snapshot(&self, index: u64, time: Timestamp, before: Option<Timestamp>) -> bool {
        let window = |time: Timestamp| time.0 / SNAPSHOT_WINDOW_MS;
        self.is_candidate(index) && before.is_none_or(|before| window(before) != window(time))
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    fn rules(snapshot_segments: u64, chunk_bytes: u64) -> SnapshotRules {
        SnapshotRules::new(&Limits { snapshot_segments, chunk_bytes, ..Limits::default() })
    }

    /// Indices of the segments that end with a snapshot, if segment i ends at the i-th time.
    fn snapshots(every: u64, times: &[u64]) -> Vec<u64> {
        let rules = rules(every, 16 << 10);
        let time = |index: u64| Timestamp(times[index as usize]);
        (0..times.len() as u64)
            .filter(|index| {
                let before = rules.candidate_before(*index).map(time);
                rules.is_snapshot(*index, time(*index), before)
            })
            .collect()
    }

    #[test]
    fn every_nth_segment_ends_with_a_snapshot_if_it_is_the_first_in_its_window() {
        let slow: Vec<u64> = (0..7).map(|index| index * SNAPSHOT_WINDOW_MS).collect();
        for (every, times, expected) in [
            (1, &slow[..], vec![0, 1, 2, 3, 4, 5, 6]),
            (2, &slow, vec![1, 3, 5]),
            (3, &slow, vec![2, 5]),
            (7, &slow, vec![6]),
            (8, &slow, vec![]),
            // The window counts, not the distance.
            (1, &[0, 29_999, 30_000, 30_001, 59_999, 60_000], vec![0, 2, 5]),
            (1, &[29_999, 30_000], vec![0, 1]),
            (1, &[30_000, 59_999], vec![0]),
            // Segments that are no candidates take no window.
            (2, &[0, 1, 2, 3, 29_998, 29_999, 30_000, 30_001], vec![1, 7]),
            (2, &[0, 30_000, 30_001, 60_000], vec![1, 3]),
        ] {
            assert_eq!(snapshots(every, times), expected, "every {every}: {times:?}");
        }
    }

    /// The definition: of all candidates in one window the first.
    #[test]
    fn the_first_of_a_window_is_known_from_the_candidate_before() {
        let mut time = 5;
        let times: Vec<u64> = (0..500u64)
            .map(|index| {
                time += 1 + index * index * 7_919 % 23_456;
                time
            })
            .collect();
        for every in [1, 2, 5] {
            let mut windows = Vec::new();
            let by_definition: Vec<u64> = (0..500)
                .filter(|index| (index + 1) % every == 0)
                .filter(|index| {
                    let window = times[*index as usize] / SNAPSHOT_WINDOW_MS;
                    let is_first = !windows.contains(&window);
                    windows.push(window);
                    is_first
                })
                .collect();
            assert!(by_definition.len() > 30 && by_definition.len() < 500 / every as usize);
            assert_eq!(snapshots(every, &times), by_definition);
        }
    }

    #[test]
    fn chunks_have_as_many_entries_as_fit() {
        for (chunk_bytes, expected) in
            [(16 << 10, 202), (128 << 10, 1_618), (1 << 20, 12_945), (8 + 81 * 64, 64)]
        {
            assert_eq!(rules(1, chunk_bytes).entries_max(), expected, "{chunk_bytes}");
        }
    }
}
