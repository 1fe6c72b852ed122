//! The task's part about discovery: which addresses are learned, which are passed on, and when the
//! network is asked for more.

use std::time::{Duration, Instant};

use libp2p::kad::{self, InboundRequest, KBucketKey};
use libp2p::metrics::Recorder;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::{Multiaddr, PeerId};

use super::Task;
use crate::clock::wall_ms;
use crate::network::address::is_dialable;
use crate::network::callbacks::Answer;
use crate::network::dials::without_peer;
use crate::network::discovery::{Event, Kademlia, Named};
use crate::network::gate::Choice;
use crate::network::group::{Group, Grouping};
use crate::network::known::KnownAddress;

/// When peers are asked for others, counted from the first entry of the routing table. At first a
/// new network changes from second to second: a peer that was asked too early knew nobody either.
pub(super) const REFRESHES: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)];

/// Random keys that are looked up each time, besides those of Kademlia itself. A newcomer knows one
/// peer, of which Kademlia would ask one question. An answer names 20 peers near a key, so this
/// many answers of one peer name nine tenths of a network of 50 nodes.
const RANDOM_KEYS: usize = 4;

/// Most peers of one group in a bucket of the routing table. Identities are free, so one group
/// could otherwise have all the peers that this node names for a key.
const BUCKET_GROUP_MAX: usize = 2;

/// Most peers of one group in the routing table.
const TABLE_GROUP_MAX: usize = 8;

/// Whether the routing table of `local` has room for this address of a peer.
fn may_route(
    kad: &mut Kademlia,
    (local, peer): (PeerId, PeerId),
    address: &Multiaddr,
    grouping: Grouping,
) -> bool {
    let group = grouping.of(address);
    if !group.is_limited() {
        return true;
    }
    let distance = KBucketKey::from(local).distance(&KBucketKey::from(peer));
    let (mut of_bucket, mut of_table) = (0, 0);
    for bucket in kad.kbuckets() {
        let others = bucket.iter().filter(|entry| *entry.node.key.preimage() != peer);
        let of_group =
            others.filter(|it| it.node.value.iter().any(|other| grouping.of(other) == group));
        let count = of_group.count();
        of_table += count;
        if bucket.contains(&distance) {
            of_bucket = count;
        }
    }
    of_bucket < BUCKET_GROUP_MAX && of_table < TABLE_GROUP_MAX
}

impl Task {
    pub(super) fn on_discovery(&mut self, event: Event) {
        match event {
            Event::Kademlia(event) => {
                self.metrics.record(event.as_ref());
                self.on_kademlia(*event);
            }
            Event::Heard(from, peers) => self.on_heard(&from, peers),
            Event::Providers { query, from, providers } => {
                self.on_providers(query, &from, providers);
            }
        }
    }

    fn on_kademlia(&mut self, event: kad::Event) {
        match event {
            // Kademlia adds the address of each dial to the entry of a peer. A named peer may have
            // been dialed by a name, or at an address of our own network, which is nobody else's
            // business.
            kad::Event::RoutingUpdated { peer, addresses, .. } => {
                let unfit = addresses.iter().filter(|address| !is_dialable(address, self.private));
                for address in unfit.cloned().collect::<Vec<_>>() {
                    self.swarm.behaviour_mut().discovery.kad.remove_address(&peer, &address);
                }
            }
            kad::Event::InboundRequest {
                request: InboundRequest::AddProvider { record: Some(record) },
            } => self.on_record(&record),
            kad::Event::OutboundQueryProgressed { id, stats, step, .. } if step.last => {
                self.on_query_end(id, &stats);
            }
            _ => {}
        }
    }

    /// The group of a connected peer.
    pub(super) fn group_of(&self, peer: &PeerId) -> Option<Group> {
        self.peers.address(peer).map(|address| self.grouping.of(address))
    }

    /// A peer answered that it knows these others.
    fn on_heard(&mut self, from: &PeerId, peers: Vec<Named>) {
        let (local, now_ms) = (*self.swarm.local_peer_id(), wall_ms());
        let Some(from) = self.group_of(from) else { return };
        for (peer, addresses) in peers {
            if peer != local && self.store.bans.until(&peer, now_ms).is_none() {
                let addresses: Vec<Multiaddr> = addresses.iter().map(without_peer).collect();
                self.store.addresses.heard(peer, &addresses, from, now_ms);
            }
        }
    }

