//! The peers we are connected to, and the snapshot of them for readers.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId, identify};
use tokio::sync::watch;

use super::socket::{Hold, Taken};

/// How long a peer may take to say which chain it is on.
const IDENTIFY_TIME: Duration = Duration::from_secs(30);

/// Least time between two claims of a peer about itself, on one connection, that are acted on. A
/// peer may send claims as fast as the connection takes them, and each one costs the network's task
/// a search of all known addresses. An honest peer's claims change a few times a day.
const CLAIM_INTERVAL: Duration = Duration::from_secs(60);

/// Failed pings in a row, as libp2p reports them, after which a connection is closed. libp2p does
/// not report the first failure. A dead connection is closed after about a minute and a half, one
/// that is only slow after about four minutes. Bulk data on a slow connection delays pings, so a
/// lower number would close connections that still work.
const PINGS_FAILED_MAX: u32 = 4;

/// How long a connection may take to close in an orderly way before it is cut.
const CLOSING_TIME: Duration = Duration::from_secs(3);

/// Longest agent (a peer's claim about its software) that is kept, in characters.
const AGENT_CHARS_MAX: usize = 64;

/// Most addresses kept of those that a peer claims.
pub(crate) const ADDRESSES_MAX: usize = 8;

/// What readers see of a connected peer.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Its identity.
    pub id: PeerId,
    /// The address of its oldest connection, as we see it. An inbound one has an ephemeral port.
    pub address: Multiaddr,
    /// Whether the peer made its oldest connection.
    pub inbound: bool,
    /// Its claim about its software: printable, at most 64 characters.
    pub agent: String,
    /// Round trip of the last ping.
    pub ping: Option<Duration>,
    /// Since when it has been connected without a gap.
    pub connected_since: SystemTime,
    /// Bytes on its connections since then.
    pub traffic: Traffic,
}

/// Counts of encrypted bytes on all connections with a peer. The counts are live: they go on
/// counting after this value was taken.
#[derive(Clone, Default)]
pub struct Traffic {
    open: Vec<Hold>,
    sent: u64,
    received: u64,
}

impl Traffic {
    /// Bytes sent until now.
    pub fn sent_bytes(&self) -> u64 {
        self.open.iter().fold(self.sent, |sum, hold| sum.saturating_add(*hold.taken.borrow()))
    }

    /// Bytes received until now.
    pub fn received_bytes(&self) -> u64 {
        self.open.iter().fold(self.received, |sum, hold| sum.saturating_add(hold.line.received()))
    }

    /// Keeps the counts of a connection that is gone.
    fn close(&mut self, hold: &Hold) {
        self.sent = self.sent.saturating_add(*hold.taken.borrow());
        self.received = self.received.saturating_add(hold.line.received());
    }
}

impl fmt::Debug for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traffic")
            .field("sent", &self.sent_bytes())
            .field("received", &self.received_bytes())
            .finish()
    }
}

/// All peers with a connection.
pub(crate) struct Peers {
    peers: HashMap<PeerId, Peer>,
    snapshot: watch::Sender<Arc<Vec<PeerInfo>>>,
}

struct Peer {
    connections: Vec<Connection>,
    /// Set once it is known to be on our chain.
    admitted: bool,
    opened: Instant,
    /// Whether it answers Kademlia's queries.
    serves_discovery: bool,
    agent: String,
    ping: Option<Duration>,
    connected_since: SystemTime,
    /// Bytes of connections that are gone.
    past: Traffic,
}

struct Connection {
    id: ConnectionId,
    address: Multiaddr,
    inbound: bool,
    hold: Option<Hold>,
    pings_failed: u32,
    /// When the peer's claims on this connection were last acted on.
    claimed: Option<Instant>,
    /// The newest claims, if they came before [`CLAIM_INTERVAL`] was over. They have at most 4 KiB,
    /// since identify reads no more.
    claims: Option<Box<identify::Info>>,
    /// When the closing of the connection began. `None` while it is open.
    closing: Option<Instant>,
}

impl Peers {
    pub(crate) fn new() -> (Self, watch::Receiver<Arc<Vec<PeerInfo>>>) {
        let (snapshot, reader) = watch::channel(Arc::new(Vec::new()));
        (Self { peers: HashMap::new(), snapshot }, reader)
    }

