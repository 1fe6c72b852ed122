//! A snapshot passes from node to node whole, and nothing else passes for it.
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

mod chunks;
mod claims;

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::codec::{self, CodecError, encode};
use crate::genesis::Limits;
use crate::hash::{Domain, Hash, StateRoot};
use crate::state::tests::{KEYS, account, entries, key, model};
use crate::state::{Entry, State, Subtree, SubtreeError, inner_hash};
use crate::units::{Amount, Height};

fn rules(entries_max: u64) -> SnapshotRules {
    let rules =
        SnapshotRules::new(&Limits { chunk_bytes: 8 + 81 * entries_max, ..Limits::default() });
    assert_eq!(u64::from(rules.entries_max()), entries_max);
    rules
}

/// Most entries of a subtree in the tests below.
const MAX: u32 = 64;

/// A state with 300 accounts, its frontier, and its chunks.
fn made() -> (State, Frontier, Vec<Vec<u8>>) {
    let state = State::from_entries(entries(0..300));
    let frontier = Frontier::of(&state, &rules(MAX.into())).unwrap();
    let chunks: Vec<Vec<u8>> = frontier.chunks(&state).collect();
    assert!(chunks.len() > 5 && frontier.descriptors().len() > chunks.len());
    (state, frontier, chunks)
}

/// Verifies another list of subtrees for the same root.
fn claim(
    frontier: &Frontier,
    change: impl FnOnce(&mut Vec<SubtreeDescriptor>),
) -> Result<Frontier, FrontierError> {
    let mut descriptors = frontier.descriptors().to_vec();
    change(&mut descriptors);
    Frontier::verify(descriptors, frontier.root(), &rules(MAX.into()))
}

/// Asserts that a frontier with a false claim has another name, and that at least one of its
/// chunks cannot be made from the entries of the state, whatever bytes are sent for it.
fn check_false(state: &State, honest: &Frontier, forged: &Frontier, what: &str) {
    assert_ne!(forged.id(Height(7)), honest.id(Height(7)), "{what}");
    let entries: Vec<Entry> = state.iter().copied().collect();
    let mut refused = 0;
    for index in 0..forged.chunk_count() {
        let range = forged.chunk_range(index).unwrap();
        let count = usize::try_from((range.end - range.start - 8) / 81).unwrap();
        // A liar may send any run of the state's entries.
        let runs = (0..=entries.len().saturating_sub(count))
            .map(|start| encode(&entries[start..(start + count).min(entries.len())].to_vec()));
        let is_refused = runs.into_iter().all(|run| forged.verify_chunk(index, &run).is_err());
        refused += usize::from(is_refused);
    }
    assert!(refused > 0, "{what}");
}

proptest! {
    /// A frontier is accepted as it was made. Its chunks are as full as they can be, and give the
    /// state in any order, but not if one is missing or comes twice.
    #[test]
    fn a_snapshot_gives_the_state(
        chosen in prop::collection::btree_map(0..KEYS.len(), 0u64..9, 0..240),
        entries_max in 64u64..200,
        order in any::<prop::sample::Index>(),
    ) {
        let state = State::default().with(&model(&chosen));
        let rules = rules(entries_max);
        let frontier = Frontier::of(&state, &rules).unwrap();
        let decoded = Frontier::decode(&frontier.bytes(), state.root(), &rules).unwrap();
        prop_assert_eq!(&decoded, &frontier);
        let chunks: Vec<Vec<u8>> = frontier.chunks(&state).collect();
        prop_assert_eq!(chunks.len() as u64, frontier.chunk_count());
        let mut end = 0;
        for (index, bytes) in (0..).zip(&chunks) {
            let range = frontier.chunk_range(index).unwrap();
            prop_assert_eq!((range.start, range.end - range.start), (end, bytes.len() as u64));
            end = range.end;
            prop_assert!(bytes.len() as u64 <= 8 + 81 * entries_max);
        }
        prop_assert_eq!(frontier.chunk_range(chunks.len() as u64), None);
        // Two neighbouring chunks would not fit into one.
        for pair in chunks.windows(2) {
            prop_assert!(pair[0].len() + pair[1].len() - 16 > 81 * entries_max as usize);
        }

        let verified: Vec<VerifiedChunk> = (0..)
            .zip(&chunks)
            .map(|(index, bytes)| frontier.verify_chunk(index, bytes).unwrap())
            .collect();
        prop_assert!(verified.iter().flat_map(VerifiedChunk::pages).eq(state.pages()));
        let mut shuffled = verified.clone();
        shuffled.rotate_left(order.index(chunks.len()));
        shuffled.swap(0, order.index(chunks.len()));
        let loaded = frontier.assemble(shuffled.clone()).unwrap();
        prop_assert_eq!(loaded.root(), state.root());
        prop_assert!(loaded.iter().eq(state.iter()));
        let repeated = shuffled.iter().chain(&shuffled[..1]).cloned();
        prop_assert!(frontier.assemble(repeated).is_none());
        shuffled.pop();
        prop_assert!(frontier.assemble(shuffled).is_none());
    }
}

