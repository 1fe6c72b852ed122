//! Sends old certified headers, which are costly to verify, to a full node that syncs.

use anyhow::Context;
use ledger::chain::Chain;
use ledger::codec;
use ledger::store::{Opened, Store};
use ledger::units::Height;
use node::home::Home;
use node::network::{Topic, Verdict};
use protocol::message::{Attempt, CertifiedHeader, Request};
use tokio::time::{Instant, timeout_at};

use super::peer::Peer;
use super::{Field, Rate};

/// Headers a second, half by gossip and half in requests.
const RATE: f64 = 100.0;

pub(super) async fn run(field: &Field, until: Instant) -> anyhow::Result<f64> {
    let home = Home::open(field.home.as_deref().context("headers need a home with a chain")?)?;
    let Opened { store, .. } = Store::open(&home.db_path(), &Chain::new(field.genesis.clone()))?;
    let tip = store.tip().0;
    let mut headers = Vec::new();
    for height in tip.0.saturating_sub(64).max(1)..=tip.0 {
        let (header, certificate) =
            (store.header(Height(height))?.here(), store.certificate(Height(height))?.here());
        let (header, certificate) =
            header.zip(certificate).context("a block of the chain is missing")?;
        headers.push(CertifiedHeader { header, certificate });
    }
    let mut peer = Peer::dial(field, std::slice::from_ref(field.full_node()?))?;
    timeout_at(until, peer.connect()).await??;
    let mut rate = Rate::start();
    while Instant::now() < until {
        rate.due(RATE).await;
        peer.drain();
        while let Ok(gossip) = peer.inbox.headers.try_recv() {
            peer.network.verdict(gossip.ticket, Verdict::Ignore);
        }
        let message = headers[usize::try_from(rate.count)? % headers.len()].clone();
        match peer.connected.first() {
            Some(to) if rate.count.is_multiple_of(2) => {
                peer.network.request(*to, codec::encode(&Request::Tip(Some(message))));
            }
            _ => peer
                .network
                .publish(Topic::Headers, codec::encode(&Attempt { attempt: rate.count, message })),
        }
    }
    Ok(rate.per_second())
}
