//! Connections that this node made beyond its outbound places, each for a while.

use std::time::{Duration, Instant};

/// Most probes at a time: connections that only a Kademlia query or a look wanted.
pub(super) const PROBES_MAX: usize = 8;

/// How long a probe lives: long enough for both sides to hear which chain the other is on, to ask
/// and to answer.
pub(super) const PROBE_TIME: Duration = Duration::from_secs(20);

/// Most connections at a time with peers that have what this node fetches.
const FETCHES_MAX: usize = 8;

/// How long such a connection lives. What is missing then is looked up again.
const FETCH_TIME: Duration = Duration::from_secs(600);

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

/// The end and the purpose of a connection without a place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub(super) until: Instant,
    pub(super) purpose: Purpose,
}

impl Probe {
    pub(super) fn new(purpose: Purpose, now: Instant) -> Self {
        let time = if purpose == Purpose::Fetch { FETCH_TIME } else { PROBE_TIME };
        Self { until: now + time, purpose }
    }

    /// Whether there may be another one for this purpose beside these.
    pub(super) fn may_join(purpose: Purpose, others: impl Iterator<Item = Self>) -> bool {
        let is_fetch = purpose == Purpose::Fetch;
        let most = if is_fetch { FETCHES_MAX } else { PROBES_MAX };
        others.filter(|other| (other.purpose == Purpose::Fetch) == is_fetch).count() < most
    }
}
