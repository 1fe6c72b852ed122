//! Sends forged, oversized and truncated frames on every protocol that a node speaks.

use node::network::protocol_names;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::raw::{RawPeer, Script};
use super::{Field, Rate};

/// Frames a second, over all protocols.
const RATE: f64 = 100.0;

pub(super) async fn run(field: &Field, until: Instant) -> anyhow::Result<f64> {
    let names = protocol_names(&field.chain().to_string());
    let others = ["/meshsub/1.1.0", "/meshsub/1.2.0", "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"]
        .map(str::to_owned);
    let protocols: Vec<String> =
        [names.exchange, names.kad].into_iter().chain(names.links).chain(others).collect();
    let rate = RATE / protocols.len() as f64;
    let mut all = JoinSet::new();
    for protocol in protocols {
        let mut peer = RawPeer::dial(field, &field.targets, &protocol)?;
        all.spawn(async move {
            let (mut rate_of_peer, targets) = (Rate::start(), peer.targets().to_vec());
            while Instant::now() < until {
                tokio::select! {
                    _ = timeout_at(until, peer.next_connection()) => {}
                    () = rate_of_peer.due(rate) => {
                        let number = rate_of_peer.count as usize;
                        let target = targets[number % targets.len()];
                        peer.play(target, Script::Write(frame(number)));
                    }
                }
            }
            rate_of_peer.per_second()
        });
    }
    let mut reached = 0.0;
    while let Some(rate) = all.join_next().await {
        reached += rate?;
    }
    Ok(reached)
}

/// A broken frame. There are six kinds in turn, and each comes seven times in a row.
fn frame(number: usize) -> Vec<u8> {
    let noise = |count: usize| (0..count).map(|index| (index.wrapping_mul(167) ^ number) as u8);
    match number / 7 % 6 {
        // The length is larger than any limit.
        0 => [0xff; 64].to_vec(),
        // The length is within the limit, but most of the frame is missing.
        1 => [0, 0, 1, 0].into_iter().chain(noise(100)).collect(),
        // A whole frame of noise, with a length of four bytes before it.
        2 => 1_000u32.to_le_bytes().into_iter().chain(noise(1_000)).collect(),
        // A whole frame of noise, with a varint length before it, as in protobuf.
        3 => [0xe8, 0x07].into_iter().chain(noise(1_000)).collect(),
        // The first byte of a varint length.
        4 => vec![0x80],
        // An empty frame.
        _ => vec![0; 4],
    }
}