    pub(crate) fn on_connected(
        &mut self,
        id: PeerId,
        connection: ConnectionId,
        address: Multiaddr,
        inbound: bool,
        hold: Option<Hold>,
        now: Instant,
    ) {
        let peer = self.peers.entry(id).or_insert_with(|| Peer {
            connections: Vec::new(),
            admitted: false,
            opened: now,
            serves_discovery: false,
            agent: String::new(),
            ping: None,
            connected_since: SystemTime::now(),
            past: Traffic::default(),
        });
        peer.connections.push(Connection {
            id: connection,
            address,
            inbound,
            hold,
            pings_failed: 0,
            claimed: None,
            claims: None,
            closing: None,
        });
        if peer.admitted {
            self.publish();
        }
    }

    /// Forgets a connection. Returns whether an admitted peer is gone with it.
    pub(crate) fn on_closed(&mut self, id: &PeerId, connection: ConnectionId) -> bool {
        let Some(peer) = self.peers.get_mut(id) else { return false };
        for hold in peer
            .connections
            .iter()
            .filter(|other| other.id == connection)
            .filter_map(|it| it.hold.as_ref())
        {
            peer.past.close(hold);
        }
        peer.connections.retain(|other| other.id != connection);
        let gone = peer.connections.is_empty();
        let admitted = peer.admitted;
        if gone {
            self.peers.remove(id);
        }
        if admitted {
            self.publish();
        }
        gone && admitted
    }

    /// The peer is on our chain. Returns whether this was not known before.
    pub(crate) fn admit(&mut self, id: &PeerId) -> bool {
        match self.peers.get_mut(id) {
            Some(peer) if !peer.admitted => {
                peer.admitted = true;
                self.publish();
                true
            }
            _ => false,
        }
    }

