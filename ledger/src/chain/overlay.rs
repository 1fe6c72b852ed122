//! Applies the transactions of a block by the rules of transfers. The changes are collected on top
//! of the state before the block, which stays unchanged.

use std::collections::BTreeMap;

use crate::chain::{ChainState, TransactionError};
use crate::genesis::Limits;
use crate::signature::PublicKey;
use crate::state::{Account, State, StateKey};
use crate::transaction::{MEMO_BYTES_MAX, OUTPUTS_MAX, VerifiedTransaction};
use crate::units::{Amount, Timestamp};

/// The accounts that a block has changed so far, on top of the state before the block.
pub struct Overlay<'a> {
    base: &'a ChainState,
    time: Timestamp,
    pub(super) changes: BTreeMap<StateKey, Account>,
    fees: Amount,
}

impl<'a> Overlay<'a> {
    /// Starts a block with this time on top of the tip.
    #[must_use]
    pub const fn new(base: &'a ChainState, time: Timestamp) -> Self {
        Self { base, time, changes: BTreeMap::new(), fees: Amount(0) }
    }

    fn get(&self, key: &StateKey) -> Option<Account> {
        self.changes.get(key).or_else(|| self.base.state.get(key)).copied()
    }

    /// Applies one transaction. Changes nothing if it breaks a rule.
    ///
    /// # Errors
    /// `TransactionError`: the first rule that the transaction breaks.
    pub fn apply_transaction(
        &mut self,
        transaction: &VerifiedTransaction,
    ) -> Result<(), TransactionError> {
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
        account.balance =
            balance.checked_sub(needed.0).ok_or(TransactionError::Balance { balance, needed })?;
        account.nonce = next.checked_add(1).ok_or(TransactionError::Overflow)?;

        // Holds the changes of this transaction alone, so that an error below leaves the overlay as
        // it was.
        let mut touched = BTreeMap::from([(sender, account)]);
        let mut created = 0u64;
        for output in &transfer.outputs {
            let key = StateKey::account(output.account);
            let mut account = match touched.get(&key).copied().or_else(|| self.get(&key)) {
                Some(account) => account,
                None => {
                    check_created(&output.account)?;
                    created = created.saturating_add(1);
                    Account::default()
                }
            };
            account.balance =
                account.balance.checked_add(output.amount.0).ok_or(TransactionError::Overflow)?;
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

    /// Credits the fees to the proposer's payout account. Returns the accounts after the block.
    ///
    /// # Panics
    /// If there are fees and the proposer is no validator, or if the block would make or lose
    /// money. The effect of such a bug must not become final.
    #[must_use]
    pub fn finish(mut self, proposer: &PublicKey) -> State {
        let height = self.base.tip.height.next();
        if self.fees > Amount(0) {
            let payout = self
                .base
                .chain
                .validators(height)
                .find(proposer)
                .map(|(_, validator)| validator.payout);
            let payout = payout.unwrap_or_else(|| panic!("the proposer of a block is a validator"));
            let key = StateKey::account(payout);
            let mut account = self.get(&key).unwrap_or_default();
            let credited = account.balance.checked_add(self.fees.0);
            account.balance =
                credited.unwrap_or_else(|| panic!("the supply fits 64 bits, so each balance does"));
            account.touch_fees(height, self.fees);
            self.changes.insert(key, account);
        }
        let total = |balance: &dyn Fn(&StateKey, &Account) -> Amount| -> u128 {
            self.changes
                .iter()
                .fold(0, |sum, (key, account)| sum.saturating_add(balance(key, account).0.into()))
        };
        let after = total(&|_, account| account.balance);
        let before =
            total(&|key, _| self.base.state.get(key).map_or(Amount(0), |account| account.balance));
        assert!(
            after == before,
            "a block moves money and neither makes nor loses any: {before} before, {after} after"
        );
        self.base.state.with(&self.changes)
    }
}

/// Checks the rules that need neither state nor time nor limits: the number of outputs, the length
/// of the memo, the amounts, and the bytes of the recipients' keys. Returns the sum of outputs and
/// fee.
///
/// # Errors
/// `TransactionError`, with the blame on the sender.
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

/// Whether an account with this key may be created. Accounts are never removed, so payments to an
/// account that exists do not check its key again.
///
/// # Errors
/// `TransactionError::Recipient`. The bytes of the transaction show the error, so the sender is to
/// blame.
pub fn check_created(account: &PublicKey) -> Result<(), TransactionError> {
    account.check_account().map_err(TransactionError::Recipient)
}

/// Checks that a transaction with this expiry may be in a block of this time.
///
/// # Errors
/// `TransactionError::Expired` or `ExpiryTooFar`.
pub fn check_expiry(
    limits: &Limits,
    expires_at: Timestamp,
    time: Timestamp,
) -> Result<(), TransactionError> {
    let latest = Timestamp(time.0.saturating_add(limits.expiry_ms_max));
    if expires_at < time {
        return Err(TransactionError::Expired { expires_at, time });
    }
    if expires_at > latest {
        return Err(TransactionError::ExpiryTooFar { expires_at, latest });
    }
    Ok(())
}

/// Least fee, in pebbles, of a transaction of this many bytes that creates this many accounts.
#[must_use]
pub fn least_fee(limits: &Limits, bytes: usize, created: u64) -> Amount {
    let size = limits.fee_per_byte.0.saturating_mul(bytes as u64);
    Amount(size.saturating_add(limits.new_account_fee.0.saturating_mul(created)))
}
