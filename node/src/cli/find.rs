//! `find`: looks for nodes that have an era, a block or a file.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::HomeArg;
use super::files::id_of;
use crate::control::{Client, ControlError};
use crate::output::{print, print_json, table};

/// Longest time that the node may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct Find {
    #[command(flatten)]
    home: HomeArg,
    #[command(flatten)]
    wanted: Wanted,
    /// Search by a flood query, which nodes pass on; on local networks only
    #[arg(long)]
    flood: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Wanted {
    /// Number of an era of history
    #[arg(long, value_name = "N")]
    era: Option<u64>,
    /// Height of a block; looks for its era
    #[arg(long, value_name = "H")]
    block: Option<u64>,
    /// A file: its id, its link, a file that holds the link, or `-` to read it from stdin
    #[arg(long, value_name = "ID|LINK|-")]
    file: Option<String>,
}

/// What the node found. Scripts read the names of its fields.
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    holders: Vec<Holder>,
    /// Number of hops to the first holder, for a flood query.
    hops: Option<u8>,
    /// Messages that the node sent and received for it.
    messages: u64,
    /// Time until the node heard of the first holder.
    ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    peer: Option<String>,
    addresses: Vec<String>,
}

impl Find {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let root = self.home.root()?;
        let Wanted { era, block, file } = &self.wanted;
        let file = file.as_deref().map(id_of).transpose()?.map(|id| id.to_string());
        let params = json!({"era": era, "block": block, "file": file, "flood": self.flood});
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("tokio cannot start")?;
        let found: Found = runtime.block_on(async {
            let call = async { Client::connect(&root).await?.call("node_find", params).await };
            let slow = |_| ControlError::Slow {
                root: root.clone(),
                what: "does not answer",
                time: PATIENCE,
            };
            tokio::time::timeout(PATIENCE, call).await.map_err(slow)?
        })?;
        if self.json {
            return print_json(&found);
        }
        Ok(print(&found.text())?)
    }
}

impl Found {
    fn text(&self) -> String {
        let Self { holders, hops, messages, ms } = self;
        let way = |hops| format!(", {hops} {} away", if hops == 1 { "hop" } else { "hops" });
        let way = hops.map_or_else(String::new, way);
        if holders.is_empty() {
            return format!("no holder was found: {messages} messages, {ms} ms");
        }
        let row = |holder: &Holder| {
            let peer = holder.peer.clone().unwrap_or_else(|| "unknown".to_owned());
            (peer, holder.addresses.join(" "))
        };
        let rows: Vec<(String, String)> = holders.iter().map(row).collect();
        let rows: Vec<(&str, String)> =
            rows.iter().map(|(peer, addresses)| (peer.as_str(), addresses.clone())).collect();
        let count = match holders.len() {
            1 => "1 holder".to_owned(),
            count => format!("{count} holders"),
        };
        format!(
            "{}\n{count}{way}: {messages} messages, {ms} ms to the first",
            table(&rows).trim_end(),
        )
    }
}
