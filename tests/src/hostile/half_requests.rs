//! Opens streams that begin a request of the largest size and never end it.

use tokio::time::Instant;

use super::Field;
use super::raw::Script;
use super::slow_readers::hold;

const IDENTITIES: usize = 16;
/// Streams at a time, of each identity with each node.
const STREAMS: usize = 192;
/// Bytes sent of each request, which claims to have 64 KiB.
const SENT: usize = 60 << 10;

pub(super) async fn run(field: &Field, until: Instant) -> anyhow::Result<f64> {
    let mut bytes = (64u32 << 10).to_le_bytes().to_vec();
    bytes.resize(4 + SENT, 1);
    hold(field, until, IDENTITIES, STREAMS, &Script::WriteAndWait(bytes)).await
}
