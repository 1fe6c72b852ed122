//! The template accounts of a genesis, whose keys are public: which of them pay for the load, and
//! which one is the faucet.
//!
//! With two accounts or more, the load and the faucet pay from different accounts, so that they
//! never compete for a nonce. With three or more, the first account is left to the user.

use anyhow::Context;
use ledger::chain::least_fee;
use ledger::codec;
use ledger::genesis::{Genesis, Limits, TEMPLATE_ACCOUNTS, template_key};
use ledger::hash::ChainId;
use ledger::signature::{PublicKey, Signature, SigningKey};
use ledger::transaction::{Body, Output, Transaction, Transfer};
use ledger::units::{Amount, Nonce, Timestamp};

/// How long a transfer stays valid, in milliseconds, if the chain allows it: longer than any
/// partition that somebody would wait for.
const LIFE_MS: u64 = 3_600_000;

/// Who pays.
pub(super) struct Payers {
    /// Accounts of the load, at least one.
    pub(super) load: Vec<SigningKey>,
    /// The account of the faucet.
    pub(super) faucet: SigningKey,
}

/// Names of the template accounts that a genesis has, in the order of the template.
pub(super) fn names(genesis: &Genesis) -> Vec<&'static str> {
    let is_template = |name: &&str| {
        let key = template_key(name).map(|key| key.public());
        genesis.find_account(name).is_some_and(|account| Some(account.account) == key)
    };
    TEMPLATE_ACCOUNTS.into_iter().filter(is_template).collect()
}

/// Keys of the template accounts that a genesis has, in the order of the template.
pub(super) fn keys(genesis: &Genesis) -> Vec<SigningKey> {
    names(genesis).into_iter().filter_map(template_key).collect()
}

impl Payers {
    /// The payers of a network.
    ///
    /// # Errors
    /// The genesis has no template account.
    pub(super) fn of(genesis: &Genesis) -> anyhow::Result<Self> {
        let keys = keys(genesis);
        let missing = || {
            format!(
                "this network has none of the template accounts ({}), so there is no key to pay \
                 with: start one whose genesis has them",
                TEMPLATE_ACCOUNTS.join(", ")
            )
        };
        let faucet = keys.last().cloned().with_context(missing)?;
        let load = match keys.as_slice() {
            [_, middle @ .., _] if !middle.is_empty() => middle.to_vec(),
            few => few.iter().take(1).cloned().collect(),
        };
        Ok(Self { load, faucet })
    }
}

/// Signs a transfer of one output with the least fee, for a recipient that may be new if `is_new`.
pub(super) fn sign(
    (chain, limits): (ChainId, &Limits),
    (key, nonce): (&SigningKey, u64),
    (account, amount): (PublicKey, Amount),
    is_new: bool,
    now_ms: u64,
) -> Transaction {
    let life_ms = LIFE_MS.min(limits.expiry_ms_max / 2);
    let mut transfer = Transfer {
        sender: key.public(),
        nonce: Nonce(nonce),
        outputs: vec![Output { account, amount }],
        fee: Amount(0),
        expires_at: Timestamp(now_ms.saturating_add(life_ms)),
        memo: Vec::new(),
    };
    // Numbers and signatures have fixed widths, so the size is known before they are chosen.
    let unsigned =
        Transaction { body: Body::Transfer(transfer.clone()), signature: Signature([0; 64]) };
    transfer.fee = least_fee(limits, codec::encode(&unsigned).len(), u64::from(is_new));
    Body::Transfer(transfer).sign(chain, key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn payers_are_apart_where_there_are_enough_accounts() {
        let template = Genesis::from_json(crate::testnet::TEMPLATE.as_bytes()).unwrap();
        let of = |names: &[&str]| {
            let mut genesis = template.clone();
            genesis.accounts.retain(|account| names.contains(&account.name.as_str()));
            Payers::of(&genesis)
        };
        let public = |name: &str| template_key(name).unwrap().public();
        for (names, load, faucet) in [
            (&["alice", "bob", "carol", "dave"][..], &["bob", "carol"][..], "dave"),
            (&["alice", "bob", "dave"], &["bob"], "dave"),
            (&["bob", "carol"], &["bob"], "carol"),
            (&["carol"], &["carol"], "carol"),
        ] {
            let payers = of(names).unwrap();
            let found: Vec<_> = payers.load.iter().map(SigningKey::public).collect();
            assert_eq!(found, load.iter().map(|name| public(name)).collect::<Vec<_>>());
            assert_eq!(payers.faucet.public(), public(faucet));
        }
        let error = of(&[]).err().unwrap().to_string();
        assert!(
            error.contains("none of the template accounts (alice, bob, carol, dave)"),
            "{error}"
        );
        // An account with the name of a template account, and another key.
        let mut other = template.clone();
        other.accounts.truncate(1);
        other.accounts[0].account = public("bob");
        assert!(Payers::of(&other).is_err());
    }
}
