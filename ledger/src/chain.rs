//! The state transition: one set of rules for mempool, proposer, voter, sync, import and recovery.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::block::{Block, HEADER_VERSION, Header, genesis_parent, transactions_root};
use crate::certificate::{Certificate, CertificateError};
use crate::codec;
use crate::genesis::{Genesis, Limits};
use crate::hash::{BlockHash, ChainId, Hash, HistoryRoot, StateRoot, TxHash, TxId};
use crate::history::{History, HistoryRules, SealedSegment};
use crate::signature::{KeyError, PublicKey};
use crate::state::{Account, State, StateKey};
use crate::transaction::{MEMO_BYTES_MAX, OUTPUTS_MAX, Transaction, VerifiedTransaction, assume_verified};
use crate::units::{Amount, Height, Nonce, Timestamp};
use crate::validators::ValidatorSet;

/// Whose fault an error is: what a peer's score depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Who sent it could have known.
    Sender,
    /// It may have been right when or where it was sent.
    Nobody,
    /// Our disk or our code.
    Us,
}

/// Why a transaction cannot be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// The signature does not hold for this chain and sender.
    #[error("the signature does not hold for this chain and sender")]
    Signature,
    /// None or too many outputs.
    #[error("{0} outputs, expected 1 to {OUTPUTS_MAX}")]
    Outputs(usize),
    /// The memo is too long.
    #[error("memo of {0} bytes, expected at most {MEMO_BYTES_MAX}")]
    Memo(usize),
    /// An output of zero.
    #[error("output {0} has amount 0, expected more")]
    ZeroAmount(usize),
    /// A recipient that no one owns.
    #[error("a recipient cannot be paid: {0}")]
    Recipient(KeyError),
    /// Outputs and fee exceed 64 bits.
    #[error("outputs and fee together exceed 64 bits")]
    Overflow,
    /// The nonce was used already.
    #[error("nonce {got} is used already, the account's next is {next}")]
    NonceUsed {
        /// Nonce given.
        got: Nonce,
        /// Next nonce of the account.
        next: Nonce,
    },
    /// Earlier transactions of the sender are missing.
    #[error("nonce {got} is ahead, the account's next is {next}")]
    NonceAhead {
        /// Nonce given.
        got: Nonce,
        /// Next nonce of the account.
        next: Nonce,
    },
    /// The sender cannot pay.
    #[error("balance of {balance} pebbles does not cover {needed}")]
    Balance {
        /// What the sender has.
        balance: Amount,
        /// Outputs and fee.
        needed: Amount,
    },
    /// The fee is too low.
    #[error("fee of {got} pebbles, expected at least {least}")]
    Fee {
        /// Fee given.
        got: Amount,
        /// Least fee for its size and the accounts it creates.
        least: Amount,
    },
    /// Too late.
    #[error("expired at {expires_at}, the block's time is {time}")]
    Expired {
        /// Last time it is valid.
        expires_at: Timestamp,
        /// Time of the block.
        time: Timestamp,
    },
    /// Valid for longer than the chain allows.
    #[error("expires at {expires_at}, expected at most {latest}")]
    ExpiryTooFar {
        /// Last time it claims to be valid.
        expires_at: Timestamp,
        /// Latest allowed.
        latest: Timestamp,
    },
}

impl TransactionError {
    /// Whose fault: what the bytes alone show is the sender's; what depends on the state may be nobody's.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Signature
            | Self::Outputs(_)
            | Self::Memo(_)
            | Self::ZeroAmount(_)
            | Self::Recipient(_)
            | Self::Overflow => Blame::Sender,
            Self::NonceUsed { .. }
            | Self::NonceAhead { .. }
            | Self::Balance { .. }
            | Self::Fee { .. }
            | Self::Expired { .. }
            | Self::ExpiryTooFar { .. } => Blame::Nobody,
        }
    }
}

