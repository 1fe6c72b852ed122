//! A running node: opens everything, starts every task, and stops them in order.

use std::future::Future;
use std::num::NonZeroU64;
use std::sync::Arc;

use anyhow::Context;
use ledger::chain::Chain;
use ledger::store::{Opened, Staging, Store};
use ledger::units::Height;
use prometheus_client::registry::Registry;
use protocol::mempool::MempoolLimits;
use protocol::{Log, Machine, Setup};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::config::Config;
use crate::consensus_log::ConsensusLog;
use crate::driver::{Driver, Inputs, Outputs, Parts};
use crate::home::Home;
use crate::network::{self, NetworkConfig};
use crate::peer_numbers::PeerNumbers;
use crate::view::{Activity, Journal, SyncView, TipView, View};
use crate::{rpc, submission, sync, verifier};

/// Questions that wait for the driver; beyond this, askers are told to try again.
const QUERIES: usize = 1_024;
/// New blocks that a slow subscriber may be behind before it loses some.
const BLOCKS: usize = 256;

/// What sync has for the driver.
const FROM_SYNC: usize = 2;

/// How to run, beyond the configuration.
#[derive(Debug, Default)]
pub struct Options {
    /// Resolves when the process that started this one has gone.
    pub parent: Option<oneshot::Receiver<()>>,
    /// Sign although the consensus log is lost.
    pub sign_without_log: bool,
}

