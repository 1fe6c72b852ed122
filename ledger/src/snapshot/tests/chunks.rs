//! Only the entries of the state are accepted as a chunk.

use super::*;

/// The first chunk with two subtrees or more.
fn shared_chunk(frontier: &Frontier) -> u64 {
    (0..).zip(&frontier.runs).find(|(_, run)| run.subtrees.len() > 1).unwrap().0
}

/// Each row changes the entries of a chunk with two subtrees.
#[test]
fn only_the_entries_of_the_state_are_a_chunk() {
    let (state, frontier, chunks) = made();
    let index = shared_chunk(&frontier);
    let place = index as usize;
    let run = &frontier.runs[place];
    let first = frontier.descriptors()[run.subtrees.start];
    let cut = first.count as usize;
    let good: Vec<Entry> = codec::decode(&chunks[place], 1 << 20).unwrap();
    let [one, other] = [0, 1].map(|i| frontier.subtrees(run).nth(i).unwrap().0);
    let path = |i: usize| good[i].0.path();
    let verify = |entries: &[Entry]| {
        frontier.verify_chunk(index, &encode(&entries.to_vec())).map(|chunk| chunk.index())
    };
    assert_eq!(verify(&good), Ok(index));

    let with = |change: &dyn Fn(&mut Vec<Entry>)| {
        let mut entries = good.clone();
        change(&mut entries);
        verify(&entries)
    };
    let of_entries = |error| Err(ChunkError::Entries { index, error });
    let unsorted = |before, path| of_entries(SubtreeError::Unsorted { before, path });
    let misplaced = |path, at| of_entries(SubtreeError::Misplaced { path, at });
    let length = |entries: usize| {
        let bytes = |entries: usize| (8 + 81 * entries) as u64;
        Err(ChunkError::Length { index, expected: bytes(good.len()), got: bytes(entries) })
    };
    let other_key = (0..).map(|i| key(10_000 + i)).find(|key| {
        let path = key.path();
        one.meets(&path, &path) && path < good[0].0.path()
    });
    let outside = state.iter().last().copied().unwrap();
    for (got, expected) in [
        (with(&|entries| entries.swap(0, 1)), unsorted(path(1), path(0))),
        (with(&|entries| entries[1] = entries[0]), unsorted(path(0), path(0))),
        (with(&|entries| entries[0] = outside), misplaced(outside.0.path(), one)),
        (with(&|entries| entries[cut] = entries[0]), misplaced(path(0), other)),
        (with(&|entries| entries.swap(cut - 1, cut)), misplaced(path(cut), one)),
        (with(&|entries| entries.truncate(good.len() - 1)), length(good.len() - 1)),
        (with(&|entries| entries.push(outside)), length(good.len() + 1)),
        (with(&Vec::clear), length(0)),
    ] {
        assert_eq!(got, expected);
    }
    for change in [
        (|entries| entries[0].1.balance.0 += 1) as fn(&mut Vec<Entry>),
        |entries| entries[1].1.nonce.0 += 1,
        |entries| entries[2].1.activity.0[0] ^= 1,
        |entries| entries.last_mut().unwrap().1.balance = Amount(0),
    ] {
        assert!(matches!(with(&change), Err(ChunkError::OtherHash { .. })));
    }
    let got = with(&|entries| entries[0].0 = other_key.unwrap());
    let expected = first.hash;
    assert!(
        matches!(got, Err(ChunkError::OtherHash { expected: hash, .. }) if hash == expected),
        "an account that the state does not have: {got:?}"
    );
}

#[test]
fn only_the_bytes_of_a_chunk_are_that_chunk() {
    let (_, frontier, chunks) = made();
    let index = shared_chunk(&frontier);
    let bytes = &chunks[index as usize];
    let verify = |index, bytes: &[u8]| frontier.verify_chunk(index, bytes).map(|_| ());
    let trailing = [&bytes[..], &[0]].concat();
    let (expected, got) = (bytes.len() as u64, trailing.len() as u64);
    assert_eq!(verify(index, &trailing), Err(ChunkError::Length { index, expected, got }));
    let mut longer_list = bytes.clone();
    longer_list[0] += 1;
    assert!(matches!(verify(index, &longer_list), Err(ChunkError::Bytes { .. })));
    let mut shorter_list = bytes.clone();
    shorter_list[0] -= 1;
    let error = CodecError::Trailing { extra: 81 };
    assert_eq!(verify(index, &shorter_list), Err(ChunkError::Bytes { index, error }));
    for (other, bytes) in (0..).zip(&chunks).filter(|(other, _)| *other != index) {
        assert!(verify(index, bytes).is_err(), "the bytes of chunk {other}");
    }
    let count = frontier.chunk_count();
    for index in [count, u64::MAX] {
        assert_eq!(verify(index, bytes), Err(ChunkError::Index { index, count }));
    }
}
