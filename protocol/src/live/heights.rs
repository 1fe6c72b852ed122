//! The machine's side of consensus: when a height begins, and how its outputs are performed.

use std::sync::Arc;
use std::time::Duration;

use ledger::units::{Height, Round};

use super::proposals::OWN;
use super::validator::log::Logged;
use super::{Effect, Machine, Notice, Phase};
use crate::ids::PeerId;
use crate::live::consensus::{Output, Start};
use crate::message::{ConsensusMessage, Evidence, LogEntry};
use crate::planted::{self, Fault};

/// Most proofs of double signing kept per validator in a run. One is enough; more could fill the
/// store.
const EVIDENCE_PER_VALIDATOR: u32 = 4;

impl Machine {
    /// When the next height begins: after the minimum interval if a transaction that could go in
    /// waits, else after the interval of empty blocks.
    pub(super) fn start_at(&self) -> Duration {
        let Some(started_at) = self.started_at else { return self.first_start };
        let limits = self.chain.chain().limits();
        let interval = match self.mempool.has_candidate() {
            true => limits.block_interval_ms,
            false => limits.empty_block_interval_ms,
        };
        started_at.saturating_add(Duration::from_millis(interval))
    }

    fn height_is_due(&self) -> bool {
        self.now.elapsed >= self.start_at()
    }

    pub(super) fn consensus_signs(&self) -> bool {
        self.consensus.is_signing()
    }

    pub(super) fn begin_height(&mut self) {
        let height = self.chain.tip().height.next();
        let sign = self.signing.may_sign(&self.chain, self.now);
        self.phase = Phase::Deciding;
        self.started_at = Some(self.now.elapsed);
        self.proposals.on_height(self.now.elapsed);
        self.told.clear();
        let log = match self.log_height == Some(height) {
            true if sign => std::mem::take(&mut self.replay),
            true => self.replay.clone(),
            false => Vec::new(),
        };
        if sign && self.log_height != Some(height) {
            self.log_height = Some(height);
            self.logged = Logged::default();
            self.effects.push(Effect::CutLog(height));
        }
        if sign {
            self.signing.on_begun(height);
        }
        // Blocks that were judged before this node began to sign the height are not in the log yet.
        let judged: Vec<_> = self.bodies.valid().filter(|_| sign).cloned().collect();
        self.restore_bodies(&log);
        if sign {
            self.logged.on_replay(&log);
        }
        let validators = Arc::clone(self.chain.chain().validators(height));
        let start =
            Start { height, validators: &validators, sign, log: &log, now: self.now.elapsed };
        // If the height is begun again, as a signer, consensus forgets its proposals: they are
        // given again below.
        let proposed = self.proposals.all();
        let outputs = self.consensus.start(&start);
        judged.iter().for_each(|valid| self.log_body(valid));
        self.perform(outputs);
        for signed in proposed {
            if self.phase == Phase::Deciding {
                self.take_in(OWN, ConsensusMessage::Proposal(signed, None));
            }
        }
        self.report_signing();
    }

    pub(super) fn report_signing(&mut self) {
        if let Some(report) = self.signing.report(&self.chain, self.now) {
            self.effects.push(Effect::Notice(match report {
                Some(reason) => Notice::NotSigning(reason),
                None => Notice::Signing(self.chain.tip().height.next()),
            }));
        }
    }

    /// Restores blocks that were found valid before a restart, since the log has votes for them.
    /// Blocks of rounds further back are dropped once the log is replayed.
    fn restore_bodies(&mut self, log: &[LogEntry]) {
        for entry in log {
            match entry {
                LogEntry::Body(block) => {
                    let verified = block.clone().verify(self.chain.chain().id());
                    if let Ok(Ok(valid)) = verified.map(|block| self.chain.validate(block)) {
                        self.bodies.insert(valid);
                    }
                }
                LogEntry::Proposal(signed) => {
                    self.bodies.on_proposed(signed.proposal.block, signed.proposal.round)
                }
                LogEntry::Known { round, block, .. } => self.bodies.on_proposed(*block, *round),
                LogEntry::Vote(_) | LogEntry::Polka(_) | LogEntry::Timeout(..) => {}
            }
        }
    }

