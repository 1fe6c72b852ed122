//! The task's part about peers: who they are and whether they may stay.

use std::sync::Arc;
use std::time::Instant;

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId, identify, ping};

use super::Task;
use crate::clock::wall_ms;
use crate::network::address::is_dialable;
use crate::network::bans::{Charge, Sentence, Severity};
use crate::network::dials::without_peer;
use crate::network::gate::{Close, Reason};
use crate::network::gossip::NAMED_SCORE;
use crate::network::inbox::PeerEvent;
use crate::network::peers::ADDRESSES_MAX;

impl Task {
    /// A peer made claims about itself. It may do so at any rate, so claims that come too fast
    /// wait.
    pub(super) fn on_identify(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        info: identify::Info,
    ) {
        if let Some(info) = self.peers.on_claims(&peer, connection, info, Instant::now()) {
            self.on_identified(peer, info);
        }
    }

    /// Learns a peer's chain, software and addresses. All of these are the peer's own claims. A
    /// peer of another chain is only disconnected. The agent and the addresses are bounded and
    /// filtered.
    pub(super) fn on_identified(&mut self, peer: PeerId, info: identify::Info) {
        if info.protocol_version != self.names.version {
            let theirs: String =
                info.protocol_version.chars().filter(|char| !char.is_control()).take(100).collect();
            if self.foreign_throttle.allows(Instant::now()) {
                let ours = &self.names.version;
                tracing::warn!(
                    %peer,
                    %theirs,
                    %ours,
                    "disconnecting a peer of another chain: one of us has another genesis"
                );
            } else {
                tracing::debug!(%peer, %theirs, "disconnecting a peer of another chain");
            }
            self.disconnect(peer);
            self.unroute(&peer);
            self.store.addresses.forget(&peer);
            return;
        }
        let serves_discovery = info.protocols.contains(&self.names.kad);
        self.peers.on_identified(&peer, &info.agent_version, serves_discovery);
        let private = self.private;
        let claims = info.listen_addrs.iter().map(without_peer);
        let claims = claims.filter(|claim| serves_discovery && is_dialable(claim, private));
        let claims: Vec<Multiaddr> = claims.take(ADDRESSES_MAX).collect();
        if let Some(from) = self.group_of(&peer) {
            self.store.addresses.claimed(peer, &claims, from, wall_ms());
        }
        self.admit(peer);
        self.route(peer);
        self.call_back(peer);
        self.swarm.behaviour_mut().gate.on_identified(&peer, Instant::now());
    }

    /// The peer is on our chain: it said so, or used a protocol whose name contains the chain's id.
    pub(super) fn admit(&mut self, peer: PeerId) {
        if !self.peers.admit(&peer) {
            return;
        }
        for address in self.peers.dialed(&peer) {
            self.on_reached(peer, &without_peer(&address));
        }
        for address in self.bootstrap.on_admitted(&peer) {
            if self.store.identities.insert(address, peer) != Some(peer) {
                self.saver.save_soon();
            }
        }
        if self.swarm.behaviour().gate.is_named(&peer) {
            self.on_named(peer);
        }
        self.events.push(PeerEvent::Connected(peer));
        let now = Instant::now();
        self.links.on_admitted(peer, now);
        self.open_links(now);
    }

    /// A named peer is connected. It is preferred in the mesh of gossip, it has a larger budget
    /// than others, and handshakes from its address do not give way.
    fn on_named(&mut self, peer: PeerId) {
        if let Some(address) = self.peers.address(&peer) {
            self.guards.handshakes.name(address);
        }
        self.swarm.behaviour_mut().gossip.set_application_score(&peer, NAMED_SCORE);
        self.accounts.name(peer);
    }

    pub(super) fn on_ping(&mut self, event: &ping::Event) {
        let round_trip = match &event.result {
            Ok(time) => Some(*time),
            Err(ping::Failure::Unsupported) => return,
            // A peer that is cut off cannot answer.
            Err(_) if self.faults.is_cut(&event.peer) => return,
            Err(_) => None,
        };
        if let Some(round_trip) = round_trip {
            self.swarm.behaviour_mut().gate.on_ping(event.connection, round_trip);
        }
        if self.peers.on_ping(&event.peer, event.connection, round_trip) {
            tracing::debug!(peer = %event.peer, "closing a connection that answers no pings");
            self.close(event.peer, event.connection);
        }
    }

    /// The gate wants a connection closed.
    pub(super) fn on_close(&mut self, close: Close) {
        let Close { peer, connection, reason } = close;
        tracing::debug!(%peer, ?reason, "closing a connection");
        self.meters.closed(match reason {
            Reason::Evicted => "evicted",
            Reason::Replaced => "replaced",
            Reason::Probed => "probed",
        });
        self.close(peer, connection);
    }

    /// Blames a peer: see [`Network::ban`](crate::network::Network::ban).
    pub(super) fn ban(&mut self, peer: PeerId, charge: &Charge) {
        let (now, now_ms) = (Instant::now(), wall_ms());
        let is_open = self.peers.is_open(&peer);
        if self.store.bans.until(&peer, now_ms).is_some() {
            return;
        }
        // A mistake in a message that was queued before the connection was closed is not counted
        // again.
        if charge.severity == Severity::Mistake && !is_open {
            return;
        }
        let address = self.peers.address(&peer).cloned();
        let is_named = self.swarm.behaviour().gate.is_named(&peer);
        let sentence = self.store.bans.judge(peer, address, charge, is_named, now_ms);
        let (offence, detail) = (&charge.offence, &charge.detail);
        match sentence {
            Sentence::Banned { until_ms } => {
                self.unroute(&peer);
                self.store.addresses.forget(&peer);
                if self.ban_throttle.allows(now) {
                    tracing::warn!(%peer, %offence, %detail, until_ms, "banned a peer");
                } else {
                    tracing::debug!(%peer, %offence, %detail, until_ms, "banned a peer");
                }
            }
            Sentence::Closed => {
                tracing::debug!(%peer, %offence, %detail, "disconnecting a peer for a mistake")
            }
        }
        self.publish_bans();
        self.saver.save_soon();
        self.disconnect(peer);
    }

    /// Shows the bans to the gate and to readers.
    pub(super) fn publish_bans(&mut self) {
        let bans = self.store.bans.list(wall_ms());
        let banned = bans.iter().map(|ban| (ban.peer, ban.until_ms)).collect();
        let suspects = self.store.bans.suspects(self.grouping);
        self.swarm.behaviour_mut().gate.set_bans(banned, suspects);
        self.bans.send_replace(Arc::new(bans));
    }

    pub(super) fn disconnect(&mut self, peer: PeerId) {
        // An error means that it is not connected.
        let _ = self.swarm.disconnect_peer_id(peer);
        self.peers.on_closing(&peer, None, Instant::now());
    }

    fn close(&mut self, peer: PeerId, connection: ConnectionId) {
        self.swarm.close_connection(connection);
        self.peers.on_closing(&peer, Some(connection), Instant::now());
    }

    pub(super) fn publish_addresses(&mut self) {
        let local = *self.swarm.local_peer_id();
        let known = self.swarm.listeners().chain(self.swarm.external_addresses());
        let mut addresses: Vec<Multiaddr> =
            known.filter_map(|address| address.clone().with_p2p(local).ok()).collect();
        addresses.dedup();
        let own = addresses.iter().filter(|address| is_dialable(address, self.private));
        let own = own.map(without_peer).collect();
        self.swarm.behaviour_mut().discovery.kad.store_mut().own_addresses = own;
        self.addresses.send_replace(Arc::new(addresses));
    }
}
