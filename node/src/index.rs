//! This node's part of the index, records of who says that it has what, in a form for the network.
//! The network knows keys and holders as bytes only.

use std::time::Instant;

use protocol::find::{Key, Records};
use protocol::holder::Holder;

/// Records of other nodes, and of what this node itself has.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    records: Records,
    start: Instant,
}

/// The bytes of a peer id, and those of its addresses.
pub(crate) type HolderBytes = (Vec<u8>, Vec<Box<[u8]>>);

impl Index {
    /// No records. All random choices follow from the seed.
    pub(crate) fn new(seed: u64, now: Instant) -> Self {
        Self { records: Records::new(seed), start: now }
    }

    /// Stores or renews the record of another node. `subnet` is that of the connection over which
    /// it came. Returns whether it was stored: a record with a key or holder of the wrong length is
    /// not, nor one beyond the limits.
    pub(crate) fn add(
        &mut self,
        now: Instant,
        key: &[u8],
        (id, addresses): HolderBytes,
        subnet: u64,
    ) -> bool {
        let (Some(key), Some(holder)) = (Key::parse(key), Holder::new(&id, addresses)) else {
            return false;
        };
        self.records.add(now.duration_since(self.start), key, holder, subnet).is_ok()
    }

    /// The other nodes that say that they have the object of this key.
    pub(crate) fn holders(&self, now: Instant, key: &[u8]) -> Vec<HolderBytes> {
        let Some(key) = Key::parse(key) else { return Vec::new() };
        let holders = self.records.holders(now.duration_since(self.start), key);
        holders.map(|it| (it.id().to_vec(), it.addresses().to_vec())).collect()
    }

    /// This node has the object of this key.
    pub(crate) fn provide(&mut self, now: Instant, key: [u8; 32]) {
        if let Some(key) = Key::parse(&key) {
            self.records.provide(now.duration_since(self.start), key);
        }
    }

    /// This node does not have the object of this key any more.
    pub(crate) fn withdraw(&mut self, key: [u8; 32]) {
        if let Some(key) = Key::parse(&key) {
            self.records.withdraw(key);
        }
    }

    /// Whether this node has the object of this key.
    pub(crate) fn is_own(&self, key: &[u8]) -> bool {
        Key::parse(key).is_some_and(|key| self.records.is_own(key))
    }

    /// A key of this node whose record is due to be stored at other nodes, or renewed there.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<[u8; 32]> {
        let key = self.records.take_due(now.duration_since(self.start))?;
        Some(*key.0.as_bytes())
    }
}
