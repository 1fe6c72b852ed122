//! The audit of blocks: a thread of the lowest priority executes the blocks before the snapshot
//! that this node began with, in a second state, from the genesis on.
//!
//! If they lead to another state than the snapshot, the node ends, and does not start again with
//! this home: nothing that it says of accounts can be trusted. If only the disk refuses to read a
//! block, the audit waits and tries again, and the node goes on.
//!
//! Now and then the second state is saved, in the format of a snapshot, so that a restart goes on
//! from there.

use std::fs;
use std::future::pending;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ledger::block::Header;
use ledger::chain::Chain;
use ledger::snapshot::{Frontier, SnapshotRules};
use ledger::state::State;
use ledger::store::{Audit, AuditError, AuditStep, Snapshots, Store, StoreError};
use ledger::units::Height;
use tokio::sync::{Notify, watch};
use tokio::task::yield_now;
use tokio::time::sleep;

use super::priority::give_way_to_all;
use crate::files::write_atomic;
use crate::space::Space;
use crate::view::TipView;

/// The second state is saved after at least this many bytes of blocks, and at least [`SAVE_FACTOR`]
/// times as many as the state itself has. A restart executes these blocks again, which takes less
/// than half a minute for this many bytes.
const SAVE_BYTES: u64 = 64 << 20;
/// With a higher factor more blocks are executed again after a restart. With a lower one the audit
/// of a chain with many accounts and few transfers would spend most of its time on writing.
const SAVE_FACTOR: u64 = 8;
/// Bytes of an account in a file.
const ACCOUNT_BYTES: u64 = 81;
/// How long the audit waits after the disk has refused.
const RETRY: Duration = Duration::from_secs(60);

/// Everything that the audit needs.
pub(crate) struct Auditor {
    pub(crate) chain: Arc<Chain>,
    pub(crate) store: Store,
    /// The folder for saved states.
    pub(crate) folder: PathBuf,
    /// The file that says why the audit failed.
    pub(crate) failed: PathBuf,
    pub(crate) tip: watch::Receiver<Arc<TipView>>,
    /// Notified when a segment of history was put in its place.
    pub(crate) kept: Arc<Notify>,
    /// Height up to which blocks were executed in this run.
    pub(crate) executed: watch::Sender<Height>,
    /// Becomes true when the node must stop.
    pub(crate) stop: watch::Receiver<bool>,
}

impl Auditor {
    /// Runs until the node must stop, whether there is something to execute or not.
    ///
    /// # Errors
    /// The blocks break a rule, or do not lead to the snapshot. Then more than a third of the
    /// voting power lied, or this program is wrong.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        give_way_to_all();
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => Ok(()),
            result = self.work() => result,
        }
    }

    /// Executes the blocks. Yields after each step, so that the end of the node is noticed.
    async fn work(mut self) -> anyhow::Result<()> {
        // A node without blocks may still load a snapshot.
        if self.tip.wait_for(|tip| tip.state.tip().height > Height(0)).await.is_err() {
            return pending().await;
        }
        let Some((mut audit, saved)) = self.begin()? else { return pending().await };
        let begins = audit.height().next();
        tracing::info!("executing the blocks before the snapshot, from height {begins} on");
        let mut unsaved = 0u64;
        loop {
            match audit.step() {
                Ok(AuditStep::Executed { bytes }) => {
                    self.executed.send_replace(audit.height());
                    unsaved = unsaved.saturating_add(bytes);
                    self.save(&audit, &saved, &mut unsaved);
                    yield_now().await;
                }
                Ok(AuditStep::Waits) => self.kept.notified().await,
                Ok(AuditStep::Done) => break,
                Err(AuditError::Store(error)) => {
                    tracing::error!(%error, "the audit cannot read a block, and tries again");
                    sleep(RETRY).await;
                }
                Err(error @ AuditError::Chain { .. }) => {
                    record_failed(&self.failed, &error.to_string());
                    return Err(error.into());
                }
            }
        }
        let height = audit.height();
        drop(audit);
        self.store.set_executed_to(height).context("the end of the audit cannot be recorded")?;
        tracing::info!(
            "every block up to the snapshot of height {height} was executed: its state is right"
        );
        self.remove_saved();
        pending().await
    }

    /// The audit where an earlier run left it, and the saved states. `None` if every block was
    /// executed: then no state need be saved any more.
    fn begin(&self) -> Result<Option<(Audit, Snapshots)>, StoreError> {
        if self.store.executed_to() >= self.store.tip().0 {
            self.remove_saved();
            return Ok(None);
        }
        let (saved, problems) = Snapshots::open(&self.folder, &self.chain);
        for problem in problems {
            tracing::warn!("a saved state of the audit cannot be used: {problem}");
        }
        let newest = load(&saved);
        let checkpoint = newest.as_ref().map(|(header, state)| (header, state.clone()));
        Ok(Audit::begin(&self.store, checkpoint)?.map(|audit| (audit, saved)))
    }

    fn remove_saved(&self) {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!("{}: {error}", self.folder.display());
            }
            _ => {}
        }
    }

    /// Saves the second state if that is due. A failure costs only time after a restart.
    fn save(&self, audit: &Audit, saved: &Snapshots, unsaved: &mut u64) {
        let state_bytes = (audit.accounts() as u64).saturating_mul(ACCOUNT_BYTES);
        if *unsaved < SAVE_BYTES.max(state_bytes.saturating_mul(SAVE_FACTOR)) {
            return;
        }
        match self.try_save(audit, saved) {
            Ok(true) => *unsaved = 0,
            // A state is saved only at the end of a segment.
            Ok(false) => {}
            Err(error) => {
                *unsaved = 0;
                tracing::warn!("the audit cannot save its progress: {error:#}");
            }
        }
    }

    /// Saves the second state in place of the former one. `false` if no segment ends here.
    fn try_save(&self, audit: &Audit, saved: &Snapshots) -> anyhow::Result<bool> {
        let Some((header, certificate, state)) = audit.checkpoint()? else { return Ok(false) };
        let height = header.height;
        let rules = SnapshotRules::new(self.chain.limits());
        let frontier = Arc::new(Frontier::of(&state, &rules)?);
        if let Some(space) = self.folder.parent().and_then(Space::of) {
            space.check_room(frontier.chunks_bytes())?;
        }
        let mut writer = saved.begin(header, certificate, Arc::clone(&frontier))?;
        for (chunk, bytes) in (0u64..).zip(frontier.chunks(&state)) {
            writer.write(chunk, &bytes)?;
        }
        let kept = writer.finish()?.id;
        for former in saved.list().iter().filter(|former| former.id != kept) {
            saved.remove(&former.id)?;
        }
        self.store.set_executed_to(height)?;
        Ok(true)
    }
}

