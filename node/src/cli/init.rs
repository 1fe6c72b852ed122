//! `init`: the home of a new node.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::HomeArg;
use crate::config::Config;
use crate::home::{Contents, Home, read_genesis};
use crate::keys::Seed;
use crate::output::{print, print_json, table};

#[derive(Debug, Args)]
pub(super) struct Init {
    #[command(flatten)]
    home: HomeArg,
    /// What all nodes of the network agree on
    #[arg(long, env = "CAIRN_NODE_GENESIS", value_name = "FILE")]
    genesis: PathBuf,
    /// Sign with this consensus key, made by `genesis keygen`
    #[arg(long, env = "CAIRN_NODE_VALIDATOR_KEY", value_name = "FILE", conflicts_with = "validator")]
    validator_key: Option<PathBuf>,
    /// Make a new consensus key
    #[arg(long)]
    validator: bool,
    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

impl Init {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let root = self.home.root()?;
        let genesis = read_genesis(&self.genesis)?;
        let node_key = Seed::random()?;
        let validator_key = match (&self.validator_key, self.validator) {
            (Some(path), _) => Some(Seed::read(path)?),
            (None, true) => Some(Seed::random()?),
            (None, false) => None,
        };
        let contents = Contents {
            genesis: &genesis,
            config: &Config::default(),
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
            tracing::warn!("the genesis has no validator with key {key}: this node will follow and not sign");
        }
        if self.json {
            return print_json(&json!({
                "home": home.root(),
                "network": genesis.network,
                "chain_id": chain_id,
                "peer_id": peer_id,
                "validator": validator.map(|key| key.to_string()),
            }));
        }
        let mut rows = vec![
            ("home", home.root().display().to_string()),
            ("network", genesis.network.clone()),
            ("chain id", chain_id),
            ("peer id", peer_id),
        ];
        rows.extend(validator.map(|key| ("validator", key.to_string())));
        Ok(print(&table(&rows))?)
    }
}
