//! The wallet's directory: keys, the pinned genesis, and the highest head seen.
//!
//! `keystore.json` is the keystore's; `genesis.json` says which chain this wallet is for and never changes; `head.json` is the last
//! certified header that this wallet has verified; `unfinished.json` has the transfers whose fate is not proved. `wallet.lock` is
//! held while one of the latter three is written, `send-KEY.lock` while a transfer from that account is made.

mod template;
mod unfinished;

use std::cmp::Ordering;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ledger::api;
use ledger::genesis::{GENESIS_BYTES_MAX, Genesis, GenesisError, LOCAL_NETWORK};
use ledger::hash::ChainId;
use serde_json::json;

pub(crate) use self::unfinished::Unfinished;
use crate::keystore::{Keystore, KeystoreError, prepare, sync_directory};

const GENESIS: &str = "genesis.json";
const HEAD: &str = "head.json";
/// The public password of a local test network's wallet, and which of its accounts to put in.
const PASSWORD: &str = "password";
const TEMPLATE: &str = "template-accounts.json";
const SMALL_FILE_BYTES_MAX: usize = 1 << 20;

/// What is wrong with the wallet's own files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    /// The operating system refused.
    #[error("cannot {action} {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What it answered.
        error: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A genesis that breaks its rules.
    #[error("{}: {error}", path.display())]
    Genesis {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        error: GenesisError,
    },
    /// The wallet is for another chain already.
    #[error(
        "the wallet in {} is for the network {network:?} (chain {pinned}), not for chain {got}\n\
         hint: use another --home for that one",
        dir.display()
    )]
    OtherChain {
        /// The wallet's directory.
        dir: PathBuf,
        /// Name of its network.
        network: String,
        /// Its chain.
        pinned: ChainId,
        /// The chain offered.
        got: ChainId,
    },
    /// Other commands send from this account one after the other.
    #[error("another `send` from this key has been under way for {wait:?}; nothing was sent\nhint: try again")]
    Busy {
        /// How long it was waited for.
        wait: std::time::Duration,
    },
    /// Too many transfers have an open fate.
    #[error(
        "{} holds {max} transfers that may still land; nothing was sent\nhint: wait until they are final or expired",
        path.display()
    )]
    Crowded {
        /// The file.
        path: PathBuf,
        /// Most there may be.
        max: usize,
    },
    /// The keystore.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
}

/// A certified header of the chain, as it is kept.
pub(crate) struct Seen {
    /// Its height.
    pub(crate) height: u64,
    /// Hash of the header, hex.
    pub(crate) hash: String,
    /// Header and certificate.
    pub(crate) head: api::Head,
}

/// What became of a head that was to be kept.
pub(crate) enum Kept {
    /// It is the highest one, or another process has seen a higher one meanwhile.
    Known,
    /// Another block of this height is certified too. Both are in this file.
    Fork(PathBuf),
}

/// The directory.
pub(crate) struct Home {
    dir: PathBuf,
}

impl Home {
    /// Touches nothing yet.
    pub(crate) const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// `cairn/wallet` among the user's data files (XDG base directories).
    pub(crate) fn default_dir() -> Option<PathBuf> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
        Some(data.or_else(|| absolute("LOCALAPPDATA"))?.join("cairn").join("wallet"))
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The genesis this wallet is for, once it is pinned.
    pub(crate) fn genesis(&self) -> Result<Option<Genesis>, HomeError> {
        let path = self.path(GENESIS);
        read(&path, GENESIS_BYTES_MAX)?.map(|bytes| parse_genesis(&path, &bytes)).transpose()
    }

    /// Makes this the wallet's chain, from now on. Pinning the same one again changes nothing.
    pub(crate) fn pin(&self, genesis: &Genesis) -> Result<(), HomeError> {
        prepare(&self.dir)?;
        let _lock = self.lock()?;
        match self.genesis()? {
            None => self.write(GENESIS, genesis.to_json().as_bytes()),
            Some(pinned) if pinned == *genesis => Ok(()),
            Some(pinned) => Err(HomeError::OtherChain {
                dir: self.dir.clone(),
                network: pinned.network.clone(),
                pinned: pinned.chain_id(),
                got: genesis.chain_id(),
            }),
        }
    }

