//! Stores chunks that have arrived, where the kind of their collection has its place for them.

use protocol::swarm::message::ChunkId;
use protocol::swarm::{CollectionKind, Input, snapshot_chunk};

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
            Some(CollectionKind::Snapshot(_)) => {
                let written = self.loading.write(snapshot_chunk(id), bytes);
                return Ok(written.err().map(|error| {
                    tracing::warn!("a chunk of a snapshot cannot be stored: {error}");
                    Input::Refused(id)
                }));
            }
            Some(CollectionKind::File(file)) => return Ok(self.files.store(file, id, bytes)),
            Some(CollectionKind::Backfill) => return Ok(self.backfill.store(id, bytes)),
            Some(CollectionKind::History) | None => {}
        }
        let (index, chunk) = (id.segment.index, u64::from(id.chunk));
        self.suppliers.on_chunk(index, sender);
        self.staging.write(index.0, chunk, bytes)?;
        Ok(None)
    }
}
