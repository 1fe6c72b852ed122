//! The target for snapshots: frontiers and chunks.

use std::sync::LazyLock;

use ledger::codec;
use ledger::genesis::Limits;
use ledger::hash::{Domain, Hash};
use ledger::signature::PublicKey;
use ledger::snapshot::{
    FRONTIER_BYTES_MAX, Frontier, FrontierError, SnapshotRules, SubtreeDescriptor,
};
use ledger::state::{Account, Entry, State, StateKey};
use ledger::units::{Amount, Height};

use super::canonical;
use super::stream::Stream;

/// Accounts of the state.
const ACCOUNTS: u64 = 300;
/// Most entries of a subtree.
const ENTRIES_MAX: u32 = 64;

/// A state with its snapshot.
pub(super) struct Made {
    pub(super) state: State,
    pub(super) frontier: Frontier,
    /// The bytes of each chunk.
    pub(super) chunks: Vec<Vec<u8>>,
}

/// Made at the first call.
pub(super) fn made() -> &'static Made {
    static MADE: LazyLock<Made> = LazyLock::new(Made::new);
    &MADE
}

impl Made {
    fn new() -> Self {
        let entry = |number: u64| -> Entry {
            let key = Hash::of(Domain::StoreValue, &[&number.to_le_bytes()]);
            let account = Account { balance: Amount(number), ..Account::default() };
            (StateKey::account(PublicKey(key.0)), account)
        };
        let state = State::from_entries((0..ACCOUNTS).map(entry));
        let frontier = Frontier::of(&state, &rules()).expect("a small state");
        let chunks = frontier.chunks(&state).collect();
        Self { state, frontier, chunks }
    }
}

/// The rules of the state's snapshot, with small chunks.
fn rules() -> SnapshotRules {
    let chunk_bytes = 8 + 81 * u64::from(ENTRIES_MAX);
    SnapshotRules::new(&Limits { chunk_bytes, ..Limits::default() })
}

/// Reads a byte that says what follows: a frontier, or a chunk after its index.
pub fn snapshot(data: &[u8]) -> bool {
    let mut stream = Stream(data);
    if stream.byte().is_multiple_of(2) {
        return on_frontier(stream.0);
    }
    let index = stream.byte();
    on_chunk(index.into(), stream.0)
}

/// A list of subtrees that is accepted under the root of the state is the state's own frontier, or
/// some of its chunks cannot be made.
fn on_frontier(bytes: &[u8]) -> bool {
    let Some(descriptors) = canonical::<Vec<SubtreeDescriptor>>(bytes, FRONTIER_BYTES_MAX) else {
        return false;
    };
    let (made, rules) = (made(), rules());
    match Frontier::decode(bytes, made.frontier.root(), &rules) {
        Ok(frontier) => {
            on_accepted(&frontier, &descriptors);
            let has_own_name = frontier.id(Height(1)) != made.frontier.id(Height(1));
            assert_eq!(has_own_name, frontier != made.frontier, "a name is of one frontier");
            let entries: Vec<Entry> = made.state.iter().copied().collect();
            let mut rest = &entries[..];
            let is_whole = (0..frontier.chunk_count()).all(|index| {
                let range = frontier.chunk_range(index).expect("a chunk");
                let count = (range.end - range.start - 8) as usize / 81;
                let (entries, after) = rest.split_at(count.min(rest.len()));
                rest = after;
                frontier.verify_chunk(index, &codec::encode(&entries.to_vec())).is_ok()
            });
            assert_eq!(is_whole, frontier == made.frontier, "a state has one true frontier");
        }
        // A list that covers the tree gives a root of its own, and under that root it is accepted.
        Err(FrontierError::OtherRoot { got, .. }) => {
            let frontier = Frontier::decode(bytes, got, &rules);
            on_accepted(&frontier.expect("the root is its own"), &descriptors);
        }
        Err(_) => {}
    }
    true
}

/// Checks how an accepted frontier is cut into chunks.
fn on_accepted(frontier: &Frontier, descriptors: &[SubtreeDescriptor]) {
    assert_eq!(frontier.descriptors(), descriptors);
    let total: u64 = descriptors.iter().map(|subtree| u64::from(subtree.count)).sum();
    let (mut end, mut entries, mut before) = (0, 0, u64::MAX);
    for index in 0..frontier.chunk_count() {
        let range = frontier.chunk_range(index).expect("a chunk");
        assert_eq!(range.start, end, "chunks lie one after the other");
        end = range.end;
        let count = (range.end - range.start - 8) / 81;
        assert!(count <= u64::from(ENTRIES_MAX), "a chunk has {count} entries");
        assert!(before.saturating_add(count) > u64::from(ENTRIES_MAX), "chunks are full");
        before = count;
        entries += count;
    }
    assert_eq!(entries, total, "each entry is in a chunk");
    assert!(frontier.chunk_range(frontier.chunk_count()).is_none());
    let segments = (0..frontier.segment_count()).filter_map(|one| frontier.segment_chunks(one));
    assert!(segments.flatten().eq(0..frontier.chunk_count()), "each chunk is in a segment");
}

/// Only the entries of the state are a chunk of its frontier.
fn on_chunk(index: u64, bytes: &[u8]) -> bool {
    let made = made();
    let verified = made.frontier.verify_chunk(index, bytes);
    let expected = made.chunks.get(index as usize);
    assert_eq!(verified.is_ok(), expected.is_some_and(|expected| expected == bytes));
    canonical::<Vec<Entry>>(bytes, codec::VALUE_BYTES_MAX).is_some()
}

/// Inputs for this target, each with its name.
pub(super) fn samples() -> Vec<(String, Vec<u8>)> {
    let made = made();
    let sample =
        |name: &str, head: &[u8], bytes: Vec<u8>| (name.to_owned(), [head, &bytes[..]].concat());
    let frontier = |name: &str, change: fn(&mut Vec<SubtreeDescriptor>)| {
        let mut descriptors = made.frontier.descriptors().to_vec();
        change(&mut descriptors);
        sample(name, &[0], codec::encode(&descriptors))
    };
    let mut other_entry = made.chunks[0].clone();
    other_entry[100] ^= 1;
    vec![
        frontier("frontier", |_| ()),
        frontier("frontier_false_counts", |subtrees| {
            subtrees[0].count -= 1;
            subtrees[1].count += 1;
        }),
        frontier("frontier_too_coarse", |subtrees| subtrees[0].count = 65),
        frontier("frontier_swapped", |subtrees| subtrees.swap(0, 1)),
        frontier("frontier_cut", |subtrees| subtrees.truncate(3)),
        sample("chunk", &[1, 0], made.chunks[0].clone()),
        sample("chunk_of_another_place", &[1, 1], made.chunks[0].clone()),
        sample("chunk_other_entry", &[1, 0], other_entry),
    ]
}
