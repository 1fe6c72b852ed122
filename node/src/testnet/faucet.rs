//! The faucet: pays from a template account, waits until the transfer is final, and has that proved
//! by the node under the genesis of the network.

use std::time::{Duration, Instant};

use ledger::address::decode_address;
use ledger::api::{self, AccountInfo, Submitted, TxInfo, TxProofInfo, TxStatus};
use ledger::chain::Chain as LedgerChain;
use ledger::codec;
use ledger::genesis::Genesis;
use ledger::hash::TxId;
use ledger::light::FinalHeader;
use ledger::signature::PublicKey;
use ledger::transaction::Transaction;
use ledger::units::{Amount, Height};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use super::load::traffic::Chain;
use super::payers::{Payers, sign};
use crate::client::{Client, ClientError};
use crate::clock::wall_ms;
use crate::control::{Failure, code};

/// Longest time until a payment is final.
const FINAL_MAX: Duration = Duration::from_secs(30);
/// Longest time that a node is asked to hold a request open.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest time for an answer, beyond the time that the node was asked to wait.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Pause between two attempts. A node that does not answer, or does not know a transfer yet, tells
/// nobody when that changes.
const AGAIN: Duration = Duration::from_millis(200);

/// One payment at a time takes a nonce. The next one can begin once the node has the transfer.
static TURN: Mutex<()> = Mutex::const_new(());

/// Pays an amount such as `10 CRN` to an address. Answers as `cairn-wallet send --json` does.
///
/// # Errors
/// `USAGE` for an address or amount of another form, `NOT_IN_TIME` for a transfer that was
/// submitted and is not final yet, `FAILED` for the rest.
pub(super) async fn pay(chain: Chain, address: String, amount: String) -> Result<Value, Failure> {
    let Chain { genesis, rpc } = chain;
    let payment = Payment::new(&genesis, &address, &amount)?;
    let turn = TURN.lock().await;
    let paying = tokio::task::spawn_blocking(move || payment.run(&rpc, turn));
    paying.await.map_err(Failure::failed)?
}

/// A payment to make.
struct Payment {
    chain: std::sync::Arc<LedgerChain>,
    payers: Payers,
    to: PublicKey,
    amount: Amount,
    deadline: Instant,
}

/// Why a node did not take a transfer.
enum Trouble {
    /// Another attempt may succeed.
    Later(String),
    Failed(Failure),
}

impl Payment {
    fn new(genesis: &Genesis, address: &str, amount: &str) -> Result<Self, Failure> {
        let usage = |error: String| Failure::new(code::USAGE, error);
        let to = decode_address(&genesis.address_prefix, address)
            .map_err(|error| usage(format!("{address}: {error}")))?;
        let amount = genesis.coin.parse(amount).map_err(|error| usage(error.to_string()))?;
        if amount == Amount(0) {
            return Err(usage("the amount is 0, expected more".to_owned()));
        }
        let payers = Payers::of(genesis).map_err(Failure::failed)?;
        let chain = LedgerChain::new(genesis.clone());
        Ok(Self { chain, payers, to, amount, deadline: Instant::now() + FINAL_MAX })
    }

