//! Evidence: proofs that a validator signed two different messages of one kind.

use std::collections::BTreeMap;

use ledger::signature::PublicKey;

use crate::live::{Effect, Machine, Notice};
use crate::message::Evidence;

/// Most proofs of double signing kept per validator while the process runs. One is enough, and too
/// many could fill the store.
const EVIDENCE_PER_VALIDATOR: u32 = 4;

/// Validators that signed twice.
#[derive(Debug, Default)]
pub(crate) struct Offenders {
    /// Number of validators in all reports since start. A validator counts once in each report.
    equivocations: u64,
    /// Number of proofs kept, by validator.
    kept: BTreeMap<PublicKey, u32>,
}

impl Offenders {
    pub(crate) const fn equivocations(&self) -> u64 {
        self.equivocations
    }

    /// Whether to keep one more proof against a validator. If so, the proof is counted.
    fn keeps(&mut self, validator: PublicKey) -> bool {
        let kept = self.kept.entry(validator).or_default();
        let has_room = *kept < EVIDENCE_PER_VALIDATOR;
        *kept = kept.saturating_add(u32::from(has_room));
        has_room
    }
}

impl Machine {
    pub(crate) fn on_evidence(&mut self, evidence: Vec<Evidence>) {
        let evidence: Vec<_> = evidence
            .into_iter()
            .filter_map(|evidence| Some((evidence.about()?, evidence)))
            .collect();
        let mut offenders: Vec<_> = evidence.iter().map(|(validator, _)| *validator).collect();
        offenders.sort();
        offenders.dedup();
        let count = &mut self.votes.offenders.equivocations;
        *count = count.saturating_add(offenders.len() as u64);
        for (validator, evidence) in evidence {
            if self.votes.offenders.keeps(validator) {
                self.turn.push(Effect::Evidence(evidence));
            }
        }
        self.turn.notice(Notice::Equivocation(offenders));
    }
}
