//! Many identities connect to all nodes, identify, and stay. Refused ones come back.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Field;
use super::peer::Peer;

/// All identities come within this time. Each waits for the one before to be connected everywhere,
/// because a node has two handshakes with one address at a time, but no longer than its share.
const COMING: Duration = Duration::from_secs(20);
/// Between two looks while identities come, and afterwards.
const SOON: Duration = Duration::from_millis(20);
const LOOK: Duration = Duration::from_millis(250);

pub(super) async fn run(field: &Field, until: Instant) -> anyhow::Result<f64> {
    let mut peers: Vec<Peer> = Vec::new();
    let share = COMING / u32::try_from(field.identities.max(1))?;
    let mut late = Instant::now();
    while Instant::now() < until {
        let is_there = peers.last().is_none_or(|peer| peer.connected.len() >= field.targets.len());
        if peers.len() < field.identities && (is_there || Instant::now() >= late) {
            peers.push(Peer::dial(field, &field.targets)?);
            late = Instant::now() + share;
        }
        peers.iter_mut().for_each(Peer::drain);
        sleep(if peers.len() < field.identities { SOON } else { LOOK }).await;
    }
    // A refused peer dials again by itself, so all of them count.
    Ok(peers.len() as f64)
}
