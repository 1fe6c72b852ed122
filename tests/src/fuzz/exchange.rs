//! The target for requests and responses.

use ledger::block::HEADER_BYTES;
use ledger::codec;
use protocol::message::{
    REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX, Request, Response, answer_bytes_max,
};

use super::canonical;

/// Bytes of a transaction hash.
const HASH_BYTES: usize = 32;

/// Reads a request and a response. No list has more items than its bytes can hold. The limit that a
/// request sets for its answer allows at least an empty list, and at most the limit of responses.
pub fn exchange(data: &[u8]) -> bool {
    let request = canonical::<Request>(data, REQUEST_BYTES_MAX);
    if let Some(Request::Transactions(hashes)) = &request {
        assert!(hashes.len() * HASH_BYTES < data.len(), "{} hashes", hashes.len());
    }
    let least = codec::encode(&Response::Transactions(Vec::new())).len();
    assert!((least..=RESPONSE_BYTES_MAX).contains(&answer_bytes_max(data)), "{request:?}");
    let response = canonical::<Response>(data, RESPONSE_BYTES_MAX);
    assert_eq!(Response::decode(data).ok(), response, "a response has one decoder");
    match &response {
        Some(Response::Blocks(blocks, _)) => assert!(blocks.len() * HEADER_BYTES < data.len()),
        Some(Response::Proposed(Some(list))) => {
            assert!(list.transactions.len() * HASH_BYTES < data.len())
        }
        Some(Response::Genesis(Some(piece))) => assert!(piece.len() < data.len()),
        _ => {}
    }
    request.is_some() || response.is_some()
}
