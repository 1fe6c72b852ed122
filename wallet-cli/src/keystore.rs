//! Named keys on disk, their secrets under a password.
//!
//! A directory for the owner alone (mode 0700) with one file, `keystore.json` (mode 0600). Names and public keys are in
//! clear, so that listing them needs no password; the phrase from which keys derive, and imported secrets, are sealed by
//! XChaCha20-Poly1305 under a key from Argon2id. A seal over the whole file authenticates what is in clear: after
//! `unlock` it is proven, before that it is only what the file says. What no seal can show is an older version of the
//! file put back in place of a newer one.

mod cipher;
mod error;
mod file;
mod name;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use serde::Serialize;
use zeroize::Zeroizing;

pub use self::cipher::{KdfError, KdfParams, Password};
use self::cipher::{StoreKey, random};
pub use self::error::KeystoreError;
use self::file::{Document, Entry, EntryOrigin, FORMAT, Hex, KEYS_MAX, Lock};
pub(crate) use self::file::{prepare, sync_directory};
pub use self::name::{KeyName, NameError};
use crate::mnemonic::Mnemonic;
use crate::slip10::{Index, account_secret};

/// What anyone may know of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: KeyName,
    /// Its ed25519 public key, which is the account.
    pub public_key: [u8; 32],
    /// Where its secret comes from.
    pub origin: Origin,
}

/// Where a secret comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the phrase: the 24 words bring it back.
    Derived {
        /// Its account in the derivation path.
        account: u32,
    },
    /// Brought in as a raw secret: only a copy of it, or of the keystore, brings it back.
    Imported,
}

impl From<&Entry> for Key {
    fn from(entry: &Entry) -> Self {
        let origin = match entry.origin {
            EntryOrigin::Derived { account } => Origin::Derived { account: account.get() },
            EntryOrigin::Imported { .. } => Origin::Imported,
        };
        Self { name: entry.name.clone(), public_key: entry.public_key.0, origin }
    }
}

/// A keystore as read from disk, still locked.
#[derive(Clone)]
pub struct Keystore {
    dir: PathBuf,
    document: Document,
}

impl Keystore {
    /// Makes a keystore around a phrase, in a directory that is new, empty or the owner's alone. It has no keys yet.
    ///
    /// # Errors
    /// `Exists` if the directory has one, `Exposed`, `EmptyPassword`, `KdfParams`, `Kdf`, `NoRandomness`, `Io`.
    pub fn create(
        dir: &Path,
        password: &Password,
        mnemonic: Mnemonic,
        argon2id: KdfParams,
    ) -> Result<Unlocked, KeystoreError> {
        if password.is_empty() {
            return Err(KeystoreError::EmptyPassword);
        }
        file::prepare(dir)?;
        let salt = Hex(random()?);
        let key = StoreKey::derive(password, argon2id, &salt.0)?;
        let phrase = key.seal(&*mnemonic.entropy(), &phrase_data(FORMAT, argon2id, &salt))?;
        // Replaced when the document is sealed.
        let seal = phrase.clone();
        let mut document = Document { format: FORMAT, argon2id, salt, phrase, keys: Vec::new(), seal };
        document.seal = key.seal(&[], &seal_data(&document))?;

        let lock = Lock::take(dir)?;
        let path = file::path(dir);
        // The link itself is asked, not its target: a dangling one is also somebody's.
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => lock.write(&document)?,
            Err(error) => return Err(KeystoreError::Io { action: "look for", path, error }),
            Ok(_) => return Err(KeystoreError::Exists { path }),
        }
        Ok(Unlocked { store: Self { dir: dir.to_owned(), document }, key, mnemonic })
    }

    /// Reads a keystore. Needs no password, and therefore proves nothing about names and public keys.
    ///
    /// # Errors
    /// `NoKeystore`, `Damaged`, `Format`, `Io`.
    pub fn open(dir: &Path) -> Result<Self, KeystoreError> {
        Ok(Self { dir: dir.to_owned(), document: file::read(dir)? })
    }

    /// The keys, in the order they were added.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.document.keys.iter().map(Key::from)
    }

    /// Opens the phrase and proves the rest of the file. Takes as long as its parameters of Argon2id say.
    ///
    /// # Errors
    /// `BadPassword`; `Tampered` if the password is right and the rest does not fit; `Kdf`.
    pub fn unlock(&self, password: &Password) -> Result<Unlocked, KeystoreError> {
        let Document { format, argon2id, salt, phrase, .. } = &self.document;
        let key = StoreKey::derive(password, *argon2id, &salt.0)?;
        let entropy = key.open(phrase, &phrase_data(*format, *argon2id, salt)).ok_or(KeystoreError::BadPassword)?;
        let entropy = <&[u8; 32]>::try_from(entropy.as_slice()).map_err(|_| self.tampered())?;
        self.prove(&key)?;
        Ok(Unlocked { store: self.clone(), key, mnemonic: Mnemonic::from_entropy(entropy) })
    }

    fn prove(&self, key: &StoreKey) -> Result<(), KeystoreError> {
        key.open(&self.document.seal, &seal_data(&self.document)).map(|_| ()).ok_or_else(|| self.tampered())
    }

    fn tampered(&self) -> KeystoreError {
        KeystoreError::Tampered { path: file::path(&self.dir) }
    }
}

