//! Evidence: proofs that a validator signed two different messages of one kind.

use crate::live::{Effect, Machine, Notice};
use crate::message::Evidence;

/// Most proofs of double signing kept per validator in a run. One is enough; more could fill the
/// store.
const EVIDENCE_PER_VALIDATOR: u32 = 4;

impl Machine {
    pub(crate) fn on_evidence(&mut self, evidence: Vec<Evidence>) {
        let offender = |evidence: &Evidence| match evidence {
            Evidence::Votes(vote, _) => Some(vote.vote.validator),
            Evidence::Proposals(proposal, _) => Some(proposal.proposal.proposer),
            Evidence::Fork(..) => None,
        };
        let evidence: Vec<_> = evidence
            .into_iter()
            .filter_map(|evidence| Some((offender(&evidence)?, evidence)))
            .collect();
        let mut offenders: Vec<_> = evidence.iter().map(|(validator, _)| *validator).collect();
        offenders.sort();
        offenders.dedup();
        self.equivocations = self.equivocations.saturating_add(offenders.len() as u64);
        for (validator, evidence) in evidence {
            let kept = self.evidence.entry(validator).or_default();
            if *kept < EVIDENCE_PER_VALIDATOR {
                *kept = kept.saturating_add(1);
                self.turn.push(Effect::Evidence(evidence));
            }
        }
        self.turn.notice(Notice::Equivocation(offenders));
    }
}
