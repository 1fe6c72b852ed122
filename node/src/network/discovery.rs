//! Kademlia, and the addresses that its answers name.
//!
//! libp2p's behaviour reports what peers answered only when a query ends, and then only the peers
//! that it could ask. A node has places for few of these, and would never hear of the others. So
//! this behaviour wraps Kademlia's and reads each answer as it arrives.
//!
//! An answer may name anything: 1,500 addresses fit into one. So Kademlia sees only what an honest
//! answer could have.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::kad::{self, K_VALUE, KadPeer, QueryId};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use super::address::is_dialable;
use super::dials::without_peer;
use super::providers::Providers;
use crate::accounts::Accounts;

/// Most peers taken from one list of an answer: as many as an honest answer has.
const ANSWER_PEERS_MAX: usize = K_VALUE.get();

/// Most addresses taken of each peer of an answer, and most at which a query dials a peer. With
/// more, one answer could have this node dial many strangers.
const PEER_ADDRESSES_MAX: usize = 4;

/// Most answers that wait for the network's task, which takes all of them before it sleeps. Further
/// ones are not read.
const ANSWERS_MAX: usize = 64;

pub(crate) type Kademlia = kad::Behaviour<Providers>;
type HandlerEvent = THandlerOutEvent<Kademlia>;
type HandlerIn = THandlerInEvent<Kademlia>;

/// A peer and its addresses, as an answer names them.
pub(crate) type Named = (PeerId, Vec<Multiaddr>);

/// What discovery tells the network's task.
#[derive(Debug)]
pub(crate) enum Event {
    /// Kademlia's own event.
    Kademlia(Box<kad::Event>),
    /// An answer of a peer named these others.
    Heard(PeerId, Vec<Named>),
    /// The answer of a peer named these providers. They are among those heard.
    Providers { query: QueryId, from: PeerId, providers: Vec<Named> },
}

/// Kademlia with its answers.
pub(crate) struct Discovery {
    pub(crate) kad: Kademlia,
    private: bool,
    accounts: Accounts<PeerId>,
    answers: VecDeque<Event>,
    /// Answers to requests that are refused: they name nobody.
    refused: VecDeque<(PeerId, ConnectionId, HandlerIn)>,
}

impl Discovery {
    /// `private`: see [`is_dialable`].
    pub(crate) fn new(kad: Kademlia, private: bool, accounts: Accounts<PeerId>) -> Self {
        let (answers, refused) = (VecDeque::new(), VecDeque::new());
        Self { kad, private, accounts, answers, refused }
    }

    /// Charges a request or a record to the account of its sender. Returns whether it is refused,
    /// because the account is empty. All other events cost nothing.
    fn refuses(&mut self, peer: PeerId, id: ConnectionId, event: &HandlerEvent) -> bool {
        let closer_peers = Vec::new();
        // Libp2p closes a stream that is reset only once something else happens on it, so the
        // peer would wait for its timeout.
        let answer = match *event {
            HandlerEvent::FindNodeReq { request_id, .. } => {
                Some(HandlerIn::FindNodeRes { closer_peers, request_id })
            }
            HandlerEvent::GetProvidersReq { request_id, .. } => {
                let provider_peers = Vec::new();
                Some(HandlerIn::GetProvidersRes { closer_peers, provider_peers, request_id })
            }
            HandlerEvent::GetRecord { request_id, .. } => {
                Some(HandlerIn::GetRecordRes { record: None, closer_peers, request_id })
            }
            HandlerEvent::PutRecord { request_id, .. } => Some(HandlerIn::Reset(request_id)),
            HandlerEvent::AddProvider { .. } => None,
            _ => return false,
        };
        let is_refused = !self.accounts.admits(&peer);
        if is_refused {
            self.refused.extend(answer.map(|answer| (peer, id, answer)));
        } else {
            self.accounts.charge_kademlia(&peer);
        }
        is_refused
    }

    fn tell(&mut self, answer: Event) {
        if self.answers.len() < ANSWERS_MAX {
            self.answers.push_back(answer);
        }
    }

