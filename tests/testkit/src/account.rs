//! An account that pays through a node, and has the node prove its balances and payments.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ledger::address::{decode_address, encode_address};
use ledger::api::{self, AccountInfo, AccountProofInfo, TxInfo, TxProofInfo, TxStatus};
use ledger::chain::{Chain, least_fee};
use ledger::codec;
use ledger::hash::TxId;
use ledger::light::FinalHeader;
use ledger::signature::{PublicKey, SigningKey};
use ledger::state::Account as Entry;
use ledger::transaction::{Body, Output, Transaction, Transfer};
use ledger::units::{Amount, Nonce, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{Error, Logs};
use crate::rpc::{Failure, Rpc};
use crate::wait::poll;

/// Longest time that a node is asked to hold a request open.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Time from signing to expiry of a transfer, unless the chain allows less.
const EXPIRY_MS: u64 = 600_000;

/// Height of the highest header that any account of a network has seen proved. No proof shows that
/// there is no later block. But once one account has seen a block, no account accepts an older
/// state.
#[derive(Debug, Default)]
pub(crate) struct Seen(AtomicU64);

/// An account of a network in a test. It pays through one node, and checks the node's answers with
/// [`ledger::light`]: a payment is over when a proof shows it in a block that a quorum of the
/// genesis validators signed.
#[derive(Debug)]
pub struct Account {
    key: SigningKey,
    chain: Arc<Chain>,
    rpc: Rpc,
    seen: Arc<Seen>,
    patience: Duration,
    /// Held from reading the nonce to submitting, so that two threads do not use one nonce.
    turn: Mutex<()>,
}

/// A transfer that a node has accepted, and that may not be final yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Its id.
    pub id: TxId,
    at: Instant,
}

/// A transfer that is proved to be final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Its id.
    pub id: TxId,
    /// Height of its block.
    pub height: u64,
    /// Fee that it paid.
    pub fee: Amount,
    /// From the submission to the proof, as this test saw it.
    pub took: Duration,
}

/// What an account has, proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// The balance; zero for an account that does not exist.
    pub amount: Amount,
    /// Nonce of its next transfer.
    pub nonce: u64,
    /// Height of the block under which it is proved; 0 for the genesis.
    pub height: u64,
}

struct Proved {
    entry: Option<Entry>,
    height: u64,
    pending_nonce: u64,
}

