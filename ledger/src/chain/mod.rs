//! The state transition: one set of rules for mempool, proposer, voter, sync, import and recovery.

mod error;
mod overlay;

use std::sync::Arc;

use crate::block::{
    Block, HEADER_VERSION, Header, VerifiedBlock, genesis_parent, transactions_root,
};
use crate::certificate::Certificate;
use crate::codec;
use crate::genesis::{Genesis, Limits};
use crate::hash::{BlockHash, ChainId, HistoryRoot, StateRoot, TxHash};
use crate::history::{History, HistoryRules, SealedSegment};
use crate::signature::PublicKey;
use crate::state::{Account, State, StateKey};
use crate::transaction::{VerifiedTransaction, assume_verified};
use crate::units::{Height, Timestamp};
use crate::validators::ValidatorSet;

pub use error::{Blame, BlockError, TransactionError};
pub use overlay::{Overlay, check_created, check_expiry, check_form, least_fee};

/// The constants of a chain: genesis, chain id and validators.
#[derive(Debug)]
pub struct Chain {
    id: ChainId,
    genesis: Genesis,
    validators: Arc<ValidatorSet>,
}

impl Chain {
    /// The chain of a genesis that [`Genesis::from_json`] would accept.
    #[must_use]
    pub fn new(genesis: Genesis) -> Arc<Self> {
        let validators = Arc::new(genesis.validator_set());
        Arc::new(Self { id: genesis.chain_id(), genesis, validators })
    }

    /// The chain id: the hash of the genesis.
    #[must_use]
    pub const fn id(&self) -> ChainId {
        self.id
    }

    /// The genesis of the chain.
    #[must_use]
    pub const fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Limits of the genesis.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.genesis.limits
    }

    /// The validators of a height. For now this is the set of the genesis at every height. Headers
    /// commit to the set, so a later version can let it change.
    #[must_use]
    pub const fn validators(&self, _height: Height) -> &Arc<ValidatorSet> {
        &self.validators
    }

    /// How history is cut into segments and chunks.
    #[must_use]
    pub const fn history_rules(&self) -> HistoryRules {
        let limits = self.limits();
        HistoryRules {
            segment_bytes: limits.segment_bytes,
            segment_blocks: limits.segment_blocks,
            chunk_bytes: limits.chunk_bytes,
        }
    }
}

/// The last final block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tip {
    /// Height of the block; 0 before the first one.
    pub height: Height,
    /// Hash of the block; the chain id before the first one.
    pub hash: BlockHash,
    /// Time of the block; the start time of the genesis before the first one.
    pub time: Timestamp,
}

/// Everything that the rules depend on: the chain's constants, tip, accounts and history. A clone
/// shares the accounts, and copies the hashes of history and the bytes after its last full chunk.
#[derive(Clone)]
pub struct ChainState {
    chain: Arc<Chain>,
    tip: Tip,
    state: State,
    history: History,
}

/// A block that is valid on the tip, with the state after it. Only this module can build one.
#[derive(Clone)]
pub struct ValidBlock {
    block: VerifiedBlock,
    hash: BlockHash,
    bytes: Arc<Vec<u8>>,
    state: State,
}

/// A final block, with all that a store writes for it.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The block.
    pub block: ValidBlock,
    /// Proves that the block is final.
    pub certificate: Certificate,
    /// The segment that the block closed, if any.
    pub sealed: Option<SealedSegment>,
}

impl std::fmt::Debug for ValidBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "ValidBlock({} {:?}, {} transactions)",
            self.height(),
            self.hash,
            self.block.transactions.len()
        )
    }
}

impl ValidBlock {
    /// The block.
    #[must_use]
    pub const fn block(&self) -> &VerifiedBlock {
        &self.block
    }

    /// Its header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.block.header
    }

    /// Its height.
    #[must_use]
    pub const fn height(&self) -> Height {
        self.block.header.height
    }

    /// Its hash.
    #[must_use]
    pub const fn hash(&self) -> BlockHash {
        self.hash
    }

    /// Its canonical bytes.
    #[must_use]
    pub const fn bytes(&self) -> &Arc<Vec<u8>> {
        &self.bytes
    }

    /// All accounts after the block.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }
}

impl std::fmt::Debug for ChainState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChainState({:?})", self.tip)
    }
}

