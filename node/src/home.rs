//! The home of a node: one directory with all it has on disk, and a lock so that two processes never share one.
//!
//! | entry | content |
//! |---|---|
//! | `config.toml` | what is local: addresses, peers, log level |
//! | `genesis.json` | what is agreed; written last, so that a home has it if and only if it is complete |
//! | `node_key` | identity on the network (mode 0600) |
//! | `validator_key` | consensus key, validators only (mode 0600) |
//! | `db/` | the chain |
//! | `consensus.log` | what was signed, until its block is durable |
//! | `LOCK` | held by the process that works on this home; names its pid |

use std::env;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use ledger::genesis::{Genesis, GenesisError};
use ledger::store::Store;

use crate::config::{Config, ConfigError};
use crate::consensus_log::ConsensusLog;
use crate::files::{clear_dir, create_private_dir, write_atomic};
use crate::keys::{KeyFileError, Seed};

/// Why a home could not be made, opened or locked.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// `create` found something there.
    #[error("{} is not empty: a home is only made in a new or empty directory", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// `open` found no home.
    #[error("{} is no home of a node: {reason}; make one with `cairn-node init`", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
        /// What is not there.
        reason: &'static str,
    },
    /// Another process works on it.
    #[error("{} is in use by {}: stop it first", path.display(), holder(*pid))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who holds it, when it could be read.
        pid: Option<u32>,
    },
    /// The operating system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it answered.
        error: io::Error,
    },
    /// The genesis breaks its rules.
    #[error("{}: {error}", path.display())]
    Genesis {
        /// The file.
        path: PathBuf,
        /// All its problems.
        error: GenesisError,
    },
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The chain's files cannot be made.
    #[error("{}: {reason}", path.display())]
    Chain {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// A complete home.
#[derive(Clone, Debug)]
pub struct Home {
    root: PathBuf,
}

/// Holds a home, or another directory, until dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct HomeLock {
    _file: File,
}

/// What `create` puts into a home.
pub struct Contents<'a> {
    /// What is agreed.
    pub genesis: &'a Genesis,
    /// What is local.
    pub config: &'a Config,
    /// Identity on the network.
    pub node_key: &'a Seed,
    /// Consensus key, for a validator.
    pub validator_key: Option<&'a Seed>,
}

impl Home {
    /// Where a home is when nobody says otherwise: `$XDG_DATA_HOME/cairn/node`, by default `~/.local/share/cairn/node`.
    /// Nothing when neither variable is set.
    #[must_use]
    pub fn default_root() -> Option<PathBuf> {
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let data = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")))?;
        Some(data.join("cairn/node"))
    }

    /// Makes a home in a directory that is new or empty. On failure nothing is left in it.
    ///
    /// # Errors
    /// `HomeError`.
    pub fn create(root: &Path, contents: &Contents<'_>) -> Result<Self, HomeError> {
        let io = |error| HomeError::Io { path: root.to_owned(), error };
        let existed = root.exists();
        create_private_dir(root).map_err(io)?;
        if fs::read_dir(root).map_err(io)?.next().is_some() {
            return Err(HomeError::Exists { path: root.to_owned() });
        }
        let home = Self { root: std::path::absolute(root).map_err(io)? };
        home.fill(contents).inspect_err(|_| {
            // The directory was empty or absent, so all that is in it is ours. Failing to clean up changes nothing.
            let _ = if existed { clear_dir(root) } else { fs::remove_dir_all(root) };
        })?;
        Ok(home)
    }

    fn fill(&self, contents: &Contents<'_>) -> Result<(), HomeError> {
        let write = |path: PathBuf, text: String| {
            write_atomic(&path, text.as_bytes(), 0o644).map_err(|error| HomeError::Io { path, error })
        };
        contents.node_key.write(&self.node_key_path(), "Identity of this node on the network.")?;
        if let Some(key) = contents.validator_key {
            let about = "Consensus key of a validator. Two nodes that sign with one key are punished as a traitor.";
            key.write(&self.validator_key_path(), about)?;
        }
        let chain = |path: &Path, reason: String| HomeError::Chain { path: path.to_owned(), reason };
        let (db, log) = (self.db_path(), self.consensus_log_path());
        Store::create(&db, contents.genesis).map_err(|error| chain(&db, error.to_string()))?;
        ConsensusLog::create(&log).map_err(|error| chain(&log, error.to_string()))?;
        write(self.config_path(), contents.config.to_toml())?;
        write(self.genesis_path(), contents.genesis.to_json())
    }

    /// Opens an existing home. Does not lock it.
    ///
    /// # Errors
    /// `HomeError::Missing` when it is no home or was never completed.
    pub fn open(root: &Path) -> Result<Self, HomeError> {
        let missing = |reason| HomeError::Missing { path: root.to_owned(), reason };
        // Absolute, so that messages and children mean the same place.
        let root = std::path::absolute(root).map_err(|error| HomeError::Io { path: root.to_owned(), error })?;
        let home = Self { root };
        match (home.root.is_dir(), home.genesis_path().is_file()) {
            (false, _) => Err(missing("there is no such directory")),
            (true, false) => Err(missing("it has no genesis.json")),
            (true, true) => Ok(home),
        }
    }

