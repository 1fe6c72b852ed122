//! The homes of a local network: one for each node, with new keys, and one for the wallet.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Context;
use ledger::genesis::{
    Genesis, GenesisError, GenesisValidator, LOCAL_NETWORK, TEMPLATE_ACCOUNTS, template_key,
};
use ledger::units::{Timestamp, VotingPower};
use serde_json::json;

use super::plan::{GENESIS, Plan, WALLET, write};
use crate::clock::now;
use crate::config::{Config, P2pAddress};
use crate::files::create_private_dir;
use crate::home::{Contents, Home};
use crate::keys::Seed;

/// Voting power of each validator.
const POWER: VotingPower = VotingPower(10);
/// Most nodes of a small network, where a message is sent to few peers at once because each peer is
/// connected to most nodes.
const SMALL_MAX: usize = 8;

/// Makes all files: keys, the genesis that names them, a home for each node and one for the wallet.
pub(super) fn create(
    dir: &Path,
    plan: &Plan,
    ports: &[(u16, u16)],
    template: &Genesis,
) -> anyhow::Result<()> {
    let seeds = |count: usize| (0..count).map(|_| Seed::random()).collect::<Result<Vec<Seed>, _>>();
    let (node_keys, validator_keys) = (seeds(plan.count())?, seeds(usize::from(plan.nodes))?);
    let validator = |(index, key): (usize, &Seed)| GenesisValidator {
        name: format!("validator-{}", index.saturating_add(1)),
        key: key.public(),
        payout: key.public(),
        power: POWER,
    };
    let genesis = Genesis {
        network: LOCAL_NETWORK.to_owned(),
        start_time: Timestamp(now()?),
        validators: validator_keys.iter().enumerate().map(validator).collect(),
        ..template.clone()
    };
    match genesis.problems() {
        problems if problems.is_empty() => {}
        problems => return Err(GenesisError { problems }.into()),
    }
    let configs = configs(&node_keys, ports)?;
    for (index, ((home, config), node_key)) in
        plan.homes(dir).iter().zip(&configs).zip(&node_keys).enumerate()
    {
        let contents = Contents {
            genesis: &genesis,
            config,
            node_key,
            validator_key: validator_keys.get(index),
        };
        Home::create(home, &contents)?;
    }
    create_wallet(&dir.join(WALLET), &genesis)?;
    write(&dir.join(GENESIS), &genesis.to_json(), 0o644)
}

/// Makes the home of a full node with new keys, which dials these peers.
pub(super) fn add(
    home: &Path,
    genesis: &Genesis,
    (p2p, rpc): (u16, u16),
    peers: Vec<P2pAddress>,
) -> anyhow::Result<()> {
    let config = config((p2p, rpc), peers);
    let node_key = &Seed::random()?;
    Home::create(home, &Contents { genesis, config: &config, node_key, validator_key: None })?;
    Ok(())
}

/// Makes the wallet's home. The keys of template accounts follow from their names, so the names are
/// enough. The password is for keys that the user makes there.
fn create_wallet(home: &Path, genesis: &Genesis) -> anyhow::Result<()> {
    create_private_dir(home).with_context(|| home.display().to_string())?;
    let is_template = |name: &&str| {
        let key = template_key(name).map(|key| key.public());
        genesis.find_account(name).is_some_and(|account| Some(account.account) == key)
    };
    let names: Vec<&str> = TEMPLATE_ACCOUNTS.into_iter().filter(is_template).collect();
    let mut password = [0; 16];
    getrandom::fill(&mut password).context("no randomness from the operating system")?;
    write(&home.join(GENESIS), &genesis.to_json(), 0o644)?;
    write(&home.join("password"), &format!("{}\n", hex::encode(password)), 0o600)?;
    write(
        &home.join("template-accounts.json"),
        &format!("{}\n", json!({ "accounts": names })),
        0o644,
    )
}

pub(super) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The address of a node, with its peer id.
pub(super) fn address(key: &Seed, port: u16) -> anyhow::Result<P2pAddress> {
    Ok(format!("{}/p2p/{}", P2pAddress::from(loopback(port)), key.identity().public().to_peer_id())
        .parse()?)
}

/// The configuration of each node: all others are its peers.
fn configs(keys: &[Seed], ports: &[(u16, u16)]) -> anyhow::Result<Vec<Config>> {
    let addresses: Vec<P2pAddress> = keys
        .iter()
        .zip(ports)
        .map(|(key, (p2p, _))| address(key, *p2p))
        .collect::<Result<_, _>>()?;
    let config = |(own, ports): (&P2pAddress, &(u16, u16))| {
        let peers = addresses.iter().filter(|address| *address != own).cloned().collect();
        config(*ports, peers)
    };
    Ok(addresses.iter().zip(ports).map(config).collect())
}

/// The configuration of a node that has all other nodes as its peers.
fn config((p2p, rpc): (u16, u16), peers: Vec<P2pAddress>) -> Config {
    let mut config = Config::default();
    config.p2p.listen = loopback(p2p).into();
    config.p2p.small = peers.len() < SMALL_MAX;
    config.p2p.peers = peers;
    config.p2p.private = true;
    config.rpc.listen = loopback(rpc);
    config
}

/// The network identities of all nodes.
pub(super) fn node_keys(dir: &Path, plan: &Plan) -> anyhow::Result<Vec<Seed>> {
    plan.homes(dir).iter().map(|home| Ok(Home::open(home)?.node_key()?)).collect()
}
