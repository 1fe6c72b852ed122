//! Performs segmented sync: links to peers, staging on disk, verification on all cores, blocks for
//! the driver.
//!
//! It runs on its own thread, so that neither consensus waits for history nor history for
//! consensus. [`protocol::swarm`] decides; this module performs. Protocol: `docs/protocol/sync.md`.

mod assembly;
mod backfill;
mod files;
mod loading;
mod serving;
mod storing;
mod suppliers;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::ready;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ledger::chain::{Chain, ChainState};
use ledger::hash::SnapshotId;
use ledger::history::{HistoryRules, SegmentDescriptor};
use ledger::store::{Found, SnapshotInfo, Snapshots, Staging, Store, StoreError};
use ledger::units::{Height, SegmentIndex};
use protocol::budget::Cost;
use protocol::message::CertifiedHeader;
use protocol::swarm::message::{
    CHUNK_HEADER_BYTES, ChunkId, DESCRIPTORS_MAX, SegmentId, SyncMessage,
};
use protocol::swarm::{BACKFILL, Effect, Input, Join, Rates, Setup, Swarm};
use protocol::{FetchPlan, Offence, PeerId};
use tokio::sync::{mpsc, oneshot, watch};

use super::blame::charge;
use super::live::ToDriver;
use super::peer_numbers::PeerNumbers;
use super::priority::patient_threads;
use crate::checkpoint::Checkpoint;
use crate::clock::{Clock, wall_ms};
use crate::network::{self, LinkEvent, Network, Service};
use crate::shared_files::{SharedFiles, ToFiles};
use crate::view::{SyncView, TipView};
use assembly::Assembled;
pub(crate) use backfill::{Backfill, ToSwarm};
use files::Files;
use loading::{Loaded, Loading};
use suppliers::Suppliers;

/// Time between two updates of the view while something happens.
const SHOW_EVERY: Duration = Duration::from_millis(100);
/// Most assembled segments that wait for this thread. The machine has fewer in assembly.
const ASSEMBLED: usize = 8;

/// Everything that sync starts with.
pub(crate) struct Parts {
    pub(crate) clock: Clock,
    pub(crate) store: Store,
    pub(crate) staging: Staging,
    pub(crate) found: Vec<Found>,
    pub(crate) backfill: Backfill,
    /// The files of the home; `None` if files are off.
    pub(crate) files: Option<SharedFiles>,
    pub(crate) snapshots: Snapshots,
    /// The folder whose disk must have room for a snapshot.
    pub(crate) home: PathBuf,
    /// How the chain begins with a snapshot, if it does.
    pub(crate) join: Option<Join>,
    /// A block that the chain must contain, if it lies below the tip and is not here.
    pub(crate) unchecked: Option<Checkpoint>,
    pub(crate) state: ChainState,
    pub(crate) rates: Rates,
    pub(crate) network: Network,
    pub(crate) peers: PeerNumbers,
    pub(crate) view: watch::Sender<Arc<SyncView>>,
    /// Plans and segments for `live`. At most one plan and one segment wait in [`Shell`] until this
    /// channel has room.
    pub(crate) driver: mpsc::Sender<ToDriver>,
}

/// The inputs, except time.
pub(crate) struct Inputs {
    pub(crate) links: mpsc::Receiver<LinkEvent>,
    /// The committed tip.
    pub(crate) tip: watch::Receiver<Arc<TipView>>,
    /// A certified header far ahead of the tip.
    pub(crate) target: watch::Receiver<Option<CertifiedHeader>>,
    /// A certified header far ahead of a chain without blocks: a snapshot below it is loaded.
    pub(crate) join: watch::Receiver<Option<CertifiedHeader>>,
    /// All whole snapshots of this node.
    pub(crate) snapshots: watch::Receiver<Vec<Arc<SnapshotInfo>>>,
    /// Which eras to fetch, and which are gone.
    pub(crate) archive: mpsc::Receiver<ToSwarm>,
    /// Which files to serve and to fetch. Closed if files are off.
    pub(crate) files: mpsc::Receiver<ToFiles>,
    /// Becomes true when the node must stop.
    pub(crate) stop: watch::Receiver<bool>,
}

