//! `testnet`: a network of real nodes on this machine. Each node is a process. The keys of its
//! funded accounts are public.

mod children;
mod configs;
mod homes;
mod layout;
mod plan;
mod ports;
mod progress;
mod summary;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use ledger::genesis::Genesis;
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep};

use crate::client::Client;
use crate::home::{lock_dir, read_genesis};
use crate::output::print;
use crate::screen::{is_drawable, say};
use crate::signals::StopSignals;
use children::{Child, Ended};
use layout::Layout;
use plan::{NODES_MAX, Wanted};
use progress::Progress;

/// The template of local networks: limits and accounts. Its validator is replaced.
const TEMPLATE: &str = include_str!("../../../genesis.json");
/// Longest time until all nodes answer: on a busy machine, opening a chain takes a while.
const START_MAX: Duration = Duration::from_secs(120);
/// Longest time that a node may take to stop before it is killed.
const STOP_MAX: Duration = Duration::from_secs(5);
/// Time between two polls of a node.
const POLL: Duration = Duration::from_millis(200);
/// Longest time that a node may take to answer a poll.
const POLL_TIMEOUT: Duration = Duration::from_secs(2);

/// Command line of `testnet`.
#[derive(Debug, Args)]
pub(crate) struct Testnet {
    /// Validators; 4 in a new network
    #[arg(long, env = "CAIRN_NODE_TESTNET_NODES", value_name = "COUNT",
          value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    nodes: Option<u16>,
    /// Full nodes, which follow the chain and do not sign; 0 in a new network
    #[arg(long, env = "CAIRN_NODE_TESTNET_FULL_NODES", value_name = "COUNT",
          value_parser = clap::value_parser!(u16).range(0..=i64::from(NODES_MAX)))]
    full_nodes: Option<u16>,
    /// Directory of the network; an existing network is resumed
    #[arg(
        long,
        env = "CAIRN_NODE_TESTNET_DIR",
        value_name = "DIR",
        default_value = ".cairn-testnet"
    )]
    dir: PathBuf,
    /// First port: node1 listens for peers on this port and for RPC on the next one, and the ports
    /// of each further node are 10 higher; 7700 in a new network
    #[arg(long, env = "CAIRN_NODE_TESTNET_BASE_PORT", value_name = "PORT")]
    base_port: Option<u16>,
    /// Take accounts and limits of a new network from this genesis
    #[arg(long, env = "CAIRN_NODE_TESTNET_GENESIS", value_name = "FILE")]
    genesis: Option<PathBuf>,
    /// Remove the network in the directory, with all keys in its wallet home, and start a new one
    #[arg(long)]
    reset: bool,
    /// Print plain lines instead of redrawing the screen
    #[arg(long)]
    plain: bool,
}

impl Testnet {
    pub(crate) fn execute(self, log: Option<String>) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("tokio cannot start")?;
        let result = runtime.block_on(self.run(log));
        // A poll may still wait for its answer, which is no longer needed.
        runtime.shutdown_background();
        result
    }

    async fn run(self, log: Option<String>) -> anyhow::Result<()> {
        // This precedes the first child, so that no signal is missed.
        let mut stop = StopSignals::listen()?;
        let template = match &self.genesis {
            Some(file) => Some(read_genesis(file)?),
            None => None,
        };
        let embedded =
            Genesis::from_json(TEMPLATE.as_bytes()).context("the template in this program")?;
        let dir = std::path::absolute(&self.dir).with_context(|| self.dir.display().to_string())?;
        layout::refuse_foreign(&dir)?;
        crate::files::create_private_dir(&dir).with_context(|| dir.display().to_string())?;
        let _lock = lock_dir(&dir)?;
        layout::remove_stale(&dir)?;
        layout::await_free(&dir, STOP_MAX)?;
        let wanted =
            Wanted { nodes: self.nodes, full_nodes: self.full_nodes, base_port: self.base_port };
        let layout = Layout::prepare(&dir, &wanted, template.as_ref(), &embedded, self.reset)?;

        let mut children = Vec::new();
        for node in &layout.nodes {
            children.push(Child::spawn(node, log.as_deref())?);
        }
        let result = self.watch(&layout, &mut children, &mut stop).await;
        layout::remove_stale(&dir)?;
        for name in children::stop(children, STOP_MAX).await {
            say(&format!("{name} did not stop within {} s and was killed", STOP_MAX.as_secs()));
        }
        result
    }

    /// Waits until all nodes answer, prints how to use them, and shows their progress until the
    /// end.
    async fn watch(
        &self,
        layout: &Layout,
        children: &mut [Child],
        stop: &mut StopSignals,
    ) -> anyhow::Result<()> {
        let heights = poll(layout)?;
        tokio::select! {
            _ = stop.next() => return Ok(()),
            ended = children::first_end(children) => bail!("{}", ended.report(children)),
            started = all_answer(heights.clone()) => started?,
        }
        let pids: Vec<u32> = children.iter().map(Child::pid).collect();
        summary::write(layout, &pids)?;
        // The reader of stdout may have gone. The network goes on.
        let _lost = print(&summary::text(layout));

        let screen =
            !self.plain && is_drawable(&std::io::stdout()) && is_drawable(&std::io::stderr());
        let mut progress = Progress::new(screen);
        let mut tick = interval(POLL);
        loop {
            tokio::select! {
                _ = stop.next() => break,
                ended = children::first_end(children) => {
                    progress.note(&ended.report(children));
                    ensure!(children.iter().any(Child::is_running), "all nodes have ended");
                }
                _ = tick.tick() => {
                    let heights: Vec<Option<u64>> =
                        heights.iter().map(|height| *height.borrow()).collect();
                    progress.show(&heights, Instant::now());
                }
            }
        }
        progress.note("stopping");
        Ok(())
    }
}

impl Ended {
    fn report(&self, children: &[Child]) -> String {
        children.get(self.index).map(|child| child.epitaph(self)).unwrap_or_default()
    }
}

/// Height of one node; `None` while it does not answer.
type HeightWatch = watch::Receiver<Option<u64>>;

/// Polls the status of each node. Each node has its own task, so that a slow one delays no other.
fn poll(layout: &Layout) -> anyhow::Result<Vec<HeightWatch>> {
    let chain_id = layout.genesis.chain_id().to_string();
    let mut watches = Vec::new();
    for node in &layout.nodes {
        let (sender, receiver) = watch::channel(None);
        let client = std::sync::Arc::new(Client::new(&node.rpc_url(), POLL_TIMEOUT)?);
        let chain_id = chain_id.clone();
        tokio::spawn(async move {
            while !sender.is_closed() {
                let client = client.clone();
                let answer = tokio::task::spawn_blocking(move || client.status()).await;
                let status =
                    answer.ok().and_then(Result::ok).filter(|status| status.chain_id == chain_id);
                sender.send_replace(status.map(|status| status.height));
                sleep(POLL).await;
            }
        });
        watches.push(receiver);
    }
    Ok(watches)
}

async fn all_answer(mut heights: Vec<HeightWatch>) -> anyhow::Result<()> {
    let all = async {
        for height in &mut heights {
            height.wait_for(Option::is_some).await.context("a poll ended")?;
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(START_MAX, all).await {
        Ok(result) => result,
        Err(_) => bail!("not all nodes answer after {} s; see their node.log", START_MAX.as_secs()),
    }
}
