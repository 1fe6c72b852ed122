//! The homes of a local network: one for each node, with new keys, and one for the wallet.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Context;
use ledger::genesis::{Genesis, GenesisError, GenesisValidator, LOCAL_NETWORK};
use ledger::hash::{Domain, Hash};
use ledger::units::{Timestamp, VotingPower};
use serde_json::json;

use super::history::Recipe;
use super::payers;
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
/// Start time of a network with `--seed`: January 1, 2024, in milliseconds since 1970. It is part
/// of the chain id, so it must be the same each time. Blocks have the time at which they are
/// proposed.
const SEEDED_START: Timestamp = Timestamp(1_704_067_200_000);

/// A key of a network.
#[derive(Clone, Copy)]
enum Role {
    Node,
    Validator,
}

/// The key of the node with this number, from 1. Random without a seed; else it follows from seed,
/// role and number, so that everybody knows it.
fn key(seed: Option<u64>, role: Role, number: usize) -> anyhow::Result<Seed> {
    let Some(seed) = seed else { return Ok(Seed::random()?) };
    let role: &[u8] = match role {
        Role::Node => b"node",
        Role::Validator => b"validator",
    };
    let text: &[u8] = b"public key of a seeded test network: ";
    let parts = [text, &seed.to_le_bytes(), &(number as u64).to_le_bytes(), role];
    Ok(Seed::from(Hash::of(Domain::Genesis, &parts).0))
}

/// The keys of the first nodes.
fn keys(seed: Option<u64>, role: Role, count: usize) -> anyhow::Result<Vec<Seed>> {
    (1..=count).map(|number| key(seed, role, number)).collect()
}

/// Makes all files: keys, the genesis that names them, a home for each node and one for the wallet.
pub(super) fn create(
    dir: &Path,
    plan: &Plan,
    ports: &[(u16, u16)],
    template: &Genesis,
) -> anyhow::Result<()> {
    let node_keys = keys(plan.seed, Role::Node, plan.count())?;
    let validator_keys = keys(plan.seed, Role::Validator, plan.nodes.into())?;
    let history = plan.history.map(|transfers| Recipe::new(transfers, &template.limits));
    let validator = |(index, key): (usize, &Seed)| GenesisValidator {
        name: format!("validator-{}", index.saturating_add(1)),
        key: key.public(),
        payout: key.public(),
        power: POWER,
    };
    let genesis = Genesis {
        network: LOCAL_NETWORK.to_owned(),
        start_time: start_time(plan, history.as_ref())?,
        validators: validator_keys.iter().enumerate().map(validator).collect(),
        ..template.clone()
    };
    match genesis.problems() {
        problems if problems.is_empty() => {}
        problems => return Err(GenesisError { problems }.into()),
    }
    let configs = configs(&node_keys, validator_keys.len(), ports)?;
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
    if let Some(history) = history {
        // Full nodes fetch it.
        let homes = plan.homes(dir);
        history.make(&homes[..validator_keys.len()], &genesis, &validator_keys)?;
    }
    create_wallet(&dir.join(WALLET), &genesis)?;
    write(&dir.join(GENESIS), &genesis.to_json(), 0o644)
}

/// The start time of the chain. Without a seed it is chosen such that the last block of the history
/// is of this moment.
fn start_time(plan: &Plan, history: Option<&Recipe>) -> anyhow::Result<Timestamp> {
    if plan.seed.is_some() {
        return Ok(SEEDED_START);
    }
    let span_ms = history.map_or(0, Recipe::span_ms);
    Ok(Timestamp(now()?.saturating_sub(span_ms)))
}

/// Makes the home of the last full node of the plan, which dials these peers.
pub(super) fn add(
    home: &Path,
    genesis: &Genesis,
    plan: &Plan,
    ports: (u16, u16),
    peers: Vec<P2pAddress>,
) -> anyhow::Result<()> {
    let config = config(ports, peers, false);
    let node_key = &key(plan.seed, Role::Node, plan.count())?;
    Home::create(home, &Contents { genesis, config: &config, node_key, validator_key: None })?;
    Ok(())
}

