//! The gate: who may be connected.
//!
//! - Named peers (those of the configuration) may always connect, in both directions, unless they
//!   are banned or cut off. They take no places.
//! - Other peers that dial us take inbound places. If none is free, a newcomer gets the place of
//!   the least useful peer: see [`eviction`](super::eviction). If none is free for its group of
//!   addresses, a member of the group may give way.
//! - Peers that we dial take outbound places, one for each group of addresses. A connection beyond
//!   these is a *probe*: Kademlia may ask its question, then the connection is closed, unless it
//!   gets a place that has become free.
//! - Of one peer the newest connections stay. An old one may be dead, left over from before the
//!   peer restarted, and must not keep it out.

mod behaviour;
mod probe;

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

use self::probe::{Probe, Purpose, Room};
use super::Limits;
use super::eviction::{Candidate, Leaver, Member, Service, victim, victim_in_group};
use super::faults::Faults;
use super::group::{Group, Grouping};

/// Most connections that are being closed. While there are this many, no newcomer evicts a peer or
/// becomes a probe. A peer that holds a closing connection open is cut off after a few seconds.
const CLOSING_MAX: usize = 32;

/// Least time between two newcomers that trade places within one group of addresses. It gives each
/// of them time to be useful. Without it a group of many hosts could make connections open and
/// close without end.
const TRADE_INTERVAL: Duration = Duration::from_secs(10);

/// Most groups whose last trade is remembered. Beyond it there is no further trade until a record
/// is [`TRADE_INTERVAL`] old.
const TRADES_MAX: usize = 64;

/// Least time between two dials of a peer that we know only from other peers.
const DIAL_INTERVAL: Duration = Duration::from_secs(60);

/// The same time while all outbound places are taken. A dial can then only become a probe.
const PROBE_INTERVAL: Duration = Duration::from_secs(600);

/// Most peers whose last dial is remembered. Beyond it the oldest record is forgotten. The peer of
/// that record may be dialed again sooner, but none of its addresses within a minute.
const DIALED_MAX: usize = 1024;

/// Why a connection was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the peer is banned until {until_ms} ms since 1970")]
    Banned { until_ms: u64 },
    #[error("this group of addresses has {0} connections already")]
    Crowded(usize),
    #[error("no place is free")]
    Full,
    #[error("this peer was dialed a moment ago")]
    Recent,
    #[error("the operator has cut this peer off")]
    Cut,
    #[error("this peer is connected already")]
    Connected,
}

/// Why a connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A newcomer has its place.
    Evicted,
    /// The peer has newer connections.
    Replaced,
    /// It is a probe whose time is over.
    Probed,
}

/// A connection to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) peer: PeerId,
    pub(crate) connection: ConnectionId,
    pub(crate) reason: Reason,
}

/// Why the task dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The address is one of the configuration: whoever answers is a named peer.
    Named,
    /// The peer is one that the task chose: an anchor, a peer of the store or of the local network,
    /// or one that the operator dials.
    Chosen,
    /// The peer has what this node fetches.
    Holder,
}

/// Refuses connections. It must be the first of all behaviours. If it refused after another
/// behaviour had prepared for a connection, that behaviour would keep state for a connection that
/// never existed.
pub(crate) struct Gate {
    limits: Limits,
    grouping: Grouping,
    /// The secret from which each group gets a random number.
    key: RandomState,
    named: HashSet<PeerId>,
    /// Ends of bans, in milliseconds since 1970.
    banned: HashMap<PeerId, u64>,
    /// Hosts of peers that offended lately.
    suspects: HashSet<IpAddr>,
    /// When a newcomer last traded places within a group.
    traded: HashMap<Group, Instant>,
    open: HashMap<ConnectionId, Open>,
    /// Dials under way that the task chose.
    chosen: HashMap<ConnectionId, Choice>,
    /// Other dials under way.
    learned: HashSet<ConnectionId>,
    dialed: HashMap<PeerId, Instant>,
    /// Whether somebody waits for a look-up.
    is_searching: bool,
    closes: VecDeque<Close>,
    /// Set on a local network, where peers can be cut off.
    faults: Option<Faults>,
}

