//! `unfinished.json`: transfers that were signed, and whose outcome is not proved yet.
//!
//! A transfer is stored before it is submitted, and removed once its outcome is proved and shown to
//! the user. If the wallet is asked for the same payment again, after a crash or with a node that
//! kept silent, it resumes the first transfer instead of paying twice.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use ledger::codec;
use ledger::hash::{ChainId, TxId};
use ledger::signature::PublicKey;
use ledger::state::Account;
use ledger::transaction::{Transaction, Transfer};
use ledger::units::Height;
use serde::{Deserialize, Serialize};

use super::{Home, HomeError, SMALL_FILE_BYTES_MAX, damaged, private, read};

const UNFINISHED: &str = "unfinished.json";
/// Most transfers in the file. A transfer with one output takes at most 1.3 KB, so they fit into
/// `SMALL_FILE_BYTES_MAX`. A transfer expires within minutes. The next `send` from its account
/// removes it if it has expired and its nonce is unused, or if it is proved which transaction used
/// its nonce.
const UNFINISHED_MAX: usize = 256;
/// Most bytes of an encoded account: balance, nonce, activity.
const ACCOUNT_BYTES_MAX: usize = 64;
/// Pause between two attempts to lock an account.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// A transfer that may be final, or may become final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// Its canonical form, to be submitted again.
    pub(crate) transaction: Transaction,
    /// Whether the last node that was asked refused it. That node may have lied, so the transfer
    /// may still become final.
    pub(crate) refused: bool,
    /// The sender's account, as it was proved before the transfer was signed.
    pub(crate) sender: Account,
    /// Height of that proof.
    pub(crate) height: Height,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    transaction: String,
    refused: bool,
    sender: String,
    #[serde(with = "ledger::api::decimal")]
    height: u64,
}

impl Unfinished {
    /// The transfer itself.
    pub(crate) const fn transfer(&self) -> &Transfer {
        self.transaction.body.transfer()
    }

    /// Its transaction id.
    pub(crate) fn id(&self, chain: ChainId) -> TxId {
        self.transaction.body.id(chain)
    }

    fn entry(&self) -> Entry {
        Entry {
            transaction: hex::encode(codec::encode(&self.transaction)),
            refused: self.refused,
            sender: hex::encode(codec::encode(&self.sender)),
            height: self.height.0,
        }
    }
}

impl Entry {
    fn unfinished(self, path: &Path) -> Result<Unfinished, HomeError> {
        let bytes =
            |text: &str| hex::decode(text).map_err(|error| damaged(path, error.to_string()));
        let transaction = Transaction::decode(&bytes(&self.transaction)?);
        let sender = codec::decode(&bytes(&self.sender)?, ACCOUNT_BYTES_MAX);
        Ok(Unfinished {
            transaction: transaction.map_err(|error| damaged(path, error.to_string()))?,
            refused: self.refused,
            sender: sender.map_err(|error| damaged(path, error.to_string()))?,
            height: Height(self.height),
        })
    }
}

impl Home {
    /// The transfers whose outcome is not proved yet, in the order in which they were signed.
    pub(crate) fn unfinished(&self) -> Result<Vec<Unfinished>, HomeError> {
        let path = self.path(UNFINISHED);
        let Some(bytes) = read(&path, SMALL_FILE_BYTES_MAX)? else { return Ok(Vec::new()) };
        let entries: Vec<Entry> =
            serde_json::from_slice(&bytes).map_err(|error| damaged(&path, error.to_string()))?;
        entries.into_iter().map(|entry| entry.unfinished(&path)).collect()
    }

    /// Stores a transfer, or updates the stored one. It is durable when this returns.
    pub(crate) fn remember(&self, new: &Unfinished) -> Result<(), HomeError> {
        let _lock = self.lock()?;
        let mut all = self.unfinished()?;
        match all.iter().position(|old| old.transaction == new.transaction) {
            Some(place) if all[place] == *new => return Ok(()),
            Some(place) => all[place] = new.clone(),
            None if all.len() >= UNFINISHED_MAX => {
                return Err(HomeError::Crowded {
                    path: self.path(UNFINISHED),
                    max: UNFINISHED_MAX,
                });
            }
            None => all.push(new.clone()),
        }
        self.write_unfinished(&all)
    }

    /// Removes a transfer whose outcome is proved, or that never left this machine.
    pub(crate) fn forget(&self, chain: ChainId, id: &TxId) -> Result<(), HomeError> {
        if !self.unfinished()?.iter().any(|old| old.id(chain) == *id) {
            return Ok(());
        }
        let _lock = self.lock()?;
        let mut all = self.unfinished()?;
        all.retain(|old| old.id(chain) != *id);
        self.write_unfinished(&all)
    }

    fn write_unfinished(&self, all: &[Unfinished]) -> Result<(), HomeError> {
        let entries: Vec<Entry> = all.iter().map(Unfinished::entry).collect();
        self.write(UNFINISHED, format!("{:#}\n", serde_json::json!(entries)).as_bytes())
    }

    /// Locks an account for sending, until the result is dropped. From one account and one home,
    /// only one `send` runs at a time. So no two of them choose the same nonce, and each knows the
    /// unfinished transfers of the others.
    ///
    /// # Errors
    /// `Busy` if another process holds the lock for all of `wait`; `Io`.
    pub(crate) fn turn(&self, sender: &PublicKey, wait: Duration) -> Result<File, HomeError> {
        let deadline = Instant::now() + wait;
        let path = self.path(&format!("send-{}.lock", hex::encode(&sender.0[..8])));
        let fail = |error| HomeError::Io { action: "lock", path: path.clone(), error };
        let file = private(OpenOptions::new().write(true).create(true).truncate(false))
            .open(&path)
            .map_err(fail)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(TRY_AGAIN)
                }
                Err(TryLockError::WouldBlock) => return Err(HomeError::Busy { wait }),
                Err(TryLockError::Error(error)) => return Err(fail(error)),
            }
        }
    }
}
