//! What a screen shows of the network, published a few times a second.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ledger::address::{Coin, encode_address};
use ledger::api::{self, AccountInfo};
use ledger::genesis::Genesis;
use ledger::units::Amount;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::super::children::Child;
use super::super::faults::Faults;
use super::super::layout::{Layout, Node};
use super::super::overview::{AccountView, LoadView, LogLine, NodeView, Overview};
use super::super::plan::NODE_LOG;
use super::super::tail::Tail;
use super::blocks::{Blocks, Seen, follow};
use super::member::Member;
use crate::client::Client;
use crate::clock::wall_ms;
use crate::home::Home;

/// Most lines of the logs that are kept.
const LOG_LINES_MAX: usize = 1_000;
/// Most notes that are kept.
const NOTES_MAX: usize = 32;
/// Most blocks that wait to be shown. Beyond it, the tasks that follow the nodes wait.
const SEEN_MAX: usize = 256;
/// Time between two polls of the accounts.
const ACCOUNTS_POLL: Duration = Duration::from_secs(1);
/// Longest time that a node may take to tell a balance.
const ACCOUNTS_TIMEOUT: Duration = Duration::from_secs(2);
/// Most accounts that are shown.
const ACCOUNTS_MAX: usize = 8;

/// All that is remembered for the screen.
pub(super) struct View {
    overview: watch::Sender<Arc<Overview>>,
    chain: String,
    blocks: Blocks,
    seen: mpsc::Receiver<Seen>,
    sender: mpsc::Sender<Seen>,
    /// The node of each validator's key.
    names: BTreeMap<String, String>,
    accounts: watch::Receiver<Vec<AccountView>>,
    /// The RPC of the nodes that run.
    sources: watch::Sender<Vec<String>>,
    tails: Vec<Tail>,
    log: VecDeque<LogLine>,
    notes: VecDeque<String>,
}

impl View {
    pub(super) fn new(layout: &Layout) -> anyhow::Result<Self> {
        let (sender, seen) = mpsc::channel(SEEN_MAX);
        let (sources, asked) = watch::channel(Vec::new());
        let mut names = BTreeMap::new();
        for node in layout.nodes.iter().filter(|node| node.validator) {
            if let Some(key) = Home::open(&node.home)?.validator_key()? {
                names.insert(key.public().to_string(), node.name.clone());
            }
        }
        Ok(Self {
            overview: watch::channel(Arc::new(Overview::default())).0,
            chain: layout.genesis.chain_id().to_string(),
            blocks: Blocks::default(),
            seen,
            sender,
            names,
            accounts: poll_accounts(&layout.genesis, asked),
            sources,
            tails: Vec::new(),
            log: VecDeque::new(),
            notes: VecDeque::new(),
        })
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Overview>> {
        self.overview.subscribe()
    }

    /// Shows a further node. Its earlier log is not shown.
    pub(super) fn add(&mut self, node: &Node) {
        let path = node.home.join(NODE_LOG);
        let length = std::fs::metadata(&path).map_or(0, |found| found.len());
        self.tails.push(Tail::from(path, length));
        follow(node, self.sources.subscribe(), self.sender.clone());
    }

    pub(super) fn note(&mut self, text: &str) {
        self.notes.push_back(text.to_owned());
        let excess = self.notes.len().saturating_sub(NOTES_MAX);
        self.notes.drain(..excess);
    }

    /// Publishes how the network is.
    pub(super) fn publish(
        &mut self,
        uptime: Duration,
        members: &[Member],
        faults: &Faults,
        load: Option<LoadView>,
    ) {
        while let Ok(seen) = self.seen.try_recv() {
            self.blocks.add(&seen, &self.names);
        }
        for (node, tail) in self.tails.iter_mut().enumerate() {
            // A log that cannot be read is not shown.
            for text in tail.read().unwrap_or_default() {
                self.log.push_back(LogLine { node, text });
            }
        }
        let excess = self.log.len().saturating_sub(LOG_LINES_MAX);
        self.log.drain(..excess);
        let up = members.iter().filter(|member| member.is_up());
        self.sources.send_replace(up.map(|member| member.node.rpc_url()).collect());
        let overview = Overview {
            chain: self.chain.clone(),
            uptime,
            nodes: members.iter().map(|member| node_view(member, members)).collect(),
            cut: faults.cuts(members.len()),
            latency: faults.latencies(members.len()),
            accounts: self.accounts.borrow().clone(),
            blocks: self.blocks.last.clone(),
            load,
            rate: self.blocks.rate(wall_ms()),
            log: self.log.clone(),
            notes: self.notes.clone(),
        };
        self.overview.send_replace(Arc::new(overview));
    }
}

fn node_view(member: &Member, members: &[Member]) -> NodeView {
    let report = member.report.borrow();
    let is_current = member.is_up() && report.since(member.started).is_some();
    let position = |id: &String| members.iter().position(|other| other.node.peer_id == *id);
    let pid = member.child.as_ref().map(Child::pid);
    NodeView {
        name: member.node.name.clone(),
        validator: member.node.validator,
        state: member.state,
        pid,
        rpc: member.node.rpc_url(),
        peer_id: member.node.peer_id.clone(),
        status: report.status.clone().filter(|_| is_current),
        sync: report.sync.clone().filter(|_| is_current),
        peers: match is_current {
            true => report.peers.iter().filter_map(position).collect(),
            false => Vec::new(),
        },
        memory_bytes: pid.and_then(resident_bytes),
    }
}

/// Memory that a process has in use. `None` on systems without `/proc`.
fn resident_bytes(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(u64::try_from(rustix::param::page_size()).ok()?))
}

/// Asks the nodes, until one tells, for the balances of the accounts that are shown. Ends when the
/// receiver is dropped.
fn poll_accounts(
    genesis: &Genesis,
    sources: watch::Receiver<Vec<String>>,
) -> watch::Receiver<Vec<AccountView>> {
    let coin = genesis.coin.clone();
    let shown = genesis.accounts.iter().take(ACCOUNTS_MAX);
    let first: Vec<AccountView> = shown
        .map(|entry| AccountView {
            name: entry.name.clone(),
            address: encode_address(&genesis.address_prefix, &entry.account),
            balance: coin.format(entry.balance),
        })
        .collect();
    let (sender, receiver) = watch::channel(first);
    tokio::spawn(async move {
        while !sender.is_closed() {
            let (urls, coin) = (sources.borrow().clone(), coin.clone());
            let accounts = sender.borrow().clone();
            let asked = move || urls.iter().find_map(|url| ask(url, &coin, &accounts));
            if let Ok(Some(accounts)) = tokio::task::spawn_blocking(asked).await {
                sender.send_replace(accounts);
            }
            sleep(ACCOUNTS_POLL).await;
        }
    });
    receiver
}

fn ask(url: &str, coin: &Coin, accounts: &[AccountView]) -> Option<Vec<AccountView>> {
    let client = Client::new(url, ACCOUNTS_TIMEOUT).ok()?;
    let ask = |account: &AccountView| {
        let params = json!({ "account": account.address });
        let info: AccountInfo = client.call(api::ACCOUNT_GET, params).ok()?;
        Some(AccountView { balance: coin.format(Amount(info.balance)), ..account.clone() })
    };
    accounts.iter().map(ask).collect()
}
