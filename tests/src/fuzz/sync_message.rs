//! The target for messages and data frames of the links that carry history.

use protocol::swarm::message::{CHUNK_HEADER_BYTES, ChunkId, SYNC_MESSAGE_BYTES_MAX, SyncMessage};

use super::canonical;

/// Reads the bytes as a sync message and as a data frame.
pub fn sync_message(data: &[u8]) -> bool {
    match ChunkId::parse(data) {
        Some((id, bytes)) => assert_eq!(id.frame(bytes), data, "one chunk has one frame"),
        None => assert!(
            data.len() < CHUNK_HEADER_BYTES,
            "a frame of {} bytes names its chunk",
            data.len()
        ),
    }
    let message = canonical::<SyncMessage>(data, SYNC_MESSAGE_BYTES_MAX);
    assert_eq!(SyncMessage::decode(data).ok(), message, "a message has one decoder");
    if let Some(SyncMessage::Holdings(_, holdings)) = &message {
        for (_, bits) in &holdings.open {
            let ones: Vec<u32> = bits.ones().collect();
            assert_eq!(ones.len() as u64, bits.count());
            assert!(ones.iter().all(|one| bits.get(*one)) && bits.bytes() < data.len());
        }
    }
    message.is_some()
}
