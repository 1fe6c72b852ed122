//! The target for the format of files.

use ledger::file::{FileHasher, FileHead};
use ledger::hash::Hash;
use ledger::units::SegmentIndex;

use super::canonical;
use super::sample::{Sample, named, trailing};
use crate::swarm::MadeFile;

/// Most bytes of the file that an input describes.
const BYTES_MAX: usize = 4 << 20;

/// Reads the bytes as the head of a segment, and as a file that comes in pieces.
pub fn file(data: &[u8]) -> bool {
    pieces(data);
    let Some(head) = canonical::<FileHead>(data, FileHead::BYTES_MAX) else { return false };
    let id = head.descriptor.id();
    if head.verify(&id).is_err() {
        return false;
    }
    let descriptor = &head.descriptor;
    let chunks = descriptor.segment_chunks(head.index()).expect("a head is of a segment");
    assert_eq!(chunks.clone().count(), head.chunks.len());
    let bytes: u64 = chunks.map(|chunk| descriptor.chunk_bytes(chunk)).sum();
    assert_eq!(bytes, descriptor.segment_bytes(head.index()));
    true
}

/// However the bytes of a file come, they have the same hashes. Each byte of the input stands for a
/// hole or for a run of equal bytes.
fn pieces(data: &[u8]) {
    let (mut hasher, mut whole) = (FileHasher::new(), Vec::new());
    let mut hashes = Vec::new();
    for byte in data {
        let (value, length) = match byte {
            0..=99 => (0, usize::from(*byte) * 4_099),
            _ => (*byte, usize::from(byte - 99) * 1_021),
        };
        if whole.len() + length > BYTES_MAX {
            break;
        }
        let piece = vec![value; length];
        match value {
            0 => hasher.push_zeros(length as u64),
            _ => hasher.push(&piece),
        }
        whole.extend(piece);
        hashes.extend(hasher.take_hashes());
    }
    let mut other = FileHasher::new();
    other.push(&whole);
    let (one, other) = (hasher.finish(), other.finish());
    let (one, other) = (one.expect("a short file"), other.expect("a short file"));
    hashes.extend(&one.hashes);
    assert_eq!((one.descriptor, one.tree), (other.descriptor, other.tree));
    assert_eq!(hashes, other.hashes);
}

/// Heads, some of which are wrong.
pub(super) fn samples() -> Vec<Sample> {
    let file = MadeFile::new((32 << 20) + 300_000, 1);
    let last = file.head(SegmentIndex(2)).expect("three segments");
    let mut other = last.clone();
    other.path.index = 1;
    let mut longer = last.clone();
    longer.chunks.push(Hash::ZERO);
    let good = named("last", &last);
    vec![
        trailing(&good),
        good,
        named("first", &file.head(SegmentIndex(0)).expect("three segments")),
        named("refused_place", &other),
        named("refused_chunks", &longer),
    ]
}
