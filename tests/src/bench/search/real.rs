//! The same searches in a local network of real nodes, all of which know each other. What they ask
//! is counted by their metrics.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ledger::api::{self, SyncStatus};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use testkit::{NodeInfo, Testnet};

use super::super::nodes::Programs;
use super::super::options::Search;
use super::super::stop;
use super::{Cost, Row, Way, some_of};

/// Messages of the flood query that a node has sent.
const FLOOD: &str = "cairn_flood_sent_total";
/// The flood queries among them.
const FLOOD_QUERIES: &str = r#"cairn_flood_sent_total{kind="query"}"#;
/// Requests of look-ups in the index that a node has received.
const LOOK_UPS: &str = r#"libp2p_kad_inbound_requests_total{request="GetProvider"}"#;

/// Bytes of each file.
const FILE_BYTES: usize = 1_000;
/// How long the nodes may take to start, to find each other, and to store all records.
const PATIENCE: Duration = Duration::from_secs(300);
/// Time between two looks at the nodes.
const TICK: Duration = Duration::from_millis(500);
/// Time between two blocks. The less the chain does, the less it disturbs.
const BLOCK_INTERVAL: Duration = Duration::from_secs(60);

/// A file, the nodes that have it, and the node that searches it.
struct Object {
    id: String,
    holders: Vec<usize>,
    asker: usize,
}

struct Nodes<'a> {
    program: &'a Path,
    /// The first one is a validator, which shares no files. It neither has nor searches anything.
    all: &'a [NodeInfo],
}

/// Both ways in one network, for the same files.
pub(super) fn measure(nodes: u16, options: &Search) -> anyhow::Result<[Row; 2]> {
    let program = Programs::find(options.node.as_deref())?.node;
    let builder = Testnet::builder().validators(1).full_nodes(usize::from(nodes) - 1);
    let builder = builder.empty_block_interval(BLOCK_INTERVAL).program(&program);
    let network = builder.patience(PATIENCE).start()?;
    let count = usize::from(nodes);
    let nodes = Nodes { program: &program, all: &network.description().nodes };
    nodes.await_links()?;
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let mut objects = Vec::new();
    for _ in 0..options.searches {
        let asker = random.random_range(1..count);
        let most = usize::from(options.holders).min(count - 2);
        let holders = some_of(most, &mut random, |random| {
            Some(random.random_range(1..count)).filter(|holder| *holder != asker)
        });
        let bytes: [u8; FILE_BYTES] = random.random();
        let id = nodes.share(&network.dir().join("shared"), &bytes, &holders)?;
        objects.push(Object { id, holders, asker });
    }
    objects.iter().try_for_each(|object| nodes.await_records(object))?;
    let mut rows = Vec::new();
    for way in [Way::Flood, Way::Index] {
        let costs: Vec<Cost> = objects
            .iter()
            .map(|object| nodes.search(object, way))
            .collect::<anyhow::Result<_>>()?;
        rows.push(Row::of(count, way, true, &costs));
    }
    rows.try_into().map_err(|_| anyhow::anyhow!("there are two ways"))
}

