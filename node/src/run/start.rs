//! The second step: connects the parts of an opened node by bounded channels, and starts them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use ledger::chain::Chain;
use ledger::signature::PublicKey;
use ledger::store::{SnapshotInfo, Snapshots, Staging, Store};
use ledger::units::Height;
use prometheus_client::registry::Registry;
use protocol::Quorum;
use protocol::archive::Keep;
use protocol::message::CertifiedHeader;
use protocol::swarm::{Join, Rates};
use tokio::sync::{Notify, broadcast, mpsc, watch};

use super::files::{self, Files};
use super::join::{ARCHIVE, DRIVER, Running, SNAPSHOTS, SYNC};
use super::open::Opened;
use super::operator::Operator;
use crate::checkpoint::Checkpoint;
use crate::clock::Clock;
use crate::config::Config;
use crate::driver::archive::{self, Sharing};
use crate::driver::audit::Auditor;
use crate::driver::find::{self, TO_FIND, ToFind};
use crate::driver::joining::Joining;
use crate::driver::live::{self, Driver, Joined, ToArchive};
use crate::driver::peer_numbers::PeerNumbers;
use crate::driver::snapshots::{self, Offers, Writing};
use crate::driver::swarm::{self, Backfill, Shell, ToSwarm};
use crate::home::Home;
use crate::network::{Gossip, Network};
use crate::rpc::RpcListener;
use crate::shared_files::{SharedFiles, ToFiles};
use crate::space::Disk;
use crate::submission::{SUBMISSIONS, Submission};
use crate::tasks::{Tasks, ThreadEnd, spawn_thread};
use crate::verifier::Verified;
use crate::view::{Activity, ArchiveView, Journal, Query, SyncView, TipView, View};
use crate::{metrics, progress, rpc, space, verifier};

/// Most queries that wait for the driver. Beyond it a query is refused as busy.
const QUERIES: usize = 1_024;
/// Most blocks that a slow subscriber may fall behind before it loses some.
const BLOCKS: usize = 256;
/// Most plans and segments from sync that wait for the driver.
const FROM_SYNC: usize = 2;
/// Most messages of the archive that wait for sync. The archive waits while it is full.
const FROM_ARCHIVE: usize = 16;

/// Starts all parts: first the verifier, RPC and the parts that only watch, then sync, and last the
/// driver.
///
/// # Errors
/// Staged segments cannot be opened, or a thread cannot be started.
pub(super) fn start(opened: Opened, operator: &Operator) -> anyhow::Result<Running> {
    let Opened { home, config, chain, store, network, inbox, clock, mut registry, .. } = opened;
    let (rpc_address, tip) = (opened.listener.address(), opened.tip.clone());
    let role = role(opened.validator.as_ref(), &chain, tip.state.tip().height);
    let (sharing, keep) = (opened.sharing, opened.sharing.keep);
    let (view, ends) = connect(&chain, &store, opened.validator, opened.tip, &network, keep);
    let (stop, stopping) = watch::channel(false);
    let mut tasks = watch_node(&home, &view, ends.disk, &stopping);
    let verified = start_verifier(&mut tasks, &chain, inbox.transactions, ends.submissions);
    let search = (clock, ends.seeking, stopping.clone());
    let to_find = start_find(&mut tasks, &view, &network, operator, search, &mut registry)?;
    start_rpc(&mut tasks, &home, opened.listener, &view, registry, &stopping);
    let (snapshots, offers, kept) = start_snapshots(&mut tasks, &home, &view, clock, &stopping)?;
    let (peers, height, id) = (PeerNumbers::default(), store.tip().0, chain.id());
    let (to_driver, from_sync) = mpsc::channel(FROM_SYNC);
    let (staging, found) = Staging::open(&home.sync_path(), chain.history_rules())?;
    let (files, to_files) = start_files(&mut tasks, opened.files, &stopping);
    let parts = swarm::Parts {
        clock,
        store: store.clone(),
        staging,
        found,
        snapshots,
        home: home.root().to_owned(),
        join: opened.joins.map(|_| join(opened.checkpoint)),
        unchecked: opened.unchecked,
        backfill: open_backfill(&mut tasks, &home, &view, keep, ends.executed, &stopping)?,
        state: tip.state.clone(),
        files,
        rates: rates(&config),
        network: network.clone(),
        peers: peers.clone(),
        view: ends.sync,
        driver: to_driver,
    };
    let (to_archive, from_archive) =
        start_archive(&mut tasks, &view, sharing, &network, clock, ends.archive, &stopping)?;
    let inputs = swarm::Inputs {
        links: inbox.links,
        tip: view.tip,
        target: ends.target,
        join: ends.join_target,
        snapshots: kept,
        archive: from_archive,
        files: to_files,
        stop: stopping.clone(),
    };
    tasks.add_thread(SYNC, start_sync(parts, inputs)?);
    let joining = opened.joins.map(|named| {
        let (network, peers, tip) = (network.clone(), peers.clone(), tip.clone());
        Joining::new(network, peers, tip, ends.join, opened.validator.is_some(), named.get())
    });
    let to_network = network.clone();
    let begin = move |tip: &TipView| live::Parts {
        clock,
        machine: opened.beginning.machine(tip, clock),
        store,
        log: opened.log,
        network: to_network,
        peers,
        outputs: ends.outputs,
        checkpoint: opened.checkpoint,
        snapshots: offers,
        archive: to_archive,
        find: to_find,
    };
    let inputs = live::Inputs {
        consensus: inbox.consensus,
        headers: inbox.headers,
        events: inbox.events,
        verified,
        queries: ends.queries,
        sync: from_sync,
        stop: stopping,
    };
    tasks.add_thread(DRIVER, spawn_thread("driver", move || drive(joining, tip, begin, inputs))?);
    tracing::info!("node of chain {id} at height {height}, RPC on http://{rpc_address}, {role}");
    tasks.add("the network", opened.network_task);
    Ok(Running { tasks, stop, network })
}

