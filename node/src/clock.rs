//! The machine's clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use ledger::units::Timestamp;
use protocol::Now;

/// A monotonic clock, which counts from its start, and the wall clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Now {
        Now { elapsed: self.0.elapsed(), wall: Timestamp(wall_ms()) }
    }
}

/// Milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    // A clock before 1970 counts as 0. Block times then only follow the times of parent blocks.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Milliseconds since 1970, or an error if this machine's clock is before 1970.
pub(crate) fn now() -> anyhow::Result<u64> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("this machine's clock is before 1970")?;
    Ok(u64::try_from(since.as_millis())?)
}
