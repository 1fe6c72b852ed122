//! Writes snapshots to disk, for newcomers. A thread of its own does it, which gives way to all
//! other work.
//!
//! The driver of `live` offers each tip, and at most one waits: a newer one takes its place. What
//! goes wrong here is reported and never ends the node, since snapshots can be made again.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use ledger::chain::ChainState;
use ledger::snapshot::{Frontier, SnapshotRules};
use ledger::store::{Kept, SnapshotInfo, Snapshots, Store};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{Notify, watch};

use super::priority::give_way;
use crate::clock::Clock;
use crate::space::Space;
use crate::tasks::{ThreadEnd, spawn_thread};
use crate::view::TipView;

/// After each chunk the thread sleeps for this many times the processor time that the chunk took.
/// So it uses at most a twenty-fifth of a core, however many accounts there are. With a longer
/// pause a snapshot of many accounts would be old when it is complete.
const PAUSES: u32 = 24;

/// Takes tips and keeps the newest one that is a snapshot until the writer has time for it.
pub(crate) struct Offers {
    store: Store,
    waiting: Mutex<Option<Arc<TipView>>>,
    filled: Notify,
}

impl Offers {
    /// Takes a tip if it is a snapshot.
    pub(crate) fn offer(&self, tip: &Arc<TipView>) {
        if is_snapshot(&tip.state, &self.store) {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            *waiting = Some(Arc::clone(tip));
            self.filled.notify_one();
        }
    }

    /// Waits for a tip and takes it out.
    async fn next(&self) -> Arc<TipView> {
        loop {
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
            match waiting {
                Some(tip) => return tip,
                None => self.filled.notified().await,
            }
        }
    }
}

/// Whether the state at the tip is a snapshot. If the block that decides it cannot be read, the
/// state counts as one: one snapshot too many does no harm.
fn is_snapshot(chain: &ChainState, store: &Store) -> bool {
    let (rules, tip) = (SnapshotRules::new(chain.chain().limits()), chain.tip());
    let history = chain.history();
    let Some(index) = history.segments().checked_sub(1) else { return false };
    if history.open_first() != tip.height.next() {
        return false;
    }
    let before = rules.candidate_before(index).and_then(|before| {
        let last = store.descriptors(before, tip.height, 1).first()?.last;
        store.header(last).ok().and_then(Kept::here)
    });
    rules.is_snapshot(index, tip.time, before.map(|header| header.time))
}

/// Everything that the writer starts with.
pub(crate) struct Parts {
    pub(crate) snapshots: Snapshots,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    /// The folder whose disk must have room.
    pub(crate) home: PathBuf,
    pub(crate) stop: watch::Receiver<bool>,
}

/// What the rest of the node holds of a running writer.
pub(crate) struct Writing {
    /// Where tips are offered to it.
    pub(crate) offers: Arc<Offers>,
    /// The list of all snapshots, newest first, after each change.
    pub(crate) kept: watch::Receiver<Vec<Arc<SnapshotInfo>>>,
    pub(crate) thread: ThreadEnd,
}

/// Starts the thread. It ends when it is told to stop, and gives up what it is writing.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn spawn(parts: Parts) -> anyhow::Result<Writing> {
    let Parts { snapshots, store, clock, home, mut stop } = parts;
    let (kept_sender, kept) = watch::channel(snapshots.list());
    let offers = Arc::new(Offers { store, waiting: Mutex::default(), filled: Notify::new() });
    let mut writer = Writer {
        snapshots,
        offers: Arc::clone(&offers),
        clock,
        home,
        kept: kept_sender,
        is_paused: false,
    };
    let thread = spawn_thread("snapshots", move || async move {
        give_way();
        tokio::select! {
            _sender_gone = stop.wait_for(|stop| *stop) => {}
            () = writer.run() => {}
        }
        Ok(())
    })?;
    Ok(Writing { offers, kept, thread })
}

struct Writer {
    snapshots: Snapshots,
    offers: Arc<Offers>,
    clock: Clock,
    home: PathBuf,
    kept: watch::Sender<Vec<Arc<SnapshotInfo>>>,
    /// Set if the last snapshot could not be written.
    is_paused: bool,
}

