//! Runs a node: opens its files, starts its tasks, and stops them in order.

use std::future::pending;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ledger::chain::Chain;
use ledger::store::{Opened, Staging, Store};
use ledger::units::Height;
use prometheus_client::registry::Registry;
use protocol::live::mempool::MempoolLimits;
use protocol::{Log, Machine, Quorum, Setup};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::config::Config;
use crate::consensus_log::ConsensusLog;
use crate::descriptors::Descriptors;
use crate::driver::live::{Driver, Inputs, Outputs, Parts};
use crate::driver::peer_numbers::PeerNumbers;
use crate::driver::swarm;
use crate::home::Home;
use crate::network::{self, NetworkConfig};
use crate::signals::StopSignals;
use crate::tasks::{Tasks, spawn_thread};
use crate::view::{Activity, Journal, SyncView, TipView, View};
use crate::{rpc, space, submission, verifier};

/// Most queries that wait for the driver. Beyond it a query is refused as busy.
const QUERIES: usize = 1_024;
/// Most blocks that a slow subscriber may fall behind before it loses some.
const BLOCKS: usize = 256;

/// Most plans and segments from sync that wait for the driver.
const FROM_SYNC: usize = 2;

/// How long the driver and sync may take to end: a write that has begun is made durable first.
const END_MAX: Duration = Duration::from_secs(60);
/// How long all other parts may take after that. They write nothing to disk.
const REST_MAX: Duration = Duration::from_millis(500);
/// Names of the parts that get [`END_MAX`].
const DRIVER: &str = "the driver";
const SYNC: &str = "sync";

/// Options that are not in the configuration.
#[derive(Debug, Default)]
pub struct Options {
    /// Resolves when the parent process has gone.
    pub parent: Option<oneshot::Receiver<()>>,
    /// Sign although the consensus log is lost. Unsafe if the key may have signed above the tip.
    pub sign_without_log: bool,
}

