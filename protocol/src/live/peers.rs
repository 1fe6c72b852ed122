//! Connected peers: who they are, and how they are asked for their tips.

use std::time::Duration;

use super::Machine;
use super::requests::Asked;
use crate::ids::PeerId;
use crate::message::Request;

/// Interval of status requests. One peer is asked at a time, in turn.
const POLL: Duration = Duration::from_secs(2);

impl Machine {
    pub(super) fn on_connected(&mut self, peer: PeerId) {
        self.peers.insert(peer);
        self.catchup.on_connected(peer);
        self.signing.on_connected(self.turn.now);
        self.outbox.on_connected(self.turn.now.elapsed);
        self.ask_status(peer);
    }

    pub(super) fn on_disconnected(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
        self.catchup.on_disconnected(peer);
        self.bodies.on_disconnected(peer);
        self.clocks.on_disconnected(peer);
    }

    pub(super) fn poll_peers(&mut self) {
        if self.turn.now.elapsed < self.next_poll {
            return;
        }
        self.next_poll = self.turn.now.elapsed.saturating_add(POLL);
        let after = (std::ops::Bound::Excluded(self.polled), std::ops::Bound::Unbounded);
        let next = self.peers.range(after).next().or_else(|| self.peers.first()).copied();
        if let Some(peer) = next {
            self.polled = peer;
            self.ask_status(peer);
        }
    }

    pub(super) fn ask_status(&mut self, peer: PeerId) {
        if self
            .requests
            .values()
            .any(|asked| matches!(asked, Asked::Status(asked, _) if *asked == peer))
        {
            return;
        }
        let request = Request::Tip(self.certified_header());
        self.ask(peer, &request, Asked::Status(peer, self.turn.now.elapsed));
    }
}
