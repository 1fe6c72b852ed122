//! The bodies of the fuzz targets: the rules that hold for any bytes of a stranger.
//!
//! Each target is a function of bytes. It panics if a rule is broken, and returns whether it
//! accepted the bytes. `tests/fuzz/` runs the functions under libFuzzer (`make fuzz`), and
//! `tests/tests/fuzz.rs` runs them on the small corpora of `tests/fuzz/corpus/`. A fuzzer cannot
//! sign or hash. So if only bytes with the right signature or checksum reach some code, the target
//! adds the signature or checksum itself.

mod archive;
mod block;
mod certificate;
mod consensus_gossip;
mod consensus_log;
mod exchange;
mod file;
mod genesis;
mod proof;
mod snapshot;
mod sync_message;
mod transaction;

mod file_machine;
mod live_machine;
mod swarm_machine;

mod fixture;
mod sample;
mod samples;
mod stream;

pub use archive::archive;
pub use block::block;
pub use certificate::certificate;
pub use consensus_gossip::consensus_gossip;
pub use consensus_log::consensus_log;
pub use exchange::exchange;
pub use file::file;
pub use file_machine::file_machine;
pub use genesis::genesis;
pub use live_machine::live_machine;
pub use proof::proof;
pub use samples::samples;
pub use snapshot::snapshot;
pub use swarm_machine::swarm_machine;
pub use sync_message::sync_message;
pub use transaction::transaction;

use ledger::codec::{self, Decode, Encode};

/// A target: returns whether the bytes were accepted.
pub type Target = fn(&[u8]) -> bool;

/// Every target by name. Its program and the folder of its corpus have the same name.
pub const TARGETS: [(&str, Target); 15] = [
    ("transaction", transaction),
    ("block", block),
    ("certificate", certificate),
    ("proof", proof),
    ("exchange", exchange),
    ("consensus_gossip", consensus_gossip),
    ("sync_message", sync_message),
    ("archive", archive),
    ("consensus_log", consensus_log),
    ("genesis", genesis),
    ("snapshot", snapshot),
    ("file", file),
    ("live_machine", live_machine),
    ("swarm_machine", swarm_machine),
    ("file_machine", file_machine),
];

/// Decodes bytes within a limit. Checks that a value has exactly one encoding, and that nothing
/// beyond the limit decodes.
fn canonical<T: Encode + Decode<()>>(data: &[u8], max: usize) -> Option<T> {
    let value = codec::decode::<T>(data, max).ok()?;
    assert!(data.len() <= max, "{} bytes were decoded, expected at most {max}", data.len());
    assert_eq!(codec::encode(&value), data, "one value has one encoding");
    if let Some(shorter) = data.len().checked_sub(1) {
        assert!(codec::decode::<T>(data, shorter).is_err(), "a limit of {shorter} bytes is kept");
        assert!(
            codec::decode::<T>(&data[..shorter], max).is_err(),
            "no value ends before its last byte"
        );
    }
    Some(value)
}
