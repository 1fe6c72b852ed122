//! `tx`: shows what a node knows of a transaction.
//!
//! The details shown must hash to the id. If the node calls the transaction final, a certified
//! block must hold it. If the node has no proof of that, it must at least prove that the sender's
//! nonce is used up. Which transaction used the nonce is then only the node's word.

use ledger::address::decode_address;
use ledger::api::{self, TransactionInfo, TxInfo, TxStatus};
use ledger::chain::Chain;
use ledger::hash::TxId;
use ledger::transaction::{Body, Output, Transfer};
use ledger::units::{Amount, Height, Nonce, Timestamp};
use serde_json::{Value, json};

use super::send::memo_line;
use crate::error::WalletError;
use crate::rpc::clean;
use crate::terminal::{TerminalError, note, print, print_json, utc};
use crate::trust::{Trust, TrustError};
use crate::wallet::Wallet;

/// Runs the command.
pub(crate) fn run(wallet: &Wallet, id: TxId) -> Result<(), WalletError> {
    let chain = wallet.chain(None)?;
    let mut trust = Trust::connect(chain.clone(), &wallet.home, &wallet.node)?;
    let info: TxInfo = wallet.node.call(api::TX_GET, json!({ "id": id.to_string() }))?;
    let malformed = |reason: &str| wallet.node.malformed(api::TX_GET, reason);
    if info.id != id.to_string() {
        return Err(malformed("the answer is about another transaction").into());
    }
    let transfer = match &info.transaction {
        Some(transaction) => match transfer(&chain, transaction) {
            Some(transfer) if Body::Transfer(transfer.clone()).id(chain.id()) == id => {
                Some(transfer)
            }
            _ => return Err(malformed("the transaction's details do not have its id").into()),
        },
        None => None,
    };
    let mut proved = None;
    if info.status == TxStatus::Final {
        let height =
            info.height.ok_or_else(|| malformed("the status is final, but there is no height"))?;
        let transfer = transfer
            .as_ref()
            .ok_or_else(|| malformed("the status is final, but there are no details"))?;
        proved = Some(prove(&mut trust, id, transfer, Height(height))?);
    }
    let told = if wallet.json {
        let mut value = json!(info);
        value["proved"] = proved.map_or(Value::Bool(false), Proved::word);
        print_json(&value)
    } else {
        show(&chain, &info, transfer.as_ref(), proved)
    };
    if proved == Some(Proved::Transaction) {
        // The user has seen the outcome, so the same payment would be a new one from now on.
        wallet.home.forget(chain.id(), &id)?;
    }
    Ok(told?)
}

/// What is proved about a transaction that a node calls final.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proved {
    /// A certified block holds it.
    Transaction,
    /// Its nonce is used up, by it or by another transaction.
    Nonce,
}

impl Proved {
    fn word(self) -> Value {
        match self {
            Self::Transaction => "transaction".into(),
            Self::Nonce => "nonce".into(),
        }
    }
}

fn prove(
    trust: &mut Trust<'_>,
    id: TxId,
    transfer: &Transfer,
    height: Height,
) -> Result<Proved, WalletError> {
    let not_final = |reason: String| TrustError::NotFinal { id: id.to_string(), reason };
    match trust.transaction(&id)? {
        Some(proved) if proved == height => return Ok(Proved::Transaction),
        Some(proved) => {
            return Err(not_final(format!(
                "the proof is for height {proved}, but the node said {height}"
            ))
            .into());
        }
        None => {}
    }
    let sender = trust.account(&transfer.sender, height)?.account.unwrap_or_default();
    if sender.nonce <= transfer.nonce {
        return Err(not_final("the sender has not used the transaction's nonce".to_owned()).into());
    }
    note(
        "note: it is proved that the sender has used this nonce; that this transaction used it is \
         only the node's word",
    );
    Ok(Proved::Nonce)
}

/// The transfer that the details describe; `None` if they are not valid.
fn transfer(chain: &Chain, info: &TransactionInfo) -> Option<Transfer> {
    let account = |address: &str| decode_address(&chain.genesis().address_prefix, address).ok();
    let output = |output: &api::OutputInfo| {
        Some(Output { account: account(&output.address)?, amount: Amount(output.amount) })
    };
    Some(Transfer {
        sender: account(&info.sender)?,
        nonce: Nonce(info.nonce),
        outputs: info.outputs.iter().map(output).collect::<Option<_>>()?,
        fee: Amount(info.fee),
        expires_at: Timestamp(info.expires_at),
        memo: hex::decode(&info.memo).ok()?,
    })
}

fn show(
    chain: &Chain,
    info: &TxInfo,
    transfer: Option<&Transfer>,
    proved: Option<Proved>,
) -> Result<(), TerminalError> {
    let coin = &chain.genesis().coin;
    print(match info.status {
        TxStatus::Final => "status    final",
        TxStatus::Pending => "status    pending",
        TxStatus::Unknown => "status    unknown to this node",
    })?;
    let line = |name: &str, text: String| print(&format!("{name:8}  {text}"));
    match proved {
        Some(Proved::Transaction) => line("proved", "yes, a certified block holds it".to_owned())?,
        Some(Proved::Nonce) => {
            line("proved", "only that the sender has used its nonce".to_owned())?
        }
        None => {}
    }
    info.height.map_or(Ok(()), |height| line("height", height.to_string()))?;
    info.block_hash.as_ref().map_or(Ok(()), |hash| line("block", clean(hash)))?;
    info.accepted_at.map_or(Ok(()), |time| line("accepted", utc(time)))?;
    info.final_at.map_or(Ok(()), |time| line("final", utc(time)))?;
    let (Some(transfer), Some(details)) = (transfer, &info.transaction) else { return Ok(()) };
    line("from", details.sender.clone())?;
    for output in &details.outputs {
        line("to", format!("{}  {}", output.address, coin.format(Amount(output.amount))))?;
    }
    line("fee", coin.format(transfer.fee))?;
    line("nonce", transfer.nonce.to_string())?;
    line("expires", utc(transfer.expires_at.0))?;
    memo_line(&transfer.memo).map_or(Ok(()), |(name, text)| line(name, text))
}