struct Open {
    peer: PeerId,
    group: Group,
    /// `None` if limits by address do not apply.
    host: Option<IpAddr>,
    is_inbound: bool,
    /// `None` for a connection that has a place.
    probe: Option<Probe>,
    since: Instant,
    ping_min: Option<Duration>,
    served: [Option<Instant>; Service::ALL.len()],
    is_closing: bool,
}

impl Gate {
    pub(crate) fn new(limits: Limits, grouping: Grouping, faults: Option<Faults>) -> Self {
        Self {
            limits,
            grouping,
            key: RandomState::new(),
            named: HashSet::new(),
            banned: HashMap::new(),
            suspects: HashSet::new(),
            traded: HashMap::new(),
            open: HashMap::new(),
            chosen: HashMap::new(),
            learned: HashSet::new(),
            dialed: HashMap::new(),
            is_searching: false,
            closes: VecDeque::new(),
            faults,
        }
    }

    /// The peer is a named one from now on.
    pub(crate) fn name(&mut self, peer: PeerId) {
        self.named.insert(peer);
    }

    /// The peer is no longer named, as another one answers at its address now.
    pub(crate) fn unname(&mut self, peer: &PeerId) {
        self.named.remove(peer);
    }

    pub(crate) fn is_named(&self, peer: &PeerId) -> bool {
        self.named.contains(peer)
    }

    /// Replaces all bans, and the hosts that offended.
    pub(crate) fn set_bans(&mut self, banned: HashMap<PeerId, u64>, suspects: HashSet<IpAddr>) {
        (self.banned, self.suspects) = (banned, suspects);
    }

    /// The task is about to make this dial.
    pub(crate) fn choose(&mut self, dial: ConnectionId, choice: Choice) {
        self.chosen.insert(dial, choice);
    }

    /// The dial was not made, or is over.
    pub(crate) fn on_dial_over(&mut self, dial: ConnectionId) {
        self.chosen.remove(&dial);
        self.learned.remove(&dial);
    }

    /// Nobody was dialed, since no address of the peer is known.
    fn on_no_address(&mut self, dial: ConnectionId, peer: Option<PeerId>) {
        if self.learned.contains(&dial)
            && let Some(peer) = peer
        {
            self.dialed.remove(&peer);
        }
    }

    /// Whether somebody waits for a look-up. Then peers may be dialed as often as if places were
    /// free, since those nearest to a key are seldom connected.
    pub(crate) fn set_searching(&mut self, is_searching: bool) {
        self.is_searching = is_searching;
    }

    /// A ping came back.
    pub(crate) fn on_ping(&mut self, connection: ConnectionId, round_trip: Duration) {
        if let Some(open) = self.open.get_mut(&connection) {
            open.ping_min = Some(open.ping_min.map_or(round_trip, |min| min.min(round_trip)));
        }
    }

    /// The peer was useful.
    pub(crate) fn on_service(&mut self, peer: &PeerId, service: Service, now: Instant) {
        for open in self.open.values_mut().filter(|open| open.peer == *peer) {
            open.served[service.index()] = Some(now);
        }
    }

    /// How many outbound places are taken.
    pub(crate) fn outbound(&self) -> usize {
        self.open.values().filter(|open| self.takes_outbound(open)).count()
    }

    /// Whether another peer of this group could have an outbound place.
    pub(crate) fn has_outbound_place(&self, group: Group) -> bool {
        let mut kept = self.open.values().filter(|open| self.takes_outbound(open));
        let crowded = group.is_limited() && kept.any(|open| open.group == group);
        !crowded && self.outbound() < self.limits.outbound as usize
    }