    /// Cuts one list of an answer to the size that an honest one may have.
    fn cut(&self, peers: &mut Vec<KadPeer>) {
        peers.truncate(ANSWER_PEERS_MAX);
        peers.iter_mut().for_each(|peer| cut_addresses(&mut peer.multiaddrs, self.private));
    }
}

/// Keeps the first [`PEER_ADDRESSES_MAX`] addresses that may be dialed, each once.
fn cut_addresses(addresses: &mut Vec<Multiaddr>, private: bool) {
    let mut kept = Vec::new();
    addresses.retain(|address| {
        let address = without_peer(address);
        let is_kept = kept.len() < PEER_ADDRESSES_MAX
            && is_dialable(&address, private)
            && !kept.contains(&address);
        if is_kept {
            kept.push(address);
        }
        is_kept
    });
}

/// Removes the peers that nobody could dial.
fn drop_unreachable(peers: &mut Vec<KadPeer>) {
    peers.retain(|peer| !peer.multiaddrs.is_empty());
}

fn named(peers: &[KadPeer]) -> Vec<Named> {
    peers.iter().map(|peer| (peer.node_id, peer.multiaddrs.clone())).collect()
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
        let mut found = self.kad.handle_pending_outbound_connection(id, peer, addresses, role)?;
        // Each query may have heard of other addresses of the peer.
        cut_addresses(&mut found, self.private);
        Ok(found)
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
        mut event: THandlerOutEvent<Self>,
    ) {
        if self.refuses(peer, id, &event) {
            return;
        }
        // A peer may send any kind of answer, whatever it was asked.
        match &mut event {
            HandlerEvent::FindNodeRes { closer_peers, .. } => {
                self.cut(closer_peers);
                drop_unreachable(closer_peers);
                self.tell(Event::Heard(peer, named(closer_peers)));
            }
            HandlerEvent::GetProvidersRes { closer_peers, provider_peers, query_id } => {
                self.cut(closer_peers);
                drop_unreachable(closer_peers);
                self.cut(provider_peers);
                // A provider without an address may be connected to this node.
                let providers = named(provider_peers);
                drop_unreachable(provider_peers);
                self.tell(Event::Heard(peer, named(closer_peers)));
                self.tell(Event::Heard(peer, named(provider_peers)));
                self.tell(Event::Providers { query: *query_id, from: peer, providers });
            }
            HandlerEvent::GetRecordRes { closer_peers, .. } => {
                self.cut(closer_peers);
                drop_unreachable(closer_peers);
            }
            _ => {}
        }
        self.kad.on_connection_handler_event(peer, id, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, connection, event)) = self.refused.pop_front() {
            let handler = NotifyHandler::One(connection);
            return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event });
        }
        if let Some(answer) = self.answers.pop_front() {
            return Poll::Ready(ToSwarm::GenerateEvent(answer));
        }
        self.kad.poll(cx).map(|event| event.map_out(|event| Event::Kademlia(Box::new(event))))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::task::noop_waker;
    use libp2p::StreamProtocol;
    use libp2p::kad::{ConnectionType, RecordKey};

    use super::*;

    /// Discovery that asks one peer, and its query.
    fn asking() -> (Discovery, PeerId, QueryId) {
        let (local, asked) = (PeerId::random(), PeerId::random());
        let mut config = kad::Config::new(StreamProtocol::new("/test/kad"));
        config.set_record_filtering(kad::StoreInserts::FilterBoth);
        let mut kad = kad::Behaviour::with_config(local, Providers::new(local, 0), config);
        kad.add_address(&asked, address(1, 1));
        let query = kad.get_closest_peers(PeerId::random());
        (Discovery::new(kad, false, Accounts::default()), asked, query)
    }

    fn address(group: usize, host: usize) -> Multiaddr {
        format!("/ip4/7.7.{group}.{host}/tcp/7700").parse().unwrap()
    }

    fn peer(addresses: Vec<Multiaddr>) -> KadPeer {
        KadPeer {
            node_id: PeerId::random(),
            multiaddrs: addresses,
            connection_ty: ConnectionType::NotConnected,
        }
    }

    fn id() -> ConnectionId {
        ConnectionId::new_unchecked(1)
    }

    fn events(discovery: &mut Discovery) -> Vec<ToSwarm<Event, HandlerIn>> {
        let waker = noop_waker();
        let mut events = Vec::new();
        while let Poll::Ready(event) = discovery.poll(&mut Context::from_waker(&waker)) {
            events.push(event);
        }
        events
    }

    /// The peers that Kademlia wants to dial.
    fn dials(discovery: &mut Discovery) -> Vec<PeerId> {
        let dials = events(discovery).into_iter();
        dials
            .filter_map(|event| match event {
                ToSwarm::Dial { opts } => opts.get_peer_id(),
                _ => None,
            })
            .collect()
    }

    /// Every kind of answer that Kademlia takes as one to a query.
    fn answers(query_id: QueryId, peers: &[KadPeer]) -> [HandlerEvent; 3] {
        let closer_peers = peers.to_vec();
        [
            HandlerEvent::FindNodeRes { closer_peers: closer_peers.clone(), query_id },
            HandlerEvent::GetProvidersRes {
                closer_peers: Vec::new(),
                provider_peers: closer_peers.clone(),
                query_id,
            },
            HandlerEvent::GetRecordRes { record: None, closer_peers, query_id },
        ]
    }

    #[test]
    fn records_are_charged_and_those_of_a_peer_without_budget_ignored() {
        let (mut discovery, holder, _) = asking();
        let accounts = discovery.accounts.clone();
        let mut records = || {
            let provider = KadPeer { node_id: holder, ..peer(vec![address(1, 1)]) };
            let event = HandlerEvent::AddProvider { key: RecordKey::new(&[7; 32]), provider };
            discovery.on_connection_handler_event(holder, id(), event);
            let told = events(&mut discovery).into_iter().filter(|event| match event {
                ToSwarm::GenerateEvent(Event::Kademlia(event)) => {
                    matches!(**event, kad::Event::InboundRequest { .. })
                }
                _ => false,
            });
            told.count()
        };
        assert_eq!(records(), 1);
        assert_eq!(accounts.report(&holder).spent.total(), 144);
        accounts.charge_request(&holder, usize::MAX);
        assert_eq!(records(), 0);
    }

    #[test]
    fn one_answer_causes_few_dials() {
        for kind in 0..3 {
            let (mut discovery, asked, query) = asking();
            let many = (0..1_500).map(|number| address(number / 250, number % 250));
            let private = "/ip4/10.0.0.1/tcp/7700".parse().unwrap();
            let liar = peer([private].into_iter().chain(many).collect());
            let answer = answers(query, std::slice::from_ref(&liar)).into_iter().nth(kind).unwrap();
            discovery.on_connection_handler_event(asked, id(), answer);
            let pending = |discovery: &mut Discovery| {
                let peer = Some(liar.node_id);
                discovery
                    .handle_pending_outbound_connection(id(), peer, &[], Endpoint::Dialer)
                    .unwrap()
            };
            let first: Vec<Multiaddr> = (0..4).map(|host| address(0, host)).collect();
            assert_eq!(pending(&mut discovery), first, "kind {kind}");
            // A second query hears of other addresses of the same peer.
            let query = discovery.kad.get_closest_peers(PeerId::random());
            let other = KadPeer { multiaddrs: vec![address(9, 9)], ..liar.clone() };
            let closer_peers = vec![other];
            let answer = HandlerEvent::FindNodeRes { closer_peers, query_id: query };
            discovery.on_connection_handler_event(asked, id(), answer);
            assert_eq!(pending(&mut discovery).len(), PEER_ADDRESSES_MAX, "kind {kind}");
        }
    }

    #[test]
    fn peers_without_an_address_are_not_asked() {
        for kind in 0..3 {
            let (mut discovery, asked, query) = asking();
            dials(&mut discovery);
            let mut peers: Vec<KadPeer> = (0..370).map(|_| peer(Vec::new())).collect();
            let fit = peer(vec![address(1, 2)]);
            peers.insert(0, fit.clone());
            let answer = answers(query, &peers).into_iter().nth(kind).unwrap();
            discovery.on_connection_handler_event(asked, id(), answer);
            assert_eq!(dials(&mut discovery), [fit.node_id], "kind {kind}");
        }
    }
}
