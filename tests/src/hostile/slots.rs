//! Many identities connect to all nodes, identify themselves, and stay. Refused identities come
//! back.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::peer::Peer;
use super::{Crowd, Field};

/// Pauses between two looks: while identities come, and afterwards.
const SOON: Duration = Duration::from_millis(20);
const LOOK: Duration = Duration::from_millis(250);

pub(super) async fn run(field: &Field, until: Instant) -> anyhow::Result<f64> {
    let mut peers: Vec<Peer> = Vec::new();
    let Crowd { identities, patience } = field.crowd;
    let mut late = Instant::now();
    while Instant::now() < until {
        let is_there = peers.last().is_none_or(|peer| peer.connected.len() >= field.targets.len());
        if peers.len() < identities && (is_there || Instant::now() >= late) {
            peers.push(Peer::dial(field, &field.targets)?);
            late = Instant::now() + patience;
        }
        peers.iter_mut().for_each(Peer::drain);
        sleep(if peers.len() < identities { SOON } else { LOOK }).await;
    }
    // A refused peer dials again by itself, so all of them count.
    Ok(peers.len() as f64)
}
