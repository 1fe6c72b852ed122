//! Commits: how a block becomes final here, and what follows once it is durable.
//!
//! A block that consensus decided is committed at once if its body is here. Otherwise the body is
//! fetched first. Consensus knows blocks only by their hashes, so it may decide a block whose body
//! was dropped, for example when late precommits of an earlier round arrive. The honest validators
//! that precommitted the block are locked on it and hold its body, so they give it.

use std::time::Duration;

use ledger::certificate::Certificate;
use ledger::chain::{ChainState, Committed, ValidBlock};
use ledger::hash::BlockHash;

use super::phase::{Begun, Committing, Origin, Phase};
use super::{Effect, Machine, Notice};
use crate::live::bodies::Verdict;
use crate::planted::{self, Fault};

impl Machine {
    pub(super) fn on_decided(&mut self, certificate: Certificate) {
        let block = certificate.block;
        let other = self
            .catchup
            .next_header(self.chain.height())
            .filter(|other| other.header.hash() != block);
        if let Some(other) = other.cloned() {
            return self.on_fork(certificate.height, block, &other);
        }
        match self.bodies.verdict(&block) {
            Some(Verdict::Valid(valid)) => {
                let valid = valid.clone();
                self.commit_decided(valid, certificate);
            }
            None if self.consensus.verdict(&block) == Some(true) => {
                self.turn.notice(Notice::Fetching(certificate.height, block));
                self.report_conflicts();
                self.phase = Phase::Begun(Begun::Fetching(certificate));
                self.bodies.want_decided(block);
            }
            _ => self.halt(format!("block {block} was decided but is not valid here")),
        }
    }

    /// Commits a block that was just judged, if it is the decided one.
    pub(super) fn on_fetched(&mut self, block: BlockHash, verdict: &Verdict) {
        let Some(certificate) = self.phase.take_decided(block) else { return };
        match verdict {
            Verdict::Valid(valid) => self.commit_decided(valid.clone(), certificate),
            Verdict::Invalid => {
                self.halt(format!("block {block} was decided and valid here, and is no longer"))
            }
        }
    }

    /// The height is over, so its proposals will be dropped. Reports those that prove double
    /// signing, if consensus was not given them.
    fn report_conflicts(&mut self) {
        let round = self.consensus.round();
        let proposals = self.phase.known_proposals();
        let proofs = proposals.map(|known| known.conflicts(round)).unwrap_or_default();
        if !proofs.is_empty() {
            self.on_evidence(proofs);
        }
    }

    fn commit_decided(&mut self, valid: ValidBlock, certificate: Certificate) {
        let mut after = self.chain.state.clone();
        let commit = after.commit(valid, certificate);
        self.commit(vec![commit], after, Origin::Consensus);
    }

    /// Commits the next block if it is here, valid and certified.
    pub(super) fn commit_certified(&mut self) {
        let is_off = planted::is(Fault::CertificateStopsConsensus);
        if self.phase.is_closed() || is_off {
            return;
        }
        let Some(certified) = self.catchup.next_header(self.chain.height()) else { return };
        let verdict = self.bodies.verdict(&certified.header.hash());
        let Some(Verdict::Valid(valid)) = verdict else { return };
        let mut after = self.chain.state.clone();
        let commit = after.commit(valid.clone(), certified.certificate.clone());
        self.commit(vec![commit], after, self.origin_of_others());
    }

    /// How a block became final that consensus did not decide here.
    pub(super) fn origin_of_others(&self) -> Origin {
        if self.phase.is_catching_up() { Origin::CatchUp } else { Origin::Certified }
    }

    pub(super) fn commit(&mut self, commits: Vec<Committed>, after: ChainState, origin: Origin) {
        self.report_conflicts();
        self.turn.push(Effect::Commit(commits.clone()));
        self.phase = Phase::Committing(Committing { commits, after, origin });
    }

    pub(super) fn on_committed(&mut self) {
        let Phase::Committing(committing) = std::mem::replace(&mut self.phase, Phase::Waiting)
        else {
            panic!("a commit is confirmed once, after it was asked for");
        };
        let Committing { commits, after, origin } = committing;
        self.chain.advance(&commits, after);
        let (tip, now) = (self.chain.height(), self.turn.now.elapsed);
        self.transactions.on_commits(&self.chain.state, &commits, now);
        self.bodies.next_height();
        self.forget_heights();
        if self.votes.attendance.on_commit() {
            self.turn.notice(Notice::Quorum(tip));
        }
        self.validator.log.on_final(tip);
        let interval = Duration::from_millis(self.chain.state.chain().limits().block_interval_ms);
        match origin {
            Origin::Consensus | Origin::Certified => self.pace.on_decided(interval, now),
            Origin::CatchUp => self.pace.on_caught_up(now),
        }
        // What this node signed at a height that it took part in is in its log, even if the
        // certificate came from others.
        let took_part = self.consensus.is_signing() && self.consensus.height() == tip;
        if origin == Origin::CatchUp {
            self.phase.rest();
        }
        if origin != Origin::Consensus {
            let outputs = self.consensus.stop();
            self.perform(outputs);
        }
        if origin == Origin::Consensus || (origin == Origin::Certified && took_part) {
            self.validator.signing.on_decided(tip);
        }
        self.validator.signing.on_caught_up(tip);
        if origin != Origin::CatchUp && took_part {
            // The log is cut at once. After a restart, a log of the tip's height would look older
            // than the network, and this validator would have to listen before it signs.
            self.validator.log.cut(tip.next());
            self.turn.push(Effect::CutLog(tip.next()));
            self.turn.push(Effect::SyncLog);
        }
        self.plan_announcement(origin);
        self.report_signing();
    }
}
