//! Consensus: Tendermint (arXiv:1807.04938) by the pure core of Malachite, hidden behind this
//! module.
//!
//! The core decides which votes to cast. This module gives it block hashes as values, and adds
//! keys, timers and the write-ahead log. Two rules keep a validator from contradicting itself. Each
//! message is logged before it leaves: [`Output::Log`], then [`Output::Sync`], then
//! [`Output::Gossip`]. After a restart the log is replayed before anything else.

mod context;
mod convert;
mod host;
mod rules;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ledger::certificate::Certificate;
use ledger::hash::{BlockHash, ChainId};
use ledger::signature::{PublicKey, SigningKey};
use ledger::units::{Height, Round};
use ledger::validators::ValidatorSet;
use malachite_types::{Validity, ValueOrigin, ValuePayload, VoteExtensionPolicy};

use crate::message::{ConsensusMessage, Evidence, LogEntry, SignedProposal};
use context::Context;
use host::Host;

type CoreInput = malachite::Input<Context>;

/// What the caller does for consensus, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Append to the log.
    Log(LogEntry),
    /// Make the log durable before any later output is performed.
    Sync,
    /// Gossip this message to all peers.
    Gossip(ConsensusMessage),
    /// It is this validator's turn: build a block and call [`Consensus::propose`].
    BuildBlock(Round),
    /// A round began.
    RoundStarted(Round),
    /// The block is final. Commit it; then call [`Consensus::start`] for the next height.
    Decided(Certificate),
    /// Proofs that validators signed conflicting messages.
    Evidence(Vec<Evidence>),
    /// The core contradicts itself or the log. The node must stop before it signs anything.
    Failed(String),
}

/// The state machine, which decides one height at a time.
pub struct Consensus {
    core: malachite::State<Context>,
    host: Host,
}

/// What a height starts with.
pub struct Start<'a> {
    /// The height.
    pub height: Height,
    /// Its validators.
    pub validators: &'a Arc<ValidatorSet>,
    /// Whether this node may sign. It follows the votes in either case.
    pub sign: bool,
    /// The log entries of this height.
    pub log: &'a [LogEntry],
    /// Time since the node started.
    pub now: Duration,
}

impl Consensus {
    /// A machine that waits for [`Consensus::start`]. Without a key it only follows.
    #[must_use]
    pub fn new(chain: ChainId, key: Option<SigningKey>, validators: &Arc<ValidatorSet>) -> Self {
        let address = context::Address(key.as_ref().map_or(PublicKey([0; 32]), SigningKey::public));
        let set = context::ValidatorSet::new(validators);
        let params = malachite::Params {
            address,
            threshold_params: malachite::ThresholdParams::default(),
            value_payload: ValuePayload::ProposalAndParts,
            enabled: false,
        };
        // The core queues messages of at most two later heights: 4,096 of each, which is as many as
        // the largest validator set sends in a few rounds.
        let core = malachite::State::new(
            Context,
            context::Height(Height(0)),
            set.clone(),
            params,
            2,
            4_096,
        );
        Self { core, host: Host::new(chain, key, set) }
    }

    /// Begins a height: replays the log, then goes on live.
    pub fn start(&mut self, start: &Start<'_>) -> Vec<Output> {
        let sign = start.sign && self.host.can_sign(start.validators);
        self.core.params.enabled = sign;
        let set = context::ValidatorSet::new(start.validators);
        self.host.begin(start.height, set.clone(), sign, start.now);
        let entries: Vec<CoreInput> =
            start.log.iter().filter_map(|entry| convert::replayed(start.height, entry)).collect();
        let replay = !entries.is_empty();
        if replay {
            self.host.begin_replay(start.log);
        }
        let height = context::Height(start.height);
        self.process(CoreInput::StartHeight(
            height,
            set,
            replay,
            None,
            VoteExtensionPolicy::Disabled,
        ));
        if replay {
            self.core.record_recovered_own_precommit_extensions(&entries);
            self.core.index_wal_entries(&entries);
            for entry in entries {
                self.process(entry);
            }
            self.core.reset_entries_index();
            let proposing = self.core.driver.step_is_propose();
            self.host.end_replay(self.core.round(), proposing);
        }
        self.drain()
    }

    /// The height being decided, or just decided.
    #[must_use]
    pub fn height(&self) -> Height {
        self.core.height().0
    }

    /// Whether this node signs the current height. If so, it also logs it.
    #[must_use]
    pub const fn is_signing(&self) -> bool {
        self.host.is_signing()
    }

