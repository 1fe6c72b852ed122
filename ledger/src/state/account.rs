//! Entries of the state: accounts and their keys.

use crate::codec::{Decode, Encode};
use crate::hash::{Domain, Hash, TxId};
use crate::signature::PublicKey;
use crate::units::{Amount, Height, Nonce};

/// Kind of an entry of the state. It is the first byte of every key, so that kinds which may be
/// added later never collide with accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Namespace(pub u8);

impl Namespace {
    /// Balances, nonces and activity of public keys.
    pub const ACCOUNT: Self = Self(0);
}

/// Key of an entry of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct StateKey {
    /// Kind of the entry.
    pub namespace: Namespace,
    /// Public key of the account.
    pub account: PublicKey,
}

impl StateKey {
    /// The key of an account.
    #[must_use]
    pub const fn account(account: PublicKey) -> Self {
        Self { namespace: Namespace::ACCOUNT, account }
    }

    /// Place of the entry in the state tree: its bits, from the highest bit of the first byte on,
    /// lead from the root to the entry's leaf.
    ///
    /// The path is a hash, so the tree stays balanced whatever keys people choose. The work to make
    /// a subtree deeper doubles with each level.
    #[must_use]
    pub fn path(&self) -> Hash {
        Hash::of(Domain::StatePath, &[&[self.namespace.0], &self.account.0])
    }
}

/// What the ledger knows of an account. The default stands for an account that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub struct Account {
    /// Money that the account holds.
    pub balance: Amount,
    /// Nonce of its next transaction.
    pub nonce: Nonce,
    /// Hash chain, from `Hash::ZERO`, over every transaction that touched the account and every
    /// credit of fees. So a list of an account's transactions and fees can be proved complete.
    pub activity: Hash,
}

impl Account {
    /// Adds a link to the activity chain: a transaction that paid from or to this account, and the
    /// height of its block.
    pub fn touch(&mut self, height: Height, transaction: &TxId) {
        self.link(height, transaction.0);
    }

    /// Adds a link for the fees of a block, which were credited to this account. The link contains
    /// the amount, so that income can be proved.
    pub fn touch_fees(&mut self, height: Height, fees: Amount) {
        self.link(height, Hash::of(Domain::Fees, &[&fees.0.to_le_bytes()]));
    }

    fn link(&mut self, height: Height, cause: Hash) {
        let parts: [&[u8]; 3] =
            [self.activity.as_bytes(), &height.0.to_le_bytes(), cause.as_bytes()];
        self.activity = Hash::of(Domain::Activity, &parts);
    }
}

/// A key with its account.
pub type Entry = (StateKey, Account);

#[cfg(test)]
mod tests {
    use super::*;

    /// The chain depends on height, transaction and order, so each history ends at another hash.
    #[test]
    fn activity_tells_histories_apart() {
        let [a, b] = [TxId(Hash([1; 32])), TxId(Hash([2; 32]))];
        let histories: [&[(u64, TxId)]; 7] = [
            &[],
            &[(1, a)],
            &[(2, a)],
            &[(1, b)],
            &[(1, a), (1, b)],
            &[(1, b), (1, a)],
            &[(1, a), (1, a)],
        ];
        let ends = histories.map(|touches| {
            let mut account = Account { balance: Amount(5), ..Account::default() };
            touches
                .iter()
                .for_each(|(height, transaction)| account.touch(Height(*height), transaction));
            assert_eq!((account.balance, account.nonce), (Amount(5), Nonce(0)));
            account.activity
        });
        for (i, end) in ends.iter().enumerate() {
            assert!(!ends[..i].contains(end), "history {i}");
        }
    }
}
