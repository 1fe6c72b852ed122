//! `init`: makes the home of a new node.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::HomeArg;
use crate::config::{Config, P2P_PORT, P2pAddress, parse_socket_address};
use crate::home::{Contents, Home, read_genesis};
use crate::keys::Seed;
use crate::output::{print, print_json, table};

#[derive(Debug, Args)]
pub(super) struct Init {
    #[command(flatten)]
    home: HomeArg,
    /// The genesis file of the network
    #[arg(long, env = "CAIRN_NODE_GENESIS", value_name = "FILE")]
    genesis: PathBuf,
    /// Sign with this consensus key, made by `genesis keygen`
    #[arg(
        long,
        env = "CAIRN_NODE_VALIDATOR_KEY",
        value_name = "FILE",
        conflicts_with = "validator"
    )]
    validator_key: Option<PathBuf>,
    /// Make a new consensus key
    #[arg(long)]
    validator: bool,
    /// Address on which the node will listen for peers, for config.toml: a multiaddr or IP:PORT,
    /// such as 0.0.0.0:7700
    #[arg(long, env = "CAIRN_NODE_P2P_LISTEN", value_name = "ADDR")]
    p2p_listen: Option<P2pAddress>,
    /// Address on which RPC will listen, for config.toml: IP:PORT
    #[arg(
        long,
        env = "CAIRN_NODE_RPC_LISTEN",
        value_name = "ADDR",
        value_parser = parse_socket_address
    )]
    rpc_listen: Option<SocketAddr>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Init {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let root = self.home.root()?;
        let genesis = read_genesis(&self.genesis)?;
        let mut config = Config::default();
        config.p2p.listen = self.p2p_listen.unwrap_or(config.p2p.listen);
        config.rpc.listen = self.rpc_listen.unwrap_or(config.rpc.listen);
        config.check()?;
        let node_key = Seed::random()?;
        let validator_key = match (&self.validator_key, self.validator) {
            (Some(path), _) => Some(Seed::read(path)?),
            (None, true) => Some(Seed::random()?),
            (None, false) => None,
        };
        let contents = Contents {
            genesis: &genesis,
            config: &config,
            node_key: &node_key,
            validator_key: validator_key.as_ref(),
        };
        let home = Home::create(&root, &contents)?;

        let chain_id = genesis.chain_id().to_string();
        let peer_id = node_key.identity().public().to_peer_id().to_string();
        let validator = validator_key.map(|key| key.public());
        if let Some(key) = validator
            && !genesis.validators.iter().any(|entry| entry.key == key)
        {
            tracing::warn!(
                "the genesis has no validator with key {key}: this node will follow and not sign"
            );
        }
        if self.validator_key.is_some() {
            tracing::info!(
                "this key may have signed before: if the network has blocks already, this node \
                 signs only above a block that is certified after its start; with `run \
                 --sign-without-log` it signs at once, which is safe only if nothing ever signed \
                 with this key"
            );
        }
        if config.p2p.listen.is_loopback() {
            tracing::info!(
                "only this machine can reach the node at {}; on a server give --p2p-listen \
                 0.0.0.0:{P2P_PORT}, or set p2p.listen in {}",
                config.p2p.listen,
                home.config_path().display()
            );
        }
        let shown = home.root().to_string_lossy();
        if self.json {
            return print_json(&json!({
                "home": shown,
                "network": genesis.network,
                "chain_id": chain_id,
                "peer_id": peer_id,
                "validator": validator.map(|key| key.to_string()),
            }));
        }
        let mut rows = vec![
            ("home", shown.into_owned()),
            ("network", genesis.network.clone()),
            ("chain id", chain_id),
            ("peer id", peer_id),
        ];
        rows.extend(validator.map(|key| ("validator", key.to_string())));
        Ok(print(&table(&rows))?)
    }
}
