//! The first step: opens the files of a home, binds the ports, and recovers the node's state.
//!
//! The network already runs while the store opens, so that connections are made meanwhile. Messages
//! that arrive wait in bounded queues.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;

use anyhow::Context;
use ledger::chain::Chain;
use ledger::signature::{PublicKey, SigningKey};
use ledger::store::{self, Kept, Store};
use ledger::units::Height;
use prometheus_client::registry::Registry;
use protocol::archive::GONE_COUNTS;
use protocol::live::mempool::MempoolLimits;
use protocol::{Log, Machine, Setup};
use tokio::task::JoinHandle;

use super::files::{self, Files};
use super::{Options, Stop};
use crate::checkpoint::Checkpoint;
use crate::clock::Clock;
use crate::config::{Config, SyncMode};
use crate::consensus_log::ConsensusLog;
use crate::descriptors::Descriptors;
use crate::driver::archive::Sharing;
use crate::home::Home;
use crate::network::{self, Inbox, Network, NetworkConfig};
use crate::rpc::{self, RpcListener};
use crate::view::TipView;

/// A node whose files are open and whose ports are bound.
pub(super) struct Opened {
    pub(super) home: Home,
    pub(super) config: Config,
    pub(super) chain: Arc<Chain>,
    /// The RPC port. Connections wait in the system until it is served.
    pub(super) listener: RpcListener,
    pub(super) registry: Registry,
    pub(super) network: Network,
    pub(super) inbox: Inbox,
    pub(super) network_task: JoinHandle<()>,
    pub(super) store: Store,
    pub(super) tip: TipView,
    /// The consensus key, if this home has one.
    pub(super) validator: Option<PublicKey>,
    /// The consensus log. `None` without a consensus key.
    pub(super) log: Option<ConsensusLog>,
    pub(super) clock: Clock,
    pub(super) beginning: Beginning,
    /// The number of named peers, if the node joins its chain by a snapshot: it may, and it has no
    /// blocks yet.
    pub(super) joins: Option<NonZeroUsize>,
    /// A block that the chain must contain.
    pub(super) checkpoint: Option<Checkpoint>,
    /// The same, if its block lies below the tip and is not here.
    pub(super) unchecked: Option<Checkpoint>,
    pub(super) sharing: Sharing,
    /// Files that are shared and fetched; `None` if files are off.
    pub(super) files: Option<Files>,
}

/// What the machine of `live` begins with, besides the chain.
pub(super) struct Beginning {
    key: Option<SigningKey>,
    log: Log,
    sign_without_log: bool,
    mempool: MempoolLimits,
    seed: u64,
}

impl Beginning {
    /// The machine that continues from this tip.
    pub(super) fn machine(self, tip: &TipView, clock: Clock) -> Machine {
        let Self { key, log, sign_without_log, mempool, seed } = self;
        let setup = Setup {
            chain: tip.state.clone(),
            header: tip.header.clone(),
            certificate: tip.certificate.clone(),
            key,
            log,
            sign_without_log,
            mempool,
            seed,
        };
        Machine::new(setup, clock.now())
    }
}

/// Opens a node. `None` if it was asked to stop while the store was opened.
///
/// # Errors
/// A file cannot be read, a port is taken, or the process may open too few files.
pub(super) async fn open(
    home: Home,
    config: Config,
    options: &Options,
    stop: &mut Stop,
) -> anyhow::Result<Option<Opened>> {
    let descriptors = Descriptors::prepare(
        network::Limits::default(),
        config.p2p.peers.len(),
        files::descriptors(&config.files),
        rpc::CONNECTIONS_MAX,
    )?;
    let chain = Chain::new(home.genesis()?);
    let listener = bind_rpc(&config, descriptors.rpc_connections()).await?;
    let mut registry = Registry::default();
    let network_config = network_config(&home, &config, &chain, &descriptors)?;
    let (network, inbox, network_task) = network::start(network_config, &mut registry)?;
    stop.operator.on_network(network.clone());

    let (db, to_open) = (home.db_path(), Arc::clone(&chain));
    let opening = tokio::task::spawn_blocking(move || Store::open(&db, &to_open));
    let store::Opened { store, state, certificate } = tokio::select! {
        opened = opening => opened.context("the store cannot be opened")??,
        // Opening a long chain takes a while. An interrupted opening is continued by the next one.
        reason = stop.next() => {
            tracing::info!("stopped while the store was opened: {reason}");
            network.shutdown().await;
            return Ok(None);
        }
    };
    let checkpoint = options.checkpoint;
    let unchecked = checkpoint.map(|one| check(one, &store)).transpose()?.flatten();
    let header = store.header(state.tip().height)?.here();
    let tip = TipView { state, certificate, header };
    let (key, log, found) = open_log(&home)?;
    let clock = Clock::start();
    let validator = key.as_ref().map(SigningKey::public);
    if validator.is_none() {
        warn_if_signed(&home)?;
    }
    let files = files::open(&home, &config.files, validator.is_some())?;
    stop.operator.on_files(files.as_ref().map(|files| files.store.clone()));
    let joins = named_peers(&config, &network)
        .filter(|_| config.sync.mode == SyncMode::Snapshot && tip.state.tip().height == Height(0));
    let beginning = Beginning {
        key,
        log: found,
        sign_without_log: options.sign_without_log,
        mempool: MempoolLimits {
            bytes_max: usize::try_from(config.mempool.bytes_max).unwrap_or(usize::MAX),
            ..MempoolLimits::default()
        },
        seed: getrandom::u64().context("no randomness from the operating system")?,
    };
    let sharing = sharing(&config, options);
    Ok(Some(Opened {
        home,
        config,
        chain,
        listener,
        registry,
        network,
        inbox,
        network_task,
        store,
        tip,
        validator,
        log,
        clock,
        beginning,
        joins,
        checkpoint,
        unchecked,
        sharing,
        files,
    }))
}

