//! The timeouts of consensus, and the check of certificates of votes.

use std::time::Duration;

use ledger::validators::ValidatorSet;
use malachite_types as core;

use super::context::{Address, Context, Timeout, TimeoutKind};
use crate::message::SignedVote;

/// A timeout of a round: a base, plus a step for each round before, so that a slow network can keep
/// up. At most 20 seconds. The core itself sets the timeout of `FinalizeHeight`.
///
/// A timeout that is too short costs extra rounds, never safety. A proposal of 2 MiB reaches all
/// nodes in far less than a second on a local network and within about a second around the world.
/// Votes are small.
pub(super) fn duration(timeout: Timeout) -> Duration {
    let round = timeout.round.as_u32().unwrap_or(0);
    let (base, step) = match timeout.kind {
        TimeoutKind::Propose => (1_000, 500),
        TimeoutKind::Prevote | TimeoutKind::Precommit => (500, 250),
        TimeoutKind::Rebroadcast => (1_000, 250),
        TimeoutKind::FinalizeHeight(duration) => return duration,
    };
    Duration::from_millis(u64::from(round).saturating_mul(step).saturating_add(base))
        .min(Duration::from_secs(20))
}

type CertificateResult = Result<(), core::CertificateError<Context>>;

/// Checks the votes of a certificate: the voters are validators, each votes once, the signatures
/// hold, and the voting power reaches the threshold.
#[allow(clippy::result_large_err)] // The core's own type.
pub(super) fn check_votes(
    votes: &[SignedVote],
    set: &ValidatorSet,
    threshold: core::ThresholdParam,
    mut verify: impl FnMut(&SignedVote) -> bool,
) -> CertificateResult {
    let mut seen = std::collections::BTreeSet::new();
    let mut signed = 0u64;
    for vote in votes {
        let voter = vote.vote.validator;
        let Some((_, validator)) = set.find(&voter) else {
            return Err(core::CertificateError::UnknownValidator(Address(voter)));
        };
        if !seen.insert(voter) {
            return Err(core::CertificateError::DuplicateVote(Address(voter)));
        }
        if !verify(vote) {
            return Err(core::CertificateError::VerificationError(None));
        }
        signed = signed.saturating_add(validator.power.0);
    }
    let total = set.total_power().0;
    if threshold.is_met(signed, total) {
        return Ok(());
    }
    Err(core::CertificateError::NotEnoughVotingPower {
        signed,
        total,
        expected: threshold.min_expected(total),
    })
}
