//! The content of `network.json`: what a running local network consists of.

use std::path::PathBuf;

use ledger::hash::ChainId;
use serde::{Deserialize, Deserializer};

use crate::rpc::Rpc;

/// The content of `network.json` when all nodes have answered for the first time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Description {
    /// Identity of the chain.
    #[serde(rename = "chain_id", deserialize_with = "chain_id")]
    pub chain: ChainId,
    /// Path of the genesis file.
    pub genesis: PathBuf,
    /// All nodes, validators first.
    pub nodes: Vec<NodeInfo>,
    /// Home of the wallet that holds the accounts' keys.
    pub wallet_home: PathBuf,
}

/// One node of `network.json`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NodeInfo {
    /// Name, such as `node1`.
    pub name: String,
    /// Its home directory.
    pub home: PathBuf,
    /// Its process id at the start of the network.
    pub pid: u32,
    /// URL of its RPC.
    pub rpc: String,
    /// Multiaddr with its peer id.
    pub p2p: String,
    /// Whether it is a validator.
    pub validator: bool,
}

impl NodeInfo {
    /// A client of its RPC.
    #[must_use]
    pub fn client(&self) -> Rpc {
        Rpc::new(&self.rpc)
    }

    /// Path of its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.home.join("node.log")
    }
}

impl Description {
    /// The node with this name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.iter().find(|node| node.name == name)
    }
}

fn chain_id<'de, D: Deserializer<'de>>(from: D) -> Result<ChainId, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map(ChainId).map_err(serde::de::Error::custom)
}
