//! The chain that a fresh node joins: transfers of one output among many accounts, under the
//! default limits. It has a signature for every 177 bytes, so that the work of a replay is
//! measured.
//!
//! The first account begins with all money. The first transfers create the other accounts, one
//! each. From then on these pay each other in turn.

use std::path::Path;
use std::sync::Arc;

use anyhow::ensure;
use ledger::chain::{Chain, least_fee};
use ledger::genesis::{Genesis, GenesisAccount, Limits};
use ledger::signature::SigningKey;
use ledger::transaction::{Output, Transfer};
use ledger::units::{Amount, Nonce, Timestamp};
use node::chain_maker::{ChainMaker, sign_transfers};
use serde::Serialize;

use super::chain::{Facts, MadeChain, Writer, genesis, seed, validator_key};
use super::say;

/// Version of the recipe. It is raised when the same recipe gives another chain.
const VERSION: u32 = 2;
/// Validators of equal power, as many as a local network has.
const VALIDATORS: u16 = 4;
/// Transfers in a block; the last block may have fewer.
const BLOCK_TRANSFERS: u64 = 1_000;
/// Time between two blocks, milliseconds. With the least that the limits allow, 50 ms, a thousand
/// blocks would be within a minute, and with them the ends of all segments.
const BLOCK_TIME_MS: u64 = 1_000;
/// How long a transfer is valid after its block, milliseconds.
const LIFE_MS: u64 = 60_000;
/// Bytes of a transfer of one output without a memo.
pub(super) const TRANSFER_BYTES: u64 = 177;

/// The parameters that determine the bytes of a chain.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Recipe {
    version: u32,
    transfers: u64,
    accounts: u64,
}

/// Key of the account with this number.
fn account_key(number: u64) -> SigningKey {
    SigningKey::from_seed(&seed("account", number))
}

impl Recipe {
    /// A chain of this many transfers, after which there are this many accounts, at least 3.
    ///
    /// # Errors
    /// If the transfers do not suffice to create the accounts.
    pub(super) fn new(transfers: u32, accounts: u32) -> anyhow::Result<Self> {
        let recipe =
            Self { version: VERSION, transfers: transfers.into(), accounts: accounts.into() };
        let least = recipe.others();
        ensure!(
            recipe.transfers >= least,
            "{accounts} accounts need at least {least} transfers, which create them"
        );
        Ok(recipe)
    }

    /// The chain: reused from an earlier run, or made now and kept in this folder.
    pub(super) fn obtain(&self, folder: &Path) -> anyhow::Result<MadeChain> {
        let name = format!("transfers-{}", self.transfers);
        MadeChain::keep(folder, &name, self, self.genesis(), |directory| {
            say!("making a chain of {} transfers", self.transfers);
            self.make(directory)
        })
    }

    /// The account that is created last.
    pub(super) fn last_account(&self) -> ledger::signature::PublicKey {
        account_key(self.others()).public()
    }

    /// Number of accounts besides the first.
    const fn others(&self) -> u64 {
        self.accounts - 1
    }

    fn genesis(&self) -> Genesis {
        let first = account_key(0).public();
        let mut genesis = genesis(VALIDATORS, Limits::default());
        genesis.accounts = vec![GenesisAccount {
            name: String::new(),
            account: first,
            balance: Amount(u64::MAX / 2),
        }];
        // Fees go to an account that exists, so that they create no other.
        genesis.validators.iter_mut().for_each(|validator| validator.payout = first);
        genesis
    }

