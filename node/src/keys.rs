//! The two secrets of a node, each in a small file: its network identity, and the consensus key of
//! a validator.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ledger::signature::{PublicKey, SigningKey};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::config::without_mark;
use crate::files::write_atomic;

/// Why a key file could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The operating system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system answered.
        error: io::Error,
    },
    /// The file is not a key file, or is damaged.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected. Never quotes the file.
        reason: String,
    },
    /// Others may read the secret.
    #[error(
        "{} is open to others (mode {mode:o}); allow only yourself with `chmod 600`",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system: {0}")]
    NoRandomness(getrandom::Error),
}

/// A 32-byte Ed25519 seed (RFC 8032). Wiped from memory when dropped.
#[derive(Clone)]
pub struct Seed(Zeroizing<[u8; 32]>);

/// The content of a key file: two lines of TOML.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    seed: String,
    public: String,
}

impl From<[u8; 32]> for Seed {
    fn from(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl Seed {
    /// A new random seed.
    ///
    /// # Errors
    /// `KeyFileError::NoRandomness`.
    pub fn random() -> Result<Self, KeyFileError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut seed[..]).map_err(KeyFileError::NoRandomness)?;
        Ok(Self(seed))
    }

    /// The signing key.
    #[must_use]
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::from_seed(&self.0)
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.signing_key().public()
    }

    /// The key as the network's identity.
    ///
    /// # Panics
    /// Never: every 32 bytes are an Ed25519 seed.
    #[must_use]
    pub fn identity(&self) -> crate::network::Keypair {
        let identity = crate::network::Keypair::ed25519_from_bytes(*self.0);
        identity.unwrap_or_else(|error| panic!("every 32 bytes are an Ed25519 seed: {error}"))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// `KeyFileError` when the file is missing, readable by others or damaged, or when its public
    /// key is not that of its seed.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let malformed = |reason: &str| KeyFileError::Malformed {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let io = |error| KeyFileError::Io { path: path.to_owned(), error };
        check_mode(path)?;
        let text = Zeroizing::new(fs::read_to_string(path).map_err(io)?);
        // The parser's message quotes the line that is wrong, which may be the secret.
        let document: Document = toml::from_str(without_mark(&text))
            .map_err(|_| malformed("not a key file, expected the lines `seed` and `public`"))?;
        let text = Zeroizing::new(document.seed);
        let mut seed = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.as_bytes(), &mut seed[..])
            .map_err(|_| malformed("seed: expected 64 hexadecimal digits"))?;
        let seed = Self(seed);
        if seed.public().to_string() != document.public {
            return Err(malformed("public: not the public key of this seed; the file is damaged"));
        }
        Ok(seed)
    }

    /// Writes a key file that only its owner may read, with `about` as a comment. An existing file
    /// is kept, and is an error.
    ///
    /// # Errors
    /// `KeyFileError::Io`.
    pub fn write(&self, path: &Path, about: &str) -> Result<(), KeyFileError> {
        let io = |error| KeyFileError::Io { path: path.to_owned(), error };
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
            Ok(_) => {
                return Err(io(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "exists; a key is never overwritten",
                )));
            }
        }
        let text = Zeroizing::new(format!(
            "# {about}\nseed = \"{}\"\npublic = \"{}\"\n",
            Zeroizing::new(hex::encode(&self.0[..])).as_str(),
            self.public()
        ));
        write_atomic(path, text.as_bytes(), 0o600).map_err(io)
    }
}

#[cfg(unix)]
fn check_mode(path: &Path) -> Result<(), KeyFileError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata =
        fs::metadata(path).map_err(|error| KeyFileError::Io { path: path.to_owned(), error })?;
    match metadata.permissions().mode() & 0o777 {
        mode if mode & 0o077 == 0 => Ok(()),
        mode => Err(KeyFileError::Exposed { path: path.to_owned(), mode }),
    }
}

#[cfg(not(unix))]
fn check_mode(_path: &Path) -> Result<(), KeyFileError> {
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_and_are_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let seed = Seed::random().unwrap();
        seed.write(&path, "A key.").unwrap();
        assert_eq!(Seed::read(&path).unwrap().public(), seed.public());
        assert!(seed.write(&path, "A key.").unwrap_err().to_string().contains("never overwritten"));
        // An editor may have added a byte order mark and CRLF line ends.
        let text = fs::read_to_string(&path).unwrap();
        write_atomic(&path, format!("\u{feff}{}", text.replace('\n', "\r\n")).as_bytes(), 0o600)
            .unwrap();
        assert_eq!(Seed::read(&path).unwrap().public(), seed.public());
    }

    #[test]
    fn bad_files_are_named_and_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let secret = "41".repeat(32);
        let other = Seed::random().unwrap().public();
        for (text, expected) in [
            (String::new(), "not a key file"),
            (format!("seed = \"{secret}"), "not a key file"),
            (format!("seed = \"{}\"\npublic = \"\"\n", &secret[1..]), "64 hexadecimal digits"),
            (
                format!("seed = \"{secret}\"\npublic = \"{other}\"\n"),
                "not the public key of this seed",
            ),
            (format!("seed = \"{secret}\"\npublic = \"{other}\"\nx = 1\n"), "not a key file"),
        ] {
            write_atomic(&path, text.as_bytes(), 0o600).unwrap();
            let error = Seed::read(&path).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains(&secret[..20]), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        Seed::random().unwrap().write(&path, "A key.").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Seed::read(&path), Err(KeyFileError::Exposed { mode: 0o640, .. })));
    }
}
