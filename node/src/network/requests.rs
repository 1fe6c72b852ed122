//! Requests in flight, both ways: how many there may be, and whose they are.

use std::collections::HashMap;
use std::hash::Hash;

use libp2p::PeerId;
use libp2p::request_response::{InboundRequestId, OutboundRequestId};

use super::exchange::{INBOUND_PER_PEER_MAX, REQUESTS_PER_PEER_MAX};
use super::inbox::RequestId;

/// Requests of all peers that we work on.
const INBOUND_MAX: usize = 1024;

/// Responses being sent to one peer, in bytes. A peer that asks for more and reads slowly fills its own share only.
const RESPONSES_PER_PEER_BYTES_MAX: usize = 32 << 20;

/// Responses being sent to all peers, in bytes.
const RESPONSES_BYTES_MAX: usize = 256 << 20;

/// The books. Whoever is over a limit hears that we are busy.
pub(crate) struct Requests<Outbound = OutboundRequestId, Inbound = InboundRequestId> {
    outbound: HashMap<Outbound, (RequestId, PeerId)>,
    inbound: HashMap<Inbound, (PeerId, usize)>,
    loads: HashMap<PeerId, Load>,
    response_bytes: usize,
}

/// What is in flight with one peer.
#[derive(Default, PartialEq, Eq)]
struct Load {
    outbound: usize,
    inbound: usize,
    response_bytes: usize,
}

impl<Outbound: Hash + Eq, Inbound: Hash + Eq> Requests<Outbound, Inbound> {
    pub(crate) fn new() -> Self {
        Self { outbound: HashMap::new(), inbound: HashMap::new(), loads: HashMap::new(), response_bytes: 0 }
    }

    /// Whether the peer may be asked one thing more.
    pub(crate) fn may_ask(&self, peer: &PeerId) -> bool {
        self.loads.get(peer).is_none_or(|load| load.outbound < REQUESTS_PER_PEER_MAX)
    }

    /// A request of ours is on its way.
    pub(crate) fn on_asked(&mut self, id: Outbound, request: RequestId, peer: PeerId) {
        self.outbound.insert(id, (request, peer));
        self.loads.entry(peer).or_default().outbound += 1;
    }

    /// A request of ours has its outcome.
    pub(crate) fn on_answered(&mut self, id: Outbound) -> Option<RequestId> {
        let (request, peer) = self.outbound.remove(&id)?;
        self.relieve(peer, |load| load.outbound -= 1);
        Some(request)
    }

    /// A peer asks. Returns whether we work on it.
    pub(crate) fn on_request(&mut self, id: Inbound, peer: PeerId) -> bool {
        let of_peer = self.loads.get(&peer).map_or(0, |load| load.inbound);
        if of_peer >= INBOUND_PER_PEER_MAX || self.inbound.len() >= INBOUND_MAX {
            return false;
        }
        self.inbound.insert(id, (peer, 0));
        self.loads.entry(peer).or_default().inbound += 1;
        true
    }

    /// We have an answer. Returns whether it may be sent: there is room, and the request is still open.
    pub(crate) fn may_respond(&mut self, id: Inbound, bytes: usize) -> bool {
        let Some((peer, sending)) = self.inbound.get_mut(&id) else { return false };
        let Some(load) = self.loads.get_mut(peer) else { return false };
        if load.response_bytes + bytes > RESPONSES_PER_PEER_BYTES_MAX
            || self.response_bytes + bytes > RESPONSES_BYTES_MAX
        {
            return false;
        }
        *sending += bytes;
        load.response_bytes += bytes;
        self.response_bytes += bytes;
        true
    }

    /// The request of a peer is over: the answer is sent, or will never be.
    pub(crate) fn on_served(&mut self, id: Inbound) {
        if let Some((peer, bytes)) = self.inbound.remove(&id) {
            self.response_bytes -= bytes;
            self.relieve(peer, |load| {
                load.inbound -= 1;
                load.response_bytes -= bytes;
            });
        }
    }

    fn relieve(&mut self, peer: PeerId, change: impl FnOnce(&mut Load)) {
        if let Some(load) = self.loads.get_mut(&peer) {
            change(load);
            if *load == Load::default() {
                self.loads.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_its_share_and_all_have_theirs() {
        let mut requests = Requests::<u64, usize>::new();
        let mut peer = PeerId::random();
        for id in 0..INBOUND_PER_PEER_MAX {
            assert!(requests.on_request(id, peer), "{id}");
        }
        assert!(!requests.on_request(INBOUND_PER_PEER_MAX, peer));
        requests.on_served(INBOUND_PER_PEER_MAX);
        assert!(!requests.on_request(INBOUND_PER_PEER_MAX, peer), "a refused request was never counted");
        requests.on_served(0);
        assert!(requests.on_request(0, peer));
        for id in INBOUND_PER_PEER_MAX..INBOUND_MAX {
            if id % INBOUND_PER_PEER_MAX == 0 {
                peer = PeerId::random();
            }
            assert!(requests.on_request(id, peer), "{id}");
        }
        assert!(!requests.on_request(INBOUND_MAX, PeerId::random()));
        for id in 0..INBOUND_MAX {
            requests.on_served(id);
        }
        assert!(requests.loads.is_empty() && requests.inbound.is_empty());
    }

    #[test]
    fn responses_are_bounded_in_bytes() {
        const PEERS: usize = RESPONSES_BYTES_MAX / RESPONSES_PER_PEER_BYTES_MAX;
        let mut requests = Requests::<u64, usize>::new();
        for number in 0..=PEERS {
            let peer = PeerId::random();
            assert!(requests.on_request(2 * number, peer) && requests.on_request(2 * number + 1, peer));
        }
        for number in 0..PEERS {
            assert!(requests.may_respond(2 * number, RESPONSES_PER_PEER_BYTES_MAX), "{number}");
            assert!(!requests.may_respond(2 * number + 1, 1), "{number}");
        }
        assert!(!requests.may_respond(2 * PEERS, 1), "all together");
        requests.on_served(0);
        assert!(!requests.may_respond(0, 1), "it is over");
        assert!(requests.may_respond(2 * PEERS, 1));
        (1..2 * PEERS + 2).for_each(|id| requests.on_served(id));
        assert!(requests.response_bytes == 0 && requests.loads.is_empty());
    }

    #[test]
    fn each_answer_frees_a_place() {
        let mut requests = Requests::<u64, u64>::new();
        let peer = PeerId::random();
        for id in 0..REQUESTS_PER_PEER_MAX as u64 {
            assert!(requests.may_ask(&peer));
            requests.on_asked(id, RequestId(100 + id), peer);
        }
        assert!(!requests.may_ask(&peer));
        assert!(requests.may_ask(&PeerId::random()));
        assert_eq!(requests.on_answered(7), Some(RequestId(107)));
        assert_eq!(requests.on_answered(7), None);
        assert!(requests.may_ask(&peer));
    }
}
