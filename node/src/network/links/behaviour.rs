//! Opens the streams of links, and accepts the streams that peers open.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::Either;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{ReadyUpgrade, SelectUpgrade};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
    StreamUpgradeError,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, Stream, SubstreamProtocol, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};

use crate::network::wire::Lane;

/// How long a stream may take to open. On a slow connection its handshake may wait behind bulk
/// data.
const OPEN: Duration = Duration::from_secs(60);

/// Most of the peer's streams that wait to be reported. More are dropped. Few ever wait, since
/// libp2p does not poll a connection whose events the swarm has not taken.
const INWARD_WAITING: usize = 8;

/// A stream was opened, or could not be.
#[derive(Debug)]
pub(crate) enum StreamEvent {
    /// The peer has opened a stream and will write on it.
    Inward { peer: PeerId, lane: Lane, stream: Stream },
    /// The one outcome of [`Behaviour::open`], unless the connection closes before.
    Outward { peer: PeerId, connection: ConnectionId, streams: Result<[Stream; 2], OpenError> },
}

pub(crate) type OpenError = StreamUpgradeError<Infallible>;

/// Opens streams of links on all connections. Keeps no state and decides nothing.
pub(crate) struct Behaviour {
    protocols: [StreamProtocol; 2],
    /// Events for the swarm, which takes all of them before it does anything else.
    waiting: VecDeque<ToSwarm<StreamEvent, Open>>,
}

/// Asks a connection for one stream per lane.
#[derive(Debug)]
pub(crate) struct Open;

impl Behaviour {
    pub(crate) fn new(protocols: [StreamProtocol; 2]) -> Self {
        Self { protocols, waiting: VecDeque::new() }
    }

    /// Opens one stream per lane on a connection. Not to be called again before the outcome is
    /// known.
    pub(crate) fn open(&mut self, peer: PeerId, connection: ConnectionId) {
        let handler = NotifyHandler::One(connection);
        self.waiting.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event: Open });
    }

    fn handler(&self) -> Handler {
        Handler {
            protocols: self.protocols.clone(),
            wanted: None,
            control: None,
            waiting: VecDeque::new(),
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = StreamEvent;

    fn handle_established_inbound_connection(
        &mut self,
        _id: ConnectionId,
        _peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _id: ConnectionId,
        _peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let event = match event {
            Opened::Inward(lane, stream) => StreamEvent::Inward { peer, lane, stream },
            Opened::Outward(streams) => StreamEvent::Outward { peer, connection, streams },
        };
        self.waiting.push_back(ToSwarm::GenerateEvent(event));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.waiting.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// The streams of one connection that are being opened.
pub(crate) struct Handler {
    protocols: [StreamProtocol; 2],
    /// The lane whose stream is requested next.
    wanted: Option<Lane>,
    /// The control stream, once it is open. The data stream is requested after it.
    control: Option<Stream>,
    waiting: VecDeque<Opened>,
}

/// What a connection reports.
#[derive(Debug)]
pub(crate) enum Opened {
    Inward(Lane, Stream),
    Outward(Result<[Stream; 2], OpenError>),
}

type Inbound = SelectUpgrade<ReadyUpgrade<StreamProtocol>, ReadyUpgrade<StreamProtocol>>;

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Opened;
    type InboundProtocol = Inbound;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Lane;

    fn listen_protocol(&self) -> SubstreamProtocol<Inbound> {
        let [control, data] = self.protocols.clone().map(ReadyUpgrade::new);
        SubstreamProtocol::new(SelectUpgrade::new(control, data), ()).with_timeout(OPEN)
    }

    fn on_behaviour_event(&mut self, _: Open) {
        self.wanted = Some(Lane::Control);
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Lane, Opened>> {
        if let Some(opened) = self.waiting.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(opened));
        }
        let Some(lane) = self.wanted.take() else { return Poll::Pending };
        let upgrade = ReadyUpgrade::new(self.protocols[lane.index()].clone());
        let protocol = SubstreamProtocol::new(upgrade, lane).with_timeout(OPEN);
        Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<Inbound, Self::OutboundProtocol, (), Lane>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol, ..
            }) if self.waiting.len() < INWARD_WAITING => {
                self.waiting.push_back(match protocol {
                    Either::Left(stream) => Opened::Inward(Lane::Control, stream),
                    Either::Right(stream) => Opened::Inward(Lane::Data, stream),
                });
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: lane,
            }) => match (lane, self.control.take()) {
                (Lane::Control, _) => {
                    self.control = Some(stream);
                    self.wanted = Some(Lane::Data);
                }
                (Lane::Data, Some(control)) => {
                    self.waiting.push_back(Opened::Outward(Ok([control, stream])))
                }
                (Lane::Data, None) => {
                    unreachable!("invariant: data is asked for when control is open")
                }
            },
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                self.control = None;
                self.waiting.push_back(Opened::Outward(Err(error)));
            }
            _ => {}
        }
    }
}
