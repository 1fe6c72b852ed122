//! One input of a corpus.

use ledger::codec::{self, Encode};
use ledger::hash::{Domain, Hash};

/// Length of inputs without a meaning, in bytes. The machines take them as choices.
pub(super) const NOISE_BYTES: usize = 1_024;

/// The name and bytes of an input.
pub(super) type Sample = (String, Vec<u8>);

pub(super) fn named(name: &str, value: &impl Encode) -> Sample {
    (name.to_owned(), codec::encode(value))
}

/// The bytes of a sample and one more.
pub(super) fn trailing(sample: &Sample) -> Sample {
    ("refused_trailing".to_owned(), [&sample.1[..], &[0]].concat())
}

/// An input without a meaning.
pub(super) fn noise(name: &str) -> Sample {
    let block = |number: u64| Hash::of(Domain::Chunk, &[name.as_bytes(), &number.to_le_bytes()]).0;
    (name.to_owned(), (0..).flat_map(block).take(NOISE_BYTES).collect())
}
