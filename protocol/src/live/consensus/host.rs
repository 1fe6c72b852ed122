//! Performs the core's effects: signs, verifies, keeps timers, and collects outputs for the
//! machine.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ledger::certificate::{Certificate, VoteKind};
use ledger::codec;
use ledger::hash::{ChainId, Domain, Hash};
use ledger::signature::{Signature, SigningKey};
use ledger::units::Height;
use ledger::validators;
use malachite::{Effect, LivenessMsg, Resumable, Resume, SignedConsensusMsg};
use malachite_types as core;

use super::context::{Context, Round, Timeout, TimeoutKind, ValidatorSet, round_number};
use super::{Output, convert, rules};
use crate::message::{ConsensusMessage, Evidence, LogEntry, SignedProposal, SignedVote};

pub(super) struct Host {
    chain: ChainId,
    key: Option<SigningKey>,
    set: ValidatorSet,
    height: Height,
    /// Whether this node signs at this height, and so logs it.
    sign: bool,
    now: Duration,
    timers: BTreeMap<(u8, u32), Duration>,
    outputs: Vec<Output>,
    /// An entry was logged since the last [`Output::Sync`].
    unsynced: bool,
    /// The entries being replayed, which must not be logged again.
    recorded: Option<BTreeSet<Vec<u8>>>,
    /// The round in which replay found that it is this validator's turn to propose.
    build: Option<Round>,
    /// Hashes of messages whose signatures were found to hold since the height began. Own messages
    /// are added when they are signed.
    verified: BTreeSet<Hash>,
    failed: bool,
}

/// Most valid signatures remembered per height: several rounds of the largest validator set.
/// Signatures beyond that are verified each time.
const VERIFIED_MAX: usize = 16_384;

impl Host {
    pub(super) fn new(chain: ChainId, key: Option<SigningKey>, set: ValidatorSet) -> Self {
        Self {
            chain,
            key,
            set,
            height: Height(0),
            sign: false,
            now: Duration::ZERO,
            timers: BTreeMap::new(),
            outputs: Vec::new(),
            unsynced: false,
            recorded: None,
            build: None,
            verified: BTreeSet::new(),
            failed: false,
        }
    }

    pub(super) fn can_sign(&self, validators: &validators::ValidatorSet) -> bool {
        self.key.as_ref().is_some_and(|key| validators.find(&key.public()).is_some())
    }

    pub(super) fn begin(&mut self, height: Height, set: ValidatorSet, sign: bool, now: Duration) {
        self.stop();
        self.height = height;
        self.set = set;
        self.sign = sign;
        self.now = now;
    }

    pub(super) fn stop(&mut self) {
        self.timers.clear();
        self.verified.clear();
        self.build = None;
    }

    pub(super) fn begin_replay(&mut self, log: &[LogEntry]) {
        self.recorded = Some(log.iter().map(codec::encode).collect());
    }

    /// Ends the replay, which has queued this validator's earlier messages again, since peers may
    /// have missed them. If it is still this validator's turn to propose, asks for a block.
    pub(super) fn end_replay(&mut self, round: Round, proposing: bool) {
        self.recorded = None;
        if let Some(wanted) = self.build.take().filter(|wanted| *wanted == round && proposing) {
            self.outputs.push(Output::BuildBlock(round_number(wanted)));
        }
    }

    pub(super) const fn set_now(&mut self, now: Duration) {
        self.now = now;
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.timers.values().min().copied()
    }

    pub(super) fn pop_due(&mut self) -> Option<Timeout> {
        let (key, _) = self.timers.iter().find(|(_, deadline)| **deadline <= self.now)?;
        let key = *key;
        self.timers.remove(&key);
        let kind = match key.0 {
            0 => TimeoutKind::Propose,
            1 => TimeoutKind::Prevote,
            2 => TimeoutKind::Precommit,
            _ => TimeoutKind::Rebroadcast,
        };
        Some(Timeout::new(Round::new(key.1), kind))
    }

