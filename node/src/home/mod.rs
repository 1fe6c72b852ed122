//! The home of a node: one directory with all its files, and a lock against a second process.
//!
//! | entry | content |
//! |---|---|
//! | `config.toml` | local settings: addresses, peers, log level |
//! | `genesis.json` | what all nodes agree on; written last, so only a complete home has it |
//! | `node_key` | network identity (mode 0600) |
//! | `validator_key` | consensus key, validators only (mode 0600) |
//! | `db/` | the chain |
//! | `sync/` | chunks of segments that are being fetched |
//! | `snapshots/` | the state at a few heights, for newcomers |
//! | `files/` | files that are fetched, and hash lists of those that are shared |
//! | `peers.json` | known peers and bans |
//! | `consensus.log` | write-ahead log of consensus at the height that is being decided |
//! | `run/control` | the operator's socket while a process runs here, or a file with its path |
//! | `node.log` | output of the node, in a local test network only |
//! | `LOCK` | locked by the process that uses this home; holds its pid |
//! | `init.unfinished` | marks a home that is being made; the next `init` replaces it |

mod holder;

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, Write};
use std::mem;
#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ledger::genesis::{Genesis, GenesisError};
use ledger::store::Store;

use crate::config::{Config, ConfigError};
use crate::consensus_log::ConsensusLog;
use crate::files::{LOCK, create_private_dir, names_in, open_in_place, remove_all, write_atomic};
use crate::keys::{KeyFileError, Seed};

pub(crate) use self::holder::{holder, stop};

const GENESIS: &str = "genesis.json";
/// Marks a home that is being made.
const UNFINISHED: &str = "init.unfinished";
/// The entries that an unfinished home may have.
const ENTRIES: [&str; 7] =
    [UNFINISHED, GENESIS, "config.toml", "node_key", "validator_key", "db", "consensus.log"];

/// Why a home could not be made, opened or locked.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// `create` found a directory that is not empty.
    #[error("{} is not empty: a home is only made in a new or empty directory", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// `open` found no home.
    #[error(
        "{} is not a node's home directory: {reason}; make one with `cairn-node init`",
        path.display()
    )]
    Missing {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        reason: &'static str,
    },
    /// Another process uses the directory.
    #[error("{} is in use by {}: stop it first", path.display(), named(*pid))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Pid of the holder, if it could be read.
        pid: Option<u32>,
    },
    /// The operating system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system answered.
        error: io::Error,
    },
    /// The genesis breaks the rules.
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
        /// What went wrong.
        reason: String,
    },
}

fn named(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// A complete home.
#[derive(Clone, Debug)]
pub struct Home {
    root: PathBuf,
}

/// The lock of a home or another directory. Released when dropped or when the process ends.
#[derive(Debug)]
pub struct HomeLock {
    file: File,
}

/// The lock of a home that is only read.
#[derive(Debug)]
pub(crate) struct ReadLock {
    _lock: Option<HomeLock>,
    /// Whether the home is on a read-only file system.
    pub(crate) is_read_only: bool,
}

impl HomeLock {
    /// Holds the lock until this process ends. Dropped before, it would tell a process that waits
    /// for the end of this one that it has ended.
    pub(crate) fn hold_until_exit(self) {
        mem::forget(self.file);
    }
}

/// The content of a new home.
pub struct Contents<'a> {
    /// What all nodes agree on.
    pub genesis: &'a Genesis,
    /// Local settings.
    pub config: &'a Config,
    /// Network identity.
    pub node_key: &'a Seed,
    /// Consensus key, for a validator.
    pub validator_key: Option<&'a Seed>,
}

