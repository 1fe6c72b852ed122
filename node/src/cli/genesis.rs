//! `genesis`: genesis files, which all nodes of a network agree on.

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use ledger::address::{Coin, decode_address};
use ledger::genesis::{self as model, GenesisAccount, GenesisError, GenesisValidator, Limits};
use ledger::hash::Hash;
use ledger::signature::PublicKey;
use ledger::units::{Timestamp, VotingPower};
use serde_json::json;

use crate::clock::now;
use crate::home::read_genesis;
use crate::keys::Seed;
use crate::output::{print, print_json};

#[derive(Debug, Subcommand)]
pub(super) enum Genesis {
    /// Check a genesis file and list everything that is wrong with it
    Check(Check),
    /// Print a genesis file in its normal form
    Show {
        /// The genesis file
        file: PathBuf,
    },
    /// Print the chain id of a genesis file
    Id {
        /// The genesis file
        file: PathBuf,
    },
    /// Write the genesis of a new network to stdout
    New(New),
    /// Make a validator's key file and print its public key
    Keygen {
        /// The file to make
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The genesis file
    file: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct New {
    /// Name of the network: a-z, 0-9, -
    #[arg(long)]
    network: String,
    /// Prefix of the network's addresses
    #[arg(long, default_value = "crn")]
    address_prefix: String,
    /// Unit of amounts
    #[arg(long, default_value = "CRN")]
    symbol: String,
    /// Digits after the decimal point
    #[arg(long, default_value_t = 9)]
    decimals: u8,
    /// Start time of the network, milliseconds since 1970; now by default
    #[arg(long, value_name = "MS")]
    start_time: Option<u64>,
    /// Take the limits from this genesis file
    #[arg(long, value_name = "FILE")]
    limits_from: Option<PathBuf>,
    /// An account with its balance; may be repeated
    #[arg(long = "account", value_name = "NAME=ADDRESS=AMOUNT")]
    accounts: Vec<Entry>,
    /// A validator: its public key, the account for its fees, and its voting power (1 by default);
    /// may be repeated
    #[arg(long = "validator", value_name = "NAME=KEY=PAYOUT[=POWER]", required = true)]
    validators: Vec<Entry>,
}

/// Three or four parts, separated by `=`.
#[derive(Clone, Debug)]
struct Entry {
    parts: [String; 3],
    fourth: Option<String>,
}

impl FromStr for Entry {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('=').map(str::to_owned);
        let mut next = || {
            parts
                .next()
                .filter(|part| !part.is_empty())
                .ok_or("expected three parts with = between them")
        };
        let first = [next()?, next()?, next()?];
        let fourth = parts.next();
        if parts.next().is_some() {
            Err("too many parts")
        } else {
            Ok(Self { parts: first, fourth })
        }
    }
}

impl Genesis {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        match self {
            Self::Check(check) => check.execute(),
            Self::Show { file } => Ok(print(&read_genesis(&file)?.to_json())?),
            Self::Id { file } => Ok(print(&read_genesis(&file)?.chain_id().to_string())?),
            Self::New(new) => Ok(print(&new.genesis()?.to_json())?),
            Self::Keygen { file } => {
                let seed = Seed::random()?;
                seed.write(
                    &file,
                    "Consensus key of a validator. Two nodes must never sign with one key.",
                )?;
                Ok(print(&seed.public().to_string())?)
            }
        }
    }
}

impl Check {
    fn execute(self) -> anyhow::Result<()> {
        if !self.json {
            let genesis = read_genesis(&self.file)?;
            let (accounts, validators) = (genesis.accounts.len(), genesis.validators.len());
            let (network, id) = (&genesis.network, genesis.chain_id());
            return Ok(print(&format!(
                "ok: network {network}, chain id {id}, {accounts} accounts, {validators} validators"
            ))?);
        }
        let text = fs::read(&self.file).with_context(|| self.file.display().to_string())?;
        let result = model::Genesis::from_json(&text);
        let problems =
            result.as_ref().err().map(|error| error.problems.as_slice()).unwrap_or_default();
        let listed: Vec<_> =
            problems.iter().map(|it| json!({ "path": it.path, "reason": it.reason })).collect();
        let chain_id = result.as_ref().ok().map(|genesis| genesis.chain_id().to_string());
        let printed = print_json(
            &json!({ "valid": result.is_ok(), "chain_id": chain_id, "problems": listed }),
        );
        // The exit code tells the result even if stdout is closed.
        ensure!(result.is_ok(), "{} is not a valid genesis", self.file.display());
        printed
    }
}