    fn timer_key(timeout: Timeout) -> (u8, u32) {
        let kind = match timeout.kind {
            TimeoutKind::Propose => 0,
            TimeoutKind::Prevote => 1,
            TimeoutKind::Precommit => 2,
            TimeoutKind::Rebroadcast | TimeoutKind::FinalizeHeight(_) => 3,
        };
        (kind, round_number(timeout.round).0)
    }

    pub(super) fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    pub(super) const fn is_signing(&self) -> bool {
        self.sign
    }

    pub(super) const fn has_failed(&self) -> bool {
        self.failed
    }

    pub(super) fn report_evidence(&mut self, evidence: &malachite::MisbehaviorEvidence<Context>) {
        let evidence = evidence_to_wire(evidence);
        if !evidence.is_empty() {
            self.outputs.push(Output::Evidence(evidence));
        }
    }

    fn fail(&mut self, reason: String) {
        self.failed = true;
        self.outputs.push(Output::Failed(reason));
    }

    pub(super) fn on_core_error(&mut self, error: &malachite::Error<Context>) {
        // Messages are verified before they reach the core. So an error is a bug, or the core
        // contradicts the log.
        self.fail(error.to_string());
    }

    fn log(&mut self, entry: LogEntry) {
        let known = self
            .recorded
            .as_ref()
            .is_some_and(|recorded| recorded.contains(&codec::encode(&entry)));
        if self.sign && !known {
            self.unsynced = true;
            self.outputs.push(Output::Log(entry));
        }
    }

    /// Durable before audible: if a message were sent first, a crash before the log is durable
    /// would let this node sign a second, different vote of the round.
    fn sync(&mut self) {
        if self.unsynced {
            self.unsynced = false;
            self.outputs.push(Output::Sync);
        }
    }

    fn gossip(&mut self, message: ConsensusMessage) {
        self.sync();
        self.outputs.push(Output::Gossip(message));
    }

    fn sign(&mut self, message: &[u8]) -> Signature {
        let Some(key) = self.key.as_ref().filter(|_| self.sign) else {
            panic!(
                "the core asks only active validators to sign, and those have a key and may sign"
            );
        };
        let signature = key.sign(message);
        let name = Self::verified_name(&key.public().0, message, &signature);
        self.verified.insert(name);
        signature
    }

    fn verified_name(key: &[u8; 32], message: &[u8], signature: &Signature) -> Hash {
        Hash::of(Domain::SignVote, &[key, &signature.0, message])
    }

    fn verify_once(
        &mut self,
        key: &ledger::signature::PublicKey,
        message: &[u8],
        signature: &Signature,
    ) -> bool {
        let name = Self::verified_name(&key.0, message, signature);
        if self.verified.contains(&name) {
            return true;
        }
        let valid = ledger::signature::verify_strict(key, message, signature);
        if valid && self.verified.len() < VERIFIED_MAX {
            self.verified.insert(name);
        }
        valid
    }

    fn verify_vote(&mut self, signed: &SignedVote) -> bool {
        let message = signed.vote.message(self.chain);
        self.verify_once(&signed.vote.validator, &message, &signed.signature)
    }

    fn verify_proposal(&mut self, signed: &SignedProposal) -> bool {
        let message = signed.proposal.message(self.chain);
        self.verify_once(&signed.proposal.proposer, &message, &signed.signature)
    }

    /// Whether the signers of a message may send it at this height, and whether their signatures
    /// hold.
    pub(super) fn verify_message(
        &mut self,
        message: &ConsensusMessage,
        set: &validators::ValidatorSet,
    ) -> bool {
        match message {
            ConsensusMessage::Vote(vote) => {
                set.find(&vote.vote.validator).is_some() && self.verify_vote(vote)
            }
            ConsensusMessage::Proposal(signed, _) => {
                let proposal = &signed.proposal;
                set.proposer(proposal.height, proposal.round).key == proposal.proposer
                    && self.verify_proposal(signed)
            }
            ConsensusMessage::Round(certificate) => {
                let consistent = certificate.votes.iter().all(|signed| {
                    let vote = &signed.vote;
                    vote.height == certificate.height
                        && vote.round == certificate.round
                        && (!certificate.is_precommit || vote.kind == VoteKind::Precommit)
                });
                let threshold = match certificate.is_precommit {
                    true => core::ThresholdParam::TWO_F_PLUS_ONE,
                    false => core::ThresholdParam::F_PLUS_ONE,
                };
                consistent
                    && rules::check_votes(&certificate.votes, set, threshold, |vote| {
                        self.verify_vote(vote)
                    })
                    .is_ok()
            }
            ConsensusMessage::Polka(polka) => {
                let votes = polka_votes(&convert::polka_to_core(polka));
                let threshold = core::ThresholdParam::TWO_F_PLUS_ONE;
                rules::check_votes(&votes, set, threshold, |vote| self.verify_vote(vote)).is_ok()
            }
        }
    }

