//! Connections that this node made beyond its outbound places, each for a while.

use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;

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

/// A connection for a fetch that has brought nothing for so long gives way to another one, if there
/// are as many as there may be. So holders that only claim to have something keep no others out.
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
