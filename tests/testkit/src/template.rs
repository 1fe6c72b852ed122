//! The genesis of a local network: accounts whose secret keys everybody knows, and limits.
//! `testnet` replaces its validator and its start time.

use std::time::Duration;

use ledger::address::Coin;
use ledger::genesis::{
    FORMAT, Genesis, GenesisAccount, GenesisValidator, LOCAL_NETWORK, Limits, TEMPLATE_ACCOUNTS,
    template_seed,
};
use ledger::signature::{PublicKey, SigningKey};
use ledger::units::{Amount, Timestamp, VotingPower};

/// Balance of each account at the start: a million coins.
const BALANCE: Amount = Amount(1_000_000_000_000_000);

/// The template that is built into `cairn-node`.
#[must_use]
pub fn template() -> Genesis {
    let key = |name: &str| -> PublicKey { SigningKey::from_seed(&template_seed(name)).public() };
    let account = |name: &&str| GenesisAccount {
        name: (*name).to_owned(),
        account: key(name),
        balance: BALANCE,
    };
    let validator = key("validator");
    Genesis {
        format: FORMAT,
        network: LOCAL_NETWORK.to_owned(),
        address_prefix: "crn".to_owned(),
        coin: Coin { symbol: "CRN".to_owned(), decimals: 9 },
        start_time: Timestamp(1_767_225_600_000),
        accounts: TEMPLATE_ACCOUNTS.iter().map(account).collect(),
        validators: vec![GenesisValidator {
            name: "template".to_owned(),
            key: validator,
            payout: validator,
            power: VotingPower(10),
        }],
        limits: Limits {
            block_bytes_max: 1 << 20,
            clock_drift_ms: 1_000,
            segment_bytes: 1 << 20,
            chunk_bytes: 64 << 10,
            ..Limits::default()
        },
    }
}

/// The template with these intervals between two blocks: `empty` while there is nothing to do, and
/// `least` in any case.
pub(crate) fn with_intervals(empty: Duration, least: Option<Duration>) -> Genesis {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let mut genesis = template();
    genesis.limits.empty_block_interval_ms = ms(empty);
    if let Some(least) = least {
        genesis.limits.block_interval_ms = ms(least);
    }
    genesis
}
