#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::*;
use crate::codec;

/// Bytes in which no two chunks are the same.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at / CHUNK_BYTES as usize) * 7 + at % 251) as u8).collect()
}

fn hashed(bytes: &[u8]) -> HashedFile {
    let mut hasher = FileHasher::new();
    hasher.push(bytes);
    hasher.finish().unwrap()
}

/// The head of a segment of a file whose hashes were not taken.
fn head(file: &HashedFile, index: u64) -> FileHead {
    let range = file.descriptor.segment_chunks(index).unwrap();
    let chunks = file.hashes[range.start as usize..range.end as usize].to_vec();
    let path = file.tree.prove(index as usize).unwrap();
    FileHead { descriptor: file.descriptor, chunks, path }
}

#[test]
fn chunks_and_segments_tile_the_file() {
    const CHUNK: u64 = CHUNK_BYTES;
    const SEGMENT: u64 = SEGMENT_BYTES;
    for (length, chunks, segments) in [
        (0, 0, 0),
        (1, 1, 1),
        (CHUNK, 1, 1),
        (CHUNK + 1, 2, 1),
        (SEGMENT, 128, 1),
        (SEGMENT + 1, 129, 2),
        (75_000_000_000, 572_205, 4_471),
        (FILE_BYTES_MAX, 1 << 27, 1 << 20),
        (u64::MAX, 1 << 47, 1 << 40),
    ] {
        let file = FileDescriptor { length, root: Hash::ZERO };
        assert_eq!((file.chunks(), file.segments()), (chunks, segments), "{length}");
        for chunk in [0, 1, chunks / 2, chunks.saturating_sub(1), chunks, u64::MAX - 1] {
            let range = file.chunk_range(chunk);
            assert_eq!(range.is_some(), chunk < chunks, "{chunk} of {length}");
            let is_last = chunk + 1 == chunks;
            let bytes = if is_last { length - chunk * CHUNK } else { CHUNK };
            let expected = if chunk < chunks { bytes } else { 0 };
            assert_eq!(file.chunk_bytes(chunk), expected, "{chunk} of {length}");
        }
        let last = segments.saturating_sub(1);
        let first = if segments > 1 { SEGMENT } else { length };
        assert_eq!(file.segment_bytes(0), first, "{length}");
        assert_eq!(file.segment_bytes(last), length - last * SEGMENT, "{length}");
        assert_eq!(file.segment_bytes(segments), 0, "{length}");
        let range = file.segment_chunks(last);
        assert_eq!(range, (chunks > 0).then(|| last * 128..chunks), "{length}");
        assert_eq!(file.segment_chunks(segments), None, "{length}");
        assert_eq!(file.segment_chunks(u64::MAX), None, "{length}");
    }
}

#[test]
fn a_range_of_bytes_lies_in_these_segments() {
    const SEGMENT: u64 = SEGMENT_BYTES;
    let file = FileDescriptor { length: 3 * SEGMENT + 5, root: Hash::ZERO };
    for (first, last, expected) in [
        (0, 0, Some(0..1)),
        (0, SEGMENT - 1, Some(0..1)),
        (0, SEGMENT, Some(0..2)),
        (SEGMENT, 2 * SEGMENT, Some(1..3)),
        (3 * SEGMENT + 4, 3 * SEGMENT + 4, Some(3..4)),
        (7, u64::MAX, Some(0..4)),
        (3 * SEGMENT + 5, u64::MAX, None),
        (2, 1, None),
    ] {
        assert_eq!(file.segments_of(first, last), expected, "{first} to {last}");
    }
    assert_eq!(FileDescriptor::empty().segments_of(0, 0), None);
}

#[test]
fn however_the_bytes_come_the_hashes_are_the_same() {
    let chunk = CHUNK_BYTES as usize;
    for length in [0, 1, chunk - 1, chunk, chunk + 1, 3 * chunk + 7, 130 * chunk + 3] {
        let bytes = bytes(length);
        let whole = hashed(&bytes);
        let expected: Vec<Hash> = bytes.chunks(chunk).map(chunk_hash).collect();
        assert_eq!(whole.hashes, expected, "{length}");
        let leaves: Vec<Hash> = expected.chunks(128).map(segment_leaf).collect();
        assert_eq!(whole.descriptor.root, merkle::root(&leaves), "{length}");
        assert_eq!(whole.descriptor.length, length as u64);
        for step in [50_000, chunk, chunk + 1, 5 * chunk] {
            let mut hasher = FileHasher::new();
            let mut hashes = Vec::new();
            for part in bytes.chunks(step) {
                hasher.push(part);
                hashes.extend(hasher.take_hashes());
            }
            let rest = hasher.finish().unwrap();
            hashes.extend(&rest.hashes);
            assert_eq!((rest.descriptor, hashes), (whole.descriptor, expected.clone()));
        }
    }
    assert_eq!(hashed(&[]).descriptor, FileDescriptor::empty());
}

