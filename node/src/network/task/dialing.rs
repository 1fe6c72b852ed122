//! The task's part about dials: which peers to dial, and the results.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId};

use super::{Task, random};
use crate::clock::wall_ms;
use crate::network::bootstrap;
use crate::network::dials::{reason, without_peer};
use crate::network::gate::Choice;
use crate::network::seeds::Found;
use crate::network::transport::is_refusal;

/// How often a peer of the store is dialed while outbound places are free.
const FILL_INTERVAL: Duration = Duration::from_secs(5);

/// How often a peer of the store is looked at: dialed even without a free outbound place, for as
/// long as it takes to hear who it is. So the store has addresses that work when they are needed,
/// and a peer that is gone is forgotten.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// How often the routing table is cleared of peers that were not reached lately.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// When to dial peers of the store, and when to ask for more.
pub(super) struct Upkeep {
    /// Peers of the store to dial first, once.
    pub(super) anchors: Vec<(PeerId, Multiaddr)>,
    fill: Instant,
    look: Instant,
    /// Whether the next look is at an address that has worked before.
    looks_at_proved: bool,
    prune: Instant,
    /// When to ask peers for others.
    pub(super) refreshes: VecDeque<Instant>,
}

impl Upkeep {
    pub(super) fn new(anchors: Vec<(PeerId, Multiaddr)>, now: Instant) -> Self {
        Self {
            anchors,
            fill: now,
            look: now + LOOK_INTERVAL,
            looks_at_proved: false,
            prune: now + PRUNE_INTERVAL,
            refreshes: VecDeque::new(),
        }
    }
}

impl Task {
    /// Dials an address of the configuration, of the operator or of the local network, or one of a
    /// peer that is no longer cut off. The rules for learned addresses do not apply to it.
    pub(super) fn dial(&mut self, address: &Multiaddr, dial: DialOpts, choice: Choice) {
        let connection = dial.connection_id();
        let peer = dial.get_peer_id();
        self.swarm.behaviour_mut().gate.choose(connection, choice);
        let swarm = &mut self.swarm;
        let dialed = self.guards.dials.choose(std::slice::from_ref(address), || swarm.dial(dial));
        if let Err(error) = dialed {
            self.on_dial_error(connection, peer, &error);
        }
    }

    /// Dials an address of the store.
    pub(super) fn dial_stored(&mut self, peer: PeerId, address: &Multiaddr) {
        self.store.addresses.on_dial(&peer, address, wall_ms());
        let dial = DialOpts::peer_id(peer).addresses(vec![address.clone()]);
        let dialed = self.dial_learned(dial.allocate_new_port().build(), Choice::Chosen);
        if let Err(DialError::NoAddresses) = dialed {
            // This node listens there itself.
            self.store.addresses.forget_address(&peer, address);
        }
    }

    /// Dials an address of a peer that has what this node fetches, unless it is connected. Whoever
    /// answers will do, since what it sends proves itself: a true address that a liar names under
    /// a wrong identity is of use nevertheless.
    pub(super) fn dial_holder(&mut self, address: &Multiaddr) {
        let address = without_peer(address);
        let mut known = self.store.addresses.all().iter();
        let is_connected = known.any(|known| {
            known.is_proved && known.address == address && self.swarm.is_connected(&known.peer)
        });
        if !is_connected {
            // The task has handled an error already.
            let _ = self.dial_learned(bootstrap::dial(&address), Choice::Holder);
        }
    }

    /// Dials an address to which the rules for learned addresses apply.
    fn dial_learned(&mut self, dial: DialOpts, choice: Choice) -> Result<(), DialError> {
        let (connection, peer) = (dial.connection_id(), dial.get_peer_id());
        self.swarm.behaviour_mut().gate.choose(connection, choice);
        let swarm = &mut self.swarm;
        let dialed = self.guards.dials.own(|| swarm.dial(dial));
        dialed.inspect_err(|error| self.on_dial_error(connection, peer, error))
    }

    /// A seed has answered: its addresses are dialed as those that a peer gave.
    pub(super) fn on_seed(&mut self, (name, found): Found) {
        match found {
            Err(error) => tracing::warn!(%name, %error, "a seed is of no use; it is asked again"),
            Ok(addresses) => {
                tracing::info!(%name, addresses = addresses.len(), "a seed names nodes");
                for address in addresses {
                    // The task has handled an error already.
                    let _ = self.dial_learned(bootstrap::dial(&address), Choice::Chosen);
                }
            }
        }
    }

