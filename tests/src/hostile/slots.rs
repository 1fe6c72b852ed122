//! Two hundred identities that connect to all nodes, identify, and stay; refused ones come back.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Field;
use super::peer::Peer;

const IDENTITIES: usize = 200;

pub(super) async fn run(field: &Field, until: Instant) -> anyhow::Result<f64> {
    let mut peers: Vec<Peer> = Vec::new();
    let mut most = 0;
    while Instant::now() < until {
        if peers.len() < IDENTITIES {
            peers.push(Peer::dial(field, &field.targets)?);
        }
        peers.iter_mut().for_each(Peer::drain);
        // A refused peer dials again by itself, so all of them count.
        most = most.max(peers.len());
        sleep(if peers.len() < IDENTITIES { Duration::from_millis(20) } else { Duration::from_millis(250) }).await;
    }
    Ok(most as f64)
}