/// Refuses a home whose audit has failed in an earlier run.
///
/// # Errors
/// The audit has failed, or the file that says so cannot be read.
pub(crate) fn refuse_failed(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    match fs::read_to_string(path) {
        Ok(fault) => anyhow::bail!(
            "the audit of this home has failed: {fault}. Keep the home as evidence. To execute all \
             blocks once more, for example with a newer program, delete {shown}"
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("{shown} cannot be read")),
    }
}

/// Makes a failure durable. Without it the node would take part again after a restart, until the
/// audit comes to this block once more.
fn record_failed(path: &Path, fault: &str) {
    if let Err(error) = write_atomic(path, fault.as_bytes(), 0o600) {
        tracing::error!("{}: {error}", path.display());
    }
}

/// The newest state that was saved whole.
fn load(saved: &Snapshots) -> Option<(Header, State)> {
    saved.list().iter().find_map(|info| {
        let state = saved.state(&info.id).ok().flatten()?;
        Some((info.header.clone(), state))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ledger::genesis::Genesis;

    use super::*;

    /// A kill can leave the saved states after the end of the audit.
    #[test]
    fn saved_states_go_when_all_is_executed() {
        let home = tempfile::tempdir().unwrap();
        let template = include_bytes!("../../../genesis.json");
        let genesis = Genesis::from_json(template).unwrap();
        let chain = Chain::new(genesis.clone());
        let directory = home.path().join("db");
        Store::create(&directory, &genesis).unwrap();
        let opened = Store::open(&directory, &chain).unwrap();
        let folder = home.path().join("audit");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("64-00.snapshot"), "saved").unwrap();
        let tip = TipView { state: opened.state, certificate: opened.certificate, header: None };
        let auditor = Auditor {
            chain,
            store: opened.store,
            folder: folder.clone(),
            failed: home.path().join("audit-failed"),
            tip: watch::channel(Arc::new(tip)).1,
            kept: Arc::default(),
            executed: watch::channel(Height(0)).0,
            stop: watch::channel(false).1,
        };
        assert!(auditor.begin().unwrap().is_none() && !folder.exists());
    }

    #[test]
    fn a_home_whose_audit_failed_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("audit-failed");
        assert!(refuse_failed(&path).is_ok());
        record_failed(&path, "block 7 is certified, but wrong");
        let error = refuse_failed(&path).unwrap_err().to_string();
        assert!(error.contains("block 7 is certified, but wrong. Keep"), "{error}");
        assert!(error.ends_with("audit-failed"), "{error}");
    }
}
