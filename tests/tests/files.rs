//! Frozen vectors of the format of files. `docs/examples/file_id.py` made them, which shares no
//! code with these crates.
#![allow(clippy::unwrap_used)]

use ledger::codec;
use ledger::file::{CHUNK_BYTES, FileHasher, FileHead, SEGMENT_CHUNKS, segment_leaf};
use serde_json::Value;

/// The bytes that the vectors call a pattern: no two chunks are the same.
fn pattern(length: u64) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at + at / CHUNK_BYTES) % 251).unwrap()).collect()
}

#[test]
fn every_file_has_the_id_it_always_had() {
    let rows: Vec<Value> = serde_json::from_str(include_str!("../vectors/files.json")).unwrap();
    assert_eq!(rows.len(), 12);
    for row in rows {
        let name = row["name"].as_str().unwrap();
        let mut hasher = FileHasher::new();
        for part in row["content"].as_array().unwrap() {
            let bytes = part["bytes"].as_u64().unwrap();
            match part["kind"].as_str().unwrap() {
                "zeros" => hasher.push_zeros(bytes),
                _ => hasher.push(&pattern(bytes)),
            }
        }
        let file = hasher.finish().unwrap();
        let descriptor = file.descriptor;
        let hex = |field: &str| row[field].as_str().map(str::to_owned);
        assert_eq!(Some(descriptor.length.to_string()), hex("length"), "{name}");
        assert_eq!(Some(descriptor.chunks()), row["chunks"].as_u64(), "{name}");
        assert_eq!(Some(descriptor.segments()), row["segments"].as_u64(), "{name}");
        assert_eq!(file.hashes.last().map(ToString::to_string), hex("last_chunk"), "{name}");
        let segments = file.hashes.chunks(usize::try_from(SEGMENT_CHUNKS).unwrap());
        let last = segments.last();
        assert_eq!(last.map(|one| segment_leaf(one).to_string()), hex("last_leaf"), "{name}");
        assert_eq!(Some(descriptor.root.to_string()), hex("root"), "{name}");
        assert_eq!(Some(descriptor.id().to_string()), hex("id"), "{name}");
        if let Some(bytes) = hex("last_head") {
            let index = usize::try_from(descriptor.segments()).unwrap() - 1;
            let (chunks, path) = (last.unwrap().to_vec(), file.tree.prove(index).unwrap());
            let head = FileHead { descriptor, chunks, path };
            assert_eq!(hex::encode(codec::encode(&head)), bytes, "{name}");
            assert_eq!(head.verify(&descriptor.id()), Ok(()), "{name}");
        }
    }
}