    /// Keeps all others out until the lock is dropped.
    ///
    /// # Errors
    /// `HomeError::Locked` with the pid of the holder.
    pub fn lock(&self) -> Result<HomeLock, HomeError> {
        lock_dir(&self.root)
    }

    /// The genesis, checked.
    ///
    /// # Errors
    /// `HomeError::Genesis` with all problems.
    pub fn genesis(&self) -> Result<Genesis, HomeError> {
        read_genesis(&self.genesis_path())
    }

    /// The configuration file, checked.
    ///
    /// # Errors
    /// `HomeError::Config`.
    pub fn config(&self) -> Result<Config, HomeError> {
        Ok(Config::read(&self.config_path())?)
    }

    /// Identity on the network.
    ///
    /// # Errors
    /// `HomeError::Key`.
    pub fn node_key(&self) -> Result<Seed, HomeError> {
        Ok(Seed::read(&self.node_key_path())?)
    }

    /// The consensus key, when there is one.
    ///
    /// # Errors
    /// `HomeError::Key`.
    pub fn validator_key(&self) -> Result<Option<Seed>, HomeError> {
        let path = self.validator_key_path();
        // A dangling link or a directory is a mistake to report, not a full node.
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            _ => Ok(Some(Seed::read(&path)?)),
        }
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `config.toml`.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// `genesis.json`.
    #[must_use]
    pub fn genesis_path(&self) -> PathBuf {
        self.root.join("genesis.json")
    }

    /// `node_key`.
    #[must_use]
    pub fn node_key_path(&self) -> PathBuf {
        self.root.join("node_key")
    }

    /// `validator_key`.
    #[must_use]
    pub fn validator_key_path(&self) -> PathBuf {
        self.root.join("validator_key")
    }

    /// `db/`.
    #[must_use]
    pub fn db_path(&self) -> PathBuf {
        self.root.join("db")
    }

    /// `sync/`: chunks of segments that are being fetched.
    #[must_use]
    pub fn sync_path(&self) -> PathBuf {
        self.root.join("sync")
    }

    /// `consensus.log`.
    #[must_use]
    pub fn consensus_log_path(&self) -> PathBuf {
        self.root.join("consensus.log")
    }
}

/// Reads and checks a genesis file.
///
/// # Errors
/// `HomeError::Io` or `HomeError::Genesis`.
pub fn read_genesis(path: &Path) -> Result<Genesis, HomeError> {
    let text = fs::read(path).map_err(|error| HomeError::Io { path: path.to_owned(), error })?;
    Genesis::from_json(&text).map_err(|error| HomeError::Genesis { path: path.to_owned(), error })
}

/// Takes the `LOCK` of a directory.
///
/// # Errors
/// `HomeError::Locked` when another process has it.
pub(crate) fn lock_dir(root: &Path) -> Result<HomeLock, HomeError> {
    let path = root.join("LOCK");
    let io = |error| HomeError::Io { path: path.clone(), error };
    // The holder's pid stays readable: the file is cut only once it is ours. It is never removed, as a process that waits
    // on a removed file would hold nothing.
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(io(error)),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = file.take(20).read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(HomeError::Locked { path: root.to_owned(), pid });
        }
    }
    file.set_len(0).map_err(io)?;
    file.rewind().map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(HomeLock { _file: file })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn contents<T>(use_them: impl FnOnce(&Contents<'_>) -> T) -> T {
        let genesis = Genesis::from_json(include_bytes!("../../genesis.json")).unwrap();
        let (node_key, validator_key) = (Seed::random().unwrap(), Seed::random().unwrap());
        use_them(&Contents {
            genesis: &genesis,
            config: &Config::default(),
            node_key: &node_key,
            validator_key: Some(&validator_key),
        })
    }

    #[test]
    fn a_home_is_made_once_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("home");
        contents(|contents| {
            Home::create(&root, contents).unwrap();
            assert!(matches!(Home::create(&root, contents), Err(HomeError::Exists { .. })));
            let home = Home::open(&root).unwrap();
            assert_eq!(&home.genesis().unwrap(), contents.genesis);
            assert_eq!(home.config().unwrap(), Config::default());
            assert_eq!(home.node_key().unwrap().public(), contents.node_key.public());
            let validator_key = contents.validator_key.map(Seed::public);
            assert_eq!(home.validator_key().unwrap().map(|key| key.public()), validator_key);
        });
    }

    #[test]
    fn an_unfinished_home_is_no_home() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Home::open(&folder.path().join("none")), Err(HomeError::Missing { .. })));
        contents(|contents| Home::create(&folder.path().join("home"), contents).unwrap());
        fs::remove_file(folder.path().join("home/genesis.json")).unwrap();
        let error = Home::open(&folder.path().join("home")).unwrap_err().to_string();
        assert!(error.contains("has no genesis.json"), "{error}");
    }

    #[test]
    fn a_lock_names_its_holder_and_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let lock = lock_dir(folder.path()).unwrap();
        match lock_dir(folder.path()) {
            Err(HomeError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("expected a locked home, got {other:?}"),
        }
        drop(lock);
        lock_dir(folder.path()).unwrap();
    }
}
