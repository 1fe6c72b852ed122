//! Votes, and certificates: the proof that validators with more than two thirds of the voting power
//! made a block final.

use bincode::{Decode, Encode};

use crate::codec;
use crate::hash::{BlockHash, ChainId, Domain, Hash};
use crate::signature::{self, PublicKey, Signature};
use crate::units::{Height, Round};
use crate::validators::{VALIDATORS_MAX, ValidatorSet};

/// Most bytes of a certificate.
pub const CERTIFICATE_BYTES_MAX: usize = VALIDATORS_MAX * 64 + VALIDATORS_MAX / 8 + 128;

/// The two kinds of votes in a round (Tendermint, arXiv:1807.04938). The variants say what a vote
/// for a block states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum VoteKind {
    /// "This proposal is valid."
    Prevote,
    /// "A quorum prevoted for this proposal." Precommits of a quorum make its block final.
    Precommit,
}

/// A validator's vote.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Vote {
    /// Prevote or precommit.
    pub kind: VoteKind,
    /// Height voted at.
    pub height: Height,
    /// Round voted in.
    pub round: Round,
    /// The block; `None` (nil) is a vote for no block in this round.
    pub block: Option<BlockHash>,
    /// Key of the voter.
    pub validator: PublicKey,
}

impl Vote {
    /// The bytes that the validator signs: chain, kind, height, round, block. They need not hold
    /// the validator's key, because the signature is verified with this key.
    #[must_use]
    pub fn message(&self, chain: ChainId) -> Vec<u8> {
        vote_message(chain, self.kind, self.height, self.round, self.block)
    }
}

fn vote_message(
    chain: ChainId,
    kind: VoteKind,
    height: Height,
    round: Round,
    block: Option<BlockHash>,
) -> Vec<u8> {
    signature::message(Domain::SignVote, chain, &[&codec::encode(&(kind, height, round, block))])
}

/// Precommits for one block by more than two thirds of the voting power.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Certificate {
    /// Height of the block.
    pub height: Height,
    /// Round in which the block was decided.
    pub round: Round,
    /// Hash of the block.
    pub block: BlockHash,
    /// One bit per validator in set order, low bit first; unused bits are zero.
    pub signers: Vec<u8>,
    /// One signature per set bit, in the same order.
    pub signatures: Vec<Signature>,
}

/// Why a certificate is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The certificate is for another height or block than expected.
    #[error(
        "certificate for height {got_height}, block {got_block}; expected height {height}, block \
         {block}"
    )]
    Target {
        /// Height in the certificate.
        got_height: Height,
        /// Block in the certificate.
        got_block: BlockHash,
        /// Height expected.
        height: Height,
        /// Block expected.
        block: BlockHash,
    },
    /// Bitmap and signatures do not fit the validator set.
    #[error(
        "bitmap of {bytes} bytes with {bits} signers and {signatures} signatures does not fit \
         {validators} validators"
    )]
    Shape {
        /// Bytes of the bitmap.
        bytes: usize,
        /// Bits set.
        bits: usize,
        /// Signatures given.
        signatures: usize,
        /// Validators in the set.
        validators: usize,
    },
    /// Not more than two thirds of the power signed.
    #[error("voting power {got}, expected at least {quorum}")]
    Power {
        /// Power that signed.
        got: u64,
        /// Power needed.
        quorum: u64,
    },
    /// A signature does not hold.
    #[error("signature of validator {0} does not hold")]
    Signature(PublicKey),
}

impl Certificate {
    /// The certificate in the first block, in the place of a parent's certificate. It has no
    /// signers, height 0, and the chain id as its block.
    #[must_use]
    pub const fn genesis(chain: ChainId) -> Self {
        Self {
            height: Height(0),
            round: Round(0),
            block: BlockHash(chain.0),
            signers: Vec::new(),
            signatures: Vec::new(),
        }
    }

    /// Builds the canonical certificate from precommits in any order. Signatures by keys outside
    /// the set are left out. Of several signatures by one key the last counts. This function
    /// verifies nothing.
    #[must_use]
    pub fn new(
        height: Height,
        round: Round,
        block: BlockHash,
        validators: &ValidatorSet,
        precommits: impl IntoIterator<Item = (PublicKey, Signature)>,
    ) -> Self {
        let mut slots: Vec<Option<Signature>> = vec![None; validators.as_slice().len()];
        for (key, signature) in precommits {
            if let Some(slot) = validators.find(&key).and_then(|(place, _)| slots.get_mut(place)) {
                *slot = Some(signature);
            }
        }
        let mut signers = vec![0u8; slots.len().div_ceil(8)];
        for (place, _) in slots.iter().enumerate().filter(|(_, slot)| slot.is_some()) {
            signers[place / 8] |= 1 << (place % 8);
        }
        Self { height, round, block, signers, signatures: slots.into_iter().flatten().collect() }
    }