/// Number of addresses of other nodes that the operator has named. One list may serve all nodes of
/// a network, so this node may be in it.
fn named_peers(config: &Config, network: &Network) -> Option<NonZeroUsize> {
    let own = format!("/p2p/{}", network.local_peer());
    let others = config.p2p.peers.iter().filter(|peer| !peer.to_string().ends_with(&own));
    NonZeroUsize::new(others.count())
}

/// Compares a checkpoint with the store. Returns it if its block lies below the tip and is not
/// here. A block above the tip is compared when it is committed.
fn check(checkpoint: Checkpoint, store: &Store) -> anyhow::Result<Option<Checkpoint>> {
    match store.block_hash(checkpoint.height)? {
        Kept::Here(hash) => checkpoint.check(checkpoint.height, hash)?,
        Kept::Never => {}
        Kept::NotKept => {
            tracing::warn!(
                "the checkpoint {checkpoint} is not checked before this node fetches its block, \
                 which is below the snapshot or dropped"
            );
            return Ok(Some(checkpoint));
        }
    }
    Ok(None)
}

/// Warns if a home without a consensus key has signed.
fn warn_if_signed(home: &Home) -> anyhow::Result<()> {
    if ConsensusLog::was_used(&home.consensus_log_path())? {
        tracing::warn!(
            "{} is missing, although this home has signed: the node follows and does not sign",
            home.validator_key_path().display()
        );
    }
    Ok(())
}

fn sharing(config: &Config, options: &Options) -> Sharing {
    Sharing {
        keep: config.history.keep,
        is_private: config.p2p.private,
        gone_counts: options.gone_counts.unwrap_or(GONE_COUNTS),
        upload_rate: config.sync.upload_rate,
    }
}

/// Binds the port of RPC. Warns if strangers may reach it.
async fn bind_rpc(config: &Config, connections_max: usize) -> anyhow::Result<RpcListener> {
    let listener = rpc::bind(&rpc::RpcConfig {
        listen: config.rpc.listen,
        allowed_hosts: config.rpc.allowed_hosts.clone(),
        allowed_origins: config.rpc.allowed_origins.clone(),
        connections_max,
    })
    .await?;
    if !config.rpc.listen.ip().is_loopback() {
        tracing::warn!(
            "RPC listens on {}, not only on loopback: whoever can reach this address may use it",
            config.rpc.listen
        );
    }
    Ok(listener)
}

fn network_config(
    home: &Home,
    config: &Config,
    chain: &Chain,
    descriptors: &Descriptors,
) -> anyhow::Result<NetworkConfig> {
    Ok(NetworkConfig {
        identity: home.node_key()?.identity(),
        chain: chain.id().to_string(),
        listen: vec![config.p2p.listen.0.clone()],
        external: config.p2p.external.iter().map(|address| address.0.clone()).collect(),
        store: Some(home.peers_path()),
        bootstrap: config.p2p.peers.iter().map(|peer| peer.0.clone()).collect(),
        name_server: None,
        mdns: config.p2p.mdns,
        private: config.p2p.private,
        small_mesh: config.p2p.small,
        limits: descriptors.limits(network::Limits::default()),
        data_rate: config.sync.upload_rate.and_then(NonZeroU64::new),
        faults: chain.genesis().is_local_template(),
    })
}

/// The consensus key of a home, its log, and the log's content. Without a key the log is not
/// opened.
fn open_log(home: &Home) -> anyhow::Result<(Option<SigningKey>, Option<ConsensusLog>, Log)> {
    match home.validator_key()? {
        Some(seed) => {
            let (log, found) = ConsensusLog::open(&home.consensus_log_path())?;
            Ok((Some(seed.signing_key()), Some(log), found))
        }
        None => Ok((None, None, Log::Intact(Height(0), Vec::new()))),
    }
}