/// Starts the archive. Returns the way of the driver to it, and what it tells sync.
fn start_archive(
    tasks: &mut Tasks,
    view: &View,
    sharing: Sharing,
    network: &Network,
    clock: Clock,
    shown: watch::Sender<Arc<ArchiveView>>,
    stop: &watch::Receiver<bool>,
) -> anyhow::Result<(mpsc::Sender<ToArchive>, mpsc::Receiver<ToSwarm>)> {
    let (to_archive, inbox) = mpsc::channel(live::TO_ARCHIVE);
    let (swarm, from_archive) = mpsc::channel(FROM_ARCHIVE);
    let parts = archive::Parts {
        clock,
        chain: Arc::clone(&view.chain),
        store: view.store.clone(),
        network: network.clone(),
        sharing,
        inbox,
        swarm,
        tip: view.tip.clone(),
        sync: view.sync.clone(),
        view: shown,
        stop: stop.clone(),
    };
    tasks.add_thread(ARCHIVE, spawn_thread("archive", move || archive::run(parts))?);
    Ok((to_archive, from_archive))
}

/// Starts the task that searches, and lets the operator ask it and the view. Returns the way to the
/// task.
fn start_find(
    tasks: &mut Tasks,
    view: &View,
    network: &Network,
    operator: &Operator,
    (clock, seeking, stop): (Clock, watch::Sender<Option<String>>, watch::Receiver<bool>),
    registry: &mut Registry,
) -> anyhow::Result<mpsc::Sender<ToFind>> {
    let (to_find, inbox) = mpsc::channel(TO_FIND);
    let parts = find::Parts {
        clock,
        network: network.clone(),
        view: view.clone(),
        seeking,
        floods: view.chain.genesis().is_local_template(),
        meters: find::Meters::new(registry),
        inbox,
        stop,
    };
    let seed = getrandom::u64().context("no randomness from the system")?;
    tasks.add("the search", tokio::spawn(find::run(parts, seed)));
    operator.on_view(view.clone());
    operator.on_find(to_find.clone());
    Ok(to_find)
}

/// Joins the chain if the node has no blocks yet, then drives the machine of `live` from there.
async fn drive(
    joining: Option<Joining>,
    tip: TipView,
    begin: impl FnOnce(&TipView) -> live::Parts,
    mut inputs: live::Inputs,
) -> anyhow::Result<()> {
    let joined = match joining {
        Some(joining) => joining.run(&mut inputs).await,
        None => Some(Joined::default()),
    };
    // Without an outcome the node is stopping.
    let Some(joined) = joined else { return Ok(()) };
    let parts = begin(joined.tip.as_ref().unwrap_or(&tip));
    Driver::new(parts)?.run(inputs, joined).await
}

fn join(checkpoint: Option<Checkpoint>) -> Join {
    Join { checkpoint: checkpoint.map(|checkpoint| (checkpoint.height, checkpoint.hash)) }
}

