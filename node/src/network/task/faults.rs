//! The task's part about faults: it logs them, and restores connections after a cut.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::swarm::dial_opts::DialOpts;
use tokio::sync::watch;

use super::Task;
use crate::network::faults::{FaultPlan, Faults};
use crate::network::gate::Choice;

/// How often a warning in the log lists the faults that are set.
const REMINDER: Duration = Duration::from_secs(30);

/// The faults as the task knows them.
pub(super) struct FaultWatch {
    /// `None` if no faults can be set.
    plan: Option<watch::Receiver<Arc<FaultPlan>>>,
    /// The last plan that was acted on.
    known: Arc<FaultPlan>,
    told: Instant,
}

impl FaultWatch {
    pub(super) fn new(faults: Option<&Faults>, now: Instant) -> Self {
        Self { plan: faults.map(Faults::plan), known: Arc::default(), told: now }
    }

    /// Resolves when the faults change. Cancel safe.
    pub(super) async fn changed(&mut self) {
        match &mut self.plan {
            // This cannot fail, since the guards hold the sender.
            Some(plan) => drop(plan.changed().await),
            None => pending().await,
        }
    }

    pub(super) fn is_cut(&self, peer: &PeerId) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.borrow().cut.contains(peer))
    }

    /// Logs the faults every [`REMINDER`], as long as there are any.
    pub(super) fn remind(&mut self, now: Instant) {
        if !self.known.is_empty() && now.duration_since(self.told) >= REMINDER {
            self.told = now;
            tracing::warn!("faults are set on this node by its operator: {}", self.known);
        }
    }
}

impl Task {
    /// The faults have changed.
    pub(super) fn on_faults(&mut self, now: Instant) {
        let Some(plan) = &mut self.faults.plan else { return };
        let plan = Arc::clone(&plan.borrow_and_update());
        let former = std::mem::replace(&mut self.faults.known, plan);
        self.faults.told = now;
        tracing::warn!("the operator has set the faults of this node: {}", self.faults.known);
        let healed: Vec<PeerId> = former.cut.difference(&self.faults.known.cut).copied().collect();
        if !healed.is_empty() {
            self.on_healed(&healed, now);
        }
    }

    /// These peers are no longer cut off. Their unwritten gossip and the backoff of their dials and
    /// links are forgotten. Those of them that are not connected are dialed at once.
    fn on_healed(&mut self, healed: &[PeerId], now: Instant) {
        self.bootstrap.on_healed(|peer| healed.contains(peer), now);
        for peer in healed {
            // Messages that were pushed during the cut were not counted. The peer could not take
            // earlier ones, so it is not blamed for them.
            self.traffic.on_disconnected(peer);
            self.links.on_healed(peer, now);
            if self.swarm.is_connected(peer) && !self.is_whole(peer) {
                tracing::debug!(%peer, "closing a connection that was cut before it was ready");
                self.disconnect(*peer);
            }
        }
        self.keep_peers(now);
        self.open_links(now);
        let known = self.store.addresses.all().iter();
        let known: Vec<_> = known
            .filter(|known| healed.contains(&known.peer))
            .filter(|known| !self.swarm.is_connected(&known.peer))
            .filter(|known| !self.swarm.behaviour().gate.is_named(&known.peer))
            .map(|known| (known.peer, known.address.clone()))
            .collect();
        for (peer, address) in known {
            let dial = DialOpts::peer_id(peer).addresses(vec![address.clone()]);
            self.dial(&address, dial.allocate_new_port().build(), Choice::Chosen);
        }
    }

    /// Whether all protocols work on the peer's connections. A protocol whose stream could not be
    /// opened during a cut may have given up on the connection.
    fn is_whole(&self, peer: &PeerId) -> bool {
        let gossip = &self.swarm.behaviour().gossip;
        self.peers.is_admitted(peer)
            && gossip.all_peers().any(|(other, topics)| other == peer && !topics.is_empty())
    }
}
