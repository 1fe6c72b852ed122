//! Validators: who votes, with what power, and whose turn it is to propose.

use bincode::de::Decoder;
use bincode::error::DecodeError;
use bincode::{Decode, Encode};

use crate::codec;
use crate::hash::{Domain, Hash};
use crate::signature::{KeyError, PublicKey, Signature, ValidatorKey};
use crate::units::{Height, Round, VotingPower};

/// Most validators of a chain.
pub const VALIDATORS_MAX: usize = 256;
/// Most voting power of all validators together. Three times as much still fits into 64 bits.
pub const VOTING_POWER_MAX: u64 = u64::MAX / 3;
/// Most turns of a schedule of proposers that follows the powers exactly. If the powers need more
/// turns, they are scaled down to about this many. A power that would become 0 still gets one turn,
/// so a schedule may have up to 255 turns more. A longer schedule would follow the powers more
/// closely, and would take more memory.
const SCHEDULE_MAX: u64 = 4_096;

/// One validator of a set.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Validator {
    /// Key that signs proposals and votes. Fees do not go to it, but to `payout`.
    pub key: PublicKey,
    /// Account that receives the fees of the blocks that this validator proposes.
    pub payout: PublicKey,
    /// Weight of the validator's vote, above zero.
    pub power: VotingPower,
}

/// The validators of a height: at least one, sorted by key, without repetition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatorSet {
    validators: Vec<Validator>,
    /// The validators' keys, in the same order.
    keys: Vec<ValidatorKey>,
    total: u64,
    schedule: Vec<u16>,
}

/// Why a list of validators is not a valid set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValidatorSetError {
    /// No validators, or more than [`VALIDATORS_MAX`].
    #[error("{0} validators, expected 1 to {VALIDATORS_MAX}")]
    Count(usize),
    /// Keys that do not strictly increase.
    #[error("validators must be sorted by key, each key once")]
    Order,
    /// A power of zero, or a total above [`VOTING_POWER_MAX`].
    #[error("voting powers must be above zero and at most {VOTING_POWER_MAX} in total")]
    Power,
    /// A key that no validator may have.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl ValidatorSet {
    /// Makes a set from validators in any order.
    ///
    /// # Errors
    /// `ValidatorSetError` for no or too many validators, repeated keys, a power of zero, too much
    /// power in total, or a key that cannot vote.
    pub fn new(mut validators: Vec<Validator>) -> Result<Self, ValidatorSetError> {
        validators.sort_by_key(|validator| validator.key);
        Self::from_sorted(validators)
    }

    fn from_sorted(validators: Vec<Validator>) -> Result<Self, ValidatorSetError> {
        if validators.is_empty() || validators.len() > VALIDATORS_MAX {
            return Err(ValidatorSetError::Count(validators.len()));
        }
        if !validators.is_sorted_by(|a, b| a.key < b.key) {
            return Err(ValidatorSetError::Order);
        }
        let total = validators
            .iter()
            .try_fold(0u64, |total, validator| match validator.power.0 {
                0 => None,
                power => total.checked_add(power).filter(|total| *total <= VOTING_POWER_MAX),
            })
            .ok_or(ValidatorSetError::Power)?;
        let keys = validators
            .iter()
            .map(|validator| ValidatorKey::new(&validator.key))
            .collect::<Result<_, _>>()?;
        let schedule = schedule(&validators, total);
        Ok(Self { validators, keys, total, schedule })
    }

    /// All validators, by key.
    #[must_use]
    pub fn as_slice(&self) -> &[Validator] {
        &self.validators
    }

    /// The validator with this key, and its index in the set.
    #[must_use]
    pub fn find(&self, key: &PublicKey) -> Option<(usize, &Validator)> {
        let place = self.validators.binary_search_by_key(key, |validator| validator.key).ok()?;
        Some((place, self.validators.get(place)?))
    }

    /// Whether the validator at this index signed the message. `false` for an index beyond the set.
    #[must_use]
    pub fn verify(&self, place: usize, message: &[u8], signature: &Signature) -> bool {
        self.keys.get(place).is_some_and(|key| key.verify(message, signature))
    }

    /// Voting power of all validators together.
    #[must_use]
    pub const fn total_power(&self) -> VotingPower {
        VotingPower(self.total)
    }

    /// Smallest voting power strictly above two thirds of the total. Unit: power, not validators.
    ///
    /// Two quorums share more than a third of the power. So they share an honest validator, as long
    /// as at most a third of the power is dishonest (Tendermint, arXiv:1807.04938). The
    /// multiplication comes first: `5 / 3 * 2 + 1` is 3, which is too few. It cannot overflow,
    /// since the total is at most [`VOTING_POWER_MAX`].
    #[must_use]
    #[allow(clippy::arithmetic_side_effects)]
    pub const fn quorum_power(&self) -> VotingPower {
        VotingPower(self.total * 2 / 3 + 1)
    }

    /// The proposer of a round. The schedule is a list of turns that repeats, and the proposer has
    /// turn number height plus round. Each validator has turns in proportion to its power, evenly
    /// spread over the schedule, and at least one.
    #[must_use]
    pub fn proposer(&self, height: Height, round: Round) -> &Validator {
        let turn = height.0.wrapping_add(u64::from(round.0));
        let place = usize::try_from(turn)
            .ok()
            .and_then(|turn| turn.checked_rem(self.schedule.len()))
            .and_then(|slot| self.schedule.get(slot))
            .and_then(|place| self.validators.get(usize::from(*place)));
        place.unwrap_or_else(|| {
            panic!("a validator set has at least one validator, each in the schedule")
        })
    }

    /// Hash of the set, as headers commit to it.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of(Domain::Validators, &[&codec::encode(&self.validators)])
    }
}

