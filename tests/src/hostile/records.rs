//! Stores records in the index, thousands of them: of this peer itself for random keys, and of
//! peers that do not exist. Each batch begins with a record for the file of the field, at an
//! address where nobody is.

use libp2p::{Multiaddr, PeerId};
use node::network::protocol_names;
use protocol::find::Object;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::garbage_proposals::random;
use super::raw::{RawPeer, Script};
use super::{Field, Rate};

const IDENTITIES: u64 = 4;
/// Records in one stream.
const BATCH: u64 = 50;
/// Batches a second of each identity.
const BATCHES: f64 = 5.0;

pub(super) async fn run(field: &Field, until: Instant) -> anyhow::Result<f64> {
    let kad = protocol_names(&field.chain().to_string()).kad;
    let key = field.file.map(|id| Object::File(id.0).key(field.chain()).0);
    let mut all = JoinSet::new();
    for identity in 0..IDENTITIES {
        let mut peer = RawPeer::dial(field, &field.targets, &kad)?;
        let nobody: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", 1 + identity).parse()?;
        all.spawn(async move {
            let (mut rate, targets) = (Rate::start(), peer.targets().to_vec());
            let mut reached = 0;
            while Instant::now() < until {
                tokio::select! {
                    _ = timeout_at(until, peer.next_connection()) => {}
                    () = rate.due(BATCHES) => {
                        let target = targets[rate.count as usize % targets.len()];
                        let first = (identity << 40) + rate.count * BATCH;
                        let keys = (first..).take(BATCH as usize).map(|at| random(at, at));
                        let keys = key.into_iter().chain(keys).take(BATCH as usize);
                        let records = keys.enumerate().flat_map(|(at, key)| {
                            // Only half of them are of the peer itself.
                            let whose = if at % 2 == 0 { peer.id() } else { PeerId::random() };
                            add_provider(key.as_bytes(), &whose, &nobody)
                        });
                        peer.play(target, Script::Write(records.collect()));
                        reached += u64::from(peer.is_connected(&target)) * BATCH;
                    }
                }
            }
            reached as f64 / rate.start.elapsed().as_secs_f64()
        });
    }
    let mut reached = 0.0;
    while let Some(rate) = all.join_next().await {
        reached += rate?;
    }
    Ok(reached)
}

/// A frame of Kademlia that stores a record: the message `ADD_PROVIDER`, in protobuf, after its
/// length.
fn add_provider(key: &[u8], provider: &PeerId, address: &Multiaddr) -> Vec<u8> {
    let peer = [field(1, &provider.to_bytes()), field(2, &address.to_vec())].concat();
    let message = [vec![8, 2], field(2, key), field(9, &peer)].concat();
    [varint(message.len()), message].concat()
}

/// A field of bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [vec![number << 3 | 2], varint(bytes.len()), bytes.to_vec()].concat()
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