impl Nodes<'_> {
    /// Waits until each node has a link to all others.
    fn await_links(&self) -> anyhow::Result<()> {
        let (start, links) = (Instant::now(), self.all.len() - 1);
        loop {
            let mut fewest = usize::MAX;
            for node in self.all {
                let status: SyncStatus = node
                    .client()
                    .call(api::SYNC_STATUS, &json!({}))
                    .map_err(|error| anyhow::anyhow!("{} is silent: {error:?}", node.name))?;
                fewest = fewest.min(status.peers.len());
            }
            if fewest >= links {
                return Ok(());
            }
            ensure!(start.elapsed() < PATIENCE, "a node has {fewest} links, not {links}");
            stop::pause(TICK)?;
        }
    }

    /// Has these nodes share the same file. Returns its id, or another one if nobody shares it.
    fn share(&self, file: &Path, bytes: &[u8], holders: &[usize]) -> anyhow::Result<String> {
        let mut id = ledger::hash::Hash::ZERO.to_string();
        for holder in holders {
            let folder = file.join(holder.to_string());
            fs::create_dir_all(&folder)?;
            // A shared file must stay as it is, so each has a name of its own.
            let path = folder.join(fs::read_dir(&folder)?.count().to_string());
            fs::write(&path, bytes)?;
            let path = path.to_str().context("the path is not UTF-8")?;
            let shared = self.run(*holder, &["share", path])?;
            id = shared["id"].as_str().context("`share` prints an id")?.to_owned();
        }
        Ok(id)
    }

    /// Waits until the index knows all holders of a file.
    fn await_records(&self, object: &Object) -> anyhow::Result<()> {
        let start = Instant::now();
        while self.find(0, object, Way::Index)?.0.len() < object.holders.len() {
            ensure!(start.elapsed() < PATIENCE, "{} has no records", object.id);
            stop::pause(TICK)?;
        }
        Ok(())
    }

    /// The holders that a search finds, and all that `find` prints.
    fn find(&self, asker: usize, object: &Object, way: Way) -> anyhow::Result<(Vec<usize>, Value)> {
        let mut words = vec!["find", "--file", &object.id];
        words.extend((way == Way::Flood).then_some("--flood"));
        let found = self.run(asker, &words)?;
        let holders = found["holders"].as_array().context("`find` prints holders")?;
        let number = |holder: &Value| {
            let peer = holder["peer"].as_str()?;
            self.all.iter().position(|node| node.p2p.ends_with(peer))
        };
        let holders: Vec<usize> = holders.iter().filter_map(number).collect();
        let are_holders = holders.iter().all(|holder| object.holders.contains(holder));
        ensure!(are_holders, "{holders:?} do not all have {}", object.id);
        Ok((holders, found))
    }

    fn search(&self, object: &Object, way: Way) -> anyhow::Result<Cost> {
        stop::check()?;
        let before = self.counts()?;
        let (holders, answer) = self.find(object.asker, object, way)?;
        let after = self.counts()?;
        let [flood, flood_queries, look_ups] = [0, 1, 2].map(|at| after[at] - before[at]);
        let (queries, messages) = match way {
            Way::Flood => (flood_queries, flood),
            // Of a look-up only the asker sends and receives.
            Way::Index => {
                (look_ups, answer["messages"].as_u64().context("`find` counts messages")?)
            }
        };
        let first = answer["ms"].as_u64().context("`find` tells a time")?;
        let first = (!holders.is_empty()).then(|| Duration::from_millis(first));
        let hops = answer["hops"].as_u64();
        Ok(Cost { queries, messages, first, hops, found: holders.len() as u64 })
    }

    /// Runs a command of a node, and reads the JSON that it prints.
    fn run(&self, node: usize, words: &[&str]) -> anyhow::Result<Value> {
        let mut command = Command::new(self.program);
        command.args(words).arg("--json").arg("--home").arg(&self.all[node].home);
        let output = command.output().context("cairn-node does not start")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{words:?} has failed: {error}");
        serde_json::from_slice(&output.stdout).with_context(|| format!("{words:?} prints no JSON"))
    }

    /// [`FLOOD`], [`FLOOD_QUERIES`] and [`LOOK_UPS`] of all nodes together.
    fn counts(&self) -> anyhow::Result<[u64; 3]> {
        let mut sums = [0; 3];
        for node in self.all {
            let text = node.client().get("/metrics").map_err(|error| {
                anyhow::anyhow!("the metrics of {} cannot be read: {error:?}", node.name)
            })?;
            for (sum, name) in sums.iter_mut().zip([FLOOD, FLOOD_QUERIES, LOOK_UPS]) {
                *sum += sum_of(&text, name);
            }
        }
        Ok(sums)
    }
}

/// The sum of the metrics in this text that begin with this name.
fn sum_of(text: &str, name: &str) -> u64 {
    let values = text.lines().filter(|line| line.starts_with(name));
    values.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_all_labels_are_added() {
        let text = "# HELP cairn_flood_sent Messages.\n\
                    cairn_flood_sent_total{kind=\"query\"} 60\n\
                    cairn_flood_sent_total{kind=\"hit\"} 4\n\
                    libp2p_kad_inbound_requests_total{request=\"FindNode\"} 900\n\
                    libp2p_kad_inbound_requests_total{request=\"GetProvider\"} 9\n";
        let sums = [FLOOD, FLOOD_QUERIES, LOOK_UPS].map(|name| sum_of(text, name));
        assert_eq!(sums, [64, 60, 9]);
    }
}