impl Home {
    /// The default home: `$XDG_DATA_HOME/cairn/node`, or else `~/.local/share/cairn/node`. `None`
    /// if neither `XDG_DATA_HOME` nor `HOME` is an absolute path.
    #[must_use]
    pub fn default_root() -> Option<PathBuf> {
        let absolute =
            |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let data = absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))?;
        Some(data.join("cairn/node"))
    }

    /// Makes a home in a new or empty directory or over an unfinished home. If writing it fails,
    /// the directory is emptied again, or removed if this call made it.
    ///
    /// # Errors
    /// `HomeError`.
    pub fn create(root: &Path, contents: &Contents<'_>) -> Result<Self, HomeError> {
        let io = |error| HomeError::Io { path: root.to_owned(), error };
        let existed = root.try_exists().map_err(io)?;
        create_private_dir(root).map_err(io)?;
        let home = Self { root: std::path::absolute(root).map_err(io)? };
        let lock = home.lock()?;
        home.make_room()?;
        // From here on everything in the directory is ours.
        let mark = home.root.join(UNFINISHED);
        if let Err(error) = File::create(&mark).map_err(io).and_then(|_| home.fill(contents)) {
            // A failed clean-up does no harm: the mark says that the rest is ours.
            let _ = home.clear();
            drop(lock);
            if !existed {
                let _ = fs::remove_dir_all(root);
            }
            return Err(error);
        }
        remove_all(&mark).map_err(io)?;
        Ok(home)
    }

    /// Refuses a directory with content, except an unfinished home, which it empties.
    fn make_room(&self) -> Result<(), HomeError> {
        let io = |error| HomeError::Io { path: self.root.clone(), error };
        let names = names_in(&self.root).map_err(io)?;
        let is_ours = |name: &OsString| {
            let name = name.to_string_lossy();
            // A file is first written as `NAME.PID.tmp`, the store as `NAME.new`.
            let is_partial =
                |rest: &str| rest.is_empty() || rest == ".new" || rest.ends_with(".tmp");
            ENTRIES.iter().any(|entry| name.strip_prefix(entry).is_some_and(is_partial))
        };
        let was_unfinished = names.iter().any(|name| name == UNFINISHED)
            && !names.iter().any(|name| name == GENESIS);
        match names.is_empty() || (was_unfinished && names.iter().all(is_ours)) {
            true => self.clear(),
            false => Err(HomeError::Exists { path: self.root.clone() }),
        }
    }

    /// Empties an unfinished home, the mark last. No node ever signed from it.
    fn clear(&self) -> Result<(), HomeError> {
        let mut names = names_in(&self.root)
            .map_err(|error| HomeError::Io { path: self.root.clone(), error })?;
        names.sort_by_key(|name| name == UNFINISHED);
        for path in names.iter().map(|name| self.root.join(name)) {
            remove_all(&path).map_err(|error| HomeError::Io { path, error })?;
        }
        Ok(())
    }

    fn fill(&self, contents: &Contents<'_>) -> Result<(), HomeError> {
        let write = |path: PathBuf, text: String| {
            write_atomic(&path, text.as_bytes(), 0o644)
                .map_err(|error| HomeError::Io { path, error })
        };
        contents.node_key.write(&self.node_key_path(), "Identity of this node on the network.")?;
        if let Some(key) = contents.validator_key {
            let about = "Consensus key of a validator. Two nodes must never sign with one key: \
                         contradicting votes can undo final blocks, and other nodes keep them as \
                         evidence.";
            key.write(&self.validator_key_path(), about)?;
        }
        let chain =
            |path: &Path, reason: String| HomeError::Chain { path: path.to_owned(), reason };
        let (db, log) = (self.db_path(), self.consensus_log_path());
        Store::create(&db, contents.genesis).map_err(|error| chain(&db, error.to_string()))?;
        ConsensusLog::create(&log).map_err(|error| chain(&log, error.to_string()))?;
        write(self.config_path(), contents.config.to_toml())?;
        write(self.genesis_path(), contents.genesis.to_json())
    }

    /// Opens an existing home. Does not lock it.
    ///
    /// # Errors
    /// `HomeError::Missing` if there is no home, or if it was not made to the end. `HomeError::Io`
    /// if the operating system does not let us look.
    pub fn open(root: &Path) -> Result<Self, HomeError> {
        let missing = |reason| HomeError::Missing { path: root.to_owned(), reason };
        // The path is made absolute, so that messages and child processes name the same place.
        let root = std::path::absolute(root)
            .map_err(|error| HomeError::Io { path: root.to_owned(), error })?;
        let home = Self { root };
        let path = home.genesis_path();
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => Err(missing("its genesis.json is a directory")),
            Ok(_) => Ok(home),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                Err(missing("it is not a directory"))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::metadata(&home.root)
            {
                Ok(_) if home.root.join(UNFINISHED).exists() => {
                    Err(missing("`init` was stopped before it was complete"))
                }
                Ok(_) => Err(missing("it has no genesis.json")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Err(missing("there is no such directory"))
                }
                Err(error) => Err(HomeError::Io { path: home.root, error }),
            },
            // Without permission, or on a failing disk, there may still be a home.
            Err(error) => Err(HomeError::Io { path, error }),
        }
    }

    /// Locks the home against other processes.
    ///
    /// # Errors
    /// `HomeError::Locked` with the pid of the holder; `HomeError::Io`.
    pub fn lock(&self) -> Result<HomeLock, HomeError> {
        lock_dir(&self.root)
    }

    /// Locks the home to read it. On a read-only file system a missing `LOCK` is no error: no
    /// process can write there.
    ///
    /// # Errors
    /// See [`Self::lock`].
    pub(crate) fn lock_to_read(&self) -> Result<ReadLock, HomeError> {
        match self.lock() {
            Ok(lock) => Ok(ReadLock { _lock: Some(lock), is_read_only: false }),
            Err(HomeError::Io { path, error })
                if error.kind() == io::ErrorKind::ReadOnlyFilesystem =>
            {
                let lock = match File::open(&path) {
                    Ok(file) => Some(try_lock(&self.root, &path, file)?),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    Err(error) => return Err(HomeError::Io { path, error }),
                };
                Ok(ReadLock { _lock: lock, is_read_only: true })
            }
            Err(error) => Err(error),
        }
    }

    /// The genesis, checked.
    ///
    /// # Errors
    /// `HomeError::Genesis` with all problems; `HomeError::Io`.
    pub fn genesis(&self) -> Result<Genesis, HomeError> {
        read_genesis(&self.genesis_path())
    }

    /// Reads the configuration file. See [`Config::check`] for its rules.
    ///
    /// # Errors
    /// `HomeError::Config`.
    pub fn config(&self) -> Result<Config, HomeError> {
        Ok(Config::read(&self.config_path())?)
    }

    /// The network identity.
    ///
    /// # Errors
    /// `HomeError::Key`.
    pub fn node_key(&self) -> Result<Seed, HomeError> {
        Ok(Seed::read(&self.node_key_path())?)
    }

    /// The consensus key, if there is one.
    ///
    /// # Errors
    /// `HomeError::Key`.
    pub fn validator_key(&self) -> Result<Option<Seed>, HomeError> {
        let path = self.validator_key_path();
        // A dangling link or a directory is reported as a mistake, and not taken for a full node.
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            _ => Ok(Some(Seed::read(&path)?)),
        }
    }

    /// The home's directory, as an absolute path.
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
        self.root.join(GENESIS)
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

    /// `snapshots/`: the state at a few heights, for newcomers. It may be deleted while the node
    /// does not run.
    #[must_use]
    pub fn snapshots_path(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// `backfill/`: chunks of older segments that are being fetched to be kept.
    #[must_use]
    pub fn backfill_path(&self) -> PathBuf {
        self.root.join("backfill")
    }

    /// `files/`: files that are served to others and fetched from them.
    #[must_use]
    pub fn files_path(&self) -> PathBuf {
        self.root.join("files")
    }

    /// `audit/`: how far the blocks before the snapshot were executed.
    #[must_use]
    pub fn audit_path(&self) -> PathBuf {
        self.root.join("audit")
    }

    /// `audit-failed`: why the audit of this home failed.
    #[must_use]
    pub fn audit_failed_path(&self) -> PathBuf {
        self.root.join("audit-failed")
    }

    /// `peers.json`: known peers and bans. It may be deleted while the node does not run.
    #[must_use]
    pub fn peers_path(&self) -> PathBuf {
        self.root.join("peers.json")
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

/// Locks a directory by its `LOCK` file.
///
/// # Errors
/// `HomeError::Locked` if another process holds it; `HomeError::Io`.
pub(crate) fn lock_dir(root: &Path) -> Result<HomeLock, HomeError> {
    let path = root.join(LOCK);
    let io = |error| HomeError::Io { path: path.clone(), error };
    // The file is truncated only once we hold the lock, so the holder's pid stays readable. It is
    // never removed: a process that waits for the lock of a removed file would lock nothing.
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = open_in_place(&mut options, &path).map_err(io)?;
    // Whoever can open the file can hold its lock, and earlier versions made it readable. A file
    // system without modes refuses the change.
    #[cfg(unix)]
    let _ = file.set_permissions(fs::Permissions::from_mode(0o600));
    let mut lock = try_lock(root, &path, file)?;
    lock.file.set_len(0).map_err(io)?;
    lock.file.rewind().map_err(io)?;
    writeln!(lock.file, "{}", std::process::id()).map_err(io)?;
    Ok(lock)
}

fn try_lock(root: &Path, path: &Path, file: File) -> Result<HomeLock, HomeError> {
    match holder::lock(&file) {
        Ok(()) => Ok(HomeLock { file }),
        Err(TryLockError::Error(error)) => Err(HomeError::Io { path: path.to_owned(), error }),
        Err(TryLockError::WouldBlock) => {
            Err(HomeError::Locked { path: root.to_owned(), pid: holder::pid_in(file) })
        }
    }
}

#[cfg(test)]
mod tests;
