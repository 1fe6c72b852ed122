//! The plan of a local network, which is the marker in its directory, and the names of its files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::ports::{BasePort, PORT_STEP};
use crate::files::write_atomic;

/// Most validators, and most full nodes: far more than a machine can run.
pub(super) const NODES_MAX: u16 = 64;

pub(super) const MARKER: &str = "testnet.json";
pub(super) const GENESIS: &str = "genesis.json";
pub(super) const NETWORK: &str = "network.json";
pub(super) const WALLET: &str = "wallet";
/// Output of a network that runs in the background.
pub(super) const LOG: &str = "testnet.log";
/// A node's log in its home.
pub(super) const NODE_LOG: &str = "node.log";

/// The content of the marker: what the network was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    pub(super) format: u32,
    pub(super) nodes: u16,
    pub(super) full_nodes: u16,
    pub(super) base_port: u16,
    /// The number from which the keys follow. If there is one, the start time is fixed. `None` for
    /// random keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seed: Option<u64>,
    /// Transfers of the made history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) history: Option<u32>,
    /// Whether all files were made. An incomplete network never ran, so it can be removed without
    /// loss.
    pub(super) complete: bool,
}

pub(super) const FORMAT: u32 = 1;

/// The options of the command line. `None` means the value of the existing network, or else the
/// default.
pub(super) struct Wanted {
    pub(super) nodes: Option<u16>,
    pub(super) full_nodes: Option<u16>,
    pub(super) base_port: Option<BasePort>,
    pub(super) seed: Option<u64>,
    pub(super) history: Option<u32>,
}

impl Plan {
    pub(super) fn read(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = dir.join(MARKER);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let plan: Self = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        ensure!(
            plan.format == FORMAT,
            "{}: format {}, expected {FORMAT}",
            path.display(),
            plan.format
        );
        Ok(Some(plan))
    }

    pub(super) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        write(&dir.join(MARKER), &format!("{}\n", serde_json::to_string(self)?), 0o644)
    }

    pub(super) fn count(&self) -> usize {
        usize::from(self.nodes).saturating_add(usize::from(self.full_nodes))
    }

    pub(super) fn homes(&self, dir: &Path) -> Vec<PathBuf> {
        (1..=self.count()).map(|number| dir.join(format!("node{number}"))).collect()
    }

    /// The peer-to-peer port and the RPC port of each node.
    pub(super) fn ports(&self) -> anyhow::Result<Vec<(u16, u16)>> {
        let pair = |index: usize| {
            let offset = u16::try_from(index).ok()?.checked_mul(PORT_STEP)?;
            let p2p = self.base_port.checked_add(offset)?;
            Some((p2p, p2p.checked_add(1)?))
        };
        let pairs: Option<_> = (0..self.count()).map(pair).collect();
        ensure!(self.base_port > 0, "--base-port 0: expected 1 or more");
        pairs.with_context(|| {
            format!("--base-port {}: {} nodes do not fit below 65536", self.base_port, self.count())
        })
    }

    /// Removes the homes and the genesis of this network, and nothing else in the directory.
    pub(super) fn remove(&self, dir: &Path) -> anyhow::Result<()> {
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

pub(super) fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}

/// Writes a file atomically.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    write_atomic(path, text.as_bytes(), mode).with_context(|| path.display().to_string())
}
