//! The store of Kademlia's provider records: [`Index`], with its limits, in place of libp2p's own
//! store, which a thousand messages would fill.

use std::borrow::Cow;
use std::iter;
use std::time::Instant;

use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use libp2p::{Multiaddr, PeerId};

use crate::index::Index;

/// The records, and what this node's own ones say.
pub(crate) struct Providers {
    pub(crate) index: Index,
    local: PeerId,
    /// The addresses in the records of this node.
    pub(crate) own_addresses: Vec<Multiaddr>,
}

impl Providers {
    pub(crate) fn new(local: PeerId, seed: u64) -> Self {
        Self { index: Index::new(seed, Instant::now()), local, own_addresses: Vec::new() }
    }

    /// Stores a record of another node. `subnet` is that of its connection.
    pub(crate) fn add(&mut self, record: &ProviderRecord, addresses: &[Multiaddr], subnet: u64) {
        let addresses = addresses.iter().map(|address| address.to_vec().into()).collect();
        let holder = (record.provider.to_bytes(), addresses);
        if !self.index.add(Instant::now(), record.key.as_ref(), holder, subnet) {
            tracing::debug!(peer = %record.provider, "a record is not stored");
        }
    }

    /// The other nodes that say that they have the object of a key.
    pub(crate) fn others(&self, key: &[u8]) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let holders = self.index.holders(Instant::now(), key).into_iter();
        let parsed = holders.filter_map(|(id, addresses)| {
            let addresses = addresses.into_iter();
            let addresses = addresses.filter_map(|bytes| Multiaddr::try_from(bytes.to_vec()).ok());
            Some((PeerId::from_bytes(&id).ok()?, addresses.collect()))
        });
        parsed.collect()
    }
}

impl RecordStore for Providers {
    type RecordsIter<'a> = iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    /// Records with values are not stored.
    fn put(&mut self, _: Record) -> Result<()> {
        Err(Error::MaxRecords)
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        iter::empty()
    }

    /// Kademlia itself adds only this node's own records, which the index has already.
    fn add_provider(&mut self, _: ProviderRecord) -> Result<()> {
        Ok(())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let record = |(provider, addresses)| ProviderRecord {
            key: key.clone(),
            provider,
            // The index leaves out what is too old.
            expires: None,
            addresses,
        };
        let mut records: Vec<_> = self.others(key.as_ref()).into_iter().map(record).collect();
        // Without addresses, Kademlia would name those of all interfaces.
        if self.index.is_own(key.as_ref()) && !self.own_addresses.is_empty() {
            records.insert(0, record((self.local, self.own_addresses.clone())));
        }
        records
    }

    /// Empty, since the network's task renews this node's records.
    fn provided(&self) -> Self::ProvidedIter<'_> {
        iter::empty()
    }

    fn remove_provider(&mut self, _: &RecordKey, _: &PeerId) {}
}
