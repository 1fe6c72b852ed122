//! The genesis: everything that nodes must agree on before the first block. Its hash is the chain
//! id.

mod json;

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};

use crate::address::Coin;
use crate::codec;
use crate::hash::{ChainId, Domain, Hash};
use crate::signature::{PublicKey, SigningKey, ValidatorKey};
use crate::state::{Account, State, StateKey};
use crate::units::{Amount, Timestamp, VotingPower};
use crate::validators::{VALIDATORS_MAX, VOTING_POWER_MAX, Validator, ValidatorSet};

pub use json::Problem;

/// The genesis format that this code reads. It determines the header version and the rules. The
/// format of a chain never changes.
pub const FORMAT: u32 = 2;
/// Tells the user what to do with a genesis, home, store or archive that cairn 0.1 made. None of
/// them can be converted, since the chain id is a hash over the genesis format too.
pub const MADE_BY_0_1: &str =
    "made by cairn 0.1: use cairn 0.1 for this network, or start a new network with `genesis new`";
/// Most bytes a genesis file may have.
pub const GENESIS_BYTES_MAX: usize = 16 << 20;
/// Highest `chunk_bytes` that a genesis may choose.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// The network name of local test networks. Only a network of this name may use the public template
/// keys.
pub const LOCAL_NETWORK: &str = "local";
/// Names of the accounts of local test networks. Their keys are public: see [`template_key`].
pub const TEMPLATE_ACCOUNTS: [&str; 4] = ["alice", "bob", "carol", "dave"];

/// Everything that nodes must agree on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Genesis {
    /// Format of the genesis: [`FORMAT`].
    pub format: u32,
    /// Name of the network, for people: 1 to 32 characters of `a-z`, `0-9`, `-`.
    pub network: String,
    /// Human-readable part of addresses (BIP-173): 1 to 16 characters of `a-z`, `0-9`.
    pub address_prefix: String,
    /// The coin, which determines how amounts are written.
    pub coin: Coin,
    /// Time of the state before the first block.
    pub start_time: Timestamp,
    /// Accounts and balances at the start, in the file's order.
    pub accounts: Vec<GenesisAccount>,
    /// Validators at the start, in the file's order.
    pub validators: Vec<GenesisValidator>,
    /// Limits of the chain.
    pub limits: Limits,
}

/// An account that exists from the start.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GenesisAccount {
    /// Name for people; may be empty.
    pub name: String,
    /// Key of the account.
    pub account: PublicKey,
    /// Balance at the start.
    pub balance: Amount,
}

/// A validator at the start.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GenesisValidator {
    /// Name for people.
    pub name: String,
    /// Key that signs proposals and votes.
    pub key: PublicKey,
    /// Account that receives the fees of the blocks that this validator proposes.
    pub payout: PublicKey,
    /// Weight of the validator's vote.
    pub power: VotingPower,
}

/// Limits of a chain. A genesis chooses each limit within bounds that are part of the code.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Limits {
    /// Most bytes of a block's transactions.
    pub block_bytes_max: u64,
    /// Least difference between the times of a block and its parent, in milliseconds. A block with
    /// an earlier time is invalid.
    pub block_interval_ms: u64,
    /// Time from a block to the next one while no transaction waits, in milliseconds.
    pub empty_block_interval_ms: u64,
    /// Least fee per byte of a transaction, in pebbles.
    pub fee_per_byte: Amount,
    /// Least additional fee for each account that a transaction creates, in pebbles. It limits how
    /// fast the state grows, since accounts are never removed.
    pub new_account_fee: Amount,
    /// Most time from a block's time to the expiry of its transactions, in milliseconds.
    pub expiry_ms_max: u64,
    /// Most time that a header may be ahead of a voter's own clock, in milliseconds.
    pub clock_drift_ms: u64,
    /// A history segment closes after the block that brings it to this many bytes.
    pub segment_bytes: u64,
    /// A history segment closes after this many blocks.
    pub segment_blocks: u64,
    /// Bytes of a chunk of a segment. The last chunk may have fewer.
    pub chunk_bytes: u64,
    /// Number of segments from one snapshot of the state to the next.
    pub snapshot_segments: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            block_bytes_max: 2 << 20,
            block_interval_ms: 50,
            empty_block_interval_ms: 5_000,
            fee_per_byte: Amount(10),
            new_account_fee: Amount(1_000_000),
            expiry_ms_max: 24 * 3_600_000,
            clock_drift_ms: 10_000,
            segment_bytes: 16 << 20,
            segment_blocks: 65_536,
            chunk_bytes: 128 << 10,
            snapshot_segments: 1,
        }
    }
}

