use std::sync::Arc;

use super::*;
use crate::certificate::{Vote, VoteKind};
use crate::chain::ChainState;
use crate::genesis::{Genesis, GenesisAccount, GenesisValidator, Limits};
use crate::hash::Hash;
use crate::signature::SigningKey;
use crate::transaction::{Body, Output, Transfer};
use crate::units::{Amount, Nonce, Round, Timestamp, VotingPower};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// One block with three transfers, and everything that a node would show of it.
struct Shown {
    chain: Arc<Chain>,
    header: Vec<u8>,
    certificate: Vec<u8>,
    transaction: Vec<u8>,
    inclusion: Vec<u8>,
    accounts: Vec<(PublicKey, Vec<u8>, Option<Account>)>,
}

fn shown() -> Shown {
    let validator = |seed: u8| GenesisValidator {
        name: String::new(),
        key: key(seed).public(),
        payout: key(seed).public(),
        power: VotingPower(1),
    };
    let account = |seed: u8| GenesisAccount {
        name: String::new(),
        account: key(seed).public(),
        balance: Amount(1 << 40),
    };
    let chain = Chain::new(Genesis {
        format: crate::genesis::FORMAT,
        network: "local".to_owned(),
        address_prefix: "crn".to_owned(),
        coin: crate::address::Coin { symbol: "CRN".to_owned(), decimals: 9 },
        start_time: Timestamp(1_000),
        accounts: (20..30).map(account).collect(),
        validators: (1..=4).map(validator).collect(),
        limits: Limits::default(),
    });
    let transfer = |seed: u8| {
        let transfer = Transfer {
            sender: key(seed).public(),
            nonce: Nonce(0),
            outputs: vec![Output { account: key(29).public(), amount: Amount(1) }],
            fee: Amount(1 << 20),
            expires_at: Timestamp(60_000),
            memo: Vec::new(),
        };
        Body::Transfer(transfer).sign(chain.id(), &key(seed))
    };
    let transactions =
        verify_transactions(chain.id(), (20..23).map(transfer).collect()).into_iter().flatten();
    let mut state = ChainState::genesis(Arc::clone(&chain));
    let before = Certificate::genesis(chain.id());
    let block = state.propose(key(1).public(), Timestamp(2_000), before, transactions);
    state.advance(&block);
    let precommit = |seed: u8| {
        let vote = Vote {
            kind: VoteKind::Precommit,
            height: block.height(),
            round: Round(0),
            block: Some(block.hash()),
            validator: key(seed).public(),
        };
        (vote.validator, key(seed).sign(&vote.message(chain.id())))
    };
    let validators = chain.validators(block.height());
    let certificate = Certificate::new(
        block.height(),
        Round(0),
        block.hash(),
        validators,
        (1..=3).map(precommit),
    );
    let hashes: Vec<Hash> =
        block.block().transactions.iter().map(|transaction| transaction.hash().0).collect();
    let accounts = [20, 29, 99].map(|seed| {
        let account = StateKey::account(key(seed).public());
        (
            key(seed).public(),
            codec::encode(&state.state().prove(&account)),
            state.state().get(&account).copied(),
        )
    });
    Shown {
        header: codec::encode(block.header()),
        certificate: codec::encode(&certificate),
        transaction: codec::encode(block.block().transactions[1].transaction()),
        inclusion: codec::encode(&merkle::prove(&hashes, 1).unwrap()),
        accounts: accounts.to_vec(),
        chain,
    }
}

#[test]
fn what_a_node_shows_is_proved() {
    let shown = shown();
    let header = FinalHeader::verify(&shown.chain, &shown.header, &shown.certificate).unwrap();
    assert_eq!((header.header().height, header.hash()), (Height(1), header.header().hash()));
    for (key, proof, account) in &shown.accounts {
        assert_eq!(header.account(key, proof), Ok(*account));
    }
    assert_eq!(shown.accounts[2].2, None, "absence is proved too");
    let transaction =
        header.transaction(&shown.chain, &shown.transaction, &shown.inclusion).unwrap();
    assert_eq!(transaction.transfer().sender, key(21).public());
}

#[test]
fn no_changed_byte_passes() {
    let shown = shown();
    let good = FinalHeader::verify(&shown.chain, &shown.header, &shown.certificate).unwrap();
    let each = |bytes: &[u8], passes: &dyn Fn(&[u8]) -> bool| {
        for place in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[place] ^= 1 << (place % 8);
            assert!(!passes(&changed), "byte {place}");
        }
        assert!(!passes(&bytes[1..]) && !passes(&[bytes, &[0]].concat()) && passes(bytes));
    };
    each(&shown.header, &|bytes| {
        FinalHeader::verify(&shown.chain, bytes, &shown.certificate).is_ok()
    });
    each(&shown.certificate, &|bytes| {
        FinalHeader::verify(&shown.chain, &shown.header, bytes).is_ok()
    });
    each(&shown.transaction, &|bytes| {
        good.transaction(&shown.chain, bytes, &shown.inclusion).is_ok()
    });
    each(&shown.inclusion, &|bytes| {
        good.transaction(&shown.chain, &shown.transaction, bytes).is_ok()
    });
    for (key, proof, _) in &shown.accounts {
        each(proof, &|bytes| good.account(key, bytes).is_ok());
    }
}

#[test]
fn errors_say_what_was_wrong() {
    let shown = shown();
    let good = FinalHeader::verify(&shown.chain, &shown.header, &shown.certificate).unwrap();
    let mut old = shown.header.clone();
    old[0] = 1;
    let verify =
        |header: &[u8]| FinalHeader::verify(&shown.chain, header, &shown.certificate).map(drop);
    assert_eq!(verify(&old), Err(LightError::Version(1)));
    assert!(matches!(verify(&[]), Err(LightError::Bytes { what: "header", .. })));
    let (other, proof) = (&shown.accounts[1].0, &shown.accounts[0].1);
    assert!(matches!(good.account(other, proof), Err(LightError::Account(_))));
    let mut forged = shown.transaction.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(
        good.transaction(&shown.chain, &forged, &shown.inclusion).map(drop),
        Err(LightError::Signature)
    );
}