    /// Hash of the certificate, as the header of the next block commits to it.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of(Domain::Certificate, &[&codec::encode(self)])
    }

    /// Verifies that this certificate makes the block final: its shape, the power of its signers,
    /// and every signature. One bad signature makes it invalid, so that all nodes agree on which
    /// certificates are valid.
    ///
    /// # Errors
    /// `CertificateError`; the sender is at fault.
    pub fn verify(
        &self,
        chain: ChainId,
        validators: &ValidatorSet,
        height: Height,
        block: BlockHash,
    ) -> Result<(), CertificateError> {
        if self.height != height || self.block != block {
            return Err(CertificateError::Target {
                got_height: self.height,
                got_block: self.block,
                height,
                block,
            });
        }
        let signers = self.signer_places(validators)?;
        let signed = signers.iter().filter_map(|place| validators.as_slice().get(*place));
        let power =
            signed.clone().fold(0u64, |sum, validator| sum.saturating_add(validator.power.0));
        let quorum = validators.quorum_power().0;
        if power < quorum {
            return Err(CertificateError::Power { got: power, quorum });
        }
        let message = vote_message(chain, VoteKind::Precommit, height, self.round, Some(block));
        for ((place, validator), signature) in signers.iter().zip(signed).zip(&self.signatures) {
            if !validators.verify(*place, &message, signature) {
                return Err(CertificateError::Signature(validator.key));
            }
        }
        Ok(())
    }

    /// Indices of the signers in the set. Fails if the bitmap or the number of signatures does not
    /// fit the set.
    fn signer_places(&self, validators: &ValidatorSet) -> Result<Vec<usize>, CertificateError> {
        let count = validators.as_slice().len();
        let is_set = |place: &usize| {
            self.signers.get(place / 8).is_some_and(|byte| byte >> (place % 8) & 1 == 1)
        };
        let places: Vec<usize> = (0..count).filter(is_set).collect();
        let bits = self
            .signers
            .iter()
            .fold(0usize, |sum, byte| sum.saturating_add(byte.count_ones() as usize));
        if self.signers.len() != count.div_ceil(8)
            || bits != places.len()
            || bits != self.signatures.len()
        {
            return Err(CertificateError::Shape {
                bytes: self.signers.len(),
                bits,
                signatures: self.signatures.len(),
                validators: count,
            });
        }
        Ok(places)
    }

    /// The keys of the signers, in set order; empty if the certificate does not fit the set.
    #[must_use]
    pub fn signer_keys(&self, validators: &ValidatorSet) -> Vec<PublicKey> {
        let places = self.signer_places(validators).unwrap_or_default();
        places
            .iter()
            .filter_map(|place| validators.as_slice().get(*place))
            .map(|validator| validator.key)
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::signature::SigningKey;
    use crate::units::VotingPower;
    use crate::validators::Validator;

    const CHAIN: ChainId = ChainId(Hash([9; 32]));
    const BLOCK: BlockHash = BlockHash(Hash([4; 32]));

    fn fixture(signers: &[u8]) -> (ValidatorSet, Certificate) {
        let keys: Vec<SigningKey> = (0..4).map(|seed| SigningKey::from_seed(&[seed; 32])).collect();
        let validator = |key: &SigningKey| Validator {
            key: key.public(),
            payout: key.public(),
            power: VotingPower(10),
        };
        let set = ValidatorSet::new(keys.iter().map(validator).collect()).unwrap();
        let message = vote_message(CHAIN, VoteKind::Precommit, Height(5), Round(1), Some(BLOCK));
        let votes = signers.iter().map(|i| {
            let key = &keys[usize::from(*i)];
            (key.public(), key.sign(&message))
        });
        let certificate = Certificate::new(Height(5), Round(1), BLOCK, &set, votes);
        (set, certificate)
    }

    #[test]
    fn three_of_four_prove_and_two_do_not() {
        for (signers, valid) in
            [(&[0, 1, 2, 3][..], true), (&[3, 1, 0], true), (&[0, 1], false), (&[], false)]
        {
            let (set, certificate) = fixture(signers);
            assert_eq!(
                certificate.verify(CHAIN, &set, Height(5), BLOCK).is_ok(),
                valid,
                "{signers:?}"
            );
        }
    }

    #[test]
    fn every_tampering_is_named() {
        let (set, good) = fixture(&[0, 1, 2]);
        let verify = |certificate: &Certificate| certificate.verify(CHAIN, &set, Height(5), BLOCK);
        assert_eq!(verify(&good), Ok(()));
        let with = |change: &dyn Fn(&mut Certificate)| {
            let mut certificate = good.clone();
            change(&mut certificate);
            verify(&certificate)
        };
        assert!(matches!(with(&|c| c.height = Height(6)), Err(CertificateError::Target { .. })));
        assert!(matches!(with(&|c| c.signers.push(0)), Err(CertificateError::Shape { .. })));
        assert!(matches!(with(&|c| c.signers[0] |= 0x80), Err(CertificateError::Shape { .. })));
        assert!(matches!(with(&|c| c.signers[0] = 0x0f), Err(CertificateError::Shape { .. })));
        assert!(matches!(
            with(&|c| c.signatures[1].0[0] ^= 1),
            Err(CertificateError::Signature(_))
        ));
        assert!(matches!(with(&|c| c.round = Round(0)), Err(CertificateError::Signature(_))));
        assert!(matches!(
            good.verify(ChainId(Hash([8; 32])), &set, Height(5), BLOCK),
            Err(CertificateError::Signature(_))
        ));
    }
}
