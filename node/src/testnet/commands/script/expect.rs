//! What a script expects to see on the nodes themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::future::join_all;
use ledger::api::{self, AccountInfo, Head};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::step::Expect;
use crate::client::{Client, ClientError};
use crate::testnet::commands::load::{Figures, Next};
use crate::testnet::commands::{CommandError, Target};
use crate::testnet::list::{List, Listed};

/// Time between two looks at the nodes.
const POLL: Duration = Duration::from_millis(50);
/// Longest time for an answer. A node that takes longer counts as silent in this look.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long `expect no-final` waits, once its time is over, for nodes that do not answer.
const SILENT_MAX: Duration = Duration::from_secs(10);
const NO_LOAD: &str = "no load runs, and an idle network makes a block only now and then: start \
                       one with `load 50/s`";

/// Waits until the expectation is met. Returns what was seen.
pub(super) async fn check(expect: Expect, target: &Target) -> anyhow::Result<Value> {
    let mut nodes = Nodes { target, clients: BTreeMap::new() };
    match expect {
        Expect::Final { within } => nodes.await_final(within).await,
        Expect::NoFinal { time } => nodes.see_no_final(time, SILENT_MAX).await,
        Expect::Agree { within } => nodes.agree(within).await,
        Expect::Height { height, within } => nodes.await_height(height, within).await,
    }
}

/// What a look at the nodes has shown.
enum Look {
    Met(Value),
    /// What is missing.
    NotYet(String),
}

/// The nodes of the network.
struct Nodes<'a> {
    target: &'a Target,
    /// By URL.
    clients: BTreeMap<String, Arc<Client>>,
}

