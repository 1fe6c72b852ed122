//! The wallet's directory: keys, the pinned genesis, and the highest head seen.
//!
//! - `keystore.json` holds the keys. The module `keystore` reads and writes it.
//! - `genesis.json` determines the chain of this wallet and never changes.
//! - `head.json` is the highest certified header that this wallet has verified.
//! - `unfinished.json` holds the transfers whose outcome is not proved.
//! - `fork-HEIGHT.json` holds two certified headers of one height, which prove a fork.
//! - `keystore.lock` is locked while `keystore.json` is written.
//! - `wallet.lock` is locked while `genesis.json`, `head.json`, `unfinished.json` or a fork file is
//!   written, and while the accounts of a local test network are put into the keystore.
//! - `send-KEY.lock` is locked from before the nonce of a payment is chosen until its outcome is
//!   printed. KEY is the first 8 bytes of the sender's public key, hex.

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
/// The public password of a local test network's wallet.
const PASSWORD: &str = "password";
const TEMPLATE: &str = "template-accounts.json";
const SMALL_FILE_BYTES_MAX: usize = 1 << 20;

/// Why the wallet's own files cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    /// The operating system refused.
    #[error("cannot {action} {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system answered.
        error: io::Error,
    },
    /// A file has the wrong content.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A genesis breaks the rules.
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
    /// Another process sends from this account, and only one may at a time.
    #[error(
        "another `send` from this key has been under way for {wait:?}; nothing was sent\nhint: try \
         again"
    )]
    Busy {
        /// How long this process waited.
        wait: std::time::Duration,
    },
    /// Too many transfers may still become final.
    #[error(
        "{} holds {max} transfers that may still become final; nothing was sent\n\
         hint: wait until they are final or expired",
        path.display()
    )]
    Crowded {
        /// The file.
        path: PathBuf,
        /// Most transfers in the file.
        max: usize,
    },
    /// The keystore failed.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
}

/// A certified header, as `head.json` stores it.
pub(crate) struct Seen {
    /// Its height.
    pub(crate) height: u64,
    /// Hash of the header, hex.
    pub(crate) hash: String,
    /// Header and certificate.
    pub(crate) head: api::Head,
}

/// The outcome of [`Home::keep`].
pub(crate) enum Kept {
    /// The head is stored, or the stored one is the same or higher: another process may have been
    /// faster.
    Known,
    /// The stored head is another certified block of this height. This file has both.
    Fork(PathBuf),
}

/// The wallet's directory.
pub(crate) struct Home {
    dir: PathBuf,
}

impl Home {
    /// The wallet in this directory. Reads and writes no file.
    pub(crate) const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// `cairn/wallet` among the user's data files (XDG base directories). `None` if no environment
    /// variable names an absolute directory for them.
    pub(crate) fn default_dir() -> Option<PathBuf> {
        let absolute =
            |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let data =
            absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
        Some(data.or_else(|| absolute("LOCALAPPDATA"))?.join("cairn").join("wallet"))
    }

    /// Its path.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The pinned genesis, which determines the chain of this wallet; `None` until one is pinned.
    pub(crate) fn genesis(&self) -> Result<Option<Genesis>, HomeError> {
        let path = self.path(GENESIS);
        read(&path, GENESIS_BYTES_MAX)?.map(|bytes| parse_genesis(&path, &bytes)).transpose()
    }

    /// Binds the wallet to this genesis for good. Pinning the same one again changes nothing.
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

    /// The stored head, not verified again.
    pub(crate) fn head(&self) -> Result<Option<api::Head>, HomeError> {
        let path = self.path(HEAD);
        let Some(bytes) = read(&path, SMALL_FILE_BYTES_MAX)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(&path, error.to_string()))
    }

    /// The error for a stored head that does not verify.
    pub(crate) fn damaged_head(&self, reason: String) -> HomeError {
        damaged(&self.path(HEAD), reason)
    }

    /// Stores a head, unless the stored one is the same or higher. If the stored one is another
    /// block of the same height, both are written to a file of their own: see [`Kept::Fork`].
    /// `read` verifies the stored head.
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

    /// The file with the public password of a local test network's wallet. `None` for any other
    /// wallet.
    pub(crate) fn template_password(&self, genesis: &Genesis) -> Option<PathBuf> {
        let path = self.path(PASSWORD);
        (genesis.network == LOCAL_NETWORK && self.path(TEMPLATE).is_file() && path.is_file())
            .then_some(path)
    }

    /// The keystore, if there is one. In the wallet of a local test network it is made first, with
    /// the accounts of that network.
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

    /// Takes the lock for writing in the directory. It is released when dropped.
    fn lock(&self) -> Result<File, HomeError> {
        let path = self.path("wallet.lock");
        let file = private(OpenOptions::new().write(true).create(true).truncate(false)).open(&path);
        file.and_then(|file| file.lock().map(|()| file)).map_err(|error| HomeError::Io {
            action: "lock",
            path,
            error,
        })
    }

    /// Replaces a file as a whole or not at all. The caller holds the lock, so nobody else writes
    /// the temporary file.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), HomeError> {
        let (path, temporary) = (self.path(name), self.path(&format!(".{name}.new")));
        let replace = || -> io::Result<()> {
            let mut file = private(OpenOptions::new().write(true).create(true).truncate(true))
                .open(&temporary)?;
            file.write_all(bytes)?;
            // The content is synced before the rename. If a power cut kept the rename but not the
            // bytes, the file would be damaged.
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            // Without this sync, a power cut may leave the old file or none. If the pinned genesis
            // were lost, the next node could choose the chain.
            sync_directory(&self.dir)
        };
        replace().map_err(|error| HomeError::Io { action: "write", path: path.clone(), error })
    }
}

/// Reads and checks a genesis file.
pub(crate) fn read_genesis(path: &Path) -> Result<Genesis, HomeError> {
    let bytes = read(path, GENESIS_BYTES_MAX)?;
    let absent = || HomeError::Io {
        action: "read",
        path: path.to_owned(),
        error: io::ErrorKind::NotFound.into(),
    };
    parse_genesis(path, &bytes.ok_or_else(absent)?)
}

fn parse_genesis(path: &Path, bytes: &[u8]) -> Result<Genesis, HomeError> {
    Genesis::from_json(bytes).map_err(|error| HomeError::Genesis { path: path.to_owned(), error })
}

/// The content of a file; `None` if there is no file.
fn read(path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>, HomeError> {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(bytes_max as u64 + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() > bytes_max => {
            Err(damaged(path, format!("longer than {bytes_max} bytes")))
        }
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
