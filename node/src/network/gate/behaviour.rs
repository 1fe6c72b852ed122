//! The gate as a behaviour of libp2p, which asks it about each dial and each connection.

use std::task::{Context, Poll};
use std::time::Instant;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use super::{Close, Gate};
use crate::clock::wall_ms;

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Close;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.on_inbound(id, peer, remote, Instant::now(), wall_ms())
            .map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        _addresses: &[Multiaddr],
        _role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.on_dial(id, peer.as_ref(), Instant::now(), wall_ms())
            .map_err(ConnectionDenied::new)?;
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.on_outbound(id, peer, address, Instant::now(), wall_ms())
            .map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            // Another behaviour refused the connection.
            FromSwarm::ListenFailure(failure) => drop(self.open.remove(&failure.connection_id)),
            FromSwarm::DialFailure(failure) => {
                self.open.remove(&failure.connection_id);
                if let DialError::NoAddresses = failure.error {
                    self.on_no_address(failure.connection_id, failure.peer_id);
                }
                self.on_dial_over(failure.connection_id);
            }
            FromSwarm::ConnectionClosed(closed) => drop(self.open.remove(&closed.connection_id)),
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.closes
            .pop_front()
            .map_or(Poll::Pending, |close| Poll::Ready(ToSwarm::GenerateEvent(close)))
    }
}
