//! Floods a network with flood queries for files that nobody has.

use ledger::codec;
use protocol::message::Request;
use protocol::search::{FloodMessage, Hops, QueryId, Wanted};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::garbage_proposals::random;
use super::peer::Peer;
use super::{Field, Rate};

const IDENTITIES: u64 = 4;
/// Queries a second of each identity.
const RATE: f64 = 125.0;

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
        let wanted = random(number, rate.count);
        let (id, _) = wanted.0.split_at(16);
        let id = QueryId(id.try_into()?);
        let query = FloodMessage::Query { id, wanted: Wanted::File(wanted), left: Hops::MOST };
        peer.network.request(peer.connected[turn], codec::encode(&Request::Flood(query)));
    }
    Ok(rate.per_second())
}
