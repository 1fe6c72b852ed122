//! Stores chunks that have arrived, where the kind of their collection has its place for them.

use protocol::swarm::message::ChunkId;
use protocol::swarm::{CollectionKind, Input};

use super::Shell;
use crate::network;

impl Shell {
    /// Stores a chunk. If the disk refuses one of a snapshot, of backfill or of a file, the machine
    /// asks for it again later.
    pub(super) fn store(
        &mut self,
        id: ChunkId,
        bytes: &[u8],
        sender: network::PeerId,
    ) -> anyhow::Result<Option<Input>> {
        match self.machine.kind(id.segment.collection) {
            Some(CollectionKind::Snapshot(_)) => return Ok(self.loading.store(id, bytes)),
            Some(CollectionKind::File(file)) => return Ok(self.files.store(file, id, bytes)),
            Some(CollectionKind::Backfill) => return Ok(self.backfill.store(id, bytes)),
            Some(CollectionKind::History) => {}
            // The collection was closed meanwhile.
            None => return Ok(None),
        }
        let (index, chunk) = (id.segment.index, u64::from(id.chunk));
        self.suppliers.on_chunk(index, sender);
        self.staging.write(index.0, chunk, bytes)?;
        Ok(None)
    }
}