impl Nodes<'_> {
    /// Asks each of these nodes, all at the same time.
    async fn ask<T: Send + 'static>(
        &mut self,
        nodes: &[&Listed],
        question: impl Fn(&Client) -> Result<T, ClientError> + Clone + Send + 'static,
    ) -> anyhow::Result<Vec<Result<T, ClientError>>> {
        let mut answers = Vec::new();
        for node in nodes {
            if !self.clients.contains_key(&node.rpc) {
                let client = Arc::new(Client::new(&node.rpc, ANSWER_MAX)?);
                self.clients.insert(node.rpc.clone(), client);
            }
            let client = Arc::clone(&self.clients[&node.rpc]);
            let question = question.clone();
            answers.push(tokio::task::spawn_blocking(move || question(&client)));
        }
        Ok(join_all(answers).await.into_iter().collect::<Result<_, _>>()?)
    }

    /// For each of these nodes, whether a transfer is final there that the load signed after it
    /// reported `next`, the nonces of its next transfers.
    async fn has_final(
        &mut self,
        nodes: &[&Listed],
        next: &[Next],
    ) -> anyhow::Result<Vec<Result<bool, ClientError>>> {
        let next = next.to_vec();
        let look = move |client: &Client| {
            for Next { account, nonce } in &next {
                let params = json!({ "account": account });
                if client.call::<AccountInfo>(api::ACCOUNT_GET, params)?.nonce > *nonce {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        self.ask(nodes, look).await
    }

    async fn await_final(&mut self, within: Duration) -> anyhow::Result<Value> {
        let start = Instant::now();
        let mut load = self.load().await?;
        loop {
            // The last look begins when the time is up.
            let is_last = start.elapsed() >= within;
            if load.next.is_empty() {
                load = self.load().await?;
            }
            let missing = match self.look_for_final(&load).await? {
                Look::Met(seen) => return Ok(seen),
                Look::NotYet(missing) => missing,
            };
            if is_last {
                return Err(not_met(within, &missing));
            }
            pause(start, within).await;
        }
    }

    async fn look_for_final(&mut self, load: &Figures) -> anyhow::Result<Look> {
        let list = self.target.list().await?;
        let reached = reached(&list, &load.rpc);
        if reached.is_empty() {
            return Ok(Look::NotYet("the node of the load is not up".to_owned()));
        }
        if load.next.is_empty() {
            return Ok(Look::NotYet("the load has not reached its node".to_owned()));
        }
        let seen = self.has_final(&reached, &load.next).await?;
        let missing = reached.iter().zip(seen).filter_map(|(node, seen)| match seen {
            Ok(true) => None,
            Ok(false) => Some(node.name.clone()),
            Err(_) => Some(format!("{} (does not answer)", node.name)),
        });
        let missing: Vec<String> = missing.collect();
        if missing.is_empty() {
            return Ok(Look::Met(json!({ "nodes": names(&reached) })));
        }
        Ok(Look::NotYet(format!("no new transfer is final at {}", missing.join(", "))))
    }

    /// Fails as soon as a new transfer of the load is final at some node. Once `time` is over, each
    /// node must answer once more, since a silent node may have made transfers final. Nodes get
    /// `silent_max` for this last answer.
    async fn see_no_final(
        &mut self,
        time: Duration,
        silent_max: Duration,
    ) -> anyhow::Result<Value> {
        let start = Instant::now();
        let (before, mut next) =
            self.load().await.map(|load| (load.sent + load.skipped, load.next))?;
        loop {
            let is_last = start.elapsed() >= time;
            if next.is_empty() {
                next = self.load().await?.next;
            }
            let list = self.target.list().await?;
            let up: Vec<&Listed> = list.nodes.iter().filter(|node| node.is_up()).collect();
            let mut silent = None;
            for (node, seen) in up.iter().zip(self.has_final(&up, &next).await?) {
                match seen {
                    Ok(false) => {}
                    Ok(true) => bail!(CommandError::NotInTime(format!(
                        "a transfer that was submitted after the line began is final at {}, {} ms \
                         after that",
                        node.name,
                        start.elapsed().as_millis()
                    ))),
                    Err(_) => silent = Some(&node.name),
                }
            }
            match silent {
                None if is_last => break,
                Some(node) if start.elapsed() >= time + silent_max => {
                    bail!(CommandError::NotInTime(format!("{node} does not answer")))
                }
                _ => {}
            }
            pause(start, if is_last { time + silent_max } else { time }).await;
        }
        let load = self.load().await?;
        ensure!(!next.is_empty(), "the load did not reach its node, so nothing could become final");
        ensure!(load.sent + load.skipped > before, "the load sent nothing during this time");
        Ok(json!({ "sent": load.sent, "waiting": load.waiting }))
    }

    async fn load(&self) -> anyhow::Result<Figures> {
        Figures::read(self.target).await?.context(NO_LOAD)
    }

    /// Looks until the expectation is met, or the time is up.
    async fn agree(&mut self, within: Duration) -> anyhow::Result<Value> {
        let start = Instant::now();
        loop {
            let is_last = start.elapsed() >= within;
            let missing = match self.compare().await? {
                Look::Met(seen) => return Ok(seen),
                Look::NotYet(missing) => missing,
            };
            if is_last {
                return Err(not_met(within, &missing));
            }
            pause(start, within).await;
        }
    }

    /// Compares the blocks at the lowest height of a node. Different blocks are an error at once,
    /// because final blocks never change.
    async fn compare(&mut self) -> anyhow::Result<Look> {
        let list = self.target.list().await?;
        let up: Vec<&Listed> = list.nodes.iter().filter(|node| node.is_up()).collect();
        let heights = match self.heights(&up).await? {
            Ok(heights) => heights,
            Err(silent) => return Ok(Look::NotYet(format!("{silent} does not answer"))),
        };
        let lowest = match heights.iter().min() {
            None => return Ok(Look::NotYet("no node is up".to_owned())),
            Some(0) => return Ok(Look::NotYet("a node has no block yet".to_owned())),
            Some(lowest) => *lowest,
        };
        let params = json!({ "height": lowest.to_string() });
        let heads = self
            .ask(&up, move |client| client.call::<Head>(api::CHAIN_HEAD, params.clone()))
            .await?;
        let mut found: Vec<(&str, String)> = Vec::new();
        for (node, head) in up.iter().zip(heads) {
            match head {
                Ok(head) => found.push((&node.name, head.header)),
                Err(_) => return Ok(Look::NotYet(format!("{} does not answer", node.name))),
            }
        }
        if let [(first, header), others @ ..] = found.as_slice()
            && let Some((other, _)) = others.iter().find(|(_, other)| other != header)
        {
            bail!(CommandError::NotInTime(format!(
                "{first} and {other} have different blocks at height {lowest}"
            )));
        }
        Ok(Look::Met(json!({ "height": lowest, "nodes": names(&up) })))
    }

    /// The heights of these nodes, or the name of the first one that does not answer.
    async fn heights(&mut self, nodes: &[&Listed]) -> anyhow::Result<Result<Vec<u64>, String>> {
        let answers = self.ask(nodes, Client::status).await?;
        let height = |(node, answer): (&&Listed, Result<api::Status, ClientError>)| {
            answer.map(|status| status.height).map_err(|_| node.name.clone())
        };
        Ok(nodes.iter().zip(answers).map(height).collect())
    }

    async fn await_height(&mut self, height: u64, within: Duration) -> anyhow::Result<Value> {
        let start = Instant::now();
        loop {
            let is_last = start.elapsed() >= within;
            let list = self.target.list().await?;
            let up: Vec<&Listed> = list.nodes.iter().filter(|node| node.is_up()).collect();
            let missing = match self.heights(&up).await? {
                Err(silent) => format!("{silent} does not answer"),
                Ok(heights) => match up.iter().zip(&heights).min_by_key(|(_, height)| **height) {
                    None => "no node is up".to_owned(),
                    Some((_, lowest)) if *lowest >= height => {
                        return Ok(json!({ "height": lowest, "nodes": names(&up) }));
                    }
                    Some((node, lowest)) => format!("{} is at height {lowest}", node.name),
                },
            };
            if is_last {
                return Err(not_met(within, &missing));
            }
            pause(start, within).await;
        }
    }
}

fn not_met(within: Duration, missing: &str) -> anyhow::Error {
    CommandError::NotInTime(format!("not within {within:?}: {missing}")).into()
}

/// Sleeps until the next look. The last look is when the time is up.
async fn pause(start: Instant, time: Duration) {
    sleep(POLL.min(time.saturating_sub(start.elapsed()))).await;
}

fn names(nodes: &[&Listed]) -> Vec<String> {
    nodes.iter().map(|node| node.name.clone()).collect()
}

/// The nodes that the node with this URL reaches, itself included: by way of nodes that are up and
/// links that are not cut. Nodes pass messages on, so a path is enough.
fn reached<'a>(list: &'a List, rpc: &str) -> Vec<&'a Listed> {
    let up: Vec<&Listed> = list.nodes.iter().filter(|node| node.is_up()).collect();
    let is_cut = |a: &Listed, b: &Listed| {
        list.cut.iter().any(|[c, d]| (c, d) == (&a.name, &b.name) || (d, c) == (&a.name, &b.name))
    };
    let mut found: BTreeSet<usize> =
        up.iter().position(|node| node.rpc == rpc).into_iter().collect();
    let mut open: Vec<usize> = found.iter().copied().collect();
    while let Some(from) = open.pop() {
        for to in 0..up.len() {
            if !is_cut(up[from], up[to]) && found.insert(to) {
                open.push(to);
            }
        }
    }
    found.into_iter().map(|index| up[index]).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::super::fake::network;
    use super::*;

    #[tokio::test]
    async fn a_node_that_does_not_answer_may_have_anything_final() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let sent = AtomicU64::new(0);
        let (_folder, target) = network(move |method| {
            Ok(match method {
                "testnet_ls" => json!({
                    "nodes": [{
                        "name": "node1", "validator": true, "state": "running", "height": null,
                        "time": null, "peers": null, "pid": null, "rpc": format!("http://{gone}"),
                        "home": "",
                    }],
                    "cut": [],
                    "latency_ms": [],
                }),
                _ => json!({
                    "sent": sent.fetch_add(1, Ordering::Relaxed), "final": 0, "p50_ms": null,
                    "p99_ms": null, "max_ms": null, "is_sending": true, "per_second": 1,
                    "rpc": "", "skipped": 0, "waiting": 1, "trouble": null,
                    "next": [{ "account": "a", "nonce": 0 }],
                }),
            })
        });
        let mut nodes = Nodes { target: &target, clients: BTreeMap::new() };
        let seen = nodes.see_no_final(Duration::ZERO, Duration::ZERO).await;
        assert_eq!(seen.unwrap_err().to_string(), "node1 does not answer");
    }

    #[test]
    fn a_node_reaches_others_by_links_that_are_not_cut() {
        let list = |states: &[&str], cut: &[[usize; 2]]| {
            let node = |(index, state): (usize, &&str)| Listed {
                name: format!("node{}", index + 1),
                validator: true,
                state: (*state).to_owned(),
                height: None,
                time: None,
                peers: None,
                pid: None,
                rpc: format!("http://{}", index + 1),
                home: std::path::PathBuf::new(),
            };
            let pair = |pair: &[usize; 2]| pair.map(|number| format!("node{number}"));
            List {
                nodes: states.iter().enumerate().map(node).collect(),
                cut: cut.iter().map(pair).collect(),
                latency_ms: Vec::new(),
            }
        };
        let halves = [[1, 3], [1, 4], [2, 3], [2, 4]];
        let up = ["running"; 4];
        for (states, cut, from, expected) in [
            (&up[..], &[][..], 1, &[1, 2, 3, 4][..]),
            (&up, &halves, 1, &[1, 2]),
            (&up, &halves, 4, &[3, 4]),
            // A node that the partition does not name passes messages on.
            (&["running"; 5], &halves, 1, &[1, 2, 3, 4, 5]),
            (&["running", "running", "running", "running", "killed"], &halves, 1, &[1, 2]),
            (&["running", "starting", "ended", "running"], &[], 1, &[1, 2, 4]),
            (&["killed", "running", "running", "running"], &[], 1, &[]),
        ] {
            let list = list(states, cut);
            let found = names(&reached(&list, &format!("http://{from}")));
            let expected: Vec<String> =
                expected.iter().map(|number| format!("node{number}")).collect();
            assert_eq!(found, expected, "{states:?} {cut:?} {from}");
        }
    }
}
