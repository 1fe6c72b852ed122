//! Performs what the machine decides about snapshots: it serves the files of whole ones, stores the
//! chunks of the one that is fetched, and makes it the beginning of the chain.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ledger::hash::SnapshotId;
use ledger::history::SegmentDescriptor;
use ledger::store::{SnapshotInfo, SnapshotReader, SnapshotWriter, Snapshots, Store, StoreError};
use ledger::units::SegmentIndex;
use protocol::swarm::message::ChunkId;
use protocol::swarm::{Input, SnapshotOffer, snapshot_chunk};

use super::{Done, Shell, ToDriver};
use crate::space::Space;
use crate::view::TipView;

/// The snapshots of this node, for its peers and for its own beginning.
pub(super) struct Loading {
    pub(super) snapshots: Snapshots,
    /// The folder whose disk must have room.
    home: PathBuf,
    /// The snapshot whose chunks are fetched.
    fetched: Option<SnapshotWriter>,
    /// The same before its file is made, since the disk has no room for it.
    unbegun: Option<SnapshotOffer>,
    /// The disk has refused, and has accepted nothing since. The log has said so.
    is_refused: bool,
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
    pub(super) const fn new(snapshots: Snapshots, home: PathBuf) -> Self {
        let (fetched, unbegun, loaded) = (None, None, None);
        Self { snapshots, home, fetched, unbegun, is_refused: false, loaded }
    }

    /// Makes the file of a snapshot, whose chunks come from now on. If the disk has too little
    /// room, that is tried again when a chunk has arrived.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn begin(&mut self, offer: SnapshotOffer) -> Result<(), StoreError> {
        self.begin_within(offer, Space::of(&self.home))
    }

    /// As [`Self::begin`] on a disk with this space. The accounts take the room of the file once
    /// more, in the store.
    fn begin_within(
        &mut self,
        offer: SnapshotOffer,
        space: Option<Space>,
    ) -> Result<(), StoreError> {
        let bytes = offer.frontier.chunks_bytes().saturating_mul(2);
        if let Some(Err(error)) = space.map(|space| space.check_room(bytes)) {
            self.on_refused(&error);
            self.unbegun = Some(offer);
            return Ok(());
        }
        let SnapshotOffer { header, certificate, frontier, .. } = offer;
        self.fetched = Some(self.snapshots.begin(header, certificate, frontier)?);
        self.unbegun = None;
        Ok(())
    }

    /// Warns of the first refusal, since each pause ends with another attempt.
    fn on_refused(&mut self, reason: &dyn Display) {
        if !std::mem::replace(&mut self.is_refused, true) {
            tracing::warn!("fetching the snapshot pauses, since the disk refuses: {reason}");
        }
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

    /// Stores a chunk of the snapshot that is fetched. The machine has verified it. Returns what
    /// the machine must hear if the disk refuses.
    pub(super) fn store(&mut self, id: ChunkId, bytes: &[u8]) -> Option<Input> {
        let written = self.write(snapshot_chunk(id), bytes, Space::of(&self.home));
        let is_written = written.inspect_err(|error| self.on_refused(error)).unwrap_or(false);
        (!is_written).then_some(Input::Refused(id))
    }

    /// Returns false if the disk has too little room.
    fn write(
        &mut self,
        chunk: u64,
        bytes: &[u8],
        space: Option<Space>,
    ) -> Result<bool, StoreError> {
        if let Some(offer) = self.unbegun.clone() {
            self.begin_within(offer, space)?;
        }
        if space.is_some_and(Space::is_low) {
            self.on_refused(&"it is nearly full");
            return Ok(false);
        }
        let Some(writer) = &mut self.fetched else { return Ok(self.unbegun.is_none()) };
        writer.write(chunk, bytes)?;
        self.is_refused = false;
        Ok(true)
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
        self.unbegun.take_if(|offer| offer.id == *id);
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ledger::chain::Chain;
    use ledger::genesis::Genesis;
    use ledger::signature::SigningKey;
    use ledger::snapshot::{Frontier, SnapshotRules};
    use ledger::units::Timestamp;

    use super::*;
    use crate::chain_maker::ChainMaker;

    /// The disk has too little room at first.
    #[test]
    fn a_snapshot_waits_for_room_on_the_disk() {
        let key = SigningKey::from_seed(&[1; 32]);
        let text = include_bytes!("../../../../genesis.json");
        let mut genesis = Genesis::from_json(text).unwrap();
        genesis.validators.truncate(1);
        genesis.validators[0].key = key.public();
        let chain = Chain::new(genesis);
        let mut maker = ChainMaker::new(Arc::clone(&chain), vec![key]);
        let committed = maker.block(Timestamp(0), Vec::new());
        let state = maker.state().state();
        let rules = SnapshotRules::new(chain.limits());
        let frontier = Arc::new(Frontier::of(state, &rules).unwrap());
        let header = committed.block.header().clone();
        let (height, certificate) = (header.height, committed.certificate);
        let id = frontier.id(height);
        let [chunk] = &Vec::from_iter(frontier.chunks(state))[..] else { panic!("few accounts") };

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshots");
        let mut loading = Loading::new(Snapshots::open(&path, &chain).0, folder.path().to_owned());
        let bytes = frontier.chunks_bytes();
        let offer = SnapshotOffer { height, id, frontier, header, certificate };
        let total = 100 << 30;
        let write = |loading: &mut Loading, space| loading.write(0, chunk, space).unwrap();
        let space = |free: u64| Some(Space { free: (2 << 30) + free, total });
        loading.begin_within(offer.clone(), space(2 * bytes - 1)).unwrap();
        assert!(!path.exists() && loading.is_refused);
        for free in [0, bytes, 2 * bytes - 1] {
            assert!(!write(&mut loading, space(free)), "{free}");
        }
        assert!(!path.exists());
        assert!(write(&mut loading, space(2 * bytes)));
        assert!(loading.missing().is_empty() && !loading.is_refused);
        // What is free may shrink below what was needed at first, but not below the reserve.
        assert!(write(&mut loading, space(0)));
        assert!(!write(&mut loading, Some(Space { free: (2 << 30) - 1, total })));
        loading.drop_fetched(&id);
        assert!(loading.fetched.is_none());
        // A snapshot that is given up before it had room is not begun later.
        loading.begin_within(offer.clone(), space(0)).unwrap();
        loading.drop_fetched(&id);
        write(&mut loading, space(2 * bytes));
        assert!(loading.fetched.is_none());
        // A system that does not tell the space does not keep a node from joining.
        loading.begin_within(offer, None).unwrap();
        assert!(write(&mut loading, None) && loading.missing().is_empty());
    }
}