impl Writer {
    async fn run(&mut self) {
        loop {
            let tip = self.offers.next().await;
            let height = tip.state.tip().height;
            match self.write(&tip).await {
                Ok(()) if self.is_paused => {
                    self.is_paused = false;
                    tracing::info!("snapshots are written again: that of block {height}");
                }
                Ok(()) => {}
                Err(error) => {
                    if !self.is_paused {
                        tracing::warn!(
                            "the snapshot of block {height} is not written, nor are later ones \
                             until that can be done: {error:#}"
                        );
                    }
                    self.is_paused = true;
                }
            }
            self.kept.send_replace(self.snapshots.list());
        }
    }

    /// Writes the snapshot of a tip, unless it is there, and removes old ones.
    async fn write(&self, tip: &TipView) -> anyhow::Result<()> {
        let Self { snapshots, clock, home, .. } = self;
        let Some(header) = &tip.header else { return Ok(()) };
        if snapshots.list().iter().any(|info| info.header == *header) {
            return Ok(());
        }
        let mut pace = Pace::begin();
        let state = tip.state.state();
        let rules = SnapshotRules::new(tip.state.chain().limits());
        let frontier = Arc::new(Frontier::of(state, &rules)?);
        let space = Space::of(home).context("the system does not tell how much space is free")?;
        space.check_room(frontier.chunks_bytes())?;
        let certificate = tip.certificate.clone();
        let mut writer = snapshots.begin(header.clone(), certificate, Arc::clone(&frontier))?;
        for (index, bytes) in (0..).zip(frontier.chunks(state)) {
            writer.write(index, &bytes)?;
            pace.pause().await;
        }
        for index in 0..frontier.chunk_count() {
            writer.read(index)?;
            pace.pause().await;
        }
        writer.finish()?;
        Ok(snapshots.prune(clock.now().elapsed)?)
    }
}

/// Keeps the thread's share of a core low.
struct Pace {
    /// Processor time of this thread at the end of the last pause.
    used: Duration,
}

impl Pace {
    fn begin() -> Self {
        Self { used: thread_time() }
    }

    async fn pause(&mut self) {
        let worked = thread_time().saturating_sub(self.used);
        tokio::time::sleep(worked.saturating_mul(PAUSES)).await;
        self.used = thread_time();
    }
}