impl Account {
    pub(crate) const fn new(
        key: SigningKey,
        chain: Arc<Chain>,
        rpc: Rpc,
        seen: Arc<Seen>,
        patience: Duration,
    ) -> Self {
        Self { key, chain, rpc, seen, patience, turn: Mutex::new(()) }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> String {
        self.address_of(&self.public())
    }

    fn address_of(&self, key: &PublicKey) -> String {
        encode_address(&self.chain.genesis().address_prefix, key)
    }

    /// Its public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// The node that it pays through.
    #[must_use]
    pub const fn rpc(&self) -> &Rpc {
        &self.rpc
    }

    /// Pays an amount such as `1.5 CRN` to an address, waits until the transfer is final, and has
    /// the node prove it. The fee is the least one.
    ///
    /// # Errors
    /// [`Error::Input`] for a text that is no address or amount, [`Error::Call`] with the node's
    /// reason if the node refuses the transfer, and those of [`Self::prove`].
    pub fn pay(&self, to: &str, amount: &str) -> Result<Payment, Error> {
        self.prove(&self.submit(to, amount)?)
    }

    /// Signs and submits a transfer, without waiting until it is final.
    ///
    /// # Errors
    /// As [`Self::pay`], without those of the wait.
    pub fn submit(&self, to: &str, amount: &str) -> Result<Submission, Error> {
        let genesis = self.chain.genesis();
        let account = decode_address(&genesis.address_prefix, to)
            .map_err(|error| Error::Input(error.to_string()))?;
        let amount = genesis.coin.parse(amount).map_err(|error| Error::Input(error.to_string()))?;
        let created = u64::from(self.proved(&account)?.entry.is_none());
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let payer = self.proved(&self.public())?;
        let at = Instant::now();
        let transaction = self.sign(Output { account, amount }, payer.pending_nonce, created);
        let id = transaction.body.id(self.chain.id());
        self.call::<Value>(
            api::TX_SUBMIT,
            &json!({ "transaction": hex::encode(codec::encode(&transaction)) }),
        )?;
        Ok(Submission { id, at })
    }

    fn sign(&self, output: Output, nonce: u64, created: u64) -> Transaction {
        let limits = self.chain.limits();
        let sign = |fee: Amount| {
            let transfer = Transfer {
                sender: self.public(),
                nonce: Nonce(nonce),
                outputs: vec![output.clone()],
                fee,
                expires_at: Timestamp(now_ms() + EXPIRY_MS.min(limits.expiry_ms_max / 2)),
                memo: Vec::new(),
            };
            Body::Transfer(transfer).sign(self.chain.id(), &self.key)
        };
        // The fee depends on the size. The size does not depend on the fee, which has a fixed
        // width, so any fee serves to find it.
        let bytes = codec::encode(&sign(Amount(u64::MAX))).len();
        sign(least_fee(limits, bytes, created))
    }

    /// Waits until the node calls a transfer final, and has the node prove it.
    ///
    /// # Errors
    /// [`Error::NotInTime`] for a transfer that does not become final; [`Error::Unproved`] for a
    /// node that calls it final and does not prove it.
    pub fn prove(&self, submission: &Submission) -> Result<Payment, Error> {
        if !self.is_final(submission, self.patience)? {
            return Err(Error::NotInTime {
                waited_for: format!("transfer {} is final at {}", submission.id, self.rpc.url()),
                within: self.patience,
                last: "not final".to_owned(),
                logs: Logs::default(),
            });
        }
        let what = || format!("that transfer {} is final", submission.id);
        let id = submission.id.to_string();
        let proof: TxProofInfo = self.call(api::TX_PROOF, &json!({ "id": id }))?;
        let header = self.header(&proof.header, &proof.certificate)?;
        let transaction = self.bytes(&proof.raw)?;
        let inclusion = self.bytes(&proof.inclusion)?;
        let held = header
            .transaction(&self.chain, &transaction, &inclusion)
            .map_err(|error| self.unproved(&what(), &error.to_string()))?;
        if held.id() != submission.id {
            return Err(self.unproved(&what(), "the proof is for another transfer"));
        }
        let height = header.header().height.0;
        self.seen.0.fetch_max(height, Ordering::SeqCst);
        let fee = held.transfer().fee;
        Ok(Payment { id: submission.id, height, fee, took: submission.at.elapsed() })
    }

    /// Whether the node calls a transfer final, now or within this time. This is the node's word
    /// alone. It is no error if the node does not answer during this time.
    ///
    /// # Errors
    /// [`Error::Call`] with a node's refusal.
    pub fn is_final(&self, submission: &Submission, within: Duration) -> Result<bool, Error> {
        let deadline = Instant::now() + within;
        let id = submission.id.to_string();
        // The node answers when the transfer is final. The pause between two polls only matters
        // for a node that answers at once or not at all.
        let found = poll(within, || {
            let wait = deadline.saturating_duration_since(Instant::now()).min(WAIT_MAX);
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            match self.call::<TxInfo>(api::TX_GET, &json!({ "id": id, "wait_ms": wait_ms })) {
                Ok(info) => (info.status == TxStatus::Final).then_some(Ok(())),
                Err(error) if is_passing(&error) => None,
                Err(error) => Some(Err(error)),
            }
        });
        found.transpose().map(|found| found.is_some())
    }

    /// Its balance, proved under a certified header that is no older than any that an account of
    /// this network has seen: after [`Self::pay`], the payee's balance includes the payment.
    ///
    /// # Errors
    /// [`Error::Unproved`]; [`Error::NotInTime`] for a node that stays behind.
    pub fn balance(&self) -> Result<Balance, Error> {
        let Proved { entry, height, .. } = self.proved(&self.public())?;
        let entry = entry.unwrap_or_default();
        Ok(Balance { amount: entry.balance, nonce: entry.nonce.0, height })
    }

    fn proved(&self, account: &PublicKey) -> Result<Proved, Error> {
        let address = self.address_of(account);
        let found = poll(self.patience, || match self.prove_account(account, &address) {
            Ok(proved) if proved.height >= self.seen.0.load(Ordering::SeqCst) => {
                self.seen.0.fetch_max(proved.height, Ordering::SeqCst);
                Some(Ok(proved))
            }
            // The node is behind, or does not answer now.
            Ok(_) => None,
            Err(error) if is_passing(&error) => None,
            Err(error) => Some(Err(error)),
        });
        found.unwrap_or_else(|| {
            Err(Error::NotInTime {
                waited_for: format!(
                    "{} proves account {address} at height {} or later",
                    self.rpc.url(),
                    self.seen.0.load(Ordering::SeqCst)
                ),
                within: self.patience,
                last: "it is behind or does not answer".to_owned(),
                logs: Logs::default(),
            })
        })
    }

    fn prove_account(&self, account: &PublicKey, address: &str) -> Result<Proved, Error> {
        let params = json!({ "account": address });
        let info: AccountProofInfo = match self.call(api::ACCOUNT_PROOF, &params) {
            // Before the first block there is no header to prove an account under. The account is
            // then as the genesis says.
            Err(error) if code(&error) == Some(api::code::NOT_FOUND) => {
                return self.at_genesis(account, &params);
            }
            answer => answer?,
        };
        let header = self.header(&info.head.header, &info.head.certificate)?;
        let proof = self.bytes(&info.proof)?;
        let entry = header
            .account(account, &proof)
            .map_err(|error| self.unproved(&format!("account {address}"), &error.to_string()))?;
        let height = header.header().height.0;
        Ok(Proved { entry, height, pending_nonce: info.pending_nonce })
    }

    fn at_genesis(&self, account: &PublicKey, params: &Value) -> Result<Proved, Error> {
        let genesis = self.chain.genesis();
        let entry = genesis.accounts.iter().find(|entry| entry.account == *account);
        let entry = entry.map(|entry| Entry { balance: entry.balance, ..Entry::default() });
        let info: AccountInfo = self.call(api::ACCOUNT_GET, params)?;
        Ok(Proved { entry, height: 0, pending_nonce: info.pending_nonce })
    }

    fn header(&self, header: &str, certificate: &str) -> Result<FinalHeader, Error> {
        let (header, certificate) = (self.bytes(header)?, self.bytes(certificate)?);
        FinalHeader::verify(&self.chain, &header, &certificate)
            .map_err(|error| self.unproved("its header", &error.to_string()))
    }

    fn bytes(&self, text: &str) -> Result<Vec<u8>, Error> {
        hex::decode(text).map_err(|error| self.unproved("its bytes", &error.to_string()))
    }

    fn call<T: DeserializeOwned>(&self, method: &str, params: &Value) -> Result<T, Error> {
        self.rpc.call(method, params).map_err(Error::call(self.rpc.url(), method))
    }

    fn unproved(&self, what: &str, reason: &str) -> Error {
        Error::Unproved {
            url: self.rpc.url().to_owned(),
            what: what.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

fn code(error: &Error) -> Option<i32> {
    let Error::Call { failure, .. } = error else { return None };
    failure.code().and_then(|code| i32::try_from(code).ok())
}

/// Whether a call failed for a reason that may pass: the node is killed, starts, is busy, or does
/// not know yet what is asked for.
fn is_passing(error: &Error) -> bool {
    matches!(error, Error::Call { failure: Failure::Silent(_), .. })
        || matches!(
            code(error),
            Some(api::code::UNAVAILABLE | api::code::NOT_FOUND | api::code::OVER_BUDGET)
        )
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