/// Inclusive bounds of each limit: JSON name, lowest, highest.
const LIMIT_BOUNDS: [(&str, u64, u64); 11] = [
    ("block_bytes_max", 4 << 10, 2 << 20),
    ("block_interval_ms", 1, 60_000),
    ("empty_block_interval_ms", 1, 3_600_000),
    ("fee_per_byte", 0, 1_000_000_000_000),
    ("new_account_fee", 0, 1_000_000_000_000_000),
    ("expiry_ms_max", 1_000, 24 * 3_600_000),
    ("clock_drift_ms", 100, 60_000),
    ("segment_bytes", 64 << 10, 64 << 20),
    ("segment_blocks", 16, 65_536),
    ("chunk_bytes", 16 << 10, CHUNK_BYTES_MAX as u64),
    ("snapshot_segments", 1, 65_536),
];

impl Limits {
    const fn values(&self) -> [u64; 11] {
        [
            self.block_bytes_max,
            self.block_interval_ms,
            self.empty_block_interval_ms,
            self.fee_per_byte.0,
            self.new_account_fee.0,
            self.expiry_ms_max,
            self.clock_drift_ms,
            self.segment_bytes,
            self.segment_blocks,
            self.chunk_bytes,
            self.snapshot_segments,
        ]
    }

    /// The inverse of [`Self::values`], in the order of [`LIMIT_BOUNDS`].
    const fn from_values(values: [u64; 11]) -> Self {
        let [
            block_bytes_max,
            block_interval_ms,
            empty_block_interval_ms,
            fee_per_byte,
            new_account_fee,
            expiry_ms_max,
            clock_drift_ms,
            segment_bytes,
            segment_blocks,
            chunk_bytes,
            snapshot_segments,
        ] = values;
        Self {
            block_bytes_max,
            block_interval_ms,
            empty_block_interval_ms,
            fee_per_byte: Amount(fee_per_byte),
            new_account_fee: Amount(new_account_fee),
            expiry_ms_max,
            clock_drift_ms,
            segment_bytes,
            segment_blocks,
            chunk_bytes,
            snapshot_segments,
        }
    }
}

/// The key of a template account of local test networks; `None` for another name.
///
/// It is derived from the public name, so everybody can compute it. Money in such an account is
/// worthless.
#[must_use]
pub fn template_key(name: &str) -> Option<SigningKey> {
    TEMPLATE_ACCOUNTS.contains(&name).then(|| SigningKey::from_seed(&template_seed(name)))
}

/// The seed of [`template_key`]. Meant only for the names in [`TEMPLATE_ACCOUNTS`], and for
/// `validator`, the one validator of the template genesis.
#[must_use]
pub fn template_seed(name: &str) -> [u8; 32] {
    Hash::of(Domain::Genesis, &[b"public key of a local test network: ", name.as_bytes()]).0
}

/// A genesis that breaks rules, with the problems that were found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} in genesis:{}", count(problems), list(problems))]
pub struct GenesisError {
    /// The problems, each with its JSON path.
    pub problems: Vec<Problem>,
}

