//! Kademlia, and the addresses that its answers name.
//!
//! libp2p's behaviour reports what peers answered only when a query ends, and then only the peers
//! that it could ask. A node has places for few of these, and would never hear of the others. So
//! this behaviour wraps Kademlia's and reads each answer as it arrives.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::kad::{self, K_VALUE, KadPeer, QueryId};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use super::providers::Providers;

/// Most peers taken from one list of an answer: as many as an honest answer has.
const ANSWER_PEERS_MAX: usize = K_VALUE.get();

/// Most answers that wait for the network's task, which takes all of them before it sleeps. Further
/// ones are not read.
const ANSWERS_MAX: usize = 64;

type Kademlia = kad::Behaviour<Providers>;
type HandlerEvent = THandlerOutEvent<Kademlia>;

/// A peer and its addresses, as an answer names them.
pub(crate) type Named = (PeerId, Vec<Multiaddr>);

/// What discovery tells the network's task.
#[derive(Debug)]
pub(crate) enum Event {
    /// Kademlia's own event.
    Kademlia(Box<kad::Event>),
    /// An answer named these peers.
    Heard(Vec<Named>),
    /// An answer named these providers. They are among those heard.
    Providers(QueryId, Vec<Named>),
}

/// Kademlia with its answers.
pub(crate) struct Discovery {
    pub(crate) kad: Kademlia,
    answers: VecDeque<Event>,
}

impl Discovery {
    pub(crate) fn new(kad: Kademlia) -> Self {
        Self { kad, answers: VecDeque::new() }
    }

    fn hear(&mut self, peers: &[KadPeer]) {
        if self.answers.len() < ANSWERS_MAX {
            self.answers.push_back(Event::Heard(named(peers)));
        }
    }
}

fn named(peers: &[KadPeer]) -> Vec<Named> {
    let peers = peers.iter().take(ANSWER_PEERS_MAX);
    peers.map(|peer| (peer.node_id, peer.multiaddrs.clone())).collect()
}

impl NetworkBehaviour for Discovery {
    type ConnectionHandler = <Kademlia as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.kad.handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.kad.handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.kad.handle_established_outbound_connection(id, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        self.kad.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match &event {
            HandlerEvent::FindNodeRes { closer_peers, .. } => {
                self.hear(closer_peers);
            }
            HandlerEvent::GetProvidersRes { closer_peers, provider_peers, query_id } => {
                self.hear(closer_peers);
                self.hear(provider_peers);
                if self.answers.len() < ANSWERS_MAX {
                    self.answers.push_back(Event::Providers(*query_id, named(provider_peers)));
                }
            }
            _ => {}
        }
        self.kad.on_connection_handler_event(peer, id, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(answer) = self.answers.pop_front() {
            return Poll::Ready(ToSwarm::GenerateEvent(answer));
        }
        self.kad.poll(cx).map(|event| event.map_out(|event| Event::Kademlia(Box::new(event))))
    }
}