/// Processor time that this thread has used.
fn thread_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use ledger::chain::Chain;
    use ledger::genesis::{Genesis, GenesisAccount, Limits};
    use ledger::signature::SigningKey;
    use ledger::units::{Amount, Timestamp};
    use tempfile::TempDir;

    use super::*;
    use crate::chain_maker::ChainMaker;

    /// A chain of segments with two blocks each, and its store.
    struct Fixture {
        folder: TempDir,
        chain: Arc<Chain>,
        maker: ChainMaker,
        store: Store,
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }

    fn fixture() -> Fixture {
        let text = include_bytes!("../../../genesis.json");
        let mut genesis = Genesis::from_json(text).unwrap();
        genesis.limits = Limits { segment_blocks: 2, chunk_bytes: 16 << 10, ..Limits::default() };
        genesis.start_time = Timestamp(0);
        genesis.validators.truncate(1);
        genesis.validators[0].key = key(0).public();
        genesis.accounts = (1..=255)
            .map(|seed| GenesisAccount {
                name: String::new(),
                account: key(seed).public(),
                balance: Amount(1),
            })
            .collect();
        let chain = Chain::new(genesis);
        let folder = tempfile::tempdir().unwrap();
        let db = folder.path().join("db");
        Store::create(&db, chain.genesis()).unwrap();
        let store = Store::open(&db, &chain).unwrap().store;
        let maker = ChainMaker::new(Arc::clone(&chain), vec![key(0)]);
        Fixture { folder, chain, maker, store }
    }

    impl Fixture {
        /// The tip after one more block, of this time in seconds.
        fn block(&mut self, time: u64) -> Arc<TipView> {
            let committed = self.maker.block(Timestamp(time * 1_000), Vec::new());
            self.store.commit(std::slice::from_ref(&committed)).unwrap();
            Arc::new(TipView {
                state: self.maker.state().clone(),
                certificate: committed.certificate,
                header: Some(committed.block.header().clone()),
            })
        }

        fn snapshots(&self) -> PathBuf {
            self.folder.path().join("snapshots")
        }

        fn open(&self) -> Snapshots {
            let (snapshots, problems) = Snapshots::open(&self.snapshots(), &self.chain);
            assert_eq!(problems, []);
            snapshots
        }

        fn spawn(&self) -> (Writing, watch::Sender<bool>) {
            let (stop, stopping) = watch::channel(false);
            let parts = Parts {
                snapshots: self.open(),
                store: self.store.clone(),
                clock: Clock::start(),
                home: self.folder.path().to_owned(),
                stop: stopping,
            };
            (spawn(parts).unwrap(), stop)
        }
    }

    fn heights(list: &[Arc<SnapshotInfo>]) -> Vec<u64> {
        list.iter().map(|info| info.header.height.0).collect()
    }

    /// Waits for the end of an attempt, and returns the heights of all snapshots.
    async fn written(writing: &mut Writing) -> Vec<u64> {
        writing.kept.changed().await.unwrap();
        heights(&writing.kept.borrow_and_update())
    }

    async fn stopped(writing: Writing, stop: &watch::Sender<bool>) {
        stop.send_replace(true);
        writing.thread.await.unwrap().unwrap();
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Segments end at the heights 2, 4, 6 and so on. Height 6 is in the same 30 s as height 4.
    #[tokio::test(flavor = "multi_thread")]
    async fn the_tips_that_are_snapshots_are_written_and_give_the_state() {
        let mut fixture = fixture();
        let (mut writing, stop) = fixture.spawn();
        let mut tips = Vec::new();
        for (time, expected) in [
            (1, None),
            (2, Some(vec![2])),
            (30, None),
            (31, Some(vec![4, 2])),
            (32, None),
            (33, None),
            (60, None),
            (90, Some(vec![8, 4])),
        ] {
            let tip = fixture.block(time);
            writing.offers.offer(&tip);
            if let Some(expected) = expected {
                assert_eq!(written(&mut writing).await, expected);
                tips.push(tip);
            }
        }
        stopped(writing, &stop).await;
        let snapshots = fixture.open();
        assert_eq!(heights(&snapshots.list()), [8, 4]);
        for (info, tip) in snapshots.list().iter().zip(tips.iter().rev()) {
            let SnapshotInfo { id, header, certificate, frontier } = &**info;
            assert_eq!((Some(header), certificate), (tip.header.as_ref(), &tip.certificate));
            assert!(frontier.chunk_count() > 1);
            let chunks = (0..frontier.chunk_count()).map(|index| {
                let bytes = snapshots.chunk(id, index, Duration::ZERO).unwrap().unwrap();
                frontier.verify_chunk(index, &bytes).unwrap()
            });
            let state = frontier.assemble(chunks).unwrap();
            assert!(state.iter().eq(tip.state.state().iter()));
        }
    }

    #[tokio::test]
    async fn of_the_tips_that_wait_the_newest_is_taken() {
        let mut fixture = fixture();
        let offers = Offers {
            store: fixture.store.clone(),
            waiting: Mutex::default(),
            filled: Notify::new(),
        };
        for time in [1, 2, 30, 31, 32] {
            offers.offer(&fixture.block(time));
        }
        assert_eq!(offers.next().await.state.tip().height.0, 4);
        assert!(offers.waiting.lock().unwrap().is_none());
        offers.offer(&fixture.block(60));
        assert_eq!(offers.next().await.state.tip().height.0, 6);
    }

    /// The folder's name is taken by a file, so nothing can be written.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_disk_that_refuses_pauses_snapshots_and_ends_nothing() {
        let mut fixture = fixture();
        let (mut writing, stop) = fixture.spawn();
        fs::write(fixture.snapshots(), "").unwrap();
        for height in [2, 4] {
            fixture.block(height * 30 - 1);
            writing.offers.offer(&fixture.block(height * 30));
            assert_eq!(written(&mut writing).await, [0; 0]);
        }
        fs::remove_file(fixture.snapshots()).unwrap();
        fixture.block(180);
        let tip = fixture.block(210);
        let file = || {
            let [name] = &names(&fixture.snapshots())[..] else { panic!("one file") };
            fs::metadata(fixture.snapshots().join(name)).unwrap().ino()
        };
        writing.offers.offer(&tip);
        assert_eq!(written(&mut writing).await, [6]);
        let first = file();
        // The second time it is there already.
        writing.offers.offer(&tip);
        assert_eq!(written(&mut writing).await, [6]);
        assert_eq!(file(), first);
        stopped(writing, &stop).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_that_stops_leaves_no_half_of_a_snapshot() {
        let mut fixture = fixture();
        let (writing, stop) = fixture.spawn();
        fixture.block(1);
        writing.offers.offer(&fixture.block(2));
        while !fixture.snapshots().exists() {
            tokio::task::yield_now().await;
        }
        stopped(writing, &stop).await;
        assert!(names(&fixture.snapshots()).iter().all(|name| name.ends_with(".snapshot")));
    }
}
