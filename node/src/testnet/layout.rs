//! What a local network has on disk: a home for each node and one for the wallet, the genesis, and a marker that says that
//! all of it is ours.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use ledger::genesis::Genesis;
use serde::{Deserialize, Serialize};

use super::homes::{address, create, loopback, node_keys, rewrite_configs};
use super::ports;
use crate::config::{P2P_PORT, P2pAddress};
use crate::home::{HomeError, lock_dir, read_genesis, write_atomic};

/// Most nodes of one kind. Far more than a machine can run.
pub(super) const NODES_MAX: u16 = 64;
/// Ports of node i begin at base + 10 * i.
const PORT_STEP: u16 = 10;

const MARKER: &str = "testnet.json";
pub(super) const GENESIS: &str = "genesis.json";
const NETWORK: &str = "network.json";
pub(super) const WALLET: &str = "wallet";

/// The marker: what the network is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    format: u32,
    pub(super) nodes: u16,
    full_nodes: u16,
    base_port: u16,
    /// Whether all of it was made. One that was not never ran, so nothing is lost with it.
    complete: bool,
}

const FORMAT: u32 = 1;

/// What the command line asks for. Nothing means: whatever there is, else the default.
pub(super) struct Wanted {
    pub(super) nodes: Option<u16>,
    pub(super) full_nodes: Option<u16>,
    pub(super) base_port: Option<u16>,
}

/// A network that is ready to start.
pub(super) struct Layout {
    pub(super) dir: PathBuf,
    pub(super) genesis: Genesis,
    /// Validators first.
    pub(super) nodes: Vec<Node>,
}

/// One node of the network.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) home: PathBuf,
    pub(super) rpc: SocketAddr,
    /// With its peer id.
    pub(super) p2p: P2pAddress,
    pub(super) validator: bool,
}

impl Node {
    pub(super) fn rpc_url(&self) -> String {
        format!("http://{}", self.rpc)
    }
}

/// Refuses a directory with other things in it.
pub(super) fn refuse_foreign(dir: &Path) -> anyhow::Result<()> {
    let mut entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| dir.display().to_string()),
    };
    // A start that was cut short may leave the lock and no marker.
    let foreign = entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != "LOCK"));
    ensure!(
        !foreign || dir.join(MARKER).is_file(),
        "{} is not empty and no test network: give another --dir",
        dir.display()
    );
    Ok(())
}

/// Removes what an earlier run told about its processes.
pub(super) fn remove_stale(dir: &Path) -> anyhow::Result<()> {
    remove(&dir.join(NETWORK))
}

/// Waits for nodes that an earlier run left behind: they end by themselves.
pub(super) fn await_free(dir: &Path, patience: Duration) -> anyhow::Result<()> {
    let Some(plan) = Plan::read(dir)? else { return Ok(()) };
    let deadline = Instant::now() + patience;
    for home in plan.homes(dir) {
        // Unfinished homes have nobody in them.
        while home.join(GENESIS).is_file() {
            match lock_dir(&home) {
                Ok(_) => break,
                Err(HomeError::Locked { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

impl Plan {
    fn read(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = dir.join(MARKER);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let plan: Self = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        ensure!(plan.format == FORMAT, "{}: format {}, expected {FORMAT}", path.display(), plan.format);
        Ok(Some(plan))
    }

    fn write(&self, dir: &Path) -> anyhow::Result<()> {
        write(&dir.join(MARKER), &format!("{}\n", serde_json::to_string(self)?), 0o644)
    }

    pub(super) fn count(&self) -> usize {
        usize::from(self.nodes).saturating_add(usize::from(self.full_nodes))
    }

    pub(super) fn homes(&self, dir: &Path) -> Vec<PathBuf> {
        (1..=self.count()).map(|number| dir.join(format!("node{number}"))).collect()
    }

    /// Peer-to-peer and RPC port of each node.
    fn ports(&self) -> anyhow::Result<Vec<(u16, u16)>> {
        let pair = |index: usize| {
            let offset = u16::try_from(index).ok()?.checked_mul(PORT_STEP)?;
            let p2p = self.base_port.checked_add(offset)?;
            Some((p2p, p2p.checked_add(1)?))
        };
        let pairs: Option<_> = (0..self.count()).map(pair).collect();
        ensure!(self.base_port > 0, "--base-port 0: expected 1 or more");
        pairs.with_context(|| format!("--base-port {}: {} nodes do not fit below 65536", self.base_port, self.count()))
    }
}

impl Layout {
    /// Resumes the network in the directory, or makes one. Checks that its ports are free before anything changes.
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
            full_nodes: wanted.full_nodes.or(resumed.as_ref().map(|plan| plan.full_nodes)).unwrap_or(0),
            base_port: wanted.base_port.or(resumed.as_ref().map(|plan| plan.base_port)).unwrap_or(P2P_PORT),
            complete: true,
        };
        let ports = plan.ports()?;
        ports::check_free(&ports, plan.base_port)?;
        if let Some(resumed) = resumed {
            if plan != resumed {
                rewrite_configs(dir, &plan, &ports)?;
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
        Ok(Self { dir: dir.to_owned(), genesis: read_genesis(&dir.join(GENESIS))?, nodes: nodes(dir, &plan, &ports)? })
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

fn check_same(dir: &Path, plan: &Plan, wanted: &Wanted, template: Option<&Genesis>) -> anyhow::Result<()> {
    let differs = |flag: &str, has: u16, asked: Option<u16>| {
        asked.filter(|asked| *asked != has).map(|asked| format!("it has {flag} {has}, asked for is {asked}"))
    };
    let mut differences: Vec<String> =
        [differs("--nodes", plan.nodes, wanted.nodes), differs("--full-nodes", plan.full_nodes, wanted.full_nodes)]
            .into_iter()
            .flatten()
            .collect();
    if let Some(template) = template {
        let genesis = read_genesis(&dir.join(GENESIS))?;
        if (&template.accounts, &template.limits) != (&genesis.accounts, &genesis.limits) {
            differences.push("its genesis has other accounts or limits than the file of --genesis".to_owned());
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    bail!(
        "{} has another test network: {}. Leave out what differs to resume it, give --reset to start anew, or another --dir",
        dir.display(),
        differences.join("; ")
    )
}

fn nodes(dir: &Path, plan: &Plan, ports: &[(u16, u16)]) -> anyhow::Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for ((home, key), (p2p, rpc)) in plan.homes(dir).into_iter().zip(node_keys(dir, plan)?).zip(ports) {
        nodes.push(Node {
            name: format!("node{}", nodes.len().saturating_add(1)),
            home,
            rpc: loopback(*rpc),
            p2p: address(&key, *p2p)?,
            validator: nodes.len() < usize::from(plan.nodes),
        });
    }
    Ok(nodes)
}

impl Plan {
    /// Removes what belongs to this network, and nothing else in the directory.
    fn remove(&self, dir: &Path) -> anyhow::Result<()> {
        for home in self.homes(dir).iter().chain([&dir.join(WALLET)]) {
            match fs::remove_dir_all(home) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| home.display().to_string());
                }
                _ => {}
            }
        }
        remove(&dir.join(GENESIS))
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(|| path.display().to_string()),
        _ => Ok(()),
    }
}

/// Writes a file in one step.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    write_atomic(path, text.as_bytes(), mode).with_context(|| path.display().to_string())
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