    /// Performs one effect and resumes the core. A failure is an output, never an error.
    pub(super) fn perform(&mut self, effect: Effect<Context>) -> Resume<Context> {
        match effect {
            Effect::CancelAllTimeouts(resume) => {
                self.timers.clear();
                resume.resume_with(())
            }
            Effect::CancelTimeout(timeout, resume) => {
                self.timers.remove(&Self::timer_key(timeout));
                resume.resume_with(())
            }
            Effect::ScheduleTimeout(timeout, resume) => {
                let deadline = self.now.saturating_add(rules::duration(timeout));
                self.timers.insert(Self::timer_key(timeout), deadline);
                resume.resume_with(())
            }
            Effect::StartRound(_, round, _, _, resume) => {
                self.sync();
                self.outputs.push(Output::RoundStarted(round_number(round)));
                resume.resume_with(())
            }
            Effect::PublishConsensusMsg(message, resume) => {
                self.gossip(match message {
                    SignedConsensusMsg::Vote(vote) => {
                        ConsensusMessage::Vote(convert::vote_to_wire(&vote))
                    }
                    SignedConsensusMsg::Proposal(proposal) => {
                        ConsensusMessage::Proposal(convert::proposal_to_wire(&proposal), None)
                    }
                });
                resume.resume_with(())
            }
            Effect::PublishLivenessMsg(message, resume) => {
                self.gossip(match message {
                    LivenessMsg::Vote(vote) => ConsensusMessage::Vote(convert::vote_to_wire(&vote)),
                    LivenessMsg::PolkaCertificate(polka) => {
                        ConsensusMessage::Polka(convert::polka_to_wire(&polka))
                    }
                    LivenessMsg::SkipRoundCertificate(certificate) => {
                        ConsensusMessage::Round(convert::round_certificate_to_wire(&certificate))
                    }
                });
                resume.resume_with(())
            }
            Effect::RepublishVote(vote, resume) => {
                self.gossip(ConsensusMessage::Vote(convert::vote_to_wire(&vote)));
                resume.resume_with(())
            }
            Effect::RepublishRoundCertificate(certificate, resume) => {
                self.gossip(ConsensusMessage::Round(convert::round_certificate_to_wire(
                    &certificate,
                )));
                resume.resume_with(())
            }
            Effect::GetValue(_, round, _, resume) => {
                if self.recorded.is_some() {
                    self.build = Some(round);
                } else {
                    self.outputs.push(Output::BuildBlock(round_number(round)));
                }
                resume.resume_with(())
            }
            // The block without its transactions goes out with each proposal, so nothing else has
            // to be sent.
            Effect::RestreamProposal(.., resume) => resume.resume_with(()),
            Effect::Decide(certificate, _, resume) => {
                self.sync();
                let certificate = self.certificate(&certificate);
                self.outputs.push(Output::Decided(certificate));
                resume.resume_with(())
            }
            Effect::Finalize(_, _, evidence, resume) => {
                self.report_evidence(&evidence);
                resume.resume_with(())
            }
            Effect::SignVote(vote, resume) => {
                let signature = self.sign(&vote.ledger().message(self.chain));
                resume.resume_with(core::SignedMessage::new(vote, signature.into()))
            }
            Effect::SignProposal(proposal, resume) => {
                let signature =
                    self.sign(&convert::unsigned_proposal(&proposal).message(self.chain));
                resume.resume_with(core::SignedMessage::new(proposal, signature.into()))
            }
            Effect::VerifySignature(signed, key, resume) => {
                let message = match &signed.message {
                    malachite::ConsensusMsg::Vote(vote) => vote.ledger().message(self.chain),
                    malachite::ConsensusMsg::Proposal(proposal) => {
                        convert::unsigned_proposal(proposal).message(self.chain)
                    }
                };
                resume.resume_with(self.verify_once(&key, &message, &signed.signature.into()))
            }
            Effect::VerifyCommitCertificate(certificate, set, _, resume) => {
                resume.resume_with(self.verify_commit(&certificate, &set))
            }
            Effect::VerifyExtendedCommitCertificate(certificate, set, _, _, resume) => {
                resume.resume_with(self.verify_commit(&certificate.trim_vote_extensions(), &set))
            }
            Effect::VerifyPolkaCertificate(polka, set, thresholds, resume) => {
                let votes = polka_votes(&polka);
                let result = rules::check_votes(&votes, set.ledger(), thresholds.quorum, |vote| {
                    self.verify_vote(vote)
                });
                resume.resume_with(result)
            }
            Effect::VerifyRoundCertificate(certificate, set, thresholds, resume) => {
                let threshold = match certificate.cert_type {
                    core::RoundCertificateType::Precommit => thresholds.quorum,
                    core::RoundCertificateType::Skip => thresholds.honest,
                };
                let votes = convert::round_certificate_to_wire(&certificate).votes;
                let result = rules::check_votes(&votes, set.ledger(), threshold, |vote| {
                    self.verify_vote(vote)
                });
                resume.resume_with(result)
            }
            Effect::WalAppend(_, input, resume) => {
                if let Some(entry) = convert::logged(&input) {
                    self.log(entry);
                }
                resume.resume_with(())
            }
            // Vote extensions and the core's own sync are not used. The policy is `Disabled`, and
            // no input asks for them.
            Effect::ExtendVote(.., resume) => resume.resume_with(None),
            Effect::VerifyVoteExtension(.., resume) => {
                resume.resume_with(Err(malachite::VoteExtensionError::InvalidVoteExtension))
            }
            Effect::CertVerifiedSyncValue(.., resume) => resume.resume_with(()),
            Effect::CertRejectedSyncValue(.., resume) => resume.resume_with(()),
        }
    }

