//! `send`: pays, waits until it is final, has that proved.

use std::time::Instant;

use ledger::api::{self, Submitted, code};
use ledger::chain::{Chain, least_fee};
use ledger::codec;
use ledger::hash::TxId;
use ledger::signature::{PublicKey, Signature, SigningKey};
use ledger::transaction::{Body, MEMO_BYTES_MAX, Output, Transaction, Transfer};
use ledger::units::{Amount, Height, Timestamp};
use serde_json::json;

use crate::cli::SendArgs;
use crate::error::WalletError;
use crate::finality;
use crate::keystore::Key;
use crate::rpc::{Node, RpcError};
use crate::terminal::{confirm, note, print, print_json, utc};
use crate::trust::{Proven, Trust};
use crate::wallet::{self, Wallet, now};

/// How long a transfer may wait for a block, unless the chain allows less.
const LIFETIME_MS: u64 = 10 * 60_000;

/// Runs the command. Prints the id alone, or id, height and status; at a timeout too, for what was signed may land.
pub(crate) fn run(wallet: &Wallet, args: &SendArgs) -> Result<(), WalletError> {
    let chain = wallet.chain(None)?;
    let keystore = wallet.keystore(&chain)?;
    let keys: Vec<Key> = keystore.keys().collect();
    let from = Wallet::key(&keys, &args.from)?;
    let sender = PublicKey(from.public_key);
    let mut transfer = Transfer {
        sender,
        nonce: Default::default(),
        outputs: vec![Output {
            account: Wallet::account(&chain, &keys, &args.to)?,
            amount: amount(&chain, &args.amount)?,
        }],
        fee: args.fee.as_deref().map(|fee| parse(&chain, fee)).transpose()?.unwrap_or_default(),
        expires_at: Timestamp(0),
        memo: memo(&args.memo)?,
    };

    let mut trust = Trust::connect(chain.clone(), &wallet.home, &wallet.node)?;
    let payer = trust.account(&sender, Height(0))?;
    let created = transfer.outputs.iter().try_fold(0, |created, output| {
        let exists = trust.account(&output.account, Height(0))?.account.is_some();
        Ok::<u64, WalletError>(if exists { created } else { created + 1 })
    })?;
    let least = least_fee(chain.limits(), bytes(&transfer), created);
    if args.fee.is_none() {
        transfer.fee = least;
    }
    check(&chain, &transfer, least, &payer)?;
    show(&chain, wallet, &from, &transfer, created);
    trust.age_note(now()).iter().for_each(|text| note(text));
    if !args.yes && !confirm("Send?")? {
        return Err(WalletError::Declined);
    }

    let seed = wallet.unlock(&chain, &keystore)?.signing_seed(from.name.as_str())?;
    // Again, because people take their time: this is what the transfer follows, and what its finality is proved from.
    let payer = trust.account(&sender, Height(0))?;
    transfer.nonce = payer.account.unwrap_or_default().nonce.max(payer.pending_nonce);
    transfer.expires_at = expires_at(&chain, payer.time, now());
    let expires_at = transfer.expires_at;
    let body = Body::Transfer(transfer);
    let id = body.id(chain.id());
    let transaction = body.sign(chain.id(), &SigningKey::from_seed(&seed));
    drop(seed);

    submit(&wallet.node, id, &transaction)?;
    note(&format!("submitted {id}, waiting until it is final"));
    let deadline = Instant::now() + args.timeout;
    let open = open(id, expires_at);
    // From here on the money may have moved, so no error may look as if it had not.
    let followed = finality::wait(&wallet.node, id, deadline).and_then(|height| {
        height.map(|height| finality::prove(&mut trust, &sender, &payer, id, height).map(|()| height)).transpose()
    });
    match followed {
        Ok(Some(height)) => {
            result(wallet, id, Some(height)).map_err(|error| error.after(format!("{id} is final at height {height}")))
        }
        Ok(None) => {
            tell_pending(wallet, id);
            Err(WalletError::TimedOut(format!("not proved final within {:?}. {open}", args.timeout)))
        }
        Err(cause) => {
            tell_pending(wallet, id);
            Err(WalletError::Open { cause: Box::new(cause), open })
        }
    }
}

/// Prints the id of what may still land. The error on stderr names it too, so a broken stdout loses nothing.
fn tell_pending(wallet: &Wallet, id: TxId) {
    if let Err(error) = result(wallet, id, None) {
        note(&format!("note: {error}"));
    }
}

fn parse(chain: &Chain, text: &str) -> Result<Amount, WalletError> {
    chain.genesis().coin.parse(text).map_err(|error| WalletError::Usage(error.to_string()))
}

fn amount(chain: &Chain, text: &str) -> Result<Amount, WalletError> {
    match parse(chain, text)? {
        Amount(0) => Err(WalletError::Usage("the amount is 0, expected more".to_owned())),
        amount => Ok(amount),
    }
}

