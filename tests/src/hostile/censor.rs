//! Sends a queue of large transactions, whose first one, the head, expires at once. All of them
//! look executable and none can be applied, so a proposer that does not check expiry would make
//! empty blocks.

use std::time::Duration;

use anyhow::Context;
use ledger::codec;
use ledger::signature::SigningKey;
use ledger::transaction::{Body, MEMO_BYTES_MAX, OUTPUTS_MAX, Output, Transaction, Transfer};
use ledger::units::{Amount, Nonce, Timestamp};
use node::network::Topic;
use protocol::message::Attempt;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Field;
use super::peer::Peer;
use crate::story::{Rpc, now_ms};

/// Transactions behind the head: enough to fill a block.
const QUEUE: u64 = 710;
/// The fees. The head offers the most for each byte, and the queue more than other transactions do.
/// None of these fees is ever paid if the defence holds.
const HEAD_FEE: Amount = Amount(10_000_000);
const QUEUE_FEE: Amount = Amount(100_000_000);
/// Time until the head expires, in milliseconds.
const EXPIRES_IN_MS: u64 = 20;
/// Transactions of the queue in one message of gossip.
const BATCH: usize = 20;
/// Pause between two looks at the height.
const LOOK: Duration = Duration::from_millis(20);

pub(super) async fn run(field: &Field, until: Instant) -> anyhow::Result<f64> {
    let key = field.key.as_ref().context("who censors needs an account with money")?;
    let mut peer = Peer::dial(field, &field.targets)?;
    let url = format!("http://{}", field.targets[0].rpc);
    let (first, to) = account(&url, key).await?;
    let queue: Vec<Transaction> = (1..=QUEUE)
        .map(|place| transfer(field, key, first + place, to, OUTPUTS_MAX, MEMO_BYTES_MAX))
        .collect();
    let (mut heads, mut heights, mut last) = (0u32, 0u32, 0);
    let mut attempt = now_ms();
    while Instant::now() < until {
        peer.drain();
        let height = height(&url).await?;
        if height == last {
            sleep(LOOK).await;
            continue;
        }
        last = height;
        heights += 1;
        if heads % 8 == 0 {
            // The queue is sent again, since its transactions may have left the mempool.
            for batch in queue.chunks(BATCH) {
                attempt += 1;
                let message = Attempt { attempt, message: batch.to_vec() };
                peer.network.publish(Topic::Transactions, codec::encode(&message));
            }
        }
        let head = transfer(field, key, first, to, 1, 0);
        attempt += 1;
        peer.network.publish(
            Topic::Transactions,
            codec::encode(&Attempt { attempt, message: vec![head.clone()] }),
        );
        submit(&url, head).await;
        heads += 1;
    }
    Ok(f64::from(heads) / f64::from(heights.max(1)))
}

fn transfer(
    field: &Field,
    key: &SigningKey,
    nonce: u64,
    to: ledger::signature::PublicKey,
    outputs: usize,
    memo: usize,
) -> Transaction {
    let is_head = outputs == 1;
    let transfer = Transfer {
        sender: key.public(),
        nonce: Nonce(nonce),
        outputs: vec![Output { account: to, amount: Amount(1) }; outputs],
        fee: if is_head { HEAD_FEE } else { QUEUE_FEE },
        expires_at: Timestamp(now_ms() + if is_head { EXPIRES_IN_MS } else { 600_000 }),
        memo: vec![b'x'; memo],
    };
    Body::Transfer(transfer).sign(field.chain(), key)
}

/// The account's next nonce, and its public key. The transactions pay to the account itself.
async fn account(
    url: &str,
    key: &SigningKey,
) -> anyhow::Result<(u64, ledger::signature::PublicKey)> {
    let (rpc, public) = (Rpc::new(url), key.public());
    let info = tokio::task::spawn_blocking(move || rpc.account(&public.to_string())).await?;
    Ok((info.map_err(|failure| anyhow::anyhow!("{failure:?}"))?.pending_nonce, public))
}

async fn height(url: &str) -> anyhow::Result<u64> {
    let rpc = Rpc::new(url);
    let status = tokio::task::spawn_blocking(move || rpc.status()).await?;
    Ok(status.map_err(|failure| anyhow::anyhow!("{failure:?}"))?.height)
}

/// Submits by RPC. The node should refuse the transaction, so the answer is ignored.
async fn submit(url: &str, transaction: Transaction) {
    let rpc = Rpc::new(url);
    let _refused: Result<Value, _> =
        tokio::task::spawn_blocking(move || rpc.submit(&transaction).map(Value::from))
            .await
            .map_err(anyhow::Error::from)
            .and_then(|result| result.map_err(|failure| anyhow::anyhow!("{failure:?}")));
}
