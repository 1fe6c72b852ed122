//! Many identities connect to all nodes, identify, and stay. Refused ones come back.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Field;
use super::peer::Peer;

/// All identities come within this time, evenly, because a node has two handshakes with one address
/// at a time.
const COMING: Duration = Duration::from_secs(4);
/// Between two looks once all have come.
const LOOK: Duration = Duration::from_millis(250);

pub(super) async fn run(field: &Field, until: Instant) -> anyhow::Result<f64> {
    let mut peers: Vec<Peer> = Vec::new();
    let mut most = 0;
    let pause = COMING / u32::try_from(field.identities.max(1))?;
    while Instant::now() < until {
        if peers.len() < field.identities {
            peers.push(Peer::dial(field, &field.targets)?);
        }
        peers.iter_mut().for_each(Peer::drain);
        // A refused peer dials again by itself, so all of them count.
        most = most.max(peers.len());
        sleep(if peers.len() < field.identities { pause } else { LOOK }).await;
    }
    Ok(most as f64)
}
