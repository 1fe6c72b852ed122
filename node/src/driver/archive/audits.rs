//! Answers to audits of holders.

use ledger::codec::CodecError;
use ledger::history::{HistoryRules, SegmentDescriptor, chunk_hash};
use protocol::archive::Audit;
use protocol::message::Response;

use crate::network::RequestError;

/// Bytes of a hash.
const HASH_BYTES: u64 = 32;

/// Most bytes of an answer: a chunk with the hashes of its segment. An announcement is shorter than
/// the shortest chunk that a genesis may choose.
pub(super) fn answer_bytes(rules: &HistoryRules) -> usize {
    /// The encoding around the content: the variant's number and two lengths.
    const FRAME: u64 = 32;
    let hashes = u64::from(rules.segment_chunks_max()).saturating_mul(HASH_BYTES);
    let bytes = hashes.saturating_add(rules.chunk_bytes).saturating_add(FRAME);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The result of an audit, from the answer of the peer.
pub(super) fn judge(
    answer: Result<Result<Response, CodecError>, RequestError>,
    descriptor: &SegmentDescriptor,
    chunk: u64,
    rules: &HistoryRules,
) -> Audit {
    match answer {
        Err(RequestError::Busy | RequestError::Disconnected) => Audit::Busy,
        Err(_) => Audit::Unanswered,
        Ok(Ok(Response::Chunk { hashes, bytes })) => {
            let hash = usize::try_from(chunk).ok().and_then(|chunk| hashes.get(chunk));
            let is_shown = descriptor.verify_chunks(rules, &hashes).is_ok()
                && hash == Some(&chunk_hash(&bytes));
            if is_shown { Audit::Passed } else { Audit::Failed }
        }
        Ok(_) => Audit::Failed,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ledger::codec;
    use ledger::hash::{BlockHash, Hash};
    use ledger::merkle;
    use ledger::units::Height;
    use protocol::eras::{Announcement, Era, EraRanges};

    use super::*;

    const RULES: HistoryRules =
        HistoryRules { segment_bytes: 8, segment_blocks: 100, chunk_bytes: 4 };

    #[test]
    fn a_peer_passes_an_audit_with_the_chunk_itself() {
        let hashes = [&b"abcd"[..], b"efgh", b"i"].map(chunk_hash).to_vec();
        let descriptor = SegmentDescriptor {
            index: 7,
            first: Height(1),
            last: Height(9),
            bytes: 9,
            chunks_root: merkle::root(&hashes),
            blocks_root: Hash::ZERO,
            last_block: BlockHash::default(),
        };
        let shown = |hashes: &[Hash], bytes: &[u8]| {
            Ok(Ok(Response::Chunk { hashes: hashes.to_vec(), bytes: bytes.to_vec() }))
        };
        let forged = [hashes[0], chunk_hash(b"????"), hashes[2]];
        for (answer, chunk, expected) in [
            (shown(&hashes, b"efgh"), 1, Audit::Passed),
            (shown(&hashes, b"i"), 2, Audit::Passed),
            (shown(&hashes, b"abcd"), 1, Audit::Failed),
            (shown(&hashes, b"efgh"), 3, Audit::Failed),
            (shown(&forged, b"????"), 1, Audit::Failed),
            (shown(&hashes[..2], b"efgh"), 1, Audit::Failed),
            (Ok(Ok(Response::NotKept)), 1, Audit::Failed),
            (Ok(Response::decode(&[9; 9])), 1, Audit::Failed),
            (Err(RequestError::Timeout), 1, Audit::Unanswered),
            (Err(RequestError::Busy), 1, Audit::Busy),
            (Err(RequestError::Disconnected), 1, Audit::Busy),
        ] {
            let text = format!("{answer:?}");
            assert_eq!(judge(answer, &descriptor, chunk, &RULES), expected, "{chunk}: {text}");
        }
    }

    #[test]
    fn the_largest_answers_are_read() {
        let rules =
            HistoryRules { segment_bytes: 1 << 20, segment_blocks: 100, chunk_bytes: 1 << 14 };
        let most = usize::try_from(rules.segment_chunks_max()).unwrap();
        let chunk = Response::Chunk { hashes: vec![Hash::ZERO; most], bytes: vec![0; 1 << 14] };
        let (bytes, most) = (codec::encode(&chunk).len(), answer_bytes(&rules));
        assert!(bytes <= most && most < bytes + 100, "{bytes} of {most}");
        let eras = EraRanges::of((0..1_000).map(|at| Era(2 * at)));
        let eras = Response::Eras(Announcement { is_archive: true, eras });
        assert!(codec::encode(&eras).len() <= most);
    }
}
