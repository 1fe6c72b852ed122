//! Heights: when the next one begins, and how the outputs of consensus are performed.

use std::sync::Arc;
use std::time::Duration;

use ledger::units::Round;

use super::proposals::OWN;
use super::validator::log::Logged;
use super::{Effect, Machine, Notice, Phase};
use crate::live::consensus::{Output, Start};
use crate::message::ConsensusMessage;

impl Machine {
    /// When the next height begins: after the minimum interval if a transaction that could go in
    /// waits, else after the interval of empty blocks.
    pub(super) fn start_at(&self) -> Duration {
        let Some(started_at) = self.started_at else { return self.first_start };
        let limits = self.chain.state.chain().limits();
        let interval = match self.mempool.has_candidate() {
            true => limits.block_interval_ms,
            false => limits.empty_block_interval_ms,
        };
        started_at.saturating_add(Duration::from_millis(interval))
    }

    fn height_is_due(&self) -> bool {
        self.turn.now.elapsed >= self.start_at()
    }

    pub(super) fn consensus_signs(&self) -> bool {
        self.consensus.is_signing()
    }

    pub(super) fn begin_height(&mut self) {
        let height = self.chain.next_height();
        let sign = self.signing.may_sign(&self.chain.state, self.turn.now);
        self.phase = Phase::Deciding;
        self.started_at = Some(self.turn.now.elapsed);
        self.proposals.on_height(self.turn.now.elapsed);
        self.told.clear();
        let log = match self.log_height == Some(height) {
            true if sign => std::mem::take(&mut self.replay),
            true => self.replay.clone(),
            false => Vec::new(),
        };
        if sign && self.log_height != Some(height) {
            self.log_height = Some(height);
            self.logged = Logged::default();
            self.turn.push(Effect::CutLog(height));
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
        let validators = Arc::clone(self.chain.state.chain().validators(height));
        let start =
            Start { height, validators: &validators, sign, log: &log, now: self.turn.now.elapsed };
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

    /// Performs the outputs of consensus, and further outputs that follow from them.
    pub(super) fn perform(&mut self, outputs: Vec<Output>) {
        let mut queue: std::collections::VecDeque<Output> = outputs.into();
        while let Some(output) = queue.pop_front() {
            match output {
                Output::Log(entry) => self.turn.push(Effect::Log(entry)),
                Output::Sync => self.turn.push(Effect::SyncLog),
                Output::Gossip(message) => self.gossip_consensus(message),
                Output::BuildBlock(round) => queue.extend(self.on_turn(round)),
                Output::RoundStarted(round) => {
                    self.proposals.on_round();
                    self.attendance.on_round(round, self.turn.now.elapsed);
                    if round > Round(0) {
                        self.extra_rounds = self.extra_rounds.saturating_add(1);
                        self.turn.notice(Notice::Round(self.consensus.height(), round));
                    }
                }
                Output::Decided(certificate) => self.on_decided(certificate),
                Output::Evidence(evidence) => self.on_evidence(evidence),
                Output::Failed(reason) => return self.halt(format!("consensus failed: {reason}")),
            }
        }
    }

    /// Whether the height after the tip begins: its time has come, or an honest validator has begun
    /// it.
    pub(super) fn height_begins(&mut self) -> bool {
        let next = self.chain.next_height();
        self.height_is_due() || self.ahead.is_begun(next, self.chain.state.chain().validators(next))
    }
}