#[test]
fn small_states_have_one_chunk() {
    for (accounts, bytes) in [(0, 8), (1, 89), (64, 8 + 64 * 81)] {
        let state = State::from_entries(entries(0..accounts));
        let frontier = Frontier::of(&state, &rules(MAX.into())).unwrap();
        let descriptor =
            SubtreeDescriptor { depth: 0, count: accounts as u32, hash: state.root().0 };
        assert_eq!(frontier.descriptors(), [descriptor]);
        assert_eq!((frontier.chunk_count(), frontier.chunk_range(0)), (1, Some(0..bytes)));
        let chunk = frontier.chunks(&state).next().unwrap();
        let loaded = frontier.assemble(frontier.verify_chunk(0, &chunk)).unwrap();
        assert_eq!(loaded.root(), state.root());
    }
}

#[test]
fn segments_have_128_chunks() {
    let (_, frontier, _) = made();
    let counted = |chunks: u64| {
        let mut frontier = frontier.clone();
        frontier.runs = frontier.runs.iter().cycle().take(chunks as usize).cloned().collect();
        frontier
    };
    for (chunks, last) in
        [(1, 0..1), (127, 0..127), (128, 0..128), (129, 128..129), (256, 128..256)]
    {
        let frontier = counted(chunks);
        let segments = frontier.segment_count();
        assert_eq!(frontier.segment_chunks(segments - 1), Some(last), "{chunks}");
        assert_eq!(frontier.segment_chunks(segments), None);
        assert_eq!(frontier.segment_chunks(u64::MAX), None);
        assert_eq!(
            (0..segments).filter_map(|i| frontier.segment_chunks(i)).flatten().count() as u64,
            chunks
        );
    }
}

/// Many accounts below one long prefix make many empty subtrees, but no tiny chunks.
#[test]
fn ground_keys_make_no_tiny_chunks() {
    let state = State::from_entries(KEYS[120..].iter().map(|key| (*key, account(1))));
    let frontier = Frontier::of(&state, &rules(MAX.into())).unwrap();
    let descriptors = frontier.descriptors();
    let empty = descriptors.iter().filter(|subtree| subtree.count == 0).count();
    assert!(empty >= 12 && descriptors.len() >= 14, "{descriptors:?}");
    assert!(frontier.chunk_count() <= 3, "{}", frontier.chunk_count());
    let chunks = (0..).zip(frontier.chunks(&state));
    let verified = chunks.map(|(index, bytes)| frontier.verify_chunk(index, &bytes).unwrap());
    assert_eq!(frontier.assemble(verified).unwrap().root(), state.root());

    // An empty subtree cannot hide that it is not empty, nor claim entries.
    let at = descriptors.iter().position(|subtree| subtree.count == 0).unwrap();
    let forged = claim(&frontier, |descriptors| descriptors[at].count = 1).unwrap();
    check_false(&state, &frontier, &forged, "an empty subtree with an entry");
    let last = descriptors.iter().rposition(|subtree| subtree.count > 0).unwrap();
    let swapped = claim(&frontier, |descriptors| descriptors[last].hash = descriptors[at].hash);
    assert!(matches!(swapped, Err(FrontierError::OtherRoot { .. })));
}

/// The name covers height, root and every claim.
#[test]
fn no_two_snapshots_share_a_name() {
    let (state, frontier, _) = made();
    let later = state.with(&[(key(1), account(2))].into());
    let ids = [
        frontier.id(Height(7)),
        frontier.id(Height(8)),
        Frontier::of(&later, &rules(MAX.into())).unwrap().id(Height(7)),
        claim(&frontier, |descriptors| descriptors[0].count -= 1).unwrap().id(Height(7)),
    ];
    for (i, id) in ids.iter().enumerate() {
        assert!(!ids[..i].contains(id), "{i}");
    }
}

/// Names and chunks that every version must give. A program that shares no code with this one
/// computed them a second time.
#[test]
fn frozen_vectors() {
    for (accounts, entries_max, subtrees, chunks, id, sha256) in [
        (
            0,
            64,
            1,
            1,
            "79b36c208952b8e71e46c042879396f03a4cfc9dabd12479966ffae690631d98",
            "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc",
        ),
        (
            65,
            64,
            2,
            2,
            "c802c9cd12598f6aeb2f7a829df9dfe79e430169eb42b0d0a793af7485569260",
            "56655b230556f514f76b9c19f5e3d91360825262c6ec2dfd4aa2f0dccf9e43b6",
        ),
        (
            300,
            64,
            8,
            7,
            "d9050930941a80437883e2e99ece8f5b94cbd745956e150edd82b7fd190303e9",
            "3c7d3e51e7f2d27cafc00f5cd3376b3b0f25d299631491baa8e1895fe55c97db",
        ),
        (
            1200,
            202,
            8,
            8,
            "1f41f105da28b99fc4ef8d8265d9ce9ebc705cc118aa3d450427ef014479c229",
            "887e045ba9b738d37d35b31124d3740d244924371c8e48dde9e5a59f5cc1bac6",
        ),
    ] {
        let state = State::from_entries(entries(0..accounts));
        let frontier = Frontier::of(&state, &rules(entries_max)).unwrap();
        let bytes: Vec<u8> = frontier.chunks(&state).flatten().collect();
        assert_eq!(
            (frontier.descriptors().len(), frontier.chunk_count()),
            (subtrees, chunks),
            "{accounts}"
        );
        assert_eq!(
            (frontier.id(Height(7)).to_string(), hex::encode(Sha256::digest(bytes))),
            (id.to_owned(), sha256.to_owned()),
            "{accounts}"
        );
    }
}
