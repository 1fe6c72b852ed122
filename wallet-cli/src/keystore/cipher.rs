//! From a password to sealed secrets: Argon2id gives one key, XChaCha20-Poly1305 seals each secret
//! under it.

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::hexadecimal::Hex;
use super::{KdfParams, KeystoreError, Password};

/// A secret sealed under the key of the store, with its nonce, which is random and used once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sealed {
    nonce: Hex<[u8; 24]>,
    /// The encrypted secret, then a tag of 16 bytes that authenticates it and its associated data.
    ciphertext: Hex<Vec<u8>>,
}

/// The key of one store, derived from its password.
pub(super) struct StoreKey(XChaCha20Poly1305);

impl StoreKey {
    /// Runs Argon2id once, which is slow by design.
    pub(super) fn derive(
        password: &Password,
        params: KdfParams,
        salt: &[u8; 16],
    ) -> Result<Self, KeystoreError> {
        params.check()?;
        let mut key = Zeroizing::new([0; 32]);
        Params::new(params.memory_kib, params.passes, params.lanes, Some(key.len()))
            .and_then(|params| {
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                argon2.hash_password_into(password.as_bytes(), salt, &mut *key)
            })
            .map_err(|error| KeystoreError::Kdf(error.to_string()))?;
        Ok(Self(XChaCha20Poly1305::new((&*key).into())))
    }

    /// Seals a secret together with the associated `data`, which stays in clear but cannot be
    /// changed unnoticed.
    pub(super) fn seal(&self, secret: &[u8], data: &[u8]) -> Result<Sealed, KeystoreError> {
        let nonce: [u8; 24] = random()?;
        match self.0.encrypt(&XNonce::from(nonce), Payload { msg: secret, aad: data }) {
            Ok(ciphertext) => Ok(Sealed { nonce: Hex(nonce), ciphertext: Hex(ciphertext) }),
            Err(_) => panic!("the cipher refuses only texts of 256 GiB and more"),
        }
    }

    /// The secret; `None` if key, data or sealed bytes are not those of `seal`.
    pub(super) fn open(&self, sealed: &Sealed, data: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let payload = Payload { msg: &sealed.ciphertext.0, aad: data };
        self.0.decrypt(&XNonce::from(sealed.nonce.0), payload).ok().map(Zeroizing::new)
    }
}

/// Random bytes from the operating system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], KeystoreError> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(KeystoreError::NoRandomness(error.to_string())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const CHEAP: KdfParams = KdfParams { memory_kib: 8, passes: 1, lanes: 1 };

    #[test]
    fn opens_only_with_the_same_password_salt_parameters_and_data() {
        let key = |text: &str, params, salt| {
            StoreKey::derive(&Password::new(text.into()), params, &[salt; 16]).unwrap()
        };
        let sealed = key("secret", CHEAP, 1).seal(&[7; 32], b"data").unwrap();
        let opens = |key: StoreKey, data: &[u8]| key.open(&sealed, data).is_some();
        assert_eq!(*key("secret", CHEAP, 1).open(&sealed, b"data").unwrap(), [7; 32]);
        assert!(!opens(key("Secret", CHEAP, 1), b"data"));
        assert!(!opens(key("secret", CHEAP, 2), b"data"));
        assert!(!opens(key("secret", KdfParams { passes: 2, ..CHEAP }, 1), b"data"));
        assert!(!opens(key("secret", CHEAP, 1), b"Data"));
        for i in 0..sealed.ciphertext.0.len() {
            let mut changed = sealed.clone();
            changed.ciphertext.0[i] ^= 1;
            assert!(key("secret", CHEAP, 1).open(&changed, b"data").is_none(), "byte {i}");
        }
    }

    #[test]
    fn one_password_in_two_unicode_spellings() {
        let key =
            |text: &str| StoreKey::derive(&Password::new(text.into()), CHEAP, &[0; 16]).unwrap();
        let sealed = key("caf\u{e9}").seal(b"", b"").unwrap();
        assert!(key("cafe\u{301}").open(&sealed, b"").is_some());
        assert!(key("cafe").open(&sealed, b"").is_none());
    }

    #[test]
    fn two_seals_never_share_a_nonce() {
        let key = StoreKey::derive(&Password::new("p".into()), CHEAP, &[0; 16]).unwrap();
        assert_ne!(key.seal(b"s", b"").unwrap().nonce.0, key.seal(b"s", b"").unwrap().nonce.0);
    }
}