    /// The peers in outbound places, the oldest first.
    pub(crate) fn outbound_peers(&self) -> Vec<PeerId> {
        let mut peers: Vec<(Instant, PeerId)> = self
            .open
            .values()
            .filter(|open| self.takes_outbound(open))
            .map(|open| (open.since, open.peer))
            .collect();
        peers.sort();
        peers.into_iter().map(|(_, peer)| peer).collect()
    }

    fn takes_outbound(&self, open: &Open) -> bool {
        !open.is_inbound
            && open.probe.is_none()
            && !open.is_closing
            && !self.named.contains(&open.peer)
    }

    fn is_cut(&self, peer: &PeerId) -> bool {
        self.faults.as_ref().is_some_and(|faults| faults.is_cut(peer))
    }

    fn takes_inbound(&self, open: &Open) -> bool {
        open.is_inbound && !open.is_closing && !self.named.contains(&open.peer)
    }

    /// Whether a newcomer may have its place. A peer that is cut off keeps its place, because it
    /// cannot show that it is useful.
    fn may_leave(&self, open: &Open) -> bool {
        self.takes_inbound(open) && !self.is_cut(&open.peer)
    }

    fn check(&self, peer: &PeerId, now_ms: u64) -> Result<(), Refusal> {
        match self.banned.get(peer) {
            Some(until_ms) if *until_ms > now_ms => Err(Refusal::Banned { until_ms: *until_ms }),
            _ if self.is_cut(peer) => Err(Refusal::Cut),
            _ => Ok(()),
        }
    }

    /// Gives a place to a connection that a peer made, or refuses it.
    fn on_inbound(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        now: Instant,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        self.check(&peer, now_ms)?;
        let (group, host) = (self.grouping.of(remote), self.grouping.host(remote));
        if !self.named.contains(&peer) && !self.replaces(&peer) {
            let inbound = self.open.values().filter(|open| self.takes_inbound(open));
            let of_group =
                inbound.clone().filter(|open| group.is_limited() && open.group == group).count();
            if of_group >= self.limits.per_group as usize {
                let leaves = self.leaver(group, host, now).ok_or(Refusal::Crowded(of_group))?;
                self.close(leaves, Reason::Evicted);
            } else if inbound.count() >= self.limits.inbound as usize {
                let leaves =
                    self.victim().filter(|_| self.closing() < CLOSING_MAX).ok_or(Refusal::Full)?;
                self.close(leaves, Reason::Evicted);
            }
        }
        self.enter(id, peer, (group, host), true, None, now);
        Ok(())
    }

    /// The member of a full group that leaves for a newcomer from this host, if one may leave now.
    fn leaver(&mut self, group: Group, host: Option<IpAddr>, now: Instant) -> Option<ConnectionId> {
        if self.closing() >= CLOSING_MAX {
            return None;
        }
        let members =
            self.open.iter().filter(|(_, open)| open.group == group && self.may_leave(open));
        let member = |(id, open): (&ConnectionId, &Open)| Member {
            host: open.host,
            id: *id,
            since: open.since,
            ping_min: open.ping_min,
            served: open.served,
            is_suspect: self.is_suspect(open),
        };
        match victim_in_group(members.map(member).collect(), host) {
            Leaver::Nobody => None,
            Leaver::OfCrowd(leaves) => Some(leaves),
            Leaver::OfEqual(leaves) => {
                self.traded.retain(|_, at| now.duration_since(*at) < TRADE_INTERVAL);
                if self.traded.contains_key(&group) || self.traded.len() >= TRADES_MAX {
                    return None;
                }
                self.traded.insert(group, now);
                Some(leaves)
            }
        }
    }

    fn is_suspect(&self, open: &Open) -> bool {
        open.host.is_some_and(|host| self.suspects.contains(&host))
    }

