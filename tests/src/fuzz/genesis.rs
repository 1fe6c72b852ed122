//! The target for genesis files, addresses and amounts.

use ledger::address::{decode_address, encode_address};
use ledger::chain::Chain;
use ledger::genesis::{GENESIS_BYTES_MAX, Genesis};

use super::canonical;
use super::fixture::fixture;

/// Reads a genesis as JSON and as peers send it, an address, and an amount. A value that was read
/// keeps its meaning when it is written and read again, and each valid genesis gives a chain.
pub fn genesis(data: &[u8]) -> bool {
    let json = Genesis::from_json(data);
    if let Ok(genesis) = &json {
        on_genesis(genesis);
    }
    let binary = canonical::<Genesis>(data, GENESIS_BYTES_MAX);
    if let Some(genesis) = &binary
        && genesis.problems().is_empty()
    {
        on_genesis(genesis);
    }
    let is_text = std::str::from_utf8(data).is_ok_and(on_text);
    json.is_ok() || binary.is_some() || is_text
}

fn on_genesis(genesis: &Genesis) {
    assert!(genesis.problems().is_empty(), "a genesis that was read has no problems");
    let again = Genesis::from_json(genesis.to_json().as_bytes());
    assert_eq!(again.as_ref(), Ok(genesis), "a genesis is written as it was read");
    assert_eq!(Chain::new(genesis.clone()).id(), genesis.chain_id());
}

fn on_text(text: &str) -> bool {
    let Genesis { address_prefix, coin, .. } = fixture().chain.genesis();
    let address = decode_address(address_prefix, text);
    if let Ok(key) = &address {
        assert_eq!(
            encode_address(address_prefix, key),
            text.to_ascii_lowercase(),
            "an account has one address"
        );
    }
    let amount = coin.parse(text);
    if let Ok(amount) = &amount {
        assert_eq!(
            coin.parse(&coin.format(*amount)).as_ref(),
            Ok(amount),
            "an amount is written as it was read"
        );
    }
    address.is_ok() || amount.is_ok()
}
