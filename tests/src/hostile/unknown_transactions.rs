//! Sends requests, each for 1,000 transactions that nobody has.

use ledger::codec;
use ledger::hash::TxHash;
use protocol::message::{REQUESTED_TRANSACTIONS_MAX, Request};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::garbage_proposals::random;
use super::peer::Peer;
use super::{Field, Rate};

const IDENTITIES: u64 = 4;
/// Requests a second of each identity.
const RATE: f64 = 50.0;

pub(super) async fn run(field: &Field, until: Instant) -> anyhow::Result<f64> {
    let mut identities = JoinSet::new();
    for number in 0..IDENTITIES {
        identities.spawn(ask(Peer::dial(field, &field.targets)?, until, number));
    }
    let mut reached = 0.0;
    while let Some(rate) = identities.join_next().await {
        reached += rate??;
    }
    Ok(reached)
}

async fn ask(mut peer: Peer, until: Instant, number: u64) -> anyhow::Result<f64> {
    tokio::time::timeout_at(until, peer.connect()).await??;
    let mut rate = Rate::start();
    while Instant::now() < until {
        rate.due(RATE).await;
        peer.drain();
        if peer.connected.is_empty() {
            rate.count -= 1;
            tokio::time::timeout_at(until, peer.connect()).await.unwrap_or(Ok(()))?;
            continue;
        }
        let turn = usize::try_from(rate.count)? % peer.connected.len();
        let hashes = (0..REQUESTED_TRANSACTIONS_MAX as u64)
            .map(|index| TxHash(random(number << 32 | rate.count, index)));
        peer.network
            .request(peer.connected[turn], codec::encode(&Request::Transactions(hashes.collect())));
    }
    Ok(rate.per_second())
}