/// Starts the task that verifies signatures. Its results come in the channel.
fn start_verifier(
    tasks: &mut Tasks,
    chain: &Chain,
    gossip: mpsc::Receiver<Gossip>,
    submissions: mpsc::Receiver<Submission>,
) -> mpsc::Receiver<Verified> {
    let (sender, verified) = mpsc::channel(verifier::RESULTS);
    let verifier = tokio::spawn(verifier::run(chain.id(), gossip, submissions, sender));
    tasks.add("the verifier", verifier);
    verified
}

/// Serves RPC, with the metrics of the network and of the node.
fn start_rpc(
    tasks: &mut Tasks,
    home: &Home,
    listener: RpcListener,
    view: &View,
    mut registry: Registry,
    stop: &watch::Receiver<bool>,
) {
    metrics::register(&mut registry, view.clone(), disk(home));
    let server = rpc::serve(listener, view.clone(), registry, wait_for(stop.clone()));
    tasks.add("the RPC server", server);
}

/// Starts the tasks that only watch: the progress bar, and the space on the disk.
fn watch_node(
    home: &Home,
    view: &View,
    disk: watch::Sender<Disk>,
    stop: &watch::Receiver<bool>,
) -> Tasks {
    let mut tasks = Tasks::default();
    let progress = progress::run(view.clone(), wait_for(stop.clone()));
    tasks.add("the progress bar", tokio::spawn(progress));
    let space = space::watch(home.root().to_owned(), disk, wait_for(stop.clone()));
    tasks.add("the watch on free space", tokio::spawn(space));
    tasks
}

/// The limits of what the node sends and fetches.
fn rates(config: &Config) -> Rates {
    Rates {
        upload: config.sync.upload_rate,
        download: config.sync.download_rate,
        file_upload: config.files.upload_rate,
        file_download: config.files.download_rate,
    }
}

/// Starts the check of files that may be damaged. Returns the files, and what they tell sync.
fn start_files(
    tasks: &mut Tasks,
    files: Option<Files>,
    stop: &watch::Receiver<bool>,
) -> (Option<SharedFiles>, mpsc::Receiver<ToFiles>) {
    let Some(Files { store, messages }) = files else {
        return (None, mpsc::channel(1).1);
    };
    let check = files::check(store.clone(), wait_for(stop.clone()));
    tasks.add("the check of files", tokio::spawn(check));
    (Some(store), messages)
}

/// Opens what is fetched of the blocks below the tip. A node that keeps all of them executes them,
/// too.
fn open_backfill(
    tasks: &mut Tasks,
    home: &Home,
    view: &View,
    keep: Keep,
    executed: watch::Sender<Height>,
    stop: &watch::Receiver<bool>,
) -> anyhow::Result<Backfill> {
    let placed = Arc::new(Notify::new());
    let keeps_all = keep == Keep::Full;
    if keeps_all {
        start_audit(tasks, home, view, &placed, executed, stop)?;
    } else {
        archive::drop_parts(&view.store, &view.tip.borrow());
    }
    let rules = view.chain.history_rules();
    Ok(Backfill::open(home.backfill_path(), rules, placed, keeps_all))
}

/// Starts the thread that executes the blocks before a snapshot. `kept` wakes it when a segment is
/// in its place.
fn start_audit(
    tasks: &mut Tasks,
    home: &Home,
    view: &View,
    kept: &Arc<Notify>,
    executed: watch::Sender<Height>,
    stop: &watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let auditor = Auditor {
        chain: Arc::clone(&view.chain),
        store: view.store.clone(),
        folder: home.audit_path(),
        failed: home.audit_failed_path(),
        tip: view.tip.clone(),
        kept: Arc::clone(kept),
        executed,
        stop: stop.clone(),
    };
    tasks.add_thread("the audit", spawn_thread("audit", move || auditor.run())?);
    Ok(())
}

fn start_sync(parts: swarm::Parts, inputs: swarm::Inputs) -> anyhow::Result<ThreadEnd> {
    let (shell, done) = Shell::new(parts)?;
    shell.spawn(inputs, done)
}

/// The list of all whole snapshots, after each change.
type SnapshotLists = watch::Receiver<Vec<Arc<SnapshotInfo>>>;

