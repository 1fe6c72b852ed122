//! The task's part about the index: this node's records, those of others, and look-ups.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use libp2p::kad::{ProviderRecord, QueryId, QueryStats, RecordKey};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::mpsc;

use super::Task;
use crate::clock::wall_ms;
use crate::index::Index;
use crate::network::address::is_dialable;
use crate::network::dials::without_peer;
use crate::network::discovery::Named;
use crate::network::group::address_group;
use crate::network::handle::{ProviderEvent, Source};

/// Most look-ups at a time. Further ones end at once, without a result.
const LOOKUPS_MAX: usize = 16;

/// Most own records that are being stored at other nodes. Each asks about 20 of them.
const STORING_MAX: usize = 2;

/// Most addresses of a record.
const ADDRESSES_MAX: usize = 4;

/// The queries of the index that are under way.
#[derive(Default)]
pub(super) struct Finding {
    lookups: HashMap<QueryId, Lookup>,
    storing: HashSet<QueryId>,
}

struct Lookup {
    found: mpsc::Sender<ProviderEvent>,
}

impl Lookup {
    /// Tells of a provider. If the reader is slow, it misses some.
    fn tell(&self, source: Source, peer: PeerId, addresses: Vec<Multiaddr>) {
        // An error means that the channel is full or that nobody reads it.
        let _ = self.found.try_send(ProviderEvent::Found { source, peer, addresses });
    }
}

impl Task {
    /// This node's part of the index.
    pub(super) fn index(&mut self) -> &mut Index {
        &mut self.swarm.behaviour_mut().discovery.kad.store_mut().index
    }

    /// Stores the records of this node that are due at other nodes.
    pub(super) fn store_records(&mut self, now: Instant) {
        let kad = &mut self.swarm.behaviour_mut().discovery.kad;
        // Without others there is nobody to store anything.
        if kad.kbuckets().next().is_none() {
            return;
        }
        while self.finding.storing.len() < STORING_MAX
            && let Some(key) = kad.store_mut().index.take_due(now)
        {
            if let Ok(query) = kad.start_providing(RecordKey::new(&key)) {
                self.finding.storing.insert(query);
            }
        }
    }

    /// Another node says that it has the object of a key.
    pub(super) fn on_record(&mut self, record: &ProviderRecord) {
        let Some(from) = self.peers.address(&record.provider) else { return };
        let subnet = address_group(from, self.private);
        let mut addresses = self.store.addresses.reached_lately(&record.provider, wall_ms());
        if addresses.is_empty() {
            // It was called back in vain, or not yet.
            let claims = record.addresses.iter().map(without_peer);
            addresses = claims.filter(|claim| is_dialable(claim, self.private)).collect();
        }
        addresses.truncate(ADDRESSES_MAX);
        let kad = &mut self.swarm.behaviour_mut().discovery.kad;
        kad.store_mut().add(record, &addresses, subnet);
    }

    /// Looks up who has the object of a key.
    pub(super) fn look_up(&mut self, key: [u8; 32], found: mpsc::Sender<ProviderEvent>) {
        if self.finding.lookups.len() >= LOOKUPS_MAX {
            return;
        }
        let lookup = Lookup { found };
        let kad = &mut self.swarm.behaviour_mut().discovery.kad;
        for (peer, addresses) in kad.store_mut().others(&key) {
            lookup.tell(Source::Here, peer, addresses);
        }
        let query = kad.get_providers(RecordKey::new(&key));
        self.finding.lookups.insert(query, lookup);
        self.swarm.behaviour_mut().gate.set_searching(true);
    }

    /// A peer answered a look-up of this node.
    pub(super) fn on_providers(&mut self, query: QueryId, from: &PeerId, providers: Vec<Named>) {
        let Some(lookup) = self.finding.lookups.get(&query) else { return };
        // Answers of peers that are gone already count as those of one group.
        let address = self.peers.address(from);
        let group = address.map(|address| address_group(address, self.private));
        let source = Source::Group(group.unwrap_or_default());
        let local = *self.swarm.local_peer_id();
        for (peer, addresses) in providers.into_iter().filter(|(peer, _)| *peer != local) {
            let addresses = addresses.iter().map(without_peer);
            let fit = addresses.filter(|address| is_dialable(address, self.private));
            lookup.tell(source, peer, fit.take(ADDRESSES_MAX).collect());
        }
    }

    /// A query of Kademlia has ended.
    pub(super) fn on_query_end(&mut self, query: QueryId, stats: &QueryStats) {
        self.finding.storing.remove(&query);
        if let Some(lookup) = self.finding.lookups.remove(&query) {
            let ended = ProviderEvent::Ended { requests: stats.num_requests() };
            // An error means that nobody waits for the end any more.
            let _ = lookup.found.try_send(ended);
        }
        if self.finding.lookups.is_empty() {
            self.swarm.behaviour_mut().gate.set_searching(false);
        }
    }
}
