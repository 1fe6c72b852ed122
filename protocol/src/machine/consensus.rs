//! The machine's side of consensus: when a height begins, what its outputs become, and which blocks are judged.

use std::sync::Arc;
use std::time::Duration;

use ledger::block::Block;
use ledger::certificate::Certificate;
use ledger::codec;
use ledger::transaction::{Transaction, verify_transactions};
use ledger::units::{Height, Round};

use super::{Effect, Machine, Notice, Phase, Topic};
use crate::bodies::{Progress, Verdict};
use crate::consensus::{Output, Start};
use crate::ids::PeerId;
use crate::message::{Attempt, ConsensusMessage, Evidence, LogEntry};

/// Proposals of rounds further ahead are dropped, as the core does.
const ROUNDS_AHEAD_MAX: u32 = 10;
/// A proposal of the current round is said again so often: a peer may have missed it, and its proposer may be gone.
const REPEAT: Duration = Duration::from_secs(1);

impl Machine {
    /// A height begins after the minimum interval if a transaction that could go in now is held, else at the empty interval.
    pub(super) fn start_at(&self) -> Duration {
        let Some(started_at) = self.started_at else { return self.first_start };
        let limits = self.chain.chain().limits();
        let interval = match self.mempool.has_candidate() {
            true => limits.block_interval_ms,
            false => limits.empty_block_interval_ms,
        };
        started_at.saturating_add(Duration::from_millis(interval))
    }

