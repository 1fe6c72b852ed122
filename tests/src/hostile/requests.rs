//! Peers that send requests to all nodes in turn, at a steady rate.

use ledger::codec;
use protocol::message::Request;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::peer::Peer;
use super::{Field, Rate};

const IDENTITIES: u64 = 4;

/// Sends this many requests a second from each of four identities. `make` makes a request from the
/// number of the identity and the number of the request. Returns the rate of all together.
pub(super) async fn run(
    field: &Field,
    until: Instant,
    rate: f64,
    make: fn(u64, u64) -> Request,
) -> anyhow::Result<f64> {
    each(field, |peer, number| ask(peer, until, rate, move |count| make(number, count))).await
}

/// Runs an attack with each of four identities at a time. Returns the rate of all together.
pub(super) async fn each<Attack>(
    field: &Field,
    attack: impl Fn(Peer, u64) -> Attack,
) -> anyhow::Result<f64>
where
    Attack: Future<Output = anyhow::Result<f64>> + Send + 'static,
{
    let mut identities = JoinSet::new();
    for number in 0..IDENTITIES {
        identities.spawn(attack(Peer::dial(field, &field.targets)?, number));
    }
    let mut reached = 0.0;
    while let Some(rate) = identities.join_next().await {
        reached += rate??;
    }
    Ok(reached)
}

async fn ask(
    mut peer: Peer,
    until: Instant,
    a_second: f64,
    make: impl Fn(u64) -> Request,
) -> anyhow::Result<f64> {
    tokio::time::timeout_at(until, peer.connect()).await??;
    let mut rate = Rate::start();
    while Instant::now() < until {
        rate.due(a_second).await;
        peer.drain();
        if peer.connected.is_empty() {
            rate.count -= 1;
            tokio::time::timeout_at(until, peer.connect()).await.unwrap_or(Ok(()))?;
            continue;
        }
        let turn = usize::try_from(rate.count)? % peer.connected.len();
        peer.network.request(peer.connected[turn], codec::encode(&make(rate.count)));
    }
    Ok(rate.per_second())
}
