//! `new`, `import`, `list`, `address`, `phrase`, `generate`.

use std::path::PathBuf;

use clap::Args;
use ledger::address::encode_address;
use ledger::chain::Chain;
use ledger::signature::PublicKey;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::error::WalletError;
use crate::keystore::{self, Key, KeyName, KeystoreError, Origin, Unlocked};
use crate::mnemonic::{Mnemonic, WORDS};
use crate::slip10::{Index, account_secret};
use crate::terminal::{ask_secret, is_watched, note, print, print_json};
use crate::wallet::{self, Wallet};

#[derive(Args)]
pub(crate) struct NewArgs {
    /// Name of the key
    name: KeyName,
    /// Genesis file of the network; without it, the node is asked for it at first use
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
    /// Print the keystore's 24 words to stdout as well
    #[arg(long)]
    show_phrase: bool,
}

#[derive(Args)]
pub(crate) struct ImportArgs {
    /// Name of the key
    name: KeyName,
    /// Genesis file of the network; without it, the node is asked for it at first use
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
}

/// Derives the next key. Makes the keystore first if there is none.
pub(crate) fn new(wallet: &Wallet, args: NewArgs) -> Result<(), WalletError> {
    let chain = wallet.chain(args.genesis.as_deref())?;
    let mut unlocked = match existing(wallet, &chain, &args.name)? {
        Some(unlocked) => unlocked,
        None => {
            let unlocked = wallet.create(&chain, Mnemonic::generate()?)?;
            if !args.show_phrase {
                hand_over(&unlocked);
            }
            unlocked
        }
    };
    let key = unlocked.derive(args.name)?;
    let address = wallet::address(&chain, &key);
    let phrase = args.show_phrase.then(|| unlocked.phrase());
    let printed = match (wallet.json, phrase) {
        (true, None) => print_json(&json!({ "name": key.name, "address": address })),
        (true, Some(phrase)) => {
            print_json(&json!({ "name": key.name, "address": address, "phrase": *phrase }))
        }
        (false, None) => print(&address),
        (false, Some(phrase)) => print(&address).and_then(|()| print(&phrase)),
    };
    printed.map_err(|error| WalletError::from(error).after(kept(&key, &address)))
}

/// The result of `new` and `import`, as a sentence for stderr.
fn kept(key: &Key, address: &str) -> String {
    format!("the key {} is in the keystore, its address is {address}", key.name)
}

/// Imports a key from a phrase or a seed. If there is no keystore, one is made: a phrase becomes
/// the keystore's own, and for a seed the keystore gets a new phrase. If there is a keystore, only
/// the first key of a phrase is imported.
pub(crate) fn import(wallet: &Wallet, args: ImportArgs) -> Result<(), WalletError> {
    let chain = wallet.chain(args.genesis.as_deref())?;
    let existing = existing(wallet, &chain, &args.name)?;
    let secret = Secret::parse(&ask_secret(
        "24 words, or a seed of 64 hex digits (not shown; an empty line ends): ",
        Secret::is_complete,
    )?)?;
    let key = match (existing, secret) {
        (None, Secret::Phrase(mnemonic)) => wallet.create(&chain, mnemonic)?.derive(args.name)?,
        (None, Secret::Seed(seed)) => {
            let mut unlocked = wallet.create(&chain, Mnemonic::generate()?)?;
            hand_over(&unlocked);
            unlocked.import_seed(args.name, &seed)?
        }
        (Some(mut unlocked), Secret::Phrase(mnemonic)) => {
            note(
                "note: only the first key of these words is imported; the keystore keeps \
                 its own words",
            );
            unlocked.import_seed(args.name, &account_secret(&mnemonic.seed(""), Index::ZERO))?
        }
        (Some(mut unlocked), Secret::Seed(seed)) => unlocked.import_seed(args.name, &seed)?,
    };
    if key.origin == Origin::Imported {
        note(
            "note: the keystore's 24 words do not bring this key back: keep the words or the seed \
             that you imported it from",
        );
    }
    let address = wallet::address(&chain, &key);
    let printed = if wallet.json {
        print_json(&json!({ "name": key.name, "address": address }))
    } else {
        print(&address)
    };
    printed.map_err(|error| WalletError::from(error).after(kept(&key, &address)))
}

/// Lists names and addresses; as JSON also where each key comes from.
pub(crate) fn list(wallet: &Wallet) -> Result<(), WalletError> {
    let chain = wallet.chain(None)?;
    let keys = wallet.keys(&chain)?;
    if wallet.json {
        let entries: Vec<Value> = keys.iter().map(|key| entry(&chain, key)).collect();
        return Ok(print_json(&entries)?);
    }
    if keys.is_empty() {
        note(&WalletError::NoKeys(wallet.home.dir().to_owned()).to_string());
    }
    let width = keys.iter().map(|key| key.name.as_str().len()).max().unwrap_or(0);
    keys.iter().try_for_each(|key| {
        Ok(print(&format!("{:width$}  {}", key.name, wallet::address(&chain, key)))?)
    })
}

