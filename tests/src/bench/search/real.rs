//! Flood queries in a local network of real nodes, counted by their metrics.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ledger::api::{self, SyncStatus};
use ledger::hash::Hash;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use testkit::Testnet;

use super::super::nodes::Programs;
use super::super::options::Search;
use super::super::stop;
use super::{Cost, Row, Way};

/// The metric that counts messages of the flood query.
const SENT: &str = "cairn_flood_sent_total";

/// Links that each node needs: to six peers that it asks, and to the one from which a query came.
const LINKS: u64 = 7;
/// How long the nodes may take to start, and to find each other.
const PATIENCE: Duration = Duration::from_secs(300);
/// Time between two looks at the nodes.
const TICK: Duration = Duration::from_millis(500);

/// Searches for files that nobody has, so each query reaches all nodes and nobody answers.
pub(super) fn measure(nodes: u16, options: &Search) -> anyhow::Result<Row> {
    let program = Programs::find(options.node.as_deref())?.node;
    let builder = Testnet::builder().validators(1).full_nodes(usize::from(nodes) - 1);
    let network = builder.program(&program).patience(PATIENCE).start()?;
    await_links(&network, u64::from(nodes - 1).min(LINKS))?;
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let mut costs = Vec::new();
    for _ in 0..options.searches {
        let asker = random.random_range(0..usize::from(nodes));
        let id = Hash(random.random::<[u8; 32]>());
        let before = sent(&network)?;
        find(&program, &network.description().nodes[asker].home, id)?;
        let after = sent(&network)?;
        let (queries, messages) = (after.0 - before.0, after.1 - before.1);
        costs.push(Cost { queries, messages, ..Cost::default() });
    }
    Ok(Row::of(usize::from(nodes), Way::Flood, true, &costs))
}

/// Waits until each node has this many links.
fn await_links(network: &Testnet, links: u64) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let mut fewest = u64::MAX;
        for node in &network.description().nodes {
            let status: SyncStatus = node
                .client()
                .call(api::SYNC_STATUS, &json!({}))
                .map_err(|error| anyhow::anyhow!("{} does not answer: {error:?}", node.name))?;
            fewest = fewest.min(status.peers.len() as u64);
        }
        if fewest >= links {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "a node has only {fewest} links");
        stop::pause(TICK)?;
    }
}

/// Runs the command `find`. It ends after 3 s, when all messages have arrived.
fn find(program: &Path, home: &Path, id: Hash) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.arg("find").arg("--home").arg(home).args(["--flood", "--json", "--file"]);
    let output = command.arg(id.to_string()).output().context("cairn-node does not start")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "find has failed: {error}");
    let found: Value = serde_json::from_slice(&output.stdout).context("find printed no JSON")?;
    ensure!(found["holders"].as_array().is_some_and(Vec::is_empty), "somebody has it: {found}");
    Ok(())
}

/// Queries and messages that all nodes have sent so far.
fn sent(network: &Testnet) -> anyhow::Result<(u64, u64)> {
    let mut sums = (0, 0);
    for node in &network.description().nodes {
        let text = node.client().get("/metrics").map_err(|error| {
            anyhow::anyhow!("the metrics of {} cannot be read: {error:?}", node.name)
        })?;
        for line in text.lines().filter(|line| line.starts_with(SENT)) {
            let count: u64 = line.rsplit(' ').next().unwrap_or_default().parse()?;
            sums.0 += if line.contains("kind=\"query\"") { count } else { 0 };
            sums.1 += count;
        }
    }
    Ok(sums)
}