    /// Performs the outputs of consensus, and further outputs that follow from them.
    pub(super) fn perform(&mut self, outputs: Vec<Output>) {
        let mut queue: std::collections::VecDeque<Output> = outputs.into();
        while let Some(output) = queue.pop_front() {
            match output {
                Output::Log(entry) => self.effects.push(Effect::Log(entry)),
                Output::Sync => self.effects.push(Effect::SyncLog),
                Output::Gossip(message) => self.gossip_consensus(message),
                Output::BuildBlock(round) => queue.extend(self.on_turn(round)),
                Output::RoundStarted(round) => {
                    self.proposals.on_round();
                    self.attendance.on_round(round, self.now.elapsed);
                    if round > Round(0) {
                        self.extra_rounds = self.extra_rounds.saturating_add(1);
                        self.effects
                            .push(Effect::Notice(Notice::Round(self.consensus.height(), round)));
                    }
                }
                Output::Decided(certificate) => self.on_decided(certificate),
                Output::Evidence(evidence) => self.on_evidence(evidence),
                Output::Failed(reason) => return self.halt(format!("consensus failed: {reason}")),
            }
        }
    }

    pub(super) fn on_evidence(&mut self, evidence: Vec<Evidence>) {
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
                self.effects.push(Effect::Evidence(evidence));
            }
        }
        self.effects.push(Effect::Notice(Notice::Equivocation(offenders)));
    }

    /// Takes in a verified message of a height that is near, or keeps it until its height begins.
    pub(super) fn on_consensus(&mut self, from: PeerId, message: ConsensusMessage) {
        let (height, next) = (message.height(), self.chain.tip().height.next());
        if height == next {
            if let ConsensusMessage::Vote(signed) = &message {
                self.attendance.on_vote(signed.vote.validator, self.now.elapsed);
            }
            if self.phase == Phase::Deciding {
                return self.take_in(from, message);
            }
        }
        let is_forgotten = planted::is(Fault::EarlyProposalForgotten) && height > next;
        if is_forgotten && matches!(message, ConsensusMessage::Proposal(..)) {
            return;
        }
        self.ahead.keep(from, message);
    }

    /// Whether the height after the tip begins: its time has come, or an honest validator has begun
    /// it.
    pub(super) fn height_begins(&mut self) -> bool {
        let next = self.chain.tip().height.next();
        self.height_is_due() || self.ahead.is_begun(next, self.chain.chain().validators(next))
    }

    /// Takes in messages that came before the height began.
    pub(super) fn take_in_early(&mut self) {
        for (from, message) in self.ahead.take(self.chain.tip().height.next()) {
            if self.phase == Phase::Deciding {
                self.take_in(from, message);
            }
        }
    }

    /// Takes in a message of the height being decided.
    fn take_in(&mut self, from: PeerId, message: ConsensusMessage) {
        match message {
            ConsensusMessage::Proposal(signed, list) => self.on_proposal(from, &signed, list),
            message => {
                let outputs = self.consensus.on_message(&message, self.now.elapsed);
                self.perform(outputs);
            }
        }
    }

    /// Whether messages of a height can be verified and used soon: the two heights after the tip,
    /// and the two after the highest proved height.
    pub(super) fn is_near(&self, height: Height) -> bool {
        is_near(self.chain.tip().height, self.catchup.known(), height)
    }

    /// Forgets messages of heights that are no longer near.
    pub(super) fn forget_heights(&mut self) {
        let (tip, best) = (self.chain.tip().height, self.catchup.known());
        self.ahead.keep_heights(|height| is_near(tip, best, height));
        self.heard.keep_heights(|height| is_near(tip, best, height));
    }
}

fn is_near(tip: Height, best: Height, height: Height) -> bool {
    [tip, best].iter().any(|of| *of < height && height <= of.next().next()) && height > tip
}
