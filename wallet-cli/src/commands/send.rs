//! `send`: pays, waits until the transfer is final, and verifies a proof of it.

use std::time::{Duration, Instant};

use clap::Args;
use ledger::chain::{Chain, least_fee};
use ledger::codec;
use ledger::hash::TxId;
use ledger::link::{Link, anchor, gives_key_away};
use ledger::signature::{PublicKey, Signature, SigningKey};
use ledger::transaction::{Body, MEMO_BYTES_MAX, Output, Transaction, Transfer};
use ledger::units::{Amount, Height, Timestamp};
use serde_json::json;

use crate::error::WalletError;
use crate::keystore::Key;
use crate::payment::{self, Paid, Payment};
use crate::terminal::{TerminalError, confirm, note, print, print_json};
use crate::trust::{Proven, Trust};
use crate::wallet::{self, Wallet, now};

/// Longest time that a `send` waits for other `send` commands from the same key. `--timeout`
/// replaces it if that is longer. Each of the other commands waits for a block.
const TURN_WAIT: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(crate) struct SendArgs {
    /// Key that pays
    #[arg(long, value_name = "NAME")]
    from: String,
    /// Who receives: an address, or a key of this wallet
    #[arg(long, value_name = "ADDRESS_OR_NAME")]
    to: String,
    /// Amount with its unit: "1.5 CRN"
    #[arg(long, allow_hyphen_values = true)]
    amount: String,
    /// Text of the transfer, which everybody can read: up to 256 bytes
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    memo: String,
    /// Fee with its unit [default: the least that the chain accepts]
    #[arg(long, value_name = "AMOUNT")]
    fee: Option<String>,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// How long to wait until the transfer is final: 500ms, 30s, 2m
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    timeout: Duration,
}

/// Runs the command. Prints the transfer's id, or with `--json` its id, height and status. It
/// prints this also if the transfer was submitted and not proved final, because it may still become
/// final. Then the height is null and the status is `pending`.
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

    let key = SigningKey::from_seed(
        &*wallet.unlock(&chain, &keystore)?.signing_seed(from.name.as_str())?,
    );
    // The lock is held to the end, so that the next `send` sees the outcome of this one.
    let _turn = wallet.home.turn(&sender, args.timeout.max(TURN_WAIT))?;
    let deadline = Instant::now() + args.timeout;
    let fee = args.fee.is_some().then_some(transfer.fee);
    let paid =
        Payment { wallet, trust: &mut trust, key: &key, wanted: transfer, fee, deadline }.run()?;
    tell(wallet, args, &chain, paid)
}

/// Prints the outcome. A transfer that may still become final is also named on stderr, so its id is
/// not lost if stdout is broken.
fn tell(wallet: &Wallet, args: &SendArgs, chain: &Chain, paid: Paid) -> Result<(), WalletError> {
    let Paid { id, expires_at, height, trouble } = paid;
    let told = result(wallet, id, height);
    if let Some(height) = height {
        if let Err(error) = wallet.home.forget(chain.id(), &id) {
            note(&format!("note: {error}"));
        }
        return told.map_err(|error| {
            WalletError::from(error).after(format!("{id} is final at height {height}"))
        });
    }
    if let Err(error) = told {
        note(&format!("note: {error}"));
    }
    let late = || WalletError::Unproved(format!("not proved final within {:?}", args.timeout));
    Err(payment::open(trouble.unwrap_or_else(late), id, expires_at))
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
    if gives_key_away(text.as_bytes()) {
        return Err(WalletError::Usage(
            "the memo has a link with the key of a private file, and everybody can read a memo: \
             leave out \"#\" and the key"
                .to_owned(),
        ));
    }
    match text.len() {
        0..=MEMO_BYTES_MAX => Ok(text.as_bytes().to_vec()),
        got => Err(WalletError::Usage(format!(
            "memo of {got} bytes, expected at most {MEMO_BYTES_MAX}"
        ))),
    }
}

/// How a memo is shown: its name and its text. A memo that is exactly a link is an anchor. `None`
/// if it is empty.
pub(super) fn memo_line(memo: &[u8]) -> Option<(&'static str, String)> {
    match anchor(memo) {
        Some(id) => Some(("anchor", Link { id, key: None }.to_string())),
        None if memo.is_empty() => None,
        None => Some(("memo", format!("{:?}", String::from_utf8_lossy(memo)))),
    }
}

