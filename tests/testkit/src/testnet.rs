//! A local network of real nodes that lives as long as its value.

use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ledger::api::BlockInfo;
use ledger::chain::Chain;
use ledger::genesis::template_key;
use ledger::signature::SigningKey;
use serde_json::Value;
use tempfile::TempDir;

use crate::account::{Account, Seen};
use crate::control::{Control, Listing, NodeState};
use crate::description::{Description, NodeInfo};
use crate::error::Error;
use crate::process::{Process, is_gone, show_tail};
use crate::rpc::Rpc;
use crate::wait::poll;

/// Longest time that a network may take to stop before it is killed. The network itself kills nodes
/// that are slow to stop, after a shorter time.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(120);
/// How often the list of running nodes is read again during a wait.
const LIST_AGAIN: Duration = Duration::from_secs(2);

/// A running local network: real nodes on loopback, on ports of their own.
///
/// All processes end when the value is dropped, also after a panic, and also when the test's own
/// process is killed: the parent of the nodes ends when its stdin does, and so does each node. A
/// test that is killed with `-9` leaves only files in the folder for temporary files.
///
/// All methods take `&self`: threads may pay while another one cuts links. The names of nodes are
/// `node1`, `node2` and so on, validators first.
pub struct Testnet {
    process: Mutex<Process>,
    pub(crate) control: Control,
    description: Description,
    chain: Arc<Chain>,
    seen: Arc<Seen>,
    pub(crate) patience: Duration,
    // Removed after the processes have ended.
    _folder: Option<TempDir>,
}

impl Testnet {
    pub(crate) fn new(
        process: Process,
        control: Control,
        description: Description,
        chain: Arc<Chain>,
        patience: Duration,
        folder: Option<TempDir>,
    ) -> Self {
        Self {
            process: Mutex::new(process),
            control,
            description,
            chain,
            seen: Arc::default(),
            patience,
            _folder: folder,
        }
    }

    /// What the network consisted of when it started.
    #[must_use]
    pub const fn description(&self) -> &Description {
        &self.description
    }