/// Why a block does not follow the tip. Always the proposer's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// A version this code does not know. Not a fault: the node is too old and has to stop.
    #[error("header version {got}, this node knows {HEADER_VERSION}: upgrade it")]
    Version {
        /// Version found.
        got: u16,
    },
    /// Not the next height.
    #[error("height {got}, expected {expected}")]
    Height {
        /// Height found.
        got: Height,
        /// Height after the tip.
        expected: Height,
    },
    /// Another parent than the tip.
    #[error("parent {got}, expected {expected}")]
    Parent {
        /// Parent found.
        got: BlockHash,
        /// The tip.
        expected: BlockHash,
    },
    /// Not later than the parent.
    #[error("time {got}, expected more than {parent}")]
    Time {
        /// Time found.
        got: Timestamp,
        /// Time of the parent.
        parent: Timestamp,
    },
    /// The proposer is no validator.
    #[error("proposer {0} is no validator")]
    Proposer(PublicKey),
    /// A commitment differs from what it commits to.
    #[error("{field} is {got}, expected {expected}")]
    Commitment {
        /// Header field.
        field: &'static str,
        /// Value found.
        got: Hash,
        /// Value computed.
        expected: Hash,
    },
    /// The parent's certificate proves nothing.
    #[error("certificate of the parent: {0}")]
    Certificate(#[from] CertificateError),
    /// Too many bytes of transactions.
    #[error("{got} bytes of transactions, expected at most {max}")]
    Size {
        /// Bytes found.
        got: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// A transaction that cannot be applied.
    #[error("transaction {index}: {error}")]
    Transaction {
        /// Place in the block.
        index: usize,
        /// Why.
        error: TransactionError,
    },
}

/// What never changes about a chain.
#[derive(Debug)]
pub struct Chain {
    id: ChainId,
    genesis: Genesis,
    validators: Arc<ValidatorSet>,
}

impl Chain {
    /// The chain of a checked genesis.
    #[must_use]
    pub fn new(genesis: Genesis) -> Arc<Self> {
        let validators = Arc::new(genesis.validator_set());
        Arc::new(Self { id: genesis.chain_id(), genesis, validators })
    }

    /// Its identity.
    #[must_use]
    pub const fn id(&self) -> ChainId {
        self.id
    }

    /// What it began with.
    #[must_use]
    pub const fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Limits and rules.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.genesis.limits
    }

    /// The validators of a height. They do not change yet; when they do, headers already commit to it.
    #[must_use]
    pub const fn validators(&self, _height: Height) -> &Arc<ValidatorSet> {
        &self.validators
    }

    /// How history is cut.
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
    /// Its height; 0 before the first block.
    pub height: Height,
    /// Its name; the chain id before the first block.
    pub hash: BlockHash,
    /// Its time; the start time before the first block.
    pub time: Timestamp,
}

/// Everything that the rules depend on: tip, accounts and history. Cloning is cheap: the accounts are shared.
#[derive(Clone)]
pub struct ChainState {
    chain: Arc<Chain>,
    tip: Tip,
    state: State,
    history: History,
}

/// A block that follows the tip by all rules, with the state after it. No other code can build one.
#[derive(Clone)]
pub struct ValidBlock {
    block: Block<Arc<VerifiedTransaction>>,
    hash: BlockHash,
    bytes: Arc<Vec<u8>>,
    state: State,
}

/// A final block with what follows from it: what a store writes in one piece.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The block.
    pub block: ValidBlock,
    /// Why it is final.
    pub certificate: Certificate,
    /// The segment it closed, if it closed one.
    pub sealed: Option<SealedSegment>,
}

impl std::fmt::Debug for ValidBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ValidBlock({} {:?}, {} transactions)", self.height(), self.hash, self.block.transactions.len())
    }
}

impl ValidBlock {
    /// The block.
    #[must_use]
    pub const fn block(&self) -> &Block<Arc<VerifiedTransaction>> {
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

    /// Its name.
    #[must_use]
    pub const fn hash(&self) -> BlockHash {
        self.hash
    }

    /// Its canonical bytes.
    #[must_use]
    pub const fn bytes(&self) -> &Arc<Vec<u8>> {
        &self.bytes
    }

    /// All accounts after it.
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
        let tip = Tip { height: Height(0), hash: genesis_parent(chain.id()), time: chain.genesis().start_time };
        let state = chain.genesis().state();
        let history = History::new(chain.history_rules());
        Self { chain, tip, state, history }
    }