    /// The current round.
    #[must_use]
    pub fn round(&self) -> Round {
        context::round_number(self.core.round())
    }

    /// Whether it is this validator's turn in a round and it has not proposed yet.
    #[must_use]
    pub fn is_proposing(&self, round: Round) -> bool {
        self.round() == round && self.core.driver.step_is_propose() && self.host.is_signing()
    }

    /// The verdict on a block that consensus was told at this height: whether the block is valid.
    ///
    /// The core pairs a proposal with a verdict by the hash of the block alone, whatever the round.
    /// So it votes at once for a block that it was once told to be valid.
    #[must_use]
    pub fn verdict(&self, block: &BlockHash) -> Option<bool> {
        let known = self.core.full_proposal_keeper.get_value_by_id(&self.core.height(), block);
        known.map(|(_, validity)| validity.is_valid())
    }

    /// The blocks of the locked and of the valid value (Tendermint's terms). Consensus votes for
    /// them or proposes them in later rounds.
    #[must_use]
    pub fn pinned(&self) -> BTreeSet<BlockHash> {
        let state = self.core.driver.round_state();
        state.locked.iter().chain(&state.valid).map(|pinned| pinned.value.0).collect()
    }

    /// Whether the signatures hold, the signers are validators that may send the message, and the
    /// votes of a certificate have enough power. A repeated message costs hashes, not signatures.
    pub fn verify(&mut self, message: &ConsensusMessage, validators: &ValidatorSet) -> bool {
        self.host.verify_message(message, validators)
    }

    /// Takes in a verified message. Messages of later heights wait within bounds, those of earlier
    /// heights are dropped.
    pub fn on_message(&mut self, message: &ConsensusMessage, now: Duration) -> Vec<Output> {
        self.host.set_now(now);
        self.process(convert::received(message));
        self.drain()
    }

    /// Takes in the verdict on a proposed block of the current height: whether it is valid as the
    /// next block.
    pub fn on_block(
        &mut self,
        proposal: &SignedProposal,
        valid: bool,
        now: Duration,
    ) -> Vec<Output> {
        self.host.set_now(now);
        let proposal = &proposal.proposal;
        let value = malachite::ProposedValue {
            height: context::Height(proposal.height),
            round: malachite_types::Round::new(proposal.round.0),
            valid_round: convert::round(proposal.valid_round),
            proposer: context::Address(proposal.proposer),
            value: context::Value(proposal.block),
            validity: Validity::from_bool(valid),
        };
        self.process(CoreInput::ProposedValue(value, ValueOrigin::Consensus));
        self.drain()
    }

    /// The answer to [`Output::BuildBlock`].
    pub fn propose(&mut self, round: Round, block: BlockHash, now: Duration) -> Vec<Output> {
        self.host.set_now(now);
        let value = malachite::LocallyProposedValue::new(
            self.core.height(),
            malachite_types::Round::new(round.0),
            context::Value(block),
        );
        self.process(CoreInput::Propose(value));
        self.drain()
    }

    /// When [`Consensus::on_time`] should be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.host.deadline()
    }

    /// Fires all timers that are due.
    pub fn on_time(&mut self, now: Duration) -> Vec<Output> {
        self.host.set_now(now);
        while let Some(timeout) = self.host.pop_due() {
            self.process(CoreInput::TimeoutElapsed(timeout));
        }
        self.drain()
    }

    /// Stops the height, because its block came by other means. Outputs the evidence collected so
    /// far.
    pub fn stop(&mut self) -> Vec<Output> {
        self.host.stop();
        let driver = &mut self.core.driver;
        let (proposals, votes) = (driver.take_proposal_evidence(), driver.take_vote_evidence());
        self.host.report_evidence(&malachite::MisbehaviorEvidence { proposals, votes });
        self.drain()
    }

    fn process(&mut self, input: CoreInput) {
        if self.host.has_failed() {
            return;
        }
        let (core, host) = (&mut self.core, &mut self.host);
        let metrics = ();
        let result: Result<(), malachite::Error<Context>> = malachite::process!(
            input: input,
            state: core,
            metrics: &metrics,
            with: effect => Ok::<_, malachite::Error<Context>>(host.perform(effect))
        );
        if let Err(error) = result {
            self.host.on_core_error(&error);
        }
    }

    fn drain(&mut self) -> Vec<Output> {
        self.host.take_outputs()
    }
}