/// Opens the snapshots, says which files are none, and starts the thread that writes new ones.
fn start_snapshots(
    tasks: &mut Tasks,
    home: &Home,
    view: &View,
    clock: Clock,
    stop: &watch::Receiver<bool>,
) -> anyhow::Result<(Snapshots, Arc<Offers>, SnapshotLists)> {
    let tip = Arc::clone(&view.tip.borrow());
    let (snapshots, problems) = Snapshots::open(&home.snapshots_path(), tip.state.chain());
    for problem in problems {
        tracing::warn!("a snapshot in {} cannot be used: {problem}", home.root().display());
    }
    let Writing { offers, kept, thread } = snapshots::spawn(snapshots::Parts {
        snapshots: snapshots.clone(),
        store: view.store.clone(),
        clock,
        home: home.root().to_owned(),
        stop: stop.clone(),
    })?;
    offers.offer(&tip);
    tasks.add_thread(SNAPSHOTS, thread);
    Ok((snapshots, offers, kept))
}

/// The ends of the view's channels that other parts hold.
struct Ends {
    outputs: live::Outputs,
    sync: watch::Sender<Arc<SyncView>>,
    target: watch::Receiver<Option<CertifiedHeader>>,
    join: watch::Sender<Option<CertifiedHeader>>,
    join_target: watch::Receiver<Option<CertifiedHeader>>,
    queries: mpsc::Receiver<Query>,
    submissions: mpsc::Receiver<Submission>,
    disk: watch::Sender<Disk>,
    executed: watch::Sender<Height>,
    archive: watch::Sender<Arc<ArchiveView>>,
    seeking: watch::Sender<Option<String>>,
}

/// Makes the view for readers, and the ends of its channels for the parts that write them.
fn connect(
    chain: &Arc<Chain>,
    store: &Store,
    validator: Option<PublicKey>,
    tip: TipView,
    network: &Network,
    keep: Keep,
) -> (View, Ends) {
    let (tip_sender, tip) = watch::channel(Arc::new(tip));
    let (sync_sender, sync) = watch::channel(Arc::new(SyncView::default()));
    let (activity_sender, activity) = watch::channel(Activity::default());
    let quorum = Quorum { ok: true, missing: Vec::new(), since_ms: None };
    let (quorum_sender, quorum) = watch::channel(quorum);
    let (blocks, _) = broadcast::channel(BLOCKS);
    let (queries_sender, queries) = mpsc::channel(QUERIES);
    let (submissions_sender, submissions) = mpsc::channel(SUBMISSIONS);
    let (target_sender, target) = watch::channel(None);
    let (join, join_target) = watch::channel(None);
    let (disk_sender, disk) = watch::channel(Disk::default());
    let (executed_sender, executed) = watch::channel(Height(0));
    let view = ArchiveView { keep, ..ArchiveView::default() };
    let (seeking_sender, seeking) = watch::channel(None);
    let (archive_sender, archive) = watch::channel(Arc::new(view));
    let journal = Arc::new(Journal::default());
    let outputs = live::Outputs {
        tip: tip_sender,
        activity: activity_sender,
        quorum: quorum_sender,
        blocks: blocks.clone(),
        journal: Arc::clone(&journal),
        target: target_sender,
    };
    let view = View {
        chain: Arc::clone(chain),
        store: store.clone(),
        validator,
        tip,
        activity,
        quorum,
        sync,
        peers: network.peers(),
        accounts: network.accounts().clone(),
        bans: network.bans(),
        faults: network.faults(),
        blocks,
        queries: queries_sender,
        submissions: submissions_sender,
        journal,
        uploaded: network.uploaded().clone(),
        disk,
        executed,
        archive,
        seeking,
        started: Instant::now(),
    };
    let ends = Ends {
        outputs,
        sync: sync_sender,
        target,
        join,
        join_target,
        queries,
        submissions,
        disk: disk_sender,
        executed: executed_sender,
        archive: archive_sender,
        seeking: seeking_sender,
    };
    (view, ends)
}

/// The role of the node on its chain, for the log.
fn role(validator: Option<&PublicKey>, chain: &Chain, tip: Height) -> &'static str {
    match validator {
        Some(key) if chain.validators(tip.next()).find(key).is_some() => "validator",
        Some(_) => "full node: its validator key is not in the genesis",
        None => "full node: its home has no validator_key",
    }
}

/// The files whose sizes metrics show.
fn disk(home: &Home) -> Vec<(&'static str, PathBuf)> {
    vec![
        ("store", home.db_path()),
        ("sync", home.sync_path()),
        ("backfill", home.backfill_path()),
        ("consensus_log", home.consensus_log_path()),
    ]
}

async fn wait_for(mut stop: watch::Receiver<bool>) {
    let _sender_gone = stop.wait_for(|stop| *stop).await;
}
