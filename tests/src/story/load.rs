//! Transfers signed here, and a memory of those that a node called final.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ledger::genesis::template_key;
use ledger::hash::ChainId;
use ledger::signature::{PublicKey, SigningKey};
use ledger::transaction::{Body, Output, Transaction, Transfer};
use ledger::units::{Amount, Nonce, Timestamp};

use super::rpc::{Failure, Rpc};

/// Far more than any transfer here costs.
const FEE: Amount = Amount(100_000);
/// Transfers that are submitted before the first of them is asked for.
const BURST: usize = 20;
/// How long to wait for one of them.
const WAIT: Duration = Duration::from_secs(20);

/// Milliseconds since 1970.
///
/// # Panics
/// When this machine's clock is before 1970.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
    u64::try_from(since.as_millis()).expect("not so far in the future")
}

/// Signs for one of the template's accounts.
pub struct Payer {
    key: SigningKey,
    chain: ChainId,
    /// Of the next transfer.
    pub nonce: u64,
    to: PublicKey,
}

/// Transfers that were reported final.
#[derive(Default)]
pub struct Reported(Mutex<BTreeSet<String>>);

impl Payer {
    /// Pays from one of the template's accounts to another, on one chain.
    ///
    /// # Panics
    /// When the template has no such account.
    #[must_use]
    pub fn new(from: &str, to: &str, chain: ChainId) -> Self {
        let key = |name| template_key(name).unwrap_or_else(|| panic!("{name} is no account of the template"));
        Self::with_key(key(from), key(to).public(), chain)
    }

    /// Pays with this key.
    #[must_use]
    pub const fn with_key(key: SigningKey, to: PublicKey, chain: ChainId) -> Self {
        Self { key, chain, nonce: 0, to }
    }

    /// Who pays.
    #[must_use]
    pub fn account(&self) -> PublicKey {
        self.key.public()
    }

    /// Nonce of the next transfer.
    #[must_use]
    pub const fn nonce(&self) -> u64 {
        self.nonce
    }

    /// The next transfer, of one coin's smallest unit.
    pub fn transfer(&mut self, memo: &str) -> Transaction {
        let transfer = Transfer {
            sender: self.account(),
            nonce: Nonce(self.nonce),
            outputs: vec![Output { account: self.to, amount: Amount(1) }],
            fee: FEE,
            expires_at: Timestamp(now_ms() + 600_000),
            memo: memo.as_bytes().to_vec(),
        };
        self.nonce += 1;
        Body::Transfer(transfer).sign(self.chain, &self.key)
    }

    /// Continues after all that the node knows of this account.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn catch_up(&mut self, rpc: &Rpc) -> Result<(), Failure> {
        self.nonce = rpc.account(&self.account().to_string())?.pending_nonce;
        Ok(())
    }

    /// Pays by way of a node, again and again, until that fails: the node was killed. Remembers what the node called final.
    pub fn pay_until_silent(&mut self, rpc: &Rpc, reported: &Reported) -> Failure {
        loop {
            if let Err(failure) = self.burst(rpc, reported) {
                return failure;
            }
        }
    }

    fn burst(&mut self, rpc: &Rpc, reported: &Reported) -> Result<(), Failure> {
        self.catch_up(rpc)?;
        let ids: Vec<String> = (0..BURST).map(|_| rpc.submit(&self.transfer(""))).collect::<Result<_, _>>()?;
        for id in ids {
            if rpc.is_final(&id, WAIT)? {
                reported.add(id);
            }
        }
        Ok(())
    }
}

impl Reported {
    /// Remembers one.
    pub fn add(&self, id: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Asks a node for each of them.
    ///
    /// # Panics
    /// When one is not final there.
    pub fn assert_final_at(&self, name: &str, rpc: &Rpc) {
        let ids = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lost: Vec<&String> = ids.iter().filter(|id| rpc.is_final(id, Duration::ZERO) != Ok(true)).collect();
        assert!(lost.is_empty(), "{name} has lost {} of {} final transfers: {lost:?}", lost.len(), ids.len());
    }
}