    /// Dials named peers that are not connected, and peers of the store: often while outbound
    /// places are free, else seldom.
    pub(super) fn keep_peers(&mut self, now: Instant) {
        let (swarm, faults) = (&self.swarm, &self.faults);
        let is_left_alone = |peer: &PeerId| swarm.is_connected(peer) || faults.is_cut(peer);
        for (address, dial) in self.bootstrap.due(now, is_left_alone) {
            self.dial(&address, dial, Choice::Named);
        }
        for (peer, address) in std::mem::take(&mut self.upkeep.anchors) {
            self.dial_stored(peer, &address);
        }
        let (swarm, gate) = (&self.swarm, &self.swarm.behaviour().gate);
        let faults = &self.faults;
        let is_new = |peer: &PeerId| {
            !swarm.is_connected(peer) && peer != swarm.local_peer_id() && !faults.is_cut(peer)
        };
        let mut picked = None;
        // A node without any peer does not wait.
        if now >= self.upkeep.fill || swarm.connected_peers().next().is_none() {
            self.upkeep.fill = now + FILL_INTERVAL;
            let may = |peer: &PeerId, group| is_new(peer) && gate.has_outbound_place(group);
            picked = self.store.addresses.pick(wall_ms(), random(), may);
        }
        if picked.is_none() && now >= self.upkeep.look {
            self.upkeep.look = now + LOOK_INTERVAL;
            let (is_proved, now_ms) = (self.upkeep.looks_at_proved, wall_ms());
            let stalest = |is_proved| self.store.addresses.stalest(is_proved, now_ms, is_new);
            picked = stalest(is_proved).or_else(|| stalest(!is_proved));
            self.upkeep.looks_at_proved = !is_proved;
        }
        if let Some((peer, address)) = picked.map(|known| (known.peer, known.address.clone())) {
            self.dial_stored(peer, &address);
        }
        if now >= self.upkeep.prune {
            self.upkeep.prune = now + PRUNE_INTERVAL;
            self.prune_routes();
        }
        self.refresh(now);
        let is_alone = self.swarm.connected_peers().next().is_none();
        self.seeds.ask(is_alone, now);
    }

    pub(super) fn on_dial_error(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        error: &DialError,
    ) {
        tracing::debug!(%error, "dial failed");
        if let DialError::LocalPeerId { .. } = error {
            self.bootstrap.on_self(connection);
            return;
        }
        if let Some(address) = self.bootstrap.on_failed(connection, Instant::now(), random()) {
            tracing::warn!(
                peer = %address,
                reason = reason(error),
                "cannot reach a configured peer; dialing it is retried"
            );
        }
        if let Some(peer) = peer
            && let Some(failed) = failed_addresses(error)
            && !self.swarm.is_connected(&peer)
        {
            if self.store.addresses.on_failure(&peer, &failed, wall_ms()) {
                tracing::debug!(%peer, "forgot a peer that cannot be reached");
            }
            // Until it is reached again, other nodes do not learn of the peer from us, and no query
            // asks it. An address that only another peer named says nothing of it.
            if self.store.addresses.reached_lately(&peer, wall_ms()).is_empty() {
                self.unroute(&peer);
            }
        }
    }

    /// Tells the gate which peers are named, and forgets identities of addresses that are no longer
    /// configured.
    pub(super) fn name_peers(&mut self, configured: &[Multiaddr]) {
        self.store.identities.retain(|address, _| configured.contains(address));
        for peer in self.bootstrap.peers() {
            self.swarm.behaviour_mut().gate.name(peer);
        }
    }

    /// Dials an address once, for the operator or a test.
    pub(super) fn dial_once(&mut self, address: &Multiaddr) {
        self.dial(address, bootstrap::dial(address), Choice::Chosen);
    }
}

/// The addresses at which a peer was not found. `None` if no address was really dialed.
fn failed_addresses(error: &DialError) -> Option<Vec<Multiaddr>> {
    match error {
        DialError::Transport(failures) => {
            let failed = failures.iter().filter(|(_, failure)| !is_refusal(failure));
            let failed: Vec<Multiaddr> = failed.map(|(address, _)| without_peer(address)).collect();
            (!failed.is_empty()).then_some(failed)
        }
        DialError::WrongPeerId { address, .. } => Some(vec![without_peer(address)]),
        _ => None,
    }
}
