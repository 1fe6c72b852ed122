//! `balance`: proved balances of accounts.

use ledger::signature::PublicKey;
use ledger::units::Height;
use serde_json::{Value, json};

use crate::error::WalletError;
use crate::terminal::{note, print, print_json};
use crate::trust::Trust;
use crate::wallet::{Wallet, now};

/// Prints the balance of one account, or those of all keys.
pub(crate) fn run(wallet: &Wallet, account: Option<&str>) -> Result<(), WalletError> {
    let chain = wallet.chain(None)?;
    let keys = wallet.keys(&chain)?;
    let asked: Vec<(Option<&str>, PublicKey)> = match account {
        Some(text) => vec![(None, Wallet::account(&chain, &keys, text)?)],
        None if keys.is_empty() => return Err(WalletError::NoKeys(wallet.home.dir().to_owned())),
        None => {
            keys.iter().map(|key| (Some(key.name.as_str()), PublicKey(key.public_key))).collect()
        }
    };
    let width = asked.iter().filter_map(|(name, _)| *name).map(str::len).max().unwrap_or(0);
    let mut trust = Trust::connect(chain.clone(), &wallet.home, &wallet.node)?;
    let mut entries: Vec<Value> = Vec::new();
    for (name, account) in asked {
        let held = trust.account(&account, Height(0))?.account.unwrap_or_default();
        let (balance, nonce) = (held.balance.to_string(), held.nonce.to_string());
        let mut entry =
            json!({ "address": trust.address(&account), "balance": balance, "nonce": nonce });
        let shown = chain.genesis().coin.format(held.balance);
        match name {
            Some(name) => entry["name"] = name.into(),
            None if wallet.json => print_json(&entry)?,
            None => print(&shown)?,
        }
        if let Some(name) = name
            && !wallet.json
        {
            print(&format!("{name:width$}  {shown}"))?;
        }
        entries.push(entry);
    }
    if account.is_none() && wallet.json {
        print_json(&entries)?;
    }
    trust.age_note(now()).iter().for_each(|text| note(text));
    Ok(())
}
