//! Fee rates: which transaction is worth more to a proposer, and the price of a replacement.

use std::cmp::{Ordering, Reverse};

use ledger::chain::least_fee;
use ledger::genesis::Limits;
use ledger::hash::TxHash;
use ledger::transaction::VerifiedTransaction;
use ledger::units::Amount;

/// Fee per byte. It is compared exactly, as a fraction: 3 pebbles for 2 bytes are more than 1
/// pebble for 1 byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    fee: Amount,
    bytes: usize,
}

impl Ord for Rate {
    fn cmp(&self, other: &Self) -> Ordering {
        // A fee has 64 bits and a length far fewer, so the product stays far below 128 bits.
        let cross = |fee: Amount, bytes: usize| u128::from(fee.0).saturating_mul(bytes as u128);
        cross(self.fee, other.bytes).cmp(&cross(other.fee, self.bytes))
    }
}

impl PartialOrd for Rate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Rate {}

/// A transaction's rank by rate. Of equal rates the lower hash ranks higher, so no two ranks are
/// equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) rate: Rate,
    hash: Reverse<TxHash>,
}

impl Place {
    pub(super) const fn of(transaction: &VerifiedTransaction) -> Self {
        let rate = Rate { fee: transaction.transfer().fee, bytes: transaction.bytes() };
        Self { rate, hash: Reverse(transaction.hash()) }
    }
}

/// Smallest fee, in pebbles, with which a transaction of `bytes` bytes replaces `old`. It needs
/// more than 64 bits if no fee suffices.
///
/// The fee must be a tenth higher per byte, rounded up, so that a proposer gains. It must also be
/// at least the old fee plus the least fee for the new bytes, so that each replacement pays for its
/// way through the network (idea: BIP-125). Where bytes are free, it must be at least one pebble
/// higher.
pub(super) fn least_to_replace(limits: &Limits, old: &VerifiedTransaction, bytes: usize) -> u128 {
    let old_fee = u128::from(old.transfer().fee.0);
    let tenth_more = old_fee.saturating_mul(110).saturating_mul(bytes as u128);
    let tenth_more = tenth_more.div_ceil((old.bytes() as u128).saturating_mul(100).max(1));
    let carried = u128::from(least_fee(limits, bytes, 0).0).max(1);
    tenth_more.max(old_fee.saturating_add(carried))
}
