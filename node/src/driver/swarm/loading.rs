//! Performs what the machine decides about snapshots: it serves the files of whole ones, stores the
//! chunks of the one that is fetched, and makes it the beginning of the chain.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ledger::hash::SnapshotId;
use ledger::history::SegmentDescriptor;
use ledger::store::{SnapshotInfo, SnapshotWriter, Snapshots, Store, StoreError};
use ledger::units::SegmentIndex;
use protocol::swarm::{Input, SnapshotOffer};

use super::{Done, Shell, ToDriver};
use crate::view::TipView;

/// The snapshots of this node, for its peers and for its own beginning.
pub(super) struct Loading {
    pub(super) snapshots: Snapshots,
    /// The snapshot whose chunks are fetched.
    fetched: Option<SnapshotWriter>,
}

/// A snapshot that the chain has taken over.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) id: SnapshotId,
    pub(crate) tip: TipView,
}

impl Loading {
    pub(super) const fn new(snapshots: Snapshots) -> Self {
        Self { snapshots, fetched: None }
    }

    /// Makes the file of a snapshot, whose chunks come from now on.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn begin(&mut self, offer: SnapshotOffer) -> Result<(), StoreError> {
        let SnapshotOffer { header, certificate, frontier, .. } = offer;
        self.fetched = Some(self.snapshots.begin(header, certificate, frontier)?);
        Ok(())
    }

    /// Stores a chunk of the snapshot that is fetched. The machine has verified it.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn write(&mut self, chunk: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let fetched = self.fetched.as_mut();
        fetched.map_or(Ok(()), |writer| writer.write(chunk, bytes))
    }

    /// The bytes of a chunk, verified; `None` if the snapshot or the chunk is not here.
    ///
    /// # Errors
    /// The chunk is damaged, or the disk refuses.
    pub(super) fn read(
        &mut self,
        id: &SnapshotId,
        chunk: u64,
        now: Duration,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        match self.fetched.as_mut().filter(|writer| writer.info().id == *id) {
            Some(writer) => writer.read(chunk),
            None => self.snapshots.chunk(id, chunk, now),
        }
    }

    /// The snapshot is given up, so its file goes.
    pub(super) fn drop_fetched(&mut self, id: &SnapshotId) {
        drop(self.fetched.take_if(|writer| writer.info().id == *id));
    }

    /// All chunks are here: the file becomes that of a whole snapshot.
    ///
    /// # Errors
    /// Not all bytes are what was written, or the disk refuses. The file is gone then.
    pub(super) fn finish(&mut self, id: &SnapshotId) -> anyhow::Result<Arc<SnapshotInfo>> {
        let writer = self.fetched.take_if(|writer| writer.info().id == *id);
        Ok(writer.context("no such snapshot is being fetched")?.finish()?)
    }
}

impl Shell {
    /// Tells the machine which snapshots have come and which are gone.
    pub(super) fn on_snapshots(&mut self, all: &[Arc<SnapshotInfo>]) -> anyhow::Result<()> {
        let gone = |id: &&SnapshotId| !all.iter().any(|info| info.id == **id);
        for id in self.offered.iter().filter(gone).copied().collect::<Vec<_>>() {
            self.offered.remove(&id);
            self.give(Input::SnapshotGone(id))?;
        }
        for info in all {
            if self.offered.insert(info.id) {
                self.give(Input::SnapshotKept(offer(info)))?;
            }
        }
        Ok(())
    }

    /// The chain begins with a snapshot now. `live` goes on from there.
    pub(super) fn on_loaded(&mut self, loaded: Loaded) -> anyhow::Result<()> {
        let Loaded { id, tip } = loaded;
        let history = tip.state.history().clone();
        let (height, segments) = (tip.state.tip().height, history.segments());
        tracing::info!("the chain begins with the snapshot of block {height}");
        self.sealed = SegmentIndex(segments);
        self.offered.insert(id);
        self.segments.push_back(ToDriver::Joined(Some(Box::new(tip))));
        self.give(Input::Loaded { id, history })?;
        self.begin_backfill()
    }

    /// Makes a snapshot, all of whose chunks are here, the beginning of the chain. The result comes
    /// as [`Done::Loaded`].
    fn begin_load(
        &mut self,
        id: &SnapshotId,
        descriptors: Vec<SegmentDescriptor>,
    ) -> anyhow::Result<()> {
        let info = self.loading.finish(id)?;
        let (snapshots, store) = (self.loading.snapshots.clone(), self.store.clone());
        let results = self.results.clone();
        self.assembly.spawn(move || {
            let loaded = load(&snapshots, &store, &info, &descriptors);
            let done = loaded.map(|loaded| Done::Loaded(Box::new(loaded)));
            // If the sync thread has gone, the node is stopping.
            let _gone = results.blocking_send(done.context("the snapshot cannot be loaded"));
        });
        Ok(())
    }

    /// Makes the file of a snapshot. If the disk refuses, the machine gives the snapshot up.
    pub(super) fn begin_snapshot(&mut self, offer: SnapshotOffer) -> Option<Input> {
        let id = offer.id;
        let error = self.loading.begin(offer).err()?;
        tracing::warn!("a snapshot cannot be stored: {error}");
        Some(Input::LoadFailed { id, damaged: Vec::new() })
    }

    /// Begins to load a snapshot. If its file is wrong, the machine gives the snapshot up.
    pub(super) fn load_snapshot(
        &mut self,
        id: SnapshotId,
        descriptors: Vec<SegmentDescriptor>,
    ) -> Option<Input> {
        let error = self.begin_load(&id, descriptors).err()?;
        tracing::warn!("a snapshot cannot be loaded: {error:#}");
        Some(Input::LoadFailed { id, damaged: Vec::new() })
    }
}

/// A snapshot as peers are offered it.
fn offer(info: &SnapshotInfo) -> SnapshotOffer {
    let SnapshotInfo { id, header, certificate, frontier } = info.clone();
    SnapshotOffer { height: header.height, id, frontier, header, certificate }
}

/// Makes a whole snapshot the content of a store without blocks.
///
/// # Errors
/// A chunk is damaged, or the disk refuses. The store has no blocks then.
pub(super) fn load(
    snapshots: &Snapshots,
    store: &Store,
    info: &SnapshotInfo,
    descriptors: &[SegmentDescriptor],
) -> anyhow::Result<Loaded> {
    let state = snapshots.state(&info.id)?.context("the file of the snapshot is gone")?;
    let SnapshotInfo { header, certificate, .. } = info;
    let state = store.adopt(header, certificate.clone(), descriptors, state)?;
    let (certificate, header) = (certificate.clone(), Some(header.clone()));
    Ok(Loaded { id: info.id, tip: TipView { state, certificate, header } })
}
