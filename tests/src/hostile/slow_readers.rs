//! Peers that ask for blocks all the time and hardly read the answers.

use std::time::Duration;

use ledger::codec;
use ledger::units::Height;
use node::network::protocol_names;
use protocol::message::Request;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::Field;
use super::raw::{RawPeer, Script};

const IDENTITIES: usize = 16;
/// Requests in flight at a time, of each identity with each node.
const REQUESTS: usize = 96;
/// Just below the 20 s after which a node gives up a stream that stands still.
const BYTE_EVERY: Duration = Duration::from_secs(19);

pub(super) async fn run(field: &Field, until: Instant) -> anyhow::Result<f64> {
    let request = codec::encode(&Request::Blocks(Height(1)));
    let length = u32::try_from(request.len())?.to_le_bytes();
    let script = Script::ReadSlowly([&length[..], &request].concat(), BYTE_EVERY);
    hold(field, until, IDENTITIES, REQUESTS, &script).await
}

/// Runs a script on many streams of many identities with each node, and again after each
/// reconnection. Returns how many identities were ever connected.
pub(super) async fn hold(
    field: &Field,
    until: Instant,
    identities: usize,
    streams: usize,
    script: &Script,
) -> anyhow::Result<f64> {
    let exchange = protocol_names(&field.chain().to_string()).exchange;
    let mut all = JoinSet::new();
    for _ in 0..identities {
        let mut peer = RawPeer::dial(field, &field.targets, &exchange)?;
        let (script, targets) = (script.clone(), field.targets.clone());
        all.spawn(async move {
            let mut was_connected = false;
            let mut retry = tokio::time::interval(Duration::from_secs(2));
            while Instant::now() < until {
                tokio::select! {
                    connected = timeout_at(until, peer.next_connection()) => {
                        if let Ok(id) = connected {
                            was_connected = true;
                            (0..streams).for_each(|_| peer.play(id, script.clone()));
                        }
                    }
                    _ = retry.tick() => targets.iter().for_each(|target| peer.redial(target)),
                }
            }
            was_connected
        });
    }
    let mut reached = 0;
    while let Some(was_connected) = all.join_next().await {
        reached += usize::from(was_connected?);
    }
    Ok(reached as f64)
}