impl New {
    fn genesis(self) -> anyhow::Result<model::Genesis> {
        let coin = Coin { symbol: self.symbol, decimals: self.decimals };
        let address = |text: &str| decode_address(&self.address_prefix, text);
        let account = |entry: &Entry| -> anyhow::Result<GenesisAccount> {
            let [name, account, balance] = &entry.parts;
            ensure!(
                entry.fourth.is_none(),
                "account {name}: too many parts, expected NAME=ADDRESS=AMOUNT"
            );
            let in_account = || format!("account {name}");
            let (account, balance) =
                (address(account).with_context(in_account)?, coin.parse(balance));
            Ok(GenesisAccount {
                name: name.clone(),
                account,
                balance: balance.with_context(in_account)?,
            })
        };
        let validator = |entry: &Entry| -> anyhow::Result<GenesisValidator> {
            let [name, key, payout] = &entry.parts;
            let in_validator = || format!("validator {name}");
            let Ok(key) = key.parse::<Hash>() else {
                bail!("validator {name}: key: expected 64 hexadecimal digits")
            };
            let power = entry.fourth.as_deref().unwrap_or("1");
            let Ok(power) = power.parse() else {
                bail!("validator {name}: power: {power:?}, expected a whole number")
            };
            let payout = address(payout).with_context(in_validator)?;
            Ok(GenesisValidator {
                name: name.clone(),
                key: PublicKey(key.0),
                payout,
                power: VotingPower(power),
            })
        };
        let limits = match &self.limits_from {
            Some(file) => read_genesis(file)?.limits,
            None => Limits::default(),
        };
        let genesis = model::Genesis {
            format: model::FORMAT,
            accounts: self.accounts.iter().map(account).collect::<Result<_, _>>()?,
            validators: self.validators.iter().map(validator).collect::<Result<_, _>>()?,
            network: self.network,
            address_prefix: self.address_prefix,
            coin,
            start_time: Timestamp(self.start_time.map_or_else(now, Ok)?),
            limits,
        };
        match genesis.problems() {
            problems if problems.is_empty() => Ok(genesis),
            problems => Err(GenesisError { problems }.into()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ledger::address::encode_address;

    fn new(accounts: &[&str], validators: &[String]) -> anyhow::Result<model::Genesis> {
        let entries = |texts: Vec<&str>| texts.iter().map(|text| text.parse().unwrap()).collect();
        let new = New {
            network: "trial".to_owned(),
            address_prefix: "crn".to_owned(),
            symbol: "CRN".to_owned(),
            decimals: 9,
            start_time: Some(1),
            limits_from: None,
            accounts: entries(accounts.to_vec()),
            validators: entries(validators.iter().map(String::as_str).collect()),
        };
        new.genesis()
    }

    #[test]
    fn a_new_genesis_is_valid_and_mistakes_are_named() {
        let key = Seed::random().unwrap().public();
        let address = encode_address("crn", &key);
        let good = [format!("v={key}={address}")];
        let account = format!("treasury={address}=1000.5 CRN");
        let genesis = new(&[&account], &good).unwrap();
        assert_eq!(model::Genesis::from_json(genesis.to_json().as_bytes()).unwrap(), genesis);
        assert_eq!(genesis.validators[0].power, VotingPower(1));
        for (accounts, validators, expected) in [
            (vec!["a=nowhere=1 CRN".to_owned()], good.to_vec(), "account a"),
            (vec![format!("a={address}=1")], good.to_vec(), "the unit is missing"),
            (vec![format!("a={address}=1 CRN=2")], good.to_vec(), "too many parts"),
            (vec![], vec![format!("v=xyz={address}")], "expected 64 hexadecimal digits"),
            (vec![], vec![format!("v={key}={address}=0")], "validators[0].power"),
            (vec![], vec![format!("v={key}={address}=x")], "power: \"x\", expected a whole number"),
            (vec![], vec![good[0].clone(), good[0].clone()], "the same as validators[0].key"),
        ] {
            let accounts: Vec<&str> = accounts.iter().map(String::as_str).collect();
            let error = format!("{:#}", new(&accounts, &validators).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
        assert!("a=b".parse::<Entry>().is_err() && "a==c".parse::<Entry>().is_err());
        assert!("a=b=c=d=e".parse::<Entry>().is_err());
    }
}
