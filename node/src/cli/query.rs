//! `status` and `peers`: ask a running node.

use std::time::Duration;

use clap::Args;
use indicatif::DecimalBytes;
use ledger::api::{Faults, HistoryInfo, HistoryPhase, QuorumInfo, Status};

use crate::client::Client;
use crate::output::{print, print_json, table};
use crate::progress::time_left;

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
        if self.json { print_json(&status) } else { Ok(print(&table(&rows(status)))?) }
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

/// The status, a line for each fact.
fn rows(status: Status) -> Vec<(&'static str, String)> {
    let last_block = match status.last_block_age_ms {
        Some(ms) => format!("{} ago", time_left(ms)),
        None => "none yet".to_owned(),
    };
    let free = status
        .disk_free_bytes
        .map_or_else(|| "unknown".to_owned(), |bytes| DecimalBytes(bytes).to_string());
    let peers = if status.served_peers == 1 { "peer" } else { "peers" };
    let served = format!(
        "{} of history to {} {peers}",
        DecimalBytes(status.served_bytes),
        status.served_peers
    );
    let mempool =
        format!("{} transactions, {} bytes", status.mempool_transactions, status.mempool_bytes);
    let clock = status
        .clock_offset_ms
        .map_or_else(|| "unknown".to_owned(), |ms| format!("{ms:+} ms to peers"));
    let mut rows = vec![
        ("network", status.network),
        ("chain id", status.chain_id),
        ("height", status.height.to_string()),
        ("last block", last_block),
        ("block hash", status.block_hash),
        ("state root", status.state_root),
        ("peers", status.peers.to_string()),
        ("syncing", if status.syncing { "yes" } else { "no" }.to_owned()),
        ("validator", status.validator.unwrap_or_else(|| "no".to_owned())),
        ("round", status.round.to_string()),
        ("mempool", mempool),
        ("clock", clock),
        ("quorum", quorum(&status.quorum)),
        ("served", served),
        ("history", history(&status.history, status.height)),
        ("disk", format!("{} used, {free} free", DecimalBytes(status.disk_bytes))),
        ("uptime", time_left(status.uptime_ms)),
        ("version", status.version),
    ];
    if let Some(set) = &status.faults {
        rows.push(("FAULTS", faults(set)));
    }
    rows
}

/// What is here of history, and what the node believes without having executed it.
fn history(history: &HistoryInfo, tip: u64) -> String {
    let HistoryInfo { keep, phase, executed_to, checked_by_hash_to, bytes, .. } = history;
    let bytes = match keep.as_str() {
        "full" => DecimalBytes(*bytes).to_string(),
        keep => format!("{} (keep {keep})", DecimalBytes(*bytes)),
    };
    match phase {
        HistoryPhase::Backfill if *executed_to >= tip => {
            format!("{bytes}, fetching older blocks, all blocks executed")
        }
        _ if *executed_to >= tip => format!("{bytes}, all blocks executed"),
        _ => {
            let percent = executed_to.saturating_mul(100).checked_div(tip).unwrap_or(0);
            format!(
                "{bytes}, blocks here up to {checked_by_hash_to}, executed up to {executed_to} \
                 ({percent}%); later state is believed as a quorum signed it"
            )
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_units_and_says_what_is_unknown() {
        let status = Status {
            network: "local".to_owned(),
            height: 7,
            peers: 3,
            last_block_age_ms: Some(3_200),
            uptime_ms: 125_000,
            disk_bytes: 12_300_000,
            disk_free_bytes: Some(80_000_000_000),
            served_bytes: 5_000_000,
            served_peers: 2,
            history: HistoryInfo {
                keep: "full".to_owned(),
                executed_to: 7,
                ..HistoryInfo::default()
            },
            ..Status::default()
        };
        let known = table(&rows(status.clone()));
        for line in [
            "history     0 B, all blocks executed",
            "last block  4 s ago",
            "served      5.00 MB of history to 2 peers",
            "disk        12.30 MB used, 80.00 GB free",
            "uptime      2 min 5 s",
        ] {
            assert!(known.lines().any(|found| found == line), "{line} is not in\n{known}");
        }
        let history = HistoryInfo {
            keep: "20GiB".to_owned(),
            phase: HistoryPhase::Audit,
            executed_to: 3,
            checked_by_hash_to: 7,
            bytes: 1_500_000,
            ..HistoryInfo::default()
        };
        let joined = table(&rows(Status { history, ..status.clone() }));
        let part =
            "history     1.50 MB (keep 20GiB), blocks here up to 7, executed up to 3 (42%); later ";
        assert!(joined.lines().any(|line| line.starts_with(part)), "{part} is not in\n{joined}");
        let young =
            Status { last_block_age_ms: None, disk_free_bytes: None, served_peers: 1, ..status };
        let unknown = table(&rows(young));
        for line in [
            "last block  none yet",
            "served      5.00 MB of history to 1 peer",
            "disk        12.30 MB used, unknown free",
        ] {
            assert!(unknown.lines().any(|found| found == line), "{line} is not in\n{unknown}");
        }
    }
}