    /// Gives a place to a connection that we made, or refuses it.
    fn on_outbound(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        now: Instant,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        self.learned.remove(&id);
        let choice = self.chosen.remove(&id);
        self.check(&peer, now_ms)?;
        if choice == Some(Choice::Named) {
            self.named.insert(peer);
        }
        if choice == Some(Choice::Holder) && self.of_peer(&peer).next().is_some() {
            return Err(Refusal::Connected);
        }
        let group = self.grouping.of(remote);
        let purpose = match choice {
            Some(Choice::Chosen) => Purpose::Look,
            Some(Choice::Holder) => Purpose::Fetch,
            Some(Choice::Named) | None => Purpose::Query,
        };
        let has_place =
            self.named.contains(&peer) || self.replaces(&peer) || self.has_outbound_place(group);
        if !has_place {
            match self.room(purpose, group, now) {
                Room::Free => {}
                Room::Of(idle) => self.close(idle, Reason::Probed),
                Room::None => return Err(Refusal::Full),
            }
        }
        let probe = (!has_place).then(|| Probe::new(purpose, group, now));
        self.enter(id, peer, (group, self.grouping.host(remote)), false, probe, now);
        Ok(())
    }

    /// Whether a new connection with the peer takes the place of an old one.
    fn replaces(&self, peer: &PeerId) -> bool {
        self.of_peer(peer).count() >= self.limits.per_peer as usize
    }

    fn of_peer(&self, peer: &PeerId) -> impl Iterator<Item = (Instant, ConnectionId)> {
        let open = self.open.iter().filter(move |(_, open)| open.peer == *peer && !open.is_closing);
        open.map(|(id, open)| (open.since, *id))
    }

    fn enter(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        (group, host): (Group, Option<IpAddr>),
        is_inbound: bool,
        probe: Option<Probe>,
        since: Instant,
    ) {
        while self.replaces(&peer)
            && let Some((_, oldest)) = self.of_peer(&peer).min()
        {
            self.close(oldest, Reason::Replaced);
        }
        let served = [None; Service::ALL.len()];
        let open = Open {
            peer,
            group,
            host,
            is_inbound,
            probe,
            since,
            ping_min: None,
            served,
            is_closing: false,
        };
        self.open.insert(id, open);
    }

    fn victim(&self) -> Option<ConnectionId> {
        let candidates = self.open.iter().filter(|(_, open)| self.may_leave(open));
        let candidate = |(id, open): (&ConnectionId, &Open)| Candidate {
            id: *id,
            group: open.group,
            group_key: self.key.hash_one(open.group),
            since: open.since,
            ping_min: open.ping_min,
            served: open.served,
            is_suspect: self.is_suspect(open),
        };
        victim(candidates.map(candidate).collect())
    }

    fn closing(&self) -> usize {
        self.open.values().filter(|open| open.is_closing).count()
    }

    fn close(&mut self, connection: ConnectionId, reason: Reason) {
        if let Some(open) = self.open.get_mut(&connection) {
            open.is_closing = true;
            self.closes.push_back(Close { peer: open.peer, connection, reason });
        }
    }

    /// Allows a dial, or refuses it. Dials that the task did not choose come from Kademlia.
    fn on_dial(
        &mut self,
        id: ConnectionId,
        peer: Option<&PeerId>,
        now: Instant,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        if let Some(peer) = peer {
            self.check(peer, now_ms)?;
        }
        if self.chosen.contains_key(&id) {
            return Ok(());
        }
        if self.learned.len() >= self.limits.pending as usize {
            return Err(Refusal::Full);
        }
        if let Some(peer) = peer {
            self.dialed.retain(|_, at| now.duration_since(*at) < PROBE_INTERVAL);
            let is_full = self.outbound() >= self.limits.outbound as usize && !self.is_searching;
            let interval = if is_full { PROBE_INTERVAL } else { DIAL_INTERVAL };
            match self.dialed.get(peer) {
                Some(at) if now.duration_since(*at) < interval => return Err(Refusal::Recent),
                None if self.dialed.len() >= DIALED_MAX => {
                    let oldest = self.dialed.values().min().copied();
                    self.dialed.retain(|_, at| Some(*at) != oldest);
                }
                _ => {}
            }
            self.dialed.insert(*peer, now);
        }
        self.learned.insert(id);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
