//! The result of a run.

use std::fmt;
use std::time::Duration;

use protocol::Offence;

/// The result of a run. Shares and ratios are fractions of 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Whether every awaited leecher has every chunk.
    pub is_complete: bool,
    /// Time from the first start of a leecher until the last leecher has its last chunk.
    pub time: Duration,
    /// Time from the first start of a leecher until the last leecher has its last chunk of files.
    pub files_time: Duration,
    /// Chunk bytes of files that arrived at leechers, as a multiple of those that were missing.
    pub files_copies: f64,
    /// Shortest possible time for the chunks' own bytes, seconds.
    pub bound: f64,
    /// Shortest possible time including the overhead of frames, seconds.
    pub bound_on_wire: f64,
    /// Chunk bytes sent by seeds, as a multiple of the chain's length.
    pub seed_copies: f64,
    /// Share of received chunk bytes that the receiver already had.
    pub duplicates: f64,
    /// Chunk bytes sent in excess of those that leechers stored, as a share of the stored ones.
    pub waste: f64,
    /// Share of all bytes sent that are not chunk frames.
    pub control: f64,
    /// Share of the last leecher's time that its last hundredth of chunks took.
    pub last_percent: f64,
    /// Share of stored bytes that had been stored before.
    pub stored_twice: f64,
    /// When nodes had loaded a snapshot.
    pub loaded: Vec<(usize, Duration)>,
    /// Every ban: the node that bans, the banned node, and the offence.
    pub bans: Vec<(usize, usize, Offence)>,
    /// Digest of all events in order.
    pub digest: u64,
}

impl Outcome {
    /// Time divided by the bound for the chunks alone.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.time.as_secs_f64() / self.bound
    }

    /// Time divided by the bound for all bytes on the wire.
    #[must_use]
    pub fn ratio_on_wire(&self) -> f64 {
        self.time.as_secs_f64() / self.bound_on_wire
    }

    /// Column names for a table of outcomes.
    pub const COLUMNS: &str = "seconds | bound | ratio | on wire | seed copies | waste | \
                               duplicates | control | last 1% | bans";
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_complete {
            write!(f, "**incomplete** ")?;
        }
        write!(
            f,
            "{:.2} | {:.2} | {:.3} | {:.3} | {:.3} | {:.2}% | {:.2}% | {:.2}% | {:.2}% | {}",
            self.time.as_secs_f64(),
            self.bound,
            self.ratio(),
            self.ratio_on_wire(),
            self.seed_copies,
            self.waste * 100.0,
            self.duplicates * 100.0,
            self.control * 100.0,
            self.last_percent * 100.0,
            self.bans.len()
        )
    }
}
