//! What a run came to.

use std::fmt;
use std::time::Duration;

use protocol::Offence;

/// What a run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Every honest leecher has every chunk.
    pub is_complete: bool,
    /// From the first start of a leecher to the last chunk of the last one.
    pub time: Duration,
    /// Shortest time on chunks alone, in seconds.
    pub bound: f64,
    /// The same with what frames cost.
    pub bound_on_wire: f64,
    /// Bytes of chunks that seeds sent, as copies of the chain.
    pub seed_copies: f64,
    /// Of all chunk bytes received, those that were there already.
    pub duplicates: f64,
    /// Bytes of chunks sent beyond those that had to be, as a share of these.
    pub waste: f64,
    /// Of all bytes sent, those that are not of frames of chunks.
    pub control: f64,
    /// Of the time of the last leecher, what its last chunks (one of a hundred) took.
    pub last_percent: f64,
    /// Of all bytes stored, those that were stored before.
    pub stored_twice: f64,
    /// Who was banned, by whom, and why.
    pub bans: Vec<(usize, usize, Offence)>,
    /// Stands for all that happened, in order.
    pub digest: u64,
}

impl Outcome {
    /// Time over the bound on chunks alone.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.time.as_secs_f64() / self.bound
    }

    /// Time over the bound on what goes over the wire for the chunks.
    #[must_use]
    pub fn ratio_on_wire(&self) -> f64 {
        self.time.as_secs_f64() / self.bound_on_wire
    }

    /// Names of the columns of a table of outcomes.
    pub const COLUMNS: &str =
        "seconds | bound | ratio | on wire | seed copies | waste | duplicates | control | last 1% | bans";
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