impl ChainState {
    /// The state before the first block.
    #[must_use]
    pub fn genesis(chain: Arc<Chain>) -> Self {
        let tip = Tip {
            height: Height(0),
            hash: genesis_parent(chain.id()),
            time: chain.genesis().start_time,
        };
        let state = chain.genesis().state();
        let history = History::new(chain.history_rules());
        Self { chain, tip, state, history }
    }

    /// Builds the state from the parts that a store has read.
    #[must_use]
    pub(crate) const fn restored(
        chain: Arc<Chain>,
        tip: Tip,
        state: State,
        history: History,
    ) -> Self {
        Self { chain, tip, state, history }
    }

    /// The chain's constants.
    #[must_use]
    pub const fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    /// The last final block.
    #[must_use]
    pub const fn tip(&self) -> &Tip {
        &self.tip
    }

    /// All accounts.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// All sealed history.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// The account as of the tip. An account that does not exist is empty.
    #[must_use]
    pub fn account(&self, account: &PublicKey) -> Account {
        self.state.get(&StateKey::account(*account)).copied().unwrap_or_default()
    }

    /// Earliest time of the next block: the tip's time plus the block interval.
    ///
    /// This rule needs no clock. Block times grow by at least the interval at each height, and
    /// voters accept no time far ahead of their clocks. So in the long run no proposer can make
    /// blocks faster than one per interval.
    #[must_use]
    pub fn next_time(&self) -> Timestamp {
        Timestamp(self.tip.time.0.saturating_add(self.chain.limits().block_interval_ms))
    }

    /// Builds the next block from the candidates, in their order. Skips candidates that cannot be
    /// applied, and stops at the first one that does not fit into the size limit. The block's time
    /// is `now`, or [`Self::next_time`] if that is later.
    #[must_use]
    pub fn propose(
        &self,
        proposer: PublicKey,
        now: Timestamp,
        parent_certificate: Certificate,
        candidates: impl IntoIterator<Item = Arc<VerifiedTransaction>>,
    ) -> ValidBlock {
        let time = now.max(self.next_time());
        let mut overlay = Overlay::new(self, time);
        let mut transactions = Vec::new();
        let mut room = self.chain.limits().block_bytes_max;
        for transaction in candidates {
            let Some(left) = room.checked_sub(transaction.bytes() as u64) else { break };
            if overlay.apply_transaction(&transaction).is_ok() {
                room = left;
                transactions.push(transaction);
            }
        }
        let state = overlay.finish(&proposer);
        let header = self.header(proposer, time, &parent_certificate, &transactions, &state);
        self.valid(Block { header, parent_certificate, transactions }, state)
    }

    fn header(
        &self,
        proposer: PublicKey,
        time: Timestamp,
        parent_certificate: &Certificate,
        transactions: &[Arc<VerifiedTransaction>],
        state: &State,
    ) -> Header {
        let height = self.tip.height.next();
        let hashes: Vec<TxHash> =
            transactions.iter().map(|transaction| transaction.hash()).collect();
        Header {
            version: HEADER_VERSION,
            height,
            time,
            parent: self.tip.hash,
            proposer,
            transactions_root: transactions_root(&hashes),
            state_root: state.root(),
            history_root: self.history.root(),
            validators: self.chain.validators(height).hash(),
            next_validators: self.chain.validators(height.next()).hash(),
            parent_certificate: parent_certificate.hash(),
        }
    }

    fn valid(&self, block: VerifiedBlock, state: State) -> ValidBlock {
        ValidBlock {
            hash: block.header.hash(),
            bytes: Arc::new(codec::encode(&block)),
            block,
            state,
        }
    }

    /// Validates a block against all rules on this tip. Reads no clock: voters check by themselves
    /// whether the block's time is too far ahead of their clocks.
    ///
    /// # Errors
    /// `BlockError`. The proposer is at fault, unless it is `BlockError::Version`.
    pub fn validate(&self, block: VerifiedBlock) -> Result<ValidBlock, BlockError> {
        self.check_header(&block)?;
        let (height, parent) = (self.tip.height, self.tip.hash);
        if height == Height(0) {
            let expected = Certificate::genesis(self.chain.id());
            if block.parent_certificate != expected {
                let (got, expected) = (block.parent_certificate.hash(), expected.hash());
                return Err(BlockError::Commitment { field: "parent_certificate", got, expected });
            }
        } else {
            let validators = self.chain.validators(height);
            block.parent_certificate.verify(self.chain.id(), validators, height, parent)?;
        }
        self.execute(block)
    }

