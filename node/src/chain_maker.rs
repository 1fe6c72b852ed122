//! Makes chains by the real rules: one process has the keys of all validators, proposes each block
//! and signs it for all of them. Local networks that begin with a history use it, and measurements.

use std::ops::Range;
use std::sync::Arc;
use std::thread;

use ledger::certificate::{Certificate, Vote, VoteKind};
use ledger::chain::{Chain, ChainState, Committed};
use ledger::hash::ChainId;
use ledger::signature::SigningKey;
use ledger::transaction::{Body, Transfer, VerifiedTransaction, verify_transactions};
use ledger::units::{Round, Timestamp};

/// A growing chain, and the keys of all its validators.
pub struct ChainMaker {
    validators: Vec<SigningKey>,
    state: ChainState,
    certificate: Certificate,
}

impl ChainMaker {
    /// Begins a chain. The keys are those of all its validators.
    #[must_use]
    pub fn new(chain: Arc<Chain>, validators: Vec<SigningKey>) -> Self {
        let certificate = Certificate::genesis(chain.id());
        Self { validators, state: ChainState::genesis(chain), certificate }
    }

    /// The chain so far.
    #[must_use]
    pub const fn state(&self) -> &ChainState {
        &self.state
    }

    /// Appends a block of the time `time`, or of the earliest time that the rules allow if that is
    /// later. The validators take turns as proposers.
    ///
    /// # Panics
    /// If a transfer breaks a rule, if the transfers do not fit into a block, or if there is no
    /// validator.
    pub fn block(
        &mut self,
        time: Timestamp,
        transfers: Vec<Arc<VerifiedTransaction>>,
    ) -> Committed {
        let (chain, count) = (Arc::clone(self.state.chain()), transfers.len());
        let height = self.state.tip().height.next();
        let turn = usize::try_from(height.0).unwrap_or_default() % self.validators.len();
        let proposer = self.validators[turn].public();
        let parent = self.certificate.clone();
        let block = self.state.propose(proposer, time, parent, transfers);
        let taken = block.block().transactions.len();
        assert!(taken == count, "of {count} transfers made by the rules {taken} can be applied");
        let (kind, round) = (VoteKind::Precommit, Round(0));
        let sign = |key: &SigningKey| {
            let vote =
                Vote { kind, height, round, block: Some(block.hash()), validator: key.public() };
            (vote.validator, key.sign(&vote.message(chain.id())))
        };
        let signatures: Vec<_> = self.validators.iter().map(sign).collect();
        self.certificate =
            Certificate::new(height, round, block.hash(), chain.validators(height), signatures);
        self.state.commit(block, self.certificate.clone())
    }
}

/// Signs and verifies transfers on all cores. `transfer` gives the transfer of a number, and its
/// sender's key.
///
/// # Panics
/// If `transfer` does.
pub fn sign_transfers<'a>(
    chain: ChainId,
    numbers: Range<u64>,
    transfer: impl Fn(u64) -> (Transfer, &'a SigningKey) + Sync,
) -> Vec<Arc<VerifiedTransaction>> {
    let numbers: Vec<u64> = numbers.collect();
    let sign = |numbers: &[u64]| {
        let sign = |number: &u64| {
            let (transfer, sender) = transfer(*number);
            Body::Transfer(transfer).sign(chain, sender)
        };
        verify_transactions(chain, numbers.iter().map(sign).collect())
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let verified: Vec<_> = thread::scope(|scope| {
        let parts = numbers.chunks(numbers.len().div_ceil(cores).max(1));
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || sign(part))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Vec<_>>| {
            thread.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
        };
        threads.into_iter().flat_map(join).collect()
    });
    let valid = |transaction: Option<_>| {
        transaction.unwrap_or_else(|| panic!("a signature that was just made holds"))
    };
    verified.into_iter().map(valid).collect()
}
