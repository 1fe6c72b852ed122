//! The task's part about links.

use std::time::Instant;

use super::Task;
use crate::network::links::StreamEvent;

impl Task {
    /// Opens the streams of all links that are due.
    pub(super) fn open_links(&mut self, now: Instant) {
        for peer in self.links.due(now) {
            if self.faults.is_cut(&peer) {
                continue;
            }
            let Some(connection) = self.peers.connection(&peer) else { continue };
            self.links.on_opening(&peer, connection);
            self.swarm.behaviour_mut().links.open(peer, connection);
        }
    }

    pub(super) fn on_link_stream(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Inward { peer, lane, stream } => {
                self.admit(peer);
                self.links.on_inward(&peer, lane, stream);
            }
            StreamEvent::Outward { peer, connection, streams } => {
                let taken = self.peers.taken(&peer, connection);
                self.links.on_outward(&peer, connection, streams, taken, Instant::now());
            }
        }
    }
}
