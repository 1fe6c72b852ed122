//! A local network on disk: a home for each node and one for the wallet, the genesis, and a marker
//! which says that the directory is ours.

use std::net::SocketAddr;
#[cfg(unix)]
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context, bail, ensure};
use ledger::genesis::Genesis;

use super::homes::{address, create, loopback, node_keys};
use super::plan::{FORMAT, GENESIS, LOG, MARKER, NETWORK, NODES_MAX, Plan, WALLET, Wanted, remove};
use super::ports::{self, BasePort, Held};
use super::{configs, homes};
use crate::config::{P2P_PORT, P2pAddress};
#[cfg(unix)]
use crate::files::own_uid;
use crate::files::{names_in, remove_all};
use crate::home::{Home, HomeError, lock_dir, read_genesis};
use crate::screen::say;

/// How long a node that an earlier run left behind may run on before a user is told.
const LEFT_MAX: Duration = Duration::from_secs(2);

/// A network that is ready to start.
pub(super) struct Layout {
    pub(super) dir: PathBuf,
    pub(super) genesis: Genesis,
    /// Validators first.
    pub(super) nodes: Vec<Node>,
    /// Ports that are kept for nodes until they start.
    pub(super) held: Held,
    plan: Plan,
}

/// One node of the network.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) home: PathBuf,
    pub(super) rpc: SocketAddr,
    /// The address, with its peer id.
    pub(super) p2p: P2pAddress,
    pub(super) peer_id: String,
    pub(super) validator: bool,
}

impl Node {
    pub(super) fn rpc_url(&self) -> String {
        format!("http://{}", self.rpc)
    }
}

/// Refuses a directory that is not empty and has no marker, and one of another user, who could
/// exchange what is in it.
pub(super) fn refuse_foreign(dir: &Path) -> anyhow::Result<()> {
    let name = || dir.display().to_string();
    // An interrupted start may leave the lock without a marker.
    let is_foreign = match names_in(dir) {
        // A start in the background opens its log first.
        Ok(names) => names.iter().any(|name| name != LOG),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(name),
    };
    #[cfg(unix)]
    {
        let (found, own) = (fs::metadata(dir).with_context(name)?.uid(), own_uid());
        ensure!(
            found == own || own == 0,
            "{} belongs to user {found}, expected user {own}: give another --dir",
            dir.display()
        );
    }
    let is_ours = dir.join(MARKER).try_exists().with_context(name)?;
    ensure!(
        !is_foreign || is_ours,
        "{} is not empty and not a test network: give another --dir",
        dir.display()
    );
    Ok(())
}

/// Removes `network.json`, in which an earlier run named its processes.
pub(super) fn remove_stale(dir: &Path) -> anyhow::Result<()> {
    remove(&dir.join(NETWORK))
}