    /// Applies a stored block, which was validated before it was stored. All rules are checked
    /// again, except the signatures of transactions and the parent's certificate.
    ///
    /// # Errors
    /// `BlockError` if the stored block breaks a rule: the store is at fault.
    pub(crate) fn replay(&self, block: Block) -> Result<ValidBlock, BlockError> {
        let verified = |transaction| Arc::new(assume_verified(self.chain.id(), transaction));
        let block = Block {
            header: block.header,
            parent_certificate: block.parent_certificate,
            transactions: block.transactions.into_iter().map(verified).collect(),
        };
        self.check_header(&block)?;
        self.execute(block)
    }

    /// Checks version, height, parent, time, proposer and size: the rules that need neither a
    /// signature nor the execution of a transaction.
    fn check_header(&self, block: &VerifiedBlock) -> Result<(), BlockError> {
        let header = &block.header;
        if header.version != HEADER_VERSION {
            return Err(BlockError::Version { got: header.version });
        }
        let expected = self.tip.height.next();
        if header.height != expected {
            return Err(BlockError::Height { got: header.height, expected });
        }
        if header.parent != self.tip.hash {
            return Err(BlockError::Parent { got: header.parent, expected: self.tip.hash });
        }
        let earliest = self.next_time();
        if header.time < earliest {
            return Err(BlockError::Time { got: header.time, earliest });
        }
        if self.chain.validators(header.height).find(&header.proposer).is_none() {
            return Err(BlockError::Proposer(header.proposer));
        }
        let max = self.chain.limits().block_bytes_max;
        let got =
            block.transactions.iter().fold(0u64, |sum, t| sum.saturating_add(t.bytes() as u64));
        if got > max {
            return Err(BlockError::Size { got, max });
        }
        Ok(())
    }

    fn execute(&self, block: VerifiedBlock) -> Result<ValidBlock, BlockError> {
        let header = &block.header;
        let mut overlay = Overlay::new(self, header.time);
        for (index, transaction) in block.transactions.iter().enumerate() {
            overlay
                .apply_transaction(transaction)
                .map_err(|error| BlockError::Transaction { index, error })?;
        }
        let state = overlay.finish(&header.proposer);
        let expected = self.header(
            header.proposer,
            header.time,
            &block.parent_certificate,
            &block.transactions,
            &state,
        );
        let commitments = |header: &Header| {
            [
                ("transactions_root", header.transactions_root),
                ("state_root", header.state_root.0),
                ("history_root", header.history_root.0),
                ("validators", header.validators),
                ("next_validators", header.next_validators),
                ("parent_certificate", header.parent_certificate),
            ]
        };
        for ((field, got), (_, expected)) in
            commitments(header).into_iter().zip(commitments(&expected))
        {
            if got != expected {
                return Err(BlockError::Commitment { field, got, expected });
            }
        }
        Ok(self.valid(block, state))
    }

    /// Makes a block the tip. Returns the segment that the block closed, if any.
    ///
    /// # Panics
    /// If the block was validated on another tip.
    pub fn advance(&mut self, valid: &ValidBlock) -> Option<SealedSegment> {
        let header = valid.header();
        assert!(
            header.parent == self.tip.hash,
            "a block is committed on the tip it was validated on"
        );
        self.tip = Tip { height: header.height, hash: valid.hash, time: header.time };
        self.state = valid.state.clone();
        self.history.push(header.height, valid.hash, &valid.bytes)
    }

    /// Makes a block the tip. Returns what a store writes for it.
    ///
    /// # Panics
    /// As [`ChainState::advance`].
    pub fn commit(&mut self, block: ValidBlock, certificate: Certificate) -> Committed {
        let sealed = self.advance(&block);
        Committed { block, certificate, sealed }
    }

    /// The roots of the accounts and of sealed history, as of the tip.
    #[must_use]
    pub fn roots(&self) -> (StateRoot, HistoryRoot) {
        (self.state.root(), self.history.root())
    }
}

#[cfg(test)]
mod tests;
