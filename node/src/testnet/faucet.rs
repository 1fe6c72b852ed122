//! The faucet: pays from a template account, waits until the transfer is final, and has the node
//! prove this. The proof is verified under the genesis of the network.

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
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest time for an answer, beyond the time that the node was asked to wait.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Pause between two attempts. A node that does not answer, or does not know a transfer yet, tells
/// nobody when that changes.
const AGAIN: Duration = Duration::from_millis(200);

/// Held from before a payment takes its nonce until the node has the transfer. So two payments
/// never take the same nonce.
static TURN: Mutex<()> = Mutex::const_new(());

/// Pays an amount such as `10 CRN` to an address. Answers as `cairn-wallet send --json` does.
///
/// # Errors
/// `USAGE` for an address or amount that cannot be paid. `NOT_IN_TIME` if no node took the transfer
/// in time, or if it was submitted and is not final yet. `FAILED` for everything else.
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

    /// Pays through the first node that answers, and gives up its turn once that node has the
    /// transfer. If that node does not answer later, the other nodes are asked whether the transfer
    /// is final.
    fn run(self, rpc: &[String], turn: MutexGuard<'static, ()>) -> Result<Value, Failure> {
        let mut reason = "other payments took all the time".to_owned();
        let mut signed = None;
        let (id, taker) = 'submitted: loop {
            let urls = rpc.iter().enumerate().take_while(|_| !self.left().is_zero());
            for (taker, url) in urls {
                let client = self.client(url, Duration::ZERO).map_err(Failure::failed)?;
                match self.submit(&client, &mut signed) {
                    Ok(id) => break 'submitted (id, taker),
                    Err(Trouble::Later(text)) => reason = text,
                    Err(Trouble::Failed(failure)) => return Err(failure),
                }
            }
            if self.left().is_zero() {
                return Err(Failure::new(code::NOT_IN_TIME, format!("nothing was paid: {reason}")));
            }
            std::thread::sleep(AGAIN);
        };
        drop(turn);
        let height = self.await_final(rpc.iter().cycle().skip(taker), id)?;
        Ok(json!({ "id": id.to_string(), "height": height.to_string(), "status": "final" }))
    }

    /// Submits the transfer, and signs it first if there is none yet. Each further attempt submits
    /// the same signed transfer, so that an attempt whose answer was lost does not pay twice. Only
    /// if another transfer has taken the nonce, the next attempt signs a new one.
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

    /// Asks one node after the other until one proves that the transfer is final, and returns its
    /// height. The URLs must not end.
    fn await_final<'a>(
        &self,
        urls: impl Iterator<Item = &'a String>,
        id: TxId,
    ) -> Result<Height, Failure> {
        let mut reason = "";
        for url in urls {
            let left = self.left();
            if left.is_zero() {
                break;
            }
            // In the last seconds, nodes are asked to answer at once, so that they do in time.
            let wait = left.saturating_sub(ANSWER_MAX).min(WAIT_MAX);
            let params = json!({ "id": id.to_string(), "wait_ms": wait.as_millis() });
            let told = self.client(url, wait).and_then(|client| client.call(api::TX_GET, params));
            reason = match told {
                Ok(TxInfo { status: TxStatus::Final, .. }) => {
                    return self.prove(url, id).map_err(|reason| {
                        let text = "is final by the node's word, but not proved";
                        Failure::failed(format!("{id} {text}: {reason}"))
                    });
                }
                Ok(info) if info.status == TxStatus::Unknown => {
                    "the node that was asked last does not know it"
                }
                Ok(_) => "it waits for a block",
                Err(_) => "the node that was asked last does not answer",
            };
            // No event tells that another node would answer better: see [`AGAIN`].
            std::thread::sleep(AGAIN.min(self.left()));
        }
        let seconds = FINAL_MAX.as_secs();
        let text = format!(
            "{id} was submitted and is not final after {seconds} s: {reason}; it may still become \
             final"
        );
        Err(Failure::new(code::NOT_IN_TIME, text))
    }

    /// Has the node prove that a certified block holds the transfer, and returns its height.
    fn prove(&self, url: &str, id: TxId) -> anyhow::Result<Height> {
        // The transfer is final, so the deadline does not count any more.
        let client = Client::new(url, ANSWER_MAX)?;
        let proof: TxProofInfo = client.call(api::TX_PROOF, json!({ "id": id.to_string() }))?;
        let (header, certificate) = (hex::decode(proof.header)?, hex::decode(proof.certificate)?);
        let header = FinalHeader::verify(&self.chain, &header, &certificate)?;
        let (raw, inclusion) = (hex::decode(proof.raw)?, hex::decode(proof.inclusion)?);
        let held = header.transaction(&self.chain, &raw, &inclusion)?;
        anyhow::ensure!(held.id() == id, "the proof is for another transaction");
        Ok(header.header().height)
    }

    /// The time until the deadline.
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// A client for a call in which the node may wait this long. The call ends at the deadline at
    /// the latest.
    fn client(&self, url: &str, wait: Duration) -> Result<Client, ClientError> {
        Client::new(url, self.left().min(wait + ANSWER_MAX))
    }
}