/// A keystore whose secrets can be used. All of them are wiped when it is dropped.
pub struct Unlocked {
    store: Keystore,
    key: StoreKey,
    mnemonic: Mnemonic,
}

impl Unlocked {
    /// The keys, in the order they were added; proven, unlike those of `Keystore::keys`.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.store.keys()
    }

    /// The 24 words.
    #[must_use]
    pub fn phrase(&self) -> Zeroizing<String> {
        self.mnemonic.phrase()
    }

    /// The secret of a key: an ed25519 seed of 32 bytes.
    ///
    /// # Errors
    /// `NoSuchKey`; `Tampered` if the secret is not the one of the public key.
    pub fn signing_seed(&self, name: &str) -> Result<Zeroizing<[u8; 32]>, KeystoreError> {
        let entry = self.store.document.keys.iter().find(|entry| entry.name.as_str() == name);
        let entry = entry.ok_or(KeystoreError::NoSuchKey)?;
        let seed = match &entry.origin {
            EntryOrigin::Derived { account } => account_secret(&self.mnemonic.seed(""), *account),
            EntryOrigin::Imported { secret } => {
                let opened = self.key.open(secret, &import_data(&entry.name, &entry.public_key));
                let opened = opened.ok_or_else(|| self.store.tampered())?;
                let mut seed = Zeroizing::new([0; 32]);
                if opened.len() != seed.len() {
                    return Err(self.store.tampered());
                }
                seed.copy_from_slice(&opened);
                seed
            }
        };
        // A signature by any other key than the one shown would spend from the wrong account.
        if public_key(&seed) == entry.public_key.0 { Ok(seed) } else { Err(self.store.tampered()) }
    }

    /// Adds the next account of the phrase: one more than the highest, the first one being 0.
    ///
    /// # Errors
    /// `NameTaken`, `Full`, `KeyExists` if its secret was imported before; those of reading and writing the file.
    pub fn derive(&mut self, name: KeyName) -> Result<Key, KeystoreError> {
        self.add(name, |unlocked, name| {
            let accounts = unlocked.store.document.keys.iter().filter_map(|entry| match entry.origin {
                EntryOrigin::Derived { account } => Some(account.get()),
                EntryOrigin::Imported { .. } => None,
            });
            let next = accounts.max().map_or(0, |highest| highest.saturating_add(1));
            let account = Index::try_from(next).map_err(|_| KeystoreError::Full)?;
            let public_key = Hex(public_key(&account_secret(&unlocked.mnemonic.seed(""), account)));
            Ok(Entry { name, public_key, origin: EntryOrigin::Derived { account } })
        })
    }

    /// Adds a key by its raw secret, an ed25519 seed.
    ///
    /// # Errors
    /// `NameTaken`, `Full`, `KeyExists`; those of reading and writing the file.
    pub fn import_seed(&mut self, name: KeyName, seed: &[u8; 32]) -> Result<Key, KeystoreError> {
        self.add(name, |unlocked, name| {
            let public_key = Hex(public_key(seed));
            let secret = unlocked.key.seal(seed, &import_data(&name, &public_key))?;
            Ok(Entry { name, public_key, origin: EntryOrigin::Imported { secret } })
        })
    }

    fn add(
        &mut self,
        name: KeyName,
        entry: impl FnOnce(&Self, KeyName) -> Result<Entry, KeystoreError>,
    ) -> Result<Key, KeystoreError> {
        let lock = Lock::take(&self.store.dir)?;
        // Read again under the lock: another process may have added keys since, and they must not be lost.
        let current = Keystore::open(&self.store.dir)?;
        current.prove(&self.key)?;
        self.store = current;

        let keys = &self.store.document.keys;
        if keys.len() >= KEYS_MAX {
            return Err(KeystoreError::Full);
        }
        if keys.iter().any(|other| other.name == name) {
            return Err(KeystoreError::NameTaken(name));
        }
        let entry = entry(self, name)?;
        if let Some(other) = keys.iter().find(|other| other.public_key == entry.public_key) {
            return Err(KeystoreError::KeyExists(other.name.clone()));
        }
        let key = Key::from(&entry);
        let mut document = self.store.document.clone();
        document.keys.push(entry);
        document.seal = self.key.seal(&[], &seal_data(&document))?;
        lock.write(&document)?;
        self.store.document = document;
        Ok(key)
    }
}

impl fmt::Debug for Keystore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keystore({})", self.dir.display())
    }
}

impl fmt::Debug for Unlocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unlocked({})", self.store.dir.display())
    }
}

pub(crate) fn public_key(seed: &[u8; 32]) -> [u8; 32] {
    SigningKey::from_bytes(seed).verifying_key().to_bytes()
}

// Associated data: JSON tuples, which no two different values share; the first element says what is sealed.

fn phrase_data(format: u32, argon2id: KdfParams, salt: &Hex<[u8; 16]>) -> Vec<u8> {
    bytes(&("phrase", format, argon2id, salt))
}

fn import_data(name: &KeyName, public_key: &Hex<[u8; 32]>) -> Vec<u8> {
    bytes(&("import", name, public_key))
}

fn seal_data(document: &Document) -> Vec<u8> {
    let Document { format, argon2id, salt, phrase, keys, seal: _ } = document;
    bytes(&("seal", format, argon2id, salt, phrase, keys))
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    match serde_json::to_vec(value) {
        Ok(bytes) => bytes,
        Err(error) => panic!("numbers, hex and names are JSON: {error}"),
    }
}