/// Size of the transaction in bytes. Numbers and signatures have fixed widths, so the size is known
/// before they are chosen.
fn bytes(transfer: &Transfer) -> usize {
    codec::encode(&Transaction {
        body: Body::Transfer(transfer.clone()),
        signature: Signature([0; 64]),
    })
    .len()
}

/// Refuses a transfer whose fee is too low or whose cost exceeds the proved balance, before
/// anything is signed.
fn check(
    chain: &Chain,
    transfer: &Transfer,
    least: Amount,
    payer: &Proven,
) -> Result<(), WalletError> {
    let coin = &chain.genesis().coin;
    if transfer.fee < least {
        let (got, least) = (coin.format(transfer.fee), coin.format(least));
        let (reason, hint) =
            (format!("the fee is {got}, expected at least {least}"), "leave out --fee".to_owned());
        return Err(WalletError::Rejected { reason, hint });
    }
    let balance = payer.account.unwrap_or_default().balance;
    let needed = transfer
        .outputs
        .iter()
        .try_fold(transfer.fee, |sum, output| sum.checked_add(output.amount.0));
    if needed.is_none_or(|needed| needed > balance) {
        let needed = needed.map_or_else(
            || "more than all coins that exist".to_owned(),
            |needed| coin.format(needed),
        );
        let reason = format!(
            "the balance of {} does not cover {needed}, fee included",
            coin.format(balance)
        );
        return Err(WalletError::Rejected {
            reason,
            hint: "send less, or wait for a payment to this account".to_owned(),
        });
    }
    Ok(())
}

/// Shows on stderr what will be signed.
fn show(chain: &Chain, wallet: &Wallet, from: &Key, transfer: &Transfer, created: u64) {
    let genesis = chain.genesis();
    let new = match created {
        0 => String::new(),
        _ => format!(
            ", {} of it because the recipient is new",
            genesis.coin.format(chain.limits().new_account_fee)
        ),
    };
    note(&format!("from    {} ({})", wallet::address(chain, from), from.name));
    for output in &transfer.outputs {
        note(&format!(
            "to      {}",
            ledger::address::encode_address(&genesis.address_prefix, &output.account)
        ));
        note(&format!("amount  {}", genesis.coin.format(output.amount)));
    }
    note(&format!("fee     {}{new}", genesis.coin.format(transfer.fee)));
    if let Some((name, text)) = memo_line(&transfer.memo) {
        note(&format!("{name:8}{text}"));
    }
    note(&format!(
        "on      {} (chain {}), by way of {}",
        genesis.network,
        chain.id(),
        wallet.node.url()
    ));
}

fn result(wallet: &Wallet, id: TxId, height: Option<Height>) -> Result<(), TerminalError> {
    let status = if height.is_some() { "final" } else { "pending" };
    let height = height.map(|height| height.to_string());
    if wallet.json {
        print_json(&json!({ "id": id.to_string(), "height": height, "status": status }))
    } else {
        print(&id.to_string())
    }
}

/// Parses `500ms`, `30s` or `2m`. The longest duration is a day.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err("expected a whole number with its unit: 500ms, 30s, 2m".to_owned()),
    };
    let milliseconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    let milliseconds = milliseconds.filter(|milliseconds| *milliseconds <= 24 * 3_600_000);
    milliseconds.map(Duration::from_millis).ok_or_else(|| "expected 0ms to 1440m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memo_may_be_a_link_and_never_has_a_key() {
        let public = format!("cairn:{}", "0a".repeat(32));
        let private = format!("{public}#{}", "0b".repeat(32));
        assert_eq!(memo(&public).ok().as_deref(), Some(public.as_bytes()));
        for text in [private.clone(), format!("see {private}!")] {
            let error = memo(&text).map_err(|error| error.to_string());
            assert!(error.as_ref().is_err_and(|error| error.contains("private file")), "{error:?}");
            assert!(error.is_err_and(|error| !error.contains("0b0b")), "the key is not shown");
        }
        for (memo, line) in [
            (public.as_bytes(), Some(("anchor", public.clone()))),
            (b"hello \x07", Some(("memo", "\"hello \\u{7}\"".to_owned()))),
            (b"", None),
        ] {
            assert_eq!(memo_line(memo), line);
        }
    }

    #[test]
    fn durations_have_a_unit_and_an_end() {
        for (text, milliseconds) in
            [("5s", 5_000), ("500ms", 500), ("2m", 120_000), ("0s", 0), ("1440m", 86_400_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in
            ["", "5", "s", "-5s", "1.5s", "5 s", "5h", "1441m", "99999999999999999999s", "5sm"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
