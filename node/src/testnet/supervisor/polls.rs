//! What each node says of itself. Each node has its own task, so that a slow one delays no other.

use std::sync::Arc;
use std::time::Duration;

use ledger::api::{self, Status, SyncStatus};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::super::layout::Node;
use crate::client::Client;

/// Time between two polls of a node.
const POLL: Duration = Duration::from_millis(200);
/// Time between two polls of a node that does not answer. It is short, so that a start is noticed
/// at once.
const POLL_SILENT: Duration = Duration::from_millis(50);
/// Longest time that a node may take to answer a poll.
const POLL_TIMEOUT: Duration = Duration::from_secs(2);

/// The last answers of a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    /// When the node was asked.
    pub(super) asked: Option<Instant>,
    /// `None` while it does not answer.
    pub(super) status: Option<Status>,
    /// `sync` and `peers` are asked for only if a screen shows the network.
    pub(super) sync: Option<SyncStatus>,
    pub(super) peers: Vec<String>,
}

impl Report {
    /// The status, if the node was asked at this moment or later.
    pub(super) fn since(&self, start: Instant) -> Option<&Status> {
        self.status.as_ref().filter(|_| self.asked.is_some_and(|asked| asked >= start))
    }
}

/// Polls a node until the receiver is dropped. `is_watched` says whether a screen shows the
/// network.
pub(super) fn poll(
    node: &Node,
    chain_id: &str,
    is_watched: bool,
) -> anyhow::Result<watch::Receiver<Report>> {
    let (sender, receiver) = watch::channel(Report::default());
    let client = Arc::new(Client::new(&node.rpc_url(), POLL_TIMEOUT)?);
    let chain_id = chain_id.to_owned();
    tokio::spawn(async move {
        while !sender.is_closed() {
            let (client, chain_id) = (Arc::clone(&client), chain_id.clone());
            let asked = Instant::now();
            let ask = move || ask(&client, &chain_id, is_watched);
            let report = tokio::task::spawn_blocking(ask).await.unwrap_or_default();
            let pause = if report.status.is_some() { POLL } else { POLL_SILENT };
            sender.send_replace(Report { asked: Some(asked), ..report });
            sleep(pause).await;
        }
    });
    Ok(receiver)
}

fn ask(client: &Client, chain_id: &str, is_watched: bool) -> Report {
    let status = client.status().ok().filter(|status| status.chain_id == chain_id);
    if status.is_none() || !is_watched {
        return Report { status, ..Report::default() };
    }
    Report {
        asked: None,
        status,
        sync: client.call(api::SYNC_STATUS, json!({})).ok(),
        peers: client.peers().unwrap_or_default().into_iter().map(|peer| peer.id).collect(),
    }
}
