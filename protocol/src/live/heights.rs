//! Heights: when the next one begins, and how the outputs of consensus are performed.

use std::sync::Arc;
use std::time::Duration;

use ledger::units::Round;

use super::phase::{Begun, Phase};
use super::proposals::{OWN, Proposals};
use super::{Effect, Machine, Notice};
use crate::live::consensus::{Output, Start};
use crate::message::ConsensusMessage;

/// Delay of the first height after the start, so that peers can connect before it begins.
const FIRST_HEIGHT_DELAY: Duration = Duration::from_millis(300);

/// How the heights of this run follow each other.
pub(super) struct Pace {
    /// When the latest height began; `None` before the first height of this run.
    started_at: Option<Duration>,
    /// When the first height of this run begins.
    first_start: Duration,
    /// Earliest time to build a block of the height after the tip.
    pub(super) build_from: Duration,
    /// Number of rounds that were not the first of their height.
    pub(super) extra_rounds: u64,
}

impl Pace {
    pub(super) const fn new(now: Duration) -> Self {
        Self {
            started_at: None,
            first_start: now.saturating_add(FIRST_HEIGHT_DELAY),
            build_from: now,
            extra_rounds: 0,
        }
    }

    /// A height that this node followed is final. The next block is built no sooner than `interval`
    /// after that height began.
    pub(super) fn on_decided(&mut self, interval: Duration, now: Duration) {
        self.build_from = self.started_at.map_or(now, |at| at.saturating_add(interval));
    }

    /// The node fetched a block that others made final long ago, so the next block need not wait.
    pub(super) const fn on_caught_up(&mut self, now: Duration) {
        self.build_from = now;
    }
}

impl Machine {
    /// When the next height begins by the clock: one interval after the last height began. The
    /// interval is the minimum one if a transaction waits that can go into the block, otherwise
    /// that of empty blocks. The first height of a run begins [`FIRST_HEIGHT_DELAY`] after the
    /// start.
    pub(super) fn start_at(&self) -> Duration {
        let Some(started_at) = self.pace.started_at else { return self.pace.first_start };
        let limits = self.chain.state.chain().limits();
        let interval = match self.transactions.mempool.has_candidate() {
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

    /// Begins the height after the tip. A height that this node follows without signing is begun
    /// again once the node may sign in it.
    pub(super) fn begin_height(&mut self) {
        let (height, now) = (self.chain.next_height(), self.turn.now.elapsed);
        let sign = self.validator.signing.may_sign(&self.chain.state, self.turn.now);
        // If the height is begun again, consensus forgets its proposals. They are given to it again
        // below.
        let proposals = match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Begun(Begun::Deciding(proposals)) => proposals.again(now),
            _ => Proposals::new(now),
        };
        let proposed = proposals.all();
        self.phase = Phase::Begun(Begun::Deciding(proposals));
        self.pace.started_at = Some(now);
        let (log, is_cut) = self.validator.log.begin(height, sign);
        if is_cut {
            self.turn.push(Effect::CutLog(height));
        }
        if sign {
            self.validator.signing.on_begun(height);
        }
        // Blocks that were judged before this node began to sign the height are not in the log yet.
        let judged: Vec<_> = self.bodies.valid().filter(|_| sign).cloned().collect();
        self.restore_bodies(&log);
        let validators = Arc::clone(self.chain.state.chain().validators(height));
        let start = Start { height, validators: &validators, sign, log: &log, now };
        let outputs = self.consensus.start(&start);
        judged.iter().for_each(|valid| self.log_body(valid));
        self.perform(outputs);
        for signed in proposed {
            if self.phase.is_deciding() {
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
                    if let Some(proposals) = self.phase.proposals() {
                        proposals.on_round();
                    }
                    self.votes.attendance.on_round(round, self.turn.now.elapsed);
                    if round > Round(0) {
                        self.pace.extra_rounds = self.pace.extra_rounds.saturating_add(1);
                        self.turn.notice(Notice::Round(self.consensus.height(), round));
                    }
                }
                Output::Decided(certificate) => self.on_decided(certificate),
                Output::Evidence(evidence) => self.on_evidence(evidence),
                Output::Failed(reason) => return self.halt(format!("consensus failed: {reason}")),
            }
        }
    }

    /// Whether the height after the tip begins: its time has come, or other validators have begun
    /// it.
    pub(super) fn height_begins(&mut self) -> bool {
        let next = self.chain.next_height();
        self.height_is_due()
            || self.votes.early.is_begun(next, self.chain.state.chain().validators(next))
    }
}
