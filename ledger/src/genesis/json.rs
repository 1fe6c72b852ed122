//! Reads and writes a genesis as JSON. Fields are read one by one, so that one run reports every
//! field that cannot be read.

use std::fmt;

use serde_json::{Map, Value, json};

use super::{Genesis, GenesisAccount, GenesisValidator, Limits};
use crate::address::{Coin, decode_address, encode_address};
use crate::signature::PublicKey;
use crate::units::{Amount, Timestamp, VotingPower};

/// One thing that is wrong with a genesis, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// JSON path, such as `validators[2].power`; empty for the file as a whole.
    pub path: String,
    /// What was found and what was expected.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.reason),
            path => write!(f, "{path}: {}", self.reason),
        }
    }
}

#[derive(Default)]
struct Reader {
    problems: Vec<Problem>,
}

/// A JSON object, its path, and the names of the fields that were read. Any other field in the
/// object is reported as unknown.
struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn get(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        self.map.get(name)
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

impl Reader {
    fn report(&mut self, path: String, reason: impl Into<String>) {
        self.problems.push(Problem { path, reason: reason.into() });
    }

    fn object<'a>(&mut self, path: String, value: &'a Value) -> Option<Fields<'a>> {
        match value {
            Value::Object(map) => Some(Fields { path, map, known: Vec::new() }),
            other => {
                self.report(path, format!("{}, expected an object", kind(other)));
                None
            }
        }
    }

    fn field<'a>(&mut self, fields: &mut Fields<'a>, name: &'static str) -> Option<&'a Value> {
        let value = fields.get(name);
        if value.is_none() {
            self.report(fields.at(name), "is missing");
        }
        value
    }

    fn sub<'a>(&mut self, fields: &mut Fields<'a>, name: &'static str) -> Option<Fields<'a>> {
        let value = self.field(fields, name)?;
        self.object(fields.at(name), value)
    }

    fn list<'a>(&mut self, fields: &mut Fields<'a>, name: &'static str) -> Vec<Fields<'a>> {
        match self.field(fields, name) {
            Some(Value::Array(items)) => {
                let item = |(i, value)| self.object(format!("{}[{i}]", fields.at(name)), value);
                items.iter().enumerate().filter_map(item).collect()
            }
            Some(other) => {
                self.report(fields.at(name), format!("{}, expected a list", kind(other)));
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn text<'a>(&mut self, fields: &mut Fields<'a>, name: &'static str) -> Option<&'a str> {
        let value = self.field(fields, name)?;
        let text = value.as_str();
        if text.is_none() {
            self.report(fields.at(name), format!("{}, expected a text", kind(value)));
        }
        text
    }

    /// Reads a 64-bit number from decimal text. Some JSON parsers would round a JSON number of this
    /// size.
    fn number(&mut self, fields: &mut Fields<'_>, name: &'static str) -> Option<u64> {
        let text = self.text(fields, name)?;
        let canonical = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = canonical.then(|| text.parse().ok()).flatten();
        if number.is_none() {
            self.report(
                fields.at(name),
                format!("{text:?}, expected a decimal number of up to 64 bits as text"),
            );
        }
        number
    }

    fn small(&mut self, fields: &mut Fields<'_>, name: &'static str) -> Option<u32> {
        let value = self.field(fields, name)?;
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        if number.is_none() {
            self.report(
                fields.at(name),
                format!("{value}, expected a whole number of up to 32 bits"),
            );
        }
        number
    }

    fn amount(
        &mut self,
        fields: &mut Fields<'_>,
        name: &'static str,
        coin: &Coin,
    ) -> Option<Amount> {
        let text = self.text(fields, name)?;
        coin.parse(text).map_err(|error| self.report(fields.at(name), error.to_string())).ok()
    }

    fn address(
        &mut self,
        fields: &mut Fields<'_>,
        name: &'static str,
        prefix: &str,
    ) -> Option<PublicKey> {
        let text = self.text(fields, name)?;
        decode_address(prefix, text)
            .map_err(|error| self.report(fields.at(name), error.to_string()))
            .ok()
    }

    fn key(&mut self, fields: &mut Fields<'_>, name: &'static str) -> Option<PublicKey> {
        let text = self.text(fields, name)?;
        text.parse::<crate::hash::Hash>()
            .map(|hash| PublicKey(hash.0))
            .map_err(|error| self.report(fields.at(name), error.to_string()))
            .ok()
    }

    fn end(&mut self, fields: &Fields<'_>) {
        for name in fields.map.keys().filter(|name| !fields.known.contains(&name.as_str())) {
            self.report(
                fields.at(name),
                format!("unknown field, expected one of {}", fields.known.join(", ")),
            );
        }
    }

    fn genesis(&mut self, value: &Value) -> Option<Genesis> {
        let mut root = self.object(String::new(), value)?;
        let format = self.small(&mut root, "format");
        if let Some(Err(reason)) = format.map(super::check_format) {
            self.report("format".to_owned(), reason);
            return None;
        }
        let network = self.text(&mut root, "network");
        let prefix = self.text(&mut root, "address_prefix");
        let coin = self.sub(&mut root, "coin").and_then(|mut fields| self.coin(&mut fields));
        let start_time = self.number(&mut root, "start_time");
        let accounts: Vec<Option<GenesisAccount>> = self
            .list(&mut root, "accounts")
            .into_iter()
            .map(|mut fields| self.account(&mut fields, prefix, coin.as_ref()))
            .collect();
        let validators: Vec<Option<GenesisValidator>> = self
            .list(&mut root, "validators")
            .into_iter()
            .map(|mut fields| self.validator(&mut fields, prefix))
            .collect();
        let limits = self.sub(&mut root, "limits").and_then(|mut fields| self.limits(&mut fields));
        self.end(&root);
        Some(Genesis {
            format: format?,
            network: network?.to_owned(),
            address_prefix: prefix?.to_owned(),
            coin: coin?,
            start_time: Timestamp(start_time?),
            accounts: accounts.into_iter().collect::<Option<_>>()?,
            validators: validators.into_iter().collect::<Option<_>>()?,
            limits: limits?,
        })
    }

    fn coin(&mut self, fields: &mut Fields<'_>) -> Option<Coin> {
        let symbol = self.text(fields, "symbol");
        let decimals = self.small(fields, "decimals");
        self.end(fields);
        Some(Coin {
            symbol: symbol?.to_owned(),
            decimals: u8::try_from(decimals?).unwrap_or(u8::MAX),
        })
    }

    fn account(
        &mut self,
        fields: &mut Fields<'_>,
        prefix: Option<&str>,
        coin: Option<&Coin>,
    ) -> Option<GenesisAccount> {
        let name = self.text(fields, "name");
        // The address cannot be read without the prefix, nor the balance without the coin. A
        // missing prefix or coin is reported already.
        let account = self.address(fields, "address", prefix?);
        let balance = self.amount(fields, "balance", coin?);
        self.end(fields);
        Some(GenesisAccount { name: name?.to_owned(), account: account?, balance: balance? })
    }

    fn validator(
        &mut self,
        fields: &mut Fields<'_>,
        prefix: Option<&str>,
    ) -> Option<GenesisValidator> {
        let name = self.text(fields, "name");
        let key = self.key(fields, "key");
        let power = self.number(fields, "power");
        let payout = self.address(fields, "payout", prefix?);
        self.end(fields);
        Some(GenesisValidator {
            name: name?.to_owned(),
            key: key?,
            payout: payout?,
            power: VotingPower(power?),
        })
    }

    fn limits(&mut self, fields: &mut Fields<'_>) -> Option<Limits> {
        // All limits are read before a missing one ends the function, so that all problems are
        // reported.
        let mut values = [None; super::LIMIT_BOUNDS.len()];
        for (value, (name, ..)) in values.iter_mut().zip(super::LIMIT_BOUNDS) {
            *value = self.number(fields, name);
        }
        self.end(fields);
        Some(Limits::from_values(values.into_iter().collect::<Option<Vec<_>>>()?.try_into().ok()?))
    }
}

pub(super) fn read(text: &[u8]) -> (Option<Genesis>, Vec<Problem>) {
    let mut reader = Reader::default();
    if text.len() > super::GENESIS_BYTES_MAX {
        reader.report(
            String::new(),
            format!("{} bytes, expected at most {}", text.len(), super::GENESIS_BYTES_MAX),
        );
        return (None, reader.problems);
    }
    // Editors on some systems put a byte order mark before the text. It means nothing in UTF-8 and
    // is skipped.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let genesis = match serde_json::from_slice(text) {
        Ok(value) => reader.genesis(&value),
        Err(_) if text.iter().all(u8::is_ascii_whitespace) => {
            reader.report(String::new(), "the file is empty, expected a genesis as JSON");
            None
        }
        Err(error) => {
            reader.report(String::new(), format!("not JSON: {error}"));
            None
        }
    };
    (genesis, reader.problems)
}

pub(super) fn write(genesis: &Genesis) -> String {
    let address = |key: &PublicKey| encode_address(&genesis.address_prefix, key);
    let account = |entry: &GenesisAccount| {
        json!({
            "name": entry.name,
            "address": address(&entry.account),
            "balance": genesis.coin.format(entry.balance),
        })
    };
    let validator = |entry: &GenesisValidator| {
        json!({
            "name": entry.name,
            "key": entry.key.to_string(),
            "payout": address(&entry.payout),
            "power": entry.power.to_string(),
        })
    };
    let limits: Map<String, Value> = super::LIMIT_BOUNDS
        .iter()
        .zip(genesis.limits.values())
        .map(|((name, ..), value)| ((*name).to_owned(), json!(value.to_string())))
        .collect();
    let value = json!({
        "format": genesis.format,
        "network": genesis.network,
        "address_prefix": genesis.address_prefix,
        "coin": { "symbol": genesis.coin.symbol, "decimals": genesis.coin.decimals },
        "start_time": genesis.start_time.to_string(),
        "accounts": genesis.accounts.iter().map(account).collect::<Vec<_>>(),
        "validators": genesis.validators.iter().map(validator).collect::<Vec<_>>(),
        "limits": limits,
    });
    format!("{value:#}\n")
}