/// Work that another thread has done.
#[derive(Debug)]
pub(crate) enum Done {
    Assembled(Assembled),
    /// A segment of backfill, and the chunks of it that are damaged in staging. If there are none,
    /// it is in its place.
    Placed(SegmentIndex, Result<Vec<u32>, StoreError>),
    Loaded(Box<Loaded>),
    /// The file of this snapshot could not be read.
    NotLoaded(SnapshotId),
}

pub(crate) struct Shell {
    clock: Clock,
    chain: Arc<Chain>,
    rules: HistoryRules,
    store: Store,
    staging: Staging,
    loading: Loading,
    /// A block below the tip that the chain must contain. It is compared once it is here.
    unchecked: Option<Checkpoint>,
    /// The whole snapshots that the machine knows.
    offered: BTreeSet<SnapshotId>,
    /// Snapshots whose files are damaged: they are to be removed.
    damaged: Vec<SnapshotId>,
    network: Network,
    machine: Swarm,
    view: watch::Sender<Arc<SyncView>>,
    shown_at: Duration,
    /// Something happened since the view was updated.
    is_unshown: bool,
    shows: SyncView,
    driver: mpsc::Sender<ToDriver>,
    /// The last plan that the driver has not taken yet.
    plan: Option<FetchPlan>,
    segments: VecDeque<ToDriver>,
    peers: PeerNumbers,
    /// Peers with a link, and their numbers.
    linked: HashMap<network::PeerId, PeerId>,
    /// The chunk that came with the current input, its frame and its sender.
    arriving: Option<(ChunkId, Vec<u8>, network::PeerId)>,
    suppliers: Suppliers,
    backfill: Backfill,
    files: Files,
    /// The threads that assemble segments, one for each core.
    assembly: rayon::ThreadPool,
    results: mpsc::Sender<anyhow::Result<Done>>,
    assembled: BTreeMap<SegmentIndex, Assembled>,
    /// Number of segments that the machine knows to be committed.
    sealed: SegmentIndex,
    first_effects: Vec<Effect>,
}

impl Shell {
    pub(crate) fn new(
        parts: Parts,
    ) -> anyhow::Result<(Self, mpsc::Receiver<anyhow::Result<Done>>)> {
        let Parts {
            clock, store, staging, found, state, rates, network, peers, view, driver, ..
        } = parts;
        let chain = Arc::clone(state.chain());
        let nonce = getrandom::u64().context("no randomness from the system")?;
        let manifest = staging.manifest()?;
        let setup = Setup {
            chain: Arc::clone(&chain),
            history: state.history(),
            kept: backfill::kept(&store),
            staged: found,
            manifest,
            nonce,
            rates,
            join: parts.join,
        };
        let (machine, first_effects) = Swarm::new(setup, clock.now().elapsed);
        let (results, assembled) = mpsc::channel(ASSEMBLED);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let shell = Self {
            clock,
            rules: chain.history_rules(),
            chain,
            store,
            staging,
            loading: Loading::new(parts.snapshots, parts.home),
            unchecked: parts.unchecked,
            offered: BTreeSet::new(),
            damaged: Vec::new(),
            network,
            machine,
            shown_at: Duration::ZERO,
            is_unshown: true,
            shows: SyncView { since_ms: wall_ms(), ..SyncView::default() },
            view,
            driver,
            plan: None,
            segments: VecDeque::new(),
            peers,
            linked: HashMap::new(),
            arriving: None,
            suppliers: Suppliers::default(),
            backfill: parts.backfill,
            files: Files::new(parts.files),
            assembly: patient_threads("assembly", cores)?,
            results,
            assembled: BTreeMap::new(),
            sealed: SegmentIndex(state.history().segments()),
            first_effects,
        };
        Ok((shell, assembled))
    }

