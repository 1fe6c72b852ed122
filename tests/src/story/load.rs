//! Transfers signed by a story, and a record of those that a node reported final.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ledger::genesis::template_key;
use ledger::hash::ChainId;
use ledger::signature::{PublicKey, SigningKey};
use ledger::transaction::{Body, Output, Transaction, Transfer};
use ledger::units::{Amount, Nonce, Timestamp};
use testkit::{Failure, Rpc};

/// Fee above the cost of any transfer here.
const FEE: Amount = Amount(100_000);
/// Transfers submitted before the status of the first is requested.
const BURST: usize = 20;
/// How long to wait for one transfer to become final.
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

/// Signs transfers for one account of the template.
pub struct Payer {
    key: SigningKey,
    chain: ChainId,
    /// Nonce of the next transfer.
    pub nonce: u64,
    to: PublicKey,
}

/// Ids of transfers that were reported final.
#[derive(Default)]
pub struct Reported(Mutex<BTreeSet<String>>);

impl Payer {
    /// Pays from one of the template's accounts to another, on one chain.
    ///
    /// # Panics
    /// When the template has no such account.
    #[must_use]
    pub fn new(from: &str, to: &str, chain: ChainId) -> Self {
        let key = |name| {
            template_key(name).unwrap_or_else(|| panic!("{name} is no account of the template"))
        };
        Self::with_key(key(from), key(to).public(), chain)
    }

    /// Pays with this key.
    #[must_use]
    pub const fn with_key(key: SigningKey, to: PublicKey, chain: ChainId) -> Self {
        Self { key, chain, nonce: 0, to }
    }

    /// The paying account.
    #[must_use]
    pub fn account(&self) -> PublicKey {
        self.key.public()
    }

    /// Nonce of the next transfer.
    #[must_use]
    pub const fn nonce(&self) -> u64 {
        self.nonce
    }

    /// Signs the next transfer, which pays the smallest amount.
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

    /// Sets the nonce to the first one after all transfers of this account that the node knows.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn catch_up(&mut self, rpc: &Rpc) -> Result<(), Failure> {
        self.nonce = rpc.account(&self.account().to_string())?.pending_nonce;
        Ok(())
    }

    /// Pays through a node until a call fails, as it does when the node is killed, and returns the
    /// failure. Records the transfers that the node reported final.
    pub fn pay_until_silent(&mut self, rpc: &Rpc, reported: &Reported) -> Failure {
        loop {
            if let Err(failure) = self.burst(rpc, reported) {
                return failure;
            }
        }
    }

    fn burst(&mut self, rpc: &Rpc, reported: &Reported) -> Result<(), Failure> {
        self.catch_up(rpc)?;
        let ids: Vec<String> =
            (0..BURST).map(|_| rpc.submit(&self.transfer(""))).collect::<Result<_, _>>()?;
        for id in ids {
            if rpc.is_final(&id, WAIT)? {
                reported.add(id);
            }
        }
        Ok(())
    }
}

impl Reported {
    /// Records one.
    pub fn add(&self, id: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    /// Number of recorded transfers.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Checks at a node that each of them is final.
    ///
    /// # Panics
    /// When one is not final there.
    pub fn assert_final_at(&self, name: &str, rpc: &Rpc) {
        let ids = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lost: Vec<&String> =
            ids.iter().filter(|id| rpc.is_final(id, Duration::ZERO) != Ok(true)).collect();
        assert!(
            lost.is_empty(),
            "{name} has lost {} of {} final transfers: {lost:?}",
            lost.len(),
            ids.len()
        );
    }
}