fn entry(chain: &Chain, key: &Key) -> Value {
    let address = wallet::address(chain, key);
    match key.origin {
        Origin::Derived { account } => {
            json!({ "name": key.name, "address": address, "origin": "derived", "account": account })
        }
        Origin::Imported => json!({ "name": key.name, "address": address, "origin": "imported" }),
    }
}

/// Prints the address of a key.
pub(crate) fn address(wallet: &Wallet, name: &str) -> Result<(), WalletError> {
    let chain = wallet.chain(None)?;
    let key = Wallet::key(&wallet.keys(&chain)?, name)?;
    let address = wallet::address(&chain, &key);
    if wallet.json {
        print_json(&json!({ "name": key.name, "address": address }))?;
    } else {
        print(&address)?;
    }
    Ok(())
}

/// Prints the keystore's words.
pub(crate) fn phrase(wallet: &Wallet) -> Result<(), WalletError> {
    let chain = wallet.chain(None)?;
    let phrase = wallet.unlock(&chain, &wallet.keystore(&chain)?)?.phrase();
    if wallet.json {
        print_json(&json!({ "phrase": *phrase }))?
    } else {
        print(&phrase)?
    }
    Ok(())
}

/// Makes a phrase for a network that does not exist yet, whose genesis needs the address. Nothing
/// is stored.
pub(crate) fn generate(prefix: &str, json: bool) -> Result<(), WalletError> {
    let mnemonic = Mnemonic::generate()?;
    let secret = account_secret(&mnemonic.seed(""), Index::ZERO);
    let address = encode_address(prefix, &PublicKey(keystore::public_key(&secret)));
    let phrase = mnemonic.phrase();
    match json {
        true => print_json(&json!({ "address": address, "phrase": *phrase }))?,
        false => print(&address).and_then(|()| print(&phrase))?,
    }
    Ok(())
}

/// The keystore to add a key to, unlocked; `None` if there is none. The name is checked before the
/// password is asked for.
fn existing(
    wallet: &Wallet,
    chain: &Chain,
    name: &KeyName,
) -> Result<Option<Unlocked>, WalletError> {
    let Some(keystore) = wallet.home.keystore(chain.genesis())? else { return Ok(None) };
    if keystore.keys().any(|key| key.name == *name) {
        return Err(KeystoreError::NameTaken(name.clone()).into());
    }
    wallet.unlock(chain, &keystore).map(Some)
}

/// Shows a new keystore's words, but only if stderr is a terminal: a log or a file would keep them.
fn hand_over(unlocked: &Unlocked) {
    if !is_watched() {
        return note(
            "note: the keystore has 24 words to write down; `cairn-wallet phrase` prints them",
        );
    }
    note("\nWrite down these 24 words, in order, and keep them where nobody else looks.");
    note("They bring back every key made with `new`; whoever has them can spend.\n");
    for (index, line) in unlocked.phrase().split(' ').collect::<Vec<_>>().chunks(6).enumerate() {
        note(&Zeroizing::new(format!("  {:>2}  {}", index * 6 + 1, line.join(" "))));
    }
    note("\n`cairn-wallet phrase` shows them again.\n");
}

/// The words of a phrase. Numbers before them, such as `1`, `1.` or `13)` in a list, are dropped.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let unnumbered = |word: &'_ str| match word.find(|c: char| !c.is_ascii_digit()) {
        None => word.len(),
        Some(0) => 0,
        Some(digits) => digits + usize::from(word[digits..].starts_with(['.', ')', ':'])),
    };
    text.split_whitespace()
        .map(move |word| &word[unnumbered(word)..])
        .filter(|word| !word.is_empty())
}

enum Secret {
    Phrase(Mnemonic),
    Seed(Zeroizing<[u8; 32]>),
}

impl Secret {
    /// Whether the text is a whole phrase or seed.
    fn is_complete(text: &str) -> bool {
        words(text).count() >= WORDS
            || text.trim().len() == 64 && text.trim().bytes().all(|b| b.is_ascii_hexdigit())
    }

    /// Parses a seed of 64 hex digits or a phrase.
    fn parse(text: &str) -> Result<Self, WalletError> {
        let text = text.trim();
        let words = Zeroizing::new(words(text).fold(
            String::with_capacity(text.len() + 1),
            |mut all, word| {
                all.push_str(word);
                all.push(' ');
                all
            },
        ));
        let mut seed = Zeroizing::new([0; 32]);
        match hex::decode_to_slice(text, &mut *seed) {
            Ok(()) => Ok(Self::Seed(seed)),
            Err(_) if words.split_whitespace().count() <= 1 => {
                Err(WalletError::Usage("expected 24 words, or a seed of 64 hex digits".to_owned()))
            }
            Err(_) => Ok(Self::Phrase(Mnemonic::parse(&words)?)),
        }
    }
}