    fn certificate(&self, commit: &core::CommitCertificate<Context>) -> Certificate {
        let precommits =
            commit.commit_signatures.iter().map(|entry| (entry.address.0, entry.signature.into()));
        let round = round_number(commit.round);
        Certificate::new(commit.height.0, round, commit.value_id, self.set.ledger(), precommits)
    }

    #[allow(clippy::result_large_err)] // The core's own type.
    fn verify_commit(
        &self,
        commit: &core::CommitCertificate<Context>,
        set: &ValidatorSet,
    ) -> Result<(), core::CertificateError<Context>> {
        let certificate = self.certificate(commit);
        certificate.verify(self.chain, set.ledger(), commit.height.0, commit.value_id).map_err(
            |error| {
                core::CertificateError::VerificationError(Some(core::BoxError::new(Box::new(
                    error,
                ))))
            },
        )
    }
}

fn polka_votes(polka: &core::PolkaCertificate<Context>) -> Vec<SignedVote> {
    polka.votes(&Context).map(|vote| convert::vote_to_wire(&vote)).collect()
}

fn evidence_to_wire(evidence: &malachite::MisbehaviorEvidence<Context>) -> Vec<Evidence> {
    let votes = (&evidence.votes).into_iter().flat_map(|(_, pairs)| pairs);
    let votes =
        votes.map(|(a, b)| Evidence::Votes(convert::vote_to_wire(a), convert::vote_to_wire(b)));
    let proposals = (&evidence.proposals).into_iter().flat_map(|(_, pairs)| pairs);
    let proposals = proposals.map(|(a, b)| {
        Evidence::Proposals(convert::proposal_to_wire(a), convert::proposal_to_wire(b))
    });
    votes.chain(proposals).collect()
}