    /// The highest head seen so far, as it was written.
    pub(crate) fn head(&self) -> Result<Option<api::Head>, HomeError> {
        let path = self.path(HEAD);
        let Some(bytes) = read(&path, SMALL_FILE_BYTES_MAX)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(&path, error.to_string()))
    }

    /// That file does not hold what this wallet wrote.
    pub(crate) fn damaged_head(&self, reason: String) -> HomeError {
        damaged(&self.path(HEAD), reason)
    }

    /// Keeps a head, unless a higher one is there: another process of this wallet may have been faster.
    pub(crate) fn keep(
        &self,
        new: &Seen,
        read: impl Fn(api::Head) -> Result<Seen, HomeError>,
    ) -> Result<Kept, HomeError> {
        let _lock = self.lock()?;
        let stored = self.head()?.map(read).transpose()?;
        match stored.as_ref().map(|stored| (new.height.cmp(&stored.height), stored)) {
            Some((Ordering::Less, _)) => Ok(Kept::Known),
            Some((Ordering::Equal, stored)) if stored.hash == new.hash => Ok(Kept::Known),
            Some((Ordering::Equal, stored)) => {
                let name = format!("fork-{}.json", new.height);
                let proof = json!({ "first": stored.head, "second": new.head });
                self.write(&name, format!("{proof:#}\n").as_bytes())?;
                Ok(Kept::Fork(self.path(&name)))
            }
            None | Some((Ordering::Greater, _)) => {
                self.write(HEAD, format!("{:#}\n", json!(new.head)).as_bytes())?;
                Ok(Kept::Known)
            }
        }
    }

    /// The file with the public password of a local test network's wallet. Only such a wallet has one.
    pub(crate) fn template_password(&self, genesis: &Genesis) -> Option<PathBuf> {
        let path = self.path(PASSWORD);
        (genesis.network == LOCAL_NETWORK && self.path(TEMPLATE).is_file() && path.is_file()).then_some(path)
    }

    /// The keystore, if there is one; in the wallet of a local test network with that network's accounts in it.
    pub(crate) fn keystore(&self, genesis: &Genesis) -> Result<Option<Keystore>, HomeError> {
        if let Some(password) = self.template_password(genesis) {
            template::put_in(self, &password)?;
        }
        self.open_keystore()
    }

    fn open_keystore(&self) -> Result<Option<Keystore>, HomeError> {
        match Keystore::open(&self.dir) {
            Ok(store) => Ok(Some(store)),
            Err(KeystoreError::NoKeystore { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The right to write in the directory, until dropped.
    fn lock(&self) -> Result<File, HomeError> {
        let path = self.path("wallet.lock");
        let file = private(OpenOptions::new().write(true).create(true).truncate(false)).open(&path);
        file.and_then(|file| file.lock().map(|()| file)).map_err(|error| HomeError::Io { action: "lock", path, error })
    }

    /// Replaces a file as a whole or not at all. The lock is held: only its holder makes the temporary file.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), HomeError> {
        let (path, temporary) = (self.path(name), self.path(&format!(".{name}.new")));
        let replace = || -> io::Result<()> {
            let mut file = private(OpenOptions::new().write(true).create(true).truncate(true)).open(&temporary)?;
            file.write_all(bytes)?;
            // Content before name: a name that survives a power cut while the bytes do not would be a damaged file.
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            // Without this a power cut may bring back the old file, or none: a pin that is gone lets the next node choose the chain.
            sync_directory(&self.dir)
        };
        replace().map_err(|error| HomeError::Io { action: "write", path: path.clone(), error })
    }
}

/// Reads and checks a genesis file.
pub(crate) fn read_genesis(path: &Path) -> Result<Genesis, HomeError> {
    let bytes = read(path, GENESIS_BYTES_MAX)?;
    let absent = || HomeError::Io { action: "read", path: path.to_owned(), error: io::ErrorKind::NotFound.into() };
    parse_genesis(path, &bytes.ok_or_else(absent)?)
}

fn parse_genesis(path: &Path, bytes: &[u8]) -> Result<Genesis, HomeError> {
    Genesis::from_json(bytes).map_err(|error| HomeError::Genesis { path: path.to_owned(), error })
}

/// The content of a file, or nothing if there is none.
fn read(path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>, HomeError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(bytes_max as u64 + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() > bytes_max => Err(damaged(path, format!("longer than {bytes_max} bytes"))),
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(HomeError::Io { action: "read", path: path.to_owned(), error }),
    }
}

fn damaged(path: &Path, reason: String) -> HomeError {
    HomeError::Damaged { path: path.to_owned(), reason }
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(test)]
mod tests;