#[test]
fn zeros_are_hashed_as_zeros() {
    let chunk = CHUNK_BYTES;
    for (before, zeros, after) in
        [(0, 1, 0), (0, 3 * chunk, 0), (5, 2 * chunk, 9), (chunk, chunk + 1, 7), (1, chunk - 1, 1)]
    {
        let (first, last) = (bytes(before as usize), vec![3; after as usize]);
        let mut hasher = FileHasher::new();
        hasher.push(&first);
        hasher.push_zeros(zeros);
        hasher.push(&last);
        let all = [first, vec![0; zeros as usize], last].concat();
        assert_eq!(hasher.finish().unwrap(), hashed(&all), "{before}, {zeros}, {after}");
    }
}

#[test]
fn the_head_of_a_file_above_the_limit_is_refused() {
    let length = FILE_BYTES_MAX + 1;
    let path = MerkleProof { index: 0, count: (1 << 20) + 1, siblings: Vec::new() };
    let descriptor = FileDescriptor { length, root: Hash::ZERO };
    let head = FileHead { descriptor, chunks: Vec::new(), path };
    assert_eq!(head.verify(&descriptor.id()), Err(FileError::TooLong { length }));
}

#[test]
fn each_segment_is_proved_and_no_changed_head_holds() {
    let file = hashed(&bytes((2 * SEGMENT_BYTES + 3 * CHUNK_BYTES + 1) as usize));
    let id = file.descriptor.id();
    for index in 0..3 {
        let good = head(&file, index);
        assert_eq!(good.verify(&id), Ok(()), "{index}");
        let bytes = codec::encode(&good);
        assert!(bytes.len() <= FileHead::BYTES_MAX);
        assert_eq!(codec::decode(&bytes, FileHead::BYTES_MAX), Ok(good.clone()));

        let with = |change: &dyn Fn(&mut FileHead)| {
            let mut head = good.clone();
            change(&mut head);
            head.verify(&id)
        };
        let changes: [&dyn Fn(&mut FileHead); 3] =
            [&|head| head.descriptor.length -= 1, &|head| head.descriptor.length = 0, &|head| {
                head.descriptor.root.0[0] ^= 1
            }];
        for change in changes {
            assert!(matches!(with(change), Err(FileError::Id { .. })));
        }
        let changes: [&dyn Fn(&mut FileHead); 2] =
            [&|head| head.path.count += 1, &|head| head.path.count = 0];
        for change in changes {
            assert!(matches!(with(change), Err(FileError::SegmentCount { .. })));
        }
        assert_eq!(
            with(&|head| head.path.index = 3),
            Err(FileError::Segment { index: 3, count: 3 })
        );
        let changes: [&dyn Fn(&mut FileHead); 2] =
            [&|head| head.chunks.truncate(head.chunks.len() - 1), &|head| {
                head.chunks.push(Hash::ZERO)
            }];
        for change in changes {
            assert!(matches!(with(change), Err(FileError::ChunkCount { .. })));
        }
        let changes: [&dyn Fn(&mut FileHead); 5] = [
            &|head| head.chunks.swap(0, 1),
            &|head| head.chunks[1] = Hash::ZERO,
            &|head| head.path.siblings.truncate(head.path.siblings.len() - 1),
            &|head| head.path.siblings.push(Hash::ZERO),
            &|head| head.path.siblings[0].0[9] ^= 1,
        ];
        for change in changes {
            assert!(matches!(with(change), Err(FileError::Path(_))));
        }
        if index < 2 {
            let other = |head: &mut FileHead| head.path.index = 1 - index;
            assert!(matches!(with(&other), Err(FileError::Path(_))), "another place");
        }
    }
    let other = hashed(&bytes(1)).descriptor.id();
    assert!(matches!(head(&file, 0).verify(&other), Err(FileError::Id { .. })));
}

/// A head of a segment in the longest file.
#[test]
fn the_limit_admits_every_head() {
    let head = FileHead {
        descriptor: FileDescriptor { length: FILE_BYTES_MAX, root: Hash::ZERO },
        chunks: vec![Hash::ZERO; 128],
        path: MerkleProof { index: 0, count: 1 << 20, siblings: vec![Hash::ZERO; 20] },
    };
    assert_eq!(codec::encode(&head).len(), FileHead::BYTES_MAX);
}
