//! Counters of the network, and a throttle for warnings.

use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::wire::{Lane, Topic};

/// Least time between two warnings of one kind.
const WARNING_INTERVAL: Duration = Duration::from_secs(30);

/// Counters of the network, shared by its task and its handles.
#[derive(Clone, Default)]
pub(crate) struct Meters {
    gossip: Family<[(&'static str, &'static str); 2], Counter>,
    requests: Family<[(&'static str, &'static str); 1], Counter>,
    link_bytes: Family<[(&'static str, &'static str); 2], Counter>,
    closed: Family<[(&'static str, &'static str); 1], Counter>,
    lost: Counter,
}

impl Meters {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let meters = Self::default();
        let registry = registry.sub_registry_with_prefix("cairn_network");
        registry.register(
            "gossip_messages",
            "Gossip messages by topic and outcome",
            meters.gossip.clone(),
        );
        registry.register("requests", "Requests and responses by outcome", meters.requests.clone());
        registry.register(
            "link_bytes",
            "Bytes of frames on links by direction and stream",
            meters.link_bytes.clone(),
        );
        registry.register(
            "connections_closed",
            "Connections closed by our own choice",
            meters.closed.clone(),
        );
        registry.register(
            "lost",
            "Messages lost because a queue of this node was full",
            meters.lost.clone(),
        );
        meters
    }

    pub(crate) fn gossip(&self, topic: Topic, outcome: &'static str) {
        self.gossip.get_or_create(&[("topic", topic.name()), ("outcome", outcome)]).inc();
    }

    /// As `gossip`, for a message that was dropped because a queue was full.
    pub(crate) fn gossip_lost(&self, topic: Topic, outcome: &'static str) {
        self.gossip(topic, outcome);
        self.lost.inc();
    }

    pub(crate) fn request(&self, outcome: &'static str) {
        self.requests.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts a connection that the gate closes, by reason.
    pub(crate) fn closed(&self, reason: &'static str) {
        self.closed.get_or_create(&[("reason", reason)]).inc();
    }

    /// Counts the bytes of a link's frame that was received or sent.
    pub(crate) fn link_bytes(&self, direction: &'static str, lane: Lane, bytes: usize) {
        let labels = [("direction", direction), ("stream", lane.name())];
        self.link_bytes.get_or_create(&labels).inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Counts messages and commands that were dropped, most of them because a queue was full.
    pub(crate) fn lost(&self, count: u64) {
        self.lost.inc_by(count);
    }

    pub(crate) fn lost_total(&self) -> u64 {
        self.lost.get()
    }
}

/// Lets a warning through once per [`WARNING_INTERVAL`].
#[derive(Default)]
pub(crate) struct Throttle {
    last: Option<Instant>,
}

impl Throttle {
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        let allowed = self.last.is_none_or(|last| now.duration_since(last) >= WARNING_INTERVAL);
        if allowed {
            self.last = Some(now);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_rare() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let allowed =
            (0..300).filter(|second| throttle.allows(start + Duration::from_secs(*second))).count();
        assert_eq!(allowed, 10);
    }
}
