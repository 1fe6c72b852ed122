//! The task's part about peers: who they are and whether they may stay.

use std::sync::Arc;
use std::time::Instant;

use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId, identify, ping};

use super::{Task, random};
use crate::network::address::is_dialable;
use crate::network::inbox::PeerEvent;
use crate::network::peers::ADDRESSES_MAX;

impl Task {
    pub(super) fn dial(&mut self, dial: DialOpts) {
        let connection = dial.connection_id();
        if let Err(error) = self.swarm.dial(dial) {
            self.on_dial_error(connection, &error);
        }
    }

    pub(super) fn on_dial_error(&mut self, connection: ConnectionId, error: &DialError) {
        tracing::debug!(%error, "dial failed");
        match error {
            DialError::LocalPeerId { .. } => self.bootstrap.on_self(connection),
            error => {
                if let Some(peer) = self.bootstrap.on_failed(connection, Instant::now(), random()) {
                    tracing::warn!(%peer, reason = reason(error), "a peer cannot be reached; it is tried again and again");
                }
            }
        }
    }

    /// Learns a peer's chain, software and addresses. All of it is the peer's own claim: a wrong chain only costs it the
    /// connection, the rest is bounded and filtered.
    pub(super) fn on_identified(&mut self, peer: PeerId, info: identify::Info) {
        if info.protocol_version != self.names.version {
            let theirs: String = info.protocol_version.chars().filter(|char| !char.is_control()).take(100).collect();
            if self.foreign_throttle.allows(Instant::now()) {
                let ours = &self.names.version;
                tracing::warn!(%peer, %theirs, %ours, "disconnecting a peer of another chain: one of us has another genesis");
            } else {
                tracing::debug!(%peer, %theirs, "disconnecting a peer of another chain");
            }
            self.disconnect(peer);
            return;
        }
        let routes = info.protocols.contains(&self.names.kad);
        let private = self.private;
        let claimed = info.listen_addrs.into_iter().filter(|address| routes && is_dialable(address, private));
        let addresses: Vec<Multiaddr> = claimed.take(ADDRESSES_MAX).collect();
        let former = self.peers.on_identified(&peer, &info.agent_version, addresses.clone());
        let kad = &mut self.swarm.behaviour_mut().kad;
        for address in former.iter().filter(|address| !addresses.contains(address)) {
            kad.remove_address(&peer, address);
        }
        for address in addresses {
            kad.add_address(&peer, address);
        }
        self.admit(peer);
    }

    /// The peer is on our chain: it said so, or spoke a protocol that carries the chain's name.
    pub(super) fn admit(&mut self, peer: PeerId) {
        if self.peers.admit(&peer) {
            self.bootstrap.on_admitted(&peer);
            self.events.push(PeerEvent::Connected(peer));
            let now = Instant::now();
            self.links.on_admitted(peer, now);
            self.open_links(now);
        }
    }

    pub(super) fn on_ping(&mut self, event: &ping::Event) {
        let round_trip = match &event.result {
            Ok(time) => Some(*time),
            Err(ping::Failure::Unsupported) => return,
            Err(_) => None,
        };
        if self.peers.on_ping(&event.peer, event.connection, round_trip) {
            tracing::debug!(peer = %event.peer, "closing a connection that answers no pings");
            self.swarm.close_connection(event.connection);
        }
    }

    pub(super) fn ban(&mut self, peer: PeerId, offence: &'static str, reason: &str) {
        let behaviour = self.swarm.behaviour_mut();
        if !behaviour.gate.ban(peer) {
            return;
        }
        behaviour.kad.remove_peer(&peer);
        if self.ban_throttle.allows(Instant::now()) {
            tracing::warn!(%peer, offence, reason, "banned a peer");
        } else {
            tracing::debug!(%peer, offence, reason, "banned a peer");
        }
        self.disconnect(peer);
    }

    pub(super) fn disconnect(&mut self, peer: PeerId) {
        // An error means that it is not connected.
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    pub(super) fn publish_addresses(&self) {
        let local = *self.swarm.local_peer_id();
        let known = self.swarm.listeners().chain(self.swarm.external_addresses());
        let mut addresses: Vec<Multiaddr> = known.filter_map(|address| address.clone().with_p2p(local).ok()).collect();
        addresses.dedup();
        self.addresses.send_replace(Arc::new(addresses));
    }
}

/// Why a dial failed, in one line: of a failed connection what the system says, which libp2p wraps several times.
fn reason(error: &DialError) -> String {
    let DialError::Transport(failures) = error else { return error.to_string() };
    let Some((_, failure)) = failures.last() else { return error.to_string() };
    let mut cause: &dyn std::error::Error = failure;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
