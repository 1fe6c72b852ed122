//! Keys and signatures: Ed25519 under two rules of verification, one for transfers and one for
//! validators.
//!
//! RFC 8032 leaves open which malformed points are accepted. Libraries differ, and some differ even
//! between a single check and a batch. If two nodes gave different verdicts, the chain would fork.
//! So each of the two rules decides every case.
//!
//! *Transfers* ([`verify`], [`verify_batch`]) follow ZIP-215 (<https://zips.z.cash/zip-0215>). Its
//! equation is multiplied by the cofactor, so that a batch and a single check give the same
//! verdict. ZIP-215 also accepts *public keys* of small order or in a non-canonical encoding. This
//! module refuses such keys by their bytes, since anybody can sign for a key of small order.
//!
//! *Votes and proposals* ([`ValidatorKey::verify`], [`verify_strict`]) follow a stricter rule: S
//! and R are canonical, R is not of small order, the key has no torsion component, and the equation
//! holds without the cofactor. Every common Ed25519 library accepts such a signature, so a
//! certificate that the nodes accept is valid for other libraries too. These signatures are
//! verified one by one. They are few, and a batch without the cofactor would accept some torsion
//! components by chance.

use std::fmt;

use bincode::{Decode, Encode};
use ed25519_dalek::{Signer, VerifyingKey};
use ed25519_zebra::{VerificationKey, batch};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use sha2::{Digest, Sha256};

use crate::hash::{ChainId, Domain};

/// An Ed25519 public key. An account is named by the public key of its owner.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..", hex::encode(&self.0[..4]))
    }
}

/// Why a public key is refused for an account or for a validator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The point has order 1, 2, 4 or 8, so anybody can sign for it.
    #[error("public key {0} has small order, anybody can sign for it")]
    SmallOrder(PublicKey),
    /// The y coordinate is not below 2^255 - 19, so the bytes are a second encoding of another key.
    #[error("public key {0} is not canonical")]
    NotCanonical(PublicKey),
    /// No point of the curve has this y coordinate, so there is no secret key for it.
    #[error("public key {0} is not a point of the curve, nobody can sign for it")]
    NoPoint(PublicKey),
    /// The point has a component of small order. Libraries differ on the signatures of such a key,
    /// so no validator may have one.
    #[error("public key {0} has a torsion component, libraries differ on its signatures")]
    Torsion(PublicKey),
}

/// The y coordinates of the eight points of small order, with the sign bit cleared.
const SMALL_ORDER_Y: [[u8; 32]; 5] = [
    little_endian(0),
    little_endian(1),
    // p - 1
    [
        0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0x7f,
    ],
    // the two y coordinates of order 8
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
];

const fn little_endian(low: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = low;
    bytes
}

impl PublicKey {
    /// Refuses keys of small order and non-canonical encodings. It compares bytes and computes
    /// nothing.
    ///
    /// # Errors
    /// `KeyError::SmallOrder` or `KeyError::NotCanonical`.
    pub fn check(&self) -> Result<(), KeyError> {
        let mut y = self.0;
        y[31] &= 0x7f;
        // p = 2^255 - 19: bytes ed ff .. ff 7f.
        if y[31] == 0x7f && y[1..31].iter().all(|byte| *byte == 0xff) && y[0] >= 0xed {
            return Err(KeyError::NotCanonical(*self));
        }
        if SMALL_ORDER_Y.contains(&y) {
            return Err(KeyError::SmallOrder(*self));
        }
        Ok(())
    }

    /// Whether an account may have this key: it passes [`Self::check`] and is a point of the curve.
    /// About half of all 32-byte strings are not points, and money paid to them would be lost. The
    /// check takes some microseconds, so the state transition makes it only for payments that
    /// create an account.
    ///
    /// # Errors
    /// `KeyError`.
    pub fn check_account(&self) -> Result<(), KeyError> {
        self.point().map(drop)
    }

    fn point(&self) -> Result<VerifyingKey, KeyError> {
        self.check()?;
        VerifyingKey::from_bytes(&self.0).map_err(|_| KeyError::NoPoint(*self))
    }
}

/// A public key that may vote and propose. It holds the point of the key, so that the point is not
/// computed again for each signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidatorKey(VerifyingKey);

impl ValidatorKey {
    /// Checks that a validator may have this key: an account may have it, and it has no torsion
    /// component.
    ///
    /// # Errors
    /// `KeyError`.
    pub fn new(key: &PublicKey) -> Result<Self, KeyError> {
        let point = key.point()?;
        if !point.to_edwards().is_torsion_free() {
            return Err(KeyError::Torsion(*key));
        }
        Ok(Self(point))
    }

