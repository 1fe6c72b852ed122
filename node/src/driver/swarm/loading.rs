//! Performs what the machine decides about snapshots: it serves the files of whole ones, stores the
//! chunks of the one that is fetched, and makes it the beginning of the chain.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ledger::hash::SnapshotId;
use ledger::history::SegmentDescriptor;
use ledger::store::{SnapshotInfo, SnapshotReader, SnapshotWriter, Snapshots, Store, StoreError};
use ledger::units::SegmentIndex;
use protocol::swarm::{Input, SnapshotOffer};

use super::{Done, Shell, ToDriver};
use crate::view::TipView;

/// The snapshots of this node, for its peers and for its own beginning.
pub(super) struct Loading {
    pub(super) snapshots: Snapshots,
    /// The snapshot whose chunks are fetched.
    fetched: Option<SnapshotWriter>,
    /// The snapshot that another thread loads. Until it is listed, its chunks are served from here.
    loaded: Option<SnapshotReader>,
}

/// A snapshot that the chain has taken over.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) id: SnapshotId,
    pub(crate) tip: TipView,
}

impl Loading {
    pub(super) const fn new(snapshots: Snapshots) -> Self {
        Self { snapshots, fetched: None, loaded: None }
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

    /// Number of chunks of a snapshot that is here or is fetched.
    pub(super) fn chunk_count(&self, id: &SnapshotId) -> Option<u64> {
        let fetched = self.fetched.as_ref().map(|writer| Arc::clone(writer.info()));
        let loaded = self.loaded.as_ref().map(|reader| Arc::clone(reader.info()));
        let mut all = self.snapshots.list().into_iter().chain(fetched).chain(loaded);
        all.find(|info| info.id == *id).map(|info| info.frontier.chunk_count())
    }

    /// The chunks of the snapshot that is fetched which the disk has not taken.
    fn missing(&self) -> Vec<u64> {
        self.fetched.as_ref().map(SnapshotWriter::missing).unwrap_or_default()
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
        if let Some(writer) = self.fetched.as_mut().filter(|writer| writer.info().id == *id) {
            return writer.read(chunk);
        }
        match self.loaded.as_mut().filter(|reader| reader.info().id == *id) {
            Some(reader) => reader.read(chunk),
            None => self.snapshots.chunk(id, chunk, now),
        }
    }

    /// The snapshot is given up, so its file goes.
    pub(super) fn drop_fetched(&mut self, id: &SnapshotId) {
        drop(self.fetched.take_if(|writer| writer.info().id == *id));
    }

    /// All chunks are here: another thread makes the file that of a whole snapshot.
    ///
    /// # Errors
    /// The disk refuses. The file is gone then.
    fn begin_load(&mut self, id: &SnapshotId) -> anyhow::Result<SnapshotWriter> {
        let writer = self.fetched.take_if(|writer| writer.info().id == *id);
        let writer = writer.context("no such snapshot is being fetched")?;
        self.loaded = Some(writer.reader()?);
        Ok(writer)
    }

    /// The other thread is done.
    fn end_load(&mut self) {
        self.loaded = None;
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

    /// Removes the snapshots whose files are damaged, and takes them back from peers.
    pub(super) fn remove_damaged(&mut self) -> anyhow::Result<()> {
        while let Some(id) = self.damaged.pop() {
            if let Err(error) = self.loading.snapshots.remove(&id) {
                tracing::warn!("the file of a damaged snapshot cannot be removed: {error}");
            }
            self.offered.remove(&id);
            self.give(Input::SnapshotGone(id))?;
        }
        Ok(())
    }

    /// The chain begins with a snapshot now. `live` goes on from there.
    pub(super) fn on_loaded(&mut self, loaded: Loaded) -> anyhow::Result<()> {
        self.loading.end_load();
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

    /// The file of a snapshot is wrong, so the machine gives the snapshot up.
    pub(super) fn on_not_loaded(&mut self, id: SnapshotId) -> anyhow::Result<()> {
        self.loading.end_load();
        self.give(Input::LoadFailed { id, damaged: Vec::new() })
    }

    /// Makes a snapshot, all of whose chunks are here, the beginning of the chain. The result comes
    /// as [`Done::Loaded`].
    fn begin_load(
        &mut self,
        id: &SnapshotId,
        descriptors: Vec<SegmentDescriptor>,
    ) -> anyhow::Result<()> {
        let writer = self.loading.begin_load(id)?;
        let (snapshots, store) = (self.loading.snapshots.clone(), self.store.clone());
        let (id, results) = (*id, self.results.clone());
        self.assembly.spawn(move || {
            let loaded = load(&snapshots, &store, writer, &descriptors);
            let done = loaded.map(|loaded| match loaded {
                Some(loaded) => Done::Loaded(Box::new(loaded)),
                None => Done::NotLoaded(id),
            });
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
        // The disk may have refused a chunk since the machine counted it.
        let damaged = self.loading.missing();
        if !damaged.is_empty() {
            return Some(Input::LoadFailed { id, damaged });
        }
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

/// Finishes a snapshot, and makes it the content of a store without blocks. `None` if its file has
/// other bytes than were written or cannot be read; the store then has no blocks.
///
/// # Errors
/// The disk of the store refuses. The store has no blocks then.
pub(super) fn load(
    snapshots: &Snapshots,
    store: &Store,
    writer: SnapshotWriter,
    descriptors: &[SegmentDescriptor],
) -> anyhow::Result<Option<Loaded>> {
    let read = writer.finish().and_then(|info| Ok((snapshots.state(&info.id)?, info)));
    let (state, info) = match read {
        Ok((Some(state), info)) => (state, info),
        Ok((None, _)) => return Ok(None),
        Err(error) => {
            tracing::warn!("a snapshot cannot be loaded: {error}");
            return Ok(None);
        }
    };
    let SnapshotInfo { header, certificate, .. } = &*info;
    let state = store.adopt(header, certificate.clone(), descriptors, state)?;
    let (certificate, header) = (certificate.clone(), Some(header.clone()));
    Ok(Some(Loaded { id: info.id, tip: TipView { state, certificate, header } }))
}