    pub(super) fn height_is_due(&self) -> bool {
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
        self.repeat_at = Some(self.now.elapsed.saturating_add(REPEAT));
        self.told.clear();
        let log = match self.log_height == Some(height) {
            true => std::mem::take(&mut self.replay),
            false => Vec::new(),
        };
        if sign && self.log_height != Some(height) {
            self.log_height = Some(height);
            self.effects.push(Effect::CutLog(height));
        }
        // A block that was judged before the height was signed is not in the log: it is judged anew, and logged.
        self.bodies.next_height(self.chain.tip().height);
        self.restore_bodies(&log);
        let validators = Arc::clone(self.chain.chain().validators(height));
        let start = Start { height, validators: &validators, sign, log: &log, now: self.now.elapsed };
        let outputs = self.consensus.start(&start);
        self.perform(outputs);
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

    /// Blocks that were found valid before a restart: votes for them are in the log.
    fn restore_bodies(&mut self, log: &[LogEntry]) {
        for entry in log {
            let LogEntry::Body(block) = entry else { continue };
            if let Some(Ok(valid)) = self.verified(block).map(|block| self.chain.validate(block)) {
                self.bodies.insert(valid);
            }
        }
    }

    fn verified(&self, block: &Block<Transaction>) -> Option<Block<Arc<ledger::transaction::VerifiedTransaction>>> {
        let verified = verify_transactions(self.chain.chain().id(), block.transactions.clone());
        Some(Block {
            header: block.header.clone(),
            parent_certificate: block.parent_certificate.clone(),
            transactions: verified.into_iter().collect::<Option<_>>()?,
        })
    }

    /// Performs what consensus wants, and what follows from it, until it wants nothing more.
    pub(super) fn perform(&mut self, outputs: Vec<Output>) {
        let mut queue: std::collections::VecDeque<Output> = outputs.into();
        while let Some(output) = queue.pop_front() {
            match output {
                Output::Log(entry) => self.effects.push(Effect::Log(entry)),
                Output::Sync => self.effects.push(Effect::SyncLog),
                Output::Gossip(message) => self.gossip_consensus(message),
                Output::BuildBlock(round) => queue.extend(self.build_block(round)),
                Output::RoundStarted(round) => {
                    if round > Round(0) {
                        self.extra_rounds = self.extra_rounds.saturating_add(1);
                        self.effects.push(Effect::Notice(Notice::Round(self.consensus.height(), round)));
                    }
                }
                Output::Decided(certificate) => self.on_decided(certificate),
                Output::Evidence(evidence) => self.on_evidence(evidence),
                Output::Failed(reason) => return self.halt(format!("consensus failed: {reason}")),
            }
        }
    }

    fn build_block(&mut self, round: Round) -> Vec<Output> {
        let Some(key) = &self.key else {
            panic!("only validators are asked to build, and they have a key");
        };
        let room = usize::try_from(self.chain.chain().limits().block_bytes_max).unwrap_or(usize::MAX);
        let candidates = self.mempool.candidates(&self.chain, self.now.wall, room);
        let valid = self.chain.propose(key.public(), self.now.wall, self.certificate.clone(), candidates);
        let hash = valid.hash();
        self.log_body(&valid);
        self.bodies.insert(valid);
        self.consensus.propose(round, hash, self.now.elapsed)
    }

    /// A vote for a block can be acted on after a restart only if the block survives too.
    fn log_body(&mut self, valid: &ledger::chain::ValidBlock) {
        if self.consensus.is_signing() {
            let block = valid.block();
            self.effects.push(Effect::Log(LogEntry::Body(Block {
                header: block.header.clone(),
                parent_certificate: block.parent_certificate.clone(),
                transactions: block.transactions.iter().map(|transaction| transaction.transaction().clone()).collect(),
            })));
        }
    }

    fn gossip_consensus(&mut self, message: ConsensusMessage) {
        let message = match message {
            ConsensusMessage::Proposal(signed, _) => {
                let compact = self.bodies.compact(&signed.proposal.block);
                self.proposals.insert(signed.proposal.round, signed.clone());
                ConsensusMessage::Proposal(signed, compact)
            }
            other => other,
        };
        let attempt = self.attempt();
        self.effects.push(Effect::Gossip(Topic::Consensus, codec::encode(&Attempt { attempt, message })));
    }

    pub(super) fn repeat_proposals(&mut self) {
        if self.repeat_at.is_none_or(|at| at > self.now.elapsed) {
            return;
        }
        self.repeat_at = Some(self.now.elapsed.saturating_add(REPEAT));
        if let Some(signed) =
            self.proposals.get(&self.consensus.round()).cloned().filter(|_| self.consensus.is_signing())
        {
            self.gossip_consensus(ConsensusMessage::Proposal(signed, None));
        }
    }

    fn on_decided(&mut self, certificate: Certificate) {
        let Some(Verdict::Valid(valid)) = self.bodies.verdict(&certificate.block) else {
            return self.halt(format!("block {} was decided but is not valid here", certificate.block));
        };
        let mut after = self.chain.clone();
        let commit = after.commit(valid.clone(), certificate);
        self.commit(vec![commit], after, super::Source::Consensus);
    }

    fn on_evidence(&mut self, evidence: Vec<Evidence>) {
        let mut offenders: Vec<_> = evidence
            .iter()
            .filter_map(|evidence| match evidence {
                Evidence::Votes(vote, _) => Some(vote.vote.validator),
                Evidence::Proposals(proposal, _) => Some(proposal.proposal.proposer),
                Evidence::Fork(..) => None,
            })
            .collect();
        offenders.dedup();
        self.equivocations = self.equivocations.saturating_add(offenders.len() as u64);
        self.effects.extend(evidence.into_iter().map(Effect::Evidence));
        self.effects.push(Effect::Notice(Notice::Equivocation(offenders)));
    }

    /// Tries to complete every block that is looked for.
    pub(super) fn advance_bodies(&mut self) {
        let peers: Vec<_> = self.peers.iter().copied().collect();
        for block in self.bodies.wanted() {
            let (now, wall) = (self.now.elapsed, self.now.wall);
            match self.bodies.advance(block, &self.chain, &self.mempool, &peers, now, wall) {
                Progress::Wait(_) => {}
                Progress::Ask(peer, request) => {
                    let id = self.ask(peer, &request, super::peers::Asked::Body);
                    self.bodies.asked(&block, id, now);
                }
                Progress::Judged(proposals, verdict, error) => {
                    let valid = match &verdict {
                        Verdict::Valid(valid) => {
                            let valid = valid.clone();
                            self.log_body(&valid);
                            true
                        }
                        Verdict::Invalid => {
                            let reason =
                                error.map_or_else(|| "a signature does not hold".to_owned(), |e| e.to_string());
                            let height = self.consensus.height();
                            self.effects.push(Effect::Notice(Notice::InvalidBlock(height, block, reason)));
                            false
                        }
                    };
                    for proposal in proposals {
                        self.told.insert((proposal.proposal.round, block));
                        let outputs = self.consensus.on_block(&proposal, valid, now);
                        self.perform(outputs);
                        if self.phase != Phase::Deciding {
                            return;
                        }
                    }
                }
            }
        }
    }

    pub(super) fn bodies_deadline(&self) -> Option<Duration> {
        self.bodies.deadline()
    }

    /// A verified message of the height after the tip: begins the height if need be.
    pub(super) fn on_consensus(&mut self, from: PeerId, message: ConsensusMessage) {
        if self.phase == Phase::Waiting {
            self.begin_height();
        }
        if self.phase != Phase::Deciding {
            return;
        }
        let outputs = self.consensus.on_message(&message, self.now.elapsed);
        self.perform(outputs);
        if let ConsensusMessage::Proposal(signed, compact) = message {
            self.on_proposal(from, signed, compact);
        }
    }

    fn on_proposal(
        &mut self,
        from: PeerId,
        signed: crate::message::SignedProposal,
        compact: Option<crate::message::CompactBlock>,
    ) {
        let block = signed.proposal.block;
        let compact = compact.filter(|compact| compact.is(block) && compact.header.height == signed.proposal.height);
        if self.phase != Phase::Deciding || signed.proposal.height != self.chain.tip().height.next() {
            if let Some(compact) = compact {
                self.bodies.remember_ahead(block, compact);
            }
            return;
        }
        let round = signed.proposal.round;
        if round.0 > self.consensus.round().0.saturating_add(ROUNDS_AHEAD_MAX) {
            return;
        }
        self.proposals.entry(round).or_insert_with(|| signed.clone());
        match self.bodies.verdict(&block).map(|verdict| matches!(verdict, Verdict::Valid(_))) {
            Some(valid) => {
                if self.told.insert((round, block)) {
                    let outputs = self.consensus.on_block(&signed, valid, self.now.elapsed);
                    self.perform(outputs);
                }
            }
            None => {
                self.bodies.want(signed, from);
                if let Some(compact) = compact {
                    self.bodies.remember(block, compact);
                }
            }
        }
    }

    /// The heights whose messages can be judged and used: the next one, and the one after it.
    pub(super) fn is_near(&self, height: Height) -> bool {
        let tip = self.chain.tip().height;
        height == tip.next() || height == tip.next().next()
    }
}