/// Makes the wallet's home. The keys of template accounts follow from their names, so the names are
/// enough. The password is for keys that the user makes there.
fn create_wallet(home: &Path, genesis: &Genesis) -> anyhow::Result<()> {
    create_private_dir(home).with_context(|| home.display().to_string())?;
    let names = payers::names(genesis);
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

/// The configuration of each node: all others are its peers. The first nodes are validators.
fn configs(keys: &[Seed], validators: usize, ports: &[(u16, u16)]) -> anyhow::Result<Vec<Config>> {
    let addresses: Vec<P2pAddress> = keys
        .iter()
        .zip(ports)
        .map(|(key, (p2p, _))| address(key, *p2p))
        .collect::<Result<_, _>>()?;
    let config = |(index, (own, ports)): (usize, (&P2pAddress, &(u16, u16)))| {
        let peers = addresses.iter().filter(|address| *address != own).cloned().collect();
        config(*ports, peers, index < validators)
    };
    Ok(addresses.iter().zip(ports).enumerate().map(config).collect())
}

/// The configuration of a node that has all other nodes as its peers. Full nodes share files.
fn config((p2p, rpc): (u16, u16), peers: Vec<P2pAddress>, is_validator: bool) -> Config {
    let mut config = Config::default();
    config.p2p.listen = loopback(p2p).into();
    config.p2p.small = peers.len() < SMALL_MAX;
    config.p2p.peers = peers;
    config.p2p.private = true;
    config.rpc.listen = loopback(rpc);
    config.files.enabled = !is_validator;
    config
}

/// The network identities of all nodes.
pub(super) fn node_keys(dir: &Path, plan: &Plan) -> anyhow::Result<Vec<Seed>> {
    plan.homes(dir).iter().map(|home| Ok(Home::open(home)?.node_key()?)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ledger::chain::Chain;
    use ledger::store::Store;
    use ledger::units::Height;
    use protocol::Log;
    use tempfile::TempDir;

    use super::*;
    use crate::consensus_log::ConsensusLog;
    use crate::testnet::plan::FORMAT;

    struct Made {
        plan: Plan,
        genesis: Genesis,
        folder: TempDir,
    }

    /// Makes two validators and a full node.
    fn make(seed: Option<u64>, history: Option<u32>, template: &Genesis) -> anyhow::Result<Made> {
        let folder = tempfile::tempdir()?;
        let plan = Plan {
            format: FORMAT,
            nodes: 2,
            full_nodes: 1,
            base_port: 1_000,
            seed,
            history,
            complete: true,
        };
        create(folder.path(), &plan, &plan.ports()?, template)?;
        let genesis = crate::home::read_genesis(&folder.path().join(GENESIS))?;
        Ok(Made { plan, genesis, folder })
    }

    fn template() -> Genesis {
        Genesis::from_json(crate::testnet::TEMPLATE.as_bytes()).unwrap()
    }

    impl Made {
        fn identities(&self) -> Vec<String> {
            let keys = node_keys(self.folder.path(), &self.plan).unwrap();
            keys.iter().map(|key| key.public().to_string()).collect()
        }

        fn home(&self, number: usize) -> Home {
            Home::open(&self.plan.homes(self.folder.path())[number - 1]).unwrap()
        }
    }

    #[test]
    fn all_keys_and_the_chain_follow_from_the_seed() {
        let [first, second, other, random] =
            [Some(7), Some(7), Some(8), None].map(|seed| make(seed, None, &template()).unwrap());
        assert_eq!(first.genesis, second.genesis);
        assert_eq!(first.identities(), second.identities());
        assert_eq!(first.genesis.start_time, SEEDED_START);
        for different in [&other, &random] {
            assert_ne!(first.genesis.chain_id(), different.genesis.chain_id());
            assert!(first.identities().iter().zip(different.identities()).all(|(a, b)| *a != b));
        }
        // No key is used twice.
        let mut keys = first.identities();
        keys.extend(first.genesis.validators.iter().map(|validator| validator.key.to_string()));
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 5);
        // A node that is added has the key that it would have from the start.
        let home = first.folder.path().join("node4");
        let plan = Plan { full_nodes: 2, ..first.plan };
        add(&home, &first.genesis, &plan, (1, 2), Vec::new()).unwrap();
        let larger = keys_of(7, 4);
        assert_eq!(Home::open(&home).unwrap().node_key().unwrap().public(), larger[3]);
    }

    fn keys_of(seed: u64, count: usize) -> Vec<ledger::signature::PublicKey> {
        keys(Some(seed), Role::Node, count).unwrap().iter().map(Seed::public).collect()
    }

    #[test]
    fn a_history_is_in_the_homes_of_all_validators_and_they_may_sign() {
        // 15 blocks of 200 transfers are a segment.
        let made = make(None, Some(3_150), &template()).unwrap();
        let chain = Chain::new(made.genesis.clone());
        let open = |number: usize| Store::open(&made.home(number).db_path(), &chain).unwrap();
        let tips: Vec<_> = [1, 2].map(|number| open(number).store.tip()).into();
        assert_eq!((tips[0].0, tips[0]), (Height(16), tips[1]));
        let opened = open(1);
        assert_eq!(opened.store.segment(0).unwrap().here().unwrap().descriptor.last, Height(15));
        assert!(opened.store.segment(1).unwrap().here().is_none());
        assert_eq!(opened.store.block(Height(16)).unwrap().here().unwrap().transactions.len(), 150);
        let age = now().unwrap().saturating_sub(opened.state.tip().time.0);
        assert!(age < 60_000, "the last block is of now: {age} ms");
        assert!(opened.state.tip().time.0 <= now().unwrap(), "and not of later");
        for number in [1, 2] {
            let (_, log) = ConsensusLog::open(&made.home(number).consensus_log_path()).unwrap();
            assert!(matches!(log, Log::Intact(Height(17), entries) if entries.is_empty()));
        }
        assert_eq!(open(3).store.tip().0, Height(0), "a full node fetches it");

        let mut poor = template();
        poor.accounts[0].balance = ledger::units::Amount(1);
        let mut foreign = template();
        foreign.accounts.clear();
        for (template, says) in
            [(poor, "alice has 0.000000001 CRN"), (foreign, "none of the template accounts")]
        {
            let error = make(None, Some(1_000), &template).err().unwrap().to_string();
            assert!(error.contains("--history") && error.contains(says), "{error}");
        }
    }
}