    /// Whether the signature holds under the rule for votes and proposals.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        is_strict(&self.0, message, signature)
    }
}

/// As [`ValidatorKey::verify`], but computes the point of the key. The caller must know that the
/// key is a validator's, since torsion is not checked.
#[must_use]
pub fn verify_strict(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    key.point().is_ok_and(|point| is_strict(&point, message, signature))
}

/// The only place where signatures of validators are verified. An R with a torsion component needs
/// no check of its own: if the key has no torsion component, the equation does not hold for such an
/// R.
fn is_strict(key: &VerifyingKey, message: &[u8], signature: &Signature) -> bool {
    key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(&signature.0)).is_ok()
}

/// An Ed25519 signature: R and S, 32 bytes each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..", hex::encode(&self.0[..4]))
    }
}

/// A secret key. It is wiped from memory when dropped, and never printed.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?})", self.public())
    }
}

impl SigningKey {
    /// The key that a seed of 32 bytes gives (RFC 8032, section 5.1.5).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs a message built by [`message`].
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

/// The bytes that are signed: the length and text of the domain's tag, the chain id and the parts.
#[must_use]
pub fn message(domain: Domain, chain: ChainId, parts: &[&[u8]]) -> Vec<u8> {
    let tag = domain.tag().as_bytes();
    let mut bytes = Vec::with_capacity(320);
    // Every tag is shorter than 256 bytes.
    #[allow(clippy::cast_possible_truncation)]
    bytes.push(tag.len() as u8);
    bytes.extend_from_slice(tag);
    bytes.extend_from_slice(chain.as_bytes());
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes
}

/// Whether a transfer's signature holds under ZIP-215, with a key that passes [`PublicKey::check`].
#[must_use]
pub fn verify(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    key.check().is_ok()
        && VerificationKey::try_from(key.0).is_ok_and(|key| {
            key.verify(&ed25519_zebra::Signature::from(signature.0), message).is_ok()
        })
}

/// One signature of a batch.
#[derive(Clone, Debug)]
pub struct Item {
    /// Key of the signer.
    pub key: PublicKey,
    /// The signed bytes, as built by [`message`].
    pub message: Vec<u8>,
    /// The signature.
    pub signature: Signature,
}

/// How many signatures were checked together, and how many alone, to reach the verdicts on a batch.
/// A signature counts once for each check that it was part of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// Signatures that were part of a batch equation. Each costs about a third of a signature that
    /// is verified alone.
    pub together: u64,
    /// Signatures that were verified alone.
    pub alone: u64,
}

/// A batch is halved only if it has more items than this. If the equation of a smaller batch does
/// not hold, its items are verified one by one: halving so few would save next to nothing.
const HALVED_MIN: usize = 4;

/// Bound of the search for bad signatures: on average, an item is part of at most this many
/// equations after the first one. To find a single bad signature, two are enough. With many bad
/// signatures, halving without this bound would cost more than verifying each signature alone.
const HALVINGS: usize = 2;

/// Verifies many signatures of transfers, with the same verdicts as [`verify`]. If all of them
/// hold, this costs about a third of verifying each alone. Also returns how many checks were made.
/// If all signatures hold, `together` is the number of items and `alone` is 0.
///
/// If the equation of a batch does not hold, the batch is halved to find the bad signatures. Small
/// batches are verified one by one, and so are the remaining ones once the search has used up its
/// bound on equations. An item whose key [`PublicKey::check`] refuses is part of no equation.
///
/// The random weights of the batch equation are derived from a hash of the whole batch, so no
/// source of entropy is needed. To find a bad signature that passes, an attacker needs about 2^128
/// tries (Bellare, Garay, Rabin 1998).
#[must_use]
pub fn verify_batch(items: &[Item]) -> (Vec<bool>, Checks) {
    let mut verdicts = vec![false; items.len()];
    let candidates: Vec<usize> =
        (0..items.len()).filter(|place| items[*place].key.check().is_ok()).collect();
    let room = candidates.len().saturating_mul(HALVINGS);
    let mut search = Search { items, verdicts: &mut verdicts, checks: Checks::default(), room };
    if search.holds(&candidates) {
        search.accept(&candidates);
    } else {
        search.halve(&candidates);
    }
    let checks = search.checks;
    (verdicts, checks)
}