    /// Pays through the first node that answers. Gives up its turn once that node has the transfer.
    fn run(self, rpc: &[String], turn: MutexGuard<'static, ()>) -> Result<Value, Failure> {
        let mut reason = "no node runs".to_owned();
        let mut signed = None;
        let (id, client) = 'submitted: loop {
            for url in rpc {
                let client = Client::new(url, WAIT_MAX + ANSWER_MAX).map_err(Failure::failed)?;
                match self.submit(&client, &mut signed) {
                    Ok(id) => break 'submitted (id, client),
                    Err(Trouble::Later(text)) => reason = text,
                    Err(Trouble::Failed(failure)) => return Err(failure),
                }
            }
            if Instant::now() >= self.deadline {
                return Err(Failure::new(code::NOT_IN_TIME, format!("nothing was paid: {reason}")));
            }
            std::thread::sleep(AGAIN);
        };
        drop(turn);
        self.await_final(&client, id)?;
        let height = self.prove(&client, id).map_err(|reason| {
            Failure::failed(format!("{id} is final by the node's word, but not proved: {reason}"))
        })?;
        Ok(json!({ "id": id.to_string(), "height": height.to_string(), "status": "final" }))
    }

    /// Submits the transfer, and signs it first if there is none yet. Once it is signed, each
    /// attempt submits the same one, so that no attempt whose answer was lost pays twice.
    fn submit(&self, client: &Client, signed: &mut Option<Transaction>) -> Result<TxId, Trouble> {
        let status = client.status().map_err(trouble)?;
        let (got, expected) = (status.chain_id, self.chain.id().to_string());
        if got != expected {
            return Err(Trouble::Later(format!("a node of the chain {got} is there")));
        }
        let transaction = match signed {
            Some(transaction) => transaction,
            None => signed.insert(self.sign(client)?),
        };
        let id = transaction.body.id(self.chain.id());
        let params = json!({ "transaction": hex::encode(codec::encode(transaction)) });
        client.call::<Submitted>(api::TX_SUBMIT, params).map(|_| id).map_err(|error| {
            // Another program has taken the nonce.
            if matches!(reason(&error), "nonce_used" | "underpriced") {
                *signed = None;
                return Trouble::Later(error.to_string());
            }
            trouble(error)
        })
    }

    fn sign(&self, client: &Client) -> Result<Transaction, Trouble> {
        let key = &self.payers.faucet;
        let params = json!({ "account": key.public().to_string() });
        let account: AccountInfo = client.call(api::ACCOUNT_GET, params).map_err(trouble)?;
        // Whether the recipient exists does not matter: the fee of a new account always suffices.
        let (rules, payer) = ((self.chain.id(), self.chain.limits()), (key, account.pending_nonce));
        let signed = sign(rules, payer, (self.to, self.amount), true, wall_ms());
        self.check_balance(&signed, Amount(account.balance))?;
        Ok(signed)
    }

    fn check_balance(&self, signed: &Transaction, balance: Amount) -> Result<(), Trouble> {
        let needed = self.amount.checked_add(signed.body.transfer().fee.0);
        if needed.is_some_and(|needed| needed <= balance) {
            return Ok(());
        }
        let coin = &self.chain.genesis().coin;
        Err(Trouble::Failed(Failure::failed(format!(
            "the faucet has {}, which does not cover {} and the fee",
            coin.format(balance),
            coin.format(self.amount)
        ))))
    }

    fn await_final(&self, client: &Client, id: TxId) -> Result<(), Failure> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let wait_ms = u64::try_from(left.min(WAIT_MAX).as_millis()).unwrap_or_default();
            let params = json!({ "id": id.to_string(), "wait_ms": wait_ms });
            let reason = match client.call::<TxInfo>(api::TX_GET, params) {
                Ok(info) if info.status == TxStatus::Final => return Ok(()),
                Ok(info) if info.status == TxStatus::Unknown => "its node does not know it",
                Ok(_) => "it waits for a block",
                Err(_) => "its node does not answer",
            };
            if left.is_zero() {
                let text = format!(
                    "{id} was submitted and is not final after {} s: {reason}; it may still become \
                     final",
                    FINAL_MAX.as_secs()
                );
                return Err(Failure::new(code::NOT_IN_TIME, text));
            }
            if reason != "it waits for a block" {
                std::thread::sleep(AGAIN.min(left));
            }
        }
    }

    /// Has the node prove that a certified block holds the transfer, and returns its height.
    fn prove(&self, client: &Client, id: TxId) -> anyhow::Result<Height> {
        let proof: TxProofInfo = client.call(api::TX_PROOF, json!({ "id": id.to_string() }))?;
        let (header, certificate) = (hex::decode(proof.header)?, hex::decode(proof.certificate)?);
        let header = FinalHeader::verify(&self.chain, &header, &certificate)?;
        let (raw, inclusion) = (hex::decode(proof.raw)?, hex::decode(proof.inclusion)?);
        let held = header.transaction(&self.chain, &raw, &inclusion)?;
        anyhow::ensure!(held.id() == id, "the proof is for another transaction");
        Ok(header.header().height)
    }
}

/// The node's reason for programs; empty without one.
fn reason(error: &ClientError) -> &str {
    match error {
        ClientError::Answer { data: Some(data), .. } => &data.reason,
        _ => "",
    }
}

/// Whether a call may succeed later.
fn trouble(error: ClientError) -> Trouble {
    use api::code::{MEMPOOL_FULL, OVER_BUDGET, UNAVAILABLE};
    let text = error.to_string();
    match error {
        ClientError::Unreachable { .. } | ClientError::NotANode { .. } => Trouble::Later(text),
        ClientError::Answer { code: UNAVAILABLE | OVER_BUDGET | MEMPOOL_FULL, .. } => {
            Trouble::Later(text)
        }
        _ => Trouble::Failed(Failure::failed(text)),
    }
}