    /// A state as it was stored.
    #[must_use]
    pub(crate) const fn restored(chain: Arc<Chain>, tip: Tip, state: State, history: History) -> Self {
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

    /// The account as it is now; an account that does not exist is empty.
    #[must_use]
    pub fn account(&self, account: &PublicKey) -> Account {
        self.state.get(&StateKey::account(*account)).copied().unwrap_or_default()
    }

    /// Builds the next block from the candidates that can be applied, in their order, up to the size limit.
    #[must_use]
    pub fn propose(
        &self,
        proposer: PublicKey,
        now: Timestamp,
        parent_certificate: Certificate,
        candidates: impl IntoIterator<Item = Arc<VerifiedTransaction>>,
    ) -> ValidBlock {
        let time = now.max(Timestamp(self.tip.time.0.saturating_add(1)));
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
        let hashes: Vec<TxHash> = transactions.iter().map(|transaction| transaction.hash()).collect();
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

    fn valid(&self, block: Block<Arc<VerifiedTransaction>>, state: State) -> ValidBlock {
        ValidBlock { hash: block.header.hash(), bytes: Arc::new(codec::encode(&block)), block, state }
    }

    /// Judges a block by all rules. Asks no clock: whether its time is too far ahead is for a voter to judge.
    ///
    /// # Errors
    /// `BlockError`, the proposer's fault, or `BlockError::Version` when this code is too old.
    pub fn validate(&self, block: Block<Arc<VerifiedTransaction>>) -> Result<ValidBlock, BlockError> {
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

    /// Applies a block that was validated before it was stored: signatures are not checked again, everything else is.
    ///
    /// # Errors
    /// `BlockError` when the stored bytes are not that block: the store's fault.
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

    /// Rules that need no execution.
    fn check_header(&self, block: &Block<Arc<VerifiedTransaction>>) -> Result<(), BlockError> {
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
        if header.time <= self.tip.time {
            return Err(BlockError::Time { got: header.time, parent: self.tip.time });
        }
        if self.chain.validators(header.height).find(&header.proposer).is_none() {
            return Err(BlockError::Proposer(header.proposer));
        }
        let max = self.chain.limits().block_bytes_max;
        let got = block.transactions.iter().fold(0u64, |sum, t| sum.saturating_add(t.bytes() as u64));
        if got > max {
            return Err(BlockError::Size { got, max });
        }
        Ok(())
    }

    fn execute(&self, block: Block<Arc<VerifiedTransaction>>) -> Result<ValidBlock, BlockError> {
        let header = &block.header;
        let mut overlay = Overlay::new(self, header.time);
        for (index, transaction) in block.transactions.iter().enumerate() {
            overlay.apply_transaction(transaction).map_err(|error| BlockError::Transaction { index, error })?;
        }
        let state = overlay.finish(&header.proposer);
        let expected =
            self.header(header.proposer, header.time, &block.parent_certificate, &block.transactions, &state);
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
        for ((field, got), (_, expected)) in commitments(header).into_iter().zip(commitments(&expected)) {
            if got != expected {
                return Err(BlockError::Commitment { field, got, expected });
            }
        }
        Ok(self.valid(block, state))
    }

    /// Makes a block the tip. Returns the segment it closed, if it closed one.
    ///
    /// # Panics
    /// When the block does not follow this tip: it was validated against another one.
    pub fn advance(&mut self, valid: &ValidBlock) -> Option<SealedSegment> {
        let header = valid.header();
        assert!(header.parent == self.tip.hash, "a block is committed on the tip it was validated on");
        self.tip = Tip { height: header.height, hash: valid.hash, time: header.time };
        self.state = valid.state.clone();
        self.history.push(header.height, valid.hash, &valid.bytes)
    }

    /// Makes a block the tip, and gives what a store writes of it.
    ///
    /// # Panics
    /// As [`ChainState::advance`].
    pub fn commit(&mut self, block: ValidBlock, certificate: Certificate) -> Committed {
        let sealed = self.advance(&block);
        Committed { block, certificate, sealed }
    }

    /// The commitments as of the tip: accounts and sealed history.
    #[must_use]
    pub fn roots(&self) -> (StateRoot, HistoryRoot) {
        (self.state.root(), self.history.root())
    }
}

/// Changes on top of a state: the accounts as they are while a block is applied.
pub struct Overlay<'a> {
    base: &'a ChainState,
    time: Timestamp,
    changes: BTreeMap<StateKey, Account>,
    fees: Amount,
}

impl<'a> Overlay<'a> {
    /// Starts a block of this time after the tip.
    #[must_use]
    pub const fn new(base: &'a ChainState, time: Timestamp) -> Self {
        Self { base, time, changes: BTreeMap::new(), fees: Amount(0) }
    }

    fn get(&self, key: &StateKey) -> Option<Account> {
        self.changes.get(key).or_else(|| self.base.state.get(key)).copied()
    }

    /// Applies one transaction by the rules, or changes nothing.
    ///
    /// # Errors
    /// `TransactionError`: the first rule it breaks.
    pub fn apply_transaction(&mut self, transaction: &VerifiedTransaction) -> Result<(), TransactionError> {
        let transfer = transaction.transfer();
        let needed = check_form(transaction)?;
        let limits = self.base.chain.limits();
        check_expiry(limits, transfer.expires_at, self.time)?;
        let sender = StateKey::account(transfer.sender);
        let mut account = self.get(&sender).unwrap_or_default();
        let (got, next) = (transfer.nonce, account.nonce);
        match got.cmp(&next) {
            std::cmp::Ordering::Less => return Err(TransactionError::NonceUsed { got, next }),
            std::cmp::Ordering::Greater => return Err(TransactionError::NonceAhead { got, next }),
            std::cmp::Ordering::Equal => {}
        }
        let balance = account.balance;
        account.balance = balance.checked_sub(needed.0).ok_or(TransactionError::Balance { balance, needed })?;
        account.nonce = next.checked_add(1).ok_or(TransactionError::Overflow)?;

        // Per transaction: an error below leaves the overlay as it was.
        let mut touched = BTreeMap::from([(sender, account)]);
        let mut created = 0u64;
        for output in &transfer.outputs {
            let key = StateKey::account(output.account);
            let mut account = match touched.get(&key).copied().or_else(|| self.get(&key)) {
                Some(account) => account,
                None => {
                    created = created.saturating_add(1);
                    Account::default()
                }
            };
            account.balance = account.balance.checked_add(output.amount.0).ok_or(TransactionError::Overflow)?;
            touched.insert(key, account);
        }
        let least = least_fee(limits, transaction.bytes(), created);
        if transfer.fee < least {
            return Err(TransactionError::Fee { got: transfer.fee, least });
        }
        self.fees = self.fees.checked_add(transfer.fee.0).ok_or(TransactionError::Overflow)?;
        let height = self.base.tip.height.next();
        for (key, mut account) in touched {
            account.touch(height, &transaction.id());
            self.changes.insert(key, account);
        }
        Ok(())
    }

    /// Credits the fees to the proposer's payout account and gives the accounts after the block.
    ///
    /// # Panics
    /// When money was made or lost: a bug that must not become final.
    #[must_use]
    pub fn finish(mut self, proposer: &PublicKey) -> State {
        let height = self.base.tip.height.next();
        if self.fees > Amount(0) {
            let payout = self.base.chain.validators(height).find(proposer).map(|(_, validator)| validator.payout);
            let payout = payout.unwrap_or_else(|| panic!("the proposer of a block is a validator"));
            let key = StateKey::account(payout);
            let mut account = self.get(&key).unwrap_or_default();
            let credited = account.balance.checked_add(self.fees.0);
            account.balance = credited.unwrap_or_else(|| panic!("the supply fits 64 bits, so each balance does"));
            // Fees have no transaction: the chain of touches names them by an id of zeros.
            account.touch(height, &TxId::default());
            self.changes.insert(key, account);
        }
        let total = |balance: &dyn Fn(&StateKey, &Account) -> Amount| -> u128 {
            self.changes.iter().fold(0, |sum, (key, account)| sum.saturating_add(balance(key, account).0.into()))
        };
        let after = total(&|_, account| account.balance);
        let before = total(&|key, _| self.base.state.get(key).map_or(Amount(0), |account| account.balance));
        assert!(after == before, "a block moves money and neither makes nor loses any: {before} before, {after} after");
        self.base.state.with(&self.changes)
    }
}

/// Rules that need no state. Returns what the sender pays in all.
///
/// # Errors
/// `TransactionError` whose blame is the sender's.
pub fn check_form(transaction: &VerifiedTransaction) -> Result<Amount, TransactionError> {
    let transfer = transaction.transfer();
    let outputs = &transfer.outputs;
    if outputs.is_empty() || outputs.len() > OUTPUTS_MAX {
        return Err(TransactionError::Outputs(outputs.len()));
    }
    if transfer.memo.len() > MEMO_BYTES_MAX {
        return Err(TransactionError::Memo(transfer.memo.len()));
    }
    let mut needed = transfer.fee;
    for (index, output) in outputs.iter().enumerate() {
        if output.amount == Amount(0) {
            return Err(TransactionError::ZeroAmount(index));
        }
        output.account.check().map_err(TransactionError::Recipient)?;
        needed = needed.checked_add(output.amount.0).ok_or(TransactionError::Overflow)?;
    }
    Ok(needed)
}

/// Whether a transaction may stand in a block of this time.
///
/// # Errors
/// `TransactionError::Expired` or `ExpiryTooFar`.
pub fn check_expiry(limits: &Limits, expires_at: Timestamp, time: Timestamp) -> Result<(), TransactionError> {
    let latest = Timestamp(time.0.saturating_add(limits.expiry_ms_max));
    if expires_at < time {
        return Err(TransactionError::Expired { expires_at, time });
    }
    if expires_at > latest {
        return Err(TransactionError::ExpiryTooFar { expires_at, latest });
    }
    Ok(())
}

/// Smallest fee of a transaction of this size that creates this many accounts.
#[must_use]
pub fn least_fee(limits: &Limits, bytes: usize, created: u64) -> Amount {
    let size = limits.fee_per_byte.0.saturating_mul(bytes as u64);
    Amount(size.saturating_add(limits.new_account_fee.0.saturating_mul(created)))
}

/// The bytes of a stored or received block as a value, at most `max` of them.
///
/// # Errors
/// `CodecError` when they are not one block.
pub fn decode_block(bytes: &[u8]) -> Result<Block<Transaction>, codec::CodecError> {
    codec::decode(bytes, codec::VALUE_BYTES_MAX)
}

#[cfg(test)]
mod tests;
