//! This node's part of the index: records of who has what.
//!
//! Any peer may store records here, and none is proved. So a record is only a hint whom to ask. The
//! limits below let nobody displace the records of others: not with many keys, not with many
//! identities, and not with all addresses of a few subnets. A *subnet* is an IPv4 /24 or an
//! IPv6 /48, and on a private network one address and port.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::find::key::Key;
use crate::holder::Holder;
use crate::lots::Lots;

/// Most records of other nodes. They take about 30 MiB with addresses of usual length, and 70 MiB
/// with the longest ones.
pub const RECORDS_MAX: usize = 65_536;
/// Most records of one holder: twice the groups of eras that a chain has.
pub const PER_HOLDER_MAX: usize = 512;
/// Most records whose holders are of one subnet.
pub const PER_SUBNET_MAX: usize = 2_048;
/// Most holders of one key. It is also the most that an answer names.
pub const PER_KEY_MAX: usize = 20;
/// How long a record counts. A holder renews it twice in this time, so one renewal may fail.
pub const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// How often a holder renews its records.
pub const RENEWED_EVERY: Duration = Duration::from_secs(20 * 60);

/// Why a record is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The holder has all the records that it may have.
    #[error("the holder has {PER_HOLDER_MAX} records")]
    ManyOfHolder,
    /// The subnet has all the records that it may have.
    #[error("the holder's subnet has {PER_SUBNET_MAX} records")]
    ManyOfSubnet,
}

#[derive(Clone, Debug)]
struct Record {
    holder: Holder,
    subnet: u64,
    until: Duration,
}

/// Names a record: its key and holder.
type Name = (Key, Arc<[u8]>);

/// Records of other nodes within the limits of this module, and this node's own ones, to which no
/// limit applies.
#[derive(Clone, Debug)]
pub struct Records {
    keys: BTreeMap<Key, BTreeMap<Arc<[u8]>, Record>>,
    /// Number of records of each holder.
    holders: BTreeMap<Arc<[u8]>, usize>,
    subnets: BTreeMap<u64, BTreeSet<Name>>,
    /// The subnets by number of records.
    sizes: BTreeSet<(usize, u64)>,
    /// The records by the end of their lifetime.
    ends: BTreeSet<(Duration, Name)>,
    /// What this node has, and when each of these records is due to be renewed.
    own: BTreeMap<Key, Duration>,
    lots: Lots,
}