    fn make(&self, directory: &Path) -> anyhow::Result<Facts> {
        let chain = Chain::new(self.genesis());
        let validators = (0..VALIDATORS).map(|number| validator_key(number).signing_key());
        let mut maker = ChainMaker::new(Arc::clone(&chain), validators.collect());
        let mut writer = Writer::create(directory, &chain)?;
        let keys: Vec<SigningKey> = (0..self.accounts).map(account_key).collect();
        for first in (0..self.transfers).step_by(BLOCK_TRANSFERS as usize) {
            let time = Timestamp(maker.state().tip().time.0 + BLOCK_TIME_MS);
            let numbers = first..self.transfers.min(first + BLOCK_TRANSFERS);
            let transfers = sign_transfers(chain.id(), numbers, |number| {
                self.transfer(number, chain.limits(), time, &keys)
            });
            let committed = maker.block(time, transfers);
            writer.snapshot(maker.state(), &committed)?;
            writer.push(committed)?;
        }
        writer.finish()
    }

    /// The transfer of this number in a block of this time, and the key of its sender.
    fn transfer<'a>(
        &self,
        number: u64,
        limits: &Limits,
        time: Timestamp,
        keys: &'a [SigningKey],
    ) -> (Transfer, &'a SigningKey) {
        let fee = |created| least_fee(limits, TRANSFER_BYTES as usize, created);
        let others = self.others();
        let (sender, nonce, recipient, amount, fee) = match number.checked_sub(others) {
            None => {
                // Enough for all payments of this account.
                let amount = (self.transfers / others + 1) * (fee(0).0 + 1);
                (0, number, number + 1, amount, fee(1))
            }
            Some(payment) => {
                // Sender and recipient are far apart, so a block touches two accounts with each of
                // its transfers.
                let recipient = 1 + (payment + others / 2) % others;
                (1 + payment % others, payment / others, recipient, 1, fee(0))
            }
        };
        let sender = &keys[sender as usize];
        let transfer = Transfer {
            sender: sender.public(),
            nonce: Nonce(nonce),
            outputs: vec![Output {
                account: keys[recipient as usize].public(),
                amount: Amount(amount),
            }],
            fee,
            expires_at: Timestamp(time.0 + LIFE_MS),
            memo: Vec::new(),
        };
        (transfer, sender)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use ledger::codec;
    use ledger::store::{Kept, Store};
    use ledger::units::Height;

    use super::*;

    #[test]
    fn the_chain_has_the_accounts_transfers_and_times_of_its_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = Recipe::new(2_500, 600).unwrap();
        let made = recipe.obtain(folder.path()).unwrap();
        assert_eq!(made.genesis.limits, Limits::default());

        let db = made.directory.join("db");
        let opened = Store::open(&db, &Chain::new(made.genesis.clone())).unwrap();
        assert_eq!(opened.state.state().len(), 600);
        assert!(opened.state.account(&recipe.last_account()).nonce > Nonce(0));
        assert_eq!(opened.state.tip().height, Height(made.facts.height));
        let mut time = made.genesis.start_time;
        for (height, transfers) in [(1, 1_000), (2, 1_000), (3, 500)] {
            let block = opened.store.block(Height(height)).unwrap().here().unwrap();
            time.0 += 1_000;
            assert_eq!((block.header.time, block.transactions.len()), (time, transfers));
            for transaction in &block.transactions {
                assert_eq!(codec::encode(transaction).len() as u64, TRANSFER_BYTES);
                assert_eq!(transaction.body.transfer().outputs.len(), 1);
            }
        }
        assert_eq!(opened.store.block(Height(4)).unwrap(), Kept::Never);
    }

    #[test]
    fn an_unfinished_chain_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = Recipe::new(20, 3).unwrap();
        let directory = recipe.obtain(folder.path()).unwrap().directory;
        let facts = directory.join("facts.json");
        let whole = fs::read_to_string(&facts).unwrap();
        for unfinished in ["", &whole.replace("\"height\":1", "\"height\":2")] {
            assert_ne!(unfinished, whole);
            fs::write(&facts, unfinished).unwrap();
            recipe.obtain(folder.path()).unwrap();
            assert_eq!(fs::read_to_string(&facts).unwrap(), whole);
        }
    }

    #[test]
    fn each_account_is_created_by_a_transfer() {
        assert!(Recipe::new(998, 1_000).is_err());
        assert!(Recipe::new(999, 1_000).is_ok());
    }
}