/// Waits for nodes that an earlier run left behind. They end by themselves.
pub(super) fn await_free(dir: &Path, patience: Duration) -> anyhow::Result<()> {
    let Some(plan) = Plan::read(dir)? else { return Ok(()) };
    let start = Instant::now();
    let mut is_told = false;
    for home in plan.homes(dir) {
        // No node runs in an unfinished home.
        while home.join(GENESIS).is_file() {
            match lock_dir(&home) {
                Ok(_) => break,
                Err(HomeError::Locked { .. }) if start.elapsed() < patience => {
                    if !is_told && start.elapsed() > LEFT_MAX {
                        say(&format!("waiting for the node that still runs in {}", home.display()));
                        is_told = true;
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

impl Layout {
    /// Resumes the network in the directory, or makes a new one. Before it changes anything, checks
    /// that all ports are free.
    pub(super) fn prepare(
        dir: &Path,
        wanted: &Wanted,
        template: Option<&Genesis>,
        embedded: &Genesis,
        reset: bool,
    ) -> anyhow::Result<Self> {
        let existing = Plan::read(dir)?;
        let resumed = existing.clone().filter(|plan| plan.complete && !reset);
        if let Some(plan) = &resumed {
            check_same(dir, plan, wanted, template)?;
        }
        let plan = Plan {
            format: FORMAT,
            nodes: wanted.nodes.or(resumed.as_ref().map(|plan| plan.nodes)).unwrap_or(4),
            full_nodes: wanted
                .full_nodes
                .or(resumed.as_ref().map(|plan| plan.full_nodes))
                .unwrap_or(0),
            base_port: match wanted.base_port {
                Some(BasePort::Fixed(port)) => port,
                _ => resumed.as_ref().map_or(P2P_PORT, |plan| plan.base_port),
            },
            seed: wanted.seed.or(resumed.as_ref().and_then(|plan| plan.seed)),
            history: wanted.history.or(resumed.as_ref().and_then(|plan| plan.history)),
            complete: true,
        };
        let (plan, held) = match wanted.base_port {
            Some(BasePort::Auto) => keep_or_take(plan, resumed.is_some())?,
            _ => {
                ports::check_free(&plan.ports()?, Some(plan.base_port))?;
                (plan, Held::default())
            }
        };
        let ports = plan.ports()?;
        if let Some(resumed) = resumed {
            // Needed even if the plan is the same: it completes an interrupted move.
            configs::move_to(dir, &plan, &ports)?;
            if plan != resumed {
                plan.write(dir)?;
            }
        } else {
            if let Some(old) = existing {
                old.remove(dir)?;
            }
            Plan { complete: false, ..plan.clone() }.write(dir)?;
            create(dir, &plan, &ports, template.unwrap_or(embedded))?;
            plan.write(dir)?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            genesis: read_genesis(&dir.join(GENESIS))?,
            nodes: nodes(dir, &plan, &ports)?,
            held,
            plan,
        })
    }

    /// The network in the directory as it is. `None` if there is none, or an unfinished one.
    pub(super) fn open(dir: &Path) -> anyhow::Result<Option<Self>> {
        let Some(plan) = Plan::read(dir)?.filter(|plan| plan.complete) else { return Ok(None) };
        Ok(Some(Self {
            dir: dir.to_owned(),
            genesis: read_genesis(&dir.join(GENESIS))?,
            nodes: nodes(dir, &plan, &plan.ports()?)?,
            held: Held::default(),
            plan,
        }))
    }

    /// Adds a full node, durably: its home first, then its place in the plan. A home beyond the
    /// plan was made by an interrupted attempt, and never ran.
    pub(super) fn add(&mut self) -> anyhow::Result<Node> {
        let plan = Plan { full_nodes: self.plan.full_nodes.saturating_add(1), ..self.plan.clone() };
        ensure!(
            plan.full_nodes <= NODES_MAX,
            "the network has {NODES_MAX} full nodes, which is the most"
        );
        let ports = plan.ports()?;
        let (Some(home), Some(own)) = (plan.homes(&self.dir).pop(), ports.last().copied()) else {
            bail!("the plan has no nodes");
        };
        ports::check_free(&[own], None)?;
        if Home::open(&home).is_ok() {
            remove_all(&home).with_context(|| home.display().to_string())?;
        }
        let peers = self.nodes.iter().map(|node| node.p2p.clone()).collect();
        homes::add(&home, &self.genesis, &plan, own, peers)?;
        plan.write(&self.dir)?;
        let node = nodes(&self.dir, &plan, &ports)?.pop().context("the plan has no nodes")?;
        self.plan = plan;
        self.nodes.push(node.clone());
        Ok(node)
    }

    /// The number from which all keys follow. `None` if they are random.
    pub(super) const fn seed(&self) -> Option<u64> {
        self.plan.seed
    }

    pub(super) fn genesis_path(&self) -> PathBuf {
        self.dir.join(GENESIS)
    }

    pub(super) fn network_path(&self) -> PathBuf {
        self.dir.join(NETWORK)
    }

    pub(super) fn wallet_home(&self) -> PathBuf {
        self.dir.join(WALLET)
    }
}

/// The ports of the plan if it is resumed and they are free, else other free ports.
fn keep_or_take(plan: Plan, resumed: bool) -> anyhow::Result<(Plan, Held)> {
    if resumed && let Some(held) = ports::hold(plan.base_port, plan.count()) {
        return Ok((plan, held));
    }
    let (base_port, held) = ports::take(plan.count())?;
    Ok((Plan { base_port, ..plan }, held))
}

fn check_same(
    dir: &Path,
    plan: &Plan,
    wanted: &Wanted,
    template: Option<&Genesis>,
) -> anyhow::Result<()> {
    let differs = |flag: &str, has: Option<u64>, asked: Option<u64>| {
        let asked = asked.filter(|asked| Some(*asked) != has)?;
        let has = has.map_or_else(|| format!("no {flag}"), |has| format!("{flag} {has}"));
        Some(format!("it has {has}, but the command line asks for {asked}"))
    };
    let mut differences: Vec<String> = [
        differs("--nodes", Some(plan.nodes.into()), wanted.nodes.map(u64::from)),
        differs("--full-nodes", Some(plan.full_nodes.into()), wanted.full_nodes.map(u64::from)),
        differs("--seed", plan.seed, wanted.seed),
        differs("--history", plan.history.map(u64::from), wanted.history.map(u64::from)),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let Some(template) = template {
        let genesis = read_genesis(&dir.join(GENESIS))?;
        if (&template.accounts, &template.limits) != (&genesis.accounts, &genesis.limits) {
            differences.push(
                "its genesis has other accounts or limits than the file given by --genesis"
                    .to_owned(),
            );
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    bail!(
        "{} has another test network: {}. Leave these options out to resume it, give --reset to \
         replace it, or give another --dir",
        dir.display(),
        differences.join("; ")
    )
}

fn nodes(dir: &Path, plan: &Plan, ports: &[(u16, u16)]) -> anyhow::Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for ((home, key), (p2p, rpc)) in
        plan.homes(dir).into_iter().zip(node_keys(dir, plan)?).zip(ports)
    {
        nodes.push(Node {
            name: format!("node{}", nodes.len().saturating_add(1)),
            home,
            rpc: loopback(*rpc),
            p2p: address(&key, *p2p)?,
            peer_id: key.identity().public().to_peer_id().to_string(),
            validator: nodes.len() < usize::from(plan.nodes),
        });
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests;
