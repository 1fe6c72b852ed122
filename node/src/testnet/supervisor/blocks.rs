//! The blocks that nodes report final, and when they report them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use ledger::api::{self, BlockSummary};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::super::layout::Node;
use super::super::overview::BlockView;
use crate::clock::wall_ms;

/// Most blocks that are kept.
const BLOCKS_MAX: usize = 64;
/// Time over which the rate is measured.
const RATE_TIME: Duration = Duration::from_secs(5);
/// Most bytes of a message about a block. A node sends some 400.
const NOTICE_BYTES_MAX: usize = 64 << 10;
/// Time between two attempts to reach a node.
const RETRY: Duration = Duration::from_millis(500);

/// A block that a node reported final, and when, in milliseconds since 1970.
pub(super) struct Seen {
    block: BlockSummary,
    at: u64,
}

/// The last blocks, each as the first node that reported it did.
#[derive(Default)]
pub(super) struct Blocks {
    /// The newest first.
    pub(super) last: VecDeque<BlockView>,
}

/// A notification of a subscription to blocks.
#[derive(Deserialize)]
struct Notice {
    params: NoticeParams,
}

#[derive(Deserialize)]
struct NoticeParams {
    result: BlockSummary,
}

impl Blocks {
    /// Adds a block, unless another node reported it before. `names` has the node of each
    /// validator's key.
    pub(super) fn add(&mut self, seen: &Seen, names: &BTreeMap<String, String>) {
        let Seen { block, at } = seen;
        let place = self.last.iter().position(|known| known.height <= block.height);
        if place.is_some_and(|place| self.last[place].height == block.height) {
            return;
        }
        let view = BlockView {
            height: block.height,
            time: block.time,
            transfers: block.transactions,
            proposer: names.get(&block.proposer).unwrap_or(&block.proposer).clone(),
            finality: Some(Duration::from_millis(at.saturating_sub(block.time))),
        };
        self.last.insert(place.unwrap_or(self.last.len()), view);
        self.last.truncate(BLOCKS_MAX);
    }

    /// Transfers made final a second, on average over the last [`RATE_TIME`].
    pub(super) fn rate(&self, now_ms: u64) -> u64 {
        let millis = u64::try_from(RATE_TIME.as_millis()).unwrap_or(u64::MAX);
        let is_recent = |block: &&BlockView| block.time.saturating_add(millis) >= now_ms;
        let count: u64 =
            self.last.iter().take_while(is_recent).map(|block| u64::from(block.transfers)).sum();
        count / RATE_TIME.as_secs()
    }
}

/// Follows the final blocks of a node until the receiver is dropped, also over its restarts.
/// `up` has the RPC of the nodes that run. While the node is down, another program may answer at
/// its port and report blocks that are not of this chain, so it is not asked.
pub(super) fn follow(
    node: &Node,
    mut up: watch::Receiver<Vec<String>>,
    blocks: mpsc::Sender<Seen>,
) {
    let (address, url) = (node.rpc, node.rpc_url());
    let limits = WebSocketConfig::default()
        .max_message_size(Some(NOTICE_BYTES_MAX))
        .max_frame_size(Some(NOTICE_BYTES_MAX));
    tokio::spawn(async move {
        while !blocks.is_closed() && up.wait_for(|urls| urls.contains(&url)).await.is_ok() {
            let stream = TcpStream::connect(address).await;
            if let Ok(stream) = stream
                && let Ok((mut socket, _)) =
                    client_async_with_config(format!("ws://{address}/"), stream, Some(limits)).await
            {
                let call = json!({
                    "jsonrpc": "2.0", "id": 1, "method": api::CHAIN_SUBSCRIBE, "params": {},
                });
                let mut is_up = socket.send(Message::text(call.to_string())).await.is_ok();
                while is_up && let Some(Ok(message)) = socket.next().await {
                    let at = wall_ms();
                    let text = message.to_text().unwrap_or_default();
                    if let Ok(notice) = serde_json::from_str::<Notice>(text) {
                        let block = notice.params.result;
                        is_up = blocks.send(Seen { block, at }).await.is_ok();
                    }
                }
            }
            sleep(RETRY).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(height: u64, transactions: u32, at: u64) -> Seen {
        let block = BlockSummary {
            height,
            hash: String::new(),
            time: 1_000 * height,
            proposer: "key".to_owned(),
            transactions,
            bytes: 0,
        };
        Seen { block, at }
    }

    #[test]
    fn the_first_report_of_a_block_counts() {
        let names = BTreeMap::from([("key".to_owned(), "node1".to_owned())]);
        let mut blocks = Blocks::default();
        for (height, at) in [(1, 1_100), (3, 3_050), (2, 2_400), (3, 3_900)] {
            blocks.add(&seen(height, 10, at), &names);
        }
        let told: Vec<_> = blocks.last.iter().map(|block| (block.height, block.finality)).collect();
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(told, [(3, ms(50)), (2, ms(400)), (1, ms(100))]);
        assert_eq!(blocks.last[0].proposer, "node1");
        assert_eq!(blocks.rate(3_000), 30 / 5);
        assert_eq!(blocks.rate(7_500), 10 / 5);
        assert_eq!(blocks.rate(60_000), 0);
        (4..200).for_each(|height| blocks.add(&seen(height, 0, 0), &names));
        assert_eq!((blocks.last.len(), blocks.last[0].height), (BLOCKS_MAX, 199));
    }
}