/// The order of proposers, by smooth weighted round-robin: the index of a validator for each turn.
/// In each turn every validator gains its weight as credit. The validator with the most credit
/// proposes, and loses the sum of all weights.
///
/// The weights are the powers, divided by their greatest common divisor or scaled down to
/// [`SCHEDULE_MAX`]. After as many turns as the sum of all weights, each validator has proposed as
/// often as its weight says, and the schedule repeats.
// No operation overflows or divides by zero: credits stay between plus and minus the sum of all
// weights, and divisors are at least 1.
#[allow(clippy::arithmetic_side_effects)]
fn schedule(validators: &[Validator], total: u64) -> Vec<u16> {
    let divisor = validators.iter().fold(0, |divisor, validator| gcd(divisor, validator.power.0));
    let scale = |power: u64| -> i128 {
        if total / divisor <= SCHEDULE_MAX {
            i128::from(power / divisor)
        } else {
            (i128::from(power) * i128::from(SCHEDULE_MAX) / i128::from(total)).max(1)
        }
    };
    let weights: Vec<i128> = validators.iter().map(|validator| scale(validator.power.0)).collect();
    let turns: i128 = weights.iter().sum();
    let mut credits = vec![0i128; weights.len()];
    let mut schedule = Vec::new();
    for _ in 0..turns {
        let mut richest = 0;
        for place in 0..weights.len() {
            credits[place] += weights[place];
            if credits[place] > credits[richest] {
                richest = place;
            }
        }
        credits[richest] -= turns;
        // An index is below `VALIDATORS_MAX`, so it fits.
        schedule.push(u16::try_from(richest).unwrap_or(u16::MAX));
    }
    schedule
}

#[allow(clippy::arithmetic_side_effects)] // The divisor is above zero inside the loop.
const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl Encode for ValidatorSet {
    fn encode<E: bincode::enc::Encoder>(
        &self,
        encoder: &mut E,
    ) -> Result<(), bincode::error::EncodeError> {
        self.validators.encode(encoder)
    }
}

impl<Context> Decode<Context> for ValidatorSet {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Self::from_sorted(Vec::decode(decoder)?)
            .map_err(|error| DecodeError::OtherString(error.to_string()))
    }
}

bincode::impl_borrow_decode!(ValidatorSet);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::signature::SigningKey;

    fn set(powers: &[u64]) -> Result<ValidatorSet, ValidatorSetError> {
        let validator = |(seed, power): (usize, &u64)| {
            let key = SigningKey::from_seed(&[u8::try_from(seed).unwrap(); 32]).public();
            Validator { key, payout: key, power: VotingPower(*power) }
        };
        ValidatorSet::new(powers.iter().enumerate().map(validator).collect())
    }

    #[test]
    fn a_quorum_is_strictly_more_than_two_thirds() {
        for (powers, quorum) in [
            (&[1][..], 1),
            (&[1, 1], 2),
            (&[1, 1, 1], 3),
            (&[1; 4], 3),
            (&[5], 4),
            (&[10; 4], 27),
            (&[VOTING_POWER_MAX], 4_099_276_460_824_344_804),
        ] {
            assert_eq!(set(powers).unwrap().quorum_power(), VotingPower(quorum), "{powers:?}");
        }
    }

    #[test]
    fn refuses_what_is_no_set() {
        assert_eq!(set(&[]), Err(ValidatorSetError::Count(0)));
        assert_eq!(set(&[1, 0]), Err(ValidatorSetError::Power));
        assert_eq!(set(&[VOTING_POWER_MAX, 1]), Err(ValidatorSetError::Power));
        let one = set(&[1]).unwrap().validators;
        assert_eq!(ValidatorSet::new([one.clone(), one].concat()), Err(ValidatorSetError::Order));
    }

    #[test]
    fn each_proposes_in_proportion_and_rounds_change_the_proposer() {
        for powers in [&[1, 1, 1, 1][..], &[10; 4], &[3, 1], &[1, 2, 3, 4], &[u64::MAX / 8, 1]] {
            let set = set(powers).unwrap();
            let turns = set.schedule.len() as u64;
            let divisor = powers.iter().fold(0, |a, b| gcd(a, *b));
            for validator in set.as_slice() {
                let count = (0..turns)
                    .filter(|h| set.proposer(Height(*h), Round(0)).key == validator.key)
                    .count() as u64;
                if set.total / divisor <= SCHEDULE_MAX {
                    assert_eq!(count, validator.power.0 / divisor);
                } else {
                    assert!(count >= 1);
                }
            }
        }
        let four = set(&[7; 4]).unwrap();
        let first: std::collections::BTreeSet<_> =
            (0..4).map(|r| four.proposer(Height(9), Round(r)).key).collect();
        assert_eq!(first.len(), 4);
    }
}