    /// The chain, with its genesis.
    #[must_use]
    pub const fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    /// The network's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.control.dir
    }

    /// The log of the nodes' parent.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.control.log
    }

    /// Process id of the nodes' parent.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process().id()
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All nodes and cut links, as `testnet ls` tells them.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn list(&self) -> Result<Listing, Error> {
        self.control.read(&["ls"], self.patience)
    }

    /// A client of a node's RPC.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such node; [`Error::Command`].
    pub fn rpc(&self, node: &str) -> Result<Rpc, Error> {
        // The nodes that the network started with are known without asking it.
        if let Some(node) = self.description.node(node) {
            return Ok(node.client());
        }
        let list = self.list()?;
        let found = list.node(node).map(|node| Rpc::new(&node.rpc));
        found.ok_or_else(|| {
            let names: Vec<&str> = list.nodes.iter().map(|node| node.name.as_str()).collect();
            Error::Input(format!("there is no node {node:?}, only {}", names.join(", ")))
        })
    }

    /// Waits until each running node has reached this height. A node whose links are cut counts as
    /// running and gets no blocks, so this would wait in vain: see [`Self::await_height_of`].
    ///
    /// # Errors
    /// [`Error::NotInTime`], [`Error::Ended`], [`Error::Command`].
    pub fn await_height(&self, height: u64) -> Result<&Self, Error> {
        self.await_nodes(&format!("each running node reaches height {height}"), |at| at >= height)
    }

    /// Waits until each running node is this many blocks beyond the node that is highest now. A
    /// node whose links are cut counts as running and gets no blocks, so this would wait in vain.
    ///
    /// # Errors
    /// [`Error::NotInTime`], [`Error::Ended`], [`Error::Command`].
    pub fn await_blocks(&self, count: u64) -> Result<&Self, Error> {
        let heights = self.running()?.into_iter().filter_map(|(_, rpc)| rpc.status().ok());
        let highest = heights.map(|status| status.height).max().unwrap_or(0);
        self.await_height(highest + count)
    }

    /// Waits until one node has reached this height.
    ///
    /// # Errors
    /// [`Error::Input`], [`Error::NotInTime`], [`Error::Ended`], [`Error::Command`].
    pub fn await_height_of(&self, node: &str, height: u64) -> Result<&Self, Error> {
        let rpc = self.rpc(node)?;
        self.await_event(&format!("{node} reaches height {height}"), || {
            let at = rpc.status().map(|status| status.height);
            let text = at.as_ref().map_or_else(ToString::to_string, |at| format!("height {at}"));
            Ok(if at.is_ok_and(|at| at >= height) {
                Progress::Done(())
            } else {
                Progress::At(text)
            })
        })?;
        Ok(self)
    }

    fn await_nodes(&self, what: &str, is_enough: impl Fn(u64) -> bool) -> Result<&Self, Error> {
        let (mut nodes, mut read) = (self.running()?, Instant::now());
        self.await_event(what, || {
            if read.elapsed() >= LIST_AGAIN {
                (nodes, read) = (self.running()?, Instant::now());
            }
            let heights: Vec<(&str, Option<u64>)> = nodes
                .iter()
                .map(|(name, rpc)| (name.as_str(), rpc.status().ok().map(|status| status.height)))
                .collect();
            if !heights.is_empty() && heights.iter().all(|(_, at)| at.is_some_and(&is_enough)) {
                return Ok(Progress::Done(()));
            }
            let text = |(name, at): &(&str, Option<u64>)| match at {
                Some(at) => format!("{name} at {at}"),
                None => format!("{name} does not answer"),
            };
            Ok(Progress::At(heights.iter().map(text).collect::<Vec<_>>().join(", ")))
        })?;
        Ok(self)
    }

    /// Waits until each running node has a final block that was made after this call began.
    ///
    /// # Errors
    /// [`Error::NotInTime`] after this time, [`Error::Command`].
    pub fn await_final(&self, within: Duration) -> Result<&Self, Error> {
        let timeout = format!("{}ms", within.as_millis());
        self.control.run(&["wait", "--final", "--timeout", &timeout], within + self.patience)?;
        Ok(self)
    }

    fn running(&self) -> Result<Vec<(String, Rpc)>, Error> {
        let up = |node: &NodeState| node.state.is_up();
        let nodes = self.list()?.nodes;
        Ok(nodes
            .iter()
            .filter(|node| up(node))
            .map(|n| (n.name.clone(), Rpc::new(&n.rpc)))
            .collect())
    }

    /// Polls until an event comes, the time is over or the network has ended.
    fn await_event<T>(
        &self,
        what: &str,
        mut look: impl FnMut() -> Result<Progress<T>, Error>,
    ) -> Result<T, Error> {
        let mut last = String::new();
        let found = poll(self.patience, || match look() {
            Ok(Progress::Done(found)) => Some(Ok(found)),
            Err(error) => Some(Err(error)),
            Ok(Progress::At(text)) => {
                last = text;
                let status = self.process().ended()?;
                Some(Err(Error::Ended {
                    status: status.to_string(),
                    waited_for: what.to_owned(),
                    logs: self.control.logs(),
                }))
            }
        });
        found.unwrap_or_else(|| Err(self.control.not_in_time(what, self.patience, &last)))
    }

    /// Checks that all running nodes have the same block at the height of the lowest one, and so
    /// the same history up to there. Returns that height.
    ///
    /// # Errors
    /// [`Error::Disagreement`]; [`Error::Call`] for a node that does not answer;
    /// [`Error::Command`].
    pub fn agree(&self) -> Result<u64, Error> {
        let nodes = self.running()?;
        let mut lowest = u64::MAX;
        for (_, rpc) in &nodes {
            let status = rpc.status().map_err(Error::call(rpc.url(), "chain_status"))?;
            lowest = lowest.min(status.height);
        }
        // Before the first block there is nothing to compare but the chain, which nodes share.
        if nodes.is_empty() || lowest == 0 {
            return Ok(0);
        }
        let mut first: Option<(&str, BlockInfo)> = None;
        for (name, rpc) in &nodes {
            let block = rpc.block(lowest).map_err(Error::call(rpc.url(), "chain_block"))?;
            match &first {
                None => first = Some((name, block)),
                Some((_, one)) if one.summary.hash == block.summary.hash => {}
                Some((other, one)) => {
                    return Err(Error::Disagreement {
                        height: lowest,
                        what: format!(
                            "{other} has block {}, {name} has block {}",
                            one.summary.hash, block.summary.hash
                        ),
                        logs: self.control.logs(),
                    });
                }
            }
        }
        Ok(lowest)
    }

    /// Runs a command of `cairn-node testnet` on this network, and returns its JSON.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn command(&self, words: &[&str]) -> Result<Value, Error> {
        self.control.run(words, self.patience)
    }

    pub(crate) fn tell(&self, words: &[&str]) -> Result<&Self, Error> {
        self.control.run(words, self.patience)?;
        Ok(self)
    }

    /// One of the genesis accounts whose secret keys everybody knows: alice, bob, carol or dave. It
    /// pays through the first node.
    ///
    /// # Errors
    /// [`Error::Input`] for another name.
    pub fn account(&self, name: &str) -> Result<Account, Error> {
        self.account_at(name, &self.first()?.name)
    }

    /// Like [`Self::account`], but the account pays through this node.
    ///
    /// # Errors
    /// [`Error::Input`] for another name or node.
    pub fn account_at(&self, name: &str, node: &str) -> Result<Account, Error> {
        let key = template_key(name).ok_or_else(|| {
            let names = ledger::genesis::TEMPLATE_ACCOUNTS.join(", ");
            Error::Input(format!("there is no account {name:?} with a public key, only {names}"))
        })?;
        self.account_with(key, node)
    }

    /// The account of a key, which pays through this node. The account need not exist yet.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such node.
    pub fn account_with(&self, key: SigningKey, node: &str) -> Result<Account, Error> {
        let (chain, seen) = (self.chain.clone(), self.seen.clone());
        Ok(Account::new(key, chain, self.rpc(node)?, seen, self.patience))
    }

    /// Process ids of the nodes that run now. After a restart they differ from those at the start.
    fn pids(&self) -> Vec<u32> {
        let file = std::fs::read(self.control.description()).unwrap_or_default();
        let now: Value = serde_json::from_slice(&file).unwrap_or_default();
        let rows = now["nodes"].as_array().cloned().unwrap_or_default();
        rows.iter().filter_map(|row| u32::try_from(row["pid"].as_u64()?).ok()).collect()
    }

    fn first(&self) -> Result<&NodeInfo, Error> {
        let first = self.description.nodes.first();
        first.ok_or_else(|| Error::Input("the network has no node".to_owned()))
    }

    /// Stops the network, and waits until all its processes have ended. Dropping does the same;
    /// this also tells how the parent ended.
    ///
    /// # Errors
    /// [`Error::NotInTime`] for a network that had to be killed.
    pub fn stop(self) -> Result<ExitStatus, Error> {
        self.process().end_stdin();
        let ended = self.process().wait_for(STOP_MAX);
        ended.ok_or_else(|| self.control.not_in_time("the network stops", STOP_MAX, "it runs"))
    }

    /// Kills the nodes' parent (kill -9) and waits until it is gone. The nodes then end by
    /// themselves.
    pub fn kill_parent(&self) {
        let mut process = self.process();
        process.kill();
        process.wait();
    }

    /// Waits until the nodes' parent has ended by itself.
    ///
    /// # Errors
    /// [`Error::NotInTime`].
    pub fn await_end(&self) -> Result<ExitStatus, Error> {
        let ended = self.process().wait_for(self.patience);
        ended.ok_or_else(|| self.control.not_in_time("the network ends", self.patience, "it runs"))
    }
}

/// What one look at an awaited event found.
enum Progress<T> {
    Done(T),
    /// It has not come yet. The text says what was seen instead.
    At(String),
}

impl Drop for Testnet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.control.log_paths().iter().for_each(|log| show_tail(log));
        }
        let pids = self.pids();
        let mut process = self.process();
        process.end_stdin();
        if process.wait_for(STOP_MAX).is_some_and(|status| status.success()) {
            return;
        }
        process.kill();
        process.wait_for(STOP_MAX);
        // A parent that ends in order has waited for its nodes. One that was killed has not.
        poll(STOP_MAX, || pids.iter().all(|pid| is_gone(*pid) != Some(false)).then_some(()));
    }
}
