//! The task's part about the peer store: when it is written.

use std::io;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::task::{JoinHandle, spawn_blocking};

use super::Task;
use crate::network::dials::without_peer;
use crate::network::store::{ANCHORS, Write};

/// How often the store is written. A crash loses no more than the changes of this time, which are
/// of little value.
const INTERVAL: Duration = Duration::from_secs(300);

/// A new address that works is written after this time at the latest, so that a node that is killed
/// soon after its first start finds its peers again.
const NEWS: Duration = Duration::from_secs(10);

/// Least time between two writes for a ban or a learned identity.
const SOON: Duration = Duration::from_secs(5);

/// Writes the store, one write at a time, on a thread that may wait for the disk.
pub(super) struct Saver {
    due: Instant,
    is_urgent: bool,
    last: Instant,
    running: Option<JoinHandle<io::Result<()>>>,
}

impl Saver {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now + INTERVAL, is_urgent: false, last: now, running: None }
    }

    /// A change is important enough to be written soon.
    pub(super) fn save_soon(&mut self) {
        self.is_urgent = true;
    }

    /// A new address works.
    pub(super) fn save_within(&mut self, now: Instant) {
        self.due = self.due.min(now + NEWS);
    }

    /// Whether to write now.
    fn is_due(&mut self, now: Instant) -> bool {
        if let Some(running) = &mut self.running {
            let Some(written) = running.now_or_never() else { return false };
            report(written.unwrap_or_else(|error| Err(io::Error::other(error))));
            self.running = None;
        }
        let is_due = now >= self.due || (self.is_urgent && now >= self.last + SOON);
        if is_due {
            (self.due, self.last, self.is_urgent) = (now + INTERVAL, now, false);
        }
        is_due
    }
}

impl Task {
    /// Writes the store if a write is due.
    pub(super) fn save_if_due(&mut self, now: Instant) {
        if self.saver.is_due(now)
            && let Some(write) = self.prepare()
        {
            self.saver.running = Some(spawn_blocking(|| write.perform()));
        }
    }

    /// Writes the store a last time, and waits for it.
    pub(super) async fn save_last(&mut self) {
        if let Some(running) = self.saver.running.take() {
            report(running.await.unwrap_or_else(|error| Err(io::Error::other(error))));
        }
        if let Some(write) = self.prepare() {
            let written = spawn_blocking(|| write.perform()).await;
            report(written.unwrap_or_else(|error| Err(io::Error::other(error))));
        }
    }

    fn prepare(&mut self) -> Option<Write> {
        let outbound = self.swarm.behaviour().gate.outbound_peers();
        let anchor = |peer| Some((peer, without_peer(self.peers.dialed(&peer).first()?)));
        let anchors: Vec<_> = outbound.into_iter().filter_map(anchor).take(ANCHORS).collect();
        // If there are none now, the earlier anchors stay.
        if !anchors.is_empty() {
            self.store.anchors = anchors;
        }
        self.store.to_write()
    }
}

fn report(written: io::Result<()>) {
    if let Err(error) = written {
        tracing::warn!(%error, "cannot write the peer store; the write is retried");
    }
}