/// The node's reason for programs; empty without one.
fn reason(error: &ClientError) -> &str {
    match error {
        ClientError::Answer { data: Some(data), .. } => &data.reason,
        _ => "",
    }
}

/// Sorts an error by whether another attempt may succeed.
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use ledger::hash::Hash;
    use ledger::signature::SigningKey;

    use super::*;

    fn payment(time: Duration) -> Payment {
        let genesis = Genesis::from_json(crate::testnet::TEMPLATE.as_bytes()).unwrap();
        let key = SigningKey::from_seed(&[1; 32]).public();
        let address = ledger::address::encode_address(&genesis.address_prefix, &key);
        let payment = Payment::new(&genesis, &address, "1 CRN").unwrap();
        Payment { deadline: Instant::now() + time, ..payment }
    }

    fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        (listener, url)
    }

    #[test]
    fn a_payment_ends_in_time_though_no_node_answers() {
        let nodes: Vec<_> = (0..4).map(|_| listen()).collect();
        let urls: Vec<String> = nodes.iter().map(|(_, url)| url.clone()).collect();
        let start = Instant::now();
        let turn = TURN.try_lock().unwrap();
        let failure = payment(Duration::from_secs(1)).run(&urls, turn).unwrap_err();
        assert_eq!(failure.code, code::NOT_IN_TIME, "{failure}");
        // If each node had a time of its own, this would take four times as long as one node may
        // take.
        assert!(start.elapsed() < 3 * ANSWER_MAX, "{:?}", start.elapsed());
    }

    #[test]
    fn other_nodes_are_asked_when_the_one_that_took_the_transfer_is_gone() {
        let (gone, killed) = listen();
        drop(gone);
        let (listener, other) = listen();
        let answers = std::thread::spawn(move || {
            for stream in listener.incoming().take(2) {
                let (mut stream, mut request, mut byte) = (stream.unwrap(), Vec::new(), [0]);
                while !request.ends_with(b"}}") {
                    stream.read_exact(&mut byte).unwrap();
                    request.extend(byte);
                }
                let info = r#"{"id":"","status":"final","height":"1","block_hash":null,"index":null,
                    "accepted_at":null,"final_at":null,"transaction":null}"#;
                let body = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{info}}}"#);
                let length = body.len();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
                stream.write_all((head + &body).as_bytes()).unwrap();
            }
        });
        let urls = [killed, other];
        let payment = payment(Duration::from_secs(60));
        let failure = payment.await_final(urls.iter().cycle(), TxId(Hash::ZERO)).unwrap_err();
        // The other node says that the transfer is final, and proves nothing.
        assert_eq!(failure.code, code::FAILED, "{failure}");
        assert!(failure.message.contains("final by the node's word"), "{failure}");
        answers.join().unwrap();
    }
}
