//! The gate: who may connect at all. Banned peers may not, and one address may hold only so many connections.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use libp2p::{Multiaddr, PeerId};

use super::address::ip_of;

/// Bans remembered; the oldest is forgotten first. An identity costs nothing, so more would not keep anyone out.
const BANS_MAX: usize = 4096;

/// Why a connection was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the peer is banned")]
    Banned,
    #[error("{0} connections from this address already")]
    Crowded(usize),
}

/// Refuses connections. First of all behaviours: one that refuses after another has prepared a connection would leave
/// that one with a connection that never was.
pub(crate) struct Gate {
    banned: HashSet<PeerId>,
    /// The same peers, oldest first.
    banned_order: VecDeque<PeerId>,
    /// Inbound connections one address may hold, pending ones included.
    per_ip_max: Option<usize>,
    inbound: HashMap<ConnectionId, IpAddr>,
}

impl Gate {
    pub(crate) fn new(per_ip_max: Option<usize>) -> Self {
        Self { banned: HashSet::new(), banned_order: VecDeque::new(), per_ip_max, inbound: HashMap::new() }
    }

    /// Refuses the peer from now on. Returns whether that is new.
    pub(crate) fn ban(&mut self, peer: PeerId) -> bool {
        if !self.banned.insert(peer) {
            return false;
        }
        self.banned_order.push_back(peer);
        if self.banned_order.len() > BANS_MAX
            && let Some(oldest) = self.banned_order.pop_front()
        {
            self.banned.remove(&oldest);
        }
        true
    }

    fn check(&self, peer: &PeerId) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        if self.banned.contains(peer) {
            return Err(ConnectionDenied::new(Refusal::Banned));
        }
        Ok(dummy::ConnectionHandler)
    }

    /// Counts a new inbound connection, or refuses it.
    fn enter(&mut self, id: ConnectionId, remote: &Multiaddr) -> Result<(), Refusal> {
        let (Some(max), Some(ip)) = (self.per_ip_max, ip_of(remote)) else { return Ok(()) };
        if ip.is_loopback() {
            return Ok(());
        }
        let network = network_of(ip);
        let count = self.inbound.values().filter(|other| **other == network).count();
        if count >= max {
            return Err(Refusal::Crowded(count));
        }
        self.inbound.insert(id, network);
        Ok(())
    }
}

/// One host of IPv6 usually has a whole /64.
fn network_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.enter(id, remote).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _id: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(&peer)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _id: ConnectionId,
        peer: Option<PeerId>,
        _addresses: &[Multiaddr],
        _role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if let Some(peer) = peer {
            self.check(&peer)?;
        }
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _id: ConnectionId,
        peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(&peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ListenFailure(failure) => self.inbound.remove(&failure.connection_id),
            FromSwarm::ConnectionClosed(closed) => self.inbound.remove(&closed.connection_id),
            _ => None,
        };
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bans_last_and_are_bounded() {
        let mut gate = Gate::new(None);
        let first = PeerId::random();
        assert!(gate.ban(first));
        assert!(!gate.ban(first));
        assert!(gate.check(&first).is_err());
        assert!(gate.check(&PeerId::random()).is_ok());
        for _ in 1..BANS_MAX {
            gate.ban(PeerId::random());
        }
        assert!(gate.check(&first).is_err());
        gate.ban(PeerId::random());
        assert!(gate.check(&first).is_ok(), "the oldest ban goes first");
        assert_eq!((gate.banned.len(), gate.banned_order.len()), (BANS_MAX, BANS_MAX));
    }

    #[test]
    fn one_address_holds_only_so_many() {
        let mut gate = Gate::new(Some(2));
        let mut number = 0;
        // address, whether it may enter after those before it
        let cases = [
            ("/ip4/1.1.1.1/tcp/1", true),
            ("/ip4/1.1.1.1/tcp/2", true),
            ("/ip4/1.1.1.1/tcp/3", false),
            ("/ip4/1.1.1.2/tcp/3", true),
            ("/ip6/2606:4700::1/tcp/1", true),
            ("/ip6/2606:4700::2/tcp/1", true),
            ("/ip6/2606:4700::3/tcp/1", false),
            ("/ip6/2606:4700:0:1::3/tcp/1", true),
            ("/ip4/127.0.0.1/tcp/1", true),
            ("/ip4/127.0.0.1/tcp/2", true),
            ("/ip4/127.0.0.1/tcp/3", true),
        ];
        for (text, expected) in cases {
            number += 1;
            let entered = gate.enter(ConnectionId::new_unchecked(number), &text.parse().unwrap());
            assert_eq!(entered.is_ok(), expected, "{text}");
        }
        gate.inbound.remove(&ConnectionId::new_unchecked(1));
        assert!(gate.enter(ConnectionId::new_unchecked(99), &"/ip4/1.1.1.1/tcp/3".parse().unwrap()).is_ok());
    }
}
