//! The types that the Malachite core is generic over, built from the ledger's types.

use std::sync::Arc;

use ledger::hash::BlockHash;
use ledger::signature::{PublicKey, Signature};
use ledger::{certificate, units, validators};
use malachite_types as core;
pub(super) use malachite_types::{NilOrVal, Round, Timeout, TimeoutKind};

/// Names the types of this module for the core; it has no data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Height(pub(super) units::Height);

impl std::fmt::Display for Height {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl core::Height for Height {
    const ZERO: Self = Self(units::Height(0));
    const INITIAL: Self = Self(units::Height(1));

    fn increment_by(&self, n: u64) -> Self {
        Self(units::Height(self.0.0.saturating_add(n)))
    }

    fn decrement_by(&self, n: u64) -> Option<Self> {
        self.0.checked_sub(n).map(Self)
    }

    fn as_u64(&self) -> u64 {
        self.0.0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address(pub(super) PublicKey);

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl core::Address for Address {}

/// The value that the core decides on: a block, by its hash. The body travels separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Value(pub(super) BlockHash);

impl core::Value for Value {
    type Id = BlockHash;

    fn id(&self) -> BlockHash {
        self.0
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validator {
    address: Address,
    power: u64,
}

impl core::Validator<Context> for Validator {
    fn address(&self) -> &Address {
        &self.address
    }

    fn public_key(&self) -> &PublicKey {
        &self.address.0
    }

    fn voting_power(&self) -> u64 {
        self.power
    }
}

/// The ledger's set, and each member as the core's type. Both are shared, since the core clones the
/// set at every step.
#[derive(Clone, Debug)]
pub(super) struct ValidatorSet(Arc<(Arc<validators::ValidatorSet>, Vec<Validator>)>);

impl ValidatorSet {
    pub(super) fn new(set: &Arc<validators::ValidatorSet>) -> Self {
        let member = |validator: &validators::Validator| Validator {
            address: Address(validator.key),
            power: validator.power.0,
        };
        Self(Arc::new((Arc::clone(set), set.as_slice().iter().map(member).collect())))
    }

    pub(super) fn ledger(&self) -> &validators::ValidatorSet {
        &self.0.0
    }
}

impl PartialEq for ValidatorSet {
    fn eq(&self, other: &Self) -> bool {
        self.0.0 == other.0.0
    }
}

impl Eq for ValidatorSet {}

impl core::ValidatorSet<Context> for ValidatorSet {
    fn count(&self) -> usize {
        self.0.1.len()
    }

    fn total_voting_power(&self) -> u64 {
        self.ledger().total_power().0
    }

    fn get_by_address(&self, address: &Address) -> Option<&Validator> {
        let (place, _) = self.ledger().find(&address.0)?;
        self.0.1.get(place)
    }

    fn get_by_index(&self, index: usize) -> Option<&Validator> {
        self.0.1.get(index)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) height: Height,
    pub(super) round: Round,
    pub(super) value: Value,
    pub(super) pol_round: Round,
    pub(super) proposer: Address,
}

impl core::Proposal<Context> for Proposal {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &Value {
        &self.value
    }

    fn take_value(self) -> Value {
        self.value
    }

    fn pol_round(&self) -> Round {
        self.pol_round
    }

    fn validator_address(&self) -> &Address {
        &self.proposer
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vote {
    pub(super) kind: core::VoteType,
    pub(super) height: Height,
    pub(super) round: Round,
    pub(super) value: NilOrVal<BlockHash>,
    pub(super) voter: Address,
}

impl core::Vote<Context> for Vote {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &NilOrVal<BlockHash> {
        &self.value
    }

    fn take_value(self) -> NilOrVal<BlockHash> {
        self.value
    }

    fn vote_type(&self) -> core::VoteType {
        self.kind
    }

    fn validator_address(&self) -> &Address {
        &self.voter
    }

    fn extension(&self) -> Option<&core::SignedExtension<Context>> {
        None
    }

    fn take_extension(&mut self) -> Option<core::SignedExtension<Context>> {
        None
    }

    fn extend(self, _extension: core::SignedExtension<Context>) -> Self {
        self
    }
}

impl Vote {
    /// The vote as the ledger's type, whose bytes are signed.
    pub(super) fn ledger(&self) -> certificate::Vote {
        certificate::Vote {
            kind: match self.kind {
                core::VoteType::Prevote => certificate::VoteKind::Prevote,
                core::VoteType::Precommit => certificate::VoteKind::Precommit,
            },
            height: self.height.0,
            round: round_number(self.round),
            block: match self.value {
                NilOrVal::Nil => None,
                NilOrVal::Val(block) => Some(block),
            },
            validator: self.voter.0,
        }
    }
}

impl From<certificate::Vote> for Vote {
    fn from(vote: certificate::Vote) -> Self {
        Self {
            kind: match vote.kind {
                certificate::VoteKind::Prevote => core::VoteType::Prevote,
                certificate::VoteKind::Precommit => core::VoteType::Precommit,
            },
            height: Height(vote.height),
            round: Round::new(vote.round.0),
            value: vote.block.map_or(NilOrVal::Nil, NilOrVal::Val),
            voter: Address(vote.validator),
        }
    }
}

/// The number of a round. Rounds of messages always have one. Only a height that has not started
/// has the round `Nil`, which becomes 0.
pub(super) fn round_number(round: Round) -> units::Round {
    units::Round(round.as_u32().unwrap_or(0))
}

/// Stands in for vote extensions, proposal parts and private keys, which the core never uses here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unused;

impl core::ProposalPart<Context> for Unused {
    fn is_first(&self) -> bool {
        true
    }

    fn is_last(&self) -> bool {
        true
    }
}

impl core::Extension for Unused {
    fn size_bytes(&self) -> usize {
        0
    }
}

/// The ledger's keys and signatures. The core never signs or verifies by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ed25519;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SignatureBytes(pub(super) [u8; 64]);

impl From<Signature> for SignatureBytes {
    fn from(signature: Signature) -> Self {
        Self(signature.0)
    }
}

impl From<SignatureBytes> for Signature {
    fn from(signature: SignatureBytes) -> Self {
        Self(signature.0)
    }
}

impl core::SigningScheme for Ed25519 {
    type DecodingError = std::array::TryFromSliceError;
    type Signature = SignatureBytes;
    type PublicKey = PublicKey;
    type PrivateKey = Unused;

    fn decode_signature(bytes: &[u8]) -> Result<SignatureBytes, Self::DecodingError> {
        bytes.try_into().map(SignatureBytes)
    }

    fn encode_signature(signature: &SignatureBytes) -> Vec<u8> {
        signature.0.to_vec()
    }

    fn decode_public_key(bytes: &[u8]) -> Result<PublicKey, Self::DecodingError> {
        bytes.try_into().map(PublicKey)
    }

    fn encode_public_key(key: &PublicKey) -> Vec<u8> {
        key.0.to_vec()
    }
}

impl core::Context for Context {
    type Address = Address;
    type Height = Height;
    type ProposalPart = Unused;
    type Proposal = Proposal;
    type Validator = Validator;
    type ValidatorSet = ValidatorSet;
    type Timeouts = core::LinearTimeouts;
    type Value = Value;
    type Vote = Vote;
    type Extension = Unused;
    type SigningScheme = Ed25519;

    fn select_proposer<'a>(
        &self,
        set: &'a ValidatorSet,
        height: Height,
        round: Round,
    ) -> &'a Validator {
        let proposer = set.ledger().proposer(height.0, round_number(round));
        let member = core::ValidatorSet::get_by_address(set, &Address(proposer.key));
        member.unwrap_or_else(|| panic!("the proposer is a member of its set"))
    }

    fn new_proposal(
        &self,
        height: Height,
        round: Round,
        value: Value,
        pol_round: Round,
        proposer: Address,
    ) -> Proposal {
        Proposal { height, round, value, pol_round, proposer }
    }

    fn new_prevote(
        &self,
        height: Height,
        round: Round,
        value: NilOrVal<BlockHash>,
        voter: Address,
    ) -> Vote {
        Vote { kind: core::VoteType::Prevote, height, round, value, voter }
    }

    fn new_precommit(
        &self,
        height: Height,
        round: Round,
        value: NilOrVal<BlockHash>,
        voter: Address,
    ) -> Vote {
        Vote { kind: core::VoteType::Precommit, height, round, value, voter }
    }
}
