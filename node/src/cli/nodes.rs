//! `nodes`: shows which nodes the node of a home knows.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::timeout;

use super::HomeArg;
use super::run::runtime;
use crate::clock::wall_ms;
use crate::control::{Client, ControlError};
use crate::nodes::KnownNode;
use crate::output::{print, print_json};
use crate::progress::time_left;

/// Longest time that the node may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct Nodes {
    #[command(flatten)]
    home: HomeArg,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Nodes {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let root = self.home.root()?;
        let asking = async {
            let mut client = Client::connect(&root).await?;
            client.call::<Vec<KnownNode>>("node_nodes", json!({})).await
        };
        let answer = runtime()?.block_on(async { timeout(TIMEOUT, asking).await });
        let slow =
            ControlError::Slow { root: root.clone(), what: "does not answer", time: TIMEOUT };
        let nodes = answer.map_err(|_| slow)??;
        if self.json {
            return print_json(&nodes);
        }
        if nodes.is_empty() {
            return Ok(print("no nodes")?);
        }
        let now_ms = wall_ms();
        let lines: Vec<String> = nodes.iter().map(|node| line(node, now_ms)).collect();
        Ok(print(&lines.join("\n"))?)
    }
}

/// A node in one line.
fn line(node: &KnownNode, now_ms: u64) -> String {
    let address = node.address.as_deref().unwrap_or("no known address");
    let state = match (node.connected, node.last_seen_ms, node.outcome.as_str()) {
        (true, ..) => "connected".to_owned(),
        (_, None, "failed") => format!("never reached, {} failures", node.failures),
        (_, None, _) => "never dialed".to_owned(),
        (_, Some(seen), outcome) => {
            let seen = format!("seen {} ago", time_left(now_ms.saturating_sub(seen)));
            match outcome {
                "failed" => format!("{seen}, {} failures", node.failures),
                _ => seen,
            }
        }
    };
    let height = node.height.map(|height| format!("  height {height}"));
    let eras = node.eras.as_ref().map(|eras| {
        let range = |[first, last]: &[u64; 2]| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        format!("  eras {}", eras.iter().map(range).collect::<Vec<_>>().join(","))
    });
    let parts = [height, eras].into_iter().flatten().collect::<String>();
    format!("{}  {address}  {state}{parts}", node.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known_of_a_node() {
        let node = KnownNode {
            id: "P".to_owned(),
            address: Some("A".to_owned()),
            last_seen_ms: None,
            outcome: "untried".to_owned(),
            failures: 0,
            connected: false,
            height: None,
            eras: None,
        };
        let failed = KnownNode { outcome: "failed".to_owned(), failures: 2, ..node.clone() };
        let seen = |node: &KnownNode| KnownNode { last_seen_ms: Some(1_000), ..node.clone() };
        let eras = Some(vec![[0, 3], [5, 5]]);
        for (node, expected) in [
            (node.clone(), "P  A  never dialed"),
            (failed.clone(), "P  A  never reached, 2 failures"),
            (seen(&failed), "P  A  seen 9 s ago, 2 failures"),
            (seen(&node), "P  A  seen 9 s ago"),
            (KnownNode { connected: true, ..seen(&node) }, "P  A  connected"),
            (
                KnownNode { address: None, connected: true, height: Some(7), eras, ..node.clone() },
                "P  no known address  connected  height 7  eras 0-3,5",
            ),
        ] {
            assert_eq!(line(&node, 10_000), expected);
        }
    }
}
