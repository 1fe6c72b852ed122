//! Connected peers, and how they are asked for their tips.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use super::Machine;
use super::clocks::Clocks;
use super::requests::Asked;
use crate::ids::{PeerId, RequestId};
use crate::message::Request;

/// Interval at which one peer is asked for its tip. The peers take turns. A new peer is also asked
/// when it connects.
const POLL: Duration = Duration::from_secs(2);

/// All connected peers.
pub(super) struct Peers {
    pub(super) connected: BTreeSet<PeerId>,
    /// How far this clock is from the peers' clocks.
    pub(super) clocks: Clocks,
    /// Requests in flight, except those for final blocks.
    pub(super) requests: BTreeMap<RequestId, Asked>,
    /// The canonical bytes of the genesis, once a peer has asked for them.
    pub(super) genesis: Option<Vec<u8>>,
    /// When the next peer is asked for its tip.
    pub(super) next_poll: Duration,
    /// The peer that was polled last. Peers are polled in turn, so that no tip or clock grows old.
    polled: PeerId,
}

impl Peers {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            connected: BTreeSet::new(),
            clocks: Clocks::default(),
            requests: BTreeMap::new(),
            genesis: None,
            next_poll: now,
            polled: PeerId(0),
        }
    }

    /// The peer to ask for its tip now, if a poll is due.
    fn next_polled(&mut self, now: Duration) -> Option<PeerId> {
        if now < self.next_poll {
            return None;
        }
        self.next_poll = now.saturating_add(POLL);
        let after = (Bound::Excluded(self.polled), Bound::Unbounded);
        let next = self.connected.range(after).next().or_else(|| self.connected.first()).copied();
        self.polled = next.unwrap_or(self.polled);
        next
    }
}

impl Machine {
    pub(super) fn on_connected(&mut self, peer: PeerId) {
        self.peers.connected.insert(peer);
        self.catchup.on_connected(peer);
        self.validator.signing.on_connected(self.turn.now);
        self.transactions.outbox.on_connected(self.turn.now.elapsed);
        self.ask_tip(peer);
    }

    pub(super) fn on_disconnected(&mut self, peer: PeerId) {
        self.peers.connected.remove(&peer);
        self.catchup.on_disconnected(peer);
        self.bodies.on_disconnected(peer);
        self.peers.clocks.on_disconnected(peer);
    }

    pub(super) fn poll_peers(&mut self) {
        if let Some(peer) = self.peers.next_polled(self.turn.now.elapsed) {
            self.ask_tip(peer);
        }
    }

    pub(super) fn ask_tip(&mut self, peer: PeerId) {
        if self
            .peers
            .requests
            .values()
            .any(|asked| matches!(asked, Asked::Tip(asked, _) if *asked == peer))
        {
            return;
        }
        let request = Request::Tip(self.certified_header());
        self.ask(peer, &request, Asked::Tip(peer, self.turn.now.elapsed));
    }
}