fn count(problems: &[Problem]) -> String {
    match problems.len() {
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

impl Genesis {
    /// Reads and checks a genesis file. The rules for values are checked only if all fields can be
    /// read.
    ///
    /// # Errors
    /// `GenesisError` with every problem found and its JSON path.
    pub fn from_json(text: &[u8]) -> Result<Self, GenesisError> {
        let (genesis, mut problems) = json::read(text);
        if let Some(genesis) = genesis {
            problems.extend(genesis.problems());
            if problems.is_empty() {
                return Ok(genesis);
            }
        }
        problems.dedup();
        Err(GenesisError { problems })
    }

    /// Writes the genesis as JSON. [`Self::from_json`] reads the same genesis from it.
    #[must_use]
    pub fn to_json(&self) -> String {
        json::write(self)
    }

    /// The chain id: the hash of the canonical encoding.
    #[must_use]
    pub fn chain_id(&self) -> ChainId {
        ChainId(Hash::of(Domain::Genesis, &[&codec::encode(self)]))
    }

    /// The state before the first block.
    #[must_use]
    pub fn state(&self) -> State {
        State::from_entries(self.accounts.iter().map(|entry| {
            let account = Account { balance: entry.balance, ..Account::default() };
            (StateKey::account(entry.account), account)
        }))
    }

    /// The validators of the first block.
    ///
    /// # Panics
    /// If the validators are not a valid set, which [`Genesis::from_json`] refuses.
    #[must_use]
    pub fn validator_set(&self) -> ValidatorSet {
        let validator = |entry: &GenesisValidator| Validator {
            key: entry.key,
            payout: entry.payout,
            power: entry.power,
        };
        match ValidatorSet::new(self.validators.iter().map(validator).collect()) {
            Ok(set) => set,
            Err(error) => panic!("a checked genesis has a valid validator set: {error}"),
        }
    }

    /// The account with this name, if there is one.
    #[must_use]
    pub fn find_account(&self, name: &str) -> Option<&GenesisAccount> {
        self.accounts.iter().find(|account| account.name == name)
    }

    /// Whether this is a local test network with at least one account whose secret key everybody
    /// can compute.
    #[must_use]
    pub fn is_local_template(&self) -> bool {
        let public = template_keys();
        self.network == LOCAL_NETWORK
            && self.accounts.iter().any(|entry| public.contains(&entry.account))
    }

    /// Every rule that this genesis breaks; for a genesis of another format only the format.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut report = |path: String, reason: String| problems.push(Problem { path, reason });
        if let Err(reason) = check_format(self.format) {
            report("format".to_owned(), reason);
            return problems;
        }
        if let Some(reason) = check_name(&self.network, 32, true) {
            report("network".to_owned(), reason);
        }
        if let Err(reason) = check_address_prefix(&self.address_prefix) {
            report("address_prefix".to_owned(), reason);
        }
        if self.coin.symbol.is_empty()
            || self.coin.symbol.len() > 8
            || !self.coin.symbol.bytes().all(|byte| byte.is_ascii_uppercase())
        {
            report(
                "coin.symbol".to_owned(),
                format!("{:?}, expected 1 to 8 letters A-Z", self.coin.symbol),
            );
        }
        if self.coin.decimals > 18 {
            report("coin.decimals".to_owned(), format!("{}, expected 0 to 18", self.coin.decimals));
        }
        for ((name, lowest, highest), value) in LIMIT_BOUNDS.into_iter().zip(self.limits.values()) {
            if !(lowest..=highest).contains(&value) {
                report(
                    format!("limits.{name}"),
                    format!("{value}, expected {lowest} to {highest}"),
                );
            }
        }
        let limits = &self.limits;
        if limits.block_bytes_max > limits.segment_bytes {
            report(
                "limits.block_bytes_max".to_owned(),
                format!(
                    "{} is larger than a segment ({})",
                    limits.block_bytes_max, limits.segment_bytes
                ),
            );
        }
        if limits.chunk_bytes > limits.segment_bytes {
            report(
                "limits.chunk_bytes".to_owned(),
                format!(
                    "{} is larger than a segment ({})",
                    limits.chunk_bytes, limits.segment_bytes
                ),
            );
        }
        if limits.block_interval_ms > limits.empty_block_interval_ms {
            report(
                "limits.empty_block_interval_ms".to_owned(),
                format!(
                    "{} is shorter than block_interval_ms ({})",
                    limits.empty_block_interval_ms, limits.block_interval_ms
                ),
            );
        }
        // These keys are refused, since anybody can sign with them.
        let public = if self.network == LOCAL_NETWORK { BTreeSet::new() } else { template_keys() };
        self.account_problems(&public, &mut report);
        self.validator_problems(&public, &mut report);
        problems
    }

    fn account_problems(
        &self,
        public: &BTreeSet<PublicKey>,
        report: &mut impl FnMut(String, String),
    ) {
        let mut seen = BTreeMap::new();
        let mut names = BTreeMap::new();
        let mut supply = 0u64;
        for (i, entry) in self.accounts.iter().enumerate() {
            let path = format!("accounts[{i}]");
            if let Err(error) = entry.account.check_account() {
                report(format!("{path}.address"), error.to_string());
            }
            if let Some(first) = seen.insert(entry.account, i) {
                report(format!("{path}.address"), format!("the same as accounts[{first}].address"));
            }
            if !entry.name.is_empty()
                && let Some(first) = names.insert(&entry.name, i)
            {
                report(format!("{path}.name"), format!("the same as accounts[{first}].name"));
            }
            if public.contains(&entry.account) {
                report(
                    format!("{path}.address"),
                    "its key is public, for local test networks only".to_owned(),
                );
            }
            match supply.checked_add(entry.balance.0) {
                Some(sum) => supply = sum,
                None => report(
                    format!("{path}.balance"),
                    "all balances together exceed 64 bits".to_owned(),
                ),
            }
        }
    }

    fn validator_problems(
        &self,
        public: &BTreeSet<PublicKey>,
        report: &mut impl FnMut(String, String),
    ) {
        if self.validators.is_empty() || self.validators.len() > VALIDATORS_MAX {
            report(
                "validators".to_owned(),
                format!("{}, expected 1 to {VALIDATORS_MAX}", self.validators.len()),
            );
        }
        let mut seen = BTreeMap::new();
        let mut total = 0u64;
        for (i, entry) in self.validators.iter().enumerate() {
            let path = format!("validators[{i}]");
            let keys = [
                ("key", entry.key, ValidatorKey::new(&entry.key).map(drop)),
                ("payout", entry.payout, entry.payout.check_account()),
            ];
            for (field, key, allowed) in keys {
                if let Err(error) = allowed {
                    report(format!("{path}.{field}"), error.to_string());
                }
                if public.contains(&key) {
                    report(
                        format!("{path}.{field}"),
                        "this key is public, for local test networks only".to_owned(),
                    );
                }
            }
            if let Some(first) = seen.insert(entry.key, i) {
                report(format!("{path}.key"), format!("the same as validators[{first}].key"));
            }
            if entry.power.0 == 0 {
                report(format!("{path}.power"), "0, expected at least 1".to_owned());
            }
            match total.checked_add(entry.power.0).filter(|total| *total <= VOTING_POWER_MAX) {
                Some(sum) => total = sum,
                None => report(
                    format!("{path}.power"),
                    format!("total voting power exceeds {VOTING_POWER_MAX}"),
                ),
            }
        }
    }
}

/// The public keys whose secret keys everybody can compute.
fn template_keys() -> BTreeSet<PublicKey> {
    let names = TEMPLATE_ACCOUNTS.iter().chain(&["validator"]);
    names.map(|name| SigningKey::from_seed(&template_seed(name)).public()).collect()
}

/// Checks the format. Callers do this first and report nothing else if it fails, because the format
/// determines what the other fields mean.
fn check_format(format: u32) -> Result<(), String> {
    match format {
        FORMAT => Ok(()),
        1 => Err(format!("1, expected {FORMAT}: {MADE_BY_0_1}")),
        other => Err(format!("{other}, this program knows {FORMAT}: upgrade it")),
    }
}

/// Checks the human-readable part of a network's addresses.
///
/// # Errors
/// A text that says what was found and what is expected.
pub fn check_address_prefix(prefix: &str) -> Result<(), String> {
    check_name(prefix, 16, false).map_or(Ok(()), Err)
}

fn check_name(name: &str, length_max: usize, hyphen: bool) -> Option<String> {
    let fits =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || (hyphen && byte == b'-');
    (name.is_empty() || name.len() > length_max || !name.bytes().all(fits)).then(|| {
        format!(
            "{name:?}, expected 1 to {length_max} of a-z, 0-9{}",
            if hyphen { ", -" } else { "" }
        )
    })
}

#[cfg(test)]
mod tests;