    /// Runs on its own thread until the node must stop. If it ends, the node stops.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn spawn(
        self,
        inputs: Inputs,
        results: mpsc::Receiver<anyhow::Result<Done>>,
    ) -> anyhow::Result<oneshot::Receiver<anyhow::Result<()>>> {
        let (sender, receiver) = oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new().name("sync".to_owned());
        let work = move || {
            // If a panic drops the sender, the receiver gets an error.
            let _nobody_waits = sender.send(runtime.block_on(self.run(inputs, results)));
        };
        thread.spawn(work).context("cannot start the thread of sync")?;
        Ok(receiver)
    }

    async fn run(
        mut self,
        mut inputs: Inputs,
        mut results: mpsc::Receiver<anyhow::Result<Done>>,
    ) -> anyhow::Result<()> {
        let first = std::mem::take(&mut self.first_effects);
        self.perform(first)?;
        self.on_snapshots(&inputs.snapshots.borrow_and_update().clone())?;
        self.begin_backfill()?;
        self.begin_files()?;
        let mut is_joining = true;
        let driver = self.driver.clone();
        let mut was_timer = false;
        loop {
            self.withdraw()?;
            let now = self.clock.now().elapsed;
            let wait = self.machine.deadline().map(|at| at.saturating_sub(now));
            let show = self.shown_at.saturating_add(SHOW_EVERY).saturating_sub(now);
            let has_output = self.plan.is_some() || !self.segments.is_empty();
            let is_due = wait.is_some_and(|wait| wait.is_zero()) && !was_timer;
            was_timer = false;
            tokio::select! {
                biased;
                _ = inputs.stop.wait_for(|stop| *stop) => return Ok(()),
                Ok(permit) = driver.reserve(), if has_output => {
                    if let Some(output) = self.take_output() {
                        permit.send(output);
                    }
                }
                changed = inputs.tip.changed() => match changed {
                    Ok(()) => self.on_tip(&inputs.tip.borrow_and_update().clone())?,
                    Err(_) => return Ok(()),
                },
                Ok(()) = inputs.target.changed() => {
                    let target = inputs.target.borrow_and_update().clone();
                    if let Some(target) = target {
                        self.give(Input::Certified(target))?;
                    }
                }
                changed = inputs.join.changed(), if is_joining => {
                    let target = inputs.join.borrow_and_update().clone();
                    is_joining = changed.is_ok();
                    match (is_joining, target) {
                        (true, Some(target)) => self.give(Input::Certified(target))?,
                        (true, None) => {}
                        // `live` has begun.
                        (false, _) => self.give(Input::ByHistory)?,
                    }
                }
                Ok(()) = inputs.snapshots.changed() => {
                    let all = inputs.snapshots.borrow_and_update().clone();
                    self.on_snapshots(&all)?;
                }
                Some(message) = inputs.archive.recv() => self.on_archive(message)?,
                Some(message) = inputs.files.recv() => self.on_files(message)?,
                Some(result) = results.recv() => match result? {
                    Done::Assembled(assembled) => self.on_assembled(assembled)?,
                    Done::Placed(index, placed) => self.on_placed(index, placed)?,
                    Done::Loaded(loaded) => self.on_loaded(*loaded)?,
                    Done::NotLoaded(id) => self.on_not_loaded(id)?,
                },
                // A due timer goes before messages, which may arrive without end, but never twice
                // in a row. `ready` is used since even a `sleep` of no time is not ready at once.
                () = ready(()), if is_due => {
                    was_timer = true;
                    self.give(Input::Time)?;
                }
                event = inputs.links.recv() => match event {
                    Some(event) => self.on_link(event)?,
                    // The network reports the cause.
                    None => return Ok(()),
                },
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {
                    self.give(Input::Time)?;
                }
                () = tokio::time::sleep(show), if self.is_unshown => {}
            }
            self.show();
        }
    }

    fn take_output(&mut self) -> Option<ToDriver> {
        self.plan.take().map(ToDriver::Plan).or_else(|| self.segments.pop_front())
    }

    fn on_tip(&mut self, tip: &TipView) -> anyhow::Result<()> {
        let height = tip.state.tip().height;
        let segments = SegmentIndex(tip.state.history().segments());
        let mut sealed: Vec<SegmentDescriptor> = Vec::new();
        while self.sealed < segments {
            let some = self.store.descriptors(self.sealed.0, height.next(), DESCRIPTORS_MAX);
            let some = some.into_iter().filter(|descriptor| descriptor.index < segments.0);
            let before = sealed.len();
            sealed.extend(some);
            anyhow::ensure!(
                sealed.len() > before,
                "segment {} is committed, but not in the store",
                self.sealed
            );
            self.sealed = sealed.last().map_or(segments, |last| SegmentIndex(last.index + 1));
        }
        self.give(Input::Tip(height, sealed))
    }

    fn on_link(&mut self, event: LinkEvent) -> anyhow::Result<()> {
        match event {
            LinkEvent::Opened(id) => {
                let number = self.peers.hold(id);
                self.linked.insert(id, number);
                self.give(Input::Opened(number))
            }
            LinkEvent::Closed(id) => {
                let Some(number) = self.linked.remove(&id) else { return Ok(()) };
                self.give(Input::Closed(number))?;
                self.peers.release(&id);
                Ok(())
            }
            LinkEvent::Message(id, bytes) => {
                let accounts = self.network.accounts();
                let Some(number) = self.linked.get(&id).copied().filter(|_| accounts.admits(&id))
                else {
                    return Ok(());
                };
                accounts.charge(&id, &SyncMessage::cost(&bytes));
                self.give(Input::Message(number, bytes))
            }
            LinkEvent::Written(id) => match self.linked.get(&id) {
                Some(number) => self.give(Input::Written(*number)),
                None => Ok(()),
            },
            LinkEvent::Data(id, frame) => {
                let Some(number) = self.linked.get(&id).copied() else { return Ok(()) };
                let Some((chunk, bytes)) = ChunkId::parse(&frame) else {
                    self.network.ban(id, charge(&Offence::NamelessChunk));
                    return Ok(());
                };
                let expected = self.machine.expected(number, chunk);
                let is_valid = expected.is_some_and(|expected| expected.verify(chunk, bytes));
                let bytes = bytes.len() as u64;
                self.arriving = Some((chunk, frame, id));
                let done = self.give(Input::Chunk { from: number, id: chunk, is_valid, bytes });
                if let Some((_, frame, _)) = self.arriving.take() {
                    // The machine did not store the chunk. Its sender pays for it.
                    self.network.accounts().charge(&id, &Cost::message(frame.len()));
                }
                done
            }
        }
    }

    /// Gives the machine one input and performs its effects, and those of the inputs that follow
    /// from them.
    fn give(&mut self, input: Input) -> anyhow::Result<()> {
        self.is_unshown = true;
        let effects = self.machine.handle(self.clock.now().elapsed, input);
        self.perform(effects)
    }

    fn perform(&mut self, effects: Vec<Effect>) -> anyhow::Result<()> {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            if let Some(input) = self.perform_one(effect)? {
                effects.extend(self.machine.handle(self.clock.now().elapsed, input));
            }
        }
        Ok(())
    }

    fn perform_one(&mut self, effect: Effect) -> anyhow::Result<Option<Input>> {
        match effect {
            Effect::Send(peer, bytes) => self.send(peer, bytes),
            Effect::Answer(peer, bytes) => {
                self.charge(peer, &Cost::answer(bytes.len()));
                self.send(peer, bytes);
            }
            Effect::SendChunk { to, id, name } => return self.send_chunk(to, id, name),
            Effect::SendManifest { peer, height, first, known } => {
                self.send_manifest(peer, height, first, known);
            }
            Effect::SendHead(peer, index) => self.send_head(peer, index),
            Effect::SendBlockProof(peer, height) => self.send_block_proof(peer, height),
            Effect::SendFileHead { peer, id, segment } => self.send_file_head(peer, id, segment),
            Effect::Begin(BACKFILL, head) => self.backfill.begin(head),
            Effect::Begin(_, head) => self.staging.begin(&head)?,
            Effect::BeginFileSegment(id, head) => self.files.begin(id, head),
            Effect::FileDone(_) => self.files.note(&self.machine.report().files),
            Effect::Store(id) => {
                if let Some((arrived, frame, sender)) =
                    self.arriving.take().filter(|(arrived, ..)| *arrived == id)
                {
                    self.network.served(sender, Service::History);
                    return self.store(arrived, &frame[CHUNK_HEADER_BYTES..], sender);
                }
            }
            Effect::SaveManifest(bytes) => self.staging.put_manifest(&bytes)?,
            Effect::Assemble(index) => self.assemble(index)?,
            Effect::Apply(index) => {
                if let Some(Assembled { blocks, certificate, .. }) = self.assembled.remove(&index) {
                    self.segments.push_back(ToDriver::Segment(blocks, certificate));
                }
            }
            Effect::Keep(index) => return Ok(self.keep(index)),
            Effect::Release(SegmentId { collection: BACKFILL, index }) => {
                self.backfill.release(index);
            }
            Effect::Release(SegmentId { index, .. }) => {
                self.assembled.remove(&index);
                self.suppliers.on_applied(index);
                self.staging.remove(index.0)?;
            }
            Effect::Plan(plan) => self.plan = Some(plan),
            Effect::BeginSnapshot(offer) => return Ok(self.begin_snapshot(offer)),
            Effect::DropSnapshot(id) => self.loading.drop_fetched(&id),
            Effect::LoadSnapshot { id, descriptors } => {
                return Ok(self.load_snapshot(id, descriptors));
            }
            Effect::JoinFailed(failure) => {
                anyhow::ensure!(!failure.is_fatal(), "{failure}");
                tracing::info!("the node joins by history: {failure}");
                self.segments.push_back(ToDriver::Joined(None));
            }
            Effect::Ban { peer, offence } => {
                if let Some(id) = self.peers.id(peer) {
                    self.network.ban(id, charge(&offence));
                }
            }
        }
        Ok(None)
    }

    /// Updates the view if something happened, at most once in [`SHOW_EVERY`].
    fn show(&mut self) {
        let now = self.clock.now().elapsed;
        if !self.is_unshown || self.shown_at.saturating_add(SHOW_EVERY) > now {
            return;
        }
        (self.shown_at, self.is_unshown) = (now, false);
        let report = self.machine.report();
        let wall = wall_ms();
        let at = |time: Duration| {
            wall.saturating_sub(
                u64::try_from(now.saturating_sub(time).as_millis()).unwrap_or(u64::MAX),
            )
        };
        self.shows.verified_at_ms = report.fetched_at.map(at);
        let is_applied = report.target > Height(0) && report.tip >= report.target;
        match is_applied {
            true => drop(self.shows.applied_at_ms.get_or_insert(wall)),
            false => self.shows.applied_at_ms = None,
        }
        self.shows.peers =
            self.linked.iter().map(|(id, number)| (*number, id.to_string())).collect();
        self.shows.suppliers = self.suppliers.all();
        if self.shows.report.stage != report.stage {
            self.shows.since_ms = wall;
        }
        self.files.note(&report.files);
        self.shows.report = report;
        self.view.send_replace(Arc::new(self.shows.clone()));
    }
}

fn warn_damaged(segment: SegmentIndex, chunk: u32) {
    tracing::warn!("chunk {chunk} of segment {segment} was damaged on disk; it is fetched again");
}
