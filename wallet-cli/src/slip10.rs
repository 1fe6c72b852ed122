//! Derives keys from a seed: SLIP-0010 for ed25519, where every step of a path is hardened.
//!
//! A hardened step needs the parent's secret, so a leaked account key reveals no other account.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha512;
use zeroize::{Zeroize, Zeroizing};

/// The coin type of the path: the letters `CRN` as a number, 4,411,982. SLIP-0044 does not register
/// this number for any coin. It must never change, since another number would derive other keys
/// from every phrase ever written down.
pub const COIN: Index = Index(0x43_524e);

const PURPOSE: Index = Index(44);
const CHANGE: Index = Index(0);

/// A step of a path, below 2^31. The bit that marks it as hardened is always set, and not part of
/// the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Index(u32);

/// The number is 2^31 or more, so it is not an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("index {0} is too large, at most 2147483647")]
pub struct IndexTooLarge(pub u32);

impl Index {
    /// The first account.
    pub const ZERO: Self = Self(0);
    const HARDENED: u32 = 1 << 31;

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Index {
    type Error = IndexTooLarge;

    fn try_from(number: u32) -> Result<Self, IndexTooLarge> {
        if number < Self::HARDENED { Ok(Self(number)) } else { Err(IndexTooLarge(number)) }
    }
}

impl From<Index> for u32 {
    fn from(index: Index) -> Self {
        index.0
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The ed25519 secret (32 bytes) of one account of a seed, at `m/44'/4411982'/ACCOUNT'/0'`.
#[must_use]
pub fn account_secret(seed: &[u8; 64], account: Index) -> Zeroizing<[u8; 32]> {
    derive(seed, &[PURPOSE, COIN, account, CHANGE]).secret
}

/// A secret and its chain code; a child derives from both. Both are wiped when dropped.
struct Extended {
    secret: Zeroizing<[u8; 32]>,
    chain_code: Zeroizing<[u8; 32]>,
}

fn derive(seed: &[u8], path: &[Index]) -> Extended {
    let master = Extended::from_hmac(b"ed25519 seed", &[seed]);
    path.iter().fold(master, |parent, index| {
        let number = (index.0 | Index::HARDENED).to_be_bytes();
        Extended::from_hmac(&*parent.chain_code, &[&[0], &*parent.secret, &number])
    })
}

impl Extended {
    fn from_hmac(key: &[u8], parts: &[&[u8]]) -> Self {
        let Ok(mut mac) = Hmac::<Sha512>::new_from_slice(key) else {
            panic!("HMAC takes a key of any length")
        };
        for part in parts {
            mac.update(part);
        }
        let mut digest = mac.finalize().into_bytes();
        let (left, right) = digest.as_mut_slice().split_at_mut(32);
        let mut extended =
            Self { secret: Zeroizing::new([0; 32]), chain_code: Zeroizing::new([0; 32]) };
        extended.secret.copy_from_slice(left);
        extended.chain_code.copy_from_slice(right);
        left.zeroize();
        right.zeroize();
        extended
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::mnemonic::Mnemonic;

    #[derive(Deserialize)]
    struct Vectors {
        vectors: Vec<Vector>,
    }

    #[derive(Deserialize)]
    struct Vector {
        seed: String,
        path: Vec<Index>,
        chain_code: String,
        private: String,
        public: String,
    }

    #[test]
    fn official_vectors() {
        let Vectors { vectors } =
            serde_json::from_str(include_str!("../tests/vectors/slip10-ed25519.json")).unwrap();
        assert_eq!(vectors.len(), 12);
        for vector in vectors {
            let got = derive(&hex::decode(&vector.seed).unwrap(), &vector.path);
            assert_eq!(hex::encode(*got.secret), vector.private, "{:?}", vector.path);
            assert_eq!(hex::encode(*got.chain_code), vector.chain_code);
            assert_eq!(
                hex::encode(SigningKey::from_bytes(&got.secret).verifying_key().to_bytes()),
                vector.public
            );
        }
    }

    /// From the phrase to an account's secret. The expected bytes were made by another
    /// implementation, with Python's hashlib.
    #[test]
    fn the_path_of_an_account_is_frozen() {
        let seed = Mnemonic::from_entropy(&[0; 32]).seed("");
        for (account, expected) in [
            (0, "6662642da489f4835f09f419a3801cb0bfeaa27db99f8882135b96a716eaf3ee"),
            (1, "336cac5eb3878221a547c803225778252ceb874efef5c67d1c3de4d08b558b76"),
        ] {
            assert_eq!(
                hex::encode(*account_secret(&seed, Index::try_from(account).unwrap())),
                expected
            );
        }
    }

    #[test]
    fn an_index_ends_below_two_to_the_31() {
        assert_eq!(Index::try_from(0x7fff_ffff).map(Index::get), Ok(0x7fff_ffff));
        assert_eq!(Index::try_from(0x8000_0000), Err(IndexTooLarge(0x8000_0000)));
        assert!(serde_json::from_str::<Index>("2147483648").is_err());
        assert_eq!(COIN.get().to_be_bytes(), *b"\0CRN");
    }
}