/// Runs the node of a home until a signal stops it, its parent ends, or it cannot go on.
///
/// # Errors
/// A part cannot be opened or started, the disk refuses, or consensus must stop.
pub async fn run(home: Home, config: Config, options: Options) -> anyhow::Result<()> {
    let _lock = home.lock()?;
    let mut stop = Stop { signals: StopSignals::listen()?, parent: options.parent };
    let descriptors = Descriptors::prepare(
        network::Limits::default(),
        config.p2p.peers.len(),
        rpc::CONNECTIONS_MAX,
    )?;
    let chain = Chain::new(home.genesis()?);
    let listener = rpc::bind(&rpc::RpcConfig {
        listen: config.rpc.listen,
        allowed_hosts: config.rpc.allowed_hosts.clone(),
        allowed_origins: config.rpc.allowed_origins.clone(),
        connections_max: descriptors.rpc_connections(),
    })
    .await?;
    let rpc_address = listener.address();
    if !config.rpc.listen.ip().is_loopback() {
        tracing::warn!(
            "RPC listens on {}, not only on loopback: whoever can reach this address may use it",
            config.rpc.listen
        );
    }
    let mut registry = Registry::default();
    let network_config = NetworkConfig {
        identity: home.node_key()?.identity(),
        chain: chain.id().to_string(),
        listen: vec![config.p2p.listen.0.clone()],
        external: Vec::new(),
        store: Some(home.peers_path()),
        bootstrap: config.p2p.peers.iter().map(|peer| peer.0.clone()).collect(),
        mdns: config.p2p.mdns,
        private: config.p2p.private,
        small_mesh: config.p2p.small,
        limits: descriptors.limits(network::Limits::default()),
        data_rate: config.sync.upload_rate.and_then(NonZeroU64::new),
    };
    // The network starts first, so that connections are made while the store opens. Messages that
    // arrive meanwhile wait in bounded queues.
    let (network, inbox, network_task) = network::start(network_config, &mut registry)?;

    let (db, to_open) = (home.db_path(), Arc::clone(&chain));
    let opening = tokio::task::spawn_blocking(move || Store::open(&db, &to_open));
    let Opened { store, state, certificate } = tokio::select! {
        opened = opening => opened.context("the store cannot be opened")??,
        // Opening a long chain takes a while. An interrupted opening is continued by the next one.
        reason = stop.next() => {
            tracing::info!("stopped while the store was opened: {reason}");
            network.shutdown().await;
            return Ok(());
        }
    };
    let header = store.header(state.tip().height)?;
    let key = home.validator_key()?.map(|seed| seed.signing_key());
    let (log, found) = match &key {
        Some(_) => {
            let (log, found) = ConsensusLog::open(&home.consensus_log_path())?;
            (Some(log), found)
        }
        None => (None, Log::Intact(Height(0), Vec::new())),
    };
    let clock = Clock::start();
    let validator = key.as_ref().map(|key| key.public());
    let role = match &validator {
        Some(key) if chain.validators(state.tip().height.next()).find(key).is_some() => "validator",
        Some(_) => "full node: its validator key is not in the genesis",
        None => "full node: its home has no validator_key",
    };
    if validator.is_none() && ConsensusLog::was_used(&home.consensus_log_path())? {
        tracing::warn!(
            "{} is missing, although this home has signed: the node follows and does not sign",
            home.validator_key_path().display()
        );
    }
    let state_at_start = state.clone();
    let tip =
        TipView { state: state.clone(), certificate: certificate.clone(), header: header.clone() };
    let limits = MempoolLimits {
        bytes_max: usize::try_from(config.mempool.bytes_max).unwrap_or(usize::MAX),
        ..MempoolLimits::default()
    };
    let setup = Setup {
        chain: state,
        header,
        certificate,
        key,
        log: found,
        sign_without_log: options.sign_without_log,
        mempool: limits,
        seed: getrandom::u64().context("no randomness from the operating system")?,
    };
    let machine = Machine::new(setup, clock.now());

    let (tip_sender, tip) = watch::channel(Arc::new(tip));
    let sync_tip = tip.clone();
    let (sync_sender, sync_view) = watch::channel(Arc::new(SyncView::default()));
    let (activity_sender, activity) = watch::channel(Activity::default());
    let (quorum_sender, quorum) =
        watch::channel(Quorum { ok: true, missing: Vec::new(), since_ms: None });
    let (blocks, _) = broadcast::channel(BLOCKS);
    let (queries_sender, queries) = mpsc::channel(QUERIES);
    let (submissions_sender, submissions) = mpsc::channel(submission::SUBMISSIONS);
    let (verified_sender, verified) = mpsc::channel(verifier::RESULTS);
    let (stop_sender, stop_receiver) = watch::channel(false);
    let journal = Arc::new(Journal::default());
    let view = View {
        chain: Arc::clone(&chain),
        store: store.clone(),
        validator,
        tip,
        activity,
        quorum,
        sync: sync_view,
        peers: network.peers(),
        accounts: network.accounts().clone(),
        bans: network.bans(),
        blocks: blocks.clone(),
        queries: queries_sender,
        submissions: submissions_sender,
        journal: Arc::clone(&journal),
    };

    let verifier_task =
        tokio::spawn(verifier::run(chain.id(), inbox.transactions, submissions, verified_sender));
    let disk = vec![
        ("store", home.db_path()),
        ("sync", home.sync_path()),
        ("consensus_log", home.consensus_log_path()),
    ];
    crate::metrics::register(&mut registry, view.clone(), disk);
    let progress =
        tokio::spawn(crate::progress::run(view.clone(), wait_for(stop_receiver.clone())));
    let space = tokio::spawn(space::watch(home.root().to_owned(), wait_for(stop_receiver.clone())));
    let rpc_task = rpc::serve(listener, view, registry, wait_for(stop_receiver.clone()));

    let (target_sender, target) = watch::channel(None);
    let outputs = Outputs {
        tip: tip_sender,
        activity: activity_sender,
        quorum: quorum_sender,
        blocks,
        journal,
        target: target_sender,
    };
    let peers = PeerNumbers::default();
    let log_height = store.tip().0;
    let (to_driver, from_sync) = mpsc::channel(FROM_SYNC);
    let (staging, found) = Staging::open(&home.sync_path(), chain.history_rules())?;
    let (shell, assembled) = swarm::Shell::new(swarm::Parts {
        clock,
        store: store.clone(),
        staging,
        found,
        state: state_at_start,
        rates: protocol::swarm::Rates {
            upload: config.sync.upload_rate,
            download: config.sync.download_rate,
        },
        network: network.clone(),
        peers: peers.clone(),
        view: sync_sender,
        driver: to_driver,
    })?;
    let sync_inputs =
        swarm::Inputs { links: inbox.links, tip: sync_tip, target, stop: stop_receiver.clone() };
    let sync_end = shell.spawn(sync_inputs, assembled)?;
    let driver = Driver::new(Parts {
        clock,
        machine,
        store,
        log,
        network: network.clone(),
        peers,
        outputs,
    })?;
    let inputs = Inputs {
        consensus: inbox.consensus,
        headers: inbox.headers,
        events: inbox.events,
        verified,
        queries,
        sync: from_sync,
        stop: stop_receiver,
    };
    let driver_end = spawn_thread("driver", move || driver.run(inputs))?;
    tracing::info!(
        "node of chain {} at height {log_height}, RPC on http://{}, {}",
        chain.id(),
        rpc_address,
        role,
    );

    let mut tasks = Tasks::default();
    tasks.add_thread(DRIVER, driver_end);
    tasks.add_thread(SYNC, sync_end);
    tasks.add("the network", network_task);
    tasks.add("the verifier", verifier_task);
    tasks.add("the RPC server", rpc_task);
    tasks.add("the progress bar", progress);
    tasks.add("the watch on free space", space);
    let was_asked = tokio::select! {
        reason = stop.next() => {
            tracing::info!("stopping: {reason}");
            true
        }
        () = tasks.any_end() => false,
    };
    let _none_left = stop_sender.send(true);
    if tokio::time::timeout(END_MAX, tasks.await_ends(&[DRIVER, SYNC])).await.is_err() {
        tracing::error!("the driver or sync has not ended after {} s", END_MAX.as_secs());
    }
    network.shutdown().await;
    let result = tasks.outcome(was_asked, REST_MAX).await;
    tracing::info!("stopped");
    result
}

async fn wait_for(mut stop: watch::Receiver<bool>) {
    let _sender_gone = stop.wait_for(|stop| *stop).await;
}

/// The reasons to stop a healthy node.
struct Stop {
    signals: StopSignals,
    parent: Option<oneshot::Receiver<()>>,
}

impl Stop {
    /// Waits for a reason to stop, and returns its name.
    async fn next(&mut self) -> &'static str {
        let parent = async {
            match &mut self.parent {
                Some(parent) => drop(parent.await),
                None => pending().await,
            }
        };
        tokio::select! {
            name = self.signals.next() => name,
            () = parent => "the parent process has ended",
        }
    }
}