impl Records {
    /// No records. All random choices follow from the seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            keys: BTreeMap::new(),
            holders: BTreeMap::new(),
            subnets: BTreeMap::new(),
            sizes: BTreeSet::new(),
            ends: BTreeSet::new(),
            own: BTreeMap::new(),
            lots: Lots::new(seed),
        }
    }

    /// Stores or renews the record of another node. `subnet` is that of the connection over which
    /// it came, since its addresses are only a claim.
    ///
    /// If the key has all its holders, the newcomer takes the place of one of them, chosen at
    /// random among those of the subnet that has the most of them, the newcomer included. If the
    /// store is full, the same rule applies to all records.
    ///
    /// # Errors
    /// See [`Refusal`]. Nothing has changed then.
    pub fn add(
        &mut self,
        now: Duration,
        key: Key,
        holder: Holder,
        subnet: u64,
    ) -> Result<(), Refusal> {
        self.forget_old(now);
        let name = (key, Arc::clone(holder.id()));
        let former = self.take(&name);
        if let Err(refusal) = self.check_limits(holder.id(), subnet) {
            former.into_iter().for_each(|former| self.put(name.clone(), former));
            return Err(refusal);
        }
        self.make_room(key, subnet);
        self.put(name, Record { holder, subnet, until: now.saturating_add(LIFETIME) });
        Ok(())
    }

    /// Removes the record of another node.
    pub fn remove(&mut self, key: Key, holder: &[u8]) {
        self.take(&(key, holder.into()));
    }

    /// The other nodes that say that they have the object of this key, at most [`PER_KEY_MAX`].
    pub fn holders(&self, now: Duration, key: Key) -> impl Iterator<Item = &Holder> {
        let records = self.keys.get(&key).into_iter().flat_map(BTreeMap::values);
        records.filter(move |record| record.until > now).map(|record| &record.holder)
    }

    /// This node has the object of this key: its record is due at once.
    pub fn provide(&mut self, now: Duration, key: Key) {
        self.own.entry(key).or_insert(now);
    }

    /// This node does not have the object of this key any more. Other nodes forget it by
    /// themselves.
    pub fn withdraw(&mut self, key: Key) {
        self.own.remove(&key);
    }

    /// Whether this node has the object of this key.
    #[must_use]
    pub fn is_own(&self, key: Key) -> bool {
        self.own.contains_key(&key)
    }

    /// A record of this node that is due to be stored at other nodes, or renewed there. The next
    /// time it is due is [`RENEWED_EVERY`] later.
    pub fn take_due(&mut self, now: Duration) -> Option<Key> {
        let (key, at) = self.own.iter_mut().min_by_key(|(_, at)| **at)?;
        if *at > now {
            return None;
        }
        *at = now.saturating_add(RENEWED_EVERY);
        Some(*key)
    }

    /// Number of records of other nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no record of another node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn forget_old(&mut self, now: Duration) {
        while let Some((until, name)) = self.ends.first().cloned()
            && until <= now
        {
            self.take(&name);
        }
    }

    fn check_limits(&self, holder: &Arc<[u8]>, subnet: u64) -> Result<(), Refusal> {
        if self.holders.get(holder).is_some_and(|count| *count >= PER_HOLDER_MAX) {
            return Err(Refusal::ManyOfHolder);
        }
        if self.size(subnet) >= PER_SUBNET_MAX {
            return Err(Refusal::ManyOfSubnet);
        }
        Ok(())
    }

    /// Makes room for one record of this key and subnet.
    fn make_room(&mut self, key: Key, subnet: u64) {
        let of_key = self.keys.get(&key);
        let victim = if of_key.is_some_and(|records| records.len() >= PER_KEY_MAX) {
            self.victim_of_key(key, subnet)
        } else if self.len() >= RECORDS_MAX {
            self.victim_of_all(subnet)
        } else {
            None
        };
        victim.into_iter().for_each(|name| drop(self.take(&name)));
    }

    fn victim_of_key(&mut self, key: Key, subnet: u64) -> Option<Name> {
        let records = self.keys.get(&key)?;
        let mut counts = BTreeMap::from([(subnet, 1_usize)]);
        for record in records.values() {
            let count = counts.entry(record.subnet).or_default();
            *count = count.saturating_add(1);
        }
        let most = counts.values().max().copied();
        let is_most = |record: &&Record| counts.get(&record.subnet).copied() == most;
        let ids: Vec<_> = records.values().filter(is_most).map(|one| one.holder.id()).collect();
        let at = self.lots.below(ids.len() as u64);
        let id = ids.get(usize::try_from(at).ok()?)?;
        Some((key, Arc::clone(id)))
    }

    fn victim_of_all(&mut self, subnet: u64) -> Option<Name> {
        let (most, largest) = *self.sizes.last()?;
        let largest = if self.size(subnet) >= most { subnet } else { largest };
        let names = self.subnets.get(&largest)?;
        let at = self.lots.below(names.len() as u64);
        names.iter().nth(usize::try_from(at).ok()?).cloned()
    }

    fn size(&self, subnet: u64) -> usize {
        self.subnets.get(&subnet).map_or(0, BTreeSet::len)
    }

    fn put(&mut self, name: Name, record: Record) {
        let subnet = record.subnet;
        self.ends.insert((record.until, name.clone()));
        let count = self.holders.entry(Arc::clone(&name.1)).or_default();
        *count = count.saturating_add(1);
        self.resize(subnet, |names| names.insert(name.clone()));
        self.keys.entry(name.0).or_default().insert(name.1, record);
    }

    fn take(&mut self, name: &Name) -> Option<Record> {
        let records = self.keys.get_mut(&name.0)?;
        let record = records.remove(&name.1)?;
        if records.is_empty() {
            self.keys.remove(&name.0);
        }
        self.ends.remove(&(record.until, name.clone()));
        if let Some(count) = self.holders.get_mut(&name.1) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.holders.remove(&name.1);
            }
        }
        self.resize(record.subnet, |names| names.remove(name));
        Some(record)
    }

    /// Changes the records of a subnet, and its place among the subnets.
    fn resize(&mut self, subnet: u64, change: impl FnOnce(&mut BTreeSet<Name>) -> bool) {
        let names = self.subnets.entry(subnet).or_default();
        self.sizes.remove(&(names.len(), subnet));
        change(names);
        match names.len() {
            0 => drop(self.subnets.remove(&subnet)),
            size => drop(self.sizes.insert((size, subnet))),
        }
    }
}

#[cfg(test)]
mod tests;
