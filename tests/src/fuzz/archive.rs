//! The target for archives of a chain.

use ledger::block::Block;
use ledger::certificate::{CERTIFICATE_BYTES_MAX, Certificate};
use ledger::codec;
use node::cli::archive::{ArchiveError, Contents, Reader, Writer, check};
use sha2::{Digest, Sha256};

use super::canonical;
use super::fixture::fixture;

/// Reads the bytes as an archive, and then once more with the right checksum added at the end.
pub fn archive(data: &[u8]) -> bool {
    let sealed = seal(data.to_vec());
    let is_accepted = on_archive(data);
    on_archive(&sealed) || is_accepted
}

/// Adds the checksum that an archive ends with.
pub(super) fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let hash = Sha256::digest(&bytes);
    bytes.extend_from_slice(&hash);
    bytes
}

/// Checks that an accepted archive is written again with the same bytes, and that no shorter or
/// longer archive is accepted.
fn on_archive(bytes: &[u8]) -> bool {
    let Ok(contents) = check(bytes) else { return false };
    let mut reader = Reader::new(bytes).expect("it was accepted");
    let mut writer = Writer::new(Vec::new(), contents).expect("memory takes all bytes");
    for _ in contents.first.0..=contents.last.0 {
        let piece = reader.piece().expect("it was accepted");
        canonical::<Block>(&piece, codec::VALUE_BYTES_MAX);
        writer.piece(&piece).expect("memory takes all bytes");
    }
    let piece = reader.piece().expect("it was accepted");
    canonical::<Certificate>(&piece, CERTIFICATE_BYTES_MAX);
    writer.piece(&piece).expect("memory takes all bytes");
    let end = reader.at();
    reader.finish().expect("it was accepted");
    let (written, length) = writer.finish().expect("memory takes all bytes");
    assert_eq!((&written[..], length), (bytes, end + 32), "one archive has one form");
    assert!(check(&bytes[..bytes.len() - 1]).is_err(), "an archive that was cut off is refused");
    assert!(matches!(check(&[bytes, &[0]].concat()[..]), Err(ArchiveError::Trailing)));
    true
}

/// An archive of the first three final blocks.
pub(super) fn whole() -> Vec<u8> {
    let fixture = fixture();
    let heights = || fixture.blocks.iter().map(|(block, _)| block.height()).take(3);
    let (first, last) = (heights().min().expect("three"), heights().max().expect("three"));
    let contents = Contents { chain: fixture.chain.id(), first, last };
    let mut writer = Writer::new(Vec::new(), contents).expect("memory takes all bytes");
    for (block, _) in &fixture.blocks[..3] {
        writer.piece(block.bytes()).expect("memory takes all bytes");
    }
    writer.piece(&codec::encode(&fixture.blocks[2].1)).expect("memory takes all bytes");
    writer.finish().expect("memory takes all bytes").0
}
