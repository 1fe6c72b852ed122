//! Evidence of misbehaviour, kept for whoever judges it. A bounded number: a few convict as well as many.

use crate::codec;
use crate::hash::{Domain, Hash};
use crate::store::disk::Batch;
use crate::store::schema::{self, Key, prefix};
use crate::store::{Store, StoreError};

/// Most pieces of evidence that are kept.
pub const EVIDENCE_MAX: usize = 1_024;
/// Most bytes of key and value together.
pub const EVIDENCE_BYTES_MAX: usize = 64 << 10;

/// A name, under which one is kept, and content. Their meaning is the caller's.
pub type Evidence = (Vec<u8>, Vec<u8>);

impl Store {
    /// Keeps evidence, durably when this returns. `false` if it is not kept: there is one of that name, or [`EVIDENCE_MAX`] of
    /// them, or it has more than [`EVIDENCE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn put_evidence(&self, key: &[u8], value: &[u8]) -> Result<bool, StoreError> {
        self.write(|_| {
            let disk = &self.shared.disk;
            let name = name(key);
            let known = hashes(self)?;
            let too_long = key.len().saturating_add(value.len()) > EVIDENCE_BYTES_MAX;
            if too_long || known.len() >= EVIDENCE_MAX || known.contains(&name) {
                return Ok(false);
            }
            let mut batch = Batch::default();
            batch.put_record(|piece| Key::Evidence(name, piece), &codec::encode(&(key, value)));
            disk.apply(batch)?;
            disk.sync()?;
            Ok(true)
        })
    }

    /// All evidence that is kept.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn evidence(&self) -> Result<Vec<Evidence>, StoreError> {
        let read = |hash| {
            let key = |piece| Key::Evidence(hash, piece);
            let record = self.shared.disk.record(key)?.ok_or_else(|| StoreError::corrupt(key(0), "missing"))?;
            decode(hash, &record)
        };
        hashes(self)?.into_iter().map(read).collect()
    }
}

/// What `put_evidence` stored, whose name must be the one it is stored under.
pub(super) fn decode(hash: Hash, record: &[u8]) -> Result<Evidence, StoreError> {
    let key = Key::Evidence(hash, 0);
    let evidence: Evidence = schema::decode(key, record)?;
    if name(&evidence.0) == hash { Ok(evidence) } else { Err(StoreError::corrupt(key, "its name is another")) }
}

fn name(key: &[u8]) -> Hash {
    Hash::of(Domain::StoreValue, &[key])
}

fn hashes(store: &Store) -> Result<Vec<Hash>, StoreError> {
    let keys = store.shared.disk.scan(&prefix::EVIDENCE).map(|item| item.map(|(key, _)| Key::parse(&key)));
    keys.filter_map(|key| match key {
        Ok(Some(Key::Evidence(hash, 0))) => Some(Ok(hash)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
    .collect()
}
