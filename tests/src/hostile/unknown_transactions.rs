//! Sends requests, each for 1,000 transactions that nobody has.

use ledger::hash::TxHash;
use protocol::message::{REQUESTED_TRANSACTIONS_MAX, Request};
use tokio::time::Instant;

use super::garbage_proposals::random;
use super::{Field, requests};

/// Requests a second of each identity.
const RATE: f64 = 50.0;

pub(super) async fn run(field: &Field, until: Instant) -> anyhow::Result<f64> {
    requests::run(field, until, RATE, |number, count| {
        let hashes = (0..REQUESTED_TRANSACTIONS_MAX as u64)
            .map(|index| TxHash(random((number << 32) | count, index)));
        Request::Transactions(hashes.collect())
    })
    .await
}
