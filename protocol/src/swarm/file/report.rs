//! What is done with each file, for display.

use std::time::Duration;

use ledger::hash::FileId;

use super::fetch::{Fetch, bytes_of};
use super::{File, Kind, Place};
use crate::swarm::engine::Engine;

/// A fetch counts as stalled after this time without a chunk.
const QUIET: Duration = Duration::from_secs(5);

/// A file that is fetched or served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// The file.
    pub id: FileId,
    /// Its length in bytes, once it is known.
    pub length: Option<u64>,
    /// Bytes of all segments that were ever wanted, once the length is known.
    pub wanted_bytes: u64,
    /// Of these, the bytes that are here. For a file of which nothing was ever wanted, all bytes
    /// that are here.
    pub here_bytes: u64,
    /// Bytes of its chunks that were sent to peers.
    pub served_bytes: u64,
    /// Recent rate of its chunks, in bytes per second; 0 if none has come lately.
    pub rate: u64,
    /// Number of peers that sent chunks of it.
    pub peers: u64,
    /// Number of connected peers that claim to have any of it.
    pub holders: u64,
    /// Whether everything that is wanted is here.
    pub is_done: bool,
    /// Whether other holders may help: no connected peer claims any of it, or none has sent any for
    /// 5 s, or almost nothing has arrived for a minute, whatever they claim.
    pub needs_holders: bool,
    /// Why no chunk arrives, if none does.
    pub reason: Option<String>,
}

impl FileReport {
    /// Whether a part of it is here, and served.
    #[must_use]
    pub const fn is_here(&self) -> bool {
        self.here_bytes > 0 || matches!(self.length, Some(0))
    }
}

impl Kind {
    /// What is done with each file.
    pub(in crate::swarm) fn report(&self, engine: &Engine) -> Vec<FileReport> {
        self.files.iter().map(|(id, file)| file.report(engine, *id)).collect()
    }
}

impl File {
    fn report(&self, engine: &Engine, id: FileId) -> FileReport {
        let number = match self.place {
            Place::Open(number) => Some(number),
            Place::Closed(_) => None,
        };
        let whole = match &self.place {
            Place::Closed(whole) => Some(whole),
            Place::Open(number) => engine.collection(*number).map(|collection| &collection.whole),
        };
        let here = |descriptor| whole.map_or(0, |whole| bytes_of(whole, descriptor));
        let (wanted_bytes, here_bytes) = match (&self.descriptor, &self.fetch) {
            (None, _) => (0, 0),
            (Some(descriptor), Some(fetch)) => fetch.bytes(engine, number, descriptor),
            (Some(descriptor), None) => (0, here(descriptor)),
        };
        let sent = number.and_then(|number| engine.uploads.sent(number));
        let is_active = self.is_fetched() && self.quiet(engine) <= QUIET;
        let rate = self.fetch.as_ref().and_then(|fetch| fetch.meter.rate());
        FileReport {
            id,
            length: self.descriptor.map(|descriptor| descriptor.length),
            wanted_bytes,
            here_bytes,
            served_bytes: self.served_bytes.saturating_add(sent.map_or(0, |(bytes, _)| bytes)),
            rate: rate.filter(|_| is_active).unwrap_or(0),
            peers: self.fetch.as_ref().map_or(0, |fetch| fetch.suppliers.len() as u64),
            holders: self.holders(engine),
            is_done: !self.is_fetched(),
            needs_holders: self.needs_holders(engine),
            reason: self.reason(engine),
        }
    }

    fn holders(&self, engine: &Engine) -> u64 {
        let Place::Open(number) = self.place else { return 0 };
        let all = engine.census.peers();
        let holding = all.filter(|(_, holder)| {
            holder.whole_segments(number) > 0 || holder.open_chunks(number) > 0
        });
        holding.count() as u64
    }

    /// The time since the last chunk, or since the fetch began if none has come.
    fn quiet(&self, engine: &Engine) -> Duration {
        let last = self.fetch.as_ref().and_then(|fetch| fetch.last_chunk_at);
        let begun = || self.fetch.as_ref().and_then(|fetch| fetch.progress_at);
        engine.now.saturating_sub(last.or_else(begun).unwrap_or(engine.now))
    }

    /// A file that waits for a place or for the disk could take nothing of holders.
    fn needs_holders(&self, engine: &Engine) -> bool {
        let Place::Open(number) = self.place else { return false };
        let fetch = self.fetch.as_ref().filter(|fetch| !fetch.is_done);
        let lacks = |fetch: &Fetch| {
            self.holders(engine) == 0 || self.quiet(engine) > QUIET || fetch.is_stalled(engine.now)
        };
        engine.paused_until(number).is_none() && fetch.is_some_and(lacks)
    }

    /// Why no chunk arrives.
    fn reason(&self, engine: &Engine) -> Option<String> {
        if !self.is_fetched() {
            return None;
        }
        let Place::Open(number) = self.place else {
            return Some("it waits for its turn: too many files are fetched or served".to_owned());
        };
        if engine.paused_until(number).is_some() {
            return Some("the disk refused to store a chunk, so fetching pauses".to_owned());
        }
        if self.holders(engine) == 0 {
            return Some("no connected peer has the file".to_owned());
        }
        let is_quiet = self.quiet(engine) > QUIET;
        is_quiet.then(|| "the connected peers send nothing of what is missing".to_owned())
    }
}