/// Runs the node of a home until SIGINT, SIGTERM or the parent's end, or until it cannot go on.
///
/// # Errors
/// When something cannot be opened or started, the disk refuses, or consensus must stop.
pub async fn run(home: Home, config: Config, options: Options) -> anyhow::Result<()> {
    let _lock = home.lock()?;
    let stop = stop_signal(options.parent)?;
    let chain = Chain::new(home.genesis()?);
    let listener = rpc::bind(&rpc::RpcConfig {
        listen: config.rpc.listen,
        allowed_hosts: config.rpc.allowed_hosts.clone(),
        allowed_origins: config.rpc.allowed_origins.clone(),
    })
    .await?;
    if !config.rpc.listen.ip().is_loopback() {
        tracing::warn!("RPC answers on {}: whoever reaches it may use it", config.rpc.listen);
    }
    let mut registry = Registry::default();
    let network_config = NetworkConfig {
        identity: home.node_key()?.identity(),
        chain: chain.id().to_string(),
        listen: vec![config.p2p.listen.0.clone()],
        external: Vec::new(),
        bootstrap: config.p2p.peers.iter().map(|peer| peer.0.clone()).collect(),
        mdns: config.p2p.mdns,
        private: config.p2p.private,
        small_mesh: config.p2p.small,
        limits: network::Limits::default(),
        data_rate: config.sync.upload_rate.and_then(NonZeroU64::new),
    };
    // First, so that connections are made while the store opens; what they bring waits, as far as there is room.
    let (network, inbox, mut network_task) = network::start(network_config, &mut registry)?;

    let Opened { store, state, certificate } = Store::open(&home.db_path(), &chain)?;
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
        Some(_) => "full node: its validator key is not one of the genesis",
        None => "full node",
    };
    let state_at_start = state.clone();
    let tip = TipView { state: state.clone(), certificate: certificate.clone(), header: header.clone() };
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
    };
    let machine = Machine::new(setup, clock.now());

    let (tip_sender, tip) = watch::channel(Arc::new(tip));
    let sync_tip = tip.clone();
    let (sync_sender, sync_view) = watch::channel(Arc::new(SyncView::default()));
    let (activity_sender, activity) = watch::channel(Activity::default());
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
        sync: sync_view,
        peers: network.peers(),
        blocks: blocks.clone(),
        queries: queries_sender,
        submissions: submissions_sender,
        journal: Arc::clone(&journal),
    };

    let mut verifier_task = tokio::spawn(verifier::run(chain.id(), inbox.transactions, submissions, verified_sender));
    crate::metrics::register(&mut registry, view.clone());
    let progress = tokio::spawn(crate::progress::run(view.clone(), wait_for(stop_receiver.clone())));
    let mut rpc_task = rpc::serve(listener, view, Arc::new(registry), wait_for(stop_receiver.clone()));

    let (target_sender, target) = watch::channel(None);
    let outputs = Outputs { tip: tip_sender, activity: activity_sender, blocks, journal, target: target_sender };
    let peers = PeerNumbers::default();
    let log_height = store.tip().0;
    let (to_driver, from_sync) = mpsc::channel(FROM_SYNC);
    let (staging, found) = Staging::open(&home.sync_path(), chain.history_rules())?;
    let (shell, assembled) = sync::Shell::new(sync::Parts {
        clock,
        store: store.clone(),
        staging,
        found,
        state: state_at_start,
        rates: protocol::sync::Rates { upload: config.sync.upload_rate, download: config.sync.download_rate },
        network: network.clone(),
        peers: peers.clone(),
        view: sync_sender,
        driver: to_driver,
    })?;
    let sync_inputs = sync::Inputs { links: inbox.links, tip: sync_tip, target, stop: stop_receiver.clone() };
    let mut sync_end = shell.spawn(sync_inputs, assembled)?;
    let driver = Driver::new(Parts { clock, machine, store, log, network: network.clone(), peers, outputs })?;
    let inputs = Inputs {
        consensus: inbox.consensus,
        headers: inbox.headers,
        events: inbox.events,
        verified,
        queries,
        sync: from_sync,
        stop: stop_receiver,
    };
    let mut driver_end = spawn_driver(driver, inputs)?;
    tracing::info!(
        "node of chain {} at height {log_height}, RPC on http://{}, {}",
        chain.id(),
        config.rpc.listen,
        role,
    );

    // Whatever ends first ends the node; a task ends early only by a panic, whose message is on stderr.
    let result = tokio::select! {
        () = stop => Ok(()),
        end = &mut driver_end => end.unwrap_or_else(|_| Err(anyhow::anyhow!("the driver panicked"))),
        end = &mut sync_end => end.unwrap_or_else(|_| Err(anyhow::anyhow!("the thread of sync panicked"))),
        end = &mut network_task => Err(anyhow::anyhow!("the network task ended: {end:?}")),
        end = &mut verifier_task => Err(anyhow::anyhow!("the verifier task ended: {end:?}")),
        end = &mut rpc_task => Err(anyhow::anyhow!("the RPC task ended: {end:?}")),
    };
    let _none_left = stop_sender.send(true);
    if result.is_ok() {
        driver_end.await.context("the driver panicked")??;
        sync_end.await.context("the thread of sync panicked")??;
    }
    network.shutdown().await;
    progress.await.context("the progress bar panicked")?;
    tracing::info!("stopped");
    result
}

/// The driver blocks for disk writes, so it has a thread of its own; its end is the node's.
fn spawn_driver(driver: Driver, inputs: Inputs) -> anyhow::Result<oneshot::Receiver<anyhow::Result<()>>> {
    let (sender, receiver) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new()
        .name("driver".to_owned())
        .spawn(move || {
            // Dropped by a panic, the sender says so.
            let _nobody_waits = sender.send(runtime.block_on(driver.run(inputs)));
        })
        .context("cannot start the driver's thread")?;
    Ok(receiver)
}

async fn wait_for(mut stop: watch::Receiver<bool>) {
    let _sender_gone = stop.wait_for(|stop| *stop).await;
}

/// Resolves at SIGINT, SIGTERM or when the parent has gone.
fn stop_signal(parent: Option<oneshot::Receiver<()>>) -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    Ok(async move {
        let parent = async {
            match parent {
                Some(parent) => drop(parent.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = parent => {}
        }
    })
}