    /// A peer was found on the local network by multicast. Anybody there may claim anything, so it
    /// is dialed no more often than a peer that others name.
    pub(super) fn on_neighbour(&mut self, peer: PeerId, address: &Multiaddr) {
        if !self.swarm.is_connected(&peer)
            && self.guards.dials.allow_local(address, Instant::now()).is_ok()
        {
            let dial = DialOpts::peer_id(peer).addresses(vec![address.clone()]);
            self.dial(address, dial.allocate_new_port().build(), Choice::Chosen);
        }
    }

    /// Calls a connected peer back at the addresses that it claims and that were not reached
    /// lately.
    pub(super) fn call_back(&mut self, peer: PeerId) {
        if !self.faults.is_cut(&peer)
            && let Some(connection) = self.peers.address(&peer)
        {
            let addresses = self.store.addresses.unreached(&peer, wall_ms());
            self.callbacks.add(peer, connection, addresses, Instant::now());
        }
    }

    /// A call ended.
    pub(super) fn on_called(&mut self, (peer, address, answer): (PeerId, Multiaddr, Answer)) {
        match answer {
            // Only a connected peer is known to be on our chain.
            Answer::Reached if self.peers.is_admitted(&peer) => self.on_reached(peer, &address),
            Answer::Failed => {
                tracing::debug!(%peer, %address, "a peer does not answer where it claims to be");
                let kad = &mut self.swarm.behaviour_mut().discovery.kad;
                kad.remove_address(&peer, &address);
                self.store.addresses.on_failure(&peer, &[address], wall_ms());
            }
            _ => {}
        }
    }

    /// A peer of our chain was reached at this address.
    pub(super) fn on_reached(&mut self, peer: PeerId, address: &Multiaddr) {
        if self.store.addresses.on_success(peer, address, wall_ms()) {
            self.saver.save_within(Instant::now());
        }
        self.route(peer);
    }

    /// Puts a peer into the routing table, if it serves discovery and was reached lately. From then
    /// on queries ask it, and others learn of it.
    pub(super) fn route(&mut self, peer: PeerId) {
        if !self.peers.serves_discovery(&peer) {
            return;
        }
        let addresses = self.store.addresses.reached_lately(&peer, wall_ms());
        let local = *self.swarm.local_peer_id();
        let kad = &mut self.swarm.behaviour_mut().discovery.kad;
        let was_empty = kad.kbuckets().next().is_none();
        for address in addresses {
            if may_route(kad, (local, peer), &address, self.grouping) {
                kad.add_address(&peer, address);
            }
        }
        if was_empty && kad.kbuckets().next().is_some() {
            let now = Instant::now();
            self.upkeep.refreshes = REFRESHES.map(|after| now + after).into();
        }
    }

    /// Removes a peer from the routing table.
    pub(super) fn unroute(&mut self, peer: &PeerId) {
        self.swarm.behaviour_mut().discovery.kad.remove_peer(peer);
    }

    /// Removes the peers that were not reached lately from the routing table.
    pub(super) fn prune_routes(&mut self) {
        let kad = &mut self.swarm.behaviour_mut().discovery.kad;
        let mut peers: Vec<PeerId> = Vec::new();
        for bucket in kad.kbuckets() {
            peers.extend(bucket.iter().map(|entry| *entry.node.key.preimage()));
        }
        let now_ms = wall_ms();
        for peer in peers {
            let is_stale = self.store.addresses.reached_lately(&peer, now_ms).is_empty();
            if is_stale && !self.swarm.is_connected(&peer) {
                self.unroute(&peer);
            }
        }
    }

    /// Asks peers for others, if that is due. Beyond these times Kademlia does so by itself.
    pub(super) fn refresh(&mut self, now: Instant) {
        if self.upkeep.refreshes.front().is_some_and(|due| *due <= now) {
            self.upkeep.refreshes.pop_front();
            let kad = &mut self.swarm.behaviour_mut().discovery.kad;
            // It fails if the table is empty. Then the next entry begins anew.
            if kad.bootstrap().is_ok() {
                for _ in 0..RANDOM_KEYS {
                    kad.get_closest_peers(PeerId::random());
                }
            }
        }
    }

    /// All known addresses.
    pub(super) fn known_addresses(&self) -> Vec<KnownAddress> {
        let now_ms = wall_ms();
        let known = self.store.addresses.all().iter();
        known
            .map(|known| KnownAddress {
                peer: known.peer,
                address: known.address.clone(),
                seen_ms: match self.swarm.is_connected(&known.peer) {
                    true => Some(now_ms),
                    false => known.is_proved.then_some(known.good_ms),
                },
                outcome: known.outcome(),
                failures: known.failures,
            })
            .collect()
    }
}