    pub(crate) fn is_admitted(&self, id: &PeerId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.admitted)
    }

    /// The remote address of the peer's oldest connection.
    pub(crate) fn address(&self, id: &PeerId) -> Option<&Multiaddr> {
        Some(&self.peers.get(id)?.connections.first()?.address)
    }

    /// The addresses at which we dialed the peer.
    pub(crate) fn dialed(&self, id: &PeerId) -> Vec<Multiaddr> {
        let connections = self.peers.get(id).map_or(&[][..], |peer| &peer.connections);
        connections.iter().filter(|it| !it.inbound).map(|it| it.address.clone()).collect()
    }

    /// Whether the peer has a connection that is not being closed.
    pub(crate) fn is_open(&self, id: &PeerId) -> bool {
        self.peers
            .get(id)
            .is_some_and(|peer| peer.connections.iter().any(|it| it.closing.is_none()))
    }

    /// This connection with the peer is being closed, or all its connections if `connection` is
    /// `None`.
    pub(crate) fn on_closing(
        &mut self,
        id: &PeerId,
        connection: Option<ConnectionId>,
        now: Instant,
    ) {
        let connections = self.peers.get_mut(id).map_or(&mut [][..], |peer| &mut peer.connections);
        for it in connections.iter_mut().filter(|it| connection.is_none_or(|id| it.id == id)) {
            it.closing.get_or_insert(now);
        }
    }

    /// Cuts connections that do not close in time. A peer that does not read would hold them open.
    pub(crate) fn cut_stuck(&self, now: Instant) {
        let connections = self.peers.values().flat_map(|peer| &peer.connections);
        for it in connections
            .filter(|it| it.closing.is_some_and(|since| now.duration_since(since) >= CLOSING_TIME))
        {
            if let Some(hold) = &it.hold {
                hold.line.cut();
            }
        }
    }

    /// The newest connection with the peer. An older one may be dead, left over from before the
    /// peer restarted.
    pub(crate) fn connection(&self, id: &PeerId) -> Option<ConnectionId> {
        Some(self.peers.get(id)?.connections.last()?.id)
    }

    /// The count of bytes that the system has taken in for a connection.
    pub(crate) fn taken(&self, id: &PeerId, connection: ConnectionId) -> Option<Taken> {
        let connections = &self.peers.get(id)?.connections;
        Some(connections.iter().find(|other| other.id == connection)?.hold.as_ref()?.taken.clone())
    }

    /// A peer made claims about itself. Returns them if they may be acted on now: the first claims
    /// of a connection at once, later ones once per [`CLAIM_INTERVAL`]. Otherwise they wait, and
    /// replace earlier claims that wait.
    pub(crate) fn on_claims(
        &mut self,
        id: &PeerId,
        connection: ConnectionId,
        info: identify::Info,
        now: Instant,
    ) -> Option<identify::Info> {
        let open =
            self.peers.get_mut(id)?.connections.iter_mut().find(|other| other.id == connection)?;
        if open.claimed.is_some_and(|last| now.duration_since(last) < CLAIM_INTERVAL) {
            open.claims = Some(Box::new(info));
            return None;
        }
        (open.claimed, open.claims) = (Some(now), None);
        Some(info)
    }

    /// Takes out the claims that have waited until their connection's [`CLAIM_INTERVAL`] was over.
    pub(crate) fn due_claims(&mut self, now: Instant) -> Vec<(PeerId, identify::Info)> {
        let is_due = |open: &Connection| {
            open.claimed.is_none_or(|last| now.duration_since(last) >= CLAIM_INTERVAL)
        };
        let mut due = Vec::new();
        for (id, peer) in &mut self.peers {
            for open in
                peer.connections.iter_mut().filter(|open| open.closing.is_none() && is_due(open))
            {
                if open.claims.is_none() {
                    continue;
                }
                open.claimed = Some(now);
                due.extend(open.claims.take().map(|info| (*id, *info)));
            }
        }
        due
    }

    /// Takes over a peer's claims about itself.
    pub(crate) fn on_identified(&mut self, id: &PeerId, agent: &str, serves_discovery: bool) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.serves_discovery = serves_discovery;
        let agent: String =
            agent.chars().filter(|char| !char.is_control()).take(AGENT_CHARS_MAX).collect();
        if agent != peer.agent {
            peer.agent = agent;
            self.publish();
        }
    }

    /// Whether a connected peer has said that it answers Kademlia's queries.
    pub(crate) fn serves_discovery(&self, id: &PeerId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.serves_discovery)
    }

    /// Records the result of a ping; `None` is a failure. Returns whether the connection must be
    /// closed.
    pub(crate) fn on_ping(
        &mut self,
        id: &PeerId,
        connection: ConnectionId,
        round_trip: Option<Duration>,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(id) else { return false };
        let Some(open) = peer.connections.iter_mut().find(|other| other.id == connection) else {
            return false;
        };
        match round_trip {
            Some(time) => {
                open.pings_failed = 0;
                peer.ping = Some(time);
                self.publish();
                false
            }
            None => {
                open.pings_failed += 1;
                open.pings_failed >= PINGS_FAILED_MAX
            }
        }
    }

    /// The peers that have not said within [`IDENTIFY_TIME`] which chain they are on.
    pub(crate) fn unidentified(&self, now: Instant) -> Vec<PeerId> {
        let overdue =
            |peer: &Peer| !peer.admitted && now.duration_since(peer.opened) >= IDENTIFY_TIME;
        self.peers.iter().filter(|(_, peer)| overdue(peer)).map(|(id, _)| *id).collect()
    }

    /// Shows readers the admitted peers, ordered by identity.
    fn publish(&self) {
        let info = |(id, peer): (&PeerId, &Peer)| {
            let first = peer.connections.first().filter(|_| peer.admitted)?;
            Some(PeerInfo {
                id: *id,
                address: first.address.clone(),
                inbound: first.inbound,
                agent: peer.agent.clone(),
                ping: peer.ping,
                connected_since: peer.connected_since,
                traffic: Traffic {
                    open: peer.connections.iter().filter_map(|it| it.hold.clone()).collect(),
                    ..peer.past.clone()
                },
            })
        };
        let mut infos: Vec<PeerInfo> = self.peers.iter().filter_map(info).collect();
        infos.sort_by_key(|info| info.id);
        self.snapshot.send_replace(Arc::new(infos));
    }
}

#[cfg(test)]
mod tests;