/// The search for the bad signatures of a batch.
struct Search<'a> {
    items: &'a [Item],
    verdicts: &'a mut [bool],
    checks: Checks,
    /// How many more signatures may be put into equations. A batch that has more items is not
    /// searched further: its items are verified one by one.
    room: usize,
}

impl Search<'_> {
    /// Whether the equation of these items holds.
    fn holds(&mut self, places: &[usize]) -> bool {
        self.checks.together = self.checks.together.saturating_add(places.len() as u64);
        let mut batch = batch::Verifier::new();
        let mut transcript = Sha256::new();
        for item in places.iter().map(|place| &self.items[*place]) {
            let signature = ed25519_zebra::Signature::from(item.signature.0);
            batch.queue((item.key.0.into(), signature, &item.message[..]));
            transcript.update(item.key.0);
            transcript.update(item.signature.0);
            transcript.update(Sha256::digest(&item.message));
        }
        batch.verify(ChaCha20Rng::from_seed(transcript.finalize().into())).is_ok()
    }

    fn accept(&mut self, places: &[usize]) {
        places.iter().for_each(|place| self.verdicts[*place] = true);
    }

    /// Finds the bad signatures among these items. Their common equation is known not to hold.
    fn halve(&mut self, places: &[usize]) {
        if places.len() <= HALVED_MIN || self.room < places.len() {
            return self.one_by_one(places);
        }
        let (left, right) = places.split_at(places.len() / 2);
        self.room = self.room.saturating_sub(left.len());
        if self.holds(left) {
            // A bad signature must be in the right half, so the equation of the right half need not
            // be computed.
            self.accept(left);
            return self.halve(right);
        }
        self.halve(left);
        if self.room < right.len() {
            return self.one_by_one(right);
        }
        self.room = self.room.saturating_sub(right.len());
        match self.holds(right) {
            true => self.accept(right),
            false => self.halve(right),
        }
    }

    fn one_by_one(&mut self, places: &[usize]) {
        self.checks.alone = self.checks.alone.saturating_add(places.len() as u64);
        for place in places {
            let item = &self.items[*place];
            self.verdicts[*place] = verify(&item.key, &item.message, &item.signature);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    /// Makes `count` signed items. The signatures at the indices in `bad` do not hold.
    fn items(count: usize, bad: &[usize]) -> Vec<Item> {
        let key = SigningKey::from_seed(&[7; 32]);
        let item = |place: usize| {
            let message = place.to_le_bytes().to_vec();
            let mut signature = key.sign(&message);
            signature.0[0] ^= u8::from(bad.contains(&place));
            Item { key: key.public(), message, signature }
        };
        (0..count).map(item).collect()
    }

    /// Verifies the batch, asserts that its verdicts are right, and returns the checks that were
    /// made.
    fn checks(count: usize, bad: &[usize]) -> Checks {
        let (verdicts, checks) = verify_batch(&items(count, bad));
        let expected: Vec<bool> = (0..count).map(|place| !bad.contains(&place)).collect();
        assert_eq!(verdicts, expected, "{bad:?}");
        checks
    }

    #[test]
    fn a_bad_signature_is_found_by_halving() {
        assert_eq!(checks(64, &[]), Checks { together: 64, alone: 0 });
        for place in 0..64 {
            let Checks { together, alone } = checks(64, &[place]);
            assert!(
                together <= 3 * 64 && alone <= HALVED_MIN as u64,
                "{together} and {alone} for {place}"
            );
        }
        assert_eq!(
            checks(64, &[63]),
            Checks { together: 64 + 32 + 16 + 8 + 4, alone: 4 },
            "the last one"
        );
    }

    #[test]
    fn many_bad_signatures_cost_no_more_than_a_bound() {
        let every = |step: usize| (0..64).step_by(step).collect::<Vec<_>>();
        for bad in [every(1), every(2), every(3), every(5), every(9), every(17), every(33)] {
            let Checks { together, alone } = checks(64, &bad);
            assert!(
                together <= 3 * 64 && alone <= 64,
                "{together} and {alone} with {} bad ones",
                bad.len()
            );
        }
        assert_eq!(checks(0, &[]), Checks::default());
        assert_eq!(checks(1, &[0]), Checks { together: 1, alone: 1 });
    }

    #[test]
    fn a_key_that_is_refused_by_its_bytes_costs_nothing() {
        let mut items = items(64, &[]);
        items[5].key = PublicKey([0; 32]);
        let (verdicts, checks) = verify_batch(&items);
        assert_eq!(checks, Checks { together: 63, alone: 0 });
        assert!(verdicts.iter().enumerate().all(|(place, holds)| *holds == (place != 5)));
    }
}
