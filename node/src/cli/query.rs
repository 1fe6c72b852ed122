//! `status` and `peers`: ask a running node.

use std::time::Duration;

use clap::Args;
use ledger::api::{Faults, QuorumInfo};

use crate::client::Client;
use crate::output::{print, print_json, table};

#[derive(Debug, Args)]
pub(super) struct Query {
    /// RPC address of the node
    #[arg(
        long,
        env = "CAIRN_NODE_RPC",
        value_name = "URL",
        default_value = "http://127.0.0.1:7701"
    )]
    rpc: String,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Longest time that a node may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

impl Query {
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(&self.rpc, TIMEOUT)?)
    }

    pub(super) fn status(&self) -> anyhow::Result<()> {
        let status = self.client()?.status()?;
        if self.json {
            return print_json(&status);
        }
        let mempool =
            format!("{} transactions, {} bytes", status.mempool_transactions, status.mempool_bytes);
        let mut rows = vec![
            ("network", status.network),
            ("chain id", status.chain_id),
            ("height", status.height.to_string()),
            ("block hash", status.block_hash),
            ("state root", status.state_root),
            ("peers", status.peers.to_string()),
            ("syncing", if status.syncing { "yes" } else { "no" }.to_owned()),
            ("validator", status.validator.unwrap_or_else(|| "no".to_owned())),
            ("round", status.round.to_string()),
            ("mempool", mempool),
            (
                "clock",
                status
                    .clock_offset_ms
                    .map_or_else(|| "unknown".to_owned(), |ms| format!("{ms:+} ms to peers")),
            ),
            ("quorum", quorum(&status.quorum)),
            ("version", status.version),
        ];
        if let Some(set) = &status.faults {
            rows.push(("FAULTS", faults(set)));
        }
        Ok(print(&table(&rows))?)
    }

    pub(super) fn peers(&self) -> anyhow::Result<()> {
        let peers = self.client()?.peers()?;
        if self.json {
            return print_json(&peers);
        }
        if peers.is_empty() {
            return Ok(print("no peers")?);
        }
        let mut lines = String::new();
        for peer in peers {
            let direction = if peer.inbound { "in " } else { "out" };
            let height = peer.height.map_or_else(|| "-".to_owned(), |height| height.to_string());
            let ping = peer
                .ping_us
                .map_or_else(|| "-".to_owned(), |us| format!("{}.{:03} ms", us / 1000, us % 1000));
            lines += &format!(
                "{}  {direction}  height {height}  ping {ping}  {}  {}\n",
                peer.id, peer.address, peer.agent
            );
        }
        Ok(print(&lines)?)
    }
}

/// The faults that are set on a local network.
fn faults(faults: &Faults) -> String {
    let mut parts = Vec::new();
    if !faults.cut.is_empty() {
        parts.push(format!("cut off from {}", faults.cut.join(", ")));
    }
    if !faults.latency_ms.is_empty() {
        let latency = faults.latency_ms.iter().map(|(peer, ms)| format!("{peer} {ms} ms"));
        parts.push(format!("latency from {}", latency.collect::<Vec<_>>().join(", ")));
    }
    parts.join("; ")
}

fn quorum(quorum: &QuorumInfo) -> String {
    if quorum.ok {
        "heard".to_owned()
    } else {
        format!("not heard: missing {}", quorum.missing.join(", "))
    }
}
