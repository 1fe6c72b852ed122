//! Floods a network with flood queries for files that nobody has.

use protocol::message::Request;
use protocol::search::{FloodMessage, Hops, QueryId, Wanted};
use tokio::time::Instant;

use super::garbage_proposals::random;
use super::{Field, requests};

/// Queries a second of each identity.
const RATE: f64 = 125.0;

pub(super) async fn run(field: &Field, until: Instant) -> anyhow::Result<f64> {
    requests::run(field, until, RATE, |number, count| {
        let wanted = random(number, count);
        let mut id = [0; 16];
        id.copy_from_slice(&wanted.0[..16]);
        Request::Flood(FloodMessage::Query {
            id: QueryId(id),
            wanted: Wanted::File(wanted),
            left: Hops::MOST,
        })
    })
    .await
}