fn memo(text: &str) -> Result<Vec<u8>, WalletError> {
    match text.len() {
        0..=MEMO_BYTES_MAX => Ok(text.as_bytes().to_vec()),
        got => Err(WalletError::Usage(format!("memo of {got} bytes, expected at most {MEMO_BYTES_MAX}"))),
    }
}

/// Size of the transaction. Numbers and signatures have fixed widths, so it is known before they are.
fn bytes(transfer: &Transfer) -> usize {
    codec::encode(&Transaction { body: Body::Transfer(transfer.clone()), signature: Signature([0; 64]) }).len()
}

/// Refuses what the chain would refuse, before anything is signed.
fn check(chain: &Chain, transfer: &Transfer, least: Amount, payer: &Proven) -> Result<(), WalletError> {
    let coin = &chain.genesis().coin;
    if transfer.fee < least {
        let (got, least) = (coin.format(transfer.fee), coin.format(least));
        let (reason, hint) = (format!("a fee of {got}, expected at least {least}"), "leave --fee away".to_owned());
        return Err(WalletError::Rejected { reason, hint });
    }
    let balance = payer.account.unwrap_or_default().balance;
    let needed = transfer.outputs.iter().try_fold(transfer.fee, |sum, output| sum.checked_add(output.amount.0));
    if needed.is_none_or(|needed| needed > balance) {
        let needed = needed.map_or_else(|| "more than there is of the coin".to_owned(), |needed| coin.format(needed));
        let reason = format!("the balance of {} does not cover {needed}, fee included", coin.format(balance));
        return Err(WalletError::Rejected {
            reason,
            hint: "send less, or wait for a payment to this account".to_owned(),
        });
    }
    Ok(())
}

/// Says on stderr what is going to be signed.
fn show(chain: &Chain, wallet: &Wallet, from: &Key, transfer: &Transfer, created: u64) {
    let genesis = chain.genesis();
    let new = match created {
        0 => String::new(),
        _ => format!(", {} of it because the recipient is new", genesis.coin.format(chain.limits().new_account_fee)),
    };
    note(&format!("from    {} ({})", wallet::address(chain, from), from.name));
    for output in &transfer.outputs {
        note(&format!("to      {}", ledger::address::encode_address(&genesis.address_prefix, &output.account)));
        note(&format!("amount  {}", genesis.coin.format(output.amount)));
    }
    note(&format!("fee     {}{new}", genesis.coin.format(transfer.fee)));
    if !transfer.memo.is_empty() {
        note(&format!("memo    {:?}", String::from_utf8_lossy(&transfer.memo)));
    }
    note(&format!("on      {} (chain {}), by way of {}", genesis.network, chain.id(), wallet.node.url()));
}

/// Not longer than half of what the chain allows, so that clocks may differ either way.
fn expires_at(chain: &Chain, head: Timestamp, now: Timestamp) -> Timestamp {
    let lifetime = LIFETIME_MS.min(chain.limits().expiry_ms_max / 2);
    Timestamp(now.max(head).0.saturating_add(lifetime))
}

fn submit(node: &Node, id: TxId, transaction: &Transaction) -> Result<(), WalletError> {
    let params = json!({ "transaction": hex::encode(codec::encode(transaction)) });
    match node.call::<Submitted>(api::TX_SUBMIT, params) {
        Ok(Submitted { id: got, .. }) if got == id.to_string() => Ok(()),
        Ok(_) => {
            let error = node.malformed(api::TX_SUBMIT, "it names another transaction than the one submitted");
            note(&format!("note: {error}; the transfer may have arrived"));
            Ok(())
        }
        // Cut off after it was sent: the node may have taken it, so only time tells.
        Err(RpcError::Unreachable { may_have_arrived: true, reason, .. }) => {
            note(&format!("note: no answer to the submission ({reason}); it may have arrived"));
            Ok(())
        }
        Err(error @ RpcError::Malformed { .. }) => {
            note(&format!("note: {error}; the transfer may have arrived"));
            Ok(())
        }
        Err(RpcError::Answer { code: code::REJECTED | code::MEMPOOL_FULL, message, data, .. }) => {
            let (word, hint) = data.map_or_else(Default::default, |data| (data.reason, data.hint));
            let reason = if word.is_empty() { message } else { format!("{message} ({word})") };
            let hint = if hint.is_empty() { "nothing was sent".to_owned() } else { hint };
            Err(WalletError::Rejected { reason, hint })
        }
        Err(error) => Err(error.into()),
    }
}

fn result(wallet: &Wallet, id: TxId, height: Option<Height>) -> Result<(), WalletError> {
    let status = if height.is_some() { "final" } else { "pending" };
    let height = height.map(|height| height.to_string());
    if wallet.json {
        print_json(&json!({ "id": id.to_string(), "height": height, "status": status }))
    } else {
        print(&id.to_string())
    }
}

/// What to know of a transfer that was submitted and is not proved to be final.
fn open(id: TxId, expires_at: Timestamp) -> String {
    format!(
        "It may still land, in blocks up to {}\n\
         hint: look with `cairn-wallet tx {id}`; sending again before that could pay twice",
        utc(expires_at.0)
    )
}
