//! Named keys on disk, with their secrets sealed under a password.
//!
//! The keystore is one file, `keystore.json` (mode 0600), in a directory for the owner alone (mode
//! 0700). Names and public keys are in clear, so that listing them needs no password. The phrase
//! from which keys derive, and imported secrets, are sealed by XChaCha20-Poly1305 under a key from
//! Argon2id. A seal over the whole file authenticates names and public keys. `unlock` verifies the
//! seal, and so does each change of an unlocked keystore. Names and public keys that were read
//! without `unlock` may be forged. No seal can show that an older version of the file was put back
//! in place of a newer one.

mod cipher;
mod error;
mod file;
mod hexadecimal;
mod name;
mod password;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use serde::Serialize;
use zeroize::Zeroizing;

use self::cipher::{StoreKey, random};
pub use self::error::KeystoreError;
use self::file::{Document, Entry, EntryOrigin, FORMAT, KEYS_MAX, Lock};
pub(crate) use self::file::{prepare, sync_directory};
use self::hexadecimal::Hex;
pub use self::name::{KeyName, NameError};
pub use self::password::{KdfError, KdfParams, Password};
use crate::mnemonic::Mnemonic;
use crate::slip10::{Index, account_secret};

/// The public part of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: KeyName,
    /// Its ed25519 public key, which names the account.
    pub public_key: [u8; 32],
    /// Where its secret comes from.
    pub origin: Origin,
}

/// Where a secret comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The secret derives from the phrase, so the 24 words bring it back.
    Derived {
        /// The account in its derivation path (SLIP-0010).
        account: u32,
    },
    /// The secret was imported, so only a copy of it or of the keystore brings it back.
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

/// A locked keystore, as read from disk.
#[derive(Clone)]
pub struct Keystore {
    dir: PathBuf,
    document: Document,
}

impl Keystore {
    /// Makes a keystore without keys for a phrase, in a directory that is new, empty or the owner's
    /// alone.
    ///
    /// # Errors
    /// `Exists` if the directory has a keystore; `Exposed`, `EmptyPassword`, `KdfParams`, `Kdf`,
    /// `NoRandomness`, `Io`.
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
        // A placeholder until the document is sealed.
        let seal = phrase.clone();
        let mut document =
            Document { format: FORMAT, argon2id, salt, phrase, keys: Vec::new(), seal };
        document.seal = key.seal(&[], &seal_data(&document))?;

        let lock = Lock::take(dir)?;
        let path = file::path(dir);
        // `symlink_metadata` looks at a link, not at its target: a dangling link is not overwritten
        // either.
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => lock.write(&document)?,
            Err(error) => return Err(KeystoreError::Io { action: "look for", path, error }),
            Ok(_) => return Err(KeystoreError::Exists { path }),
        }
        Ok(Unlocked { store: Self { dir: dir.to_owned(), document }, key, mnemonic })
    }

    /// Reads a keystore without a password. So names and public keys are not authenticated yet.
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

    /// Opens the phrase and authenticates the rest of the file. Runs Argon2id once, which is slow
    /// by design.
    ///
    /// # Errors
    /// `BadPassword`, also if the salt, a parameter of Argon2id or the sealed phrase was changed;
    /// `Tampered` if the password is right and the rest of the file was not written with it; `Kdf`,
    /// `KdfParams`.
    pub fn unlock(&self, password: &Password) -> Result<Unlocked, KeystoreError> {
        let Document { format, argon2id, salt, phrase, .. } = &self.document;
        let key = StoreKey::derive(password, *argon2id, &salt.0)?;
        let entropy = key
            .open(phrase, &phrase_data(*format, *argon2id, salt))
            .ok_or(KeystoreError::BadPassword)?;
        let entropy = <&[u8; 32]>::try_from(entropy.as_slice()).map_err(|_| self.tampered())?;
        self.prove(&key)?;
        Ok(Unlocked { store: self.clone(), key, mnemonic: Mnemonic::from_entropy(entropy) })
    }

    fn prove(&self, key: &StoreKey) -> Result<(), KeystoreError> {
        key.open(&self.document.seal, &seal_data(&self.document))
            .map(|_| ())
            .ok_or_else(|| self.tampered())
    }

    fn tampered(&self) -> KeystoreError {
        KeystoreError::Tampered { path: file::path(&self.dir) }
    }
}

/// A keystore whose secrets can be used. The secrets are wiped when it is dropped.
pub struct Unlocked {
    store: Keystore,
    key: StoreKey,
    mnemonic: Mnemonic,
}

impl Unlocked {
    /// The keys, in the order they were added. Unlike those of `Keystore::keys` they are
    /// authenticated.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.store.keys()
    }

    /// The 24 words, with one space between them.
    #[must_use]
    pub fn phrase(&self) -> Zeroizing<String> {
        self.mnemonic.phrase()
    }

    /// The secret of a key: an ed25519 seed of 32 bytes.
    ///
    /// # Errors
    /// `NoSuchKey`; `Tampered` if the secret does not belong to the public key.
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
        // Signing with another key than the one shown would spend from the wrong account.
        if public_key(&seed) == entry.public_key.0 { Ok(seed) } else { Err(self.store.tampered()) }
    }

    /// Adds the next account of the phrase: 0 at first, then one more than the highest.
    ///
    /// # Errors
    /// `NameTaken`; `Full`; `KeyExists` if its secret was imported before; `Tampered`; those of
    /// reading and writing the file.
    pub fn derive(&mut self, name: KeyName) -> Result<Key, KeystoreError> {
        self.add(name, |unlocked, name| {
            let accounts =
                unlocked.store.document.keys.iter().filter_map(|entry| match entry.origin {
                    EntryOrigin::Derived { account } => Some(account.get()),
                    EntryOrigin::Imported { .. } => None,
                });
            let next = accounts.max().map_or(0, |highest| highest.saturating_add(1));
            let account =
                Index::try_from(next).map_err(|_| KeystoreError::Full { max: KEYS_MAX })?;
            let public_key = Hex(public_key(&account_secret(&unlocked.mnemonic.seed(""), account)));
            Ok(Entry { name, public_key, origin: EntryOrigin::Derived { account } })
        })
    }

    /// Adds a key by its raw secret, an ed25519 seed.
    ///
    /// # Errors
    /// `NameTaken`, `Full`, `KeyExists`, `Tampered`; those of reading and writing the file.
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
        // The file is read again under the lock: keys that another process added since must not be
        // lost.
        let current = Keystore::open(&self.store.dir)?;
        current.prove(&self.key)?;
        self.store = current;

        let keys = &self.store.document.keys;
        if keys.len() >= KEYS_MAX {
            return Err(KeystoreError::Full { max: KEYS_MAX });
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

// Associated data is a JSON tuple whose first element says what is sealed. Different values give
// different bytes.

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
