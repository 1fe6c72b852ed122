//! Errors of the keystore.

use std::io;
use std::path::PathBuf;

use super::{KdfError, KeyName};

/// Why a keystore could not be made, opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// `create` found a keystore.
    #[error("{} exists; a keystore is never overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// `open` found no keystore.
    #[error("no keystore at {}", path.display())]
    NoKeystore {
        /// The file looked for.
        path: PathBuf,
    },
    /// `create` was given a directory that is not empty and is open to others.
    #[error(
        "{} is open to others (mode {mode:o}); allow only yourself with `chmod 700`",
        path.display()
    )]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
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
    /// The file is cut off, altered or not a keystore.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// The file has another format than the one this program reads.
    #[error("{} has format {got}, this program reads {expected}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        got: u32,
        /// The format that this program reads.
        expected: u32,
    },
    /// The password does not open the phrase.
    #[error("wrong password")]
    BadPassword,
    /// The password is right, but another part of the file was not sealed with it.
    #[error(
        "{} was changed without its password: do not trust its names and public keys",
        path.display()
    )]
    Tampered {
        /// The file.
        path: PathBuf,
    },
    /// `create` was given an empty password.
    #[error("the password is empty")]
    EmptyPassword,
    /// A parameter of Argon2id is outside its bounds.
    #[error(transparent)]
    KdfParams(#[from] KdfError),
    /// Argon2id failed, for example for lack of memory.
    #[error("Argon2id: {0}")]
    Kdf(String),
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system: {0}")]
    NoRandomness(String),
    /// The name belongs to another key.
    #[error("there is already a key named {0}")]
    NameTaken(KeyName),
    /// The keystore has this key already, under this name.
    #[error("this key is already there, named {0}")]
    KeyExists(KeyName),
    /// No key has this name.
    #[error("there is no key of that name")]
    NoSuchKey,
    /// The keystore has no room for another key.
    #[error("a keystore holds at most {max} keys")]
    Full {
        /// Most keys of a keystore.
        max: usize,
    },
}
