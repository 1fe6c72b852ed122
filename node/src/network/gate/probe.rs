//! Connections that this node made beyond its outbound places, each for a while.

use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;

use super::{CLOSING_MAX, Gate, Reason};
use crate::network::eviction::Service;
use crate::network::group::Group;

/// Most probes at a time: connections that only a Kademlia query or a look wanted.
pub(super) const PROBES_MAX: usize = 8;

/// Most of them that only a query wanted. The others are left to looks.
const QUERIES_MAX: usize = 6;

/// How long a probe lives: long enough for both sides to hear which chain the other is on, to ask
/// and to answer.
pub(super) const PROBE_TIME: Duration = Duration::from_secs(20);

/// Most connections at a time with peers that have what this node fetches.
const FETCHES_MAX: usize = 8;

/// How long such a connection lives. What is missing then is looked up again.
const FETCH_TIME: Duration = Duration::from_secs(600);

/// If all connections for fetches are taken, one that has brought nothing for this time gives way
/// to another one. So holders that only claim to have something keep no others out.
pub(super) const FETCH_IDLE: Duration = Duration::from_secs(30);

/// What a connection without a place is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A query asks the peer.
    Query,
    /// The task wants to know who answers. It ends when the peer has said so.
    Look,
    /// The peer has what this node fetches.
    Fetch,
}

/// A connection without a place: its end, its purpose and the group of its address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub(super) until: Instant,
    pub(super) purpose: Purpose,
    group: Group,
}

impl Probe {
    pub(super) fn new(purpose: Purpose, group: Group, now: Instant) -> Self {
        let time = if purpose == Purpose::Fetch { FETCH_TIME } else { PROBE_TIME };
        Self { until: now + time, purpose, group }
    }

    /// Whether there may be another one for this purpose and of this group beside these, each with
    /// the time at which its peer last sent a chunk, or connected.
    pub(super) fn room(
        purpose: Purpose,
        group: Group,
        others: impl Iterator<Item = (Self, Instant, ConnectionId)>,
        now: Instant,
    ) -> Room {
        let (fetches, probes): (Vec<_>, Vec<_>) =
            others.partition(|(other, ..)| other.purpose == Purpose::Fetch);
        if purpose == Purpose::Fetch {
            let idlest = fetches.iter().map(|(_, at, id)| (*at, *id)).min();
            return match idlest {
                _ if fetches.len() < FETCHES_MAX => Room::Free,
                Some((at, id)) if now.duration_since(at) >= FETCH_IDLE => Room::Of(id),
                _ => Room::None,
            };
        }
        let queries = probes.iter().filter(|(other, ..)| other.purpose == Purpose::Query).count();
        let is_crowded =
            group.is_limited() && probes.iter().any(|(other, ..)| other.group == group);
        let is_free = probes.len() < PROBES_MAX
            && (purpose == Purpose::Look || queries < QUERIES_MAX)
            && !is_crowded;
        if is_free { Room::Free } else { Room::None }
    }
}

/// Where a further connection without a place finds room.
#[derive(Clone, Copy, Debug)]
pub(super) enum Room {
    Free,
    /// This connection gives way.
    Of(ConnectionId),
    None,
}

impl Gate {
    /// The peer has said who it is, so the task has seen what it wanted to see.
    pub(crate) fn on_identified(&mut self, peer: &PeerId, now: Instant) {
        let probes = self.open.values_mut().filter(|open| open.peer == *peer);
        for probe in
            probes.filter_map(|open| open.probe.as_mut()).filter(|it| it.purpose == Purpose::Look)
        {
            probe.until = now;
        }
    }

    /// Gives probes the places that have become free, and closes those whose time is over.
    pub(crate) fn on_tick(&mut self, now: Instant) {
        let probes = self.open.iter().filter(|(_, open)| open.probe.is_some() && !open.is_closing);
        let mut probes: Vec<(Instant, ConnectionId)> =
            probes.map(|(id, open)| (open.since, *id)).collect();
        probes.sort();
        for (_, id) in probes {
            let Some(open) = self.open.get(&id) else { continue };
            if self.named.contains(&open.peer) || self.has_outbound_place(open.group) {
                self.open.entry(id).and_modify(|open| open.probe = None);
            } else if open.probe.is_some_and(|probe| probe.until <= now) {
                self.close(id, Reason::Probed);
            }
        }
    }

    /// Where a further connection for this purpose finds room, if it gets no place.
    pub(super) fn room(&self, purpose: Purpose, group: Group, now: Instant) -> Room {
        let probes = self.open.iter().filter_map(|(id, open)| {
            let probe = open.probe.filter(|_| !open.is_closing)?;
            Some((probe, open.served[Service::History.index()].unwrap_or(open.since), *id))
        });
        if self.closing() < CLOSING_MAX {
            Probe::room(purpose, group, probes, now)
        } else {
            Room::None
        }
    }
}
