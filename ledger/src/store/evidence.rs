//! Evidence that validators signed contradicting messages. Nobody is punished for it yet. The store
//! keeps a bounded number of pieces, because a few prove the fault as well as many.

use std::collections::{BTreeMap, BTreeSet};

use crate::codec;
use crate::hash::{Domain, Hash};
use crate::signature::PublicKey;
use crate::store::disk::{Batch, Disk};
use crate::store::schema::{self, Key, prefix};
use crate::store::{Store, StoreError};

/// Most pieces of evidence that are kept.
pub const EVIDENCE_MAX: usize = 1_024;
/// Most pieces about one validator, and most pieces about nobody in particular. It is a 256th of
/// [`EVIDENCE_MAX`], and a chain has at most 256 validators. So evidence about a few validators
/// leaves room for evidence about the others.
pub const EVIDENCE_ABOUT_ONE_MAX: usize = 4;
/// Most bytes of a piece, name and content together.
pub const EVIDENCE_BYTES_MAX: usize = 64 << 10;

/// Name and content of a piece of evidence. Only one piece with each name is kept. The caller
/// decides what name and content mean.
pub type Evidence = (Vec<u8>, Vec<u8>);

/// A stored piece: whom it is about, name, content.
type Stored = (Option<PublicKey>, Vec<u8>, Vec<u8>);

/// The hashes of the names of all kept pieces, and how many pieces are about each validator. They
/// are read from the disk before evidence is first written.
#[derive(Default)]
pub(super) struct Known {
    names: BTreeSet<Hash>,
    about: BTreeMap<Option<PublicKey>, usize>,
}

impl Known {
    fn load(disk: &Disk) -> Result<Self, StoreError> {
        let mut known = Self::default();
        for name in hashes(disk)? {
            // The beginning of the record is enough, since `about` is its first field.
            let start = disk.record_prefix(|piece| Key::Evidence(name, piece), 64)?;
            let start =
                start.ok_or_else(|| StoreError::corrupt(Key::Evidence(name, 0), "missing"))?.1;
            let about = codec::decode_prefix(&start)
                .map_err(|error| StoreError::corrupt(Key::Evidence(name, 0), error))?;
            known.add(name, about.0);
        }
        Ok(known)
    }

    fn add(&mut self, name: Hash, about: Option<PublicKey>) {
        if self.names.insert(name) {
            let count = self.about.entry(about).or_default();
            *count = count.saturating_add(1);
        }
    }

    fn has_room(&self, name: Hash, about: Option<PublicKey>) -> bool {
        self.names.len() < EVIDENCE_MAX
            && !self.names.contains(&name)
            && self.about.get(&about).is_none_or(|count| *count < EVIDENCE_ABOUT_ONE_MAX)
    }
}

impl Store {
    /// Keeps evidence about a validator, or about none in particular: `key` is its name, `value`
    /// its content. Once this returns `true`, the evidence is durable. Returns `false` if it is not
    /// kept: there is a piece with the name `key`, there are [`EVIDENCE_ABOUT_ONE_MAX`] pieces
    /// about the same validator or [`EVIDENCE_MAX`] in all, or `key` and `value` exceed
    /// [`EVIDENCE_BYTES_MAX`].
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn put_evidence(
        &self,
        about: Option<PublicKey>,
        key: &[u8],
        value: &[u8],
    ) -> Result<bool, StoreError> {
        self.write(|writer| {
            let disk = &self.shared.disk;
            let name = name(key);
            let known = match &mut writer.evidence {
                Some(known) => known,
                unknown => unknown.insert(Known::load(disk)?),
            };
            let too_long = key.len().saturating_add(value.len()) > EVIDENCE_BYTES_MAX;
            if too_long || !known.has_room(name, about) {
                return Ok(false);
            }
            let mut batch = Batch::default();
            batch.put_record(
                |piece| Key::Evidence(name, piece),
                &codec::encode(&(about, key, value)),
            );
            disk.apply(batch)?;
            disk.sync()?;
            known.add(name, about);
            Ok(true)
        })
    }

    /// All evidence that is kept.
    ///
    /// # Errors
    /// `StoreError::Corrupt`, `StoreError::Io`.
    pub fn evidence(&self) -> Result<Vec<Evidence>, StoreError> {
        let disk = &self.shared.disk;
        let read = |hash| {
            let key = |piece| Key::Evidence(hash, piece);
            let record = disk.record(key)?.ok_or_else(|| StoreError::corrupt(key(0), "missing"))?;
            decode(hash, &record)
        };
        hashes(disk)?.into_iter().map(read).collect()
    }
}

/// Decodes a record that `put_evidence` stored, and checks that it is stored under the hash of its
/// name.
pub(super) fn decode(hash: Hash, record: &[u8]) -> Result<Evidence, StoreError> {
    let key = Key::Evidence(hash, 0);
    let (_, evidence, value): Stored = schema::decode(key, record)?;
    if name(&evidence) == hash {
        Ok((evidence, value))
    } else {
        Err(StoreError::corrupt(key, "its key is not the hash of its content"))
    }
}

fn name(key: &[u8]) -> Hash {
    Hash::of(Domain::StoreValue, &[key])
}

fn hashes(disk: &Disk) -> Result<Vec<Hash>, StoreError> {
    let keys = disk.scan(&prefix::EVIDENCE).map(|item| item.map(|(key, _)| Key::parse(&key)));
    keys.filter_map(|key| match key {
        Ok(Some(Key::Evidence(hash, 0))) => Some(Ok(hash)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
    .collect()
}
